"""The status of every VM: what it is, and what differs from the file."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from vmwright.facts.model import DomainFacts, DomainState, Facts
from vmwright.plan.actions import Action, CreateVm, DestroyVm, GrowDisk, Plan, VmAction
from vmwright.plan.change import pending
from vmwright.report.text import table
from vmwright.spec.cloud import Cloud, VmSpec
from vmwright.units import format_size

_COLUMNS = ("VM", "HOST", "STATE", "HEALTH", "ADDRESS", "VCPUS", "MEMORY", "TEMPLATE", "DRIFT")


def status_data(cloud: Cloud, facts: Facts, plan: Plan, answers: dict[str, bool]) -> list[dict[str, Any]]:
    """One row per VM of the file, as plain data. `answers` says whose guest agent answered."""
    domains = {(host.name, domain.name): domain for host in facts.hosts for domain in host.domains}
    rows = []
    for vm in cloud.vms:
        domain = domains.get((vm.host, vm.name))
        rows.append(_row(vm, domain, plan, answers))
    return rows


def _row(vm: VmSpec, domain: DomainFacts | None, plan: Plan, answers: dict[str, bool]) -> dict[str, Any]:
    owner = domain.persistent.owner if domain else None
    live = (domain.live or domain.persistent) if domain else None
    health = "-"
    if domain and domain.state is DomainState.RUNNING:
        health = "ok" if answers.get(vm.name) else "no agent"
    return {
        "vm": vm.name, "host": vm.host, "state": str(domain.state) if domain else "missing", "health": health,
        "address": ", ".join(str(nic.address.ip) if nic.address else "DHCP" for nic in vm.nics) or "-",
        "vcpus": str(live.vcpus) if live else "-", "memory": format_size(live.memory) if live else "-",
        "template": f"{owner.template}@{owner.template_version}" if owner else "-",
        "drift": _drift(vm.name, domain, plan),
    }


def _drift(name: str, domain: DomainFacts | None, plan: Plan) -> str:
    found = [_words(action) for action in plan.actions if _name(action) == name]
    if domain and (waiting := pending(domain)):
        found.append(f"at next start: {', '.join(waiting)}")
    older = any(w.startswith(f"vm {name} comes from ") for w in plan.warnings)
    if older:
        found.append("older template")
    return "; ".join(found) or "-"


def _name(action: Action) -> str:
    return action.vm.name if isinstance(action, VmAction) else action.name if isinstance(action, DestroyVm) else ""


def _words(action: Action) -> str:
    if isinstance(action, CreateVm) or not action.changes:
        return action.verb
    if isinstance(action, GrowDisk):
        return f"grow {action.serial}"
    return f"{action.verb}: {', '.join(change.key for change in action.changes)}"


def status_table(cloud: Cloud, facts: Facts, plan: Plan, answers: dict[str, bool]) -> Table:
    """The same as a table."""
    rows = status_data(cloud, facts, plan, answers)
    return table(_COLUMNS, (tuple(row[column.lower()] for column in _COLUMNS) for row in rows))
