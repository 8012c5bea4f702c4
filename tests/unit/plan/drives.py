"""PCI devices of the simulated host: drivers that have them, and what is on them; the commands of host.pci on them.

What a guest has written must not be lost without its having been given up, nor read by another guest without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from vmwright.facts import domains, pci
from vmwright.facts.model import BlockFacts, DeviceFacts, Held, HeldFacts, IommuFacts, Use, UseFacts
from vmwright.host.run import Completed
from vmwright.names import DEVICE_NOTES
from vmwright.units import GIB

WORDS = ("look", "release", "zero", "blank", "settle")
SIZE = 2 * GIB


@dataclass
class Drive:
    """A device. `written` is the VM whose data is on it, "" for none; `half`: a wipe was begun and has not ended."""

    serial: str = ""
    kind: str = "010802"
    native: str = "nvme"
    driver: str = ""
    group: int | None = None
    node: int | None = None
    written: str = ""
    half: bool = False
    user: str = ""
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.driver = self.driver or self.native


def of(xml: str | None) -> tuple[str, ...]:
    """The devices in a domain's XML."""
    return domains.parse_domain(xml, None, "shut off", False).persistent.hostdevs if xml else ()


def plug(drives: Mapping[str, Drive], vm: str, addresses: Iterable[str]) -> None:
    """A guest gets them."""
    for address in addresses:
        drive = drives[address]
        assert not drive.user, f"{vm} gets {address}, which {drive.user} has"
        assert not drive.half, f"{vm} gets {address}, which is wiped in part"
        drive.driver, drive.user = "vfio-pci", vm


def unplug(drives: Mapping[str, Drive], addresses: Iterable[str]) -> None:
    """libvirt gives them back."""
    for address in addresses:
        drives[address].driver, drives[address].user = drives[address].native, ""


def use(drives: Mapping[str, Drive]) -> None:
    """Guests write on the drives that they have."""
    for drive in drives.values():
        drive.written = drive.user or drive.written


def facts(drives: Mapping[str, Drive], files: Mapping[str, Any], defined: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What gathering would find of them; nothing on a host that has none."""
    if not drives:
        return {}
    holders = [(name, {*of(domain.persistent), *of(domain.live)}) for name, domain in defined]
    found = [_device(address, drive, [name for name, had in holders if address in had])
             for address, drive in drives.items()]
    blocks = tuple(BlockFacts(device.blocks[0], SIZE, "disk", serial=device.serial,
                              signatures=("ext4",) if drives[device.address].written else ())
                   for device in found if device.blocks)
    return {"devices": tuple(found), "iommu": IommuFacts(True, "DMAR"), "blocks": blocks,
            "held": notes(files)}


def notes(files: Mapping[str, Any]) -> tuple[HeldFacts, ...]:
    """The notes about devices."""
    found = [json.dumps(json.loads(cast(bytes, data))) for path, data in files.items() if path.startswith(DEVICE_NOTES)]
    return pci.parse_notes("\n".join(found))


def _device(address: str, drive: Drive, holders: list[str]) -> DeviceFacts:
    home = drive.driver == drive.native
    storage = drive.kind.startswith("01")
    return DeviceFacts(
        address, "144d:a80a", drive.kind, driver=drive.driver, numa_node=drive.node,
        group=drive.group if drive.group is not None else int(address[5:7], 16), peers=drive.peers,
        serial=(drive.serial or None) if home or not storage else None,
        blocks=(disk(address),) if home and storage else (), uses=tuple(UseFacts(Use.VM, name) for name in holders))


def disk(address: str) -> str:
    """The path of a drive."""
    return f"/dev/nvme-{address}"


def run(machine: Any, argv: Sequence[str]) -> Completed:
    """A command of host.pci."""
    word, where = argv[3], argv[4] if len(argv) > 4 else ""
    address = where.removeprefix("/dev/nvme-")
    drive = machine.drives.get(address)
    said = ""
    match word:
        case "look":
            home = drive.driver == drive.native
            said = f"device\t{drive.driver}\t{drive.serial if home else ''}\n"
            if home and drive.kind.startswith("01"):
                said += f"disk\t{disk(address)}\t{SIZE}\n"
                said += json.dumps({"blockdevices": [{"path": disk(address), "type": "disk"}]})
        case "release":
            assert not drive.user, f"{address} is taken from {drive.user} while it runs"
            drive.driver = drive.native
        case "zero":
            _zero(machine, address, drive)
        case "blank":
            return Completed(tuple(argv), int(bool(drive.written or drive.half)), b"", b"")
    return Completed(tuple(argv), 0, said.encode(), b"")


def _zero(machine: Any, address: str, drive: Drive) -> None:
    """Killed in the middle, a half stays; that it was begun is known from the note."""
    assert drive.driver == drive.native
    assert not drive.written or address in machine.given_up or drive.half, f"data of {drive.written} lost: {address}"
    assert {note.address: note.state for note in notes(machine.files)}[address] is Held.WIPING
    drive.half = True
    machine.step()
    drive.half, drive.written = False, ""
