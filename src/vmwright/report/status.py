"""The status of every VM: what it is, and what differs from the file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from vmwright.facts.model import DomainFacts, DomainState, Facts, OwnerFacts
from vmwright.plan.action import Action
from vmwright.plan.actions import CreateVm, DestroyVm, GrowDisk, Plan, VmAction
from vmwright.plan.change import pending
from vmwright.plan.place import summary
from vmwright.report.text import parts, table
from vmwright.spec.cloud import Cloud, VmSpec
from vmwright.units import format_size

_COLUMNS = ("VM", "HOST", "STATE", "HEALTH", "ADDRESS", "VCPUS", "MEMORY", "PLACEMENT", "AUTOSTART", "TEMPLATE",
            "DRIFT")


def status_data(cloud: Cloud, facts: Facts, plan: Plan, answers: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One row per VM of the file, as plain data. `answers` says whose guest agent answered."""
    domains = {(host.name, domain.name): domain for host in facts.hosts for domain in host.domains}
    versions = {(t.host, t.name, t.version) for t in cloud.templates}
    planned: defaultdict[str, list[Action]] = defaultdict(list)
    for action in plan.actions:
        planned[_name(action)].append(action)
    rows = []
    for vm in cloud.vms:
        domain = domains.get((vm.host, vm.name))
        owner = _owner(cloud, vm, domain)
        older = owner is not None and (vm.host, owner.template, owner.template_version) not in versions
        drift = list(_drift(domain if owner else None, planned[vm.name], older))
        rows.append(_row(vm, domain if owner else None, owner, "; ".join(drift), answers))
    return rows


def _owner(cloud: Cloud, vm: VmSpec, domain: DomainFacts | None) -> OwnerFacts | None:
    """Our mark; None for a VM that only has the name of ours."""
    owner = domain.persistent.owner if domain else None
    return owner if owner and (owner.cloud, owner.vm) == (cloud.name, vm.name) else None


def _row(vm: VmSpec, domain: DomainFacts | None, owner: OwnerFacts | None, drift: str,
         answers: Mapping[str, bool]) -> dict[str, Any]:
    config = (domain.live or domain.persistent) if domain else None
    health = "-"
    if domain and domain.state is DomainState.RUNNING:
        health = "ok" if answers.get(vm.name) else "no agent"
    return {
        "vm": vm.name, "host": vm.host, "state": str(domain.state) if domain else "missing", "health": health,
        "address": ", ".join(str(nic.address.ip) if nic.address else "DHCP" for nic in vm.nics) or "-",
        "vcpus": str(config.vcpus) if config else "-", "memory": format_size(config.memory) if config else "-",
        "placement": (summary(config.placement) if config else "") or "-",
        "autostart": _autostart(vm),
        "template": f"{owner.template}@{owner.template_version}" if owner else "-",
        "drift": drift or "-",
    }


def _autostart(vm: VmSpec) -> str:
    """When the VM starts with its host, as the file says."""
    said = vm.start_order
    words = ["yes" if said.order is None else f"order {said.order}"] + (["agent"] if said.healthy else [])
    return ", ".join(words) if vm.autostart else "-"


def _drift(domain: DomainFacts | None, planned: list[Action], older: bool) -> Iterator[str]:
    yield from (_words(action) for action in planned)
    if domain and (waiting := pending(domain)):
        yield f"at next start: {', '.join(waiting)}"
    if older:
        yield "older template"


def _name(action: Action) -> str:
    return action.vm.name if isinstance(action, VmAction) else action.name if isinstance(action, DestroyVm) else ""


def _words(action: Action) -> str:
    if isinstance(action, GrowDisk):
        return f"grow {action.serial}"
    if isinstance(action, CreateVm) or not action.changes:
        return action.verb
    return f"{action.verb}: {', '.join(change.key for change in action.changes)}"


def status_table(cloud: Cloud, facts: Facts, plan: Plan, answers: Mapping[str, bool]) -> Text:
    """The same as a table."""
    rows = status_data(cloud, facts, plan, answers)
    # In the data they stand anyway.
    left_out = set() if any(vm.start_order.said for vm in cloud.vms) else {"AUTOSTART"}
    left_out |= set() if any(row["placement"] != "-" for row in rows) else {"PLACEMENT"}
    columns = [column for column in _COLUMNS if column not in left_out]
    return table(columns, (tuple(row[column.lower()] for column in columns) for row in rows))


def status_lines(cloud: Cloud, facts: Facts, plan: Plan, answers: Mapping[str, bool]) -> Iterator[Text]:
    """The table, what is there besides the file, and what stands in the way of applying it."""
    unlisted = [Text(f"{kept.object}: {kept.why}") for kept in plan.unlisted]
    refused = [Text(f"! {problem}", style="yellow") for problem in plan.refused]
    yield from parts([status_table(cloud, facts, plan, answers)], unlisted, refused)
