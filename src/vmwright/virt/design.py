"""What we choose: from a VM of the spec to its libvirt XML. Pure. virt.xml says what an element is, this says which."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

from vmwright.facts.model import ANYWHERE, OwnerFacts, Placement
from vmwright.names import is_block
from vmwright.spec.cloud import Firmware, VmSpec
from vmwright.virt import placing
from vmwright.virt.placing import UNKNOWN, Ground
from vmwright.virt.xml import devices, metadata, network, storage
from vmwright.virt.xml import disk as disk_xml
from vmwright.virt.xml import domain as domain_parts
from vmwright.virt.xml import nic as nic_xml
from vmwright.virt.xml.tree import render

SEED_TARGET = "vdz"  # sorts after every data disk
SPARE_PORTS = 8  # measured: 5 against 13 root ports boot equally fast under emulation; 25 cost half a second
AGENT_CHANNEL = "org.qemu.guest_agent.0"
STATS_PERIOD = 10  # seconds
VCPU_LIMIT = 255  # more need an IOMMU with interrupt remapping in the guest
DHCP_LIMIT = 65535  # libvirt refuses a longer range
_FIXED_DEVICES = 3  # that need a PCI port: virtio-serial, balloon, rng
_CPU_MODES = ("host-passthrough", "host-model", "maximum")
_DIRECT_IO = ("ext2", "ext3", "ext4", "xfs", "nfs", "nfs4", "gfs2", "ocfs2")


@dataclass(frozen=True)
class DiskChoice:
    """A disk as a VM gets it. `format` is qcow2 or raw, `cache` one of libvirt's modes (see cache_for).

    `block`: the path is that of a block device.
    """

    path: str
    format: str
    serial: str
    target: str = "vda"
    cache: str = "none"
    block: bool = False


@dataclass(frozen=True)
class NicChoice:
    """A NIC as a VM gets it. `type` is "network" or "bridge", `source` libvirt's or the bridge's name."""

    mac: str
    type: str
    source: str


@dataclass(frozen=True)
class HostEntry:
    """A VM that a network's DHCP and DNS know beforehand."""

    mac: str
    address: IPv4Address
    name: str


def domain_xml(
    cloud: str,
    vm: VmSpec,
    *,
    type: str,
    machine: str,
    host_cpus: int,
    disks: Sequence[DiskChoice],
    seed_path: str,
    nics: Sequence[NicChoice],
    owner: OwnerFacts,
    hostdevs: Sequence[str] = (),
    uuid: str | None = None,
    os_id: str | None = None,
    placement: Placement = ANYWHERE,
    ground: Ground = UNKNOWN,
) -> str:
    """The domain of a VM. The first disk is its root. `type` is kvm or qemu, `os_id` a libosinfo id.

    `hostdevs` are addresses of PCI devices that it is given.

    A panic restarts the guest: the console's log keeps its last words, and a server that is back is worth more than a
    frozen one. Suspend is off: nothing wakes a server. There is no watchdog: without a daemon in the guest it is idle.
    """
    ceiling = vcpu_ceiling(vm.vcpus, host_cpus)
    root = domain_parts.domain(
        type,
        *domain_parts.names(vm.name, uuid, f"{vm.name} of cloud {cloud}"),
        metadata.metadata(metadata.owner(owner), metadata.osinfo(os_id) if os_id else None),
        *domain_parts.memory(vm.memory),
        domain_parts.vcpu(vm.vcpus, ceiling),
        domain_parts.iothreads(1) if any(disk.block for disk in disks) else None,
        os_element(vm.firmware, machine),
        domain_parts.features("acpi", "apic", off=["vmport"]),
        cpu_element(vm.cpu, type, domain_parts.topology(ceiling)),
        clock(type),
        *domain_parts.lifecycle(poweroff="destroy", reboot="restart", crash="restart"),
        domain_parts.power_management(suspend_to_memory=False, suspend_to_disk=False),
        devices.devices(*_devices(vm.name, disks, seed_path, nics, hostdevs)),
    )
    if placement != ANYWHERE:
        placing.lay(root, placement, ceiling, ground)
    placing.for_older(root, ground)
    return render(root)


def _devices(vm: str, disks: Sequence[DiskChoice], seed_path: str, nics: Sequence[NicChoice],
             hostdevs: Sequence[str]) -> Iterator[ET.Element]:
    needed = len(disks) + 1 + len(nics) + _FIXED_DEVICES + len(hostdevs)
    yield devices.no_usb()
    yield from (devices.root_port(index) for index in range(1, needed + SPARE_PORTS + 1))
    for place, choice in enumerate(disks):
        yield disk_element(choice, boot_order=1 if place == 0 else None)
    yield disk_xml.disk(seed_path, "raw", SEED_TARGET, "seed", block=is_block(seed_path), readonly=True)
    yield from (nic_xml.nic(choice.mac, choice.type, choice.source) for choice in nics)
    yield from (devices.hostdev(address) for address in hostdevs)
    yield devices.serial(serial_log(vm))
    yield devices.console()
    yield devices.channel(AGENT_CHANNEL)
    # no autodeflate: with it the guest's MemTotal would not show what the balloon has taken
    yield devices.balloon(stats_period=STATS_PERIOD)
    yield devices.rng("/dev/urandom")
    yield devices.panic()
    yield devices.no_video()


def serial_log(vm: str) -> str:
    """Where virtlogd keeps what a VM's console said since its last start, escape sequences and all (root only).

    In the directory of QEMU's own logs, because SELinux and AppArmor let virtlogd write there and it rotates them (at
    2 MiB, by its default). A VM's name has no dot, so this cannot be the log of another VM. libvirt does not remove it.
    """
    return f"/var/log/libvirt/qemu/{vm}.serial.log"


def vcpu_ceiling(vcpus: int, host_cpus: int) -> int:
    """How many vCPUs a VM can grow to while it runs: four times what it has, but not more than the host has.

    An unused one costs the guest's kernel half a MiB (measured on Linux 6.1) and nothing else.
    """
    return max(vcpus, min(4 * vcpus, host_cpus, VCPU_LIMIT))


def os_element(firmware: Firmware, machine: str) -> ET.Element:
    """How it boots. Secure Boot is off: it would refuse kernels and modules that the user builds."""
    return domain_parts.os_uefi(machine) if firmware is Firmware.UEFI else domain_parts.os_bios(machine)


def effective_cpu(cpu: str, type: str) -> str:
    """The CPU a domain gets for the one in the spec, as facts show it. Emulation has no host CPU to pass through."""
    return "maximum" if cpu == "host-passthrough" and type == "qemu" else cpu


def cpu_note(cpu: str, type: str) -> str | None:
    """What the plan should say about a CPU that is not quite what was asked for; None when it is."""
    if type != "qemu" or cpu == "maximum":
        return None
    if cpu == "host-passthrough":
        return "host-passthrough needs KVM; under emulation the VM gets every CPU feature the emulator has (maximum)"
    if cpu == "host-model":
        return "under emulation, host-model is the model nearest to what the emulator can do, not to the host's CPU"
    return f"under emulation, features of {cpu} that the emulator lacks are left out"


def cpu_element(cpu: str, type: str, *children: ET.Element) -> ET.Element:
    """<cpu> with those children. Under KVM the host must have all of a named model; emulation may fall short of it."""
    effective = effective_cpu(cpu, type)
    if effective in _CPU_MODES:
        return domain_parts.cpu_mode(effective, *children)
    return domain_parts.cpu_model(effective, "partial" if type == "kvm" else "none", *children)


def clock(type: str) -> ET.Element:
    """The timers that the kernel under KVM needs; HPET is off, as guests have better and it wakes an idle host."""
    timers = [domain_parts.timer("rtc", tickpolicy="catchup"), domain_parts.timer("hpet", present=False)]
    if type == "kvm":
        timers += [domain_parts.timer("pit", tickpolicy="delay"), domain_parts.timer("kvmclock", present=True)]
    return domain_parts.clock(*timers)


def cache_for(filesystem: str) -> str:
    """The cache mode for disks on a file system (its type as in /proc/mounts).

    none, so O_DIRECT, where that is sound: guests have a cache of their own. Not on btrfs (its checksums break when a
    guest changes a page in flight), tmpfs (needless, and refused by older kernels), ZFS, FUSE and others: there the
    host's page cache is used, which is as safe, as flushes are passed on.
    """
    return "none" if filesystem in _DIRECT_IO else "writeback"


def disk_element(choice: DiskChoice, *, boot_order: int | None = None) -> ET.Element:
    """<disk>. What the guest discards is given back to the pool.

    On a block device I/O is submitted by AIO ("native"), in an I/O thread of its own, so that it waits for no other
    work of the emulator. On a file it goes by QEMU's threads: submitting AIO to a sparse one can block while blocks are
    allocated, and was no faster when measured. Zeros are not looked for (detect_zeroes): that costs every write, and
    fstrim does the same.
    """
    return disk_xml.disk(choice.path, choice.format, choice.target, choice.serial, block=choice.block,
                         cache=choice.cache, io="native" if choice.block else None,
                         iothread=1 if choice.block else None, discard="unmap", boot_order=boot_order)


def disk_device_xml(choice: DiskChoice) -> str:
    """A disk to be attached."""
    return render(disk_element(choice))


def nic_device_xml(choice: NicChoice) -> str:
    """A NIC to be attached."""
    return render(nic_xml.nic(choice.mac, choice.type, choice.source))


def hostdev_xml(address: str) -> str:
    """A PCI device of the host to be attached, or let go."""
    return render(devices.hostdev(address))


def pool_xml(name: str, path: str) -> str:
    """A directory pool. 0711: the libvirt user can open an image it knows the name of, and nobody can list them."""
    return render(storage.directory_pool(name, path, mode="0711"))


def group_xml(name: str, group: str) -> str:
    """A pool for a volume group that is there."""
    return render(storage.logical_pool(name, group))


def overlay_xml(name: str, capacity: int, backing_path: str, backing_format: str) -> str:
    """A qcow2 image of `capacity` bytes over a template."""
    backing = storage.backing_store(backing_path, backing_format)
    return render(storage.volume(name, capacity, "qcow2", mode="0600", backing=backing))


def volume_xml(name: str, capacity: int, format: str) -> str:
    """An empty, sparse image of `capacity` bytes. Metadata is not preallocated: slower to make, with little gain."""
    return render(storage.volume(name, capacity, format, mode="0600"))


def network_xml(
    name: str,
    subnet: IPv4Network,
    reserved: Collection[IPv4Address],
    hosts: Sequence[HostEntry] = (),
    *,
    dhcp: bool = True,
) -> str:
    """A NAT network: the host has the subnet's first address, DHCP deals out the widest range without `reserved`.

    Without `dhcp` nothing is dealt out: a network whose VMs all have fixed addresses needs no second giver of them.
    """
    leases = [network.dhcp_host(host.mac, host.name, str(host.address)) for host in hosts]
    names = [network.dns_host(str(host.address), host.name) for host in hosts]
    free = dhcp_range(subnet, [*reserved, *(host.address for host in hosts)]) if dhcp else None
    server = network.dhcp(str(free[0]), str(free[1]), leases) if free else None
    ip = network.ip(str(host_address(subnet)), subnet.prefixlen, server)
    return render(network.nat_network(name, ip, network.dns(names) if names else None))


def host_address(subnet: IPv4Network) -> IPv4Address:
    """The host's own address on a NAT network: the subnet's first."""
    return subnet.network_address + 1


def dhcp_range(subnet: IPv4Network, reserved: Collection[IPv4Address]) -> tuple[IPv4Address, IPv4Address] | None:
    """The widest run of addresses that are neither reserved nor the network's or host's own; of equals the first."""
    lowest, highest = int(subnet.network_address) + 1, int(subnet.broadcast_address)
    taken = sorted({int(address) for address in reserved if address in subnet} | {lowest, highest})
    gaps = [(after - before - 1, before + 1) for before, after in pairwise(taken) if before >= lowest]
    width, first = max(gaps, key=lambda gap: (gap[0], -gap[1]), default=(0, 0))
    if width < 1:
        return None
    return IPv4Address(first), IPv4Address(first + min(width, DHCP_LIMIT) - 1)
