"""Where a domain runs: pins, NUMA memory policy, the guest's own NUMA nodes, huge pages. Source: formatdomain.html."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from vmwright.units import format_cpuset
from vmwright.virt.xml.tree import el


def vcpupin(vcpu: int, cpus: Iterable[int]) -> ET.Element:
    """One vCPU on these CPUs of the host."""
    return el("vcpupin", vcpu=vcpu, cpuset=format_cpuset(cpus))


def emulatorpin(cpus: Iterable[int]) -> ET.Element:
    """The emulator's own threads."""
    return el("emulatorpin", cpuset=format_cpuset(cpus))


def iothreadpin(thread: int, cpus: Iterable[int]) -> ET.Element:
    """One I/O thread; they count from 1."""
    return el("iothreadpin", iothread=thread, cpuset=format_cpuset(cpus))


def numatune(mode: str, nodes: Iterable[int], cells: Iterable[tuple[int, Iterable[int]]]) -> ET.Element:
    """The host's nodes of the memory as a whole (none: nothing is said of it), and those of each of the guest's."""
    whole = format_cpuset(nodes)
    each = (el("memnode", cellid=cell, mode=mode, nodeset=format_cpuset(on)) for cell, on in cells)
    return el("numatune", el("memory", mode=mode, nodeset=whole) if whole else None, *each)


def numa(cells: Sequence[tuple[Iterable[int], int]]) -> ET.Element:
    """The guest's own NUMA nodes: (vCPUs, bytes of memory) of each."""
    return el("numa", *(el("cell", id=number, cpus=format_cpuset(vcpus), memory=-(-memory // 1024), unit="KiB")
                        for number, (vcpus, memory) in enumerate(cells)))


def hugepages(size: int) -> ET.Element:
    """Memory made of huge pages of `size` bytes."""
    return el("hugepages", el("page", size=size // 1024, unit="KiB"))


def memfd() -> ET.Element:
    """Memory that the kernel gives without a file: huge pages then need no mounted hugetlbfs."""
    return el("source", type="memfd")
