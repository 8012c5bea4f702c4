"""The disks of a guest as the guest sees them: one script that asks, and a pure parser of what it prints.

Works with util-linux from 2.32 (EL 8) on: what its lsblk cannot say (where a partition starts, its number, all the
places where it is mounted) comes from /sys and /proc, and what lsblk takes from udev is asked of blkid, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmwright.errors import GuestError
from vmwright.guest.cloudinit import sections

SECTOR = 512  # what /sys counts in, whatever the disk's own sectors are
TOOLS = ("growpart", "sfdisk", "sgdisk", "partx", "resize2fs", "xfs_growfs", "btrfs", "pvresize", "lvextend")
READ = f"""\
say() {{ printf '==%s==\\n' "$1"; }}
columns=NAME,KNAME,TYPE,SIZE,FSTYPE,PTTYPE,SERIAL
say lsblk; lsblk -J -b -o $columns,MOUNTPOINTS 2>/dev/null || lsblk -J -b -o $columns,MOUNTPOINT
say sys; cd /sys/class/block && grep -s . */start */partition */serial
say by-id
for link in /dev/disk/by-id/virtio-*; do printf '%s %s\\n' "${{link##*/virtio-}}" "$(readlink -f "$link")"; done
say mounts; cat /proc/self/mounts
say blkid; blkid -c /dev/null -o export
for disk in $(lsblk -d -n -p -e 2,11 -o NAME); do echo; blkid -p -o export "$disk"; done
say btrfs; btrfs filesystem show 2>/dev/null
say tools; for tool in {" ".join(TOOLS)}; do command -v $tool; done
exit 0
"""


@dataclass(frozen=True)
class Block:
    """A block device and what stands on it. `size` is bytes, `start` sectors of 512 bytes, `number` the partition's.

    `type` is lsblk's: disk, part, lvm, crypt, ...; `table` is gpt or dos; `fstype` is blkid's name for its content.
    """

    name: str  # of the kernel: vda1, dm-0
    path: str
    type: str
    size: int
    fstype: str = ""
    table: str = ""
    serial: str = ""
    mounts: tuple[str, ...] = ()
    start: int | None = None
    number: int | None = None
    children: tuple[Block, ...] = ()

    def all(self) -> Iterator[Block]:
        """This device and everything that stands on it."""
        yield self
        for child in self.children:
            yield from child.all()

    def holds(self, mount: str) -> bool:
        """Whether `mount` is on this device or on something that stands on it."""
        return any(mount in block.mounts for block in self.all())

    @property
    def partitions(self) -> tuple[Block, ...]:
        """The partitions, in the order in which they lie on the disk."""
        return tuple(sorted((c for c in self.children if c.type == "part"), key=lambda part: part.start or 0))


@dataclass(frozen=True)
class Layout:
    """All disks of a guest, and which of TOOLS it has. `btrfs` is the device id of every path that btrfs knows."""

    disks: tuple[Block, ...]
    links: Mapping[str, str] = field(default_factory=dict)  # virtio serial -> path
    tools: frozenset[str] = frozenset()
    btrfs: Mapping[str, int] = field(default_factory=dict)

    def find(self, serial: str) -> Block:
        """The disk with that serial (virtio keeps 20 characters of it). GuestError when the guest has none."""
        for disk in self.disks:
            if serial[:20] in (disk.serial[:20], *(s[:20] for s, path in self.links.items() if path == disk.path)):
                return disk
        seen = ", ".join(f"{disk.path} ({disk.serial or 'no serial'})" for disk in self.disks) or "no disk at all"
        raise GuestError(f"the guest has no disk with the serial {serial}", why=f"it sees {seen}",
                         todo="restart the VM, if the disk was added while it ran")

    def at(self, path: str) -> Block:
        """The disk at that path in the guest."""
        for disk in self.disks:
            if disk.path == path:
                return disk
        raise GuestError(f"the guest has no disk {path}")


def parse(text: str) -> Layout:
    """The layout from the output of READ. Raises GuestError when it cannot be read."""
    said = sections(text)
    try:
        devices = json.loads(said["lsblk"])["blockdevices"]
    except (KeyError, ValueError) as error:
        words = said.get("lsblk", "")[:300] or "nothing"
        raise GuestError("the guest's disks cannot be read", why=f"lsblk said: {words}",
                         todo="the guest needs lsblk with -J (util-linux 2.27 or later)") from error
    groups = _btrfs(said.get("btrfs", ""))
    mounts = _mounts(said.get("mounts", ""))
    for group in groups:  # a btrfs of several devices is mounted by the name of one of them
        everywhere = [mount for path in group for mount in mounts.get(path, ())]
        mounts |= dict.fromkeys(group, everywhere)
    sources = _Sources(_sys(said.get("sys", "")), mounts, _blkid(said.get("blkid", "")))
    disks = tuple(_block(device, sources) for device in devices if device["type"] in ("disk", "loop"))
    links = dict(line.split(" ", 1) for line in said.get("by-id", "").splitlines() if " " in line)
    tools = frozenset(line.rsplit("/", 1)[-1] for line in said.get("tools", "").splitlines())
    return Layout(disks, links, tools, {path: number for group in groups for path, number in group.items()})


@dataclass(frozen=True)
class _Sources:
    sys: Mapping[str, str]  # "vda1/start" -> "2048"
    mounts: Mapping[str, Sequence[str]]  # source path -> mount points
    blkid: Mapping[str, Mapping[str, str]]  # path -> TYPE, PTTYPE, ...


def _block(device: Mapping[str, Any], sources: _Sources) -> Block:
    name = str(device.get("kname") or device["name"])
    path = f"/dev/mapper/{device['name']}" if name.startswith("dm-") else f"/dev/{name}"
    told = [device.get("mountpoint"), *(device.get("mountpoints") or ())]
    mounts = dict.fromkeys([*(one for one in told if one), *sources.mounts.get(path, ())])
    content = sources.blkid.get(path, {})
    return Block(
        name=name, path=path, type=str(device["type"]), size=int(device["size"]),
        fstype=content.get("TYPE") or device.get("fstype") or "",
        table=content.get("PTTYPE") or device.get("pttype") or "",
        serial=(device.get("serial") or sources.sys.get(f"{name}/serial") or "").strip(), mounts=tuple(mounts),
        start=_number(sources.sys.get(f"{name}/start")), number=_number(sources.sys.get(f"{name}/partition")),
        children=tuple(_block(child, sources) for child in device.get("children") or ()),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None else None


def _sys(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _blkid(text: str) -> dict[str, dict[str, str]]:
    """Blocks of KEY=value lines, an empty line between two; a device may come again with more."""
    devices: dict[str, dict[str, str]] = {}
    for block in text.split("\n\n"):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        devices.setdefault(told.pop("DEVNAME", ""), {}).update(told)
    return devices


def _btrfs(text: str) -> list[dict[str, int]]:
    """The file systems of `btrfs filesystem show`: for each, the ids of its devices by path."""
    return [{path: int(number) for number, path in re.findall(r"devid\s+(\d+) .* path (\S+)", part)}
            for part in re.split(r"^Label:", text, flags=re.MULTILINE)[1:]]


def _mounts(text: str) -> dict[str, list[str]]:
    """Mount points by what is mounted there; lsblk before 2.37 tells only one of them. Spaces come as \\040."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        source, _, rest = line.partition(" ")
        mount = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), rest.partition(" ")[0])
        if source.startswith("/dev/"):
            found.setdefault(source, []).append(mount)
    return found
