"""Where a VM runs: placements worked out from pins and facts, on the reference server and on small machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plan.build import changes, cloud, made, only, plan, told, vm
from tests.unit.plan.places import PAGES, offline, small, zcloud
from tests.unit.plan.simulate import Defined, Machine, all_facts

from vmwright.facts.domains import parse_domain
from vmwright.facts.model import ANYWHERE, Cell, ConfigFacts, Placement
from vmwright.plan.actions import CreateVm, Plan, RebuildVm, UpdateVm
from vmwright.plan.diff import make_rebuild_plan
from vmwright.plan.place import place, rows, summary
from vmwright.plan.power import make_start_plan
from vmwright.plan.view import Request, View
from vmwright.spec.cloud import Cloud
from vmwright.units import GIB, MIB, parse_cpuset
from vmwright.virt import alter

OTHER = ("<domain><name>nas</name><vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='{0}'/>"
         "<vcpupin vcpu='1' cpuset='{0}'/></cputune></domain>")


def view(wanted: Cloud, machine: Machine, **request: Any) -> View:
    return View.of(wanted, wanted.hosts[0], all_facts(wanted, machine), Request(**request))


def placed(machine: Machine, **given: Any) -> Placement:
    """The placement of the VM web with these values on a machine."""
    wanted = cloud(vm(**given))
    return place(view(wanted, machine), wanted.vms[0])


def one_each(*cpus: int) -> tuple[tuple[int, ...], ...]:
    return tuple((cpu,) for cpu in cpus)


def config(machine: Machine, name: str = "web") -> ConfigFacts:
    return parse_domain(machine.domains[name].persistent, None, "shut off", False).persistent


# ---- CPUs ----


def test_without_a_pin_a_vm_runs_anywhere() -> None:
    assert placed(zcloud()) == ANYWHERE


def test_pins_of_the_reference_cloud() -> None:
    """One thread of each core: the guest has no hyper-threads; the rest of the node is for the emulator."""
    found = placed(zcloud(), vcpus=4, pin="24-27")
    assert found == Placement(one_each(24, 25, 26, 27), nodes=(0,), memory="strict",
                              emulator=(*range(4, 12), *range(28, 36)))
    assert summary(found) == "CPUs 24-27, node 0"


@pytest.mark.parametrize(("pin", "order", "threads"), [
    ("0-1,24-25", (0, 24, 1, 25), 2),
    ("13,37,12,36", (12, 36, 13, 37), 2),
    ("0,1,24", (0, 1, 24), 1),  # a whole core and half a one
    ("12,0,36,24", (0, 24, 12, 36), 2),  # two nodes
    ("0,1,12", (0, 1, 12), 1),
    ("30", (30,), 1),
])
def test_threads_of_a_core_stand_side_by_side(pin: str, order: tuple[int, ...], threads: int) -> None:
    found = placed(zcloud(), vcpus=len(order), pin=f'"{pin}"')
    assert (found.vcpus, found.threads) == (one_each(*order), threads)


def test_four_threads_a_core() -> None:
    machine = small(cores=2, threads=4)
    assert placed(machine, vcpus=8, pin="0-7").threads == 4
    assert placed(machine, vcpus=4, pin='"0,1,4,5"').threads == 2
    assert placed(machine, vcpus=3, pin='"0,1,4"').threads == 1


@pytest.mark.parametrize(("vcpus", "pin"), [(2, "0-5"), (6, "0-1")])
def test_a_set_is_shared_by_all_vcpus(vcpus: int, pin: str) -> None:
    found = placed(zcloud(), vcpus=vcpus, pin=pin)
    assert (found.vcpus, found.threads, found.cells) == ((parse_cpuset(pin),) * vcpus, 1, ())


def test_the_emulator_runs_where_it_is_told_to() -> None:
    assert placed(zcloud(), vcpus=2, pin='{cpus: 24-25, emulator: "12,36"}').emulator == (12, 36)


def test_the_emulator_keeps_away_from_pinned_cores_while_it_can() -> None:
    """Of two cores with two threads: a core that nobody is pinned to, else a free thread, else the VM's own."""
    machine = small(cores=2, threads=2)
    one, two, three = ("vms:\n" + "".join(f"  v{n}: {{template: base, address: 10.0.0.{n + 10}, pin: {n}}}\n"
                                          for n in numbers) for numbers in ((0,), (0, 2), (0, 1, 2, 3)))
    for text, emulator in ((one, (2, 3)), (two, (1, 3)), (three, (0,))):
        wanted = cloud(text)
        assert place(view(wanted, machine), wanted.vms[0]).emulator == emulator


def test_the_emulator_keeps_away_from_vms_of_others() -> None:
    """By their running selves, while they run; pins to all CPUs of the host are none."""
    machine = small(cores=4)
    machine.domains["nas"] = Defined(OTHER.format("2"), OTHER.format("3"))
    assert placed(machine, vcpus=1, pin=0).emulator == (1, 2)
    machine.domains["nas"].live = None
    assert placed(machine, vcpus=1, pin=0).emulator == (1, 3)
    machine.domains["nas"] = Defined(OTHER.format("0-3"))
    assert placed(machine, vcpus=1, pin=0).emulator == (1, 2, 3)


def test_cpus_that_are_offline_are_for_nobody() -> None:
    assert placed(offline(small(cores=4), 2), vcpus=1, pin=0).emulator == (1, 3)


def test_io_threads_run_with_the_emulator() -> None:
    """A VM with a disk in a volume group has one."""
    head = "hosts: {here: {pools: {images: {lvm: vg}}}}\n"
    wanted = cloud(head + vm(vcpus=1, pin=0))
    found = place(view(wanted, small()), wanted.vms[0])
    assert found.iothreads == found.emulator == (1, 2, 3)


# ---- memory ----


def test_a_host_without_nodes_has_no_memory_policy() -> None:
    machine = small()
    machine = replace(machine, nodes=(), cpu_list=tuple(replace(cpu, node=None) for cpu in machine.cpu_list))
    assert placed(machine, vcpus=2, pin="0-1") == Placement(one_each(0, 1), (2, 3))
    assert placed(replace(machine, cpu_list=()), vcpus=2, pin="0-1") == Placement(one_each(0, 1), (0, 1))


@pytest.mark.parametrize(("pin", "nodes", "memory"), [
    ("{cpus: 24-27, memory: preferred}", (0,), "preferred"),
    ("{cpus: 0-47, memory: preferred}", (), ""),  # libvirt prefers one node only
    ("0-47", (0, 1), "strict"),
])
def test_the_policy_of_the_memory(pin: str, nodes: tuple[int, ...], memory: str) -> None:
    found = placed(zcloud(), vcpus=4, pin=pin)
    assert (found.nodes, found.memory, found.cells) == (nodes, memory, ())


@pytest.mark.parametrize(("policy", "nodes"), [("strict", (0, 1)), ("preferred", ())])
def test_a_guest_on_two_nodes_has_two(policy: str, nodes: tuple[int, ...]) -> None:
    """vCPUs by node, and memory in proportion, in whole MiB; what rounding leaves goes to the larger."""
    found = placed(zcloud(), vcpus=3, memory="4097M", pin=f'{{cpus: "12,0-1", memory: {policy}}}')
    assert (found.vcpus, found.nodes, found.memory) == (one_each(0, 1, 12), nodes, policy)
    assert found.cells == (Cell((0, 1), 2732 * MIB, (0,)), Cell((2,), 1365 * MIB, (1,)))
    assert summary(found) == "CPUs 0-1,12, nodes 0-1"


# ---- huge pages ----


@pytest.mark.parametrize(("pages", "large", "memory", "asked", "size"), [
    (0, 0, "1G", "", 0),
    (512, 0, "1G", "", PAGES),
    (511, 0, "1G", "", 0),
    (512, 1, "1G", "", GIB),
    (768, 1, "1536M", "", PAGES),  # no whole pages of 1G
    (512, 1, "1025M", "", 0),
    (512, 1, "1G", "2M", PAGES), (512, 1, "1G", "1G", GIB), (512, 1, "1G", "false", 0), (512, 1, "1G", "true", GIB),
    (0, 0, "1G", "true", PAGES), (0, 0, "1G", "1G", GIB),  # refused, with the figures
])
def test_which_huge_pages_a_new_vm_gets(pages: int, large: int, memory: str, asked: str, size: int) -> None:
    pin = f"{{cpus: 0-1, hugepages: {asked}}}" if asked else "0-1"
    assert placed(small(pages=pages, large=large), vcpus=2, memory=memory, pin=pin).hugepages == size


def test_huge_pages_without_a_hugetlbfs_are_for_those_who_ask() -> None:
    machine = small(pages=1024, mounted=False)
    assert placed(machine, vcpus=2, pin="0-1").hugepages == 0
    for asked in ("true", "2M"):
        assert placed(machine, vcpus=2, pin=f"{{cpus: 0-1, hugepages: {asked}}}").hugepages == PAGES


def test_huge_pages_are_dealt_out_in_the_order_of_the_file() -> None:
    """Those that the file asks for are kept for who asks; the others go to the first, as far as they go."""
    text = "vms:\n" + "".join(
        f"  v{n}: {{template: base, vcpus: 1, memory: {memory}, address: 10.0.0.{n + 10}, pin: {pin}}}\n"
        for n, (memory, pin) in enumerate((("1G", "0"), ("2G", "1"), ("1G", "2"), ("1G", "{cpus: 3, hugepages: 2M}"))))
    wanted, machine = cloud(text), small(pages=3 * 512)
    assert [place(view(wanted, machine), one).hugepages for one in wanted.vms] == [PAGES, 0, PAGES, PAGES]
    made(wanted, machine)
    assert not plan(wanted, machine).actions
    assert [page.free for page in machine.facts(wanted).nodes[0].hugepages] == [0, 0]


def test_huge_pages_of_a_node_come_from_that_node() -> None:
    machine = small(nodes=2, pages=512)
    assert placed(machine, vcpus=1, memory="2G", pin=0).hugepages == 0
    spread = placed(machine, vcpus=2, memory="2G", pin='"0,4"')
    assert spread.hugepages == PAGES
    assert spread.cells == (Cell((0,), GIB, (0,)), Cell((1,), GIB, (1,)))
    assert placed(machine, vcpus=4, memory="2G", pin='"0-1,4-5,6"').hugepages == PAGES  # on whichever of the two


def test_memory_on_two_nodes_is_made_of_whole_pages() -> None:
    found = placed(small(nodes=2, large=4), vcpus=3, memory="4G", pin='"0-1,4"')
    assert (found.hugepages, [cell.memory for cell in found.cells]) == (GIB, [3 * GIB, GIB])
    one_page = placed(small(nodes=2, large=4), vcpus=2, memory="1G", pin='"0,4"')
    assert (one_page.hugepages, one_page.cells, one_page.nodes) == (GIB, (), (0, 1))


def test_a_vm_that_is_there_keeps_the_pages_it_has() -> None:
    """None while there are some to spare by now, and huge ones when all others are taken; a rebuild chooses anew."""
    wanted, machine = cloud(vm(vcpus=1, pin=0)), small()
    made(wanted, machine)
    rich = replace(machine, nodes=small(pages=1024).nodes)
    assert not plan(wanted, rich).actions
    (rebuilt,) = make_rebuild_plan(wanted, all_facts(wanted, rich), ["web"]).actions
    assert isinstance(rebuilt, RebuildVm) and rebuilt.placement.hugepages == PAGES
    assert "huge pages: none -> 2M" in changes(rebuilt)
    asked = cloud(vm(vcpus=1, pin="{cpus: 0, hugepages: true}"))
    assert changes(only(plan(asked, rich))) == ["huge pages: none -> 2M (at next start)"]
    full = made(wanted, small(pages=512))
    assert config(full).placement.hugepages == PAGES
    assert not plan(wanted, full).actions and not plan(asked, full).actions
    (again,) = make_rebuild_plan(wanted, all_facts(wanted, full), ["web"]).actions
    assert isinstance(again, RebuildVm) and again.placement.hugepages == PAGES


# ---- changes ----


def running(**given: Any) -> tuple[Cloud, Machine]:
    """A machine of two nodes on which a VM with these values runs."""
    wanted = cloud(vm(**{"vcpus": 2, "pin": "0-1"} | given))
    return wanted, made(wanted, small(cores=4, nodes=2))


def changed(machine: Machine, **given: Any) -> Plan:
    return plan(cloud(vm(**{"vcpus": 2, "pin": "0-1"} | given)), machine)


def settled(found: Plan, machine: Machine, **given: Any) -> None:
    """What is planned is carried out, and nothing is left to do."""
    wanted = cloud(vm(**{"vcpus": 2, "pin": "0-1"} | given))
    assert not found.refused
    made(wanted, machine)
    again = plan(wanted, machine)
    assert not again.actions, (told(again), changes(again.actions[0]))
    assert config(machine).placement == place(view(wanted, machine), wanted.vms[0])


def test_a_new_vm_tells_where_it_will_run() -> None:
    (action,) = [a for a in plan(cloud(vm(vcpus=2, pin="0-1")), small(cores=4, nodes=2)).actions if type(a) is CreateVm]
    assert changes(action)[-3:] == ["CPUs: 0-1, one each", "emulator on: 2-3", "memory on: node 0 only"]


def test_pins_move_while_the_vm_runs() -> None:
    _, machine = running()
    found = changed(machine, pin="2-3")
    assert changes(only(found)) == ["CPUs: 0-1, one each -> 2-3, one each (now)", "emulator on: 2-3 -> 0-1 (now)"]
    settled(found, machine, pin="2-3")
    live = parse_domain(machine.domains["web"].live or "", None, "running", False).persistent
    assert live.placement == config(machine).placement


def test_memory_moves_at_the_next_start() -> None:
    _, machine = running()
    found = changed(machine, pin="4-5")
    assert changes(only(found)) == [
        "CPUs: 0-1, one each -> 4-5, one each (at next start)", "emulator on: 2-3 -> 6-7 (at next start)",
        "memory on: node 0 only -> node 1 only (at next start)"]
    settled(found, machine, pin="4-5")
    (kept,) = [kept for kept in changed(machine, pin="4-5").kept if kept.object == "vm web"]
    assert kept.why == "is as the file says, but placement will count from its next start (`vmwright apply --restart`)"


@pytest.mark.parametrize(("given", "expected"), [
    ({"vcpus": 3, "pin": "1-3"}, [
        "vcpus: 2 -> 3 (at next start)", "CPUs: 0-1, one each -> 1-3, one each (at next start)",
        "emulator on: 2-3 -> 0 (at next start)"]),
    ({"vcpus": 4}, ["vcpus: 2 -> 4 (at next start)",
                    "CPUs: 0-1, one each -> 0-1, shared by 4 vCPUs (at next start)"]),
    ({"vcpus": 1, "pin": 0}, ["vcpus: 2 -> 1 (at next start)", "CPUs: 0-1, one each -> 0, one each (at next start)",
                              "emulator on: 2-3 -> 1-3 (at next start)"]),
    ({"memory": "2G"}, ["memory: 1G -> 2G (at next start)"]),
    ({"memory": "2G", "vcpus": 4, "pin": "2-5"}, [
        "vcpus: 2 -> 4 (at next start)", "memory: 1G -> 2G (at next start)",
        "CPUs: 0-1, one each -> 2-5, one each (at next start)", "emulator on: 2-3 -> 0-1,6-7 (at next start)",
        "memory on: node 0 only -> nodes 0-1 only (at next start)",
        "NUMA nodes: none of its own -> vCPUs 0-1 with 1G on node 0, vCPUs 2-3 with 1G on node 1 (at next start)"]),
])
def test_a_pinned_vm_of_another_size_is_placed_anew(given: dict[str, Any], expected: list[str]) -> None:
    """A pinned VM has no vCPUs to be plugged in: pins, topology and NUMA nodes are made for a number."""
    _, machine = running()
    found = changed(machine, **given)
    assert changes(only(found)) == expected
    settled(found, machine, **given)


def test_a_vm_of_two_nodes_has_its_memory_dealt_out_anew() -> None:
    _, machine = running(pin='"0,4"')
    found = changed(machine, pin='"0,4"', memory="3G")
    assert changes(only(found)) == [
        "memory: 1G -> 3G (at next start)", "NUMA nodes: vCPUs 0 with 512M on node 0, vCPUs 1 with 512M on node 1 -> "
        "vCPUs 0 with 1.5G on node 0, vCPUs 1 with 1.5G on node 1 (at next start)"]
    settled(found, machine, pin='"0,4"', memory="3G")


def test_a_pin_taken_out_of_the_file_is_let_go() -> None:
    """The VM is as if it had never had one: it can grow while it runs again."""
    _, machine = running()
    before = made(cloud(vm(vcpus=2)), small(cores=4, nodes=2))
    found = plan(cloud(vm(vcpus=2)), machine)
    assert changes(only(found)) == [
        "CPUs: 0-1, one each -> any (at next start)", "emulator on: 2-3 -> any (at next start)",
        "memory on: node 0 only -> any (at next start)"]
    assert not found.refused
    made(cloud(vm(vcpus=2)), machine)
    assert config(machine) == config(before)
    assert not plan(cloud(vm(vcpus=2)), machine).actions


def test_pins_that_others_made_are_left_alone_until_the_file_has_one() -> None:
    """`virsh vcpupin` on a VM of ours, which the file says nothing about."""
    wanted = cloud(vm(vcpus=2))
    machine = made(wanted, small(cores=4, nodes=2))
    theirs = Placement(one_each(6, 7), (5,), (), (1,), "strict")
    machine.domains["web"].persistent = alter.set_placement(machine.domains["web"].persistent, theirs, 8)
    assert not plan(wanted, machine).actions
    more = cloud(vm(vcpus=2, memory="2G"))
    assert changes(only(plan(more, machine))) == ["memory: 1G -> 2G (at next start)"]
    made(more, machine)
    assert config(machine).placement == theirs
    ours = cloud(vm(vcpus=2, memory="2G", pin="0-1"))
    assert len(changes(only(plan(ours, machine)))) == 3
    made(ours, machine)
    found = only(plan(more, machine))
    assert isinstance(found, UpdateVm) and found.placement == ANYWHERE


def test_pins_that_somebody_moved_while_the_vm_runs_are_moved_back() -> None:
    wanted, machine = running()
    persistent = machine.domains["web"].persistent
    machine.domains["web"].live = alter.set_placement(persistent, replace(config(machine).placement, emulator=(0,)), 8)
    assert changes(only(plan(wanted, machine))) == ["emulator on: 0 -> 2-3 (now)"]
    made(wanted, machine)
    assert not plan(wanted, machine).actions and machine.domains["web"].live == machine.domains["web"].persistent


def test_the_emulator_makes_room_for_a_vm_that_comes() -> None:
    _, machine = running()
    both = cloud(vm(vcpus=2, pin="0-1").rstrip("}\n") + "}, db: {template: base, address: 10.0.0.11, pin: 2}}\n")
    (action,) = [a for a in plan(both, machine).actions if isinstance(a, UpdateVm)]
    assert changes(action) == ["emulator on: 2-3 -> 3 (now)"]


def test_a_pin_that_is_let_go_counts_no_more_even_while_the_vm_runs() -> None:
    one = "  {}: {{template: base, address: 10.0.0.1{}, pin: {}}}\n".format
    before = cloud("vms:\n" + one("a", 1, 0) + one("b", 2, 1))
    after = cloud("vms:\n" + one("a", 1, 0) + one("b", 2, 1).replace(", pin: 1", ""))
    machine = made(before, small(cores=4))
    found = {action.object: changes(action) for action in plan(after, machine).actions}
    assert found["vm a"] == ["emulator on: 2-3 -> 1-3 (now)"]
    made(after, machine)
    assert not plan(after, machine).actions


def test_a_pinned_vm_is_started_where_it_was_defined() -> None:
    wanted, machine = running()
    machine.domains["web"].live = None
    assert not make_start_plan(wanted, all_facts(wanted, machine), ["web"]).refused


# ---- whatever is asked ----


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    return small(draw(st.integers(1, 4)), draw(st.sampled_from((1, 2, 4))), draw(st.integers(1, 3)),
                 pages=draw(st.sampled_from((0, 512, 2048))), large=draw(st.integers(0, 2)))


@st.composite
def files(draw: st.DrawFn, machine: Machine) -> str:
    """Some VMs, pinned anywhere on that machine."""
    cpus = st.sets(st.integers(0, machine.cpus - 1), min_size=1, max_size=6)
    rows = []
    for n in range(draw(st.integers(1, 3))):
        pins = ",".join(map(str, draw(cpus)))
        more = draw(st.sampled_from(("", ", memory: preferred", ", hugepages: true", ", hugepages: 2M",
                                     ", emulator: 0")))
        pin = f', pin: {{cpus: "{pins}"{more}}}' if draw(st.integers(0, 4)) else ""
        vcpus = draw(st.sampled_from((pins.count(",") + 1, 1, 5)))
        rows.append(f"  v{n}: {{template: base, vcpus: {vcpus}, memory: {draw(st.integers(32, 1200)) * 2}M, "
                    f"address: 10.0.0.{n + 10}{pin}}}\n")
    return "vms:\n" + "".join(rows)


@given(st.data())
def test_every_placement_is_whole_and_stays(data: st.DataObject) -> None:
    """Every vCPU has a CPU, cells share out vCPUs and memory; defined and read back it is the same, and so is the plan.

    After another file has been applied to the same VMs, too.
    """
    machine = data.draw(machines())
    for text in (data.draw(files(machine)), data.draw(files(machine))):
        wanted = cloud(text)
        found = plan(wanted, machine, restart=data.draw(st.booleans()))
        if found.refused:
            return
        for one in wanted.vms:
            whole(place(view(wanted, machine), one), one.vcpus, one.memory)
        made(wanted, machine)
        again = plan(wanted, machine)
        assert not again.actions and not again.refused, (told(again), [changes(a) for a in again.actions])
        for one in wanted.vms:
            assert config(machine, one.name).placement == place(view(wanted, machine), one)
            assert config(machine, one.name).vcpus == one.vcpus and config(machine, one.name).memory == one.memory


def whole(placement: Placement, vcpus: int, memory: int) -> None:
    if placement == ANYWHERE:
        return
    assert len(placement.vcpus) == vcpus and all(placement.vcpus) and placement.emulator
    assert vcpus % placement.threads == 0
    if placement.cells:
        assert sorted(vcpu for cell in placement.cells for vcpu in cell.vcpus) == list(range(vcpus))
        assert sum(cell.memory for cell in placement.cells) == memory
        assert all(cell.memory and cell.memory % (placement.hugepages or MIB) == 0 and cell.nodes
                   for cell in placement.cells)
        assert len({cell.nodes for cell in placement.cells}) == len(placement.cells) > 1


@given(st.data())
def test_placements_that_differ_are_told_apart(data: st.DataObject) -> None:
    """A difference that is not told would be no change, and never mended."""
    machine = data.draw(machines())
    found = {place(view(wanted, machine), one) for text in data.draw(st.lists(files(machine), min_size=2, max_size=4))
             for wanted in (cloud(text),) for one in wanted.vms}
    assert len({tuple(rows(placement).values()) for placement in found}) == len(found)
