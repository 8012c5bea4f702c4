"""Pins and NUMA nodes on a server that has them: where threads, I/O threads and memory of a VM really are.

The VMs have nothing to boot: they are made switched off, and started beside vmwright.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.rack import kit
from tests.rack.cloud import RackCloud

from vmwright.rack import process
from vmwright.rack.process import Wish
from vmwright.units import parse_cpuset

NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
POOLS = "      vms: {dir: /var/lib/libvirt/vms}\n      fast: {lvm: vg-libvirt, disks: [/dev/sda4]}\n"
VM = ("  {}: {{template: blank, pool: {}, firmware: bios, vcpus: {}, memory: {}, running: false, pin: {}, "
      "address: {}}}\n")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """One rack for all of these, in the order in which they stand."""
    yield RackCloud(kit.up("place", Wish()), tmp_path_factory.mktemp("cloud"))
    process.down("place", force=True, seconds=0, remove=True)


def vm(name: str, pin: str, *, vcpus: int = 2, memory: str = "256M", pool: str = "vms") -> str:
    return VM.format(name, pool, vcpus, memory, pin, f"192.168.6.{50 + sum(map(ord, name)) % 100}")


def start(cloud: RackCloud, name: str) -> None:
    """Start a VM, and let its firmware run for a moment: it uses some of its memory."""
    cloud.sh(f"virsh -q start {name}; sleep 5")


def threads(cloud: RackCloud, name: str) -> dict[str, tuple[int, ...]]:
    """The CPUs that each thread of a VM's process may run on, by the thread's name without its number."""
    said = cloud.sh(f"""cd /proc/$(cat /run/libvirt/qemu/{name}.pid)/task
        for task in *; do printf '%s:' "$(cat $task/comm)"; sed -n 's/^Cpus_allowed_list:\\t//p' $task/status; done""")
    return {row.rpartition(":")[0].partition("/")[0]: parse_cpuset(row.rpartition(":")[2]) for row in said.splitlines()}


def pages(cloud: RackCloud, name: str, policy: str, size: int = 4) -> dict[str, int]:
    """How many pages of that size (in KiB) there are on each node, of a VM's memory with that policy."""
    said = cloud.sh(f"grep ' {policy} ' /proc/$(cat /run/libvirt/qemu/{name}.pid)/numa_maps || true")
    found: dict[str, int] = {}
    for row in said.splitlines():
        words = dict(word.partition("=")[::2] for word in row.split())
        if words.get("kernelpagesize_kB") == str(size):
            for node in ("N0", "N1"):
                found[node] = found.get(node, 0) + int(words.get(node, 0))
    return {node: count for node, count in found.items() if count}


def settled(cloud: RackCloud) -> None:
    assert not cloud.plan()["actions"]


def test_a_vm_on_node_1_has_its_threads_and_its_memory_there(cloud: RackCloud) -> None:
    """A whole core: the guest has its two threads; the rest of the node is for the emulator and the I/O thread."""
    cloud.write(POOLS, vm("one", "4-5", pool="fast"))
    cloud.ok("apply", "-y")
    settled(cloud)
    start(cloud, "one")
    found = threads(cloud, "one")
    assert (found["CPU 0"], found["CPU 1"]) == ((4,), (5,))
    assert found["qemu-system-x86"] == found["IO iothread1"] == (6, 7)
    assert pages(cloud, "one", "bind:1").keys() == {"N1"}
    assert "mode='strict' nodeset='1'" in cloud.sh("virsh dumpxml one | grep '<memory mode'")
    assert "cores='1' threads='2'" in cloud.sh("virsh dumpxml one | grep '<topology'")
    settled(cloud)


def test_threads_move_while_it_runs(cloud: RackCloud) -> None:
    """The I/O thread, too; its memory stays where it is."""
    cloud.write(POOLS, vm("one", "{cpus: 6-7, emulator: 4}", pool="fast"))
    assert "now" in cloud.ok("apply", "-y")
    found = threads(cloud, "one")
    assert (found["CPU 0"], found["CPU 1"]) == ((6,), (7,))
    assert found["qemu-system-x86"] == found["IO iothread1"] == (4,)
    settled(cloud)


def test_a_guest_on_two_nodes_has_memory_on_both(cloud: RackCloud) -> None:
    cloud.write(POOLS, vm("one", "{cpus: 6-7, emulator: 4}", pool="fast") + vm("two", '"0,5"'))
    cloud.ok("apply", "-y")
    start(cloud, "two")
    assert pages(cloud, "two", "bind:0").keys() == {"N0"}
    assert cloud.sh("virsh dumpxml two | grep -c '<memnode.*strict'") == "2"
    assert cloud.sh("virsh dumpxml two | grep -c '<cell .*131072'") == "2"
    found = threads(cloud, "two")
    assert (found["CPU 0"], found["CPU 1"]) == ((0,), (5,))
    settled(cloud)


def test_more_than_a_node_has_is_refused(cloud: RackCloud) -> None:
    """With the figures, and before anything is changed; on both nodes it fits."""
    before = cloud.sh("virsh list --all --name; ls /var/lib/libvirt/vms")
    big = vm("big", "2-3", memory="3G") + vm("large", "2-3", memory="3G")
    cloud.write(POOLS, big.replace("running: false", "running: true"))
    problem = next(said for said in cloud.refused() if said.startswith("node 0 of host rack has "))
    assert " are to be there and nowhere else: big 3G, large 3G" in problem
    assert cloud.run("apply", "-y").returncode == 4
    assert cloud.sh("virsh list --all --name; ls /var/lib/libvirt/vms") == before


def test_what_is_free_now_counts_at_a_start(cloud: RackCloud) -> None:
    """Something else has taken most of node 0: what would fit there is not started."""
    cloud.write(POOLS, vm("big", "2-3", memory="3G"))
    cloud.ok("apply", "-y")
    cloud.sh("systemd-run -q --unit hog -p AllowedMemoryNodes=0 sh -c 'head -c 2G /dev/zero | tail -c 2G | sleep 600' "
             "|| true")
    cloud.sh("""for n in $(seq 60); do free=$(awk '/MemFree/ {print $4}' /sys/devices/system/node/node0/meminfo)
        [ $free -lt 2000000 ] && exit; sleep 1; done""")
    try:
        said = cloud.run("start", "big")
        assert said.returncode == 4, said.stdout
        assert " free now, of " in said.stderr and "big 3G" in said.stderr
    finally:
        cloud.sh("systemctl stop hog")
        cloud.ok("destroy", "big", "-y")


def test_huge_pages_are_taken_from_the_node(cloud: RackCloud) -> None:
    """Set aside while the host runs, with no word to libvirt; where there are not enough, that is refused."""
    cloud.sh(f"echo 256 > {NODE.format(1)}")
    kept = vm("one", "{cpus: 6-7, emulator: 4}", pool="fast") + vm("two", '"0,5"')
    cloud.write(POOLS, kept + vm("huge", "4"))
    cloud.ok("apply", "-y")
    start(cloud, "huge")
    assert pages(cloud, "huge", "bind:1", 2048) == {"N1": 128}
    assert cloud.sh("cat /sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages") == "128"
    settled(cloud)
    more = vm("more", "{cpus: 5, hugepages: 2M}", memory="512M").replace("running: false", "running: true")
    cloud.write(POOLS, kept + vm("huge", "4") + more)
    assert ("node 1 of host rack has 256 huge pages of 2M, and 384 huge pages of 2M are to be there and nowhere else: "
            "more 512M, huge 256M") in cloud.refused()


def test_a_cpu_that_is_offline_is_refused(cloud: RackCloud) -> None:
    cloud.sh("chcpu -d 3")
    try:
        cloud.write(POOLS, vm("off", "2-3"))
        assert cloud.refused() == ["vm off: pinned to CPU 3, which is offline on host rack"]
    finally:
        cloud.sh("chcpu -e 3")
