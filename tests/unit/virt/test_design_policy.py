"""What design chooses: ceilings, CPUs, caches, DHCP ranges, targets, ports."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.facts.model import OwnerFacts
from vmwright.spec.cloud import GuestSpec, VmSpec
from vmwright.virt import design
from vmwright.virt.design import DiskChoice, NicChoice, dhcp_range, host_address, vcpu_ceiling

OWNER = OwnerFacts("c", "v", "t", "1", "i", "s")


def _domain(type: str = "kvm", disks: int = 1, nics: int = 0, **changes: object) -> ET.Element:
    given: dict[str, object] = {"name": "v", "host": "h", "template": "t", "pool": "p", "vcpus": 2, "memory": 1 << 30,
                                "disk": None, "nics": (), "guest": GuestSpec(), **changes}
    letters = "abcdefgh"
    return ET.fromstring(design.domain_xml(
        "c", VmSpec(**given), type=type, machine="q35", host_cpus=16,  # type: ignore[arg-type]
        disks=[DiskChoice(f"/{n}", "qcow2", f"s{n}", f"vd{letters[n]}") for n in range(disks)], seed_path="/seed.iso",
        nics=[NicChoice(f"52:00:00:00:00:{n:02x}", "network", "lan") for n in range(nics)], owner=OWNER))


@given(st.integers(1, 400), st.integers(1, 400))
def test_a_vm_can_grow_but_not_past_its_host(vcpus: int, host_cpus: int) -> None:
    ceiling = vcpu_ceiling(vcpus, host_cpus)
    assert vcpus <= ceiling <= max(vcpus, host_cpus, 1)
    assert ceiling <= 4 * vcpus
    assert ceiling <= max(vcpus, design.VCPU_LIMIT)


@pytest.mark.parametrize(("vcpus", "host_cpus", "ceiling"),
                         [(1, 48, 4), (2, 48, 8), (2, 2, 2), (4, 2, 4), (24, 48, 48), (99, 999, 255), (300, 999, 300)])
def test_ceilings(vcpus: int, host_cpus: int, ceiling: int) -> None:
    assert vcpu_ceiling(vcpus, host_cpus) == ceiling


def test_every_vcpu_has_its_core() -> None:
    root = _domain(vcpus=2)
    topology, vcpu = root.find("cpu/topology"), root.find("vcpu")
    assert topology is not None and vcpu is not None
    assert (vcpu.get("current"), vcpu.text, topology.get("cores")) == ("2", "8", "8")


@pytest.mark.parametrize(("cpu", "type", "effective", "note"), [
    ("host-passthrough", "kvm", "host-passthrough", None),
    ("host-passthrough", "qemu", "maximum",
     "host-passthrough needs KVM; under emulation the VM gets every CPU feature the emulator has (maximum)"),
    ("host-model", "kvm", "host-model", None),
    ("host-model", "qemu", "host-model",
     "under emulation, host-model is the model nearest to what the emulator can do, not to the host's CPU"),
    ("maximum", "qemu", "maximum", None),
    ("EPYC", "kvm", "EPYC", None),
    ("EPYC", "qemu", "EPYC", "under emulation, features of EPYC that the emulator lacks are left out"),
])
def test_cpus(cpu: str, type: str, effective: str, note: str | None) -> None:
    assert design.effective_cpu(cpu, type) == effective
    assert design.cpu_note(cpu, type) == note
    element = _domain(type, cpu=cpu).find("cpu")
    assert element is not None
    assert effective in (element.get("mode"), element.findtext("model"))


def test_a_named_cpu_must_be_possible_under_kvm_only() -> None:
    assert _domain("kvm", cpu="EPYC").find("cpu[@check='partial']") is not None
    assert _domain("qemu", cpu="EPYC").find("cpu[@check='none']") is not None


@pytest.mark.parametrize(("filesystem", "cache"), [
    ("ext4", "none"), ("xfs", "none"), ("nfs4", "none"),
    ("btrfs", "writeback"), ("tmpfs", "writeback"), ("zfs", "writeback"), ("fuse.x", "writeback"),
])
def test_caches(filesystem: str, cache: str) -> None:
    assert design.cache_for(filesystem) == cache


@given(st.integers(1, 5), st.integers(0, 4))
def test_ports_are_left_for_what_is_plugged_in_later(disks: int, nics: int) -> None:
    root = _domain(disks=disks, nics=nics)
    ports = [port.get("index") for port in root.iterfind("devices/controller[@model='pcie-root-port']")]
    in_use = len(root.findall("devices/disk")) + len(root.findall("devices/interface")) + 3  # serial, balloon, rng
    assert ports == [str(n) for n in range(1, in_use + design.SPARE_PORTS + 1)]


def test_only_the_root_disk_boots_and_the_seed_is_last_and_read_only() -> None:
    disks = _domain(disks=3).findall("devices/disk")
    assert [disk.find("boot") is not None for disk in disks] == [True, False, False, False]
    assert [disk.find("readonly") is not None for disk in disks] == [False, False, False, True]
    targets = [target.get("dev", "") for disk in disks if (target := disk.find("target")) is not None]
    assert targets == sorted(targets) and len(set(targets)) == 4


def test_the_console_log_is_where_serial_log_says() -> None:
    log = _domain().find("devices/serial/log")
    assert log is not None
    assert log.get("file") == design.serial_log("v") == "/var/log/libvirt/qemu/v.serial.log"


def test_memory_is_whole_kib_rounded_up() -> None:
    root = _domain(memory=(1 << 30) + 1)
    assert root.findtext("memory") == root.findtext("currentMemory") == str((1 << 20) + 1)


@pytest.mark.parametrize(("subnet", "reserved", "expected"), [
    ("192.168.122.0/24", [], ("192.168.122.2", "192.168.122.254")),
    ("192.168.122.0/24", ["192.168.122.1"], ("192.168.122.2", "192.168.122.254")),
    ("192.168.122.0/24", ["192.168.122.10"], ("192.168.122.11", "192.168.122.254")),
    ("192.168.122.0/24", ["192.168.122.200", "192.168.122.201"], ("192.168.122.2", "192.168.122.199")),
    ("192.168.122.0/24", ["192.168.122.128"], ("192.168.122.2", "192.168.122.127")),  # 126 on both sides: the first
    ("192.168.122.0/24", ["10.0.0.1"], ("192.168.122.2", "192.168.122.254")),
    ("10.0.0.0/30", [], ("10.0.0.2", "10.0.0.2")),
    ("10.0.0.0/30", ["10.0.0.2"], None),
    ("10.0.0.0/31", [], None),
    ("10.0.0.0/32", [], None),
    ("10.0.0.0/8", [], ("10.0.0.2", "10.1.0.0")),  # libvirt takes no longer range
])
def test_dhcp_ranges(subnet: str, reserved: list[str], expected: tuple[str, str] | None) -> None:
    found = dhcp_range(IPv4Network(subnet), [IPv4Address(address) for address in reserved])
    assert (found and (str(found[0]), str(found[1]))) == expected


@given(st.integers(20, 32), st.data())
def test_a_dhcp_range_is_free_and_none_is_wider(length: int, data: st.DataObject) -> None:
    subnet = IPv4Network(f"172.16.0.0/{length}")
    reserved = data.draw(st.sets(st.sampled_from(list(subnet)), max_size=12))
    found = dhcp_range(subnet, reserved)
    usable = [address not in reserved and address != host_address(subnet) for address in subnet][1:-1]
    widest = max((len(run) for run in "".join("x" if free else " " for free in usable).split()), default=0)
    assert (int(found[1]) - int(found[0]) + 1 if found else 0) == widest
    if found:
        assert not any(found[0] <= address <= found[1] for address in reserved)


def test_a_network_without_a_free_address_or_without_dhcp_has_no_range() -> None:
    subnet = IPv4Network("10.0.0.0/29")
    full = design.network_xml("n", subnet, list(subnet.hosts()))
    assert ET.fromstring(full).find("ip/dhcp") is None
    assert design.network_xml("n", subnet, [], dhcp=False) == full


def test_addresses_of_known_vms_are_not_dealt_out_to_others() -> None:
    host = design.HostEntry("52:00:00:00:00:01", IPv4Address("10.0.0.100"), "a")
    root = ET.fromstring(design.network_xml("n", IPv4Network("10.0.0.0/24"), [], [host]))
    area = root.find("ip/dhcp/range")
    assert area is not None and (area.get("start"), area.get("end")) == ("10.0.0.101", "10.0.0.254")
    assert root.findtext("dns/host/hostname") == "a"
