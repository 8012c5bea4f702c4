"""PCI devices on a host, their drivers and what is on their disks: argv builders, and parsers of the answers. Pure.

Sources: the kernel's Documentation/ABI/testing/sysfs-bus-pci (driver_override, unbind, drivers_probe), the manual pages
of util-linux 2.38 and coreutils 9.1; what they leave open was tried on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vmwright.units import MIB

_CHUNK = 256 * MIB  # zeros are written in chunks: after each it is told how far it is
_SAMPLE = MIB
_SAMPLES = 32  # besides those at both ends
_OURS = ("disk", "part")  # lsblk's types of what is the device's own


@dataclass(frozen=True)
class Standing:
    """A disk, a partition, or what stands on one: its path, lsblk's type, what is on it, where it is mounted."""

    path: str
    kind: str
    content: str = ""
    mount: str = ""


@dataclass(frozen=True)
class Look:
    """A device as it is now: driver, serial (of an NVMe drive), disks with sizes in bytes, and what stands on them."""

    driver: str | None = None
    serial: str | None = None
    disks: tuple[tuple[str, int], ...] = ()
    above: tuple[Standing, ...] = ()

    @property
    def uses(self) -> tuple[str, ...]:
        """What keeps it from being given away, in words. Volumes of LVM that are not mounted are none."""
        rows = [f"{row.path} is swap space in use" if row.mount == "[SWAP]" else f"{row.path} is mounted at {row.mount}"
                for row in self.above if row.mount]
        others = (row for row in self.above if row.kind not in (*_OURS, "lvm"))
        return (*rows, *(f"{row.path} ({row.kind}) stands on it" for row in others))

    @property
    def members(self) -> tuple[str, ...]:
        """Physical volumes on it, while volumes of theirs are active."""
        active = any(row.kind == "lvm" for row in self.above)
        return tuple(row.path for row in self.above if active and row.content == "LVM2_member" and row.kind in _OURS)


_LOOK = r"""
dir=/sys/bus/pci/devices/$1
[ -d "$dir" ] || exit 3
driver= serial= disks=
cd -P "$dir/driver" 2>/dev/null && driver=${PWD##*/}
for file in "$dir"/nvme/*/serial; do [ ! -r "$file" ] || read -r serial <"$file"; done
printf 'device\t%s\t%s\n' "$driver" "$serial"
for block in /sys/block/*; do
  cd -P "$block/device" 2>/dev/null || continue
  for path in "$PWD" "$PWD"/nvme*; do
    [ "$path" = "$PWD" ] || [ -L "$path" ] || continue
    at=$(cd -P "$path" && pwd -P)
    case $at/ in */"$1"/*) ;; *) continue ;; esac
    read -r sectors <"$block/size"
    [ "$sectors" -gt 0 ] || continue
    name=$(printf %s "${block##*/}" | tr '!' /)
    printf 'disk\t/dev/%s\t%s\n' "$name" "$((sectors * 512))"
    disks="$disks /dev/$name"
    break
  done
done
[ -z "$disks" ] || lsblk --json --output PATH,TYPE,FSTYPE,MOUNTPOINT $disks
"""


def look(address: str) -> list[str]:
    """See how a device is now (`parse_look`). Code 3: it is not there."""
    return ["sh", "-c", _LOOK, "look", address]


def parse_look(text: str) -> Look:
    """What `look` says. Raises ValueError."""
    head, brace, rest = text.partition("{")
    rows = [line.split("\t") for line in head.splitlines() if line]
    device = next((row for row in rows if row[0] == "device" and len(row) == 3), None)
    if device is None:
        raise ValueError(f"nothing about the device: {text[:100]!r}")
    tree = json.loads(brace + rest)["blockdevices"] if brace else []
    return Look(device[1] or None, device[2].strip() or None,
                tuple((path, int(size)) for kind, path, size in (row for row in rows if row[0] == "disk")),
                tuple(dict.fromkeys(_standing(tree))))


def _standing(rows: Iterable[dict[str, Any]]) -> Iterator[Standing]:
    for row in rows:
        yield Standing(row["path"], row["type"], row.get("fstype") or "", row.get("mountpoint") or "")
        yield from _standing(row.get("children", ()))


_RELEASE = r"""
cd "/sys/bus/pci/devices/$1" || exit
echo >driver_override
[ ! -e driver ] || echo "$1" >driver/unbind
echo "$1" >/sys/bus/pci/drivers_probe
"""


def release(address: str) -> list[str]:
    """Take a device from the driver that guests get theirs by, and let the kernel find its own."""
    return ["sh", "-c", _RELEASE, "release", address]


def settle() -> list[str]:
    """Wait until udev has looked at what has just appeared; without udev there is nothing to wait for."""
    return ["sh", "-c", "command -v udevadm >/dev/null || exit 0; udevadm settle --timeout=20", "settle"]


def group_of(members: Sequence[str]) -> list[str]:
    """The volume groups of these physical volumes, one a line."""
    return ["lvm", "pvs", "--noheadings", "--options", "vg_name", "--", *members]


def members_of(group: str) -> list[str]:
    """The physical volumes of a group, one a line."""
    return ["lvm", "vgs", "--noheadings", "--options", "pv_name", "--", group]


def deactivate(group: str) -> list[str]:
    """Let go of a group's volumes. LVM refuses when one of them is open."""
    return ["lvm", "vgchange", "--activate", "n", "--", group]


# blkdiscard opens the disk exclusively each time: it fails on what is mounted, or below anything else.
_ZERO = r"""
at=0
size=$(blockdev --getsize64 "$1") || exit
while [ "$at" -lt "$size" ]; do
  length=$((size - at))
  [ "$length" -le "$2" ] || length=$2
  blkdiscard --zeroout --offset "$at" --length "$length" -- "$1" || exit
  at=$((at + length))
  echo "zeroed $at of $size"
done
blockdev --flushbufs "$1" && { blockdev --rereadpt "$1" 2>/dev/null || :; }
"""


def zero(disk: str) -> list[str]:
    """Write zeros over a whole disk, or have it do so itself where it promises that they are read then (BLKZEROOUT).

    Says how far it is (`zeroed`). Fails on a disk that is in use.
    """
    return ["sh", "-c", _ZERO, "zero", disk, str(_CHUNK)]


def zeroed(line: str) -> int | None:
    """Bytes that are done, from a line of `zero`; None for any other."""
    words = line.split()
    return int(words[1]) if len(words) == 4 and words[0] == "zeroed" and words[1].isdigit() else None


# Past the page cache: what is read is what the disk has. A sample that cannot be read is not all zeros either.
_BLANK = r"""
disk=$1; size=$2; shift 2
for at in "$@"; do
  dd if="$disk" bs=64K count=$((size / 65536)) skip="$at" iflag=direct,skip_bytes,fullblock status=none |
    cmp -s -n "$size" - /dev/zero || { echo "at byte $at it is not all zeros"; exit 1; }
done
found=$(wipefs --no-act --noheadings --output TYPE -- "$disk") || exit
[ -z "$found" ] || { echo "wipefs finds $found"; exit 1; }
"""


def blank(disk: str, size: int) -> list[str]:
    """Does a disk read as zeros: at both ends, and at places spread over it; and does wipefs find nothing?"""
    return ["sh", "-c", _BLANK, "blank", disk, str(_SAMPLE), *map(str, samples(size))]


def samples(size: int) -> list[int]:
    """Where a disk of so many bytes is read: both ends, and in between at equal distances, in whole samples."""
    last = max(0, size - _SAMPLE)
    spread = (last * number // (_SAMPLES + 1) // _SAMPLE * _SAMPLE for number in range(_SAMPLES + 2))
    return sorted({*spread, last})
