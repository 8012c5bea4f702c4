"""What a pin means on a host: its NUMA nodes, its cores, and the shares of a guest's own nodes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from vmwright.plan.view import View
from vmwright.spec.cloud import PinSpec, VmSpec


def nodes_of(view: View, pin: PinSpec) -> tuple[int, ...]:
    """The NUMA nodes of a pin's CPUs, in order; none where the host has no nodes."""
    return tuple(sorted(_weights(view, pin)))


def _weights(view: View, pin: PinSpec) -> Counter[int]:
    """How many of a pin's CPUs are on each node."""
    found = (cpu.node for number in pin.cpus if (cpu := view.cpus.get(number)))
    return Counter(node for node in found if node is not None)


def one_to_one(vm: VmSpec) -> bool:
    """Whether each vCPU has a CPU of its own."""
    return vm.pin is not None and len(vm.pin.cpus) == vm.vcpus


def vcpu_order(view: View, pin: PinSpec) -> tuple[tuple[int, ...], int]:
    """A CPU for each vCPU, node by node, and how many hyper-threads a core of the guest has.

    When the CPUs are whole cores (of each core the same number), those of a core stand side by side, as libvirt numbers
    the threads of a guest's core; else the guest is not told of hyper-threads.
    """
    places = {number: _place(view, pin, number) for number in pin.cpus}
    cores = [tuple(core) for _, core in groupby(sorted(places, key=places.__getitem__), lambda n: places[n][:2])]
    if len({len(core) for core in cores}) == 1:
        return tuple(number for core in cores for number in core), len(cores[0])
    return tuple(sorted(places, key=lambda number: (places[number][0], number))), 1


def _place(view: View, pin: PinSpec, number: int) -> tuple[int, int, int]:
    """By what CPUs are sorted: the node, the lowest of the pin's CPUs on the same core, the number."""
    cpu = view.cpus.get(number)
    if cpu is None:
        return -1, number, number
    return -1 if cpu.node is None else cpu.node, min({number, *cpu.siblings} & set(pin.cpus)), number


def shares(view: View, vm: VmSpec, unit: int) -> dict[int, int]:
    """How many units of its memory a guest has on each of its own NUMA nodes, by the host's; empty if it has none.

    It has some when its vCPUs have CPUs of their own on several nodes; in proportion to them, at least one unit each.
    """
    weights = _weights(view, vm.pin) if vm.pin and one_to_one(vm) else Counter[int]()
    units = vm.memory // unit
    if len(weights) < 2 or sum(weights.values()) < vm.vcpus or units < len(weights):
        return {}
    nodes = sorted(weights)
    return dict(zip(nodes, _shared(units, [weights[node] for node in nodes]), strict=True))


def _shared(units: int, weights: Sequence[int]) -> list[int]:
    """So many units dealt out by weight, at least one each; what rounding leaves goes to the first of the heaviest."""
    dealt = [max(1, units * weight // sum(weights)) for weight in weights]
    while sum(dealt) > units:
        dealt[dealt.index(max(dealt))] -= 1
    dealt[weights.index(max(weights))] += units - sum(dealt)
    return dealt
