"""Huge pages of a host: how they are shared out, what does not fit, and the VMs of the same file that want them."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.plan.build import changes, cloud, facts, refused
from tests.unit.plan.places import PAGES, small
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import FileFacts, HugepageFacts
from vmwright.names import HUGE_PAGES
from vmwright.plan.actions import CreateVm, Plan
from vmwright.plan.diff import make_plan
from vmwright.plan.host_actions import PrepareFiles, WriteFiles
from vmwright.spec.cloud import Cloud
from vmwright.units import GIB

TWO = small(cores=2, nodes=2)
VM = "vms: {web: {template: base, address: 10.0.0.10, vcpus: 1, memory: 1G, pin: {cpus: 2, hugepages: 2M}}}"


def wanted(pages: str, vms: str = "vms: {}") -> Cloud:
    return cloud(f"hosts: {{here: {{pools: {{images: {{dir: /srv/images}}}}, hugepages: {pages}}}}}\n{vms}\n")


def plan(pages: str, machine: Machine = TWO, vms: str = "vms: {}") -> Plan:
    file = wanted(pages, vms)
    return make_plan(file, facts(file, machine))


def action(found: Plan) -> WriteFiles:
    (one,) = (action for action in found.actions if isinstance(action, WriteFiles))
    return one


def after(found: Plan, *counts: int) -> Machine:
    """The host with what the plan writes, and so many pages of 2M on its nodes."""
    files = tuple(FileFacts(file.path, file.text, file.text) for file in action(found).files)
    nodes = tuple(replace(node, hugepages=(HugepageFacts(PAGES, count, count, True), *node.hugepages[1:]))
                  for node, count in zip(TWO.nodes, counts, strict=True))
    return replace(TWO, nodes=nodes, platform=replace(TWO.platform, files=files))


def rows(found: Plan) -> list[str]:
    """The file's lines, shortened."""
    lines = action(found).files[0].text.splitlines()[1:]
    assert all(line.startswith("w /sys/devices/system/node/node") for line in lines)
    return [f"{line[31]} {line.split('hugepages-')[1].split('/')[0]} {line.split()[-1]}" for line in lines]


def test_they_are_shared_out_over_the_nodes() -> None:
    found = plan("{2M: 513}")
    assert rows(found) == ["0 2048kB 257", "1 2048kB 256"]
    assert changes(action(found)) == ["node 0, 2M: 0 -> 257", "node 1, 2M: 0 -> 256"]
    assert action(found).after == (("systemd-tmpfiles", "--create", HUGE_PAGES),)
    assert isinstance(action(found), PrepareFiles)


def test_or_each_node_has_its_number() -> None:
    assert rows(plan("{2M: [0, 512], 1G: [2, 0]}")) == ["0 2048kB 0", "1 2048kB 512", "0 1048576kB 2", "1 1048576kB 0"]


def test_then_there_is_nothing_to_do() -> None:
    first = plan("{2M: [0, 512]}")
    second = plan("{2M: [0, 512]}", after(first, 0, 512))
    assert not any(isinstance(action, WriteFiles) for action in second.actions)
    assert not second.warnings


def test_what_did_not_come_is_told_and_keeps_nothing_else_back() -> None:
    found = plan("{2M: [0, 512]}", after(plan("{2M: [0, 512]}"), 0, 100))
    assert not any(isinstance(action, WriteFiles) for action in found.actions)
    assert found.warnings == (f"host here: huge pages are not as {HUGE_PAGES} says: node 1, 2M: 100, not 512. Where "
                              "its memory is in pieces they come at its next boot; to try again now: systemd-tmpfiles "
                              f"--create {HUGE_PAGES}",)


def test_more_than_a_node_has_is_refused_with_the_figures() -> None:
    assert refused(plan("{2M: [4096, 0]}")) == [
        "host here: huge pages of 8G are to be on node 0, which has 8G of memory, 8064M of it for VMs\n"
        "    ask for fewer, or say how many on each node: {2M: [4096, 0]}"]


def test_numbers_for_nodes_that_are_not_there() -> None:
    assert refused(plan("{2M: [1, 2, 3]}")) == [
        "host here: 3 numbers of huge pages of 2M are given, and it has 2 NUMA nodes\n"
        "    give a number for each node, or one in all"]


def test_a_size_that_the_kernel_does_not_have() -> None:
    nodes = tuple(replace(node, hugepages=tuple(p for p in node.hugepages if p.size != GIB)) for node in TWO.nodes)
    assert refused(plan("{1G: 1}", replace(TWO, nodes=nodes))) == [
        "host here: its kernel has no huge pages of 1G\n    name a size that it has: ls /sys/kernel/mm/hugepages"]


def test_vms_of_the_same_file_get_them() -> None:
    """The pages come first; the VM is planned for the host as it will be then."""
    found = plan("{2M: [0, 512]}", vms=VM)
    assert not found.refused
    (made,) = (action for action in found.actions if isinstance(action, CreateVm))
    assert made.placement.hugepages == PAGES
    (problem,) = refused(plan("{2M: [0, 511]}", vms=VM))
    assert problem.startswith("node 1 of host here has 511 huge pages of 2M, and 512 huge pages of 2M are to be there")


def test_they_are_left_to_the_host_again() -> None:
    machine = after(plan("{2M: [0, 512]}"), 0, 512)
    file = cloud("vms: {}\n")
    found = action(make_plan(file, facts(file, machine)))
    assert (found.remove, found.verb) == ((HUGE_PAGES,), "take away")


def test_without_systemd_nothing_would_set_them_at_boot() -> None:
    bare = replace(TWO, platform=replace(TWO.platform, systemd=False))
    (problem,) = refused(plan("{2M: 4}", bare))
    assert problem.startswith("host here: systemd is not running there, which sets huge pages aside at boot")
