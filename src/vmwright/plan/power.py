"""Plans of the commands start and stop. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vmwright.errors import Problem
from vmwright.facts.model import DomainFacts, DomainState, Facts
from vmwright.plan.actions import Action, Change, Effect, Kept, Plan, StartVm, StopVm
from vmwright.plan.checks import check_memory
from vmwright.plan.view import Draft, Request, View
from vmwright.spec.cloud import Cloud, VmSpec


def make_start_plan(cloud: Cloud, facts: Facts, names: Collection[str]) -> Plan:
    """Start these VMs, if they are there and off."""
    draft = Draft()
    for vm, domain in _ours(cloud, facts, names, draft):
        if domain.state is DomainState.RUNNING:
            draft.kept.append(Kept(vm.host, f"vm {vm.name}", "runs already"))
            continue
        draft.actions.append(StartVm(host=vm.host, vm=vm, why="asked for",
                                     changes=(Change("state", str(domain.state), "running"),)))
    for host in cloud.hosts:
        check_memory(View.of(cloud, host, facts, Request()), draft)
    return _plan(cloud, draft.actions, draft)


def make_stop_plan(cloud: Cloud, facts: Facts, names: Collection[str], *, patience: float, force: bool) -> Plan:
    """Stop these VMs, if they are there and on."""
    draft = Draft()
    for vm, domain in _ours(cloud, facts, names, draft):
        if domain.state is DomainState.SHUTOFF:
            draft.kept.append(Kept(vm.host, f"vm {vm.name}", "is off already"))
            continue
        draft.actions.append(StopVm(host=vm.host, vm=vm, why="asked for", patience=patience, force=force,
                                    effects=frozenset({Effect.STOPS}),
                                    changes=(Change("state", str(domain.state), "shut off"),)))
    return _plan(cloud, draft.actions, draft)


def _ours(cloud: Cloud, facts: Facts, names: Collection[str], draft: Draft) -> Iterator[tuple[VmSpec, DomainFacts]]:
    for name in names:
        vm = cloud.vm(name)
        if vm is None:
            draft.refuse(f"there is no vm {name} in the file", "see `vmwright status`")
            continue
        domain = next((d for d in facts.host(vm.host).domains if d.name == name), None)
        owner = domain.persistent.owner if domain else None
        if domain is None or owner is None or owner.cloud != cloud.name:
            draft.refused.append(Problem(f"vm {name} is not there" if domain is None else f"vm {name} is not of this cloud",
                                         "make it with `vmwright apply`" if domain is None else "use virsh", vm.where))
            continue
        yield vm, domain


def _plan(cloud: Cloud, actions: list[Action], draft: Draft) -> Plan:
    return Plan(cloud.name, cloud.hosts, tuple(actions), tuple(draft.kept), tuple(draft.refused))
