"""The rack's QEMU command line: what the parts of a shape become, and that no two parts are in each other's way."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.rack.firmware import Firmware
from vmwright.rack.machine import Machine, argv, mac
from vmwright.rack.shape import REFERENCE, Cable, Disk, Drive, Nic, Shape
from vmwright.units import GIB, parse_mac

OVMF = Firmware("/usr/share/OVMF/CODE.fd", "raw", "/usr/share/OVMF/VARS.fd", "raw")
MACHINE = Machine("lab", "deb5b636-441d-5b68-8f77-7d0aaf133486", REFERENCE, OVMF, False, 22022)


def values(words: list[str], option: str) -> list[str]:
    """What is given with an option, each time."""
    return [words[n + 1] for n, word in enumerate(words) if word == option]


def devices(words: list[str], kind: str) -> list[dict[str, str]]:
    """The properties of the devices of a kind."""
    found = [value.split(",") for value in values(words, "-device") if value.partition(",")[0] == kind]
    return [dict(part.partition("=")[::2] for part in parts[1:]) for parts in found]


def test_processors_and_memory_are_on_two_nodes() -> None:
    words = argv(MACHINE)
    assert values(words, "-smp") == ["8,sockets=2,cores=2,threads=2"]
    assert values(words, "-m") == ["8192M"]
    assert values(words, "-numa") == ["node,nodeid=0,memdev=memory0,cpus=0-3", "node,nodeid=1,memdev=memory1,cpus=4-7",
                                      "dist,src=0,dst=1,val=21"]


def test_drives_are_on_the_host_bridge_of_their_node() -> None:
    words = argv(MACHINE)
    bridges = {bridge["id"]: bridge["numa_node"] for bridge in devices(words, "pxb-pcie")}
    ports = {port["id"]: bridges[port["bus"]] for port in devices(words, "pcie-root-port")}
    assert {drive["serial"]: ports[drive["bus"]] for drive in devices(words, "nvme")} == {
        "PM9A1-1": "0", "PM9A1-2": "0", "PM9A1-3": "1"}


def test_the_ports_of_a_card_are_functions_of_one_device() -> None:
    functions = devices(argv(MACHINE), "e1000e")
    assert [function["addr"] for function in functions] == ["0x0.0x0", "0x0.0x1", "0x0.0x2", "0x0.0x3"]
    assert len({function["bus"] for function in functions}) == 1
    assert [function.get("multifunction") for function in functions] == ["on", None, None, None]


def test_the_outside_is_reached_by_ssh_on_loopback_and_the_private_network_by_sockets() -> None:
    assert values(argv(MACHINE), "-netdev") == [
        "user,id=net0,hostfwd=tcp:127.0.0.1:22022-10.0.2.15:22",
        "dgram,id=net1,local.type=unix,local.path=../.net/lab-net1.sock,remote.type=unix,"
        "remote.path=../.net/switch.sock"]


def test_what_was_flushed_is_on_the_disk() -> None:
    drives = [value for value in values(argv(MACHINE), "-drive") if "if=pflash" not in value]
    assert len(drives) == 4
    assert all("cache=writeback" in drive for drive in drives)
    assert "-no-reboot" not in argv(MACHINE) and "-snapshot" not in argv(MACHINE)


def test_the_accelerator() -> None:
    emulated, quick = argv(MACHINE), argv(replace(MACHINE, kvm=True))
    assert values(emulated, "-accel") == ["tcg,thread=multi,tb-size=1024"]
    assert values(emulated, "-cpu") == ["Haswell-noTSX,-erms"]
    assert values(quick, "-accel") + values(quick, "-cpu") == ["kvm,kernel-irqchip=split", "host"]


def test_the_iommu_comes_before_the_devices_and_can_be_left_out() -> None:
    kinds = [value.partition(",")[0] for value in values(argv(MACHINE), "-device")]
    assert kinds[0] == "intel-iommu"
    assert devices(argv(replace(MACHINE, shape=replace(REFERENCE, iommu=False))), "intel-iommu") == []


def test_a_comma_in_the_firmwares_path() -> None:
    words = argv(replace(MACHINE, firmware=replace(OVMF, code="/a,b.fd")))
    assert "if=pflash,unit=0,readonly=on,format=raw,file=/a,,b.fd" in words


def test_mac_addresses_are_fixed_and_differ_between_racks_but_for_those_that_are_given() -> None:
    assert mac(REFERENCE.nics[0], 0, "lab") == mac(REFERENCE.nics[0], 0, "other") == "94:57:a5:5a:d9:c0"
    assert mac(REFERENCE.nics[1], 1, "lab") == mac(REFERENCE.nics[1], 1, "lab") != mac(REFERENCE.nics[1], 1, "other")
    card = Nic("ens1", functions=3, mac="52:54:00:00:00:fe")
    assert [mac(card, 2, "lab", function) for function in range(3)] == [
        "52:54:00:00:00:fe", "52:54:00:00:00:ff", "52:54:00:00:00:00"]


shapes = st.builds(
    lambda sockets, cores, threads, drives, disks, ports: Shape(
        sockets, cores, threads, (GIB,) * sockets,
        tuple(Drive(f"N{n}", GIB, n % sockets) for n in range(drives)),
        tuple(Disk(f"S{n}", 20 * GIB) for n in range(disks)),
        (Nic("eno1", Cable.OUTSIDE), *(Nic(f"ens{n}", functions=f, node=n % sockets) for n, f in enumerate(ports)))),
    st.integers(1, 8), st.integers(1, 4), st.integers(1, 2), st.integers(0, 10), st.integers(1, 6),
    st.lists(st.integers(1, 8), max_size=7))


@given(shapes)
def test_no_two_parts_are_in_the_same_place(shape: Shape) -> None:
    words = argv(replace(MACHINE, shape=shape))
    given_ids = re.findall(r"\bid=([^,\s]+)", " ".join(words))
    assert len(given_ids) == len(set(given_ids))
    places = [(d["bus"], d["addr"]) for kind in ("virtio-net-pci", "pxb-pcie", "e1000e") for d in devices(words, kind)]
    assert len(places) == len(set(places))
    slots = [port["slot"] for port in devices(words, "pcie-root-port")]
    assert len(slots) == len(set(slots))
    macs = re.findall(r"\bmac=([^,\s]+)", " ".join(words))
    assert len(macs) == len(set(macs)) and all(parse_mac(address) == address for address in macs)
    buses = [int(bridge["bus_nr"]) for bridge in devices(words, "pxb-pcie")]
    ports = [port["bus"] for port in devices(words, "pcie-root-port")]
    per_node = [ports.count(f"node{n}") for n in range(shape.sockets)]
    ends = [first + 1 + count for first, count in zip(buses, per_node, strict=True)]
    assert all(end <= first for end, first in zip(ends, [*buses[1:], 256], strict=True))
    cpus = [range(int(a), int(b) + 1) for a, b in re.findall(r"cpus=(\d+)-(\d+)", " ".join(words))]
    assert sorted(cpu for node in cpus for cpu in node) == list(range(shape.cpus))


@pytest.mark.parametrize("size", [20 * GIB, 64 * GIB])
def test_further_disks_are_raw_files(size: int) -> None:
    shape = replace(REFERENCE, disks=(*REFERENCE.disks, Disk("OLD", size)))
    words = argv(replace(MACHINE, shape=shape))
    assert "if=none,id=sata1,format=raw,cache=writeback,discard=unmap,file=sata-1.img" in words
    assert [disk["serial"] for disk in devices(words, "ide-hd")] == ["SSD-1", "OLD"]
    assert [disk.get("bootindex") for disk in devices(words, "ide-hd")] == ["0", None]
