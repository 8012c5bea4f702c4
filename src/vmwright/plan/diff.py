"""The plan: from what is wanted and what is there to what must be done. A pure function; no I/O at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from vmwright.facts.model import Facts
from vmwright.plan.actions import Kept, Plan, VmAction
from vmwright.plan.aside import plan_aside
from vmwright.plan.boot import plan_boot
from vmwright.plan.bridge_filter import plan_bridge_filter
from vmwright.plan.bridges import plan_bridges
from vmwright.plan.change import plan_existing
from vmwright.plan.checks import check_host, check_memory, check_space
from vmwright.plan.create import Made, plan_create, plan_rebuild
from vmwright.plan.devices import Dealt, deal
from vmwright.plan.handover import settle
from vmwright.plan.host_actions import Prepare
from vmwright.plan.hugepages import plan_hugepages
from vmwright.plan.networks import plan_networks
from vmwright.plan.nodes import check_nodes
from vmwright.plan.order import order, with_needs
from vmwright.plan.own_files import tell_drift
from vmwright.plan.prepare import iommu_comes, plan_prepare
from vmwright.plan.release import others_there, plan_release
from vmwright.plan.remove import plan_destroy, plan_tidy, plan_unlisted
from vmwright.plan.services import plan_services
from vmwright.plan.start_order import in_order
from vmwright.plan.storage import plan_old_versions, plan_pools, plan_templates
from vmwright.plan.uses import check_uses
from vmwright.plan.view import Draft, Request, View
from vmwright.spec.cloud import Cloud, VmSpec


def make_plan(cloud: Cloud, facts: Facts, request: Request | None = None) -> Plan:
    """What must be done so that the hosts are as the cloud's file says."""
    draft = _begin(cloud)
    for found in _views(cloud, facts, request or Request()):
        view = plan_hugepages(found, draft)
        dealt = _plan_wanted(view, draft)
        plan_unlisted(view, draft)
        settle(view, dealt, draft)
        plan_tidy(view, draft)
        plan_old_versions(view, draft)
        plan_boot(view, draft)
        check_memory(view, draft)
        check_nodes(view, draft)
        check_space(view, draft)
        check_uses(view, draft)
        tell_drift(view, draft)
    return _finish(cloud, draft)


def make_rebuild_plan(cloud: Cloud, facts: Facts, names: Collection[str], wipe: Collection[str] = ()) -> Plan:
    """The plan that rebuilds these VMs, with what they need, and nothing else; `wipe` are devices of theirs."""
    chosen, draft = frozenset(names), _begin(cloud)
    request = Request(rebuild=chosen, only=chosen, wipe=frozenset(wipe))
    views = [plan_hugepages(view, draft) for view in _views(cloud, facts, request)]
    _check_wipe(cloud, chosen, wipe, draft)
    for view in views:
        settle(view, _plan_wanted(view, draft), draft)
    for action in draft.actions:
        if isinstance(action, Prepare):
            draft.refuse(f"host {action.host} is not prepared: {action.why}", "first: vmwright apply")
    wanted = frozenset(a.id for a in draft.actions if isinstance(a, VmAction))
    draft.actions = list(with_needs(draft.actions, wanted))
    for view in views:
        check_memory(view, draft)
        check_nodes(view, draft)
        check_space(view, draft)
        check_uses(view, draft)
    return _finish(cloud, draft)


def _check_wipe(cloud: Cloud, chosen: frozenset[str], wipe: Collection[str], draft: Draft) -> None:
    there = {use.device.name for vm in cloud.vms if vm.name in chosen for use in vm.devices}
    for name in wipe:
        if name not in there:
            draft.refuse(f"--wipe {name}: none of the VMs to rebuild has such a device",
                         f"those that they have: {', '.join(sorted(there)) or 'none'}")


def make_destroy_plan(cloud: Cloud, facts: Facts, names: Collection[str]) -> Plan:
    """The plan that removes these VMs, and nothing else."""
    draft = Draft()
    views = _views(cloud, facts, Request())
    for name in dict.fromkeys(names):
        refused = len(draft.refused)
        found = [action for view in views if (action := plan_destroy(view, name, "asked for", draft))]
        draft.actions += found
        if not found and len(draft.refused) == refused:
            draft.kept.append(Kept(cloud.hosts[0].name, f"vm {name}", "is not there"))
    for view in views:
        check_uses(view, draft)
    return _finish(cloud, draft)


def make_release_plan(cloud: Cloud, facts: Facts, host: str) -> Plan:
    """The plan that takes everything of ours off a host, but for VMs and their data."""
    draft = Draft()
    for view in _views(cloud, facts, Request()):
        if view.host.name == host:
            plan_release(view, draft)
            if others := others_there(view, cloud):
                draft.warnings.append(f"host {host}: it has VMs of other clouds, too ({', '.join(others)}): what these "
                                      "need of it is set again when they are applied")
    return _finish(cloud, draft)


def removable_vms(cloud: Cloud, facts: Facts) -> frozenset[str]:
    """The names that destroy may be given: of VMs in the file, and of those of which a host has anything."""
    found = {vm.name for vm in cloud.vms}
    for view in _views(cloud, facts, Request()):
        found |= view.vm_volumes.keys() | {name for name, domain in view.domains.items() if view.owner(domain)}
        found |= {name for name in view.intents if "@" not in name}
    return frozenset(found)


def _begin(cloud: Cloud) -> Draft:
    """A draft with what the file alone says."""
    draft = Draft(warnings=list(cloud.warnings))
    for later in cloud.not_yet:
        draft.refuse(f"{later.key} is not yet applied by this version of vmwright",
                     "take it out of the file (or comment it out) until a version that does", later.where)
    draft.refused |= dict.fromkeys(cloud.missing)
    return draft


def _views(cloud: Cloud, facts: Facts, request: Request) -> list[View]:
    views = [View.of(cloud, host, facts, request) for host in cloud.hosts]
    if len(views) == 1:
        return views
    placed = {vm.name: vm.host for vm in cloud.vms}
    homes: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for view in views:
        for domain in view.facts.domains:
            if view.owner(domain):
                homes[domain.name] += (view.host.name,)
    return [replace(view, placed=placed, homes=homes) for view in views]


def _finish(cloud: Cloud, draft: Draft) -> Plan:
    return Plan(cloud.name, cloud.hosts, order(in_order(draft.actions)), tuple(draft.kept), tuple(draft.refused),
                draft.told(), tuple(draft.unlisted))


def _plan_wanted(view: View, draft: Draft) -> Dealt:
    """What the file asks for on this host, in the order in which one thing stands on another. Returns its devices."""
    plan_bridge_filter(view, draft)
    plan_aside(view, draft)
    plan_prepare(view, draft)
    plan_bridges(view, draft)
    services = plan_services(view, draft)
    check_host(view, draft)
    dealt = deal(view, draft)
    pools = plan_pools(view, draft)
    links = plan_networks(view, draft)
    templates = plan_templates(view, draft, pools)
    made = Made(links, templates, pools, dealt, services)
    for vm in view.vms:
        if vm.devices and iommu_comes(view):
            draft.kept.append(Kept(view.host.name, f"vm {vm.name}", "waits until the IOMMU is on, for its devices"))
        else:
            _plan_vm(view, vm, made, draft)
    return dealt


def _plan_vm(view: View, vm: VmSpec, made: Made, draft: Draft) -> None:
    domain = view.domains.get(vm.name)
    if domain is None:
        elsewhere = [host for host in view.homes.get(vm.name, ()) if host != view.host.name]
        if elsewhere:
            why = "one that has devices of its host cannot be moved" if vm.devices else "VMs are not moved yet"
            draft.refuse(f"vm {vm.name} is on host {elsewhere[0]}, and the file has it on {view.host.name}; {why}",
                         f"say `host: {elsewhere[0]}`, or first: vmwright destroy {vm.name}", vm.where)
            return
        draft.actions += plan_create(view, vm, made, draft)
    elif view.owner(domain) is None:
        draft.refuse(f"vm {vm.name}: host {view.host.name} has a VM of that name already, which "
                     f"{_whose(view, vm.name)}", "choose another name, or rename the other one (virsh domrename)",
                     vm.where)
    elif vm.name in view.request.rebuild:
        draft.actions += plan_rebuild(view, vm, domain, made, draft)
    else:
        plan_existing(view, vm, domain, made, draft)


def _whose(view: View, name: str) -> str:
    owner = view.domains[name].persistent.owner
    if owner is None:
        return "was not made by vmwright"
    if owner.cloud == view.cloud.name:
        return f"is a copy of this cloud's {owner.vm}, or that one renamed"
    return f"belongs to cloud {owner.cloud}"
