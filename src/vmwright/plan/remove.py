"""VMs that are to go, and what earlier runs left behind: destroy, prune, tidy."""

from __future__ import annotations

from vmwright.facts.model import DomainFacts, DomainState, IntentFacts
from vmwright.names import manifest_path, parse_partial
from vmwright.plan.action import Change, Effect
from vmwright.plan.actions import CreateVm, DestroyVm, GrowDisk, Kept, MakeTemplate, RestartVm, StartVm, Tidy, WaitReady
from vmwright.plan.create import GIVEN_UP
from vmwright.plan.handover import given_back
from vmwright.plan.view import Draft, Named, View
from vmwright.units import format_size

_BEGUN = "a run that was cut off had begun to remove it"


def plan_destroy(view: View, name: str, why: str, draft: Draft) -> DestroyVm | None:
    """The action that removes a VM of this cloud with all that is its own.

    None when there is nothing, or it is protected, or not ours.
    """
    domain, wanted = view.domains.get(name), view.listed.get(name)
    owner = view.owner(domain)
    if domain and owner is None:
        draft.refuse(f"vm {name} was not made by cloud {view.cloud.name}, and is not touched",
                     "remove it with virsh, if that is what you want")
        return None
    if (owner and owner.protect) or (wanted and wanted.protect):
        todo = f"say `protect: false` for {name} in the file, apply, and destroy it then"
        draft.refuse(f"vm {name} is protected, and not destroyed",
                     todo if wanted else "put it back into the file with `protect: false`, apply, and take it out then",
                     wanted.where if wanted else None)
        return None
    own = tuple(sorted(view.vm_volumes.get(name, ()), key=lambda row: row[0].name))
    intent = view.intents.get(name)
    if domain is None and not own and intent is None:
        return None
    return DestroyVm(
        host=view.host.name, name=name, uuid=domain.uuid if domain else None, why=why,
        effects=_costs(domain, own, intent), volumes=tuple((volume.pool, volume.name) for volume, _ in own),
        changes=(*(Change(volume.name, format_size(volume.allocation), view.removal(volume.pool)) for volume, _ in own),
                 *given_back(view, domain)))


def _costs(domain: DomainFacts | None, own: tuple[Named, ...], intent: IntentFacts | None) -> frozenset[Effect]:
    """What was confirmed before a run was cut off is not asked for again, and half-made volumes hold nothing yet."""
    confirmed = intent is not None and intent.operation == "destroy"
    known = set(intent.volumes) if intent and intent.operation in GIVEN_UP and (confirmed or not domain) else set[str]()
    at_stake = any(ours.role != "seed" and volume.path not in known for volume, ours in own)
    takes = {Effect.TAKES_DATA} if at_stake or (domain and not confirmed) else set[Effect]()
    on = domain and domain.state not in (DomainState.SHUTOFF, DomainState.CRASHED)
    return frozenset(takes | ({Effect.STOPS} if on else set()))


def plan_unlisted(view: View, draft: Draft) -> None:
    """VMs of this cloud, or disks of such VMs, that the file no longer has on this host."""
    for domain in view.facts.domains:
        if domain.name not in view.listed and view.owner(domain):
            _plan_unlisted_vm(view, domain, draft)
    for name, volumes in view.vm_volumes.items():
        if name in view.domains or name in view.listed or name in view.intents:
            continue
        _prune(view, name, f"there is no such VM any more, but {_volumes(volumes)} of it", draft)
    _tell_detached(view, draft)


def _plan_unlisted_vm(view: View, domain: DomainFacts, draft: Draft) -> None:
    intent = view.intents.get(domain.name)
    if intent and intent.operation == "destroy":
        action = plan_destroy(view, domain.name, _BEGUN, draft)
        draft.actions += [action] if action else []
        return
    place = view.placed.get(domain.name)
    _prune(view, domain.name, f"is in the file for host {place}, not for this one" if place else
           "is no longer in the file", draft)


def _prune(view: View, name: str, why: str, draft: Draft) -> None:
    if view.request.prune:
        action = plan_destroy(view, name, f"it {why}" if why.startswith("is ") else why, draft)
        draft.actions += [action] if action else []
    else:
        draft.unlisted.append(Kept(view.host.name, f"vm {name}",
                                   f"{why}; `vmwright apply --prune` removes it, with its disks"))


def _volumes(volumes: tuple[Named, ...]) -> str:
    size = format_size(sum(volume.allocation for volume, _ in volumes))
    return f"a volume ({size})" if len(volumes) == 1 else f"{len(volumes)} volumes ({size})"


def _tell_detached(view: View, draft: Draft) -> None:
    """Data disks that a VM had once: their volumes are kept, and the user should know where."""
    for name, vm in view.listed.items():
        domain = view.domains.get(name)
        if domain is None or view.owner(domain) is None:
            continue
        named = {disk.name for disk in vm.data_disks}
        configs = [config for config in (domain.persistent, domain.live) if config]
        attached = {disk.path for config in configs for disk in config.disks}
        for volume, ours in view.vm_volumes.get(name, ()):
            if ours.role == "disk" and ours.detail not in named and volume.path not in attached:
                draft.unlisted.append(Kept(
                    view.host.name, f"disk {ours.detail} of vm {name}",
                    f"is no longer in the file; its volume stays ({format_size(volume.allocation)}): name it again to "
                    f"attach it, or: virsh vol-delete {volume.name} {volume.pool}"))


def plan_tidy(view: View, draft: Draft) -> None:
    """What cut-off runs left, and nothing planned picks up."""
    here = [action for action in draft.actions if action.host == view.host.name]
    picked_up = {a.vm.name for a in here if isinstance(a, _ENDING)}
    picked_up |= {a.name for a in here if isinstance(a, DestroyVm)}
    growing = {f"{a.vm.name}@{a.serial}" for a in here if isinstance(a, GrowDisk) and a.running}
    for intent in view.intents.values():
        if "@" in intent.object:
            if intent.object not in growing:
                draft.actions.append(_tidy(view, intent, "its VM is off or gone: the guest grows at its next start"))
        elif intent.object not in picked_up:
            _plan_note(view, intent, draft)
    making = {f"{a.template.name}-{a.template.version}" for a in here if isinstance(a, MakeTemplate)}
    _plan_templates(view, making, draft)
    _plan_partial_disks(view, {a.volume for a in here if isinstance(a, GrowDisk)}, draft)


_ENDING = (CreateVm, StartVm, RestartVm, WaitReady)  # their handlers drop the VM's note when they are done


def _plan_note(view: View, intent: IntentFacts, draft: Draft) -> None:
    """The note of a VM for which nothing is planned that would end it."""
    name, domain = intent.object, view.domains.get(intent.object)
    if domain and view.owner(domain):
        if name in view.listed:
            draft.actions.append(_tidy(view, intent, _UNDONE.get(intent.operation, _WHOLE)))
        return  # not in the file: it is shown as such, or being removed
    if domain is None and name in view.listed:
        return  # refused, with the reason
    if intent.operation != "destroy" and name not in view.vm_volumes:
        draft.actions.append(_tidy(view, intent, "a run that was cut off left it, and nothing else of that VM"))
    elif domain:
        draft.warnings.append(f"vm {name}: what a cut-off run left of it cannot be removed, as host {view.host.name} "
                              "has a VM of that name which is not ours")
    else:
        _plan_half_made(view, name, draft)


_WHOLE = "the VM is whole, and there is no first boot to wait for"
_UNDONE = {
    "destroy": "its removal was cut off before anything was lost, and the file has it",
    "rebuild": "its rebuild was cut off before anything was thrown away; to have it, ask again",
}


def _plan_half_made(view: View, name: str, draft: Draft) -> None:
    """Half made or half removed, and not in the file: it goes, unless that would take data nobody has given up."""
    why = "a run that was cut off left it, and the file does not have it"
    action = plan_destroy(view, name, why, draft)
    if action and (view.request.prune or Effect.TAKES_DATA not in action.effects):
        draft.actions.append(action)
    elif action:
        draft.unlisted.append(Kept(view.host.name, f"vm {name}",
                                   f"{why}; it has data, so only `vmwright apply --prune` removes it"))


def _plan_templates(view: View, making: set[str], draft: Draft) -> None:
    """Work directories, and images that were being moved into a pool."""
    found: dict[str, list[str]] = {i.object: [] for i in view.facts.intents if i.operation == "template"}
    for volume in view.facts.volumes:
        ours = parse_partial(volume.path)
        if ours and ours.cloud == view.cloud.name and ours.role == "template":
            found.setdefault(f"{ours.object}-{ours.detail}", []).append(volume.path)
    for name, paths in found.items():
        if name in making:
            continue
        template, _, version = name.rpartition("-")
        if not any(ours.detail == version for _, ours in view.template_volumes.get(template, ())):
            paths.append(manifest_path(view.cloud.name, template, version))
        draft.actions.append(Tidy(host=view.host.name, name=name, operation="template", paths=tuple(paths),
                                  why="a run that was cut off left it"))


def _plan_partial_disks(view: View, growing: set[str], draft: Draft) -> None:
    """What was being made ready to become a part of a disk (apply/group.py); growing the disk removes it, too."""
    for volume in view.facts.volumes:
        ours = parse_partial(volume.path)
        if ours and ours.cloud == view.cloud.name and ours.role != "template":
            name = volume.name.removeprefix(".").removesuffix(".partial")
            if name not in growing:
                draft.actions.append(Tidy(host=view.host.name, name=name, operation="volume", paths=(volume.path,),
                                          why="a run that was cut off left it"))


def _tidy(view: View, intent: IntentFacts, why: str) -> Tidy:
    return Tidy(host=view.host.name, name=intent.object, operation=intent.operation, why=why)
