"""Facts as lines of text."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from vmwright.facts.model import (
    BlockFacts,
    CpuFacts,
    DeviceFacts,
    DomainFacts,
    Facts,
    GroupFacts,
    Held,
    HeldFacts,
    HostFacts,
    IommuFacts,
    NodeFacts,
    Use,
    UseFacts,
)
from vmwright.report.text import host_line, table
from vmwright.units import format_cpuset, format_size


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
    yield from (_node(node, host.cpu_list) for node in host.nodes)
    yield ""
    yield table(("POOL", "TYPE", "STATE", "WHERE", "SIZE", "FREE"), (
        (p.name, p.type, "active" if p.active else "off", p.target, format_size(p.capacity), format_size(p.available))
        for p in host.pools))
    yield from _storage(host)
    yield from _devices(host)
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


def _node(node: NodeFacts, cpus: Iterable[CpuFacts]) -> str:
    """A NUMA node in a line."""
    cores = {(cpu.socket, cpu.core) for cpu in cpus if cpu.number in node.cpus}
    many = f"{len(cores)} core{'s' * (len(cores) != 1)}" if len(cores) != len(node.cpus) else "no hyper-threads"
    had = f"CPUs {format_cpuset(node.cpus)} ({many})" if node.cpus else "no CPUs"
    huge = "".join(f", {page.free} of {page.total} huge pages of {format_size(page.size)} free" for page in
                   node.hugepages if page.total)
    return f"  node {node.number}: {had}, {format_size(node.free)} of {format_size(node.memory)} memory free{huge}"


# What is in every server by the dozen and no guest is given: bridges, system devices, performance counters.
_NO_CANDIDATES = ("06", "08", "1101")


def _devices(host: HostFacts) -> Iterable[object]:
    """The IOMMU and those devices that a guest could be given, where they were read."""
    if host.iommu is None:
        return
    bridges = {device.address for device in host.devices if device.bridge}
    yield ""
    yield f"  {_iommu(host.iommu)}"
    yield table(("DEVICE", "IDS", "NAME", "SERIAL", "NODE", "GROUP", "DRIVER", "USED BY"), (
        _device(device, bridges) for device in host.devices if not device.kind.startswith(_NO_CANDIDATES)))
    yield from (_held(note) for note in host.held)


def _iommu(iommu: IommuFacts) -> str:
    if iommu.on:
        return "IOMMU: on"
    why = (f"the firmware tells of one ({iommu.table}), and the kernel does not use it" if iommu.table else
           "the firmware tells of none")
    return f"IOMMU: off; {why}"


def _device(device: DeviceFacts, bridges: Collection[str]) -> tuple[str, ...]:
    others = [_short(peer) for peer in device.peers if peer not in bridges]
    group = "" if device.group is None else str(device.group)
    return (_short(device.address), device.ids, device.name, device.serial or "",
            "" if device.numa_node is None else str(device.numa_node),
            f"{group} with {', '.join(others)}" if others else group, device.driver or "",
            "; ".join(_use(use) for use in device.uses))


def _held(note: HeldFacts) -> str:
    """What is known of the data on a device that a VM has had."""
    which = ", ".join(filter(None, (_short(note.address), note.serial)))
    said = {Held.GIVEN: f"has what vm {note.vm} of cloud {note.cloud} has left there",
            Held.WIPING: f"is wiped in part, for vm {note.vm} of cloud {note.cloud}", Held.WIPED: "is wiped"}
    return f"  {which}: {said[note.state]}"


def _short(address: str) -> str:
    """A PCI address as one writes it in the file: without domain 0."""
    return address.removeprefix("0000:")


def _use(use: UseFacts) -> str:
    match use.use:
        case Use.MOUNT:
            return f"{use.by} at {use.what}"
        case Use.SWAP:
            return f"{use.by} is swap"
        case Use.LVM:
            return f"{use.by} in volume group {use.what}" if use.what else f"{use.by} of LVM"
        case Use.RAID:
            return f"{use.by} of {use.what}" if use.what else use.by
        case Use.HOLDER:
            return use.by
        case Use.DISK:
            return f"disk {use.what} of VM {use.by}"
        case Use.ROUTE:
            return f"default route by {use.what}"
        case Use.SESSION:
            return f"this ssh session, at {use.what}"
        case Use.LINK:
            return f"{use.by} in {use.what}" if "/" not in use.what else f"{use.by} has {use.what}"
        case Use.VM:
            return f"VM {use.by}"
