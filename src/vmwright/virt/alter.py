"""Edits of a domain's XML: each changes what it is asked to and keeps all else, by whomever it was put there. Pure.

Give it the persistent configuration. Addresses and aliases of devices that stay are kept, so that a guest finds them
where they were; a new device has none, and libvirt gives it the next free one.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from string import ascii_lowercase

from vmwright.errors import VmwrightError
from vmwright.facts.model import OwnerFacts, Placement
from vmwright.virt import design, placing
from vmwright.virt.design import DiskChoice, NicChoice
from vmwright.virt.placing import UNKNOWN, Ground
from vmwright.virt.xml import domain as domain_parts
from vmwright.virt.xml import metadata, read
from vmwright.virt.xml import nic as nic_xml_parts
from vmwright.virt.xml.tree import drop, ensure, insert_after, parse, render, replace

_KEPT_IN_CPU = ("topology", "numa", "feature", "cache", "maxphysaddr")


def set_vcpus(xml: str, vcpus: int, host_cpus: int) -> str:
    """That many vCPUs at the next start; the most it can grow to is raised when it is too low, never lowered.

    A list of single vCPUs (<vcpus>) that does not fit any more goes. With NUMA cells the most becomes what is asked for
    and no more, because libvirt puts all vCPUs that no cell names into the first.
    """
    root = parse(xml)
    vcpu = ensure(root, "vcpu")
    ceiling = int(vcpu.text or 1)
    if vcpu.get("current", str(ceiling)) == str(vcpus):
        return render(root)
    if vcpus > ceiling:
        ceiling = vcpus if root.find("cpu/numa") is not None else design.vcpu_ceiling(vcpus, host_cpus)
        _fit_topology(root.find("cpu/topology"), ceiling)
    vcpu.text = str(ceiling)
    vcpu.attrib.pop("current", None)
    if vcpus != ceiling:
        vcpu.set("current", str(vcpus))
    drop(root, "vcpus")
    return render(root)


def set_placement(xml: str, placement: Placement, host_cpus: int, ground: Ground = UNKNOWN) -> str:
    """Where it runs from its next start on: everything that says so is as the placement has it, or gone.

    The number of vCPUs and the memory are to be set before: a placement is made for both.
    """
    root = parse(xml)
    vcpu = ensure(root, "vcpu")
    ceiling = design.vcpu_ceiling(int(vcpu.get("current", vcpu.text or 1)), host_cpus)
    placing.lay(root, placement, ceiling, ground)
    return render(root)


def iothreads(xml: str) -> list[int]:
    """The numbers of a domain's I/O threads."""
    return placing.iothreads(parse(xml))


def _fit_topology(topology: ET.Element | None, vcpus: int) -> None:
    """Make the topology's product the number of vCPUs, as libvirt demands: by cores if it divides, else one socket."""
    if topology is None:
        return
    others = 1
    for part in ("sockets", "dies", "clusters", "threads"):
        others *= int(topology.get(part, "1"))
    if vcpus % others:
        topology.attrib.update({part: "1" for part in topology.attrib})
        others = 1
    topology.set("cores", str(vcpus // others))


def set_memory(xml: str, memory: int) -> str:
    """That many bytes at the next start. NUMA cells keep their proportions.

    Raises VmwrightError when the VM has memory modules: only who plugged them in knows which should go.
    """
    root = parse(xml)
    if root.find("devices/memory") is not None:
        raise VmwrightError(
            f"the memory of VM {root.findtext('name')} cannot be changed",
            why="it has pluggable memory modules, which vmwright did not put there",
            todo="change it by hand (virsh edit), or remove the modules first",
        )
    for new in domain_parts.memory(memory):
        _set_size(ensure(root, new.tag), int(new.text or 0))
    _scale_cells(root.findall("cpu/numa/cell"), -(-memory // 1024))
    most = root.find("maxMemory")
    if most is not None and _kib(most) < memory / 1024:
        _set_size(most, -(-memory // 1024))
    return render(root)


def _scale_cells(cells: list[ET.Element], total: int) -> None:
    """Spread `total` KiB over NUMA cells as before; the last one takes what rounding (to MiB) leaves."""
    if not cells:
        return
    before, left = sum(_kib(cell, "memory") for cell in cells) or 1, total
    for cell in cells[:-1]:
        share = total * _kib(cell, "memory") // before // 1024 * 1024
        left -= share
        cell.attrib.update(memory=str(share), unit="KiB")
    cells[-1].attrib.update(memory=str(left), unit="KiB")


def _set_size(element: ET.Element, kib: int) -> None:
    element.text = str(kib)
    element.set("unit", "KiB")


def _kib(element: ET.Element, attribute: str | None = None) -> int:
    value = element.get(attribute) if attribute else element.text
    return read.scaled(value, element.get("unit", "KiB")) // 1024


def set_type(xml: str, type: str) -> str:
    """Run by that accelerator, kvm or qemu, from the next start on. The CPU is another matter: set it, too.

    The emulator's path goes, as it may be one that only knows the other; libvirt writes the right one.
    """
    root = parse(xml)
    if root.get("type") == type:
        return render(root)
    root.set("type", type)
    drop(ensure(root, "devices"), "emulator")
    _fit_clock(root.find("clock"), type)
    return render(root)


def _fit_clock(clock: ET.Element | None, type: str) -> None:
    """The timers that this accelerator's guests need, beside those that are there; none that it does not have."""
    if clock is None:
        return
    if type != "kvm":
        for timer in clock.findall("timer[@name='kvmclock']"):
            clock.remove(timer)
    there = {timer.get("name") for timer in clock.iterfind("timer")}
    clock.extend(timer for timer in design.clock(type) if timer.get("name") not in there)


def set_cpu(xml: str, cpu: str, type: str, ground: Ground = UNKNOWN) -> str:
    """That CPU from the next start on. Topology, NUMA cells and single features stay. `type` is kvm or qemu."""
    root = parse(xml)
    old = root.find("cpu")
    kept = [child for child in old if child.tag in _KEPT_IN_CPU] if old is not None else []
    new = design.cpu_element(cpu, type)
    if new.get("mode") != "host-passthrough":
        kept = [child for child in kept if child.tag != "cache"]  # libvirt allows a host's cache with its CPU only
    new.extend(kept)
    replace(root, old, new)
    placing.show_threads(root, ground)
    return render(root)


def set_owner(xml: str, owner: OwnerFacts) -> str:
    """Our mark in the metadata; the marks of others stay."""
    root = parse(xml)
    place = root.find("metadata")
    if place is None:
        place = metadata.metadata()
        insert_after(root, place, "name", "uuid", "genid", "title", "description")
    old = next((child for child in place if metadata.is_owner(child, place, root)), None)
    replace(place, old, metadata.owner(owner))
    return render(root)


def add_nic(xml: str, choice: NicChoice) -> str:
    """One more NIC, after the others. Raises VmwrightError when the VM has one with this MAC."""
    root = parse(xml)
    if _nic(root, choice.mac) is not None:
        raise VmwrightError(f"VM {root.findtext('name')} already has a NIC with MAC {choice.mac}")
    new = nic_xml_parts.nic(choice.mac, choice.type, choice.source)
    insert_after(ensure(root, "devices"), new, "emulator", "disk", "controller", "filesystem", "interface")
    return render(root)


def remove_nic(xml: str, mac: str) -> str:
    """Without the NIC of that MAC; unchanged when there is none."""
    root = parse(xml)
    _remove(root, _nic(root, mac))
    return render(root)


def move_nic(xml: str, mac: str, type: str, source: str) -> str:
    """The NIC of that MAC on another network or bridge. Raises VmwrightError when there is none."""
    root = parse(xml)
    nic = _nic(root, mac)
    if nic is None:
        raise VmwrightError(f"VM {root.findtext('name')} has no NIC with MAC {mac}")
    nic.set("type", type)
    replace(nic, nic.find("source"), nic_xml_parts.nic_source(type, source))
    return render(root)


def nic_xml(xml: str, mac: str) -> str | None:
    """The NIC of that MAC as it stands in the domain's XML, to plug in or out; None when there is none."""
    nic = _nic(parse(xml), mac)
    return render(nic) if nic is not None else None


def add_disk(xml: str, choice: DiskChoice, running: str | None = None) -> str:
    """One more disk, after the others, under the next free target when the one asked for is taken.

    Give `running`, the configuration the VM runs with, when the disk will be plugged in, too: a disk that is on its way
    out still holds its target there. Raises VmwrightError when the VM has a disk with this serial.
    """
    root = parse(xml)
    if _disk(root, choice.serial) is not None:
        raise VmwrightError(f"VM {root.findtext('name')} already has a disk with serial {choice.serial}")
    new = design.disk_element(choice)
    _fit_iothread(root, new)
    target = new.find("target")
    assert target is not None
    target.set("dev", _free_target(choice.target, *(root, parse(running)) if running else (root,)))
    insert_after(ensure(root, "devices"), new, "emulator", "disk")
    return render(root)


def _fit_iothread(root: ET.Element, disk: ET.Element) -> None:
    """A VM that was made without I/O threads has none to give while it runs."""
    driver = disk.find("driver")
    if driver is not None and root.find("iothreads") is None:
        driver.attrib.pop("iothread", None)


def _free_target(wanted: str, *roots: ET.Element) -> str:
    taken = {target.get("dev") for root in roots for target in root.iterfind("devices/disk/target")}
    names = [wanted, *(f"vd{letter}" for letter in ascii_lowercase[1:])]
    free = next((name for name in names if name not in taken and name != design.SEED_TARGET), None)
    if free is None:
        name = roots[0].findtext("name")
        raise VmwrightError(f"VM {name} has as many disks as it can", todo="remove a data disk first")
    return free


def remove_disk(xml: str, serial: str) -> str:
    """Without the disk of that serial; unchanged when there is none."""
    root = parse(xml)
    _remove(root, _disk(root, serial))
    return render(root)


def disk_xml(xml: str, serial: str) -> str | None:
    """The disk of that serial as it stands in the domain's XML, to plug in or out; None when there is none."""
    disk = _disk(parse(xml), serial)
    return render(disk) if disk is not None else None


def add_hostdev(xml: str, address: str) -> str:
    """One more PCI device of the host; unchanged when the VM has it already."""
    root = parse(xml)
    if _hostdev(root, address) is None:
        insert_after(ensure(root, "devices"), parse(design.hostdev_xml(address)), "emulator", "disk", "controller",
                     "filesystem", "interface", "hostdev")
    return render(root)


def remove_hostdev(xml: str, address: str) -> str:
    """Without that PCI device of the host; unchanged when the VM does not have it."""
    root = parse(xml)
    _remove(root, _hostdev(root, address))
    return render(root)


def unplaced(device: str) -> str:
    """A device's XML without its address and alias, so that libvirt finds it a free place when it is plugged in.

    The place it has in the persistent configuration may still be taken in the running one, by a device on its way out.
    """
    root = parse(device)
    drop(root, "address", "alias")
    return render(root)


def _nic(root: ET.Element, mac: str) -> ET.Element | None:
    nics = root.iterfind("devices/interface")
    return next((nic for nic in nics if (place := nic.find("mac")) is not None
                 and place.get("address", "").lower() == mac.lower()), None)


def _hostdev(root: ET.Element, address: str) -> ET.Element | None:
    return next((device for device in root.iterfind("devices/hostdev")
                 if read.pci_address(device.find("source/address")) == address), None)


def _disk(root: ET.Element, serial: str) -> ET.Element | None:
    return next((disk for disk in root.iterfind("devices/disk") if disk.findtext("serial") == serial), None)


def _remove(root: ET.Element, device: ET.Element | None) -> None:
    if device is not None:
        ensure(root, "devices").remove(device)
