"""All checks of a host, of hosts together, and of the file as a whole. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from vmwright.doctor.access import access
from vmwright.doctor.boot import boot
from vmwright.doctor.check import Area, Case, Check, Verdict
from vmwright.doctor.clock import clock
from vmwright.doctor.cpu import cpu
from vmwright.doctor.devices import devices
from vmwright.doctor.memory import memory
from vmwright.doctor.network import network
from vmwright.doctor.placement import placement
from vmwright.doctor.security import security
from vmwright.doctor.software import software
from vmwright.doctor.storage import storage
from vmwright.plan.actions import Plan

_AREAS = (access, software, cpu, memory, placement, devices, storage, network, clock, security, boot)
_SEVERITY = (Verdict.FAIL, Verdict.WARN, Verdict.NOTE, Verdict.OK)


def checks(case: Case) -> tuple[Check, ...]:
    """All checks of one host, in the order of their areas."""
    return tuple(dict.fromkeys(check for look in _AREAS for check in look(case)))


def of_file(plan: Plan, told: Collection[Check]) -> Iterator[Check]:
    """What a plan would refuse, and no check of a host has told already."""
    said = {what for check in told for what in (check.what, *check.covers)}
    for problem in plan.refused:
        if problem.what not in said:
            yield Check(Verdict.FAIL, Area.FILE, problem.what, "vmwright apply would refuse it", problem.todo,
                        problem.where)


def worst(found: Iterable[Check]) -> Verdict:
    """The worst of their verdicts."""
    return min((check.verdict for check in found), key=_SEVERITY.index, default=Verdict.OK)


def by_severity(found: Iterable[Check]) -> list[Check]:
    """The worst first; among equals as they were."""
    return sorted(found, key=lambda check: _SEVERITY.index(check.verdict))
