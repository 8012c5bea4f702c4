"""Facts as lines of text."""

from __future__ import annotations

from collections.abc import Iterable

from vmwright.facts.model import DomainFacts, Facts, HostFacts
from vmwright.report.text import host_line, table
from vmwright.units import format_size


def facts_lines(facts: Facts) -> Iterable[object]:
    """Everything that is known of the hosts, for a person."""
    for number, host in enumerate(facts.hosts):
        yield from ["", *_host(host)] if number else _host(host)


def _host(host: HostFacts) -> Iterable[object]:
    yield host_line(host)
    yield f"  libvirt {host.libvirt}, QEMU {host.emulator or 'not installed'}, kernel {host.kernel}, " \
          f"UEFI firmware {'there' if host.uefi else 'not found'}"
    if host.kvm_reason:
        yield f"  KVM: {host.kvm_reason}"
    yield ""
    yield table(("POOL", "TYPE", "STATE", "WHERE", "SIZE", "FREE"), (
        (p.name, p.type, "active" if p.active else "off", p.target, format_size(p.capacity), format_size(p.available))
        for p in host.pools))
    yield ""
    yield table(("NETWORK", "STATE", "KIND", "BRIDGE", "ADDRESS"), (
        (n.name, "active" if n.active else "off", n.forward or "isolated", n.bridge or "", n.subnet or "")
        for n in host.networks))
    yield ""
    yield table(("VM", "STATE", "VCPUS", "MEMORY", "CLOUD", "TEMPLATE"), (_vm(d) for d in host.domains))
    for intent in host.intents:
        yield f"  unfinished: {intent.operation} of {intent.object}"


def _vm(domain: DomainFacts) -> tuple[str, ...]:
    config, owner = domain.persistent, domain.persistent.owner
    template = f"{owner.template}@{owner.template_version}" if owner else "-"
    cloud = owner.cloud if owner else "-"
    return domain.name, str(domain.state), str(config.vcpus), format_size(config.memory), cloud, template
