"""Pools and templates: what is missing, what is there, what no VM uses any more."""

from __future__ import annotations

from vmwright.names import template_volume
from vmwright.plan.actions import Change, CreatePool, Kept, MakeTemplate, RemoveTemplate
from vmwright.plan.needs import tools_of
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import BuildSource, ImageSource, Pool, TemplateSpec
from vmwright.units import GIB, format_size

# What is needed while a template is made: the packages' tree, the file system made of it, and the image.
_BUILD_ROOM = 3 * GIB


def plan_pools(view: View, draft: Draft) -> dict[str, str]:
    """Pools to make or start. Returns the action that each pool waits for, by pool."""
    made: dict[str, str] = {}
    for pool in view.pools:
        action = _plan_pool(view, pool, draft)
        if action:
            draft.actions.append(action)
            made[pool.name] = action.id
    return made


def _plan_pool(view: View, pool: Pool, draft: Draft) -> CreatePool | None:
    facts = view.pool_facts.get(pool.name)
    path = next((p for p in view.facts.paths if p.path == pool.path), None)
    if path and path.blocked_by:
        draft.refuse(f"pool {pool.name}: the user that QEMU runs as cannot reach {pool.path}: {path.blocked_by} is closed to it",
                     f"open the way: chmod o+x {path.blocked_by}; or choose a directory under /var/lib", pool.where)
    if facts is None:
        return _new_pool(view, pool, draft)
    if facts.type != "dir" or facts.target != pool.path:
        draft.refuse(f"pool {pool.name} is there already, but as a {facts.type} pool at {facts.target}, not a directory at "
                     f"{pool.path}", f"say `dir: {facts.target}` or choose another name", pool.where)
        return None
    missing = [word for word, there in (("running", facts.active), ("started at boot", facts.autostart)) if not there]
    if missing:
        return CreatePool(host=view.host.name, pool=pool, exists=True, why=f"it is there, but not {' or '.join(missing)}",
                          changes=tuple(Change(word, "no", "yes") for word in missing))
    draft.kept.append(Kept(view.host.name, f"pool {pool.name}", f"is there, {format_size(facts.available)} free"))
    return None


def _new_pool(view: View, pool: Pool, draft: Draft) -> CreatePool | None:
    other = next((facts for facts in view.facts.pools if facts.target == pool.path), None)
    if other:
        draft.refuse(f"pool {pool.name}: libvirt's pool {other.name} already uses {pool.path}",
                     f"name it {other.name} in the file, or choose another directory", pool.where)
        return None
    return CreatePool(host=view.host.name, pool=pool, why="libvirt has no pool of that name",
                      changes=(Change("directory", "", pool.path),))


def plan_templates(view: View, draft: Draft, pools: dict[str, str]) -> dict[tuple[str, str], str]:
    """Templates to make, versions to remove. Returns the action that each template waits for, by name and pool."""
    made: dict[tuple[str, str], str] = {}
    for key, template in view.templates.items():
        volume = view.volumes.get((template.pool, template_volume(view.cloud.name, template.name, template.version)))
        if volume:
            draft.kept.append(Kept(view.host.name, f"template {template.name}", f"version {template.version} is there"))
            continue
        action = _make(view, template, draft, pools)
        draft.actions.append(action)
        made[key] = action.id
    _plan_old_versions(view, draft)
    return made


def _make(view: View, template: TemplateSpec, draft: Draft, pools: dict[str, str]) -> MakeTemplate:
    for tool, package in tools_of(template.source):
        if tool not in view.facts.tools:
            draft.refuse(f"template {template.name}: {tool} is not installed on host {view.host.name}",
                         f"install it there: apt-get install {package}", template.where)
    free = view.free(template.pool)
    if free < _BUILD_ROOM:
        draft.refuse(f"template {template.name}: making it needs about {format_size(_BUILD_ROOM)}, and pool {template.pool} has "
                     f"{format_size(free)} free", "make room, or use a pool on a larger file system", template.where)
    older = [ours.detail for _, ours in view.our_volumes if ours.role == "template" and ours.object == template.name]
    why = "the file asks for something else than the version that is there" if older else "it has not been made yet"
    change = Change("version", older[-1] if older else "", template.version)
    return MakeTemplate(host=view.host.name, template=template, why=why, needs=_ids(pools.get(template.pool)),
                        changes=(change, Change("from", "", describe(template.source))))


def describe(source: BuildSource | ImageSource) -> str:
    """What a template is made from, in a few words."""
    if isinstance(source, BuildSource):
        return f"{source.distribution} {source.release} packages, {source.filesystem} root"
    return source.os or source.location


def _plan_old_versions(view: View, draft: Draft) -> None:
    wanted = {(t.pool, template_volume(view.cloud.name, t.name, t.version)) for t in view.templates.values()}
    for volume, ours in view.our_volumes:
        if ours.role != "template" or (volume.pool, volume.name) in wanted:
            continue
        name = f"template {ours.object}@{ours.detail}"
        if volume.path in view.backing_paths:
            users = sum(1 for other in view.facts.volumes if other.backing == volume.path)
            draft.kept.append(Kept(view.host.name, name, f"an older version that {users} disk{'s' * (users > 1)} stand on"))
        elif view.request.prune:
            draft.actions.append(RemoveTemplate(host=view.host.name, template=ours.object, version=ours.detail,
                                                pool=volume.pool, volume=volume.name, why="no VM uses this version"))
        else:
            draft.unlisted.append(Kept(view.host.name, name, f"no VM uses it ({format_size(volume.allocation)}); "
                                                             "`apply --prune` removes it"))


def _ids(*found: str | None) -> tuple[str, ...]:
    return tuple(i for i in found if i)
