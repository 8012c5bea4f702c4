"""Plans of the commands start and stop. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vmwright.facts.model import DomainFacts, DomainState, Facts
from vmwright.plan.action import Action, Change, Effect
from vmwright.plan.actions import Kept, Plan, StartVm, StopVm
from vmwright.plan.change import is_on
from vmwright.plan.checks import check_memory
from vmwright.plan.devices import check_start
from vmwright.plan.nodes import check_nodes
from vmwright.plan.order import order
from vmwright.plan.start_order import in_order
from vmwright.plan.uses import check_uses, waking
from vmwright.plan.view import Draft, Request, View
from vmwright.spec.cloud import Cloud, VmSpec


def make_start_plan(cloud: Cloud, facts: Facts, names: Collection[str]) -> Plan:
    """Start these VMs, if they are there and off."""
    draft = Draft()
    views = _views(cloud, facts, names)
    for vm, domain in _ours(cloud, views, names, draft):
        if is_on(domain):
            why = "runs already" if domain.state is DomainState.RUNNING else \
                f"is paused, which is not off: virsh resume {vm.name}"
            draft.kept.append(Kept(vm.host, f"vm {vm.name}", why))
            continue
        check_start(views[vm.host], vm, domain, draft)
        changes = (*waking(views[vm.host], domain), Change("state", str(domain.state), "running"))
        draft.actions.append(StartVm(host=vm.host, vm=vm, why="asked for", changes=changes))
    for view in views.values():
        check_memory(view, draft)
        check_nodes(view, draft)
        check_uses(view, draft)
    return _plan(cloud, draft.actions, draft)


def make_stop_plan(cloud: Cloud, facts: Facts, names: Collection[str], *, patience: float, force: bool) -> Plan:
    """Stop these VMs, if they are there and on."""
    draft = Draft()
    for vm, domain in _ours(cloud, _views(cloud, facts, names), names, draft):
        if not is_on(domain):
            draft.kept.append(Kept(vm.host, f"vm {vm.name}", "is off already"))
            continue
        draft.actions.append(StopVm(host=vm.host, vm=vm, why="asked for", patience=patience, force=force,
                                    effects=frozenset({Effect.STOPS}),
                                    changes=(Change("state", str(domain.state), "shut off"),)))
    return _plan(cloud, draft.actions, draft)


def _views(cloud: Cloud, facts: Facts, names: Collection[str]) -> dict[str, View]:
    request = Request(only=frozenset(names))
    return {host.name: View.of(cloud, host, facts, request) for host in cloud.hosts}


def _ours(cloud: Cloud, views: dict[str, View], names: Collection[str],
          draft: Draft) -> Iterator[tuple[VmSpec, DomainFacts]]:
    known = {vm.name: vm for vm in cloud.vms}
    for name in dict.fromkeys(names):
        vm = known.get(name)
        if vm is None:
            draft.refuse(f"there is no vm {name} in the file", "see `vmwright status`")
            continue
        domain = views[vm.host].domains.get(name)
        if domain is None:
            draft.refuse(f"vm {name} is not there", "make it with `vmwright apply`", vm.where)
        elif views[vm.host].owner(domain) is None:
            draft.refuse(f"vm {name} is not of this cloud", "use virsh", vm.where)
        else:
            yield vm, domain


def _plan(cloud: Cloud, actions: list[Action], draft: Draft) -> Plan:
    return Plan(cloud.name, cloud.hosts, order(in_order(actions)), tuple(draft.kept), tuple(draft.refused),
                draft.told())
