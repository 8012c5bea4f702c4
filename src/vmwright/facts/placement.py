"""Where a domain runs, read from its XML, in one form: what was asked for reads back as it was asked for. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace

from vmwright.facts.model import ANYWHERE, Cell, Placement
from vmwright.units import MIB, parse_cpuset
from vmwright.virt.xml import read

_DEFAULT_PAGES = 2 * MIB  # <hugepages/> alone means the host's own default, which is 2M where nobody has changed it


def parse_placement(root: ET.Element, vcpus: int) -> Placement:
    """The placement of a domain with so many vCPUs at most; ANYWHERE when nothing binds it to a part of the host.

    Its hyper-threads count only beside something that does: a topology alone is no placement.
    """
    tune = root.find("cputune")
    cells = tuple(_cell(cell, root) for cell in _cells(root))
    nodes, mode = _memory(root)
    found = Placement(
        vcpus=_vcpus(root, vcpus),
        emulator=_cpus(tune.find("emulatorpin") if tune is not None else None),
        iothreads=_union(tune.iterfind("iothreadpin") if tune is not None else ()),
        nodes=nodes,
        memory=mode,
        cells=cells,
        hugepages=_hugepages(root),
    )
    topology = root.find("cpu/topology")
    threads = int(topology.get("threads", "1")) if topology is not None else 1
    return found if found == ANYWHERE else replace(found, threads=threads)


def _cpus(element: ET.Element | None) -> tuple[int, ...]:
    return _set(element.get("cpuset")) if element is not None else ()


def _set(text: str | None) -> tuple[int, ...]:
    """libvirt's sets are Linux' CPU lists, and may leave some out: 0-7,^3."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    there = parse_cpuset(",".join(part for part in parts if part[0] != "^")) if parts else ()
    return tuple(cpu for cpu in there if f"^{cpu}" not in parts)


def _union(elements: Iterable[ET.Element]) -> tuple[int, ...]:
    return tuple(sorted({cpu for element in elements for cpu in _cpus(element)}))


def _vcpus(root: ET.Element, count: int) -> tuple[tuple[int, ...], ...]:
    """The CPUs of each vCPU; that of <vcpu> is for those without pins of their own."""
    pins = {int(pin.get("vcpu", "-1")): _cpus(pin) for pin in root.iterfind("cputune/vcpupin")}
    others = _cpus(root.find("vcpu"))
    found = tuple(pins.get(vcpu, others) for vcpu in range(count))
    return found if any(found) else ()


def _memory(root: ET.Element) -> tuple[tuple[int, ...], str]:
    """The nodes of the memory as a whole, and libvirt's mode; modes that differ between cells are told all."""
    memory = root.find("numatune/memory")
    modes = dict.fromkeys(element.get("mode", "strict") for element in root.iterfind("numatune/*"))
    return _set(memory.get("nodeset")) if memory is not None else (), ", ".join(modes)


def _cells(root: ET.Element) -> list[ET.Element]:
    return sorted(root.iterfind("cpu/numa/cell"), key=lambda cell: int(cell.get("id", "0")))


def _cell(cell: ET.Element, root: ET.Element) -> Cell:
    number = cell.get("id", "0")
    on = next((node for node in root.iterfind("numatune/memnode") if node.get("cellid") == number), None)
    return Cell(_set(cell.get("cpus")), read.scaled(cell.get("memory"), cell.get("unit", "KiB")),
                _set(on.get("nodeset")) if on is not None else ())


def _hugepages(root: ET.Element) -> int:
    pages = root.find("memoryBacking/hugepages")
    if pages is None:
        return 0
    page = pages.find("page")
    return read.scaled(page.get("size"), page.get("unit", "KiB")) if page is not None else _DEFAULT_PAGES
