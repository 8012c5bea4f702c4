"""The plan: from what is wanted and what is there to what must be done. A pure function; no I/O at all."""

from __future__ import annotations

from collections.abc import Collection

from vmwright.errors import Problem
from vmwright.facts.model import Facts
from vmwright.plan.actions import Action, DestroyVm, GrowDisk, Kept, MakeTemplate, Plan, Tidy, VmAction
from vmwright.plan.change import plan_existing
from vmwright.plan.checks import check_host, check_memory, check_space
from vmwright.plan.create import Made, plan_create, plan_destroy, plan_rebuild, stale
from vmwright.plan.networks import plan_networks
from vmwright.plan.order import order, with_needs
from vmwright.plan.storage import plan_pools, plan_templates
from vmwright.plan.view import Draft, Request, View
from vmwright.spec.cloud import Cloud, VmSpec


def make_plan(cloud: Cloud, facts: Facts, request: Request | None = None) -> Plan:
    """What must be done so that the hosts are as the cloud's file says."""
    draft = Draft(warnings=list(cloud.warnings))
    draft.refused += [Problem(f"{n.key} is not yet applied by this version of vmwright",
                              "take it out of the file (or comment it out) until a version that does", n.where)
                      for n in cloud.not_yet]
    draft.refused += [Problem(sentence) for sentence in cloud.missing]
    for host in cloud.hosts:
        _plan_host(View.of(cloud, host, facts, request or Request()), draft)
    return _finish(cloud, draft)


def make_rebuild_plan(cloud: Cloud, facts: Facts, names: Collection[str]) -> Plan:
    """The plan that rebuilds these VMs, with what they need, and nothing else."""
    plan = make_plan(cloud, facts, Request(rebuild=frozenset(names)))
    chosen = frozenset(a.id for a in plan.actions if isinstance(a, VmAction) and a.vm.name in names)
    return Plan(plan.cloud, plan.hosts, with_needs(plan.actions, chosen), refused=plan.refused, warnings=plan.warnings)


def make_destroy_plan(cloud: Cloud, facts: Facts, names: Collection[str]) -> Plan:
    """The plan that removes these VMs, and nothing else."""
    draft = Draft()
    for name in names:
        found = [action for host in cloud.hosts
                 if (action := plan_destroy(View.of(cloud, host, facts, Request()), name, "asked for", draft))]
        draft.actions += found
        if not found and not draft.refused:
            draft.kept.append(Kept("", f"vm {name}", "is not there"))
    return _finish(cloud, draft)


def _finish(cloud: Cloud, draft: Draft) -> Plan:
    return Plan(cloud.name, cloud.hosts, order(draft.actions), tuple(draft.kept), tuple(draft.refused),
                tuple(dict.fromkeys(draft.warnings)), tuple(draft.unlisted))


def _plan_host(view: View, draft: Draft) -> None:
    check_host(view, draft)
    pools = plan_pools(view, draft)
    links = plan_networks(view, draft)
    templates = plan_templates(view, draft, pools)
    made = Made(links, templates, pools)
    for vm in view.vms:
        _plan_vm(view, vm, made, draft)
    _plan_unlisted(view, draft)
    _plan_tidy(view, draft)
    check_memory(view, draft)
    check_space(view, draft)


def _plan_vm(view: View, vm: VmSpec, made: Made, draft: Draft) -> None:
    domain = view.domains.get(vm.name)
    if domain is None:
        action = plan_create(view, vm, made, draft)
        draft.actions += [action] if action else []
        return
    owner = domain.persistent.owner
    if owner is None or owner.cloud != view.cloud.name:
        whose = f"belongs to cloud {owner.cloud}" if owner else "was not made by vmwright"
        draft.refuse(f"vm {vm.name}: host {view.host.name} has a VM of that name already, which {whose}",
                     "choose another name, or rename the other one (virsh domrename)", vm.where)
    elif (intent := view.intents.get(vm.name)) and intent.operation == "destroy":
        removal = plan_destroy(view, vm.name, "a run that was cut off had begun to remove it", draft)
        draft.actions += [removal] if removal else []
    elif vm.name in view.request.rebuild:
        rebuild = plan_rebuild(view, vm, domain, made, draft)
        draft.actions += [rebuild] if rebuild else []
    else:
        plan_existing(view, vm, domain, made, draft)


def _plan_unlisted(view: View, draft: Draft) -> None:
    """VMs of this cloud that the file no longer has."""
    wanted = {vm.name for vm in view.vms}
    for domain in view.facts.domains:
        owner = domain.persistent.owner
        if owner is None or owner.cloud != view.cloud.name or domain.name in wanted:
            continue
        begun = (intent := view.intents.get(domain.name)) is not None and intent.operation == "destroy"
        if view.request.prune or begun:
            why = "a run that was cut off had begun to remove it" if begun else "it is no longer in the file"
            action = plan_destroy(view, domain.name, why, draft)
            draft.actions += [action] if action else []
        else:
            draft.unlisted.append(Kept(view.host.name, f"vm {domain.name}",
                                       "is no longer in the file; `apply --prune` removes it, with its disks"))


def _plan_tidy(view: View, draft: Draft) -> None:
    """What cut-off runs left, and nothing planned picks up."""
    planned: list[Action] = draft.actions
    busy = {a.vm.name for a in planned if isinstance(a, VmAction)} | {a.name for a in planned if isinstance(a, DestroyVm)}
    making = {f"{a.template.name}-{a.template.version}" for a in planned if isinstance(a, MakeTemplate)}
    for intent in view.facts.intents:
        if intent.operation == "template":
            if intent.object not in making:
                draft.actions.append(_tidy(view, intent.object, intent.operation))
        elif "@" in intent.object:
            if not any(isinstance(a, GrowDisk) and f"{a.vm.name}@{a.serial}" == intent.object for a in planned):
                draft.actions.append(_tidy(view, intent.object, intent.operation))
        elif intent.object not in busy and intent.cloud == view.cloud.name:
            draft.actions += _leftover(view, intent.object, draft)


def _leftover(view: View, name: str, draft: Draft) -> list[Action]:
    intent = view.intents[name]
    if stale(view, intent):
        return [_tidy(view, name, intent.operation)]
    if name in view.domains:
        return []  # a VM that is no longer in the file, shown as such
    action = plan_destroy(view, name, "a run that was cut off left it half made, and the file no longer has it", draft)
    return [action] if action else []


def _tidy(view: View, name: str, operation: str) -> Tidy:
    return Tidy(host=view.host.name, name=name, operation=operation, why="a run that was cut off left it")


