"""CPUs, nodes and PCI devices of a rack, read as of any host: they are as its shape says, and uses are seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.rack.kit import SOURCES, sh

from vmwright.facts.gather import gather
from vmwright.facts.model import DeviceFacts, HostFacts, Use, UseFacts
from vmwright.rack.machine import OUTSIDE_ADDRESS
from vmwright.rack.record import Record
from vmwright.rack.seed import SSH_CONFIG
from vmwright.rack.shape import REFERENCE
from vmwright.session import Sessions
from vmwright.spec.cloud import Cloud, DeviceSpec, HostSpec

DRIVE = REFERENCE.nvme[0].serial
BY_ID = "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_"


def read(rack: Record, *devices: DeviceSpec) -> HostFacts:
    """Its facts, for a file that sets these devices aside there."""
    host = HostSpec("rack", f"ssh://root@127.0.0.1:{rack.port}", ssh_config=str(rack.folder / SSH_CONFIG),
                    devices=devices or (DeviceSpec("nvme-1", serial=DRIVE),))
    with Sessions((host,)) as sessions:
        return gather(Cloud("lab", (host,), (), (), (), ()), sessions).hosts[0]


@pytest.fixture(scope="module")
def found(rack: Record) -> HostFacts:
    """The facts of a rack that nothing was done with."""
    return read(rack)


def drive(host: HostFacts, serial: str) -> DeviceFacts:
    """The device with that serial."""
    return next(device for device in host.devices if device.serial == serial)


def of_links(host: HostFacts) -> dict[str, DeviceFacts]:
    """Devices by the names of their interfaces."""
    return {name: device for device in host.devices for name in device.links}


def test_cpus_and_their_siblings(found: HostFacts) -> None:
    shape, cpus = REFERENCE, found.cpu_list
    each = shape.cores * shape.threads
    assert [(cpu.number, cpu.node, cpu.socket, cpu.online) for cpu in cpus] == [
        (n, n // each, n // each, True) for n in range(shape.cpus)]
    assert [cpu.siblings for cpu in cpus] == [(n ^ 1,) for n in range(shape.cpus)]
    assert len({(cpu.socket, cpu.core) for cpu in cpus}) == shape.sockets * shape.cores


def test_nodes(found: HostFacts) -> None:
    assert [(node.number, node.cpus, node.distances) for node in found.nodes] == [
        (0, (0, 1, 2, 3), (10, 21)), (1, (4, 5, 6, 7), (21, 10))]
    assert all(0.9 * size < node.memory <= size and 0 < node.free + node.reclaimable < node.memory
               for node, size in zip(found.nodes, REFERENCE.memory, strict=True))
    assert all([page.size for page in node.hugepages] == [2 << 20] for node in found.nodes)


def test_drives(found: HostFacts) -> None:
    drives = [device for device in found.devices if device.kind == "010802"]
    assert {(one.serial, one.numa_node, one.driver, one.peers, one.uses) for one in drives} == {
        (one.serial, one.node, "nvme", (), ()) for one in REFERENCE.nvme}
    disks = {block.serial: block.path for block in found.blocks if block.serial}
    assert {one.serial: one.blocks for one in drives} == {one.serial: (disks[one.serial],) for one in REFERENCE.nvme}
    assert {one.name for one in drives} == {"Red Hat, Inc. QEMU NVM Express Controller"}


def test_the_ports_of_a_card_share_a_group(found: HostFacts) -> None:
    ports = [of_links(found)[f"ens1f{n}"] for n in range(4)]
    addresses = [port.address for port in ports]
    assert [port.peers for port in ports] == [tuple(one for one in addresses if one != port.address) for port in ports]
    assert {port.group for port in ports} == {ports[0].group} and {port.numa_node for port in ports} == {0}
    # As QEMU makes them: the MAC address with ff-ff in its middle.
    macs = [f"{int(part, 16):02x}" for part in (ports[0].serial or "").split("-")]
    assert macs[3:5] == ["ff", "ff"] and ports[0].serial == ports[0].pcie_serial


def test_what_the_way_in_goes_by(found: HostFacts) -> None:
    links = of_links(found)
    assert links["eno1"].uses == (
        UseFacts(Use.ROUTE, "eno1", "eno1"), UseFacts(Use.SESSION, "eno1", OUTSIDE_ADDRESS),
        UseFacts(Use.LINK, "eno1", f"{OUTSIDE_ADDRESS}/24"))
    assert links["eno2"].uses == (UseFacts(Use.LINK, "eno2", "br0"),)
    assert links["ens1f0"].uses == ()


def test_the_system_disk_is_in_use(found: HostFacts) -> None:
    sata = next(device for device in found.devices if "/dev/sda" in device.blocks)
    assert {UseFacts(Use.MOUNT, "/dev/sda2", "/"), UseFacts(Use.SWAP, "/dev/sda3")} <= set(sata.uses)


def test_the_iommu(found: HostFacts) -> None:
    assert found.iommu and found.iommu.on and found.iommu.table == "DMAR"
    assert "intel_iommu=on" in found.iommu.arguments


def test_drives_in_use_by_the_host_and_one_that_is_handed_over(rack: Record) -> None:
    first, second, third = (one.serial for one in REFERENCE.nvme)
    addresses = {one.serial: one.address for one in read(rack).devices}
    sh(rack, f"""
        mkfs.ext4 -q {BY_ID}{first}; mkdir -p /mnt/a; mount {BY_ID}{first} /mnt/a
        pvcreate -q {BY_ID}{second}; vgcreate -q data {BY_ID}{second}
        modprobe vfio-pci; cd /sys/bus/pci
        echo vfio-pci > devices/{addresses[third]}/driver_override
        echo {addresses[third]} > devices/{addresses[third]}/driver/unbind
        echo {addresses[third]} > drivers_probe; udevadm settle""")
    host = read(rack)
    assert [(use.use, use.what) for use in drive(host, first).uses] == [(Use.MOUNT, "/mnt/a")]
    assert [use.use for use in drive(host, second).uses] == [Use.LVM]
    over = next(device for device in host.devices if device.address == addresses[third])
    assert (over.driver, over.serial, over.blocks, over.uses) == ("vfio-pci", None, (), ())


def test_a_vm_that_has_a_drive_is_seen(rack: Record) -> None:
    """Defined, not started: what its file says counts for the next start."""
    address = drive(read(rack), REFERENCE.nvme[1].serial).address
    domain, bus, slot = address.partition(".")[0].split(":")
    sh(rack, f"""virsh -q define /dev/stdin <<END
        <domain type='qemu'><name>other</name><memory>65536</memory><os><type machine='q35'>hvm</type></os><devices>
        <hostdev mode='subsystem' type='pci' managed='yes'><source>
        <address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{address[-1]}'/></source></hostdev>
        <disk type='block'><source dev='{BY_ID}{REFERENCE.nvme[0].serial}'/><target dev='sda' bus='sata'/></disk>
        </devices></domain>\nEND""")
    host = read(rack)
    assert UseFacts(Use.VM, "other") in drive(host, REFERENCE.nvme[1].serial).uses
    assert UseFacts(Use.DISK, "other", f"{BY_ID}{DRIVE}") in drive(host, DRIVE).uses


def test_doctor_finds_what_a_rack_has(rack: Record, tmp_path: Path) -> None:
    """By the command itself: the IOMMU on, vfio-pci there, a drive of the file, memory of both nodes, the clock."""
    (tmp_path / "cloud.yaml").write_text(f"""\
cloud: lab
hosts:
  rack:
    connect: ssh://root@127.0.0.1:{rack.port}
    ssh_config: {rack.folder / SSH_CONFIG}
    iommu: true
    devices: {{nvme-2: {{serial: {REFERENCE.nvme[1].serial}}}}}
""")
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run([sys.executable, "-m", "vmwright.cli.main", "doctor", "--json"], cwd=tmp_path,
                          env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1, 9), done.stderr
    found = json.loads(done.stdout)["checks"]
    fine = {(check["area"], check["what"]) for check in found if check["verdict"] == "ok"}
    assert {check["host"] for check in found} - {None} == {"rack"}
    assert ("access", "commands run as root") in fine
    assert [what for area, what in fine if area == "devices" and what.startswith("the IOMMU is in use (DMAR; ")], fine
    assert [what for area, what in fine if area == "devices" and what.startswith("vfio-pci is there")], fine
    assert [what for area, what in fine if area == "devices" and what.startswith("device nvme-2 (")], fine
    for node in (0, 1):
        assert [what for area, what in fine if area == "placement" and what.startswith(f"node {node}: ")], fine
    assert [check["what"] for check in found if check["area"] == "clock" and "synchronised" in check["what"]], found
    assert [check["what"] for check in found if check["area"] == "security"], found
