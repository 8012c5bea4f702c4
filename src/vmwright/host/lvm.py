"""LVM on a host: argv builders, and how to read their progress. Pure.

Sources are the manual pages of lvm2 2.03, util-linux 2.38 and qemu-img 7.2; what they leave open was tried on them.
All of these are to run with standard input closed: LVM takes that for "no" to every question that it has. Sizes are
bytes; LVM wants multiples of 512, and deals in whole extents (lvcreate(8), lvextend(8)): both are rounded up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SECTOR = 512
_STEP = 64 << 20  # zeros are written in steps: between two of them a command can be stopped
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


# -- content ----------------------------------------------------------------------------------------------------------

def copy(source: str, format: str, target: str, *, thin: bool) -> list[str]:
    """Copy an image or a volume to a new volume at least as large. Says how far it is: `progress`.

    On a thick volume no byte of an earlier owner is left where the source reaches: with -n and without --target-is-zero
    qemu-img takes nothing for zero, and for each hole and each run of zeros has the kernel write zeros (qemu-img.c,
    convert_co_write: blk_co_pwrite_zeroes; block/file-posix.c: fallocate(PUNCH_HOLE), which block devices only do where
    it guarantees zeros, else BLKZEROOUT). What is behind the source's end is for `zero`. A thin volume that was just
    made is zero, and stays thin with --target-is-zero (QEMU 5.0).

    -W (writes out of order) is for devices like these, and faster; -t none goes past the page cache and, unlike the
    default "unsafe", ends with a flush: the copy is on the disk when the command is done. Files are read through the
    cache, as not every file system can do without.
    """
    direct = ["-T", "none"] if source.startswith("/dev/") else []
    zero = ["--target-is-zero"] if thin else []
    return ["qemu-img", "convert", "-n", "-p", "-W", "-t", "none", *direct, *zero, "-f", format, "-O", "raw",
            source, target]  # fmt: skip


def progress(line: str) -> float | None:
    """How much of a copy is done, 0 to 1, from a line of `qemu-img convert -p`; None for any other line."""
    found = _PERCENT.findall(line)
    return min(float(found[-1]) / 100, 1.0) if found else None


def zero(path: str, offset: int, length: int | None = None) -> list[str]:
    """Make a part of a device read as zeros for certain, by default all from `offset` on.

    BLKZEROOUT (blkdiscard(8), --zeroout): by the device's own command where it has one that guarantees zeros, else
    written. Both numbers must be multiples of the device's sectors; blkdiscard fails if not.
    """
    end = [] if length is None else ["--length", str(length)]
    return ["blkdiscard", "--zeroout", "--step", str(_STEP), "--offset", str(offset), *end, "--", path]


def discard(path: str) -> list[str]:
    """Tell a device below that nothing of a volume's content is needed any more. No promise that it is gone."""
    return ["blkdiscard", "--step", str(_STEP), "--", path]


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
