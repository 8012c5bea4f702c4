"""The design on this machine's libvirt and QEMU (emulation): pools, networks and VMs are made, started and changed."""

from __future__ import annotations

import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import libvirt
import pytest

from vmwright.facts import domains
from vmwright.facts.model import ConfigFacts, OwnerFacts
from vmwright.spec.cloud import Firmware, GuestSpec, VmSpec
from vmwright.virt import alter, design
from vmwright.virt.design import DiskChoice, NicChoice
from vmwright.virt.xml import tree

pytestmark = pytest.mark.local
LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
HOST_CPUS = 4  # as the design is told; emulation does not care
GONE = (libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)


@dataclass(frozen=True)
class Site:
    """A pool and two networks made for one test module."""

    libvirt: libvirt.virConnect
    prefix: str
    pool: libvirt.virStoragePool
    path: Path
    networks: tuple[libvirt.virNetwork, libvirt.virNetwork]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    prefix = f"vmwright-test-{uuid.uuid4().hex[:6]}"
    path = Path("/var/lib/libvirt") / prefix
    with ExitStack() as stack:
        connection = libvirt.open("qemu:///system")
        stack.callback(connection.close)
        pool = connection.storagePoolDefineXML(design.pool_xml(prefix, str(path)),
                                               libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)
        stack.callback(pool.undefine)
        pool.build()
        stack.callback(pool.delete)
        pool.create()
        stack.callback(pool.destroy)
        networks = [_network(connection, f"{prefix}-{n}", stack) for n in (1, 2)]
        yield Site(connection, prefix, pool, path, (networks[0], networks[1]))


def _network(connection: libvirt.virConnect, name: str, stack: ExitStack) -> libvirt.virNetwork:
    subnet = IPv4Network(f"10.{200 + uuid.uuid4().int % 50}.{uuid.uuid4().int % 250}.0/24")
    host = design.HostEntry("52:00:00:00:00:99", subnet[7], "known")
    xml = design.network_xml(name, subnet, [subnet[9]], [host])
    network = connection.networkDefineXMLFlags(xml, libvirt.VIR_NETWORK_DEFINE_VALIDATE)
    stack.callback(network.undefine)
    network.create()
    stack.callback(network.destroy)
    return network


@dataclass
class Machine:
    """A scratch VM of the design."""

    domain: libvirt.virDomain
    owner: OwnerFacts

    @property
    def name(self) -> str:
        return str(self.domain.name())

    def live(self) -> str:
        return str(self.domain.XMLDesc())

    def defined(self) -> str:
        return str(self.domain.XMLDesc(INACTIVE))

    def facts(self, xml: str) -> ConfigFacts:
        return domains.parse_domain(xml, None, "running", False).persistent

    def define(self, xml: str) -> ConfigFacts:
        """Define it anew, checked; what libvirt then says it is."""
        self.domain.connect().defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        return self.facts(self.defined())

    def console(self, wanted: str, patience: float = 300) -> str:
        """What the console's log says, as soon as it says `wanted`."""
        log, until = Path(design.serial_log(self.name)), time.monotonic() + patience
        while wanted not in (text := log.read_text(errors="replace")) and time.monotonic() < until:
            time.sleep(0.5)
        return text


@pytest.fixture
def machine(site: Site, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A VM, defined and off; its firmware, CPU and so on are the test's parameters."""
    name = f"{site.prefix}-{uuid.uuid4().hex[:4]}"
    with ExitStack() as stack:
        for volume, xml in ((f"{name}.root", design.volume_xml(f"{name}.root", 64 << 20, "qcow2")),
                            (f"{name}.seed", design.volume_xml(f"{name}.seed", 1 << 20, "raw"))):
            stack.callback(site.pool.createXML(xml).delete)
            assert (site.path / volume).exists()
        vm = VmSpec(name=name, host="h", template="t", pool=site.prefix, vcpus=1, memory=256 << 20, disk=None, nics=(),
                    guest=GuestSpec(), **getattr(request, "param", {}))
        owner = OwnerFacts("test", name, "t", "0123456789ab", uuid.uuid4().hex, "0123456789ab")
        xml = design.domain_xml(
            "test", vm, type="qemu", machine="q35", host_cpus=HOST_CPUS, seed_path=str(site.path / f"{name}.seed"),
            disks=[DiskChoice(str(site.path / f"{name}.root"), "qcow2", "root")],
            nics=[NicChoice("52:00:00:00:00:01", "network", site.networks[0].name())], owner=owner)
        domain = site.libvirt.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        left = [Path(design.serial_log(name)), Path(f"/var/log/libvirt/qemu/{name}.log"),
                Path(f"/var/lib/libvirt/qemu/nvram/{name}_VARS.fd")]  # an edit from UEFI to BIOS leaves its NVRAM
        for path in left:
            stack.callback(path.unlink, missing_ok=True)
        stack.callback(_remove, domain)
        yield Machine(domain, owner)


def _remove(domain: libvirt.virDomain) -> None:
    """End and forget it; a test may have done so itself."""
    with suppress(libvirt.libvirtError):
        domain.destroy()
    with suppress(libvirt.libvirtError):
        domain.undefineFlags(GONE)
    assert domain.name() not in [other.name() for other in domain.connect().listAllDomains()]


def _data_disk(site: Site, stack: ExitStack, serial: str, target: str) -> DiskChoice:
    name = f"{uuid.uuid4().hex[:6]}.{serial}"
    stack.callback(site.pool.createXML(design.volume_xml(name, 8 << 20, "qcow2")).delete)
    return DiskChoice(str(site.path / name), "qcow2", serial, target)


def test_a_uefi_vm_starts_with_firmware_and_nvram_of_its_own_and_speaks_into_its_log(machine: Machine) -> None:
    machine.domain.create()
    facts = machine.facts(machine.live())
    assert facts.firmware == "uefi"
    assert facts.nvram is not None and facts.nvram.endswith(f"/{machine.name}_VARS.fd")
    loader = ET.fromstring(machine.live()).find("os/loader")
    assert loader is not None and ".ms." not in (loader.text or "") and "secboot" not in (loader.text or "")
    assert "UEFI Interactive Shell" in machine.console("UEFI Interactive Shell")
    assert Path(design.serial_log(machine.name)).stat().st_mode & 0o077 == 0
    nvram = Path(facts.nvram)
    assert nvram.exists()
    machine.domain.destroy()
    assert machine.facts(machine.defined()).owner == machine.owner
    machine.domain.undefineFlags(GONE)
    assert not nvram.exists(), "the VM's NVRAM must go with it"


def test_eight_devices_are_plugged_into_a_running_vm_and_the_ninth_finds_no_port(machine: Machine, site: Site) -> None:
    with ExitStack() as stack:
        stack.callback(machine.domain.destroy)
        machine.domain.create()
        for n in range(4):
            disk = _data_disk(site, stack, f"d{n}", f"vd{'bcde'[n]}")
            machine.domain.attachDeviceFlags(design.disk_device_xml(disk), LIVE)
        for n in range(2, 6):
            nic = NicChoice(f"52:00:00:00:00:0{n}", "network", site.networks[n % 2].name())
            machine.domain.attachDeviceFlags(design.nic_device_xml(nic), LIVE)
        facts = machine.facts(machine.live())
        assert [disk.serial for disk in facts.disks] == ["root", "d0", "d1", "d2", "d3", "seed"]
        assert len(facts.nics) == 5
        with pytest.raises(libvirt.libvirtError, match="No more available PCI slots"):
            machine.domain.attachDeviceFlags(design.nic_device_xml(replace(nic, mac="52:00:00:00:00:0f")), LIVE)


def test_vcpus_are_plugged_in_and_memory_is_taken_while_it_runs(machine: Machine) -> None:
    machine.domain.create()
    machine.domain.setVcpusFlags(HOST_CPUS, LIVE)
    machine.domain.setMemoryFlags(128 << 10, LIVE)
    facts = machine.facts(machine.live())
    assert (facts.vcpus, facts.vcpus_max, facts.memory_max) == (HOST_CPUS, HOST_CPUS, 256 << 20)
    with pytest.raises(libvirt.libvirtError, match="requested vcpus is greater than max"):
        machine.domain.setVcpusFlags(HOST_CPUS + 1, LIVE)
    with pytest.raises(libvirt.libvirtError, match="cannot set memory higher than max memory"):
        machine.domain.setMemoryFlags(512 << 10, LIVE)


def test_a_nic_moves_while_the_vm_runs_and_keeps_its_place(machine: Machine, site: Site) -> None:
    """From a network to another, and on to a bridge, which here is the first network's."""
    machine.domain.create()
    mac = "52:00:00:00:00:01"
    before = ET.fromstring(alter.nic_xml(machine.live(), mac) or "")
    for type, source in (("network", site.networks[1].name()), ("bridge", site.networks[0].bridgeName())):
        device = alter.nic_xml(alter.move_nic(machine.live(), mac, type, source), mac)
        machine.domain.updateDeviceFlags(device, LIVE)
        nic = machine.facts(machine.live()).nics[0]
        assert (nic.type, nic.source) == (type, source)
    after = ET.fromstring(alter.nic_xml(machine.live(), mac) or "")
    for part in ("address", "alias", "target"):
        one, other = before.find(part), after.find(part)
        assert one is not None and other is not None and one.attrib == other.attrib


def test_every_edit_is_taken_by_libvirt_and_read_back(machine: Machine, site: Site) -> None:
    """On the persistent configuration of a running VM, so with all that libvirt has added to it."""
    machine.domain.create()
    before = facts = machine.facts(machine.defined())
    facts = machine.define(alter.set_vcpus(machine.defined(), 6, 8))
    assert (facts.vcpus, facts.vcpus_max) == (6, 8)
    facts = machine.define(alter.set_memory(machine.defined(), 512 << 20))
    assert (facts.memory, facts.memory_max) == (512 << 20, 512 << 20)
    facts = machine.define(alter.set_cpu(machine.defined(), "EPYC", "qemu"))
    assert facts.cpu == "EPYC"
    facts = machine.define(alter.set_owner(machine.defined(), replace(machine.owner, protect=True)))
    assert facts.owner == replace(machine.owner, protect=True)
    facts = machine.define(alter.add_nic(machine.defined(), NicChoice("52:00:00:00:00:07", "network", "later")))
    facts = machine.define(alter.move_nic(machine.defined(), "52:00:00:00:00:01", "bridge", "elsewhere"))
    assert [(nic.mac[-2:], nic.type, nic.source) for nic in facts.nics] == [
        ("01", "bridge", "elsewhere"), ("07", "network", "later")]
    facts = machine.define(alter.add_disk(machine.defined(), DiskChoice("/nowhere.qcow2", "qcow2", "more", "vdb")))
    assert [(disk.target, disk.serial) for disk in facts.disks] == [("vda", "root"), ("vdb", "more"), ("vdz", "seed")]
    facts = machine.define(alter.remove_nic(alter.remove_disk(machine.defined(), "more"), "52:00:00:00:00:07"))
    assert facts.disks == before.disks and len(facts.nics) == 1


def test_the_accelerator_is_changed_there_and_back_and_it_starts(machine: Machine) -> None:
    machine.define(alter.set_cpu(alter.set_type(machine.defined(), "kvm"), "host-passthrough", "kvm"))
    assert "kvmclock" in machine.defined()
    facts = machine.define(alter.set_cpu(alter.set_type(machine.defined(), "qemu"), "host-passthrough", "qemu"))
    assert (facts.type, facts.cpu) == ("qemu", "maximum")
    machine.domain.create()


@pytest.mark.parametrize("machine", [{"firmware": Firmware.BIOS}], indirect=True)
def test_a_bios_vm_without_a_system_says_so_in_its_log(machine: Machine) -> None:
    machine.domain.create()
    assert "No bootable device" in machine.console("No bootable device")


@pytest.mark.parametrize(("machine", "cpu"), [
    ({"firmware": Firmware.BIOS, "cpu": cpu}, cpu) for cpu in ("host-model", "EPYC", "Skylake-Server", "maximum")
], indirect=["machine"])
def test_every_kind_of_cpu_starts_under_emulation(machine: Machine, cpu: str) -> None:
    machine.domain.create()
    found = domains.parse_domain(machine.defined(), machine.live(), "running", False)
    assert found.live is not None
    assert (found.persistent.cpu, found.live.cpu) == (cpu, cpu)


def test_what_others_put_into_a_vm_outlives_an_edit(machine: Machine) -> None:
    root = tree.parse(machine.defined())
    root.set("xmlns:qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
    root.append(tree.el("qemu:commandline", tree.el("qemu:env", name="EXAMPLE", value="1")))
    tree.ensure(root, "metadata").append(tree.el("inv:asset", text="A-17", **{"xmlns:inv": "urn:example:inventory"}))
    machine.define(tree.render(root))
    machine.define(alter.set_memory(machine.defined(), 300 << 20))
    machine.define(alter.set_owner(machine.defined(), replace(machine.owner, protect=True)))
    text = machine.defined()
    assert "<qemu:env name='EXAMPLE' value='1'/>" in text
    assert '<inv:asset xmlns:inv="urn:example:inventory">A-17</inv:asset>' in text
    assert machine.facts(text).owner == replace(machine.owner, protect=True)


def test_the_pool_and_its_overlays_are_as_designed(site: Site) -> None:
    assert site.path.stat().st_mode & 0o777 == 0o711
    facts = domains.parse_pool(site.pool.XMLDesc(), active=True, autostart=False)
    assert (facts.name, facts.type, facts.target, facts.target_mode) == (site.prefix, "dir", str(site.path), 0o711)
    assert 0 < facts.available <= facts.capacity
    with ExitStack() as stack:
        base = site.pool.createXML(design.volume_xml("base", 16 << 20, "qcow2"))
        stack.callback(base.delete)
        overlay = site.pool.createXML(design.overlay_xml("over", 64 << 20, str(site.path / "base"), "qcow2"))
        stack.callback(overlay.delete)
        volume = domains.parse_volume(site.prefix, overlay.XMLDesc())
        assert (volume.capacity, volume.format, volume.backing) == (64 << 20, "qcow2", str(site.path / "base"))
        assert volume.allocation < 1 << 20
        assert (site.path / "over").stat().st_mode & 0o777 == 0o600


def test_a_network_runs_and_is_read_back(site: Site) -> None:
    network = site.networks[0]
    facts = domains.parse_network(network.XMLDesc(), active=bool(network.isActive()), autostart=False)
    assert (facts.forward, facts.bridge, facts.dhcp) == ("nat", network.bridgeName(), True)
    assert facts.subnet is not None
    subnet = IPv4Network(facts.subnet, strict=False)
    assert facts.subnet == f"{design.host_address(subnet)}/24"
    area = ET.fromstring(network.XMLDesc()).find("ip/dhcp/range")
    assert area is not None
    assert IPv4Address(area.get("start", "")) == subnet[10]
