"""Doctor: what happens when the host boots, and what a run that was cut off has left."""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.doctor.check import Area, Case, Check, Verdict, names
from vmwright.plan.boot import GUESTS_REMEDY

_AREA = Area.BOOT


def boot(case: Case) -> Iterator[Check]:
    """The order in which VMs start, and unfinished work."""
    yield from _order(case)
    for intent in case.view.facts.intents:
        yield Check(Verdict.WARN, _AREA, f"unfinished: {intent.operation} of {intent.object}",
                    "a run was cut off there", "vmwright apply picks it up")


def _order(case: Case) -> Iterator[Check]:
    """Where the file gives VMs an order: will it be kept?"""
    found = case.view.facts.boot
    ordered = [vm.name for vm in case.view.vms if vm.start_order.said]
    if not ordered:
        return
    why = f"the file gives {names(ordered)} a place in the order"
    if not found.systemd:
        yield Check(Verdict.WARN, _AREA, "the host does not run systemd: when it boots, VMs start in no order", why,
                    "start those that need others by hand, or have them wait for each other themselves")
        return
    if found.enabled and found.order is not None:
        yield Check(Verdict.OK, _AREA, "VMs start in the file's order when the host boots")
    else:
        yield Check(Verdict.WARN, _AREA, "nothing starts VMs in the file's order yet when the host boots", why,
                    "vmwright apply")
    if found.guests == "start":
        yield Check(Verdict.WARN, _AREA, "libvirt-guests starts VMs when the host boots, in no order, before "
                    "vmwright's unit", why, GUESTS_REMEDY)
