"""Machines with CPUs and NUMA nodes for the tests of placements: the reference server, and small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.unit.facts.test_gather import inventory
from tests.unit.facts.test_probes import recorded
from tests.unit.plan.simulate import Machine

from vmwright.facts.gather import assemble
from vmwright.facts.model import CpuFacts, HostFacts, HugepageFacts, NodeFacts
from vmwright.units import GIB, MIB

PAGES = 2 * MIB


def zcloud(*, idle: bool = True) -> Machine:
    """The reference server by its recording; `idle`: nothing has taken memory yet."""
    host: HostFacts = assemble("zcloud", recorded("ubuntu2004"), inventory())
    nodes = tuple(replace(node, free=node.memory - 512 * MIB, reclaimable=0) for node in host.nodes)
    return Machine(cpus=host.cpus, memory=host.memory, cpu_list=host.cpu_list, nodes=nodes if idle else host.nodes)


def small(cores: int = 4, threads: int = 1, nodes: int = 1, memory: int = 8 * GIB, pages: int = 0,
          large: int = 0, *, mounted: bool = True) -> Machine:
    """A machine of so many cores on each node; siblings are numbered side by side. `pages` of 2M, `large` of 1G."""
    each = cores * threads
    cpus = tuple(_cpu(number, number // each, threads) for number in range(each * nodes))
    huge = (HugepageFacts(PAGES, pages, pages, mounted), HugepageFacts(GIB, large, large, mounted))
    kept = pages * PAGES + large * GIB
    found = tuple(NodeFacts(n, tuple(cpu.number for cpu in cpus if cpu.node == n), memory, memory - kept, 0, (), huge)
                  for n in range(nodes))
    return Machine(cpus=len(cpus), memory=memory * nodes, cpu_list=cpus, nodes=found)


def _cpu(number: int, node: int, threads: int) -> CpuFacts:
    core = number // threads
    siblings = tuple(other for other in range(core * threads, core * threads + threads) if other != number)
    return CpuFacts(number, node, node, core, siblings)


def offline(machine: Machine, *numbers: int) -> Machine:
    """The same machine with these CPUs offline: of them the kernel tells nothing more."""
    cpus = tuple(CpuFacts(cpu.number, online=False) if cpu.number in numbers else replace(
        cpu, siblings=_without(cpu.siblings, numbers)) for cpu in machine.cpu_list)
    nodes = tuple(replace(node, cpus=_without(node.cpus, numbers)) for node in machine.nodes)
    return replace(machine, cpu_list=cpus, nodes=nodes)


def _without(all: Sequence[int], gone: Sequence[int]) -> tuple[int, ...]:
    return tuple(number for number in all if number not in gone)
