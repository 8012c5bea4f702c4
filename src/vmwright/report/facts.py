"""Facts as lines of text."""

from __future__ import annotations

from collections.abc import Iterable

from vmwright.facts.model import BlockFacts, DomainFacts, Facts, GroupFacts, HostFacts
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
    yield from _storage(host)
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


def _storage(host: HostFacts) -> Iterable[object]:
    """Volume groups and block devices, where they were read."""
    if host.groups:
        yield ""
        yield table(("VOLUME GROUP", "SIZE", "FREE", "DISKS", "THIN POOLS"), (_group(group) for group in host.groups))
    disks = [block for block in host.blocks if block.kind != "lvm" and block.size]
    if disks:
        yield ""
        yield table(("DISK", "KIND", "SIZE", "NODE", "SERIAL", "ON IT"), (_disk(block) for block in disks))


def _group(group: GroupFacts) -> tuple[str, ...]:
    thin = "; ".join(f"{t.name} {format_size(t.size)}, {t.data_percent:.0f}% used" for t in group.thin)
    return group.name, format_size(group.size), format_size(group.free), ", ".join(group.disks), thin


def _disk(block: BlockFacts) -> tuple[str, ...]:
    """A row: its last cell has partition table, signatures, group and uses."""
    node = "" if block.numa_node is None else str(block.numa_node)
    found = (*([block.table] if block.table else []), *block.signatures, *([f"in {block.vg}"] if block.vg else []),
             *block.mounts)
    return block.path, block.kind, format_size(block.size), node, block.serial or "", ", ".join(found)
