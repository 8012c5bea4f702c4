"""CPUs and NUMA nodes: recorded hosts, the reference server, and answers that are odd or torn."""

from __future__ import annotations

import pytest
from tests.unit.facts.test_gather import inventory
from tests.unit.facts.test_probes import recorded

from vmwright.errors import HostError
from vmwright.facts import cpu
from vmwright.facts.gather import assemble
from vmwright.facts.model import CpuFacts, HugepageFacts, NodeFacts
from vmwright.facts.probes import Output
from vmwright.units import MIB, parse_cpuset


def test_the_reference_server() -> None:
    host = assemble("zcloud", recorded("ubuntu2004"), inventory())
    assert [(node.cpus, node.distances) for node in host.nodes] == [
        (parse_cpuset("0-11,24-35"), (10, 21)), (parse_cpuset("12-23,36-47"), (21, 10))]
    assert [node.memory for node in host.nodes] == [32093 * MIB, 32250 * MIB]
    assert sum(node.memory for node in host.nodes) == host.memory
    assert len(host.cpu_list) == host.cpus == 48
    assert [one.siblings for one in host.cpu_list] == [((n + 24) % 48,) for n in range(48)]
    assert host.cpu_list[24] == CpuFacts(24, node=0, socket=0, core=0, siblings=(0,))
    assert host.cpu_list[47] == CpuFacts(47, node=1, socket=1, core=13, siblings=(23,))


def test_an_emulated_server() -> None:
    cpus, nodes = cpu.parse(recorded("pci-rack")["topology"].text)
    assert [(one.number, one.socket, one.core, one.siblings) for one in cpus[3:5]] == [(3, 0, 1, (2,)), (4, 1, 0, (5,))]
    assert [(node.number, node.cpus, node.distances) for node in nodes] == [
        (0, (0, 1, 2, 3), (10, 21)), (1, (4, 5, 6, 7), (21, 10))]


def test_a_machine_without_hyper_threads() -> None:
    host = assemble("here", recorded("debian12"), inventory())
    assert host.cpu_list == (CpuFacts(0, 0, 0, 0), CpuFacts(1, 0, 0, 1))
    assert host.nodes == (NodeFacts(
        0, (0, 1), 24684084 << 10, host.nodes[0].free, host.nodes[0].reclaimable, (10,),
        (HugepageFacts(2 << 20, 0, 0), HugepageFacts(1 << 30, 0, 0))),)
    assert 0 < host.nodes[0].free < host.nodes[0].free + host.nodes[0].reclaimable < host.memory


def test_memory_and_huge_pages_of_a_node() -> None:
    _, (node,) = cpu.parse("""cpu/present:0
node/node2/cpulist:
node/node2/meminfo:Node 2 MemTotal:       100 kB
node/node2/meminfo:Node 2 MemFree:         40 kB
node/node2/meminfo:Node 2 Active(file):     1 kB
node/node2/meminfo:Node 2 Inactive(file):   2 kB
node/node2/meminfo:Node 2 SReclaimable:     4 kB
node/node2/hugepages/hugepages-2048kB/nr_hugepages:16
node/node2/hugepages/hugepages-2048kB/free_hugepages:12""")
    assert node == NodeFacts(2, (), 100 << 10, 40 << 10, 7 << 10, (), (HugepageFacts(2 << 20, 16, 12),))


@pytest.mark.parametrize(("line", "mounted"), [
    ("hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0", [True, False]),
    ("none /huge hugetlbfs rw,mode=700,pagesize=1024M,size=4G 0 0", [False, True]),
    ("host:/a hugetlbfs /b nfs rw,pagesize=2M 0 0", [False, False]),
    ("192.168.6.1:/vms /vms nfs4 rw 0 0", [False, False])])
def test_huge_pages_that_have_a_file_system(line: str, mounted: list[bool]) -> None:
    _, (node,) = cpu.parse(f"""cpu/present:0
node/node0/meminfo:Node 0 MemTotal: 100 kB
node/node0/hugepages/hugepages-2048kB/nr_hugepages:16
node/node0/hugepages/hugepages-1048576kB/nr_hugepages:1
/proc/mounts:{line}""")
    assert [page.mounted for page in node.hugepages] == mounted


def test_a_cpu_that_is_offline_has_a_number_and_no_more() -> None:
    """The kernel takes its topology away; those that are online are told as before."""
    cpus, nodes = cpu.parse("cpu/present:0-2\ncpu/online:0,2\ncpu/cpu0/topology/physical_package_id:0\n"
                            "cpu/cpu0/topology/core_id:0\ncpu/cpu0/topology/thread_siblings_list:0,2\n"
                            "node/node0/cpulist:0,2")
    assert cpus == (CpuFacts(0, 0, 0, 0, (2,)), CpuFacts(1, online=False), CpuFacts(2, 0))
    assert nodes[0].cpus == (0, 2)


def test_a_kernel_without_numa_has_no_nodes() -> None:
    cpus, nodes = cpu.parse("cpu/present:0-1\ncpu/cpu0/topology/physical_package_id:-1")
    assert (nodes, cpus) == ((), (CpuFacts(0), CpuFacts(1)))


def test_a_torn_line_of_memory_is_left_out() -> None:
    assert cpu.parse("cpu/present:0\nnode/node0/meminfo:Node 0 MemTotal")[1] == ()


@pytest.mark.parametrize(("text", "why"), [
    ("", "it has no list of CPUs"), ("node/node0/cpulist:0-1", "it has no list of CPUs"),
    ("cpu/present:all", "'all' is not a CPU list: write numbers and ranges, like 0-3,8")])
def test_what_is_not_understood_is_told(text: str, why: str) -> None:
    with pytest.raises(HostError) as caught:
        assemble("here", {**recorded("debian12"), "topology": Output(text, 1)}, inventory())
    assert str(caught.value) == (f"host here: the probe topology was not understood\n  why: {why}\n"
                                 "  do:  see what it prints there: vmwright doctor")
