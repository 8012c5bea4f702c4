"""Growing inside a guest: after its disk got larger, the last partition, LVM and the file system follow, online.

A pure planner chooses what to grow and by which commands; a runner does it through the guest agent. What cannot be
grown is refused before anything is changed, and every step may be done again: one cut off is finished by the next run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from vmwright.errors import GuestError
from vmwright.guest.agent import Runs, failed, must
from vmwright.guest.blocks import READ, SECTOR, Block, Layout, parse
from vmwright.guest.wait import pauses
from vmwright.units import MIB, TIB, format_size

_STEP_TIMEOUT = 3600.0  # a large file system on a slow disk
_SIZE_PATIENCE = 30.0  # for the guest to see its disk's new size
_FIRST_PAUSE = 0.1
_PACKAGES = {"growpart": "cloud-guest-utils (Debian, Ubuntu) or cloud-utils-growpart", "partx": "util-linux",
             "resize2fs": "e2fsprogs", "xfs_growfs": "xfsprogs", "btrfs": "btrfs-progs", "pvresize": "lvm2",
             "lvextend": "lvm2"}
_EXT = ("ext2", "ext3", "ext4")
_GROWABLE = (*_EXT, "xfs", "btrfs")
_BY_HAND = {
    "crypto_LUKS": "it is encrypted (LUKS): open it and use `cryptsetup resize` inside the guest",
    "swap": "it is swap space: remove it, or let a template have swap in a file or on another disk",
    "linux_raid_member": "it belongs to a RAID array: use `mdadm --grow` inside the guest",
    "zfs_member": "it belongs to a ZFS pool: use `zpool online -e` inside the guest",
}


Progress = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """What is to be grown. `holder` is the device with the file system, `volume` the LVM volume when there is one."""

    disk: Block
    partition: Block | None = None
    volume: Block | None = None
    holder: Block | None = None
    notes: tuple[str, ...] = ()

    @property
    def fstype(self) -> str:
        """The file system; empty when there is none to grow."""
        return self.holder.fstype if self.holder else ""

    @property
    def mount(self) -> str | None:
        """Where it is mounted: / when it is there, too."""
        mounts = self.holder.mounts if self.holder else ()
        return "/" if "/" in mounts else next((m for m in mounts if m.startswith("/")), None)


@dataclass(frozen=True)
class Step:
    """One command. With `idle` (a code and a pattern of its words), it had nothing left to do."""

    what: str
    argv: tuple[str, ...]
    input: bytes | None = None
    idle: tuple[int, str] | None = None


@dataclass(frozen=True)
class Grown:
    """What came of it, in bytes as the guest sees them. Sizes of the file system are None where it is not mounted."""

    disk: str
    disk_before: int
    disk_after: int
    partition: str | None
    fstype: str
    mount: str | None
    size_before: int | None
    used_before: int | None
    size_after: int | None
    used_after: int | None
    notes: tuple[str, ...] = ()


def look(agent: Runs) -> Layout:
    """The guest's disks now."""
    return parse(must(agent, ["sh", "-c", READ]))


def check(agent: Runs, serial: str) -> Target:
    """What growing the disk with that serial would grow. Changes nothing; GuestError says why it cannot be grown.

    To be asked before the host makes the disk larger, so that a refusal leaves everything as it was.
    """
    layout = look(agent)
    target = choose(layout.find(serial))
    steps(target, layout)
    return target


def grow(agent: Runs, serial: str, *, size: int | None = None, disk_before: int | None = None,
         progress: Progress = lambda step: None, clock: Callable[[], float] = time.monotonic,
         sleep: Callable[[float], object] = time.sleep) -> Grown:
    """Grow what is on the disk with that serial. `size` is what the host gave it: the guest must see that first.

    `disk_before` is the disk's size in bytes before the host grew it, for the report. `progress` gets each step.
    """
    disk = look(agent).find(serial)
    return grow_at(agent, disk.path, size=size, disk_before=disk_before or disk.size, progress=progress, clock=clock,
                   sleep=sleep)


def grow_at(agent: Runs, path: str, *, size: int | None = None, disk_before: int | None = None,
            progress: Progress = lambda step: None, clock: Callable[[], float] = time.monotonic,
            sleep: Callable[[float], object] = time.sleep) -> Grown:
    """As `grow`, for the disk at a path in the guest."""
    if size is not None:
        _await_size(agent, path, size, progress, clock, sleep)
    layout = look(agent)
    target = choose(layout.at(path))
    todo = steps(target, layout)
    before = _usage(agent, target.mount)
    for step in todo:
        progress(step.what)
        _do(agent, step)
    disk, after = look(agent).at(path), _usage(agent, target.mount)
    return Grown(
        disk=path, disk_before=disk_before or target.disk.size, disk_after=disk.size,
        partition=target.partition.path if target.partition else None, fstype=target.fstype, mount=target.mount,
        size_before=before[0], used_before=before[1], size_after=after[0], used_after=after[1],
        notes=(*target.notes, *_left_over(disk)))


def choose(disk: Block) -> Target:
    """What to grow on a disk: its last partition, or what covers the whole disk. Raises GuestError with the reason."""
    partitions = disk.partitions
    if not partitions:
        if not disk.fstype:
            return Target(disk, notes=(f"{disk.path} holds no file system: nothing to grow inside the guest",))
        return _content(Target(disk), disk)
    last = partitions[-1]
    for part in partitions:
        if part.holds("/") and part is not last:
            raise GuestError(
                f"partition {part.number} of {disk.path}, which holds /, cannot grow",
                why=f"partition {last.number} ({_described(last)}) lies behind it, and is the last on the disk",
                todo=f"use a template whose root partition is the last, or remove partition {last.number} in the guest")
    if disk.table == "dos" and (last.number or 0) > 4:
        raise _refusal(last, "it is a logical partition, and the extended one around it would have to grow first")
    return _content(Target(disk, partition=last), last)


def steps(target: Target, layout: Layout) -> tuple[Step, ...]:
    """The commands, in order. Raises GuestError when the guest lacks one of them."""
    todo: list[Step] = []
    if target.partition:
        todo += _partition_steps(target.disk, target.partition, layout.tools)
    if target.volume:
        below = target.partition or target.disk
        todo.append(Step(f"growing the physical volume {below.path}", ("pvresize", below.path)))
        todo.append(Step(f"growing the logical volume {target.volume.path}",
                         ("lvextend", "-l", "+100%FREE", target.volume.path), idle=(5, "matches existing size")))
    if target.mount:
        todo.append(_filesystem_step(target, layout))
    for step in todo:
        if step.argv[0] not in layout.tools:
            raise _lacks(step.argv[0])
    return tuple(todo)


def _content(target: Target, block: Block) -> Target:
    """The target with what stands on `block`: a file system, or LVM with one volume to choose."""
    if block.fstype == "LVM2_member":
        volume = _volume(block)
        if volume.fstype not in _GROWABLE:
            raise _refusal(volume, _BY_HAND.get(volume.fstype) or _unknown(volume))
        return _mounted(replace(target, volume=volume, holder=volume))
    if block.fstype not in _GROWABLE:
        raise _refusal(block, _BY_HAND.get(block.fstype) or _unknown(block))
    return _mounted(replace(target, holder=block))


def _mounted(target: Target) -> Target:
    if target.mount or not target.holder:
        return target
    note = f"{target.fstype} on {target.holder.path} is not mounted, so it did not grow: mount it, then apply again"
    return replace(target, notes=(*target.notes, note))


def _volume(physical: Block) -> Block:
    """The logical volume to grow: the one mounted at /, or the only one."""
    volumes = [child for child in physical.children if child.type == "lvm"]
    root = [volume for volume in volumes if "/" in volume.mounts]
    if root or (len(volumes) == 1 and not physical.holds("/")):
        return (root or volumes)[0]
    if physical.holds("/"):
        raise _refusal(physical, "/ is not on a plain logical volume: a thin pool, a snapshot or encryption is between")
    names = ", ".join(f"{volume.path} ({_described(volume)})" for volume in volumes)
    why = f"of {len(volumes)} logical volumes none is /: {names}" if volumes else "no logical volume is in use on it"
    raise _refusal(physical, f"{why}; use `pvresize` and `lvextend -r` inside the guest")


def _partition_steps(disk: Block, partition: Block, tools: frozenset[str]) -> list[Step]:
    number, what = str(partition.number), f"growing partition {partition.number} of {disk.path}"
    if "growpart" in tools:
        return [Step(what, ("growpart", disk.path, number), idle=(1, "NOCHANGE"))]
    if "sfdisk" not in tools:
        raise _lacks("growpart")
    # sfdisk from 2.38 on moves GPT's copy at the end of the disk by itself; before, sgdisk must do it.
    moved = [Step(f"moving the end of the partition table of {disk.path}", ("sgdisk", "-e", disk.path))]
    return [*(moved if disk.table == "gpt" and "sgdisk" in tools else []),
            Step(what, ("sfdisk", "--no-reread", "-N", number, disk.path), b", +\n"),
            Step(f"telling the kernel of {partition.path}", ("partx", "-u", "-n", number, disk.path))]


def _filesystem_step(target: Target, layout: Layout) -> Step:
    assert target.holder and target.mount
    what, mount = f"growing {target.fstype} on {target.mount}", target.mount
    if target.fstype in _EXT:
        return Step(what, ("resize2fs", target.holder.path))
    if target.fstype == "xfs":
        return Step(what, ("xfs_growfs", mount))
    device = layout.btrfs.get(target.holder.path)  # a btrfs may have several devices: this one is to grow
    return Step(what, ("btrfs", "filesystem", "resize", f"{device}:max" if device else "max", mount))


def _await_size(agent: Runs, path: str, size: int, progress: Progress, clock: Callable[[], float],
                sleep: Callable[[float], object]) -> None:
    """Wait until the guest sees the size. virtio-blk is told by itself; a SCSI disk must be asked to look again."""
    script = 'cd "/sys/class/block/${1##*/}" && { [ ! -w device/rescan ] || echo 1 > device/rescan; cat size; }'
    deadline, seen = clock() + _SIZE_PATIENCE, 0
    for pause in pauses(_FIRST_PAUSE, 2.0):
        seen = int(must(agent, ["sh", "-c", script, "sh", path])) * SECTOR
        if seen >= size:
            return
        if pause == _FIRST_PAUSE:
            progress(f"waiting for the guest to see {format_size(size)}")
        if (left := deadline - clock()) <= 0:
            break
        sleep(min(pause, left))
    raise GuestError(f"the guest still sees {format_size(seen)} of {path}",
                     why=f"the host gave it {format_size(size)}", todo="restart the VM: it grows its disk at the start")


def _do(agent: Runs, step: Step) -> None:
    ran = agent.exec(step.argv, input=step.input, timeout=_STEP_TIMEOUT)
    if ran.code == 0:
        return
    if step.idle and ran.code == step.idle[0] and re.search(step.idle[1], ran.stdout + ran.stderr):
        return
    error = failed(step.argv, ran)
    raise GuestError(f"{step.what} failed: {error.what}", why=error.why,
                     todo="nothing is lost: set it right inside the guest, then apply again")


def _usage(agent: Runs, mount: str | None) -> tuple[int | None, int | None]:
    """Size and used bytes of a file system, as df counts them."""
    if mount is None:
        return None, None
    unit, blocks, free = (int(n) for n in must(agent, ["stat", "-f", "-c", "%S %b %f", mount]).split())
    return unit * blocks, unit * (blocks - free)


def _left_over(disk: Block) -> tuple[str, ...]:
    """A note when the last partition could not take all of the disk."""
    if not disk.partitions:
        return ()
    last = disk.partitions[-1]
    left = disk.size - (last.start or 0) * SECTOR - last.size
    if left < 16 * MIB:
        return ()
    why = ": a dos partition table ends at 2T" if disk.table == "dos" and disk.size > 2 * TIB else ""
    return (f"{format_size(left)} of {disk.path} stay unused behind partition {last.number}{why}",)


def _described(block: Block) -> str:
    return f"{block.fstype or 'no file system'}, {format_size(block.size)}"


def _unknown(block: Block) -> str:
    return f"it holds {block.fstype}, which vmwright cannot grow" if block.fstype else "it holds no file system"


def _refusal(block: Block, why: str) -> GuestError:
    return GuestError(f"{block.path} cannot be grown", why=why,
                      todo="leave its size as it was, or change the guest first")


def _lacks(tool: str) -> GuestError:
    return GuestError(f"{tool} is not in the guest", todo=f"install it there: {_PACKAGES.get(tool, tool)}")
