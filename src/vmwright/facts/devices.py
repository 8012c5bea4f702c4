"""Who uses the PCI devices of a host: what stands on their disks, what goes by their interfaces, and VMs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vmwright.facts.model import BlockFacts, DeviceFacts, DomainFacts, LinkFacts, Use, UseFacts
from vmwright.facts.pci import Seen
from vmwright.facts.storage import SWAP

_LVM = "LVM2_member"
MEMBERS = ("linux_raid_member", "zfs_member", "bcache")  # signatures of what is put together of several devices
_PARTS = ("disk", "part")
_RAID_KINDS = ("raid", "md", "linear")


@dataclass(frozen=True)
class Around:
    """What other probes tell. `disk_links` are devices by the paths below /dev/disk that lead to them."""

    blocks: Sequence[BlockFacts]
    links: Sequence[LinkFacts]
    addresses: Mapping[str, str]  # interfaces by the host's addresses, of both families
    domains: Sequence[DomainFacts]
    disk_links: Mapping[str, str]


def with_uses(seen: Seen, around: Around) -> tuple[DeviceFacts, ...]:
    """The devices with their uses, each use once."""
    return tuple(replace(device, uses=tuple(dict.fromkeys(_uses(device, seen, around)))) for device in seen.devices)


def _uses(device: DeviceFacts, seen: Seen, around: Around) -> Iterator[UseFacts]:
    above = _above(device.blocks, around.blocks)
    for block in above:
        yield from _block_uses(block)
        if block.path in seen.btrfs and not block.mounts:  # of several devices, one is told as mounted
            yield UseFacts(Use.RAID, block.path, "btrfs")
    yield from _disk_uses({block.path for block in above} | set(device.blocks), around)
    for name in device.links:
        yield from _link_uses(name, seen, around)
    for domain in around.domains:
        if any(device.address in config.hostdevs for config in (domain.persistent, domain.live) if config):
            yield UseFacts(Use.VM, domain.name)


# -- disks ------------------------------------------------------------------------------------------------------------

def _above(paths: Iterable[str], blocks: Iterable[BlockFacts]) -> list[BlockFacts]:
    """Those block devices, and all that stands on them. Parents come before what stands on them, as lsblk has it."""
    found: dict[str, BlockFacts] = {}
    wanted = set(paths)
    for block in blocks:
        if block.path in wanted or any(parent in found for parent in block.parents):
            found[block.path] = block
    return list(found.values())


def _block_uses(block: BlockFacts) -> Iterator[UseFacts]:
    for place in block.mounts:
        yield UseFacts(Use.SWAP, block.path) if place == SWAP else UseFacts(Use.MOUNT, block.path, place)
    if block.vg or _LVM in block.signatures:
        yield UseFacts(Use.LVM, block.path, block.vg or "")
    if block.kind.startswith(_RAID_KINDS):
        yield UseFacts(Use.RAID, block.path)
    elif block.kind not in (*_PARTS, "lvm"):
        yield UseFacts(Use.HOLDER, block.path)
    if member := next((kind for kind in block.signatures if kind in MEMBERS), None):
        yield UseFacts(Use.RAID, block.path, member)


def _disk_uses(paths: set[str], around: Around) -> Iterator[UseFacts]:
    """VMs that have one of these block devices as a disk, by whichever of its paths."""
    for domain in around.domains:
        for config in (domain.persistent, domain.live):
            for disk in config.disks if config else ():
                if disk.path and (disk.path in paths or around.disk_links.get(disk.path) in paths):
                    yield UseFacts(Use.DISK, domain.name, disk.path)


def parse_disk_links(text: str) -> dict[str, str]:
    """Devices by the paths below /dev/disk that lead to them, from find."""
    rows = (line.split("\t") for line in text.splitlines() if line.count("\t") == 1)
    return {path: f"/dev/{target.rpartition('/')[2]}" for path, target in rows}


# -- interfaces -------------------------------------------------------------------------------------------------------

def _link_uses(name: str, seen: Seen, around: Around) -> Iterator[UseFacts]:
    """Of an interface: what goes by it, or by one that stands on it, like a bridge."""
    standing = _standing(name, seen.lower)
    yield from (UseFacts(Use.ROUTE, name, link) for link in seen.routes if link in standing)
    if seen.session and around.addresses.get(seen.session) in standing:
        yield UseFacts(Use.SESSION, name, seen.session)
    yield from (UseFacts(Use.LINK, name, link) for link in standing[1:])
    for link in around.links:
        if link.name == name:
            yield from (UseFacts(Use.LINK, name, address) for address in link.addresses)


def _standing(name: str, lower: Mapping[str, Sequence[str]]) -> list[str]:
    """The interface, and all that stand on it."""
    found = [name]
    for below in found:  # grows meanwhile
        found += [link for link, under in lower.items() if below in under and link not in found]
    return found


def parse_addresses(text: str) -> dict[str, str]:
    """Interfaces by the host's addresses of both families, from `ip -json address`. Raises ValueError."""
    rows = json.loads(text or "[]")
    return {address["local"]: row["ifname"] for row in rows for address in row.get("addr_info", ())
            if "local" in address and "ifname" in row}
