"""Nodes and PCI devices as text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.unit.facts.test_pci import domain, hostdev, zcloud
from tests.unit.plan.build import cloud
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import (
    CpuFacts,
    DeviceFacts,
    Facts,
    Held,
    HeldFacts,
    HostFacts,
    HugepageFacts,
    IommuFacts,
    NodeFacts,
    Use,
    UseFacts,
)
from vmwright.report.facts import facts_lines


def told(host: HostFacts) -> list[str]:
    """What is told of a host, line by line."""
    return "\n".join(map(str, facts_lines(Facts((host,))))).splitlines()


def machine(**known: object) -> HostFacts:
    """A host with some of it told otherwise."""
    return replace(Machine().facts(cloud("vms: {}\n")), **known)  # type: ignore[arg-type]


def test_nodes_and_devices_of_the_reference_server() -> None:
    """Those that a guest could be given; bridges and the like are left out, but a group tells of those in it."""
    lines = told(zcloud(domain("z-gpu", hostdev("82"))))
    assert lines[2:4] == ["  node 0: CPUs 0-11,24-35 (12 cores), 14G of 31.3G memory free",
                          "  node 1: CPUs 12-23,36-47 (12 cores), 14.6G of 31.5G memory free"]
    start = lines.index("  IOMMU: on")
    rows = [[cell.strip() for cell in re.split(r"\s{2,}", line)] for line in lines[start + 1:lines.index("", start)]]
    drive = ["144d:a80a", "Samsung Electronics Co Ltd NVMe SSD Controller PM9A1/PM9A3/980PRO"]
    assert rows[0] == ["DEVICE", "IDS", "NAME", "SERIAL", "NODE", "GROUP", "DRIVER", "USED BY"]
    assert [row[0] for row in rows[1:]] == [
        "00:1f.2", *(f"02:00.{n}" for n in range(4)), *(f"04:00.{n}" for n in range(4)), "05:00.0", "08:00.0",
        "0b:00.0", "82:00.0"]
    assert rows[1][4:] == ["33 with 00:1f.0", "ahci", "/dev/sda1 at /boot/efi; /dev/sda2 at /; /dev/sda3 is swap; "
                           "/dev/sda4 of LVM"]
    assert rows[2][5:] == ["34 with 02:00.1, 02:00.2, 02:00.3", "tg3",
                           "default route by br0; this ssh session, at 192.168.6.200; eno1 in br0"]
    assert rows[10][:7] == ["05:00.0", *drive, "S676NF0R908202", "0", "39", "nvme"]
    assert rows[13] == ["82:00.0", "10de:1b39", "NVIDIA Corporation GP102GL [Tesla P10]", "1", "79", "VM z-gpu"]


@pytest.mark.parametrize(("iommu", "said"), [
    (IommuFacts(False), "  IOMMU: off; the firmware tells of none"),
    (IommuFacts(False, "DMAR"), "  IOMMU: off; the firmware tells of one (DMAR), and the kernel does not use it")])
def test_an_iommu_that_is_off_and_why(iommu: IommuFacts, said: str) -> None:
    assert said in told(machine(iommu=iommu))


@pytest.mark.parametrize(("use", "said"), [
    (UseFacts(Use.LVM, "/dev/sdb", "data"), "/dev/sdb in volume group data"),
    (UseFacts(Use.RAID, "/dev/md0"), "/dev/md0"), (UseFacts(Use.RAID, "/dev/sdb", "btrfs"), "/dev/sdb of btrfs"),
    (UseFacts(Use.HOLDER, "/dev/mapper/c"), "/dev/mapper/c"),
    (UseFacts(Use.DISK, "nas", "/dev/sdb"), "disk /dev/sdb of VM nas"),
    (UseFacts(Use.LINK, "eno2", "10.0.0.1/24"), "eno2 has 10.0.0.1/24")])
def test_other_uses_of_a_device(use: UseFacts, said: str) -> None:
    device = DeviceFacts("0001:05:00.0", "1:2", "010802", uses=(use,))
    rows = told(machine(iommu=IommuFacts(True), devices=(device,)))
    row = next(row for row in rows if row.startswith("0001:05"))
    assert row.split(maxsplit=2) == ["0001:05:00.0", "1:2", said]


def test_what_is_known_of_the_data_on_devices() -> None:
    held = (HeldFacts("0000:05:00.0", "S1", "lab", "db"), HeldFacts("0000:08:00.0", None, "lab", "db", Held.WIPING),
            HeldFacts("", "S3", "lab", "db", Held.WIPED))
    rows = told(machine(iommu=IommuFacts(True), held=held))
    assert rows[rows.index("  05:00.0, S1: has what vm db of cloud lab has left there") + 1:][:2] == [
        "  08:00.0: is wiped in part, for vm db of cloud lab", "  S3: is wiped"]


def test_nodes_that_are_odd() -> None:
    """One without CPUs, and one with huge pages and no hyper-threads."""
    pages = (HugepageFacts(2 << 20, 16, 12), HugepageFacts(1 << 30, 0, 0))
    nodes = NodeFacts(0, (0,), 4 << 30, 1 << 30, hugepages=pages), NodeFacts(2, (), 8 << 30, 8 << 30)
    assert told(machine(nodes=nodes, cpu_list=(CpuFacts(0, 0, 0, 0),)))[2:4] == [
        "  node 0: CPUs 0 (no hyper-threads), 1G of 4G memory free, 12 of 16 huge pages of 2M free",
        "  node 2: no CPUs, 8G of 8G memory free"]
