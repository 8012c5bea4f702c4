"""What does not fit the host's CPUs and NUMA nodes is refused with the figures, before anything is changed."""
# ruff: noqa: E501 (messages are told whole)

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import cloud, made, plan, refused, told, vm
from tests.unit.plan.places import offline, small, zcloud
from tests.unit.plan.simulate import Defined, Machine, all_facts

from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_rebuild_plan
from vmwright.plan.power import make_start_plan
from vmwright.units import GIB, MIB

DATA = ("z-b-data: {count: 3, template: base, vcpus: 4, memory: %s, address: 10.0.0.204, pin: %s}\n")
STORE = "  z-b-store: {count: 3, template: base, vcpus: 2, memory: 4G, address: 10.0.0.201, pin: [0-1, 2-3, 4-5]}\n"
PINS = "[24-27, 28-31, 32-35]"
NAS = ("<domain><name>nas</name><memory unit='GiB'>{memory}</memory><vcpu>2</vcpu><cputune><vcpupin vcpu='0' "
       "cpuset='{cpu}'/></cputune><numatune><memory mode='strict' nodeset='0'/></numatune></domain>")


def vms(*rows: str) -> str:
    return "vms:\n  " + "".join(rows)


def group(*pins: Any, memory: str = "3G", more: str = "") -> str:
    """VMs v-1, v-2, ... of one vCPU each, with these pins."""
    listed = ", ".join(map(str, pins))
    return (f"vms: {{v: {{count: {len(pins)}, template: base, memory: {memory}, address: 10.0.0.10, pin: [{listed}]"
            f"{more}}}}}\n")


def nas(memory: int = 4, cpu: str = "2", *, runs: bool = True) -> Defined:
    """A VM of somebody else, bound to node 0."""
    xml = NAS.format(memory=memory, cpu=cpu)
    return Defined(xml, xml if runs else None)


# ---- the reference cloud ----


def test_three_vms_of_16g_do_not_fit_on_node_0() -> None:
    """REFERENCE, case 7."""
    found = plan(cloud(vms(DATA % ("16G", PINS))), zcloud())
    assert refused(found) == [
        "node 0 of host here has 32093M of memory, 31591M of it for VMs, and 48G are to be there and nowhere else: "
        "z-b-data-1 16G, z-b-data-2 16G, z-b-data-3 16G\n"
        "    give them at most 10432M of `memory:` each; or say `pin: {cpus: ..., memory: preferred}`; or pin some of "
        "them to CPUs of two nodes, or of another node: 1 (31610M free)"]
    assert str(found.refused[0].where) == "cloud.yaml:7:90"


@pytest.mark.parametrize(("memory", "pins"), [
    ("10432M", PINS),
    ("16G", f"{{cpus: {PINS}, memory: preferred}}"),
    ("16G", '["24-27", "12-15", "32-33,16-17"]'),
])
def test_what_is_offered_fits(memory: str, pins: str) -> None:
    machine, wanted = zcloud(), cloud(vms(DATA % (memory, pins)))
    made(wanted, machine)
    assert not plan(wanted, machine).actions


def test_cores_that_are_shared_by_their_threads_are_told() -> None:
    """REFERENCE, case 8: 24-35 are the siblings of 0-11."""
    found = plan(cloud(vms(DATA % ("4G", PINS), STORE)), zcloud())
    assert not refused(found)
    assert found.warnings == (
        "vm z-b-data-1: its CPUs 24-27 are on the same cores as those of z-b-store-1 (0-1), z-b-store-2 (2-3)",
        "vm z-b-data-2: its CPUs 28-31 are on the same cores as those of z-b-store-3 (4-5)",
        "vm z-b-store-1: its CPUs 0-1 are on the same cores as those of z-b-data-1 (24-25)",
        "vm z-b-store-2: its CPUs 2-3 are on the same cores as those of z-b-data-1 (26-27)",
        "vm z-b-store-3: its CPUs 4-5 are on the same cores as those of z-b-data-2 (28-29)")


# ---- CPUs ----


@pytest.mark.parametrize(("pin", "message"), [
    ("47-49", "vm web: pinned to CPU 48-49, and host here has 0-47\n    name CPUs that it has: see `vmwright facts`"),
    ("{cpus: 47, emulator: 60}", "vm web: pinned to CPU 60, and host here has 0-47\n    name CPUs that it has: see "
                                 "`vmwright facts`"),
    ("4-5", "vm web: pinned to CPU 5, which is offline on host here\n    bring it up there (chcpu -e 5), or name others"),
    ("{cpus: 4, emulator: 5-6}", "vm web: pinned to CPU 5-6, which is offline on host here\n    bring it up there (chcpu "
                                 "-e 5-6), or name others"),
])
def test_cpus_that_cannot_be_used(pin: str, message: str) -> None:
    found = plan(cloud(vm(pin=pin)), offline(zcloud(), 5, 6))
    assert refused(found) == [message]
    assert str(found.refused[0].where).startswith("cloud.yaml:6:")


def test_without_a_list_of_cpus_their_number_tells() -> None:
    machine = replace(small(), cpu_list=(), nodes=())
    assert not refused(plan(cloud(vm(pin="0-3")), machine))
    assert "pinned to CPU 4, and host here has 0-3" in refused(plan(cloud(vm(pin="4")), machine))[0]


def test_cpus_that_others_are_pinned_to_are_told() -> None:
    """The same CPU, a thread of the same core, or both; of a VM of somebody else, too."""
    machine = small(cores=4, threads=2)
    machine.domains["nas"] = nas(1, "3,6")
    found = plan(cloud(group("0-2", "2", "7", "4-5", memory="1G")), machine)
    assert found.warnings[1:] == (
        "vm v-2: its CPU 2 is shared with v-1 (2), and on the same cores as those of nas (3)",
        "vm v-3: its CPU 7 is on the same cores as those of nas (6)")
    assert found.warnings[0] == ("vm v-1: its CPUs 0-2 are shared with v-2 (2), and on the same cores as those of nas "
                                 "(3)")


def test_many_others_are_counted() -> None:
    (first, *others) = plan(cloud(group(*"1" * 8, memory="64M")), small()).warnings
    assert first == ("vm v-1: its CPU 1 is shared with v-2 (1), v-3 (1), v-4 (1), v-5 (1), v-6 (1) and 2 more")
    assert len(others) == 7


# ---- memory ----


def test_vms_of_others_and_those_that_are_there_count() -> None:
    machine = small(cores=2, nodes=2)
    machine.domains["nas"] = nas(4)
    wanted = cloud(group(0, 1))
    (problem,) = refused(plan(wanted, machine))
    assert problem == (
        "node 0 of host here has 8G of memory, 8064M of it for VMs, and 10G are to be there and nowhere else: nas 4G, "
        "v-1 3G, v-2 3G\n    give them at most 1984M of `memory:` each; or say `pin: {cpus: ..., memory: preferred}`; or "
        "pin some of them to CPUs of two nodes, or of another node: 1 (8064M free)")
    machine.domains["nas"] = nas(4, runs=False)
    made(wanted, machine)
    machine.domains["nas"].autostart = True
    assert not plan(wanted, machine).refused  # so it is already, and nothing is changed
    (problem,) = refused(plan(cloud(group(0, 1, memory="3136M")), machine))
    assert "and 10368M are to be there" in problem


def test_a_vm_of_others_on_nodes_that_the_host_does_not_have_is_no_matter() -> None:
    """Its definition may be older than the host's last memory module."""
    machine = small(cores=2)
    machine.domains["nas"] = Defined(NAS.format(memory=4, cpu=1).replace("nodeset='0'", "nodeset='2-3'"), autostart=True)
    (problem,) = refused(plan(cloud(group(0, 1)), machine))
    assert "and 10G are to be there and nowhere else: nas 4G" in problem


def test_vms_that_are_to_be_off_do_not_count() -> None:
    made(cloud(group(0, 1, 1, more=", running: [true, true, false]")), small(cores=2))


def test_vms_spread_over_nodes_count_on_each_with_their_share() -> None:
    machine = small(cores=2, nodes=2)
    text = ("vms:\n  a: {template: base, vcpus: 3, memory: 9G, address: 10.0.0.10, pin: 0-2}\n"
            "  b: {template: base, memory: 3G, address: 10.0.0.11, pin: 1}\n")
    (problem,) = refused(plan(cloud(text), machine))
    assert problem.startswith("node 0 of host here has 8G of memory, 8064M of it for VMs, and 9G are to be there and "
                              "nowhere else: a 6G, b 3G\n    give less `memory:`, or stop others there; or say ")
    assert not refused(plan(cloud(text.replace("pin: 1", "pin: 3")), machine))


def test_a_set_of_nodes_has_the_memory_of_all_of_them() -> None:
    """Bound to nodes 0 and 1 together, beside what is bound to one of them; what fits each may not fit both."""
    machine = small(cores=2, nodes=3)
    pins = ["{cpus: 0-3}", "0", "2"]
    made(cloud(group(*pins, memory="5G")), machine)
    (problem,) = refused(plan(cloud(group(*pins, memory="6G")), small(cores=2, nodes=3)))
    assert problem.startswith("nodes 0-1 of host here has 16G of memory, 16128M of it for VMs, and 18G are to be there "
                              "and nowhere else: v-1 6G, v-2 6G, v-3 6G\n    give them at most 5376M of")


def busy(machine: Machine, free: int, reclaimable: int = 0) -> Machine:
    """The same machine with less free on node 0: something that is not bound to it has taken it."""
    first, *others = machine.nodes
    return replace(machine, nodes=(replace(first, free=free, reclaimable=reclaimable), *others))


def test_what_starts_must_fit_into_what_is_free() -> None:
    """The kernel's caches are as good as free."""
    wanted = cloud(group(0, 1))
    machine = busy(small(cores=2, nodes=2), 5 * GIB)
    assert refused(plan(wanted, machine)) == [
        "node 0 of host here has 4992M free now, of 8G, and 6G are to be there and nowhere else: v-1 3G, v-2 3G\n"
        "    give them at most 2496M of `memory:` each; or say `pin: {cpus: ..., memory: preferred}`; or pin some of them "
        "to CPUs of two nodes, or of another node: 1 (8064M free)"]
    assert refused(plan(wanted, busy(machine, 5 * GIB, 1151 * MIB)))
    made(wanted, busy(machine, 5 * GIB, 1152 * MIB))


def test_what_runs_already_needs_no_more() -> None:
    wanted, machine = cloud(group(0, 1)), small(cores=2)
    made(wanted, machine)
    assert not plan(wanted, busy(machine, 6 * GIB)).refused
    assert not plan(cloud(group(0, 1, more=", protect: true")), busy(machine, 6 * GIB)).refused


def test_a_vm_that_is_made_anew_gives_back_what_it_has() -> None:
    wanted, machine = cloud(group(0, 1)), small(cores=2, nodes=2)
    made(wanted, machine)
    full = busy(machine, 6 * GIB + 128 * MIB)  # the two have taken 6G of it
    assert not make_rebuild_plan(wanted, all_facts(wanted, full), ["v-1"]).refused
    more = cloud(group(0, 1, memory="3200M"))
    assert [row.splitlines()[0] for row in refused(make_rebuild_plan(more, all_facts(more, full), ["v-1", "v-2"]))] == [
        "node 0 of host here has 6G free now, of 8G, and 6400M are to be there and nowhere else: v-1 3200M, v-2 3200M"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_restart_gives_back_what_is_known_to_be_there(nodes: int) -> None:
    """Of a VM that ran anywhere it is not known on which of two nodes its memory is: it has to be stopped before."""
    machine = small(cores=2, nodes=nodes, memory=4 * GIB)
    made(cloud(vm(memory="3G")), machine)
    full = busy(machine, 1 * GIB)
    found = plan(cloud(vm(memory="3G", pin=0)), full, restart=True)
    assert told(found) == ["~ vm web: change", "~ vm web: restart"]
    assert [row.partition(", of")[0] for row in refused(found)] == (
        ["node 0 of host here has 896M free now"] if nodes == 2 else [])
    full.domains["web"].live = None
    assert not refused(plan(cloud(vm(memory="3G", pin=0)), busy(machine, 4 * GIB), restart=True))


def test_vms_started_by_hand_must_fit_too() -> None:
    wanted, machine = cloud(group(0, 1)), small(cores=2)
    made(wanted, machine)
    for domain in machine.domains.values():
        domain.live = None

    def start(free: int, *names: str) -> Plan:
        return make_start_plan(wanted, all_facts(wanted, busy(machine, free)), names)

    assert not start(4 * GIB, "v-1").refused
    (problem,) = refused(start(4 * GIB, "v-1", "v-2"))
    assert problem.startswith("node 0 of host here has 3968M free now, of 8G, and 6G are to be there")


def test_a_vm_that_is_removed_makes_room() -> None:
    machine = small(cores=2)
    made(cloud(group(0, 1)), machine)
    wanted = cloud(group(0, memory="5G"))
    assert refused(plan(wanted, machine))
    assert not plan(wanted, machine, prune=True).refused


# ---- huge pages ----


def test_huge_pages_are_counted_apart() -> None:
    """They are no part of what ordinary memory can be taken from, nor do they take from it."""
    pages = "{{cpus: {}, hugepages: 2M}}".format
    machine = small(cores=2, pages=2048)
    made(cloud(group(pages(0), "{cpus: 1, hugepages: false}", memory="3840M")), machine)
    assert refused(plan(cloud(group("{cpus: 0, hugepages: false}", "{cpus: 1, hugepages: false}")), machine)) == [
        "node 0 of host here has 4G of memory, 3968M of it for VMs, and 6G are to be there and nowhere else: v-1 3G, "
        "v-2 3G\n    give them at most 1984M of `memory:` each; or say `pin: {cpus: ..., memory: preferred}`"]


def test_too_few_huge_pages_are_refused() -> None:
    pins = ["{cpus: 0, hugepages: 2M}", "{cpus: 1, hugepages: 2M}"]
    (problem,) = refused(plan(cloud(group(*pins)), small(cores=2, nodes=2, pages=2560)))
    assert problem == (
        "node 0 of host here has 2560 huge pages of 2M, and 3072 huge pages of 2M are to be there and nowhere else: v-1 "
        "3G, v-2 3G\n    give them at most 2560M of `memory:` each; or have more of them set aside on the host; or say "
        "`hugepages: false` in the pin; or pin some of them to CPUs of two nodes, or of another node: 1 (2560 huge pages "
        "of 2M free)")
    machine = small(cores=2, pages=3072)
    taken = replace(machine.nodes[0], hugepages=tuple(replace(p, free=p.total // 2) for p in machine.nodes[0].hugepages))
    (problem,) = refused(plan(cloud(group(*pins)), replace(machine, nodes=(taken,))))
    assert problem.startswith("node 0 of host here has 1536 huge pages of 2M free now, of 3072 huge pages of 2M, and "
                              "3072 huge pages of 2M are to be there")


def test_huge_pages_of_any_size_are_refused_by_the_smallest() -> None:
    (problem,) = refused(plan(cloud(vm(pin="{cpus: 0, hugepages: true}")), small()))
    assert problem.startswith("node 0 of host here has 0 huge pages of 2M, and 512 huge pages of 2M are to be there and "
                              "nowhere else: web 1G\n    give less `memory:`, or stop others there; or have more")


def test_preferred_huge_pages_may_be_anywhere() -> None:
    pin = "{cpus: 0, memory: preferred, hugepages: 2M}"
    assert not refused(plan(cloud(vm(pin=pin, memory="2G")), small(cores=2, nodes=2, pages=512)))
    (problem,) = refused(plan(cloud(vm(pin=pin, memory="3G")), small(cores=2, nodes=2, pages=512)))
    assert problem.startswith("nodes 0-1 of host here has 1024 huge pages of 2M, and 1536")


def test_what_is_made_of_huge_pages_is_not_taken_from_what_is_free() -> None:
    """Neither by the check of the host's memory as a whole."""
    machine = small(cores=2, pages=2048)
    wanted = cloud(group("{cpus: 0, hugepages: 2M}"))
    made(wanted, replace(machine, memory=512 * MIB))
