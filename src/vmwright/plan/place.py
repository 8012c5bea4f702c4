"""Where a VM runs on its host: from its pin and the host's CPUs and NUMA nodes to a placement. Pure, deterministic.

The place for an automatic choice, too (`pin: auto`): it is to make a PinSpec, and all that follows is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmwright.facts.model import ANYWHERE, Cell, Placement
from vmwright.plan.pages import page_size
from vmwright.plan.topology import nodes_of, one_to_one, shares, vcpu_order
from vmwright.plan.view import View
from vmwright.spec.cloud import MemoryPolicy, PinSpec, VmSpec
from vmwright.units import MIB, format_cpuset, format_size

_POLICIES = {"strict": "only", "preferred": "first"}


def place(view: View, vm: VmSpec) -> Placement:
    """Where the VM is to run; ANYWHERE without a pin.

    A CPU that the host does not have is placed like the others: it is refused elsewhere (nodes.py).
    """
    if vm.pin is None:
        return ANYWHERE
    order, threads = vcpu_order(view, vm.pin) if one_to_one(vm) else ((), 1)
    nodes, pages = nodes_of(view, vm.pin), page_size(view, vm)
    cells = _cells(view, vm, order, pages or MIB)
    emulator = vm.pin.emulator or _left_over(view, vm.pin, nodes)
    bound, mode = _policy(vm.pin.memory, nodes, cells)
    return Placement(
        vcpus=tuple((cpu,) for cpu in order) or (vm.pin.cpus,) * vm.vcpus,
        emulator=emulator,
        iothreads=emulator if _has_iothreads(view, vm) else (),
        nodes=bound,
        memory=mode,
        cells=cells,
        threads=threads,
        hugepages=pages,
    )


def _left_over(view: View, pin: PinSpec, nodes: tuple[int, ...]) -> tuple[int, ...]:
    """CPUs of those nodes that no VM is pinned to, the better ones if no sibling is, either; else the VM's own."""
    near = [cpu for cpu in view.cpus.values() if cpu.online and (not nodes or cpu.node in nodes)]
    free = [cpu for cpu in near if cpu.number not in view.pinned]
    quiet = [cpu for cpu in free if not any(sibling in view.pinned for sibling in cpu.siblings)]
    return tuple(sorted(cpu.number for cpu in quiet or free)) or pin.cpus


def _has_iothreads(view: View, vm: VmSpec) -> bool:
    """Whether the VM has I/O threads, or will have: those with a disk on a block device are made with one."""
    domain = view.domains.get(vm.name)
    if domain and vm.name not in view.request.rebuild:
        return domain.persistent.iothreads > 0
    return any(view.lvm(pool) for pool in (vm.pool, *(disk.pool for disk in vm.data_disks)))


def _policy(policy: MemoryPolicy, nodes: tuple[int, ...], cells: Sequence[Cell]) -> tuple[tuple[int, ...], str]:
    """The nodes of the memory as a whole, and the mode.

    libvirt 9 prefers one node only. For several, each of the guest's own nodes prefers its own; where the guest has
    none nothing is said, and the kernel takes memory near the CPU that touches it first, which is much the same.
    """
    if policy is MemoryPolicy.STRICT or len(nodes) == 1:
        return nodes, str(policy) if nodes else ""
    return (), str(policy) if cells else ""


def _cells(view: View, vm: VmSpec, order: tuple[int, ...], unit: int) -> tuple[Cell, ...]:
    """A NUMA node of the guest for each of the host's: its vCPUs, and their share of the memory in whole units."""
    node_of = [view.cpus[number].node if number in view.cpus else None for number in order]
    return tuple(Cell(tuple(vcpu for vcpu, other in enumerate(node_of) if other == node), share * unit, (node,))
                 for node, share in shares(view, vm, unit).items())


def only_pins_differ(running: Placement, wanted: Placement) -> bool:
    """Whether a running VM can go from one to the other: threads move at any time, memory and topology do not."""
    rest = [(len(p.vcpus), all(p.vcpus), bool(p.emulator), bool(p.iothreads), p.nodes, p.memory, p.cells, p.threads,
             p.hugepages) for p in (running, wanted)]
    return rest[0] == rest[1] and bool(wanted.vcpus)


def rows(placement: Placement) -> dict[str, str]:
    """A placement in words, each of its parts by its name."""
    mode = _POLICIES.get(placement.memory, placement.memory)
    return {
        "CPUs": _cpus(placement.vcpus),
        "emulator on": _any(placement.emulator),
        "I/O threads on": _any(placement.iothreads),
        "memory on": f"{_nodes(placement.nodes)} {mode}" if placement.nodes else f"any node, {mode}" if mode else "any",
        "NUMA nodes": ", ".join(_cell(cell) for cell in placement.cells) or "none of its own",
        "threads": f"{placement.threads} per core",
        "huge pages": format_size(placement.hugepages) if placement.hugepages else "none",
    }


def differences(old: Placement, new: Placement) -> list[tuple[str, str, str]]:
    """The parts that differ: name, old and new, in words."""
    before, after = rows(old), rows(new)
    return [(key, before[key], after[key]) for key in after if before[key] != after[key]]


def described(placement: Placement) -> list[tuple[str, str]]:
    """What is to be told of a new VM's placement; where I/O threads run is told where it is not with the emulator."""
    found = [(key, new) for key, _, new in differences(ANYWHERE, placement)]
    return [row for row in found if row[0] != "I/O threads on" or placement.iothreads != placement.emulator]


def summary(placement: Placement) -> str:
    """A placement in short: CPUs 24-27, node 0. Empty for anywhere."""
    cpus = {cpu for pins in placement.vcpus for cpu in pins}
    nodes = placement.nodes or sorted({node for cell in placement.cells for node in cell.nodes})
    plural = "s" if len(cpus) > 1 else ""
    return ", ".join([*([f"CPU{plural} {format_cpuset(cpus)}"] if cpus else []), *([_nodes(nodes)] if nodes else [])])


def _cpus(vcpus: tuple[tuple[int, ...], ...]) -> str:
    if not vcpus:
        return "any"
    if all(len(pins) == 1 for pins in vcpus):
        order = [pins[0] for pins in vcpus]
        return f"{format_cpuset(order) if order == sorted(set(order)) else ','.join(map(str, order))}, one each"
    if len(set(vcpus)) == 1:
        return f"{format_cpuset(vcpus[0])}, shared by {len(vcpus)} vCPU{'s' if len(vcpus) > 1 else ''}"
    return " / ".join(_any(pins) for pins in vcpus)


def _any(cpus: tuple[int, ...]) -> str:
    return format_cpuset(cpus) or "any"


def _nodes(nodes: Sequence[int]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {format_cpuset(nodes)}"


def _cell(cell: Cell) -> str:
    on = f" on {_nodes(cell.nodes)}" if cell.nodes else ""
    return f"vCPUs {format_cpuset(cell.vcpus)} with {format_size(cell.memory)}{on}"
