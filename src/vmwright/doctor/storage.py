"""Doctor: pools, the directories and volume groups they are in, and how full those are."""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.doctor.check import Area, Case, Check, Verdict, refused
from vmwright.facts.model import GroupFacts, PathFacts, PoolFacts, ThinFacts
from vmwright.names import HOST_STATE
from vmwright.plan.checks import check_space
from vmwright.plan.storage import plan_pools
from vmwright.spec.cloud import Pool
from vmwright.units import GIB, format_size

_AREA = Area.STORAGE
_LOW = 4 * GIB
_FILLING, _FULL = 80.0, 95.0  # percent of a thin pool
_WRITES = "VMs whose disks cannot be written stop with an I/O error"
_ROOM = "make room there"


def storage(case: Case) -> Iterator[Check]:
    """Every pool of the file; without a file, every pool of libvirt."""
    view = case.view
    yield from refused(_AREA, case.asked(check_space), "vmwright apply would not begin what it cannot finish")
    for facts in view.facts.pools:
        if facts.name in view.pools or not case.wanted:
            yield from _pool(facts, view.thick(facts.name) or view.lvm(facts.name) is None)
    folders = {pool.path: pool.name for pool in view.pools.values() if not pool.lvm}
    for path in view.facts.paths:
        if path.path in folders or path.path == HOST_STATE:
            yield from _path(path, folders.get(path.path, ""))
    for pool in view.pools.values():
        yield from _group(case, pool)


def _pool(pool: PoolFacts, judged: bool) -> Iterator[Check]:
    """`judged`: what is free is what counts; in a thin pool it is how full that is."""
    free, place = f"{format_size(pool.available)} free", f"pool {pool.name} at {pool.target}"
    if not pool.active:
        yield Check(Verdict.WARN, _AREA, f"pool {pool.name} is not active", "its volumes are not seen, nor made",
                    f"virsh pool-start {pool.name}, or vmwright apply")
    elif judged and pool.available < _LOW:
        yield Check(Verdict.WARN, _AREA, f"{place}: only {free}", _WRITES, _ROOM)
    else:
        yield Check(Verdict.OK, _AREA, f"{place}: {free}")


def _path(path: PathFacts, pool: str) -> Iterator[Check]:
    """A directory that the file wants, or vmwright's own, where templates are made."""
    free, low = f"{format_size(path.available)} free", path.available < _LOW
    if path.path == HOST_STATE:
        yield Check(Verdict.WARN, _AREA, f"{HOST_STATE}, where templates are made: only {free}",
                    "a template is made there before it goes to its pool", _ROOM) if low else \
            Check(Verdict.OK, _AREA, f"{HOST_STATE}, where templates are made: {free}")
    elif path.blocked_by:
        yield Check(Verdict.FAIL, _AREA, f"pool {pool} at {path.path}: {path.blocked_by} is closed to the user that "
                    "QEMU runs as", "no VM with a disk there can start", f"chmod o+x {path.blocked_by}")
    elif not path.exists:
        yield Check(Verdict.WARN, _AREA, f"pool {pool} will be made at {path.path}, with only {free}", _WRITES,
                    _ROOM) if low else Check(Verdict.OK, _AREA, f"pool {pool} will be made at {path.path}, {free}")


# -- volume groups ----------------------------------------------------------------------------------------------------

def _group(case: Case, pool: Pool) -> Iterator[Check]:
    if pool.lvm is None:
        return
    group, thin = case.view.groups.get(pool.lvm.group), case.view.thin(pool.name)
    place = f"volume group {pool.lvm.group}"
    if group is None:
        yield Check(Verdict.WARN, _AREA, f"{place} is not there", f"pool {pool.name} is to be in it",
                    f"vmwright apply makes it of {', '.join(pool.lvm.disks)}") if pool.lvm.disks else \
            Check(Verdict.FAIL, _AREA, f"{place} is not there", f"pool {pool.name} is to be in it",
                  "name disks to make it of: disks: [/dev/...]; see them: vmwright facts --disks", pool.where,
                  case.refusals(plan_pools, pool.where))
        return
    yield from _members(case, group, pool, judged=thin is None and pool.lvm.thin is None)
    if thin:
        yield from _thin(case, thin, pool)
    elif pool.lvm.thin:
        yield Check(Verdict.WARN, _AREA, f"{place} has no thin pool {pool.lvm.thin.name}",
                    f"the disks of pool {pool.name} are to be in it", "vmwright apply makes it")


def _members(case: Case, group: GroupFacts, pool: Pool, *, judged: bool) -> Iterator[Check]:
    free = f"{format_size(group.free)} of {format_size(group.size)} free"
    if group.missing:
        yield Check(Verdict.FAIL, _AREA, f"volume group {group.name}: {group.missing} of its {len(group.disks)} disks "
                    "are missing", f"volumes of pool {pool.name} that are on them cannot be read",
                    f"find them first: vgs -o +missing_pv_count; or give them up: vgreduce --removemissing "
                    f"{group.name}", pool.where, case.refusals(plan_pools, pool.where))
    elif judged and group.free < _LOW:
        yield Check(Verdict.WARN, _AREA, f"volume group {group.name}: only {free}",
                    f"no larger disk can be made in pool {pool.name}", f"add a disk: vgextend {group.name} /dev/...")
    else:
        yield Check(Verdict.OK, _AREA, f"volume group {group.name}: {free}")


def _thin(case: Case, thin: ThinFacts, pool: Pool) -> Iterator[Check]:
    group = pool.lvm.group if pool.lvm else ""
    most = max(thin.data_percent, thin.metadata_percent)
    place = f"thin pool {group}/{thin.name}"
    used = (f"{place}: {thin.data_percent:.0f}% of {format_size(thin.size)} used, "
            f"{thin.metadata_percent:.0f}% of its metadata")
    if most < _FILLING:
        yield Check(Verdict.OK, _AREA, used)
    else:
        grow = f"lvextend --poolmetadatasize +64M {group}/{thin.name}" if thin.metadata_percent >= _FILLING else \
            f"lvextend -L +10G {group}/{thin.name}"
        yield Check(Verdict.FAIL if most >= _FULL else Verdict.WARN, _AREA, used,
                    "when it is full, all disks in it fail at once", f"{grow}; or remove VMs, and fstrim in guests")
    if not thin.zero:
        yield Check(Verdict.FAIL, _AREA, f"{place} does not zero new blocks",
                    "guests could read what others have written there", f"lvchange --zero y {group}/{thin.name}",
                    pool.where, case.refusals(plan_pools, pool.where))
    if not thin.monitored:
        yield Check(Verdict.WARN, _AREA, f"nothing watches how full {place} is",
                    "it would not be made larger by itself, nor be told before it is full",
                    f"lvchange --monitor y {group}/{thin.name} (it takes dmeventd)")
