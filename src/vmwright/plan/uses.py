"""Volumes that somebody else uses: they are not removed, not given to a VM, and no VM is started on them.

LVM refuses to remove what is open, but only when the VM that had it is gone already; and it lets a guest have what is
mounted on the host, which is the end of a file system.
"""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.facts.model import DomainFacts, VolumeFacts
from vmwright.facts.storage import SWAP
from vmwright.names import is_block, mapped_path
from vmwright.plan.action import Action, Change
from vmwright.plan.actions import CreateVm, DestroyVm, GrowDisk, RemoveTemplate, RestartVm, StartVm, UpdateVm
from vmwright.plan.view import Draft, View

_Touched = tuple[VolumeFacts, str]  # and the VM whose it is; empty for a template


def check_uses(view: View, draft: Draft) -> None:
    """Is every volume that an action is about free for it?"""
    for action in [action for action in draft.actions if action.host == view.host.name]:
        for volume, vm in _touched(view, action):
            starts = isinstance(action, StartVm | RestartVm | GrowDisk)
            uses = list(_uses(view, volume, vm, live=starts))
            if uses:
                listed = view.listed.get(vm)
                draft.refuse(f"{action.object}: {volume.path} of host {view.host.name} is in use: {'; '.join(uses)}",
                             "end that use first", listed.where if listed else None)


def waking(view: View, domain: DomainFacts) -> tuple[Change, ...]:
    """The volumes of a VM that are to be activated before it can start."""
    volumes = (view.volumes_by_path.get(disk.path or "") for disk in domain.persistent.disks)
    return tuple(Change(f"volume {volume.name}", "inactive", "active") for volume in volumes
                 if volume and not volume.active)


def _touched(view: View, action: Action) -> Iterator[_Touched]:
    match action:
        case DestroyVm():
            yield from ((view.volumes[pair], action.name) for pair in action.volumes if pair in view.volumes)
        case RemoveTemplate():
            yield from ((volume, "") for volume in [view.volumes.get((action.pool, action.volume))] if volume)
        case CreateVm():
            yield from _known(view, action.vm.name, (*action.remove, *action.keep))
        case UpdateVm():
            for disk in action.add_disks:
                volume = view.volume(disk.pool, action.vm.name, "disk", disk.name)
                yield from [(volume, action.vm.name)] if volume else []
        case StartVm() | RestartVm():
            domain = view.domains.get(action.vm.name)
            disks = domain.persistent.disks if domain else ()
            yield from _known(view, action.vm.name, [disk.path or "" for disk in disks])
        case GrowDisk() if not action.running:
            yield from _known(view, action.vm.name, [action.path])
        case _:
            pass


def _known(view: View, vm: str, paths: tuple[str, ...] | list[str]) -> Iterator[_Touched]:
    yield from ((view.volumes_by_path[path], vm) for path in paths if path in view.volumes_by_path)


def _uses(view: View, volume: VolumeFacts, vm: str, *, live: bool) -> Iterator[str]:
    """Who uses it besides its VM. `live`: of other VMs only those that run now."""
    others = (view.disk_users if not live else view.live_disk_users).get(volume.path, ())
    found = [f"VM {name} has it as a disk" for name in others if name != vm]
    if is_block(volume.path):
        found += _host_uses(view, volume.path)
        domain = view.domains.get(vm)
        if volume.open and not found and not (domain and domain.live):
            found.append("a process there has it open")
    yield from found


def _host_uses(view: View, path: str) -> Iterator[str]:
    block = view.blocks.get(mapped_path(path)) or view.blocks.get(path)
    if block is None:
        return
    yield from ("it is swap space" if mount == SWAP else f"it is mounted at {mount}" for mount in block.mounts)
    yield from (f"{row.path} stands on it" for row in view.facts.blocks if block.path in row.parents)
