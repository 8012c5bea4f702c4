"""Pools and templates: what is missing, what is there, what no VM uses any more."""

from __future__ import annotations

from vmwright.facts.model import PoolFacts, VolumeFacts
from vmwright.names import HOST_STATE, OurVolume, parse_path, template_volume
from vmwright.plan.action import Change
from vmwright.plan.actions import CreatePool, CreateVm, DestroyVm, Kept, MakeTemplate, RemoveTemplate
from vmwright.plan.groups import plan_group
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import BuildSource, ImageSource, Pool, TemplateSpec
from vmwright.units import GIB, MIB, format_size

# A build has at once the packages' tree, the disk made of it, and for XFS a file between the two, or else the image.
# Measured without further packages: 1.1G at the most with ext4, 1.4G with XFS; then an image of 0.6G.
_BUILD_ROOM, _BUILT_ROOM = 2 * GIB, GIB
# How large an image is nobody knows before it is there. No more is asked for than every cloud image takes; fetching
# says when that does not suffice, and leaves nothing. A file of the user's own may be small.
_IMAGE_ROOM, _FILE_ROOM = GIB, 256 * MIB


def plan_pools(view: View, draft: Draft) -> dict[str, str]:
    """Pools to make or start. Returns the action that each pool waits for, by pool."""
    made: dict[str, str] = {}
    for pool in view.pools.values():
        action = plan_group(view, pool, pool.lvm, draft) if pool.lvm else _plan_pool(view, pool, draft)
        if action:
            draft.actions.append(action)
            made[pool.name] = action.id
    return made


def _plan_pool(view: View, pool: Pool, draft: Draft) -> CreatePool | None:
    facts, path = view.pool_facts.get(pool.name), view.paths.get(pool.path)
    if path and path.blocked_by:
        draft.refuse(f"pool {pool.name}: the user that QEMU runs as cannot reach {pool.path}: {path.blocked_by} is "
                     "closed to it",
                     f"open the way: chmod o+x {path.blocked_by}; or choose a directory under /var/lib", pool.where)
    if facts is None:
        return _new_pool(view, pool, draft)
    if facts.type != "dir" or facts.target != pool.path:
        draft.refuse(f"pool {pool.name} is there already, but as a {facts.type} pool at {facts.target or 'no path'}, "
                     f"not a directory at {pool.path}", _other_pool(facts), pool.where)
        return None
    missing = [word for word, there in (("running", facts.active), ("started at boot", facts.autostart)) if not there]
    if missing:
        return CreatePool(host=view.host.name, pool=pool, exists=True,
                          why=f"it is there, but not {' or '.join(missing)}",
                          changes=tuple(Change(word, "no", "yes") for word in missing))
    draft.kept.append(Kept(view.host.name, f"pool {pool.name}", f"is there, {format_size(facts.available)} free"))
    return None


def _other_pool(facts: PoolFacts) -> str:
    return f"say `dir: {facts.target}` or choose another name" if facts.type == "dir" else "choose another name"


def _new_pool(view: View, pool: Pool, draft: Draft) -> CreatePool | None:
    other = next((facts for facts in view.facts.pools if facts.target == pool.path), None)
    if other:
        draft.refuse(f"pool {pool.name}: libvirt's pool {other.name} already uses {pool.path}",
                     f"name it {other.name} in the file, or choose another directory", pool.where)
        return None
    there = pool.path in view.paths and view.paths[pool.path].exists
    return CreatePool(host=view.host.name, pool=pool, why="libvirt has no pool of that name",
                      changes=(Change("directory", "", f"{pool.path}{', which is there' if there else ''}"),))


def plan_templates(view: View, draft: Draft, pools: dict[str, str]) -> dict[tuple[str, str], str]:
    """Templates to make. Returns the action that each template waits for, by name and pool."""
    made: dict[tuple[str, str], str] = {}
    before: dict[tuple[str, str], str] = {}  # the same version for another pool: both would be made in one directory
    for key, template in view.templates.items():
        if is_there(view, template):
            why = f"version {template.version} is there"
            draft.kept.append(Kept(view.host.name, f"template {template.name}", why))
            continue
        needs = (pools.get(template.pool), before.get((template.name, template.version)))
        action = _make(view, template, tuple(need for need in needs if need), draft)
        draft.actions.append(action)
        made[key] = before[template.name, template.version] = action.id
    return made


def is_there(view: View, template: TemplateSpec) -> bool:
    """Whether this version is in its pool."""
    return (template.pool, _volume(view, template)) in view.volumes


def _volume(view: View, template: TemplateSpec) -> str:
    return template_volume(view.cloud.name, template.name, template.version, block=bool(view.lvm(template.pool)))


def _make(view: View, template: TemplateSpec, needs: tuple[str, ...], draft: Draft) -> MakeTemplate:
    _check_room(view, template, draft)
    _check_stranded(view, template, draft)
    older = [ours.detail for _, ours in view.template_volumes.get(template.name, ()) if ours.detail != template.version]
    why = "the file asks for something else than the version that is there" if older else "it has not been made yet"
    return MakeTemplate(host=view.host.name, template=template, why=why, needs=needs,
                        changes=(Change("version", older[-1] if older else "", template.version),
                                 Change("from", "", describe(template.source))))


def _check_room(view: View, template: TemplateSpec, draft: Draft) -> None:
    """It is made under vmwright's own directory and then moved into the pool. A file of the user's is copied once."""
    source = template.source
    if isinstance(source, BuildSource):
        work, made = _BUILD_ROOM, _BUILT_ROOM
    elif "://" in source.location:
        made = min(template.size, _IMAGE_ROOM)
        work = made + made // 2  # what is downloaded is compressed, mostly
    else:
        work = made = min(template.size, _FILE_ROOM)
    if view.thick(template.pool):
        made = template.size
    places = {f"pool {template.pool}": (view.free(template.pool), made)}
    if HOST_STATE in view.paths:
        places[HOST_STATE] = (view.paths[HOST_STATE].available, work)
    for place, (free, needed) in places.items():
        if free < needed:
            draft.refuse(f"template {template.name}: making it needs about {format_size(needed)}, and {place} of "
                         f"host {view.host.name} has {format_size(free)} free",
                         "make room there, or use a larger file system", template.where)


def _check_stranded(view: View, template: TemplateSpec, draft: Draft) -> None:
    """A build is never twice the same to the byte: a new one must not slip under disks that stand on a lost one."""
    if not isinstance(template.source, BuildSource):
        return
    path = f"{view.pool_path(template.pool)}/{_volume(view, template)}"
    users = sorted({ours.object for v in view.overlays.get(path, ()) if (ours := parse_path(v.path))})
    left = [name for name in users if name in view.domains and name not in view.request.rebuild]
    if left:
        draft.refuse(f"template {template.name}@{template.version} is lost, but disks stand on it: {', '.join(left)}",
                     f"put {path} back from a backup, or give these VMs up: vmwright rebuild {' '.join(left)}",
                     template.where)


def describe(source: BuildSource | ImageSource) -> str:
    """What a template is made from, in a few words."""
    if isinstance(source, BuildSource):
        return f"{source.distribution} {source.release} packages, {source.filesystem} root"
    return source.os or source.location


def plan_old_versions(view: View, draft: Draft) -> None:
    """Versions that the file does not ask for: kept while a disk stands on them, removed with --prune."""
    wanted = {(t.pool, _volume(view, t)) for t in view.templates.values()}
    going = _going(view, draft)
    for versions in view.template_volumes.values():
        for volume, ours in versions:
            if (volume.pool, volume.name) not in wanted:
                _plan_old_version(view, volume, ours, going, draft)


def _going(view: View, draft: Draft) -> dict[str, str]:
    """Volumes that this plan removes, and the action that does, by path."""
    going: dict[str, str] = {}
    for action in draft.actions:
        if isinstance(action, DestroyVm) and action.host == view.host.name:
            paths = (view.volumes[pair].path for pair in action.volumes if pair in view.volumes)
            going |= dict.fromkeys(paths, action.id)
        elif isinstance(action, CreateVm) and action.host == view.host.name:
            going |= dict.fromkeys(action.remove, action.id)
    return going


def _plan_old_version(view: View, volume: VolumeFacts, ours: OurVolume, going: dict[str, str], draft: Draft) -> None:
    name = f"template {ours.object}@{ours.detail}"
    overlays = view.overlays.get(volume.path, ())
    staying = sum(1 for overlay in overlays if overlay.path not in going) + _unseen_users(view, ours)
    if staying:
        who = "a disk stands" if staying == 1 else f"{staying} disks stand"
        draft.kept.append(Kept(view.host.name, name, f"an older version that {who} on"))
    elif view.request.prune:
        draft.actions.append(RemoveTemplate(
            host=view.host.name, template=ours.object, version=ours.detail, pool=volume.pool, volume=volume.name,
            why="no VM uses this version", needs=tuple(dict.fromkeys(going[o.path] for o in overlays)),
            changes=(Change(volume.name, format_size(volume.allocation), view.removal(volume.pool)),)))
    else:
        draft.unlisted.append(Kept(view.host.name, name, f"no VM uses it ({format_size(volume.allocation)}); "
                                                         "`vmwright apply --prune` removes it"))


def _unseen_users(view: View, ours: OurVolume) -> int:
    """VMs that came from this version and whose root disk is not among the volumes: what it stands on is not known."""
    return view.unseen.get((ours.object, ours.detail), 0)
