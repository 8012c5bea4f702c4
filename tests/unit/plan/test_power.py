"""The plans of `vmwright start` and `vmwright stop`."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.plan.build import WEB, changes, cloud, facts, made, only, refused, told
from tests.unit.plan.simulate import Machine, all_facts, carry_out

from vmwright.facts.model import DomainState
from vmwright.plan.action import Effect
from vmwright.plan.actions import StopVm
from vmwright.plan.power import make_start_plan, make_stop_plan

TWO = "vms: {web: {template: base, address: 10.0.0.10}, db: {template: base, running: false}}\n"


def test_start_starts_what_is_off_and_says_what_runs() -> None:
    wanted, machine = cloud(TWO), made(cloud(TWO))
    found = make_start_plan(wanted, all_facts(wanted, machine), ["web", "db", "db"])
    action = only(found)
    assert told(found) == ["~ vm db: start"]
    assert (action.why, changes(action)) == ("asked for", ["state: shut off -> running"])
    assert [(kept.object, kept.why) for kept in found.kept] == [("vm web", "runs already")]
    assert not carry_out(found, wanted, machine)
    assert make_start_plan(wanted, all_facts(wanted, machine), ["web", "db"]).empty


def test_stop_stops_what_is_on() -> None:
    wanted, machine = cloud(TWO), made(cloud(TWO))
    found = make_stop_plan(wanted, all_facts(wanted, machine), ["web", "db"], patience=7, force=True)
    action = only(found)
    assert isinstance(action, StopVm)
    assert (action.patience, action.force, action.effects) == (7, True, {Effect.STOPS})
    assert changes(action) == ["state: running -> shut off"]
    assert [(kept.object, kept.why) for kept in found.kept] == [("vm db", "is off already")]
    assert not carry_out(found, wanted, machine)
    assert machine.domains["web"].live is None


def test_paused_is_neither_off_nor_running() -> None:
    wanted, machine = cloud(WEB), made(cloud(WEB))
    domain = replace(machine.facts(wanted).domains[0], state=DomainState.PAUSED)
    paused = facts(wanted, machine, domains=(domain,))
    assert make_start_plan(wanted, paused, ["web"]).kept[0].why == "is paused, which is not off: virsh resume web"
    assert changes(only(make_stop_plan(wanted, paused, ["web"], patience=1, force=False))) == [
        "state: paused -> shut off"]


def test_crashed_is_off() -> None:
    wanted, machine = cloud(WEB), made(cloud(WEB))
    domain = replace(machine.facts(wanted).domains[0], state=DomainState.CRASHED, live=None)
    crashed = facts(wanted, machine, domains=(domain,))
    assert changes(only(make_start_plan(wanted, crashed, ["web"]))) == ["state: crashed -> running"]
    assert make_stop_plan(wanted, crashed, ["web"], patience=1, force=False).empty


def test_what_cannot_be_started_is_refused() -> None:
    wanted, machine = cloud(TWO), Machine()
    assert refused(make_start_plan(wanted, all_facts(wanted, machine), ["web", "nobody"])) == [
        "vm web is not there\n    make it with `vmwright apply`",
        "there is no vm nobody in the file\n    see `vmwright status`"]
    machine = made(wanted)
    domain = machine.facts(wanted).domains[0]
    strange = facts(wanted, machine, domains=(replace(domain, persistent=replace(domain.persistent, owner=None)),))
    assert refused(make_stop_plan(wanted, strange, ["web"], patience=1, force=False)) == [
        "vm web is not of this cloud\n    use virsh"]
