"""Golden XML: what the builders and edits give, to the letter; valid by libvirt's schemas, taken by libvirt itself.

Write the files anew with VMWRIGHT_GOLDEN=write, then read the difference before you commit it.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import libvirt
import pytest
from lxml import etree

from vmwright.facts.model import ANYWHERE, Cell, OwnerFacts, Placement
from vmwright.spec.cloud import Firmware, GuestSpec, VmSpec
from vmwright.virt import alter, design, xml
from vmwright.virt.placing import Ground

GOLDEN = Path(__file__).parents[2] / "golden"
SCHEMAS = Path("/usr/share/libvirt/schemas")
OWNER = OwnerFacts("zcloud", "z-dev", "z-fedora35", "0a1b2c3d4e5f", "i-7f3a", "5eed5eed5eed", protect=True)
ROOT = design.DiskChoice("/srv/images/zcloud.z-dev.root.qcow2", "qcow2", "root")
DATA = design.DiskChoice("/srv/images/zcloud.z-dev.disk-data.qcow2", "qcow2", "data", "vdb", cache="writeback")
VOLUME = design.DiskChoice("/dev/vg-libvirt/zcloud.z-dev.root", "raw", "root", block=True)
NVME = "0000:05:00.0"
LAN = design.NicChoice("52:1c:7b:1f:0f:11", "bridge", "br0")
NAT = design.NicChoice("52:1c:7b:1f:0f:12", "network", "zcloud-nat")
PLACED = Placement(((24,), (25,), (26,), (27,)), (4, 5), (4, 5), (0,), "strict", threads=2, hugepages=2 << 20)
SPREAD = Placement(((4,), (5,), (16,), (17,)), (6, 18), (), (), "preferred", (
    Cell((0, 1), 2 << 30, (0,)), Cell((2, 3), 2 << 30, (1,))))


def _vm(**changes: object) -> VmSpec:
    given: dict[str, object] = {"name": "z-dev", "host": "zcloud", "template": "z-fedora35", "pool": "images",
                                "vcpus": 2, "memory": 4 << 30, "disk": None, "nics": (), "guest": GuestSpec()}
    given.update(changes)
    return VmSpec(**given)  # type: ignore[arg-type]


def _domain(vm: VmSpec, disks: list[design.DiskChoice], nics: list[design.NicChoice], **more: object) -> str:
    given: dict[str, object] = {"type": "kvm", "machine": "q35", "host_cpus": 48, "disks": disks, "nics": nics,
                                "seed_path": "/srv/images/zcloud.z-dev.seed.iso", "owner": OWNER,
                                "uuid": "8e1c5c1e-51f3-4d8b-9d0a-2f6d0c1b7a55", **more}
    return design.domain_xml("zcloud", vm, **given)  # type: ignore[arg-type]


def _bios_model() -> VmSpec:
    return _vm(firmware=Firmware.BIOS, cpu="EPYC")


def _full() -> str:
    return _domain(_vm(), [ROOT, DATA], [LAN, NAT], os_id="http://fedoraproject.org/fedora/35")


def _network(reserved: list[IPv4Address], *hosts: design.HostEntry, dhcp: bool = True) -> str:
    return design.network_xml("zcloud-nat", IPv4Network("192.168.122.0/24"), reserved, hosts, dhcp=dhcp)


def _others() -> str:
    return (GOLDEN / "others.xml").read_text()


_HOST = design.HostEntry(NAT.mac, IPv4Address("192.168.122.10"), "z-dev")

# file -> (the schema it must fit, or the device it must be; what makes it)
CASES: dict[str, tuple[str, Callable[[], str]]] = {
    "vm-uefi-kvm.xml": ("domain", _full),
    "vm-uefi-qemu.xml": ("domain", lambda: _domain(_vm(vcpus=1), [ROOT], [NAT], type="qemu", host_cpus=1)),
    "vm-bios-model.xml": ("domain", lambda: _domain(_bios_model(), [ROOT], [])),
    "vm-bios-model-qemu.xml": ("domain", lambda: _domain(_bios_model(), [ROOT], [], type="qemu")),
    "vm-host-model.xml": ("domain", lambda: _domain(_vm(cpu="host-model"), [ROOT], [LAN], uuid=None)),
    "vm-block.xml": ("domain", lambda: _domain(_vm(), [VOLUME], [], seed_path="/dev/vg-libvirt/zcloud.z-dev.seed")),
    "vm-hostdev.xml": ("domain", lambda: _domain(_vm(), [ROOT], [LAN], hostdevs=[NVME, "0000:82:00.0"],
                                                 owner=replace(OWNER, devices=(NVME, "0000:82:00.0")))),
    "device-hostdev.xml": ("hostdev", lambda: design.hostdev_xml(NVME)),
    "others-hostdev.xml": ("domain", lambda: alter.remove_hostdev(
        alter.add_hostdev(alter.add_hostdev(_others(), NVME), NVME), "0000:82:00.0")),
    "vm-placed.xml": ("domain", lambda: _domain(_vm(vcpus=4), [VOLUME], [], placement=PLACED)),
    "vm-placed-amd.xml": ("domain", lambda: _domain(_vm(vcpus=4), [VOLUME], [], placement=PLACED,
                                                    ground=Ground("AMD", frozenset([PLACED.hugepages])))),
    "vm-older.xml": ("domain", lambda: _domain(_vm(), [ROOT], [], ground=Ground(libvirt="6.0.0", emulator="4.2.1"))),
    "vm-spread.xml": ("domain", lambda: _domain(_vm(vcpus=4), [ROOT], [], placement=SPREAD)),
    "device-disk-block.xml": ("disk", lambda: design.disk_device_xml(VOLUME)),
    "device-disk.xml": ("disk", lambda: design.disk_device_xml(DATA)),
    "device-nic-network.xml": ("interface", lambda: design.nic_device_xml(NAT)),
    "device-nic-bridge.xml": ("interface", lambda: design.nic_device_xml(LAN)),
    "pool.xml": ("storagepool", lambda: design.pool_xml("images", "/srv/images")),
    "pool-group.xml": ("storagepool", lambda: design.group_xml("images_lvm", "vg-libvirt")),
    "volume-overlay.xml": ("storagevol", lambda: design.overlay_xml(
        "zcloud.z-dev.root.qcow2", 32 << 30, "/srv/images/zcloud.z-fedora35.template-0a1b2c3d4e5f.qcow2", "qcow2")),
    "volume-qcow2.xml": ("storagevol", lambda: design.volume_xml("zcloud.z-dev.disk-data.qcow2", 10 << 30, "qcow2")),
    "volume-raw.xml": ("storagevol", lambda: design.volume_xml("zcloud.z-dev.disk-data.img", 10 << 30, "raw")),
    "network-nat.xml": ("network", lambda: _network([IPv4Address("192.168.122.99")])),
    "network-nat-hosts.xml": ("network", lambda: _network([], _HOST)),
    "network-nat-static.xml": ("network", lambda: _network([], dhcp=False)),
    "others.xml": ("domain", _others),
    "others-vcpus.xml": ("domain", lambda: alter.set_vcpus(_others(), 6, 48)),
    "others-memory.xml": ("domain", lambda: alter.set_memory(_others(), 12 << 30)),
    "others-emulated.xml": ("domain", lambda: alter.set_type(_others(), "qemu")),
    "others-cpu.xml": ("domain", lambda: alter.set_cpu(_others(), "EPYC", "kvm")),
    "others-owned.xml": ("domain", lambda: alter.set_owner(_others(), OWNER)),
    "others-devices.xml": ("domain", lambda: alter.move_nic(
        alter.remove_disk(alter.add_disk(alter.add_nic(_others(), NAT), DATA), "scratch"),
        "52:54:00:1a:2b:3d", "network", "lan")),
    "others-placed.xml": ("domain", lambda: alter.set_placement(_others(), SPREAD, 48)),
    "others-anywhere.xml": ("domain", lambda: alter.set_placement(_others(), ANYWHERE, 48)),
    "vm-to-qemu.xml": ("domain", lambda: alter.set_type(_full(), "qemu")),
}
_DOCUMENTS = ("domain", "storagepool", "storagevol", "network")


@pytest.mark.parametrize("name", CASES)
def test_xml_is_as_the_golden_file_says(name: str) -> None:
    made, path = CASES[name][1](), GOLDEN / name
    if os.environ.get("VMWRIGHT_GOLDEN") == "write":
        path.write_text(made)
    assert made == path.read_text(), f"{path} differs: if that is meant, write it anew with VMWRIGHT_GOLDEN=write"


def test_every_golden_file_has_a_case() -> None:
    assert {path.name for path in GOLDEN.glob("*.xml")} == set(CASES)


@pytest.fixture(scope="module")
def schemas() -> Callable[[str], etree.RelaxNG]:
    assert SCHEMAS.is_dir(), "libvirt's schemas are missing: install libvirt0 (Debian, Ubuntu) or libvirt-libs (Fedora)"
    made: dict[str, etree.RelaxNG] = {}

    def schema(kind: str) -> etree.RelaxNG:
        if kind not in made:
            source = etree.parse(SCHEMAS / f"{kind}.rng") if kind in _DOCUMENTS else _device_schema(kind)
            made[kind] = etree.RelaxNG(source)
        return made[kind]

    return schema


def _device_schema(kind: str) -> etree._ElementTree:
    """libvirt has no schema of a device alone: a grammar that starts at the device within the domain's."""
    grammar = f"""<grammar xmlns="http://relaxng.org/ns/structure/1.0">
      <start><ref name="{kind}"/></start><include href="{SCHEMAS}/domainoverrides.rng"/></grammar>"""
    return etree.ElementTree(etree.fromstring(grammar, base_url=f"file://{SCHEMAS}/device.rng"))


@pytest.mark.parametrize("name", CASES)
def test_golden_file_fits_libvirts_schema(name: str, schemas: Callable[[str], etree.RelaxNG]) -> None:
    schema = schemas(CASES[name][0])
    assert schema.validate(etree.parse(GOLDEN / name)), schema.error_log


def test_the_schemas_refuse_what_libvirt_does_not_know(schemas: Callable[[str], etree.RelaxNG]) -> None:
    """So that the test above can fail: validation of documents and of devices is in force."""
    for name in ("vm-uefi-kvm.xml", "device-disk.xml"):
        root = etree.parse(GOLDEN / name).getroot()
        etree.SubElement(root, "nonsense")
        assert not schemas(CASES[name][0]).validate(root)


@pytest.fixture
def test_driver() -> Iterator[libvirt.virConnect]:
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


# The test driver is not QEMU: it refuses others.xml's own arguments for QEMU, so it gets domains of our design only.
@pytest.mark.parametrize("name", [name for name, (kind, _) in CASES.items()
                                  if kind in _DOCUMENTS and not name.startswith("others")])
def test_golden_file_is_taken_by_libvirt(name: str, test_driver: libvirt.virConnect) -> None:
    text, kind = (GOLDEN / name).read_text(), CASES[name][0]
    if kind == "domain":
        made = test_driver.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    elif kind == "network":
        made = test_driver.networkDefineXMLFlags(text, libvirt.VIR_NETWORK_DEFINE_VALIDATE)
    elif kind == "storagepool":
        made = test_driver.storagePoolDefineXML(text, libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)
    else:
        made = test_driver.storagePoolLookupByName("default-pool").createXML(text)
    assert made.name() == ET.fromstring(text).findtext("name")


def _builders() -> dict[CodeType, str]:
    """Every public function of virt.xml that makes an element, by its code."""
    found: dict[CodeType, str] = {}
    for info in pkgutil.iter_modules(xml.__path__):
        module = import_module(f"{xml.__name__}.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_") and _makes_elements(function):
                found[function.__code__] = f"{info.name}.{name}"
    return found


def _makes_elements(function: FunctionType) -> bool:
    return str(inspect.signature(function).return_annotation) in ("ET.Element", "list[ET.Element]")


def test_every_builder_is_exercised_by_a_golden_file() -> None:
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for _, make in CASES.values():
            make()
    finally:
        sys.setprofile(before)
    builders = _builders()
    assert len(builders) > 25, "the builders of virt.xml are not found any more"
    assert [name for code, name in builders.items() if code not in called] == []
