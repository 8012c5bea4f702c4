"""A placement laid into a domain's XML: all that says where the VM runs is replaced, all else stays. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from vmwright.facts.model import HostFacts, Placement
from vmwright.units import parse_version
from vmwright.virt.xml import domain as domain_parts
from vmwright.virt.xml import placement as parts
from vmwright.virt.xml.tree import drop, ensure, insert_after, replace

# First versions of libvirt (and QEMU) that know what we write, by their documentation.
FREE_PAGES = (6, 9), (5, 1)  # <memballoon freePageReporting=...>
_FIRMWARE, _MIGRATABLE = (7, 2), (6, 5)  # <os><firmware>, <cpu migratable=...>
_PINS = ("vcpupin", "emulatorpin", "iothreadpin")


@dataclass(frozen=True)
class Ground:
    """What of a host decides how a VM is written: its CPU's vendor, sizes of huge pages with a hugetlbfs, and the
    versions of libvirt and QEMU, None for new ones."""

    vendor: str = ""
    mounts: frozenset[int] = frozenset()
    libvirt: str | None = None
    emulator: str | None = None

    @classmethod
    def of(cls, host: HostFacts) -> Ground:
        """That of a host."""
        mounts = frozenset(page.size for node in host.nodes for page in node.hugepages if page.mounted)
        return cls(host.cpu_vendor, mounts, host.libvirt, host.emulator)

    def knows(self, libvirt: tuple[int, int], emulator: tuple[int, int] = (0, 0)) -> bool:
        """Whether its libvirt and its QEMU are of these versions, or newer."""
        pairs = ((self.libvirt, libvirt), (self.emulator, emulator))
        return all(text is None or parse_version(text) >= first for text, first in pairs)


UNKNOWN = Ground()


def for_older(root: ET.Element, ground: Ground) -> None:
    """Take out what an older libvirt would refuse; none of it is needed for the VM to run.

    Without <firmware>, libvirt chooses UEFI firmware that does without SMM, as Secure Boot never does.
    """
    balloon, cpu, os = (root.find(path) for path in ("devices/memballoon", "cpu", "os"))
    if balloon is not None and not ground.knows(*FREE_PAGES):
        balloon.attrib.pop("freePageReporting", None)
    if cpu is not None and not ground.knows(_MIGRATABLE):
        cpu.attrib.pop("migratable", None)
    if os is not None and not ground.knows(_FIRMWARE):
        drop(os, "firmware")


def lay(root: ET.Element, placement: Placement, ceiling: int, ground: Ground = UNKNOWN) -> None:
    """The domain as the placement says, from its next start on.

    `ceiling`: how many vCPUs it can grow to when it may run anywhere. A pinned one has as many as it has pins: its pins
    and NUMA cells are fixed, so there is nothing to grow into.
    """
    _vcpus(root, len(placement.vcpus) or ceiling, fixed=bool(placement.vcpus))
    _pins(root, placement)
    _numatune(root, placement)
    _cpu(root, placement, len(placement.vcpus) or ceiling)
    show_threads(root, ground)
    _hugepages(root, placement.hugepages, mounted=placement.hugepages in ground.mounts)


def _vcpus(root: ET.Element, most: int, *, fixed: bool) -> None:
    vcpu = ensure(root, "vcpu")
    current = int(vcpu.get("current", vcpu.text or 1))
    drop(root, "vcpus")
    replace(root, vcpu, domain_parts.vcpu(most if fixed else current, most))


def _pins(root: ET.Element, placement: Placement) -> None:
    """Pins; what else others have put into <cputune>, like shares, stays."""
    tune = root.find("cputune")
    if tune is None:
        tune = ET.Element("cputune")
        insert_after(root, tune, "vcpu", "vcpus", "iothreads", "iothreadids")
    drop(tune, *_PINS)
    pins = [parts.vcpupin(vcpu, cpus) for vcpu, cpus in enumerate(placement.vcpus)]
    pins += [parts.emulatorpin(placement.emulator)] if placement.emulator else []
    pins += [parts.iothreadpin(thread, placement.iothreads) for thread in iothreads(root) if placement.iothreads]
    for place, pin in enumerate(pins):
        tune.insert(place, pin)
    if not len(tune):
        root.remove(tune)


def iothreads(root: ET.Element) -> list[int]:
    """The numbers of a domain's I/O threads: those that are listed, and the lowest free ones up to their count."""
    listed = [int(thread.get("id", "0")) for thread in root.iterfind("iothreadids/iothread")]
    count, number = int(root.findtext("iothreads") or 0), 1
    while len(listed) < count:
        if number not in listed:
            listed.append(number)
        number += 1
    return sorted(listed)


def _numatune(root: ET.Element, placement: Placement) -> None:
    drop(root, "numatune")
    cells = [(number, cell.nodes) for number, cell in enumerate(placement.cells) if cell.nodes]
    if placement.memory and (placement.nodes or cells):
        insert_after(root, parts.numatune(placement.memory, placement.nodes, cells),
                     "vcpu", "iothreads", "iothreadids", "cputune")


def _cpu(root: ET.Element, placement: Placement, most: int) -> None:
    """The guest's sockets, cores and threads, and its NUMA nodes. One socket for each node, where they are alike."""
    cpu = root.find("cpu")
    if cpu is None:
        cpu = ET.Element("cpu")
        insert_after(root, cpu, "os", "features")
    alike = len({len(cell.vcpus) for cell in placement.cells}) == 1
    sockets = len(placement.cells) if alike else 1
    replace(cpu, cpu.find("topology"),
            domain_parts.topology(most // sockets // placement.threads, sockets=sockets, threads=placement.threads))
    drop(cpu, "numa")
    if placement.cells:
        insert_after(cpu, parts.numa([(cell.vcpus, cell.memory) for cell in placement.cells]), "topology", "cache",
                     "feature")


def show_threads(root: ET.Element, ground: Ground) -> None:
    """A guest with AMD's CPU sees hyper-threads only by the feature topoext, which the models of such CPUs have.

    A CPU that is passed through does not: QEMU leaves it out (no_autoenable_flags in its target/i386/cpu.c), and says
    in its log that such CPUs have no hyper-threads.
    """
    cpu, topology = root.find("cpu"), root.find("cpu/topology")
    if cpu is None or topology is None or (root.get("type"), cpu.get("mode")) != ("kvm", "host-passthrough"):
        return
    known = any(feature.get("name") == "topoext" for feature in cpu.iterfind("feature"))
    if ground.vendor == "AMD" and topology.get("threads", "1") != "1" and not known:
        insert_after(cpu, domain_parts.feature("topoext"), "topology", "cache", "feature")


def _hugepages(root: ET.Element, size: int, *, mounted: bool) -> None:
    """Huge pages from a hugetlbfs, which is what libvirt prepares AppArmor and SELinux for; without one by memfd.

    Unless others have said where the memory comes from. What they share with programs of the host (virtiofs,
    vhost-user) has access="shared" beside it: then it is theirs.
    """
    backing = root.find("memoryBacking")
    if backing is None:
        backing = ET.Element("memoryBacking")
        insert_after(root, backing, "memory", "currentMemory", "maxMemory")
    source = backing.find("source[@type='memfd']")
    if source is not None and backing.find("hugepages") is not None and backing.find("access") is None:
        backing.remove(source)  # ours
    drop(backing, "hugepages")
    if size:
        backing.insert(0, parts.hugepages(size))
        if not mounted and backing.find("source") is None:
            backing.insert(1, parts.memfd())
    if not len(backing):
        root.remove(backing)
