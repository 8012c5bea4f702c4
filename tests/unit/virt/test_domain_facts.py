"""Facts from libvirt's XML: ours, and what other people's domains, pools and networks look like."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vmwright.facts.domains import cpu_vendor, has_uefi, parse_domain, parse_network, parse_pool, parse_volume
from vmwright.facts.model import (
    ANYWHERE,
    Cell,
    ConfigFacts,
    DiskFacts,
    DomainState,
    NetworkFacts,
    NicFacts,
    OwnerFacts,
    Placement,
    PoolFacts,
    VolumeFacts,
)
from vmwright.spec.cloud import Firmware
from vmwright.virt.xml import read

GOLDEN = Path(__file__).parents[2] / "golden"
MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(("domain", "vendor"), [("kvm", "AMD"), ("qemu", "")])
def test_whose_cpu_guests_have(domain: str, vendor: str) -> None:
    """Under emulation it is nobody's."""
    mode = "<mode name='host-model' supported='yes'><model>EPYC</model><vendor>AMD</vendor></mode>"
    assert cpu_vendor(f"<domainCapabilities><domain>{domain}</domain><cpu>{mode}</cpu></domainCapabilities>") == vendor
    assert cpu_vendor("") == cpu_vendor(f"<domainCapabilities><domain>{domain}</domain></domainCapabilities>") == ""


def _golden(name: str) -> ConfigFacts:
    return parse_domain((GOLDEN / name).read_text(), None, "shut off", False).persistent


def test_a_vm_of_ours_is_read_as_it_was_designed() -> None:
    found = parse_domain((GOLDEN / "vm-uefi-kvm.xml").read_text(), None, "shut off", True)
    assert (found.name, found.uuid) == ("z-dev", "8e1c5c1e-51f3-4d8b-9d0a-2f6d0c1b7a55")
    assert (found.state, found.autostart, found.live) == (DomainState.SHUTOFF, True, None)
    images = "/srv/images/zcloud.z-dev"
    assert found.persistent == ConfigFacts(
        vcpus=2, vcpus_max=8, memory=4 * GIB, memory_max=4 * GIB,
        disks=(DiskFacts("vda", f"{images}.root.qcow2", "root", False, "qcow2"),
               DiskFacts("vdb", f"{images}.disk-data.qcow2", "data", False, "qcow2"),
               DiskFacts("vdz", f"{images}.seed.iso", "seed", True, "raw")),
        nics=(NicFacts("52:1c:7b:1f:0f:11", "bridge", "br0"), NicFacts("52:1c:7b:1f:0f:12", "network", "zcloud-nat")),
        firmware="uefi", type="kvm", cpu="host-passthrough",
        owner=OwnerFacts("zcloud", "z-dev", "z-fedora35", "0a1b2c3d4e5f", "i-7f3a", "5eed5eed5eed", protect=True),
        free_ports=16,  # libvirt has not put anything on them yet
    )


def test_free_ports() -> None:
    """A device stands on the bus that has the number of a port's controller; where it comes from is another address."""
    ports = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'><address type='pci' bus='0x00' "
                    f"slot='0x02'/></controller>" for n in range(1, 13))
    devices = """<controller type='pci' index='0' model='pcie-root'/><disk><address type='pci' bus='0x01'/></disk>
        <interface><address type='pci' bus='0x0a'/></interface><disk><address type='drive' bus='3'/></disk>
        <hostdev type='pci'><source><address bus='0x04'/></source><address type='pci' bus='0x02'/></hostdev>"""
    found = parse_domain(f"<domain><devices>{ports}{devices}</devices></domain>", None, "shut off", False, saved=True)
    assert found.persistent.free_ports == 12 - 3 and found.saved


def test_a_domain_of_others_is_read_as_far_as_there_are_words_for_it() -> None:
    assert _golden("others.xml") == ConfigFacts(
        vcpus=2, vcpus_max=4, memory=6 * GIB, memory_max=8 * GIB,
        disks=(DiskFacts("vda", "/dev/vg-libvirt/nas", "S1"), DiskFacts("vdb", None, None),
               DiskFacts("vdc", None, "scratch", False, "qcow2"), DiskFacts("sda", None, None, True)),
        nics=(NicFacts("52:54:00:1a:2b:3c", "direct", "eno2"), NicFacts("52:54:00:1a:2b:3d", "bridge", "br0"),
              NicFacts("52:54:00:1a:2b:3e", "user", "")),
        firmware="uefi", type="kvm", cpu="host-passthrough", owner=None,
        nvram="/var/lib/libvirt/qemu/nvram/nas_VARS.fd", hostdevs=("0000:82:00.0",),
        placement=Placement(((24,), (25,), tuple(range(8)), tuple(range(8))), hugepages=2 * MIB, cells=(
            Cell((0, 1), 2 * GIB), Cell((2, 3), 6 * GIB))),
    )


def test_a_domain_with_nothing_in_it_is_read_too() -> None:
    assert parse_domain("<domain/>", None, "crashed", False).persistent == ConfigFacts(
        vcpus=1, vcpus_max=1, memory=0, memory_max=0, disks=(), nics=(), firmware="bios", type="", cpu="default",
        owner=None)
    devices = "<devices><disk/><interface/><interface type='hostdev'><source><address/></source></interface></devices>"
    found = parse_domain(f"<domain>{devices}<metadata/><cpu/><os/></domain>", None, "paused", False).persistent
    assert found.disks == (DiskFacts("", None, None),)
    assert found.nics == (NicFacts("", "", ""), NicFacts("", "hostdev", ""))


@pytest.mark.parametrize("state", DomainState)
def test_every_state_is_known_by_its_value(state: DomainState) -> None:
    assert parse_domain("<domain/>", None, state.value, False).state is state


def test_the_running_configuration_is_read_beside_the_persistent_one() -> None:
    live = "<domain><vcpu current='3'>8</vcpu><memory>2048</memory><currentMemory>1024</currentMemory></domain>"
    found = parse_domain("<domain><vcpu>2</vcpu></domain>", live, "running", False)
    assert found.live is not None
    assert (found.persistent.vcpus, found.live.vcpus, found.live.vcpus_max) == (2, 3, 8)
    assert (found.live.memory, found.live.memory_max) == (MIB, 2 * MIB)


def test_a_running_host_model_is_still_host_model() -> None:
    """libvirt writes what it became into the running configuration; the next start changes nothing."""
    named = "<domain><cpu mode='custom' match='exact' check='full'><model>EPYC</model></cpu></domain>"
    host_model = parse_domain("<domain><cpu mode='host-model'/></domain>", named, "running", False)
    passthrough = parse_domain("<domain><cpu mode='host-passthrough'/></domain>", named, "running", False)
    assert host_model.live is not None and host_model.live.cpu == "host-model"
    assert passthrough.live is not None and passthrough.live.cpu == "EPYC"


@pytest.mark.parametrize(("cpu", "expected"), [
    ("<cpu mode='custom'><model>Haswell</model></cpu>", "Haswell"), ("<cpu><model>Haswell</model></cpu>", "Haswell"),
    ("<cpu mode='maximum'/>", "maximum"), ("<cpu><topology sockets='1' cores='1' threads='1'/></cpu>", "default"),
])
def test_a_cpu_is_called_by_its_mode_or_name(cpu: str, expected: str) -> None:
    assert parse_domain(f"<domain>{cpu}</domain>", None, "shut off", False).persistent.cpu == expected


def placement(xml: str) -> Placement:
    return parse_domain(f"<domain><vcpu>2</vcpu>{xml}</domain>", None, "shut off", False).persistent.placement


@pytest.mark.parametrize("xml", [
    "", "<cputune><shares>512</shares></cputune>", "<cpu><topology sockets='1' dies='1' cores='1' threads='2'/></cpu>",
    "<numatune/>", "<memoryBacking><locked/></memoryBacking>", "<iothreads>2</iothreads>"])
def test_what_binds_nothing_is_no_placement(xml: str) -> None:
    assert placement(xml) == ANYWHERE


@pytest.mark.parametrize(("xml", "expected"), [
    ("<cputune><vcpupin vcpu='1' cpuset='3,1-2,^1'/></cputune>", Placement(((), (2, 3)))),
    ("<cputune><emulatorpin cpuset='3'/><iothreadpin iothread='1' cpuset='2'/><iothreadpin iothread='2' cpuset='0'/>"
     "</cputune>", Placement(emulator=(3,), iothreads=(0, 2))),
    ("<numatune><memory mode='strict' nodeset='0-1'/></numatune>", Placement(nodes=(0, 1), memory="strict")),
    ("<numatune><memory nodeset='1'/></numatune>", Placement(nodes=(1,), memory="strict")),
    ("<numatune><memory mode='preferred' placement='auto'/></numatune>", Placement(memory="preferred")),
    ("<numatune><memory mode='strict' nodeset='0'/><memnode cellid='1' mode='preferred' nodeset='1'/></numatune>"
     "<cpu><topology threads='2'/><numa><cell id='1' cpus='1' memory='2' unit='MiB'/>"
     "<cell id='0' cpus='0' memory='1024'/></numa></cpu>",
     Placement((), (), (), (0,), "strict, preferred", (Cell((0,), MIB), Cell((1,), 2 * MIB, (1,))), threads=2)),
    ("<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>", Placement(hugepages=GIB)),
])
def test_what_binds_a_domain_to_a_part_of_its_host(xml: str, expected: Placement) -> None:
    assert placement(xml) == expected


@pytest.mark.parametrize(("os", "expected"), [
    ("<os firmware='efi'/>", Firmware.UEFI),
    ("<os firmware='bios'/>", Firmware.BIOS),
    ("<os><loader readonly='yes' type='pflash'>/x.fd</loader></os>", Firmware.UEFI),
    ("<os><loader type='rom'>/usr/share/ovmf/OVMF.fd</loader></os>", Firmware.UEFI),
    ("<os><loader>/usr/share/seabios/bios.bin</loader></os>", Firmware.BIOS),
    ("<os><loader/><nvram>/n.fd</nvram></os>", Firmware.UEFI),
    ("<os><type>hvm</type></os>", Firmware.BIOS),
])
def test_how_a_domain_boots(os: str, expected: Firmware) -> None:
    assert read.firmware(ET.fromstring(os)) is expected


@pytest.mark.parametrize(("text", "unit", "expected"), [
    ("4", "KiB", 4096), ("4", "k", 4096), ("4", "KB", 4000), ("4", "M", 4 * MIB), ("4", "MiB", 4 * MIB),
    ("4", "MB", 4_000_000), ("4", "GiB", 4 * GIB), ("1", "TiB", 1 << 40), ("1", "PiB", 1 << 50), ("1", "E", 1 << 60),
    ("4", "bytes", 4), ("4", "b", 4), ("4", None, 4), (" 4\n", "b", 4), ("", "KiB", 0), (None, None, 0),
])
def test_libvirts_units(text: str | None, unit: str | None, expected: int) -> None:
    assert read.scaled(text, unit) == expected


def test_an_unknown_unit_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"^'furlong' is not a unit that libvirt knows$"):
        read.scaled("4", "furlong")


def test_a_mark_that_does_not_say_whose_the_vm_is_is_none() -> None:
    mark = "<metadata><v:vm xmlns:v='https://vmwright.dev/xmlns/vm/1' name='x'/></metadata>"
    assert parse_domain(f"<domain>{mark}</domain>", None, "shut off", False).persistent.owner is None


def test_a_mark_without_lineage_is_ours_all_the_same() -> None:
    mark = "<metadata><v:vm xmlns:v='https://vmwright.dev/xmlns/vm/1' cloud='c' name='x'/></metadata>"
    assert parse_domain(f"<domain>{mark}</domain>", None, "shut off", False).persistent.owner == OwnerFacts(
        "c", "x", "", "", "", "")


DIRECTORY_POOL = """<pool type='dir'><name>images</name><capacity unit='bytes'>1000</capacity>
  <allocation unit='bytes'>400</allocation><available unit='bytes'>600</available>
  <target><path>/srv/images</path><permissions><mode>0711</mode><owner>0</owner></permissions></target></pool>"""


def test_pools() -> None:
    assert parse_pool(DIRECTORY_POOL, active=True, autostart=False) == PoolFacts(
        "images", "dir", "/srv/images", True, False, 1000, 600, target_mode=0o711)
    rbd = "<pool type='rbd'><name>ceph</name><source><name>libvirt</name></source></pool>"
    assert parse_pool(rbd, active=False, autostart=True) == PoolFacts("ceph", "rbd", "", False, True, 0, 0)


def test_volumes() -> None:
    overlay = """<volume type='file'><name>a</name><key>/p/a</key><capacity unit='bytes'>2048</capacity>
      <allocation unit='bytes'>1024</allocation><target><path>/p/a</path><format type='qcow2'/></target>
      <backingStore><path>/p/base</path><format type='qcow2'/></backingStore></volume>"""
    assert parse_volume("p", overlay) == VolumeFacts("p", "a", "/p/a", "qcow2", 2048, 1024, backing="/p/base")
    logical = "<volume type='block'><name>lv</name><key>AbC-1</key><capacity unit='GiB'>1</capacity></volume>"
    assert parse_volume("vg", logical) == VolumeFacts("vg", "lv", "AbC-1", "raw", GIB, 0)


@pytest.mark.parametrize(("xml", "expected"), [
    ("<network><name>n</name><forward mode='nat'/><bridge name='virbr0'/>"
     "<ip family='ipv6' address='fd00::1' prefix='64'/>"
     "<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='a' end='b'/><host ip='c'/></dhcp></ip>"
     "</network>",
     NetworkFacts("n", True, False, "nat", "virbr0", "192.168.122.1/24", dhcp=True, dhcp_ranges=(("a", "b"),),
                  dhcp_hosts=("c",))),
    ("<network><name>n</name><bridge name='virbr1'/><ip address='10.1.0.1' prefix='20'/></network>",
     NetworkFacts("n", True, False, None, "virbr1", "10.1.0.1/20")),
    ("<network><name>n</name><forward mode='bridge'/><bridge name='br0'/></network>",
     NetworkFacts("n", True, False, "bridge", "br0", None)),
    ("<network><name>n</name><forward dev='eth0'/><ip address='10.1.0.1'/></network>",
     NetworkFacts("n", True, False, "nat", None, "10.1.0.1/8")),
    ("<network><name>n</name><forward mode='hostdev'><pf dev='eno49'/></forward></network>",
     NetworkFacts("n", True, False, "hostdev", None, None)),
])
def test_networks(xml: str, expected: NetworkFacts) -> None:
    assert parse_network(xml, active=True, autostart=False) == expected


@pytest.mark.parametrize(("address", "prefix"), [("10.0.0.1", 8), ("172.16.0.1", 16), ("192.168.1.1", 24)])
def test_an_address_alone_has_the_prefix_of_its_class(address: str, prefix: int) -> None:
    found = parse_network(f"<network><ip address='{address}'/></network>", active=False, autostart=False)
    assert found.subnet == f"{address}/{prefix}"


def test_uefi_is_there_when_libvirt_says_so() -> None:
    capabilities = "<domainCapabilities><os supported='yes'><enum name='firmware'>{}</enum></os></domainCapabilities>"
    assert has_uefi(capabilities.format("<value>bios</value><value>efi</value>"))
    assert not has_uefi(capabilities.format("<value>bios</value>"))
    assert not has_uefi("")
