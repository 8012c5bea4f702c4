"""Does it fit? Memory and space, with figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.plan.build import cloud, facts, made, plan, refused, vm
from tests.unit.plan.simulate import Machine, all_facts, carry_out

from vmwright.facts.model import Facts, PathFacts
from vmwright.plan.diff import make_plan, make_rebuild_plan
from vmwright.plan.power import make_start_plan
from vmwright.units import GIB, MIB

MANY = "vms: {web: {count: 5, template: base, memory: 2G, address: 10.0.0.10}}\n"


def with_free(text: str, free: int, machine: Machine | None = None, **request: bool) -> list[str]:
    """What is refused when that much memory is free."""
    wanted = cloud(text)
    from vmwright.plan.view import Request

    return refused(make_plan(wanted, facts(wanted, machine or Machine(), memory_available=free), Request(**request)))


def test_memory_is_refused_with_figures_and_the_largest_first() -> None:
    text = "vms: {web: {count: 5, template: base, memory: 2G, address: 10.0.0.10}, db: {template: base, memory: 3G}}\n"
    assert with_free(text, 4 * GIB) == [
        "host here: the VMs to start want 13G of memory (db 3G, web-1 2G, web-2 2G, web-3 2G, ...); 3840M of 64G are "
        "free for them\n    give less `memory:`, stop a VM, or say `running: false` for some"]


def test_the_host_keeps_some_memory_for_itself() -> None:
    assert not with_free(MANY, 10 * GIB + 256 * MIB)
    assert with_free(MANY, 10 * GIB + 255 * MIB)[0].startswith(
        "host here: the VMs to start want 10G of memory (web-1 2G, web-2 2G, web-3 2G, web-4 2G, ...); 10239M of 64G "
        "are free")


def test_no_memory_at_all_is_told_as_none() -> None:
    assert "0B of 64G are free for them" in with_free(MANY, 0)[0]


def test_a_vm_that_is_not_to_run_takes_no_memory() -> None:
    assert not with_free(vm(memory="8G", running="false"), GIB)


def test_what_runs_already_takes_nothing_more() -> None:
    assert not with_free(vm(memory="8G"), 0, made(cloud(vm(memory="8G"))))


def test_starting_takes_what_the_vm_is_defined_with_or_will_be() -> None:
    machine = made(cloud(vm(memory="8G")))
    machine.domains["web"].live = None
    assert with_free(vm(memory="8G"), 4 * GIB, machine)
    assert not with_free(vm(memory="2G"), 4 * GIB, machine)


def test_memory_for_the_next_start_is_not_needed_now_unless_it_restarts() -> None:
    machine = made(cloud(vm(memory="2G")))
    assert not with_free(vm(memory="8G"), GIB, machine)
    assert with_free(vm(memory="8G"), GIB, machine, restart=True)[0].startswith(
        "host here: the VMs to start want 6G of memory (web 6G); 768M")
    assert not with_free(vm(memory="8G"), 6 * GIB + 256 * MIB, machine, restart=True)


def test_a_rebuilt_vm_gives_back_what_it_had() -> None:
    wanted, machine = cloud(vm(memory="8G")), made(cloud(vm(memory="8G")))
    tight = facts(wanted, machine, memory_available=256 * MIB)
    assert not make_rebuild_plan(wanted, tight, ["web"]).refused
    larger = cloud(vm(memory="9G"))
    tight = facts(larger, machine, memory_available=256 * MIB)
    assert refused(make_rebuild_plan(larger, tight, ["web"]))[0].startswith(
        "host here: the VMs to start want 9G of memory (web 9G); 8G of 64G are free for them")


def test_start_asks_for_memory_too() -> None:
    wanted, machine = cloud(vm(memory="8G")), made(cloud(vm(memory="8G")))
    machine.domains["web"].live = None
    assert refused(make_start_plan(wanted, facts(wanted, machine, memory_available=GIB), ["web"]))[0].startswith(
        "host here: the VMs to start want 8G of memory (web 8G); 768M of 64G are free for them")


def room(text: str, free: int, machine: Machine | None = None) -> list[str]:
    """What is refused when the pool has that much room."""
    wanted, machine = cloud(text), machine or made(cloud("vms: {other: {template: base, running: false}}\n"))
    host = machine.facts(wanted)
    pools = tuple(replace(pool, available=free) for pool in host.pools)
    return refused(make_plan(wanted, Facts((replace(host, pools=pools),))))


@pytest.mark.parametrize(("text", "free", "said"), [
    (vm(disk="6G"), 5 * GIB, "the root disk of web wants 6G, and 5G are free"),
    (vm(disks="{data: 9G}"), 5 * GIB, "disk data of web wants 9G, and 5G are free"),
    (vm(disk="6G"), 6 * GIB - 1, "the root disk of web wants 6G, and 6143M are free"),
])
def test_a_disk_that_could_never_be_filled_is_refused(text: str, free: int, said: str) -> None:
    assert room(text, free) == [
        f"pool images of host here: {said}\n    ask for less, use another pool, or make room"]


def test_growing_needs_the_difference_only() -> None:
    machine = made(cloud(vm(disk="6G", running="false")))
    assert not room(vm(disk="8G", running="false"), 2 * GIB, machine)
    assert room(vm(disk="9G", running="false"), 2 * GIB, machine) == [
        "pool images of host here: growing disk root of web by 3G wants 3G, and 2G are free\n"
        "    ask for less, use another pool, or make room"]


def test_a_new_data_disk_of_a_vm_that_is_there() -> None:
    machine = made(cloud(vm()))
    assert room(vm(disks="{data: 9G}"), 5 * GIB, machine) == [
        "pool images of host here: disk data of web wants 9G, and 5G are free\n"
        "    ask for less, use another pool, or make room"]
    detached = made(cloud(vm(disks="{data: 9G}")))
    carry_out(plan(cloud(vm()), detached), cloud(vm()), detached)
    assert not room(vm(disks="{data: 9G}"), 5 * GIB, detached)


def test_full_copies_take_their_room_at_once() -> None:
    text = "vms: {web: {count: 4, template: base, copy: full, running: false, address: 10.0.0.10}}\n"
    assert room(text, 200 * MIB) == [
        "pool images of host here: what is to be made takes 256M, and 200M are free\n"
        "    use overlays (`copy: overlay`), another pool, or make room"]


def test_a_pool_that_is_not_there_yet_is_measured_where_it_will_be() -> None:
    wanted = cloud(vm(disk="200G"))
    paths = (PathFacts("/srv/images", False, 100 * GIB),)
    assert refused(make_plan(wanted, facts(wanted, Machine(), paths=paths))) == [
        "pool images of host here: the root disk of web wants 200G, and 100G are free\n"
        "    ask for less, use another pool, or make room"]


def test_promising_more_than_there_is_is_warned_of() -> None:
    wanted = cloud("vms: {web: {count: 4, template: base, disk: 30G, running: false, address: 10.0.0.10}}\n")
    found = make_plan(wanted, facts(wanted, Machine(), paths=(PathFacts("/srv/images", True, 100 * GIB),)))
    assert found.warnings == (
        "pool images of host here: its disks may come to take 120G more than now, and 100G are free: watch it as they "
        "fill",)


def test_nothing_is_refused_when_nothing_is_to_do() -> None:
    machine = made(cloud(vm(memory="8G")))
    wanted = cloud(vm(memory="8G"))
    host = machine.facts(wanted)
    full = replace(host, memory_available=0, pools=tuple(replace(pool, available=0) for pool in host.pools))
    found = make_plan(wanted, Facts((full,)))
    assert not found.refused and not found.actions
    assert not make_plan(wanted, all_facts(wanted, machine)).warnings
