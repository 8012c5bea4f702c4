"""What becomes of the data on devices, and in which order they go from one VM to another. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from vmwright.facts.model import DomainFacts, Held, HeldFacts
from vmwright.names import device_note
from vmwright.plan.action import Action, Change, Effect
from vmwright.plan.actions import CreateVm, DestroyVm, Given, RebuildVm, RestartVm, StartVm, UpdateVm, VmAction
from vmwright.plan.devices import Dealt, Row, content, holders, name_of, short
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import Content, VmSpec
from vmwright.units import format_size

_TAKERS = (CreateVm, UpdateVm, StartVm, RestartVm)


class Event(Enum):
    """How a VM comes by a device."""

    CREATE = "create"
    REBUILD = "rebuild"
    ADD = "add"


@dataclass(frozen=True)
class Handed:
    """What a VM gets, and what that means."""

    given: tuple[Given, ...] = ()
    changes: tuple[Change, ...] = ()
    effects: frozenset[Effect] = frozenset()


class _Fate(Enum):
    """What becomes of the data on a device."""

    KEPT = "kept"
    WIPED = "wiped"
    FINISHED = "wiped to the end"  # a wipe that was begun before


def hand_out(view: View, vm: VmSpec, rows: Collection[Row], event: Event, draft: Draft) -> Handed:
    """The devices as a VM gets them. What may not be is refused."""
    given, changes, effects = list[Given](), list[Change](), set[Effect]()
    for row in rows:
        fate = _fate(view, vm, row, event, draft)
        if fate is not _Fate.KEPT and "blkdiscard" not in view.facts.tools:
            draft.refuse(f"vm {vm.name}: {row} cannot be wiped: blkdiscard is not installed on host {view.host.name}",
                         "install it there: apt-get install util-linux", row.use.where)
        given.append(Given(row.name, row.address, row.serial, wipe=fate is not _Fate.KEPT))
        changes.append(_change(view, vm, row, fate, event))
        effects |= {Effect.TAKES_DATA} if fate is _Fate.WIPED else set[Effect]()
    return Handed(tuple(given), tuple(changes), frozenset(effects))


def _fate(view: View, vm: VmSpec, row: Row, event: Event, draft: Draft) -> _Fate:
    note, wanted = row.note, row.use.content
    asked = event is Event.REBUILD and row.name in view.request.wipe
    if not row.storage:
        if asked or wanted is Content.WIPE:
            row.refuse(vm, "has no disks, so there is nothing on it to wipe", "take `wipe` out", draft)
        return _Fate.KEPT
    if note and note.state is Held.WIPING:
        if wanted is Content.KEEP and not asked:
            todo = f"say wipe; or, to have what is left, remove the note on the host: rm {device_note(row.address)}"
            row.refuse(vm, "is to be kept, but a wipe of it was begun and cut off: it is not whole", todo, draft)
        return _Fate.FINISHED
    if note and note.state is Held.WIPED and not content(view, row)[1]:
        return _Fate.KEPT
    own = note is not None and _is_own(view, vm, note)
    if asked or (wanted is Content.WIPE and not (own and event is Event.ADD)):
        return _Fate.WIPED
    if note and not own and wanted is None:
        row.refuse(vm, f"was {_whose(view, note)} last, and what that one has left is still on it",
                   f"say what shall become of that: {{{row.name}: keep}} or {{{row.name}: wipe}}", draft)
    return _Fate.KEPT


def _is_own(view: View, vm: VmSpec, note: HeldFacts) -> bool:
    return (note.cloud, note.vm) == (view.cloud.name, vm.name)


def _whose(view: View, note: HeldFacts) -> str:
    return f"vm {note.vm}'s" if note.cloud == view.cloud.name else f"vm {note.vm}'s of cloud {note.cloud}"


def _change(view: View, vm: VmSpec, row: Row, fate: _Fate, event: Event) -> Change:
    key, place = f"device {row.name}", ", ".join(filter(None, (short(row.address), row.serial)))
    if fate is _Fate.WIPED:
        return Change(key, f"{place}: {_data(view, vm, row)}", "wiped")
    if fate is _Fate.FINISHED:
        return Change(key, f"{place}: wiped in part, by a run that was cut off", "wiped to its end")
    if event is Event.REBUILD and row.storage and row.note and _is_own(view, vm, row.note):
        return Change(key, "attached", "kept, with its data")
    return Change(key, "", f"{place}, with {_data(view, vm, row)}" if row.storage else place)


def _data(view: View, vm: VmSpec, row: Row) -> str:
    """What is on a device, as far as it is known."""
    size, found = content(view, row)
    if row.note and row.note.state is Held.WIPED and not found:
        return "nothing on it"
    whose = "what is on it" if row.note is None else "the data it has" if _is_own(view, vm, row.note) else \
        f"what was {_whose(view, row.note)}"
    return f"{whose} ({', '.join((format_size(size), *(found or ('no signature',))))})" if size else whose


def given_back(view: View, domain: DomainFacts | None, kept: Collection[Row] = ()) -> Iterator[Change]:
    """What a VM that goes gives back to the host, but for devices that it is to have again."""
    configs = [config for config in (domain.persistent, domain.live) if config] if domain else []
    had = {address for config in configs if config.owner for address in config.owner.devices
           if address in config.hostdevs}
    for address in sorted(had - {row.address for row in kept}):
        yield Change(f"device {name_of(view, address)}", "passed through", "given back to the host, as it is")


# -- from one to another ----------------------------------------------------------------------------------------------

def settle(view: View, dealt: Dealt, draft: Draft) -> None:
    """Let each device be given up by whoever has it before it is taken; refuse what nobody is going to give up."""
    for vm in view.vms:
        for row in dealt.get(vm.name, ()):
            for domain in holders(view, row.address, vm.name):
                _take_over(view, vm, row, domain, draft)


def _take_over(view: View, vm: VmSpec, row: Row, domain: DomainFacts, draft: Draft) -> None:
    here = [action for action in draft.actions if action.host == view.host.name]
    giver = _release(domain, row.address, here)
    if giver is None:
        why, todo = _why_not(view, domain, row.address, here)
        row.refuse(vm, why, todo, draft)
        return
    by_id = {action.id: action for action in draft.actions}
    takers = [action for action in here if isinstance(action, _TAKERS) and action.vm.name == vm.name]
    if any(_depends(by_id, giver, taker.id) for taker in takers):
        row.refuse(vm, f"is to come from vm {domain.name}, which is to get a device of {vm.name}'s in exchange",
                   "take one of them out of the file, apply, and put it back", draft)
        return
    for taker in takers:
        draft.actions[draft.actions.index(taker)] = replace(taker, needs=(*taker.needs, giver))


def _release(domain: DomainFacts, address: str, actions: Collection[Action]) -> str | None:
    """The id of the action after which a VM does not have a device any more."""
    live = domain.live is not None and address in domain.live.hostdevs
    defined = address in domain.persistent.hostdevs
    for action in actions:
        if isinstance(action, DestroyVm) and action.name == domain.name:
            return action.id
        if not isinstance(action, VmAction) or action.vm.name != domain.name:
            continue
        if isinstance(action, RebuildVm) and all(given.address != address for given in action.devices):
            return action.id
        if isinstance(action, UpdateVm) and address in action.remove_devices:
            if not live or address in action.plug:
                return action.id
            defined = False
        if isinstance(action, RestartVm) and live and not defined:
            return action.id
    return None


def _depends(by_id: Mapping[str, Action], first: str, on: str) -> bool:
    """Whether one action comes after another, by what they need."""
    todo, seen = [first], set[str]()
    while todo:
        current = todo.pop()
        if current == on:
            return True
        if current in by_id and current not in seen:
            seen.add(current)
            todo += by_id[current].needs
    return False


def _why_not(view: View, domain: DomainFacts, address: str, actions: Collection[Action]) -> tuple[str, str]:
    """Why a VM does not give a device up, and what to do."""
    name, owner = domain.name, view.owner(domain)
    if owner is None:
        return (f"is given to vm {name}, which cloud {view.cloud.name} did not make",
                f"take it out of that VM first (virsh detach-device {name}, or virsh edit), or name another device")
    leaving = any(isinstance(a, UpdateVm) and a.vm.name == name and address in a.remove_devices for a in actions)
    if leaving or address not in domain.persistent.hostdevs:
        return f"is vm {name}'s until its next start", "say --restart, and apply does that first"
    if address not in owner.devices:
        return f"is given to vm {name}, not by vmwright", f"take it out of that VM first (virsh detach-device {name})"
    if name not in view.listed:
        return f"is given to vm {name}", f"{name} is no longer in the file: vmwright apply --prune removes it"
    return f"is given to vm {name}", "apply the whole file, where that VM is not to have it"
