"""Volume groups as pools: what is missing, which disks may be taken for one, how much is promised of a thin pool.

A disk with anything on it is not taken, whatever says that it is unused, unless the file names it under `wipe`; one
that is in use is not taken at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmwright.facts.model import BlockFacts, GroupFacts, PoolFacts, ThinFacts
from vmwright.facts.storage import ELSEWHERE, SWAP
from vmwright.plan.action import Change, Effect
from vmwright.plan.actions import CreateGroup, Kept, TakenDisk
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import LvmSpec, Pool, ThinSpec
from vmwright.units import GIB, MIB, format_size, parse_size, parse_version

_LEAST_METADATA, _MOST_METADATA = 64 * MIB, 15 * GIB  # lvmthin(7): at most 15.81 GiB
_FULL = 80.0  # percent from which it is time to act
_MOUNTED = {SWAP: "swap space in use", ELSEWHERE: "mounted, though not where it could be seen"}
_CLOSE = 0.01  # how far a size in the file may be from a disk's own


def plan_group(view: View, pool: Pool, lvm: LvmSpec, draft: Draft) -> CreateGroup | None:
    """What makes a volume group and its libvirt pool be as the file says; None when nothing is missing, or refused."""
    refused = len(draft.refused)
    facts, group = view.pool_facts.get(pool.name), view.groups.get(lvm.group)
    _check_libvirt(view, pool, facts, draft)
    disks = tuple(_disks(view, pool, lvm, group, draft))
    _check_group(view, pool, lvm, group, disks, draft)
    thin = _thin(view, pool, lvm, group, disks, draft)
    if len(draft.refused) > refused:
        return None
    changes = tuple(_changes(lvm, group, disks, thin, facts))
    if not changes:
        draft.kept.append(Kept(view.host.name, f"pool {pool.name}", describe(group, view.thin(pool.name))))
        return None
    takes = {Effect.TAKES_DATA} if any(disk.wipe for disk in disks) else set[Effect]()
    return CreateGroup(
        host=view.host.name, pool=pool, lvm=lvm, exists=facts is not None, make=group is None, disks=disks,
        thin=thin, effects=frozenset(takes), changes=changes,
        why=f"there is no volume group {lvm.group}" if group is None else "it is not all there")


def copies_holes(emulator: str | None) -> bool:
    """Whether qemu-img of that version leaves the holes of what it copies to a thin volume: since 5.0 (its changelog).
    """
    return parse_version(emulator) >= (5, 0)


def describe(group: GroupFacts | None, thin: ThinFacts | None) -> str:
    """What there is, with figures."""
    if group is None:
        return "is there"
    free = f"is there, {format_size(group.free)} of {format_size(group.size)} free"
    if thin is None:
        return free
    return (f"{free}; thin pool {thin.name}: {thin.data_percent:.0f}% of {format_size(thin.size)} used, metadata "
            f"{thin.metadata_percent:.0f}% of {format_size(thin.metadata)}")


def _check_libvirt(view: View, pool: Pool, facts: PoolFacts | None, draft: Draft) -> None:
    if facts and (facts.type != "logical" or facts.target != pool.path):
        draft.refuse(f"pool {pool.name} is there already, but as a {facts.type} pool at {facts.target or 'no path'}, "
                     f"not the volume group at {pool.path}", "choose another name", pool.where)
    other = next((row for row in view.facts.pools if row.target == pool.path and row.name != pool.name), None)
    if other and facts is None:
        draft.refuse(f"pool {pool.name}: libvirt's pool {other.name} already uses {pool.path}",
                     f"name it {other.name} in the file", pool.where)


def _check_group(view: View, pool: Pool, lvm: LvmSpec, group: GroupFacts | None, disks: tuple[TakenDisk, ...],
                 draft: Draft) -> None:
    if group is None and not lvm.disks:
        draft.refuse(f"pool {pool.name}: host {view.host.name} has no volume group {lvm.group}, and no disks are named "
                     "to make it of", "name them: disks: [/dev/...]; `vmwright facts` shows those that are there",
                     pool.where)
    if group and group.missing:
        draft.refuse(f"pool {pool.name}: {group.missing} of the {len(group.disks)} disks of volume group {lvm.group} "
                     "are missing", "find them first: vgs -o +missing_pv_count; or give them up: vgreduce "
                     "--removemissing", pool.where)


def _disks(view: View, pool: Pool, lvm: LvmSpec, group: GroupFacts | None, draft: Draft) -> Iterator[TakenDisk]:
    """The disks that are to be taken: those of the file that are not in the group yet."""
    for path in lvm.disks:
        block = view.blocks.get(path)
        if block is None:
            there = ", ".join(row.path for row in view.facts.blocks if row.kind in ("disk", "part")) or "none"
            draft.refuse(f"pool {pool.name}: host {view.host.name} has no disk {path}",
                         f"disks and partitions there: {there}", pool.where)
        elif block.vg != lvm.group or group is None:
            taken = _take(view, pool, lvm, block, draft)
            yield from [taken] if taken else []


def _take(view: View, pool: Pool, lvm: LvmSpec, block: BlockFacts, draft: Draft) -> TakenDisk | None:
    uses = list(_uses(view, block))
    if uses:
        draft.refuse(f"pool {pool.name}: {block.path} is in use: {'; '.join(uses)}",
                     "name another disk, or end that use first", pool.where)
        return None
    found = list(_found(view, block))
    if not found:
        return TakenDisk(block.path, block.size)
    if _named(view, block, lvm.wipe):
        return TakenDisk(block.path, block.size, wipe=True, found="; ".join(found))
    serial = _serial(view, block)
    draft.refuse(f"pool {pool.name}: {block.path} is not blank: {'; '.join(found)}",
                 f"name another disk; or, if all of it may be lost: wipe: [{serial or format_size(block.size)}]",
                 pool.where)
    return None


def _uses(view: View, block: BlockFacts) -> Iterator[str]:
    """What makes it impossible to take a device, on itself and on all that stands on it."""
    if block.readonly:
        yield "it is read-only"
    for row in (block, *_above(view, block)):
        name = "it" if row is block else row.path
        yield from (f"{name} is {_MOUNTED.get(mount, f'mounted at {mount}')}" for mount in row.mounts)
        if row.vg:
            yield f"{name} is a physical volume of volume group {row.vg}"
        if row is not block and row.kind not in ("part", "lvm"):
            yield f"{row.path} ({row.kind}) stands on it"


def _found(view: View, block: BlockFacts) -> Iterator[str]:
    if block.table:
        parts = [row for row in view.facts.blocks if block.path in row.parents]
        yield f"a {block.table} partition table with {len(parts)} partition{'s' if len(parts) != 1 else ''}"
    yield from block.signatures
    for row in _above(view, block):
        yield from (f"{signature} on {row.path}" for signature in row.signatures)


def _above(view: View, block: BlockFacts) -> Iterator[BlockFacts]:
    """All that stands on a device, nearest first."""
    for row in view.facts.blocks:
        if block.path in row.parents:
            yield row
            yield from _above(view, row)


def _serial(view: View, block: BlockFacts) -> str:
    """A disk's serial; a partition's is that of its disk, and would allow to wipe all of it: it has none."""
    return block.serial or "" if block.kind == "disk" else ""


def _named(view: View, block: BlockFacts, wipe: tuple[str, ...]) -> bool:
    return any(word == _serial(view, block) or _is_size(word, block.size) for word in wipe)


def _is_size(word: str, size: int) -> bool:
    try:
        wanted = parse_size(word)
    except ValueError:
        return False
    return abs(wanted - size) <= _CLOSE * size


@dataclass(frozen=True)
class _Room:
    """What a group has for a thin pool, once its disks are in it."""

    free: int
    extent: int


def _thin(view: View, pool: Pool, lvm: LvmSpec, group: GroupFacts | None, disks: tuple[TakenDisk, ...],
          draft: Draft) -> ThinSpec | None:
    """The thin pool to make, with its sizes; None when none is wanted, or it is there."""
    spec = lvm.thin
    if spec is None:
        return None
    _warn_of_old_qemu(view, pool, draft)
    there = view.thin(pool.name)
    if there:
        _check_fill(view, pool, there, draft)
        return None
    if any(volume.path == f"{pool.path}/{spec.name}" for volume in view.by_pool.get(pool.name, ())):
        draft.refuse(f"pool {pool.name}: volume group {lvm.group} has a volume {spec.name}, which is not a thin pool",
                     "give the thin pool another name: thin: {name: ...}", pool.where)
        return None
    extent = group.extent if group else 4 * MIB
    free = (group.free if group else 0) + sum(disk.size // extent * extent - extent for disk in disks)
    size = spec.size or free // 20 * 19 // extent * extent
    metadata = spec.metadata or max(_LEAST_METADATA, min(_MOST_METADATA, size // 500)) // extent * extent
    if spec.size is None:
        size -= 2 * metadata  # its own, and the spare that LVM keeps for repair
    if size < extent or size + 2 * metadata > free:
        draft.refuse(f"pool {pool.name}: a thin pool of {format_size(max(0, size))} with twice {format_size(metadata)} "
                     f"of metadata does not fit into volume group {lvm.group}, which has {format_size(free)} free",
                     "ask for less: thin: {size: ..., metadata: ...}", pool.where)
        return None
    return ThinSpec(spec.name, size, metadata, spec.overcommit)


def _warn_of_old_qemu(view: View, pool: Pool, draft: Draft) -> None:
    version = view.facts.emulator
    if version and not copies_holes(version):
        draft.warnings.append(f"pool {pool.name} of host {view.host.name}: QEMU {version} writes out the zeros of what "
                              "it copies into a thin pool: templates, and disks with `copy: full`, take all of their "
                              "size there; QEMU 5.0 and newer leave them out")


def _check_fill(view: View, pool: Pool, thin: ThinFacts, draft: Draft) -> None:
    if not thin.zero:
        draft.refuse(f"pool {pool.name}: thin pool {thin.name} does not zero new blocks: guests could read what others "
                     "have written there", f"lvchange --zero y {pool.path.removeprefix('/dev/')}/{thin.name}",
                     pool.where)
    for what, percent in (("data", thin.data_percent), ("metadata", thin.metadata_percent)):
        if percent >= _FULL:
            draft.warnings.append(
                f"pool {pool.name} of host {view.host.name}: thin pool {thin.name} has used {percent:.0f}% of its "
                f"{what}; when that is full its disks fail: make it larger (lvextend), or remove VMs")
    if not thin.monitored:
        draft.warnings.append(f"pool {pool.name} of host {view.host.name}: nothing watches how full thin pool "
                              f"{thin.name} is: lvchange --monitor y (it takes dmeventd)")


def _changes(lvm: LvmSpec, group: GroupFacts | None, disks: tuple[TakenDisk, ...], thin: ThinSpec | None,
             facts: PoolFacts | None) -> Iterator[Change]:
    if group is None:
        yield Change("volume group", "", lvm.group)
    for disk in disks:
        yield Change(f"disk {disk.path}", disk.found, "wiped and taken" if disk.wipe else f"{format_size(disk.size)}")
    if thin:
        yield Change("thin pool", "", f"{thin.name}, {format_size(thin.size or 0)}, metadata "
                                      f"{format_size(thin.metadata or 0)}")
    if facts is None:
        yield Change("libvirt pool", "", "defined, started, started at boot")
    else:
        yield from (Change(word, "no", "yes") for word, fine in
                    (("running", facts.active), ("started at boot", facts.autostart)) if not fine)


def check_overcommit(view: View, pool: Pool, more: int, draft: Draft) -> None:
    """What the disks of a thin pool may come to take, against what it has. `more`: what this plan adds, in bytes."""
    lvm, thin = pool.lvm, view.thin(pool.name)
    if lvm is None or lvm.thin is None or thin is None or not more:
        return
    promised = more + sum(volume.capacity for volume in view.by_pool.get(pool.name, ()) if volume.thin == thin.name)
    ratio = promised / thin.size
    figures = (f"pool {pool.name} of host {view.host.name}: its disks may come to take {format_size(promised)} of a "
               f"thin pool of {format_size(thin.size)}, {ratio:.2f} times what it has")
    limit = lvm.thin.overcommit
    if limit is not None and ratio > limit:
        draft.refuse(f"{figures}; the file allows {limit:g}",
                     "ask for less, make the thin pool larger, or raise `overcommit:`", pool.where)
    elif ratio > 1:
        draft.warnings.append(f"{figures}: watch it as they fill")
