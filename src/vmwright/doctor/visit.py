"""Asks hosts all that doctor wants to know: the facts, what only doctor reads, the clock. Tolerant where it can be."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vmwright.doctor.check import Area, Case, Check, Verdict
from vmwright.doctor.clock import against_here, between
from vmwright.doctor.examine import checks, of_file
from vmwright.errors import HostError, VmwrightError
from vmwright.facts.gather import NO_LIBVIRT, gather_host, inventory_of
from vmwright.facts.health import Clock, HealthFacts, read_clock, read_health
from vmwright.facts.model import Facts, HostFacts
from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_plan
from vmwright.plan.view import Request, View
from vmwright.session import Session, Sessions
from vmwright.spec.cloud import Cloud


@dataclass(frozen=True)
class Visit:
    """What was seen of one host. `lost` is why it could not be asked at all; `silent` as in Case."""

    name: str
    address: str
    facts: HostFacts | None = None
    health: HealthFacts | None = None
    clock: Clock | None = None
    silent: VmwrightError | None = None
    lost: HostError | None = None


@dataclass(frozen=True)
class Report:
    """The checks of one host; of the file as a whole, `host` and `address` are None."""

    host: str | None
    address: str | None
    checks: tuple[Check, ...]


def visit(cloud: Cloud, sessions: Sessions) -> list[Visit]:
    """Ask all hosts, side by side. A host that cannot be asked is told, and stops nobody."""
    all = list(sessions)
    with ThreadPoolExecutor(max_workers=max(1, len(all))) as pool:
        return list(pool.map(lambda session: _visit(cloud, session), all))


def _visit(cloud: Cloud, session: Session) -> Visit:
    name, address = session.spec.name, session.host.address
    try:
        health = read_health(session)
        clock = None if session.spec.connect == "local" else read_clock(session)
        known, silent = NO_LIBVIRT, None
        try:
            known = inventory_of(cloud, session)
        except VmwrightError as error:
            silent = error
        facts = gather_host(cloud, session, known=known)
    except HostError as error:
        return Visit(name, address, lost=error)
    return Visit(name, address, facts, health, clock, silent)


def reports(cloud: Cloud, visits: Iterable[Visit], *, wanted: bool = True) -> list[Report]:
    """What is to be said of each host, and of the file. `wanted`: there is a file. Pure."""
    seen = list(visits)
    plan = _plan(cloud, seen) if wanted else None
    found = {one.name: _of_host(cloud, one, plan, wanted) for one in seen}
    for name, check in between({one.name: one.clock for one in seen if one.clock}):
        found[name] += (check,)
    told = [Report(one.name, one.address, found[one.name]) for one in seen]
    left = tuple(of_file(plan, [check for report in told for check in report.checks])) if plan else ()
    return [*told, Report(None, None, left)] if left else told


def _plan(cloud: Cloud, visits: list[Visit]) -> Plan | None:
    """What apply would do; None while it is not known of all hosts what they have."""
    if any(one.facts is None or one.silent for one in visits):
        return None
    return make_plan(cloud, Facts(tuple(one.facts for one in visits if one.facts)))


def _of_host(cloud: Cloud, one: Visit, plan: Plan | None, wanted: bool) -> tuple[Check, ...]:
    if one.facts is None or one.health is None:
        error = one.lost or HostError("the host could not be asked")
        return (Check(Verdict.FAIL, Area.ACCESS, error.what, error.why, error.todo),)
    view = View.of(cloud, next(host for host in cloud.hosts if host.name == one.name), Facts((one.facts,)), Request())
    case = Case(view, one.health, wanted, one.silent, plan.actions if plan else ())
    return (*checks(case), *against_here(one.clock))
