"""PCI devices and who uses them: recorded machines, the reference server, and answers that are odd or torn."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.facts.test_gather import inventory
from tests.unit.facts.test_probes import recorded

from vmwright.errors import HostError
from vmwright.facts import devices, pci, storage
from vmwright.facts.devices import Around
from vmwright.facts.gather import assemble
from vmwright.facts.model import (
    BlockFacts,
    DeviceFacts,
    Facts,
    Held,
    HeldFacts,
    HostFacts,
    IommuFacts,
    Use,
    UseFacts,
)
from vmwright.facts.pci import Seen, pcie_serial
from vmwright.facts.probes import Output
from vmwright.facts.store import dumps, loads
from vmwright.virt.connect import RawDomain

PROBES = ("pci", "pci-config", "pci-names", "disk-links", "held")
NVME = ("0000:05:00.0", "0000:08:00.0", "0000:0b:00.0")
GPU = "0000:82:00.0"


def zcloud(*domains: RawDomain, **changed: Output) -> HostFacts:
    """The reference server with these domains."""
    outputs = {**recorded("ubuntu2004"), **recorded("lvm-zcloud"), **recorded("pci-zcloud"), **changed}
    return assemble("zcloud", outputs, inventory(pools=(), domains=domains), {}, storage.Wanted(disks=True),
                    devices=True)


def other(recording: str, **changed: Output) -> HostFacts:
    """Another recorded machine."""
    outputs = {**recorded("debian12"), **recorded("lvm-debian12"), **recorded(recording), **changed}
    return assemble("here", outputs, inventory(pools=(), domains=()), {}, storage.Wanted(disks=True), devices=True)


def by_address(host: HostFacts) -> dict[str, DeviceFacts]:
    """Its devices by address, without domain 0."""
    return {device.address.removeprefix("0000:"): device for device in host.devices}


def domain(name: str, inner: str, live: str | None = None) -> RawDomain:
    """A domain with these devices, now and at its next start."""
    shell = f"<domain type='kvm'><name>{name}</name><uuid>u</uuid><devices>%s</devices></domain>"
    return RawDomain(shell % inner, None if live is None else shell % live, "running" if live is not None else
                     "shut off", False)


def hostdev(bus: str, function: int = 0) -> str:
    """A device passed through."""
    return (f"<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x{bus}' "
            f"slot='0x00' function='0x{function}'/></source></hostdev>")


def test_nothing_is_run_where_nobody_wants_it() -> None:
    assert pci.commands(False) == {}
    host = assemble("here", recorded("debian12"), inventory())
    assert (host.devices, host.iommu) == ((), None)


def test_what_is_run() -> None:
    assert tuple(pci.commands(True)) == PROBES == tuple(recorded("pci-zcloud")) == tuple(recorded("pci-virtual"))


@pytest.mark.parametrize("probe", PROBES)
def test_each_missing_probe_is_named(probe: str) -> None:
    outputs = {**recorded("ubuntu2004"), **recorded("lvm-zcloud"), **recorded("pci-zcloud")}
    del outputs[probe]
    with pytest.raises(HostError, match=f"host here did not answer the probe {probe}"):
        assemble("here", outputs, inventory(), {}, storage.Wanted(disks=True), devices=True)


# -- notes ------------------------------------------------------------------------------------------------------------

def test_notes_are_read_as_they_are_written() -> None:
    notes = [HeldFacts("0000:05:00.0", "S1", "lab", "db", Held.WIPING, "nvme"), HeldFacts("", None, "lab", "web")]
    assert pci.parse_notes("\n\n".join(json.dumps(asdict(note)) for note in notes)) == tuple(notes)


@pytest.mark.parametrize("line", [
    "", "{", "[]", "7", '{"address": "a"}',
    '{"address": 1, "serial": null, "cloud": "c", "vm": "v", "state": "given"}',
    '{"address": "a", "serial": null, "cloud": "c", "vm": "v", "state": "lost"}',
])  # fmt: skip
def test_a_torn_or_strange_note_is_none(line: str) -> None:
    assert pci.parse_notes(line) == ()


def test_notes_are_facts() -> None:
    note = '{"address": "0000:05:00.0", "serial": "S1", "cloud": "lab", "vm": "db", "state": "given"}'
    assert zcloud(held=Output(note, 0)).held == (HeldFacts("0000:05:00.0", "S1", "lab", "db"),)


# -- the reference server ---------------------------------------------------------------------------------------------

def test_the_drives_of_the_reference_server() -> None:
    """Of PCIe they have no serial: it is all zeros."""
    rows = by_address(zcloud())
    assert rows["05:00.0"] == DeviceFacts(
        NVME[0], "144d:a80a", "010802", "Samsung Electronics Co Ltd NVMe SSD Controller PM9A1/PM9A3/980PRO", "nvme", 0,
        39, (), "S676NF0R908202", None, ("/dev/nvme0n1",))
    assert [(rows[at].group, rows[at].serial, rows[at].blocks) for at in ("08:00.0", "0b:00.0")] == [
        (40, "S676NF0R908203", ("/dev/nvme1n1",)), (41, "S676NF0R908204", ("/dev/nvme2n1",))]


def test_its_gpu_is_on_the_other_node_and_unused() -> None:
    assert by_address(zcloud())["82:00.0"] == DeviceFacts(
        GPU, "10de:1b39", "030200", "NVIDIA Corporation GP102GL [Tesla P10]", None, 1, 79)


def test_its_card_is_one_group_and_carries_the_way_in() -> None:
    rows = by_address(zcloud())
    ports = [rows[f"02:00.{n}"] for n in range(4)]
    assert {port.group for port in ports} == {34}
    assert ports[1].peers == ("0000:02:00.0", "0000:02:00.2", "0000:02:00.3")
    assert ports[0].uses == (UseFacts(Use.ROUTE, "eno1", "br0"), UseFacts(Use.SESSION, "eno1", "192.168.6.200"),
                             UseFacts(Use.LINK, "eno1", "br0"))
    assert [port.uses for port in ports[1:]] == [(), (), ()]
    assert [(rows[f"04:00.{n}"].group, rows[f"04:00.{n}"].peers) for n in range(4)] == [
        (35, ()), (36, ()), (37, ()), (38, ())]
    assert (ports[0].serial, rows["04:00.3"].serial) == ("00-00-94-18-82-00-00-01", "94-18-82-ff-ff-00-00-49")


def test_its_disk_is_in_use_whole() -> None:
    sata = by_address(zcloud())["00:1f.2"]
    assert (sata.peers, sata.blocks, sata.serial) == (("0000:00:1f.0",), ("/dev/sda",), None)
    assert set(sata.uses) == {UseFacts(Use.MOUNT, "/dev/sda1", "/boot/efi"), UseFacts(Use.MOUNT, "/dev/sda2", "/"),
                              UseFacts(Use.SWAP, "/dev/sda3"), UseFacts(Use.LVM, "/dev/sda4")}


def test_its_iommu() -> None:
    assert zcloud().iommu == IommuFacts(True, "DMAR", ("intel_iommu=on", "iommu=pt"))


def test_bridges_are_told_apart() -> None:
    """An ISA bridge is none between PCI buses: its driver does keep a group from being given away."""
    rows = by_address(zcloud())
    assert (rows["00:01.0"].bridge, rows["00:1f.0"].bridge, rows["05:00.0"].bridge) == (True, False, False)


def test_devices_come_in_the_order_of_their_addresses_and_are_saved() -> None:
    host = zcloud()
    addresses = [device.address for device in host.devices]
    assert addresses == sorted(addresses) and len(addresses) == 20
    assert loads(dumps(Facts((host,))), "x").hosts == (host,)


def test_vms_that_have_its_devices() -> None:
    """By what is to be at the next start, and by what is now: as such, as a NIC, and as a drive of QEMU's own."""
    nic = ("<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x04' slot='0x00' "
           "function='0x2'/></source></interface>")
    drive = ("<disk type='nvme' device='disk'><source type='pci' namespace='1'><address domain='0x0000' bus='0x0b' "
             "slot='0x00' function='0x0'/></source><target dev='vda'/></disk>")
    rows = by_address(zcloud(domain("z-b-data-1", hostdev("05")), domain("z-b-data-2", "", hostdev("08")),
                             domain("gpu", hostdev("82"), hostdev("82")), domain("odd", nic + drive)))
    assert {at: row.uses for at, row in rows.items() if any(use.use is Use.VM for use in row.uses)} == {
        "05:00.0": (UseFacts(Use.VM, "z-b-data-1"),), "08:00.0": (UseFacts(Use.VM, "z-b-data-2"),),
        "82:00.0": (UseFacts(Use.VM, "gpu"),), "04:00.2": (UseFacts(Use.VM, "odd"),),
        "0b:00.0": (UseFacts(Use.VM, "odd"),)}


def test_other_devices_of_vms_are_none_of_pci() -> None:
    usb = "<hostdev mode='subsystem' type='usb'><source><address bus='5' device='0'/></source></hostdev>"
    made = "<hostdev mode='subsystem' type='mdev'><source><address uuid='c2177883'/></source></hostdev>"
    nic = "<interface type='hostdev'><source><address type='usb' bus='5' device='1'/></source></interface>"
    host = zcloud(domain("a", f"{usb}{made}{nic}<hostdev/><interface type='hostdev'/>"))
    assert host.domains[0].persistent.hostdevs == ()


def test_a_vm_that_has_a_drive_as_a_disk_by_whichever_path() -> None:
    disk = "<disk type='block'><source dev='%s'/><target dev='vda'/></disk>"
    link = "/dev/disk/by-id/nvme-SAMSUNG_MZVL21T0HCLR-00B00_S676NF0R908203"
    rows = by_address(zcloud(domain("a", disk % "/dev/nvme0n1"), domain("b", disk % link),
                             domain("c", disk % "/dev/disk/by-id/another")))
    assert rows["05:00.0"].uses == (UseFacts(Use.DISK, "a", "/dev/nvme0n1"),)
    assert rows["08:00.0"].uses == (UseFacts(Use.DISK, "b", link),)
    assert rows["0b:00.0"].uses == ()


# -- recorded machines ------------------------------------------------------------------------------------------------

def test_an_emulated_server_with_drives_in_use_and_one_handed_over() -> None:
    host = other("pci-rack")
    rows = by_address(host)
    assert {at: (row.serial, row.driver, row.numa_node, row.blocks, row.uses) for at, row in rows.items()
            if row.kind == "010802"} == {
        "11:00.0": ("PM9A1-1", "nvme", 0, ("/dev/nvme1n1",), (UseFacts(Use.MOUNT, "/dev/nvme1n1", "/mnt/a"),)),
        "12:00.0": (None, "vfio-pci", 0, (), ()),
        "29:00.0": ("PM9A1-3", "nvme", 1, ("/dev/nvme0n1",), (UseFacts(Use.LVM, "/dev/nvme0n1"),))}
    assert rows["11:00.0"].name == "Red Hat, Inc. QEMU NVM Express Controller"
    assert [rows[f"13:00.{n}"].serial for n in (0, 3)] == ["52-96-66-ff-ff-2d-2d-4f", "52-b1-e5-ff-ff-34-3c-42"]
    assert rows["13:00.2"].peers == ("0000:13:00.0", "0000:13:00.1", "0000:13:00.3")
    assert UseFacts(Use.SESSION, "eno1", "10.0.2.15") in rows["00:02.0"].uses
    assert host.iommu == IommuFacts(True, "DMAR", ("intel_iommu=on",))


def test_a_virtual_machine_without_udev_and_iommu() -> None:
    host = other("pci-virtual")
    rows = by_address(host)
    assert host.iommu == IommuFacts(False)
    assert (rows["00:02.0"].name, rows["00:02.0"].blocks) == ("Red Hat, Inc. Virtio 1.0 block device", ("/dev/vda",))
    assert rows["00:03.0"].uses[0] == UseFacts(Use.ROUTE, "eth0", "eth0")
    assert {(row.group, row.peers, row.numa_node, row.serial) for row in host.devices} == {(None, (), None, None)}


# -- parsers ----------------------------------------------------------------------------------------------------------

def space(*capabilities: tuple[int, int, bytes], size: int = 4096) -> bytes:
    """A configuration space with these extended capabilities: place, id and content. The first place is 0x100."""
    made = bytearray(size)
    for n, (place, kind, content) in enumerate(capabilities):
        following = capabilities[n + 1][0] if n + 1 < len(capabilities) else 0
        made[place:place + 4 + len(content)] = (following << 20 | 1 << 16 | kind).to_bytes(4, "little") + content
    return bytes(made)


SERIAL = bytes.fromhex("4900 00ff ff82 1894")


@pytest.mark.parametrize(("made", "serial"), [
    (space((0x100, 3, SERIAL)), "94-18-82-ff-ff-00-00-49"),
    (space((0x100, 1, b""), (0x140, 0xB, b"\3\0\1"), (0xFF0, 3, SERIAL)), "94-18-82-ff-ff-00-00-49"),
    (space((0x100, 1, b""), (0xFF8, 3, b"1234")), None),  # it would end behind the space
    (space((0x100, 3, bytes(8))), None), (space((0x100, 3, b"\xff" * 8)), None),
    (space((0x100, 1, b"")), None), (space(), None), (space((0x100, 3, SERIAL))[:256], None),
    (space((0x100, 3, SERIAL))[:64], None), (b"", None), (b"\xff" * 4096, None),
    (space((0x100, 1, b""), (0x140, 1, b""))[:0x142] + b"\1\x10" + bytes(3772), None)])  # a circle
def test_serial_numbers_of_pcie(made: bytes, serial: str | None) -> None:
    assert pcie_serial(made) == serial


@given(st.binary(max_size=600).map(lambda tail: bytes(256) + tail))
def test_whatever_a_device_has_in_its_space_is_read_to_an_end(made: bytes) -> None:
    found = pcie_serial(made)
    assert found is None or len(found) == 23


def dump(data: bytes) -> str:
    """What od -A x -t x1 shows of it."""
    lines, last, hidden = [], b"", False
    for at in range(0, len(data), 16):
        part = data[at:at + 16]
        if part == last and at + 16 < len(data) and len(part) == 16:
            lines += [] if hidden else ["*"]
            hidden = True
        else:
            lines.append(f"{at:06x} {part.hex(' ')}")
            hidden = False
        last = part
    return "\n".join([*lines, f"{len(data):06x}"])


@given(st.lists(st.sampled_from([bytes(256), bytes(4096), space((0x100, 3, SERIAL)), b"\n==> " + bytes(59)]),
                max_size=4))
def test_spaces_of_several_devices_are_told_apart(spaces: list[bytes]) -> None:
    heads = [f"==> /sys/bus/pci/devices/0000:{n:02x}:00.0/config <==\n".encode() for n in range(len(spaces))]
    text = dump(b"\n".join(head + one for head, one in zip(heads, spaces, strict=True)))
    assert pci.parse_serials(text) == {f"0000:{n:02x}:00.0": "94-18-82-ff-ff-00-00-49"
                                       for n, one in enumerate(spaces) if pcie_serial(one)}


def test_names_of_pci_ids_belong_to_the_vendor_above_them() -> None:
    text = "1af4  Red Hat, Inc.\n\t1041  Virtio network device\n8086  Intel Corporation\n\t1521  I350\n"
    assert pci.parse_names(text) == {"1af4:1041": "Red Hat, Inc. Virtio network device",
                                     "8086:1521": "Intel Corporation I350"}
    assert pci.parse_names("") == {}
    one = "/run/udev/data/+pci:0000:05:00.0:E:ID_MODEL_FROM_DATABASE=A = B\n"
    assert pci.parse_names(one) == {"0000:05:00.0": "A = B"}


LAST = "\nsession\t"
ROW = "device\t0000:{}\t0x1\t0x2\t0x010802\tnvme\t-1\t{}\t{}\n"


def test_a_drive_with_several_paths_is_on_all_its_controllers() -> None:
    text = (ROW.format("05:00.0", 1, "S1") + ROW.format("06:00.0", 2, "S1") +
            "block\tnvme0n1\t/sys/devices/virtual/nvme-subsystem/nvme-subsys0\n"
            "block\tnvme0n1\t/sys/devices/pci0000:00/0000:05:00.0/nvme/nvme0\n"
            "block\tnvme0n1\t/sys/devices/pci0000:00/0000:06:00.0/nvme/nvme1\n"
            "block\tcciss!c0d0\t/sys/devices/pci0000:00/0000:06:00.0/cciss0/c0d0" + LAST)
    assert [device.blocks for device in pci.parse(text, {}).devices] == [
        ("/dev/nvme0n1",), ("/dev/nvme0n1", "/dev/cciss/c0d0")]


def test_a_drives_serial_is_never_that_of_pcie() -> None:
    """Else one that a guest has would seem to be another one."""
    found = pci.parse(ROW.format("05:00.0", 1, "") + LAST, {"0000:05:00.0": "00-01"}).devices[0]
    assert (found.serial, found.pcie_serial, found.numa_node) == (None, "00-01", None)


def test_a_device_behind_vmd_has_a_longer_domain() -> None:
    text = ("device\t10000:01:00.0\t0x8086\t0x1\t0x010802\tnvme\t0\t\tS1\n"
            "block\tnvme0n1\t/sys/x/10000:01:00.0/nvme0" + LAST)
    assert pci.parse(text, {}).devices[0].blocks == ("/dev/nvme0n1",)


@pytest.mark.parametrize(("session", "address"), [
    ("10.0.0.9 50000 10.0.0.1 22", "10.0.0.1"), ("fe80::9%br0 50000 fe80::1%br0 22", "fe80::1"), ("", None),
    ("torn 1", None)])
def test_where_the_session_comes_in(session: str, address: str | None) -> None:
    assert pci.parse(f"session\t{session}", {}).session == address


def test_default_routes_of_both_families() -> None:
    """Not half of all addresses, as VPNs take it; and not what the kernel rejects by, nor a torn line."""
    zero = "0" * 32
    text = ("route\tIface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
            "route\ttun0\t00000000\t00000000\t0003\t0\t0\t0\t00000080\nroute\teno1\t00000000\n"
            "route\teno2\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
            f"route6\t{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
            f"route6\t{zero} 00 {zero} 00 fe80{zero[4:]} 00000400 00000002 00000000 00000003 eno3\n"
            f"route6\t{zero} 40 {zero} 00 {zero} 00000400 00000002 00000000 00000003 eno4\n")
    assert pci.parse(text + LAST, {}).routes == ("eno2", "eno3")


@pytest.mark.parametrize(("probe", "text", "why"), [
    ("pci", "", "it ended too early"),
    ("pci", ROW.format("05:00.0", "x", "") + LAST, "invalid literal for int() with base 10: 'x'"),
    ("pci", "device\t0000:05:00.0" + LAST, "not enough values to unpack (expected 8, got 1)"),
    ("pci-config", "000000 zz", "non-hexadecimal number found in fromhex() arg at position 0"),
    ("links", "[", "Expecting value: line 1 column 2 (char 1)")])
def test_what_is_not_understood_is_told(probe: str, text: str, why: str) -> None:
    with pytest.raises(HostError) as caught:
        zcloud(**{probe: Output(text, 0)})
    assert str(caught.value).startswith(f"host zcloud: the probe {probe} was not understood\n  why: {why}\n")


# -- uses -------------------------------------------------------------------------------------------------------------

DEVICE = DeviceFacts("0000:05:00.0", "144d:a80a", "010802", blocks=("/dev/nvme0n1",), links=("eno1",))


def uses(*blocks: BlockFacts, **seen: object) -> tuple[UseFacts, ...]:
    """What uses a device with a drive and an interface."""
    whole = replace(Seen((DEVICE,), IommuFacts(True)), **seen)  # type: ignore[arg-type]
    return devices.with_uses(whole, Around(blocks, (), {"10.0.0.1": "br0", "fe80::1": "eno1"}, (), {}))[0].uses


def block(path: str, kind: str = "part", *parents: str, **known: object) -> BlockFacts:
    """A block device of a byte."""
    return replace(BlockFacts(path, 1, kind, parents), **known)  # type: ignore[arg-type]


DRIVE, PART = block("/dev/nvme0n1", "disk"), block("/dev/nvme0n1p1", "part", "/dev/nvme0n1")


@pytest.mark.parametrize(("blocks", "found"), [
    ((), ()), ((DRIVE, PART), ()), ((replace(DRIVE, signatures=("ext4", "swap", "crypto_LUKS")),), ()),
    ((DRIVE, replace(PART, vg="data")), (UseFacts(Use.LVM, PART.path, "data"),)),
    ((replace(DRIVE, signatures=("LVM2_member",)),), (UseFacts(Use.LVM, DRIVE.path),)),
    ((DRIVE, replace(PART, signatures=("linux_raid_member",)), block("/dev/md0", "raid1", PART.path)),
     (UseFacts(Use.RAID, PART.path, "linux_raid_member"), UseFacts(Use.RAID, "/dev/md0"))),
    ((replace(DRIVE, signatures=("zfs_member",)),), (UseFacts(Use.RAID, DRIVE.path, "zfs_member"),)),
    ((DRIVE, PART, block("/dev/mapper/c", "crypt", PART.path),
      block("/dev/mapper/v", "lvm", "/dev/mapper/c", mounts=("/a",))),
     (UseFacts(Use.HOLDER, "/dev/mapper/c"), UseFacts(Use.MOUNT, "/dev/mapper/v", "/a"))),
    ((DRIVE, block("/dev/sdb", "disk"), block("/dev/sdb1", "part", "/dev/sdb", mounts=("/b",))), ())])
def test_what_stands_on_a_drive(blocks: tuple[BlockFacts, ...], found: tuple[UseFacts, ...]) -> None:
    assert uses(*blocks) == found


def test_all_drives_of_a_mounted_btrfs_are_in_use() -> None:
    """The kernel tells of a mount with the name of one of them, or of a link."""
    assert uses(DRIVE, btrfs=("/dev/nvme0n1",)) == (UseFacts(Use.RAID, "/dev/nvme0n1", "btrfs"),)
    assert uses(replace(DRIVE, mounts=("/a",)), btrfs=("/dev/nvme0n1",)) == (UseFacts(Use.MOUNT, "/dev/nvme0n1", "/a"),)


def test_what_goes_by_an_interface() -> None:
    """By a bridge on a VLAN on it, too; not by those beside it."""
    lower = {"br0": ("eno1.5",), "eno1.5": ("eno1",), "bond0": ("eno2",), "eno1": ()}
    stands = (UseFacts(Use.LINK, "eno1", "eno1.5"), UseFacts(Use.LINK, "eno1", "br0"))
    assert uses(lower=lower) == stands
    assert uses(lower=lower, routes=("br0", "bond0")) == (UseFacts(Use.ROUTE, "eno1", "br0"), *stands)
    assert uses(lower=lower, session="10.0.0.1") == (UseFacts(Use.SESSION, "eno1", "10.0.0.1"), *stands)
    assert uses(session="fe80::1") == (UseFacts(Use.SESSION, "eno1", "fe80::1"),)
    assert uses(session="10.9.9.9", routes=("eno2",)) == ()


def test_what_was_set_aside_at_boot_is_known_by_what_its_driver_said_then() -> None:
    """A drive tells its serial to its own driver alone, which has had it for a moment in the initramfs."""
    rows = ["device\t0000:05:00.0\t0x144d\t0xa80a\t0x010802\tvfio-pci\t0\t1\t",
            "device\t0000:06:00.0\t0x144d\t0xa80a\t0x010802\tvfio-pci\t0\t2\t",
            "device\t0000:07:00.0\t0x144d\t0xa80a\t0x010802\tnvme\t0\t3\tNOW", "aside\taside 0000:05:00.0 nvme AT BOOT",
            "aside\taside 0000:07:00.0 nvme BEFORE", "aside\tnot nvme-9 no drive has the serial 9", "session\t"]
    seen = pci.parse("\n".join(rows), {})
    assert [(device.serial, device.former) for device in seen.devices] == [
        ("AT BOOT", "nvme"), (None, None), ("NOW", "nvme")]
    assert seen.not_aside == (("nvme-9", "no drive has the serial 9"),)
