"""The reference cloud on a rack, by the steps of `./dev demo rack`: every fact of it, from inside and from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import rack as demo
from demo.rack import Outside
from tests.rack import kit

from vmwright.image.micro_report import Report
from vmwright.rack import process
from vmwright.units import MIB

VMS = ("z-b-data-1", "z-b-data-2", "z-b-data-3", "z-dev")
DRIVES = {"z-b-data-1": "PM9A1-1", "z-b-data-2": "PM9A1-2", "z-b-data-3": "PM9A1-3"}
PINS = {"z-b-data-1": ("0", "1"), "z-b-data-2": ("2", "3"), "z-b-data-3": ("4", "5"), "z-dev": ("6-7",)}
NODES = {"z-b-data-1": "0", "z-b-data-2": "0", "z-b-data-3": "1", "z-dev": "1"}
ADDRESSES = {vm: f"192.168.6.{last}/24" for vm, last in zip(VMS, (204, 205, 206, 253), strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cloud, applied."""
    made = tmp_path_factory.mktemp("demo")
    steps = demo.Steps()
    with steps.step("rack up"):
        demo.lay_out(made, kit.up(demo.NAME))
    with steps.step("the micro guest's image"):
        demo.make_image(made)
    with steps.step("apply"):
        demo.vmwright(made, "apply", "-y", "--parallel", "1")
    yield made
    process.down(demo.NAME, force=True, seconds=5, remove=True)


@pytest.fixture(scope="module")
def inside(folder: Path) -> dict[str, Report]:
    """What each guest says of itself."""
    with demo.opened(folder) as (cloud, session):
        return {vm.name: demo.inside(session, vm.name) for vm in cloud.vms}


@pytest.fixture(scope="module")
def outside(folder: Path) -> dict[str, Outside]:
    """What the host says of each VM."""
    with demo.opened(folder) as (cloud, session):
        return {vm.name: demo.outside(session, vm, "vg-libvirt") for vm in cloud.vms}


def test_a_second_apply_has_nothing_to_do(folder: Path) -> None:
    assert demo.nothing_to_do(folder)


def test_from_inside(inside: dict[str, Report]) -> None:
    assert {vm: seen.host for vm, seen in inside.items()} == {vm: vm for vm in VMS}
    assert {vm: seen.cpus for vm, seen in inside.items()} == {vm: 1 if vm == "z-dev" else 2 for vm in VMS}
    assert all(130 * MIB < seen.memory < 192 * MIB for seen in inside.values())
    assert {vm: [nic.addresses for nic in seen.nics] for vm, seen in inside.items()} == {
        vm: [(address,)] for vm, address in ADDRESSES.items()}
    assert {vm: [drive.serial for drive in seen.nvme] for vm, seen in inside.items()} == {
        vm: [DRIVES[vm]] if vm in DRIVES else [] for vm in VMS}
    assert all(drive.size == 2048 * MIB for seen in inside.values() for drive in seen.nvme)


def test_from_outside(outside: dict[str, Outside]) -> None:
    assert {vm: host.vcpus for vm, host in outside.items()} == PINS
    assert {vm: (host.mode, host.nodes) for vm, host in outside.items()} == {
        vm: ("strict", node) for vm, node in NODES.items()}
    assert {vm: list(host.drivers.values()) for vm, host in outside.items()} == {
        vm: ["vfio-pci"] if vm in DRIVES else [] for vm in VMS}
    assert len({address for host in outside.values() for address in host.drivers}) == 3
    assert {vm: set(host.volumes) for vm, host in outside.items()} == {
        vm: {f"vmwright-rack.{vm}.root", f"vmwright-rack.{vm}.seed"} for vm in VMS}


def test_the_others_waited_for_the_first_order(folder: Path) -> None:
    """z-dev was begun after the three had answered: its QEMU is younger than their boots were long."""
    with demo.opened(folder) as (_, session):
        begun = {vm: float(session.host.run(["stat", "-c", "%Y", f"/run/libvirt/qemu/{vm}.pid"]).text) for vm in VMS}
        took = {vm: float(demo.read(session, vm, "/var/lib/cloud/instance/boot-finished")) for vm in VMS[:3]}
    assert all(begun["z-dev"] > begun[vm] + took[vm] - 5 for vm in VMS[:3]), "5: a guest's clock begins a little early"


def test_a_rebuild_keeps_what_is_on_the_drive(folder: Path) -> None:
    with demo.opened(folder) as (_, session):
        before = demo.inside(session, demo.REBUILT)
        demo.write_mark(session, demo.REBUILT)
    demo.vmwright(folder, "rebuild", "-y", demo.REBUILT)
    with demo.opened(folder) as (_, session):
        after = demo.inside(session, demo.REBUILT)
        assert demo.marked(session, demo.REBUILT)
    assert after.instance != before.instance
    assert [drive.serial for drive in after.nvme] == ["PM9A1-1"]


def test_a_rebuild_wipes_it_on_demand(folder: Path) -> None:
    demo.vmwright(folder, "rebuild", "-y", "--wipe", "nvme-1", demo.REBUILT)
    with demo.opened(folder) as (_, session):
        assert not demo.marked(session, demo.REBUILT)
        assert [drive.serial for drive in demo.inside(session, demo.REBUILT).nvme] == ["PM9A1-1"]


def test_then_there_is_nothing_to_do(folder: Path) -> None:
    assert demo.nothing_to_do(folder)
