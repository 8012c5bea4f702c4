"""Pins on this machine's libvirt: what was asked is what a defined VM reads back as, and where a running one's threads
and memory really are. Emulated guests have a thread for each vCPU, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from tests.local.kit import Kit, connection

from vmwright.facts.domains import parse_domain
from vmwright.facts.gather import gather
from vmwright.facts.model import ANYWHERE, Cell, ConfigFacts, Facts, OwnerFacts, Placement
from vmwright.plan.place import place
from vmwright.plan.view import Request, View
from vmwright.session import Sessions
from vmwright.spec.cloud import GuestSpec, VmSpec
from vmwright.spec.load import load
from vmwright.units import GIB, MIB, parse_cpuset
from vmwright.virt import alter, design

pytestmark = pytest.mark.local
PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def write(cloud: Kit, pin: str, vcpus: int = 2, memory: str = "64M") -> str:
    """The file with one VM, which is not started by vmwright: it has nothing to boot. Returns its name."""
    said = f"pin: {pin}, " if pin else ""
    cloud.write(f"  {cloud.name}-a: {{template: blank, firmware: bios, vcpus: {vcpus}, memory: {memory}, {said}"
                f"running: false, address: {cloud.subnet}.10}}\n")
    return f"{cloud.name}-a"


def config(name: str, *, live: bool = False) -> ConfigFacts:
    flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
    return parse_domain(connection().lookupByName(name).XMLDesc(flags), None, "shut off", False).persistent


def asked(cloud: Kit) -> Placement:
    """What the plan works out from the file and from this machine's facts."""
    wanted = load(str(cloud.file))
    with Sessions(wanted.hosts) as sessions:
        facts: Facts = gather(wanted, sessions)
    return place(View.of(wanted, wanted.hosts[0], facts, Request()), wanted.vms[0])


def process(name: str) -> Path:
    return Path("/proc", Path(f"/run/libvirt/qemu/{name}.pid").read_text().strip())


def threads(name: str) -> dict[str, tuple[int, ...]]:
    """The CPUs that each thread of a VM's process may run on, by the thread's name."""
    found = {}
    for task in (process(name) / "task").iterdir():
        rows = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        found[rows["Name"].strip()] = parse_cpuset(rows["Cpus_allowed_list"].strip())
    return found


def vcpus(name: str) -> dict[str, tuple[int, ...]]:
    """Those of its vCPUs."""
    return {comm.partition("/")[0]: cpus for comm, cpus in threads(name).items() if comm.startswith("CPU ")}


def settled(cloud: Kit) -> None:
    assert not cloud.plan()["actions"]
    assert "nothing to do" in cloud.ok("apply", "-y").out.lower()


def test_threads_run_where_they_were_asked_to(cloud: Kit) -> None:
    name = write(cloud, "{cpus: 0-1, emulator: 0}")
    cloud.ok("apply", "-y")
    assert config(name).placement == asked(cloud) == Placement(
        ((0,), (1,)), (0,), (), config(name).placement.nodes, config(name).placement.memory)
    settled(cloud)
    cloud.domain(name).create()
    assert vcpus(name) == {"CPU 0": (0,), "CPU 1": (1,)}
    assert threads(name)["qemu-system-x86"] == (0,)
    assert config(name, live=True).placement == config(name).placement
    settled(cloud)


def test_memory_is_bound_to_the_nodes_of_the_pins(cloud: Kit) -> None:
    """As many nodes as this machine has; the kernel tells the policy of the guest's memory."""
    name = write(cloud, "0-1")
    cloud.ok("apply", "-y")
    nodes = config(name).placement.nodes
    assert nodes and config(name).placement.memory == "strict"
    cloud.domain(name).create()
    policies = {line.split()[1] for line in (process(name) / "numa_maps").read_text().splitlines()}
    assert f"bind:{','.join(map(str, nodes))}" in policies or f"bind=static:{nodes[0]}" in policies, policies


def test_pins_of_a_running_vm_are_moved_at_once(cloud: Kit) -> None:
    name = write(cloud, "{cpus: 0-1, emulator: 0}")
    cloud.ok("apply", "-y")
    cloud.domain(name).create()
    write(cloud, "{cpus: 0-1, emulator: 1}")
    said = cloud.ok("apply", "-y").out
    assert "emulator on" in said and "now" in said
    assert threads(name)["qemu-system-x86"] == (1,) and config(name, live=True).placement == config(name).placement
    write(cloud, "{cpus: 1, emulator: 0}")
    cloud.ok("apply", "-y")
    settled(cloud)


def test_shared_cpus_are_moved_at_once_too(cloud: Kit) -> None:
    name = write(cloud, "{cpus: 0, emulator: 0}")
    cloud.ok("apply", "-y")
    cloud.domain(name).create()
    assert vcpus(name) == {"CPU 0": (0,), "CPU 1": (0,)}
    write(cloud, "{cpus: 1, emulator: 0}")
    cloud.ok("apply", "-y")
    assert vcpus(name) == {"CPU 0": (1,), "CPU 1": (1,)} and threads(name)["qemu-system-x86"] == (0,)
    cloud.domain(name).pinVcpu(0, (True, False))  # somebody else
    assert vcpus(name)["CPU 0"] == (0,)
    assert "~ vm" in cloud.ok("apply", "-y").out
    assert vcpus(name)["CPU 0"] == (1,)
    settled(cloud)


def test_another_number_of_vcpus_counts_from_the_next_start(cloud: Kit) -> None:
    name = write(cloud, "0-1")
    cloud.ok("apply", "-y")
    domain = cloud.domain(name)
    domain.create()
    write(cloud, "1", vcpus=1, memory="96M")
    cloud.ok("apply", "-y")
    assert vcpus(name) == {"CPU 0": (0,), "CPU 1": (1,)}
    assert "placement" in cloud.status()[name]["drift"]
    settled(cloud)
    domain.destroy()
    domain.create()
    assert vcpus(name) == {"CPU 0": (1,)} and config(name, live=True).memory == 96 * MIB
    assert config(name).placement == asked(cloud)
    assert cloud.status()[name]["drift"] == "-"


def test_a_pin_that_is_gone_from_the_file_is_let_go_and_one_of_others_is_kept(cloud: Kit) -> None:
    name = write(cloud, "0-1")
    cloud.ok("apply", "-y")
    write(cloud, "")
    cloud.ok("apply", "-y")
    assert config(name).placement == ANYWHERE and config(name).vcpus_max > 1
    settled(cloud)
    cloud.domain(name).pinVcpuFlags(0, (False, True), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    settled(cloud)
    assert config(name).placement.vcpus[0] == (1,)


@pytest.fixture
def pages() -> Iterator[int]:
    """128 MiB of huge pages, for as long as the test runs."""
    before = PAGES.read_text()
    PAGES.write_text(str(int(before) + 64))
    try:
        yield int(PAGES.read_text())
    finally:
        PAGES.write_text(before)


def test_memory_is_made_of_huge_pages_without_a_mount(cloud: Kit, pages: int) -> None:
    """One that wants more than there are is refused with the figures."""
    assert pages >= 64
    name = write(cloud, "{cpus: 0-1, hugepages: 2M}")
    cloud.ok("apply", "-y")
    assert config(name).placement == asked(cloud) and config(name).placement.hugepages == 2 * MIB
    cloud.domain(name).create()
    maps = [line for line in (process(name) / "numa_maps").read_text().splitlines() if "kernelpagesize_kB=2048" in line]
    assert sum(int(word.partition("=")[2]) for line in maps for word in line.split() if word[:1] == "N" and "=" in word
               ) == 32
    settled(cloud)
    write(cloud, "0-1")  # it keeps what it has
    settled(cloud)
    write(cloud, "{cpus: 0-1, hugepages: true}", memory="4G")
    (problem,) = cloud.plan()["refused"]
    assert "2048 huge pages of 2M are to be there and nowhere else" in problem["what"]
    assert cloud.run("apply", "-y").code == 4 and config(name).memory == 64 * MIB
    write(cloud, "{cpus: 0-1, hugepages: false}")
    cloud.ok("apply", "-y")
    assert config(name).placement.hugepages == 0
    cloud.domain(name).destroy()
    cloud.domain(name).create()
    assert "kernelpagesize_kB=2048" not in (process(name) / "numa_maps").read_text()


PLACEMENTS = {
    "one node": Placement(((24,), (25,)), (4, 5), (4, 5), (0,), "strict"),
    "threads": Placement(((0,), (24,), (1,), (25,)), (4, 28), (4, 28), (0,), "preferred", threads=2),
    "shared": Placement(((0, 1, 2, 9),) * 3, (3,), (3,), (0, 1), "strict"),
    "no nodes": Placement(((0,), (1,)), (2,), (2,)),
    "two nodes": Placement(((0,), (1,), (12,)), (5,), (5,), (0, 1), "strict", (
        Cell((0, 1), 2 * GIB, (0,)), Cell((2,), GIB, (1,)))),
    "two nodes, threads, large pages": Placement(((0,), (24,), (12,), (36,)), (5,), (5,), (), "preferred", (
        Cell((0, 1), 2 * GIB, (0,)), Cell((2, 3), GIB, (1,))), 2, GIB),
}


@pytest.mark.parametrize("wanted", PLACEMENTS.values(), ids=PLACEMENTS)
def test_what_was_asked_is_what_libvirt_keeps(cloud: Kit, wanted: Placement) -> None:
    """Made so, and changed to it from any other; libvirt checks the definitions against its schema."""
    name, virt = f"{cloud.name}-p", connection()
    vm = VmSpec(name, "here", "t", "p", len(wanted.vcpus), 3 * GIB, None, (), GuestSpec())
    disk = design.DiskChoice("/dev/vg/root", "raw", "root", block=True)
    xml = design.domain_xml(
        "lab", vm, type="qemu", machine="q35", host_cpus=48, disks=[disk], seed_path="/dev/vg/seed", nics=[],
        owner=OwnerFacts("lab", name, "t", "1", "i", "s", pinned=True), placement=wanted)
    for change in (ANYWHERE, *PLACEMENTS.values(), wanted):
        defined = virt.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        kept = defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        found = parse_domain(kept, None, "shut off", False).persistent
        assert found.placement == wanted and found.vcpus == found.vcpus_max == len(wanted.vcpus)
        assert found.owner and found.owner.pinned
        other = virt.defineXMLFlags(alter.set_placement(kept, change, 48), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        kept = other.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        assert parse_domain(kept, None, "shut off", False).persistent.placement == change
        xml = alter.set_placement(alter.set_vcpus(kept, len(wanted.vcpus), 48), wanted, 48)
