"""What starts the VMs of a host in order when it boots: written, kept, removed. Pure.

Where the file gives VMs of a host an order, all that start with it are started by a unit of ours, and libvirt's own
flag is off for each: libvirt knows no order. It takes systemd; elsewhere libvirt starts them, and the plan says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from vmwright.boot import files
from vmwright.boot.files import LINK_PATH, NO_ORDER, SCRIPT_PATH, UNIT, UNIT_PATH, Row
from vmwright.errors import Where
from vmwright.names import start_list
from vmwright.plan.action import Change, Sign
from vmwright.plan.actions import DestroyVm, Kept, UpdateVm
from vmwright.plan.host_actions import HostFile, RemoveStartOrder, WriteStartOrder
from vmwright.plan.view import Draft, View
from vmwright.units import some

GUESTS_REMEDY = ("say ON_BOOT=ignore in its settings: libvirt-guests in /etc/default, /etc/sysconfig or /etc/conf.d, "
                 "as the distribution has it")
_SHOWN = 6  # VMs named in one line


def plan_boot(view: View, draft: Draft) -> None:
    """Write what is missing or differs; remove what nothing needs any more.

    At no time is a VM started by nobody: libvirt's flags go after the unit has come, and come before it goes.
    """
    facts = view.facts.boot
    if view.ordered and not facts.systemd:
        draft.warnings.append(
            f"{_where(view)}: host {view.host.name} does not run systemd: the order in which VMs start is kept by "
            "`vmwright apply`, but when the host boots libvirt starts them, in no order")
    if view.ordered and facts.systemd:
        _write(view, draft)
    elif facts.order is not None or ((facts.unit or facts.script) and not facts.others):
        _remove(view, draft)


def _where(view: View) -> Where | None:
    """The place in the file that asks for an order first."""
    vm = next(vm for vm in view.listed.values() if vm.start_order.said)
    return vm.keys.get("autostart", vm.where)


def _write(view: View, draft: Draft) -> None:
    facts = view.facts.boot
    _warn_of_guests(view, draft)
    if not _can(view, draft):
        return
    rows = (*files.rows(view.listed.values()), *_unlisted(view, draft))
    path, wanted = start_list(view.cloud.name), files.list_text(rows)
    changes = [*_list_changes(facts.order, wanted, rows), *_file_changes(view)]
    if not changes:
        draft.kept.append(Kept(view.host.name, "start order", f"is as the file says, for {len(rows)} VMs"))
        return
    found = ((path, facts.order, wanted), (SCRIPT_PATH, facts.script, files.script()),
             (UNIT_PATH, facts.unit, files.unit()))
    action = WriteStartOrder(
        host=view.host.name, changes=tuple(changes), sign=Sign.ADD if facts.order is None else Sign.CHANGE,
        files=tuple(HostFile(path, new) for path, old, new in found if old != new),
        why="the file gives VMs an order" if facts.order is None else "it is not as the file says")
    draft.actions = [replace(other, needs=(*other.needs, action.id)) if isinstance(other, UpdateVm)
                     and other.host == view.host.name and other.autostart is False else other
                     for other in draft.actions]
    draft.actions.append(action)


def _can(view: View, draft: Draft) -> bool:
    """Whether the host has what it takes, and nothing of others is in the way."""
    facts, where, refused = view.facts.boot, _where(view), len(draft.refused)
    if "virsh" not in view.facts.tools:
        draft.refuse(f"host {view.host.name}: virsh is not installed, which starts VMs in order when the host boots",
                     "install it there: apt-get install libvirt-clients", where)
    for path, text in ((UNIT_PATH, facts.unit), (SCRIPT_PATH, facts.script)):
        if text is not None and not files.is_ours(text):
            draft.refuse(f"host {view.host.name}: {path} is there, and vmwright did not write it",
                         "move it away: vmwright keeps there what starts VMs in order", where)
    return len(draft.refused) == refused


def _warn_of_guests(view: View, draft: Draft) -> None:
    if view.facts.boot.guests == "start":
        draft.warnings.append(
            f"host {view.host.name}: libvirt-guests starts the VMs that ran when the host went down, in no order, and "
            f"before vmwright's unit does: {GUESTS_REMEDY}")


def _unlisted(view: View, draft: Draft) -> Iterator[Row]:
    """VMs that have left the file and stay: they start with the host as before, after those of the file."""
    going = {action.name for action in draft.actions if isinstance(action, DestroyVm) and action.host == view.host.name}
    for row in files.parse_list(view.facts.boot.order or ""):
        if row.name not in view.listed and row.name not in going and view.owner(view.domains.get(row.name)):
            yield Row(NO_ORDER, row.name, row.seconds)


def _list_changes(text: str | None, wanted: str, rows: tuple[Row, ...]) -> Iterator[Change]:
    """The VMs of each order, from what to what."""
    if text == wanted:
        return
    there = files.parse_list(text or "")
    old, new = _by_order(there), _by_order(rows)
    for key in (*new, *(key for key in old if key not in new)):
        if old.get(key) != new.get(key):
            yield Change(key, old.get(key, ""), new.get(key, "none"))
    if text and there == rows:
        yield Change("list", _state(text), "as this version writes it")
    elif text and old == new:
        yield Change("list", "other VMs, of those not named here", "as the file says")


def _by_order(rows: Iterable[Row]) -> dict[str, str]:
    """What a person reads of the VMs of each order."""
    found: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found["then" if row.order == NO_ORDER else f"order {row.order}"][row.seconds].append(row.name)
    return {key: ", ".join(some(names, _SHOWN) + _wait(names, seconds) for seconds, names in waits.items())
            for key, waits in found.items()}


def _wait(names: list[str], seconds: int) -> str:
    whose = "its agent answers" if len(names) == 1 else "their agents answer"
    return f" (until {whose}, {seconds} s)" if seconds else ""


def _file_changes(view: View) -> Iterator[Change]:
    facts = view.facts.boot
    for key, name, old, new in (("unit", UNIT, facts.unit, files.unit()),
                                ("script", SCRIPT_PATH, facts.script, files.script())):
        if old is None and (key == "unit" or facts.unit is not None):  # the unit's name is enough for both
            yield Change(key, "", name)
        elif old is not None and old != new:
            yield Change(key, _state(old), "as this version writes it")
    if facts.unit is not None and not facts.enabled:
        yield Change("at boot", "off", "on")


def _state(text: str) -> str:
    """Of a text that is not as it should be: how it came about."""
    return "of another version of vmwright" if files.is_intact(text) else "changed on the host"


def _remove(view: View, draft: Draft) -> None:
    facts = view.facts.boot
    ours = not facts.others  # unit and script are this cloud's alone
    unit = ours and facts.unit is not None and files.is_ours(facts.unit)
    script = ours and facts.script is not None and files.is_ours(facts.script)
    paths = [start_list(view.cloud.name)] if facts.order is not None else []
    paths += ([LINK_PATH, UNIT_PATH] if unit else []) + ([SCRIPT_PATH] if script else [])
    if not paths:
        return
    old = _by_order(files.parse_list(facts.order or ""))
    changes = [Change(key, names, "as libvirt starts them") for key, names in old.items()]
    changes += [Change("unit", UNIT, "removed")] if unit else []
    changes += [Change("script", SCRIPT_PATH, "removed")] if script else []
    back = tuple(action.id for action in draft.actions
                 if isinstance(action, UpdateVm) and action.host == view.host.name and action.autostart)
    draft.actions.append(RemoveStartOrder(
        host=view.host.name, paths=tuple(paths), unit=unit, changes=tuple(changes), needs=back,
        why="the file gives no VM an order" if not view.ordered else "the host does not run systemd"))
