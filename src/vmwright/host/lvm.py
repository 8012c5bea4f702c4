"""LVM on a host: argv builders, and how to read their progress. Pure.

Sources are the manual pages of lvm2 2.03, util-linux 2.38 and qemu-img 7.2; what they leave open was tried on them.
All of these are to run with standard input closed: LVM takes that for "no" to every question that it has. Sizes are
bytes; LVM wants multiples of 512, and deals in whole extents (lvcreate(8), lvextend(8)): both are rounded up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SECTOR = 512
_STEP = 64 << 20  # zeros are written in steps: between two of them a command can be stopped, and says how far it is
_DISCARD_STEP = 1 << 30  # as large as the largest chunk of a thin pool: of a part of one nothing would be given back
_PERCENT = re.compile(r"\(\s*(\d+(?:\.\d+)?)/100%\)")


# -- groups -----------------------------------------------------------------------------------------------------------

def wipe(disk: str) -> list[str]:
    """Take every signature and the partition table off a disk or partition: for one whose content may be taken.

    Without --force, wipefs(8) opens it exclusively: it fails on what is mounted, is swap in use, is below an active
    volume, or is a disk with such a partition. What it leaves (a partition table inside a partition), pvcreate takes.
    """
    return ["wipefs", "--all", "--", disk]


def pvcreate(disk: str, *, wipe: bool = False) -> list[str]:
    """Make a disk or partition a physical volume.

    Fails when anything is on it: pvcreate(8) asks for each signature that it finds, and to be asked is a "no" here; it
    refuses what is mounted, partitioned or in use. `wipe` is "yes" to those questions. A disk of a volume group is
    refused all the same (only -ff would take it, which is never given).
    """
    return ["lvm", "pvcreate", *(["--yes"] if wipe else []), "--", disk]


def vgcreate(group: str, disks: Sequence[str]) -> list[str]:
    """Make a volume group of physical volumes; fails when there is one of that name."""
    return ["lvm", "vgcreate", "--", group, *disks]


def vgextend(group: str, disks: Sequence[str]) -> list[str]:
    """Add physical volumes to a group."""
    return ["lvm", "vgextend", "--", group, *disks]


# -- volumes ----------------------------------------------------------------------------------------------------------

def create_thin_pool(group: str, name: str, size: int = 0, metadata: int = 0, *, chunk: int = 0) -> list[str]:
    """Make a thin pool. 0: all that is free, and LVM's choice of metadata and chunk size.

    New blocks are zeroed, so that nobody can read what was there before (lvmthin(7), "Zeroing"). dmeventd watches how
    full it is. When it is full, writes fail at once, instead of hanging for a minute and failing then: QEMU pauses a VM
    whose disk has no room left, and it goes on when there is some. lvcreate knows no option for that, only a setting
    (lvm.conf(5), activation/error_when_full).
    """
    room = _size(size) if size else ["--extents", "100%FREE"]
    own = ["--poolmetadatasize", _bytes(metadata)] if metadata else []
    own += ["--chunksize", _bytes(chunk)] if chunk else []
    return ["lvm", "lvcreate", "--yes", "--type", "thin-pool", "--zero", "y", "--monitor", "y", *own,
            "--config", "activation/error_when_full=1", *room, "--name", name, "--", group]  # fmt: skip


def create(group: str, name: str, size: int) -> list[str]:
    """Make a thick volume. Only its beginning is zeroed: the rest is what was there before, and has to be written."""
    return ["lvm", "lvcreate", "--yes", "--type", "linear", "--wipesignatures", "y", "--zero", "y", *_size(size),
            "--name", name, "--", group]  # fmt: skip


def create_thin(group: str, pool: str, name: str, size: int) -> list[str]:
    """Make an empty thin volume: it reads as zeros."""
    return ["lvm", "lvcreate", "--yes", "--type", "thin", "--thinpool", pool, "--virtualsize", _bytes(size),
            "--name", name, "--", group]  # fmt: skip


def snapshot(group: str, origin: str, name: str) -> list[str]:
    """Make a thin snapshot of a thin volume, and activate it.

    It does not depend on its origin, which may be removed. LVM marks snapshots as not to be activated, neither now nor
    at boot, unless told otherwise (lvmthin(7), "Thin snapshot activation"). A thick origin is an error: there is no
    size.
    """
    return ["lvm", "lvcreate", "--yes", "--snapshot", "--setactivationskip", "n", "--activate", "y", "--name", name,
            "--", f"{group}/{origin}"]  # fmt: skip


def activate(group: str, name: str) -> list[str]:
    """Make a volume's device appear, also that of a snapshot that is marked to be skipped."""
    return ["lvm", "lvchange", "--activate", "y", "--ignoreactivationskip", "--", f"{group}/{name}"]


def extend(group: str, name: str, size: int) -> list[str]:
    """Make a volume at least this large, in use or not. Code 5 when it is larger already, or there is no room."""
    return ["lvm", "lvextend", *_size(size), "--", f"{group}/{name}"]


# Room that is free for a moment may be taken by somebody else: then lvextend fails, and nothing is lost. Discarded, it
# might not read as zeros any more.
_HAND_OVER = """
group=$1 from=$2 to=$3
ranges=$(lvm lvs --noheadings --options seg_pe_ranges -- "$group/$from") || exit
extents=$(lvm lvs --noheadings --units b --nosuffix --options lv_size -- "$group/$from") || exit
lvm lvremove --yes --config devices/issue_discards=0 -- "$group/$from" || exit
exec lvm lvextend --size "+$((extents))b" -- "$group/$to" $ranges
"""


def hand_over(group: str, giver: str, taker: str) -> list[str]:
    """Remove a thick volume, and make another larger by the very room that it had, in use or not."""
    return ["sh", "-c", _HAND_OVER, "hand-over", group, giver, taker]


def rename(group: str, old: str, new: str) -> list[str]:
    """Give a volume another name, in use or not, in one step; fails when that is taken."""
    return ["lvm", "lvrename", "--", group, old, new]


def remove(group: str, name: str) -> list[str]:
    """Remove a volume. LVM refuses one that is in use."""
    return ["lvm", "lvremove", "--yes", "--", f"{group}/{name}"]


# lvs alone ends with the same code when there is no such volume and when it could not look.
_EXISTS = """
found=$(lvm lvs --noheadings --options lv_name --select "lv_name = \\"$2\\"" -- "$1") || exit 2
[ -n "$found" ]
"""


def exists(group: str, name: str) -> list[str]:
    """Is there a volume of that name, active or not? Code 0: yes, 1: no, 2: LVM could not tell (no such group, ...)."""
    return ["sh", "-c", _EXISTS, "exists", group, name]


# udev looks at each device that somebody has written to, and has it open while it does.
_OPENED = """
udevadm settle --timeout=30 2>/dev/null
exec lvm lvs --noheadings --options lv_device_open -- "$1/$2"
"""


def opened(group: str, name: str) -> list[str]:
    """Says "open" when somebody has a volume's device open."""
    return ["sh", "-c", _OPENED, "opened", group, name]


# -- content ----------------------------------------------------------------------------------------------------------

def copy(source: str, format: str, target: str, *, zero: bool) -> list[str]:
    """Copy an image or a volume to a new volume at least as large. Says how far it is: `progress`.

    On a thick volume no byte of an earlier owner is left where the source reaches: with -n and without --target-is-zero
    qemu-img takes nothing for zero, and for each hole and each run of zeros has the kernel write zeros (qemu-img.c,
    convert_co_write: blk_co_pwrite_zeroes; block/file-posix.c: fallocate(PUNCH_HOLE), which block devices only do where
    it guarantees zeros, else BLKZEROOUT). What is behind the source's end is for `zero`. With `zero`, the target reads
    as zeros already, as a thin volume does that was just made: it stays thin (--target-is-zero, since QEMU 5.0).

    -W (writes out of order) is for devices like these, and faster; -t none goes past the page cache and, unlike the
    default "unsafe", ends with a flush: the copy is on the disk when the command is done. Files are read through the
    cache, as not every file system can do without.
    """
    direct = ["-T", "none"] if source.startswith("/dev/") else []
    holes = ["--target-is-zero"] if zero else []
    return ["qemu-img", "convert", "-n", "-p", "-W", "-t", "none", *direct, *holes, "-f", format, "-O", "raw",
            source, target]  # fmt: skip


def progress(line: str) -> float | None:
    """How much of a copy is done, 0 to 1, from a line of `qemu-img convert -p`; None for any other line."""
    found = _PERCENT.findall(line)
    return min(float(found[-1]) / 100, 1.0) if found else None


_BY_STEPS = """
device=$1 at=$2 step=$3
shift 3
end=$(blockdev --getsize64 "$device") || exit
while [ "$at" -lt "$end" ]; do
  next=$((at + step))
  [ "$next" -le "$end" ] || next=$end
  blkdiscard "$@" --offset "$at" --length "$((next - at))" -- "$device" || exit
  at=$next
  echo "done $at of $end"
done
"""
_DONE = re.compile(r"done (\d+) of (\d+)")


def zero(path: str, offset: int = 0) -> list[str]:
    """Make all of a device from `offset` on read as zeros for certain. Says how far it is: `cleared`.

    BLKZEROOUT (blkdiscard(8), --zeroout): by the device's own command where it has one that guarantees zeros, else
    written. `offset` must be a multiple of the device's sectors; blkdiscard fails if not, and when the device is
    mounted or otherwise in exclusive use.
    """
    return ["sh", "-c", _BY_STEPS, "zero", path, str(offset), str(_STEP), "--zeroout"]


def discard(path: str) -> list[str]:
    """Tell a device below that nothing of a volume's content is needed any more. Says how far it is: `cleared`.

    What it reads as then is the device's choice; fails with `UNSUPPORTED` where it has no such command. Of a thin
    volume, the pool gets back what no snapshot shares, and passes the discard on (lvmthin(7), "Discard").
    """
    return ["sh", "-c", _BY_STEPS, "discard", path, "0", str(_DISCARD_STEP)]


UNSUPPORTED = "Operation not supported"


def cleared(line: str) -> tuple[int, int] | None:
    """How many bytes of how many are behind `zero` or `discard`, from a line of theirs; None for any other line."""
    found = _DONE.fullmatch(line.strip())
    return (int(found[1]), int(found[2])) if found else None


_FILL = """
blkdiscard --zeroout -- "$1" && exec dd of="$1" bs=1M iflag=fullblock conv=notrunc,fsync status=none
"""


def fill(path: str) -> list[str]:
    """Write standard input to a small volume, and zeros behind it: its last extent was somebody else's."""
    return ["sh", "-c", _FILL, "fill", path]


def _size(size: int) -> list[str]:
    return ["--size", _bytes(size)]


def _bytes(size: int) -> str:
    return f"{-(-size // _SECTOR) * _SECTOR}b"
