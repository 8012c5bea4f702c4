"""Domains, pools, volumes and networks as libvirt describes them: XML text to facts. Pure.

Tolerant, because most of what is on a host was made by others: what is not there is empty, what we have no word for is
left out. A disk without a file (a block device has a path, a network disk has none) or a NIC of another kind is kept.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface

from vmwright.facts.model import (
    ConfigFacts,
    DiskFacts,
    DomainFacts,
    DomainState,
    NetworkFacts,
    NicFacts,
    OwnerFacts,
    PoolFacts,
    VolumeFacts,
)
from vmwright.facts.placement import parse_placement
from vmwright.virt.xml import metadata, read

_DISK_SOURCES = ("file", "dev", "dir")
_CPU_MODES = ("host-passthrough", "maximum", "default")  # libvirt keeps these as they are in a running domain
_HOSTDEVS = {"hostdev": "pci", "interface": "hostdev", "disk": "nvme"}  # elements and their types
_NIC_SOURCES = ("network", "bridge", "dev", "path", "name")


def parse_domain(persistent_xml: str, live_xml: str | None, state: str, autostart: bool,
                 saved: bool = False) -> DomainFacts:
    """A domain from its persistent and, when it runs, its live configuration. `state` is a value of DomainState."""
    root = ET.fromstring(persistent_xml)
    persistent = _config(root)
    live = _live(ET.fromstring(live_xml), persistent) if live_xml is not None else None
    return DomainFacts(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        state=DomainState(state),
        autostart=autostart,
        persistent=persistent,
        live=live,
        saved=saved,
    )


def _live(root: ET.Element, persistent: ConfigFacts) -> ConfigFacts:
    """The running configuration. libvirt writes the model that host-model became there: that is no change of CPU."""
    live = _config(root)
    became = persistent.cpu == "host-model" and live.cpu not in _CPU_MODES
    return replace(live, cpu=persistent.cpu) if became else live


def _config(root: ET.Element) -> ConfigFacts:
    vcpu, os = root.find("vcpu"), root.find("os")
    vcpus_max = int(vcpu.text or 1) if vcpu is not None else 1
    memory_max = _size(root.find("memory"), "KiB")
    return ConfigFacts(
        vcpus=int(vcpu.get("current", vcpus_max)) if vcpu is not None else 1,
        vcpus_max=vcpus_max,
        memory=_size(root.find("currentMemory"), "KiB") or memory_max,
        memory_max=memory_max,
        disks=tuple(_disk(disk) for disk in root.iterfind("devices/disk")),
        nics=tuple(_nic(nic) for nic in root.iterfind("devices/interface")),
        firmware=str(read.firmware(os)),
        type=root.get("type", ""),
        cpu=_cpu(root.find("cpu")),
        owner=_owner(root.find("metadata")),
        nvram=(os.findtext("nvram") or None) if os is not None else None,
        hostdevs=tuple(_hostdevs(root)),
        free_ports=_free_ports(root),
        placement=parse_placement(root, vcpus_max),
        iothreads=int(root.findtext("iothreads") or 0),
    )


def _cpu(cpu: ET.Element | None) -> str:
    """The mode, or for a named CPU its name: what a spec says, both."""
    if cpu is None:
        return "default"
    mode = cpu.get("mode", "custom")
    return (cpu.findtext("model") or "default") if mode == "custom" else mode


def _disk(disk: ET.Element) -> DiskFacts:
    driver, target = disk.find("driver"), disk.find("target")
    return DiskFacts(
        target=target.get("dev", "") if target is not None else "",
        path=_first(disk.find("source"), _DISK_SOURCES),
        serial=disk.findtext("serial"),
        readonly=disk.find("readonly") is not None,
        format=driver.get("type", "raw") if driver is not None else "raw",
    )


def _nic(nic: ET.Element) -> NicFacts:
    mac = nic.find("mac")
    address = mac.get("address", "").lower() if mac is not None else ""
    return NicFacts(address, nic.get("type", ""), _first(nic.find("source"), _NIC_SOURCES) or "")


def _hostdevs(root: ET.Element) -> Iterable[str]:
    """PCI devices passed through: as such, as the NIC that they are, or as an NVMe drive that QEMU itself drives."""
    for kind, type in _HOSTDEVS.items():
        for device in root.iterfind(f"devices/{kind}"):
            address = read.pci_address(device.find("source/address"))
            if address and device.get("type") == type:
                yield address


def _free_ports(root: ET.Element) -> int:
    """PCIe root ports that nothing is on: the bus behind a port has the number of its controller."""
    taken = {address.get("bus", "0") for address in root.iterfind("devices/*/address[@type='pci']")}
    buses = {int(bus, 0) for bus in taken}
    return sum(int(port.get("index", "0")) not in buses
               for port in root.iterfind("devices/controller[@model='pcie-root-port']"))


def _owner(place: ET.Element | None) -> OwnerFacts | None:
    mark = place.find(metadata.OWNER_TAG) if place is not None else None
    return metadata.read_owner(mark.attrib) if mark is not None else None


def parse_pool(xml: str, *, active: bool, autostart: bool) -> PoolFacts:
    """A storage pool of any type. `target` is empty for one without a place in the file system."""
    root = ET.fromstring(xml)
    mode = root.findtext("target/permissions/mode")
    return PoolFacts(
        name=root.findtext("name", ""),
        type=root.get("type", ""),
        target=root.findtext("target/path", ""),
        active=active,
        autostart=autostart,
        capacity=_size(root.find("capacity"), "bytes"),
        available=_size(root.find("available"), "bytes"),
        target_mode=int(mode, 8) if mode else None,
    )


def parse_volume(pool: str, xml: str) -> VolumeFacts:
    """A volume of the pool of that name."""
    root = ET.fromstring(xml)
    format = root.find("target/format")
    return VolumeFacts(
        pool=pool,
        name=root.findtext("name", ""),
        path=root.findtext("target/path") or root.findtext("key") or "",
        format=format.get("type", "raw") if format is not None else "raw",
        capacity=_size(root.find("capacity"), "bytes"),
        allocation=_size(root.find("allocation"), "bytes"),
        backing=root.findtext("backingStore/path") or None,
    )


def parse_network(xml: str, *, active: bool, autostart: bool) -> NetworkFacts:
    """A libvirt network. `subnet` is that of its first IPv4 address."""
    root = ET.fromstring(xml)
    forward, bridge = root.find("forward"), root.find("bridge")
    ip = next((ip for ip in root.iterfind("ip") if ip.get("family", "ipv4") == "ipv4" and ip.get("address")), None)
    return NetworkFacts(
        name=root.findtext("name", ""),
        active=active,
        autostart=autostart,
        forward=forward.get("mode", "nat") if forward is not None else None,
        bridge=bridge.get("name") if bridge is not None else None,
        subnet=_subnet(ip) if ip is not None else None,
        dhcp=ip is not None and ip.find("dhcp") is not None,
        dhcp_ranges=tuple((row.get("start", ""), row.get("end", "")) for row in _rows(ip, "dhcp/range")),
        dhcp_hosts=tuple(row.get("ip", "") for row in _rows(ip, "dhcp/host")),
    )


def _rows(place: ET.Element | None, path: str) -> Iterable[ET.Element]:
    return place.iterfind(path) if place is not None else ()


def _subnet(ip: ET.Element) -> str:
    address = ip.get("address", "")
    return str(IPv4Interface(f"{address}/{ip.get('prefix') or ip.get('netmask') or _class_prefix(address)}"))


def _class_prefix(address: str) -> int:
    """What libvirt takes when an address has neither prefix nor netmask: that of the old classes A, B and C."""
    first = int(address.split(".")[0])
    return 8 if first < 128 else 16 if first < 192 else 24


def has_uefi(capabilities: str) -> bool:
    """Whether libvirt finds UEFI firmware, from its domain capabilities (empty: it has no emulator)."""
    if not capabilities:
        return False
    return any(value.text == "efi" for value in ET.fromstring(capabilities).iterfind("os/enum[@name='firmware']/value"))


def cpu_vendor(capabilities: str) -> str:
    """The vendor of the CPU that guests under KVM can have (AMD, Intel), from domain capabilities; empty without KVM.

    libvirt tells of KVM where it finds it, and of emulation elsewhere: there the CPU is whatever QEMU makes up.
    """
    root = ET.fromstring(capabilities) if capabilities else ET.Element("none")
    return root.findtext("cpu/mode[@name='host-model']/vendor", "") if root.findtext("domain") == "kvm" else ""


def _size(element: ET.Element | None, unit: str) -> int:
    return read.scaled(element.text, element.get("unit", unit)) if element is not None else 0


def _first(element: ET.Element | None, attributes: Iterable[str]) -> str | None:
    if element is None:
        return None
    return next((value for key in attributes if (value := element.get(key))), None)
