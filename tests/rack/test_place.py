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

NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB"
POOLS = "      vms: {dir: /var/lib/libvirt/vms}\n      fast: {lvm: vg-libvirt, disks: [/dev/sda4]}\n"
VM = ("  {}: {{template: blank, pool: {}, firmware: bios, vcpus: {}, memory: {}, running: false, pin: {}, "
      "address: {}}}\n")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """One rack for all of these, in the order in which they stand."""
    yield RackCloud(kit.up("place", Wish()), tmp_path_factory.mktemp("cloud"))
    process.down("place", force=True, seconds=0, remove=True)


def vm(name: str, pin: str, vcpus: int = 2, *, memory: str = "256M", pool: str = "vms") -> str:
    return VM.format(name, pool, vcpus, memory, pin, f"192.168.6.{50 + sum(map(ord, name)) % 100}")


BIG = vm("big", "2-3", memory="3G")


def start(cloud: RackCloud, name: str) -> None:
    """Start a VM, and let its firmware run for a moment: it uses some of its memory."""
    cloud.sh(f"virsh -q start {name}; sleep 5")


def threads(cloud: RackCloud, name: str) -> dict[str, tuple[int, ...]]:
    """The CPUs that each thread of a VM's process may run on, by the thread's name without its number.

    QEMU's short-lived workers may end while they are looked at.
    """
    said = cloud.sh(f"""cd /proc/$(cat /run/libvirt/qemu/{name}.pid)/task
        for task in *; do
            comm=$(cat $task/comm 2>/dev/null) || continue
            cpus=$(sed -n 's/^Cpus_allowed_list:\\t//p' $task/status 2>/dev/null) || continue
            echo "$comm:$cpus"
        done""")
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


def test_vms_have_their_threads_and_their_memory_where_they_were_asked_to(cloud: RackCloud) -> None:
    """On one node, with an I/O thread; on two nodes; of huge pages, which were set aside with no word to libvirt."""
    cloud.sh(f"echo 256 > {NODE.format(1)}/nr_hugepages")
    cloud.write(POOLS, vm("one", "{cpus: 4-5, hugepages: false}", pool="fast") + vm("two", '"0,6"') + vm("huge", "6", 1)
                + BIG)
    cloud.ok("apply", "-y")
    for name in ("one", "two", "huge"):
        start(cloud, name)
    assert not cloud.plan()["actions"]

    one = threads(cloud, "one")
    assert (one["CPU 0"], one["CPU 1"]) == ((4,), (5,))
    assert one["qemu-system-x86"] == one["IO iothread1"] == (7,), "the only CPU of the node that no VM is pinned to"
    assert pages(cloud, "one", "bind:1").keys() == {"N1"}
    defined = cloud.sh("virsh dumpxml one")
    assert "<memory mode='strict' nodeset='1'/>" in defined
    assert "cores='1' threads='2'/>" in defined, "4 and 5 are a whole core"

    two = threads(cloud, "two")
    assert (two["CPU 0"], two["CPU 1"]) == ((0,), (6,))
    assert pages(cloud, "two", "bind:0").keys() == {"N0"}
    defined = cloud.sh("virsh dumpxml two")
    assert [defined.count(text) for text in ("mode='strict' nodeset='0'/>", "mode='strict' nodeset='1'/>",
                                             "memory='131072' unit='KiB'/>")] == [1, 1, 2]

    assert pages(cloud, "huge", "bind:1", 2048) == {"N1": 128}
    assert cloud.sh(f"cat {NODE.format(1)}/free_hugepages") == "128"


def test_threads_move_while_the_vm_runs(cloud: RackCloud) -> None:
    """The I/O thread, too; its memory stays where it is."""
    cloud.write(POOLS, vm("one", "{cpus: 6-7, emulator: 4, hugepages: false}", pool="fast"))
    said = cloud.ok("apply", "-y")
    assert "now" in said and "next start" not in said
    one = threads(cloud, "one")
    assert (one["CPU 0"], one["CPU 1"]) == ((6,), (7,))
    assert one["qemu-system-x86"] == one["IO iothread1"] == (4,)
    assert not cloud.plan()["actions"]


def test_what_does_not_fit_is_refused(cloud: RackCloud) -> None:
    """Memory of a node, its huge pages, CPUs: with the figures, and before anything is changed."""
    more = "".join(row.replace("running: false", "running: true") for row in (
        vm("large", "2-3", memory="3G"), vm("larger", "2-3", memory="3G"),
        vm("pages", "{cpus: 5, hugepages: 2M}", memory="512M"), vm("off", "1")))
    before = cloud.sh("virsh list --all --name; ls /var/lib/libvirt/vms")
    cloud.sh("chcpu -d 1")
    try:
        cloud.write(POOLS, more)
        off, memory, huge = (row for row in cloud.refused() if not row.startswith("host rack: the VMs to start want"))
        assert cloud.run("apply", "-y").returncode == 4
    finally:
        cloud.sh("chcpu -e 1")
    assert off == "vm off: pinned to CPU 1, which is offline on host rack"
    assert memory.startswith("node 0 of host rack has ")
    assert memory.endswith(" and 6272M are to be there and nowhere else: large 3G, larger 3G, two 128M")
    assert huge == ("node 1 of host rack has 256 huge pages of 2M, and 384 huge pages of 2M are to be there and "
                    "nowhere else: pages 512M, huge 256M")
    assert cloud.sh("virsh list --all --name; ls /var/lib/libvirt/vms") == before


def test_what_is_free_now_counts_at_a_start(cloud: RackCloud) -> None:
    """Something else has taken most of node 0: what would fit there is not started."""
    cloud.write(POOLS, BIG)
    cloud.sh("systemd-run -q --unit hog -p AllowedMemoryNodes=0 sh -c 'head -c 2G /dev/zero | tail -c 2G | sleep 600'")
    try:
        cloud.sh("""for n in $(seq 60); do free=$(awk '/MemFree/ {print $4}' /sys/devices/system/node/node0/meminfo)
            [ $free -lt 2000000 ] && exit; sleep 1; done""")
        said = cloud.run("start", "big")
        assert said.returncode == 4, said.stdout
        assert " free now, of " in said.stderr and "big 3G" in said.stderr
    finally:
        cloud.sh("systemctl stop hog")
