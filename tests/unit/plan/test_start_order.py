"""Which VMs start before which: within a plan, and when their host starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plan.build import cloud, facts, made, plan
from tests.unit.plan.simulate import Machine, all_facts

from vmwright.facts.model import DomainState, IntentFacts
from vmwright.plan.action import Action
from vmwright.plan.actions import CreateVm, RebuildVm, RestartVm, StartVm, VmAction, WaitReady
from vmwright.plan.diff import make_plan, make_rebuild_plan
from vmwright.plan.order import order
from vmwright.plan.power import make_start_plan
from vmwright.plan.start_order import in_order
from vmwright.spec.cloud import StartOrder, VmSpec

FIVE = """\
vms:
  late: {template: base}
  second: {template: base, autostart: {order: 2}}
  some: {template: base, autostart: true}
  off: {template: base, autostart: {order: 0}, running: false}
  first: {count: 2, template: base, autostart: {order: 1, healthy: agent}}
"""


def place(actions: Iterable[Action]) -> list[str]:
    """The VMs in the order in which their actions stand."""
    return [action.vm.name for action in actions if isinstance(action, VmAction)]


def needs(actions: Iterable[Action]) -> dict[str, list[str]]:
    """Which VMs' actions each VM's action needs."""
    known = {action.id: action.vm.name for action in actions if isinstance(action, VmAction)}
    return {action.vm.name: [known[need] for need in action.needs if need in known]
            for action in actions if isinstance(action, VmAction)}


def test_vms_are_made_in_the_order_in_which_they_start() -> None:
    found = plan(cloud(FIVE), Machine())
    assert place(found.actions) == ["off", "first-1", "first-2", "second", "late", "some"]
    assert needs(found.actions) == {
        "off": [], "first-1": [], "first-2": [], "second": ["first-1", "first-2"], "late": ["second"],
        "some": ["second"]}


def test_without_an_order_nothing_waits() -> None:
    found = plan(cloud("vms: {a: {template: base, autostart: {healthy: agent}}, b: {template: base}}\n"), Machine())
    assert needs(found.actions) == {"a": [], "b": []}


def test_start_rebuild_and_restart_keep_it_too() -> None:
    wanted, machine = cloud(FIVE), made(cloud(FIVE))
    names = ["late", "second", "first-1"]
    rebuilt = make_rebuild_plan(wanted, all_facts(wanted, machine), names).actions
    assert all(isinstance(action, RebuildVm) for action in rebuilt)
    assert place(rebuilt) == ["first-1", "second", "late"]
    more = cloud(f"defaults: {{memory: 2G}}\n{FIVE}")
    restarted = plan(more, machine, restart=True).actions
    assert place(action for action in restarted if isinstance(action, RestartVm)) == [
        "first-1", "first-2", "second", "late", "some"]
    for domain in machine.domains.values():
        domain.live = None
    started = make_start_plan(wanted, all_facts(wanted, machine), names).actions
    assert place(started) == ["first-1", "second", "late"]
    assert needs(started) == {"first-1": [], "second": ["first-1"], "late": ["second"]}


def test_a_first_boot_is_waited_for_where_the_file_says_so() -> None:
    """An earlier run was cut off while both booted; only the one that others wait for holds them up."""
    wanted = cloud("vms: {b: {template: base, autostart: {order: 2}}, late: {template: base}, a: {template: base, "
                   "autostart: {order: 1, healthy: agent}}}\n")
    machine = made(wanted)
    machine.domains["late"].live = None
    domains = {domain.name: domain for domain in machine.facts(wanted).domains}
    notes = tuple(IntentFacts("lab", name, "boot", (), owner.instance) for name in ("a", "b")
                  if (owner := domains[name].persistent.owner))
    found = make_plan(wanted, facts(wanted, machine, intents=notes)).actions
    assert {type(action) for action in found} == {WaitReady, StartVm}
    assert needs(found) == {"a": [], "b": [], "late": ["a"]}


def test_orders_of_other_hosts_do_not_count() -> None:
    one, other = StartVm(host="one", vm=vm("a", 1), why="-"), StartVm(host="other", vm=vm("b", 2), why="-")
    assert [action.needs for action in in_order([other, one])] == [(), ()]


BASE = cloud().vms[0]


def vm(name: str, number: int | None, *, running: bool = True) -> VmSpec:
    return replace(BASE, name=name, running=running, start_order=StartOrder(number, healthy=True))


@given(st.lists(st.tuples(st.sampled_from((None, 0, 1, 2, 3)), st.sampled_from(("start", "create", "wait", "grow")),
                          st.lists(st.integers(0, 12), max_size=2)), max_size=12))
def test_of_any_actions_with_any_needs(rows: list[tuple[int | None, str, list[int]]]) -> None:
    """Each starts after all of lower orders, but for those that need it, or that something of lower order needs."""
    plain = plan(cloud(), Machine()).actions
    template = next(action for action in plain if isinstance(action, CreateVm))
    actions: list[Action] = []
    for number, (level, kind, wanted) in enumerate(rows):
        spec = vm(f"v{number}", level, running=kind != "grow")
        met = tuple(actions[need].id for need in wanted if need < number)
        if kind in ("create", "grow"):  # one that is made and not started
            actions.append(replace(template, vm=spec, needs=met))
        else:
            actions.append((StartVm if kind == "start" else WaitReady)(host="here", vm=spec, why="-", needs=met))
    actions.reverse()
    before = needed(actions)
    found = order(in_order(actions))  # raises where some need each other
    after = needed(found)
    assert {action.id for action in found} == before.keys()
    for action in found:
        assert before[action.id] <= after[action.id]
        for other in found:
            if rank(other) < rank(action) and starts(action) and starts(other):
                held = any(rank(third) <= rank(other) and action.id in before[third.id] for third in found)
                assert held or other.id in after[action.id], (other.id, action.id)


def starts(action: Action) -> bool:
    return isinstance(action, VmAction) and action.vm.running


def rank(action: Action) -> float:
    """Of what is not started: above all."""
    number = action.vm.start_order.order if isinstance(action, VmAction) and starts(action) else None
    return 99 if number is None else number


def needed(actions: Iterable[Action]) -> dict[str, set[str]]:
    """All that each action needs, directly or by way of others."""
    found: dict[str, set[str]] = {}
    for action in order(list(actions)):
        found[action.id] = set(action.needs).union(*(found[need] for need in action.needs))
    return found


def test_paused_or_running_ones_have_no_action_and_are_not_waited_for() -> None:
    wanted, machine = cloud(FIVE), made(cloud(FIVE))
    machine.domains["late"].live = None
    domains = tuple(replace(domain, state=DomainState.PAUSED) if domain.name == "second" else domain
                    for domain in machine.facts(wanted).domains)
    found = make_plan(wanted, facts(wanted, machine, domains=domains)).actions
    assert needs(found) == {"late": []}
