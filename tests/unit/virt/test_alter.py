"""Edits of domain XML: exactly what was asked for changes, whoever made the domain."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.errors import VmwrightError
from vmwright.facts.domains import parse_domain
from vmwright.facts.model import ANYWHERE, Cell, ConfigFacts, DiskFacts, NicFacts, OwnerFacts, Placement
from vmwright.virt import alter
from vmwright.virt.design import DiskChoice, NicChoice, effective_cpu
from vmwright.virt.placing import Ground
from vmwright.virt.xml import tree

GOLDEN = Path(__file__).parents[2] / "golden"
OURS, OTHERS = (GOLDEN / "vm-uefi-kvm.xml").read_text(), (GOLDEN / "others.xml").read_text()
NIC = NicChoice("52:aa:00:00:00:01", "network", "new")
AMD = Ground("AMD")
RAISED = -1
FOLLOWS = Placement(memory="what follows from the number of vCPUs and the memory")
DISK = DiskChoice("/new.qcow2", "qcow2", "new", "vdb")


def config(xml: str) -> ConfigFacts:
    return parse_domain(xml, None, "shut off", False).persistent


def canonical(root: ET.Element) -> str:
    """The same for trees that differ in white space between elements only."""
    return ET.canonicalize(tree.render(root), with_comments=True, strip_text=True)


def same(one: str, other: str) -> bool:
    return canonical(tree.parse(one)) == canonical(tree.parse(other))


# -- whatever the domain, whatever the edit


def _hostdev(bus: int) -> ET.Element:
    address = tree.el("address", domain="0", bus=hex(bus), slot="0", function="0")
    return tree.el("hostdev", tree.el("source", address), mode="subsystem", type="pci", managed="yes")


def _foreign(draw: st.DrawFn, root: ET.Element) -> None:
    """What other people put into domains, here and there."""
    word = st.text("abcäß<&'\" ", min_size=1, max_size=8)
    devices, place = root.find("devices"), tree.ensure(root, "metadata")
    assert devices is not None
    for bus in draw(st.sets(st.integers(0x20, 0x70), max_size=3)):
        devices.insert(draw(st.integers(0, len(devices))), _hostdev(bus))
    for n, text in enumerate(draw(st.lists(word, max_size=2))):
        attributes = {f"xmlns:x{n}": f"urn:x{n}", "a": text}
        place.append(tree.el(f"x{n}:mark", tree.el(f"x{n}:inner", text=text), **attributes))
    if draw(st.booleans()):
        root.insert(draw(st.integers(0, len(root))), ET.Comment(" keep me "))
        devices.insert(draw(st.integers(0, len(devices))), ET.Comment(" and me "))
    if draw(st.booleans()):
        tree.drop(root, "qemu:commandline")
        root.set("xmlns:qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
        arguments = [tree.el("qemu:arg", value=text) for text in draw(st.lists(word, max_size=3))]
        root.append(tree.el("qemu:commandline", *arguments))


@st.composite
def domains(draw: st.DrawFn) -> str:
    root = tree.parse(draw(st.sampled_from([OURS, OTHERS, (GOLDEN / "vm-bios-model.xml").read_text()])))
    _foreign(draw, root)
    return tree.render(root)


@dataclass(frozen=True)
class Edit:
    """An edit, the facts it should lead to, and the removal of all it may touch, from either side."""

    make: Callable[[str], str]
    expect: Callable[[ConfigFacts], ConfigFacts]
    forget: Callable[[ET.Element], object]


def _vcpus(count: int, host: int) -> Edit:
    def forget(root: ET.Element) -> None:
        tree.drop(root, "vcpu", "vcpus")
        tree.drop(tree.ensure(root, "cpu"), "topology")

    def expect(old: ConfigFacts) -> ConfigFacts:
        return replace(old, vcpus=count, vcpus_max=old.vcpus_max if count <= old.vcpus_max else RAISED,
                       placement=FOLLOWS)

    return Edit(lambda xml: alter.set_vcpus(xml, count, host), expect, forget)


def _memory(mib: int) -> Edit:
    def forget(root: ET.Element) -> None:
        tree.drop(root, "memory", "currentMemory")
        for cell in root.iterfind("cpu/numa/cell"):
            cell.attrib.pop("memory")
            cell.attrib.pop("unit")

    return Edit(lambda xml: alter.set_memory(xml, mib << 20),
                lambda old: replace(old, memory=mib << 20, memory_max=mib << 20, placement=FOLLOWS), forget)


def _type(type: str) -> Edit:
    def forget(root: ET.Element) -> None:
        root.attrib.pop("type", None)
        tree.drop(tree.ensure(root, "devices"), "emulator")
        clock = root.find("clock")
        for timer in list(clock) if clock is not None else ():
            if timer.get("name") in ("rtc", "hpet", "pit", "kvmclock"):
                clock.remove(timer)

    return Edit(lambda xml: alter.set_type(xml, type), lambda old: replace(old, type=type), forget)


def _cpu(cpu: str, type: str) -> Edit:
    def forget(root: ET.Element) -> None:
        element = tree.ensure(root, "cpu")
        element.attrib.clear()
        tree.drop(element, "model", "cache")

    effective = effective_cpu(cpu, type)
    return Edit(lambda xml: alter.set_cpu(xml, cpu, type), lambda old: replace(old, cpu=effective), forget)


def _owner(owner: OwnerFacts) -> Edit:
    def forget(root: ET.Element) -> None:
        tree.drop(tree.ensure(root, "metadata"), "vmwright:vm")

    return Edit(lambda xml: alter.set_owner(xml, owner), lambda old: replace(old, owner=owner), forget)


def _placement(placement: Placement) -> Edit:
    def forget(root: ET.Element) -> None:
        tree.drop(root, "vcpu", "vcpus", "numatune")
        tree.drop(tree.ensure(root, "cputune"), "vcpupin", "emulatorpin")
        tree.drop(tree.ensure(root, "memoryBacking"), "hugepages", "source")
        tree.drop(tree.ensure(root, "cpu"), "topology", "numa")
        for idle in ("cputune", "memoryBacking"):
            if not len(tree.ensure(root, idle)):
                tree.drop(root, idle)

    def expect(old: ConfigFacts) -> ConfigFacts:
        """Neither domain has I/O threads to be pinned."""
        wanted = replace(placement, iothreads=())
        if not placement.vcpus:
            return replace(old, vcpus_max=RAISED, placement=wanted)
        return replace(old, vcpus=len(placement.vcpus), vcpus_max=len(placement.vcpus), placement=wanted)

    return Edit(lambda xml: alter.set_placement(xml, placement, 48), expect, forget)


def _forget_nic(root: ET.Element) -> None:
    alter._remove(root, alter._nic(root, NIC.mac))


def _add_nic() -> Edit:
    facts = NicFacts(NIC.mac, NIC.type, NIC.source)
    return Edit(lambda xml: alter.add_nic(xml, NIC), lambda old: replace(old, nics=(*old.nics, facts)), _forget_nic)


def _add_disk() -> Edit:
    def expect(old: ConfigFacts) -> ConfigFacts:
        taken = [disk.target for disk in old.disks]
        target = next(name for name in ("vdb", "vdc", "vdd") if name not in taken)
        return replace(old, disks=(*old.disks, DiskFacts(target, "/new.qcow2", "new", False, "qcow2")))

    def forget(root: ET.Element) -> None:
        alter._remove(root, alter._disk(root, DISK.serial))

    return Edit(lambda xml: alter.add_disk(xml, DISK), expect, forget)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Any that a plan may have, on a host of two nodes with 24 CPUs each."""
    cpus = st.sets(st.integers(0, 47), min_size=1, max_size=5).map(lambda found: tuple(sorted(found)))
    threads = draw(st.sampled_from((1, 2)))
    vcpus = threads * draw(st.integers(1, 6))
    cells: tuple[Cell, ...] = ()
    nodes, memory = draw(st.sampled_from((((), ""), ((1,), "strict"), ((0, 1), "strict"), ((0,), "preferred"))))
    if vcpus > 1 and draw(st.booleans()):
        half, memory = vcpus // 2, memory or "preferred"
        cells = (Cell(tuple(range(half)), 1 << 30, (0,)), Cell(tuple(range(half, vcpus)), 2 << 30, (1,)))
        threads = threads if half % threads == 0 else 1
    return Placement(tuple(draw(cpus) for _ in range(vcpus)), draw(cpus), draw(cpus), nodes, memory, cells, threads,
                     draw(st.sampled_from((0, 2 << 20, 1 << 30))))


CPUS = ("host-passthrough", "host-model", "maximum", "EPYC")
OWNERS = st.builds(OwnerFacts, *[st.text("abc1-.<&\"", min_size=1, max_size=9)] * 6, protect=st.booleans())
EDITS = st.one_of(
    st.builds(_vcpus, st.integers(1, 64), st.integers(1, 64)),
    st.builds(_memory, st.integers(64, 1 << 20)),
    st.builds(_type, st.sampled_from(["kvm", "qemu"])),
    st.builds(_cpu, st.sampled_from(CPUS), st.sampled_from(["kvm", "qemu"])),
    st.builds(_owner, OWNERS),
    st.builds(_placement, placements() | st.just(ANYWHERE)),
    st.builds(_add_nic),
    st.builds(_add_disk),
)


@given(domains(), EDITS)
def test_an_edit_changes_what_it_is_asked_to_and_nothing_else(before: str, edit: Edit) -> None:
    after = edit.make(before)
    old, new = tree.parse(before), tree.parse(after)
    facts, expected = config(after), edit.expect(config(before))
    if expected.vcpus_max == RAISED:  # raised: by how much is the design's choice
        assert facts.vcpus_max >= facts.vcpus
        expected = replace(expected, vcpus_max=facts.vcpus_max)
    if expected.placement == FOLLOWS:  # the rest of the XML is compared below, to the letter
        expected = replace(expected, placement=facts.placement)
    assert facts == expected
    edit.forget(old)
    edit.forget(new)
    assert canonical(new) == canonical(old)


@given(domains(), EDITS)
def test_an_edit_made_twice_is_made_once(before: str, edit: Edit) -> None:
    after = edit.make(before)
    try:
        again = edit.make(after)
    except VmwrightError as error:
        assert "already has a" in error.what
    else:
        assert same(again, after)


@given(domains(), st.data())
def test_a_nic_taken_out_leaves_the_others_where_they_are(before: str, data: st.DataObject) -> None:
    old = config(before)
    if not old.nics:
        assert alter.remove_nic(before, NIC.mac) == before
        return
    gone = data.draw(st.sampled_from(old.nics))
    after = alter.remove_nic(before, gone.mac.upper())
    assert config(after) == replace(old, nics=tuple(nic for nic in old.nics if nic != gone))
    root = tree.parse(before)
    alter._remove(root, alter._nic(root, gone.mac))
    assert canonical(tree.parse(after)) == canonical(root)


@given(domains())
def test_what_is_put_in_and_taken_out_again_leaves_no_trace(before: str) -> None:
    assert same(alter.remove_nic(alter.add_nic(before, NIC), NIC.mac), before)
    assert same(alter.remove_disk(alter.add_disk(before, DISK), DISK.serial), before)


@given(domains(), st.sampled_from(["network", "bridge"]), st.data())
def test_a_nic_moves_with_all_it_has(before: str, type: str, data: st.DataObject) -> None:
    old = config(before)
    nic = data.draw(st.sampled_from(old.nics)) if old.nics else None
    if nic is None:
        return
    after = alter.move_nic(before, nic.mac, type, "there")
    moved = NicFacts(nic.mac, type, "there")
    assert config(after) == replace(old, nics=tuple(moved if each == nic else each for each in old.nics))
    for attribute in ("address", "alias", "model", "mac", "bandwidth"):
        was, now = (alter._nic(tree.parse(xml), nic.mac) for xml in (before, after))
        assert was is not None and now is not None
        parts = [None if (part := each.find(attribute)) is None else canonical(part) for each in (was, now)]
        assert parts[0] == parts[1]


# -- one by one


def test_text_that_needs_no_change_stays_to_the_letter() -> None:
    for xml in (OURS, OTHERS):
        assert tree.render(tree.parse(xml)) == xml


@pytest.mark.parametrize(("vcpus", "topology"), [
    (6, {"sockets": "2", "dies": "1", "cores": "3", "threads": "1"}),
    (5, {"sockets": "1", "dies": "1", "cores": "5", "threads": "1"}),
])
def test_a_topology_follows_the_vcpus(vcpus: int, topology: dict[str, str]) -> None:
    """By NUMA cells the maximum is what is asked for; six divide by two sockets, five do not."""
    found = tree.parse(alter.set_vcpus(OTHERS, vcpus, 48)).find("cpu/topology")
    assert found is not None and found.attrib == topology


def test_numa_cells_keep_their_shares_and_their_sum() -> None:
    root = tree.parse(alter.set_memory(OTHERS, (10 << 30) + (1 << 20)))
    cells = [int(cell.get("memory", "")) for cell in root.iterfind("cpu/numa/cell")]
    assert sum(cells) == (10 << 20) + 1024
    assert cells[0] == 2560 << 10


def test_a_limit_for_pluggable_memory_is_raised_with_the_memory() -> None:
    limited = OTHERS.replace("<vcpu place", '<maxMemory slots="4" unit="GiB">16</maxMemory><vcpu place')
    for size, limit in ((12, ("16", "GiB")), (32, (str(32 << 20), "KiB"))):
        most = tree.parse(alter.set_memory(limited, size << 30)).find("maxMemory")
        assert most is not None and (most.text, most.get("unit"), most.get("slots")) == (*limit, "4")


def test_memory_modules_are_left_to_who_plugged_them_in() -> None:
    module = '<memory model="dimm"><target><size unit="GiB">1</size></target></memory>'
    xml = OTHERS.replace("<memballoon", f"{module}<memballoon")
    with pytest.raises(VmwrightError) as caught:
        alter.set_memory(xml, 1 << 30)
    assert str(caught.value) == (
        "the memory of VM nas cannot be changed\n"
        "  why: it has pluggable memory modules, which vmwright did not put there\n"
        "  do:  change it by hand (virsh edit), or remove the modules first")


def test_another_accelerator_brings_its_timers_and_leaves_the_others() -> None:
    """libvirt writes the emulator's path anew; what others have set of the clock stays."""
    there = tree.parse(alter.set_type(OURS, "qemu"))
    assert there.find("devices/emulator") is None
    assert [timer.get("name") for timer in there.iterfind("clock/timer")] == ["rtc", "hpet", "pit"]
    back = tree.parse(alter.set_type(tree.render(there), "kvm"))
    assert [(timer.get("name"), timer.get("present")) for timer in back.iterfind("clock/timer")][-1] == (
        "kvmclock", "yes")
    assert same(alter.set_type(OURS, "kvm"), OURS)


def test_our_mark_is_found_by_its_namespace_whatever_its_prefix() -> None:
    owner = OwnerFacts("c", "v", "t", "1", "i", "s", protect=True)
    renamed = OURS.replace("vmwright:vm", "w:vm").replace("xmlns:vmwright", "xmlns:w")
    declared_above = OURS.replace("vmwright:vm xmlns:vmwright=\"https://vmwright.dev/xmlns/vm/1\"", "w:vm").replace(
        "<metadata>", '<metadata xmlns:w="https://vmwright.dev/xmlns/vm/1">')
    by_default = OURS.replace("vmwright:vm", "vm").replace("xmlns:vmwright", "xmlns")
    for xml in (OURS, renamed, declared_above, by_default):
        assert config(xml).owner == config(OURS).owner
        changed = alter.set_owner(xml, owner)
        assert config(changed).owner == owner
        assert changed.count("https://vmwright.dev/xmlns/vm/1") == 1 + (xml is declared_above)


def test_a_mark_of_somebody_else_with_our_prefix_is_not_ours() -> None:
    theirs = OURS.replace("https://vmwright.dev/xmlns/vm/1", "urn:example:another-vmwright")
    assert config(theirs).owner is None
    assert "urn:example:another-vmwright" in alter.set_owner(theirs, OwnerFacts("c", "v", "t", "1", "i", "s"))


def test_a_volume_has_an_io_thread_where_the_vm_has_one() -> None:
    volume = DiskChoice("/dev/vg/new", "raw", "new", "vdb", block=True)
    with_threads = OURS.replace("<os ", "<iothreads>1</iothreads><os ", 1)
    for xml, thread in ((OURS, None), (with_threads, "1")):
        disk = tree.parse(alter.disk_xml(alter.add_disk(xml, volume), "new") or "")
        driver = disk.find("driver")
        assert driver is not None
        assert (disk.get("type"), driver.get("io"), driver.get("cache"), driver.get("iothread")) == (
            "block", "native", "none", thread)


def test_every_io_thread_is_pinned_and_what_others_tuned_stays() -> None:
    """I/O threads are numbered as they are listed; those that are not listed have the lowest free numbers."""
    threads = '<iothreads>3</iothreads><iothreadids><iothread id="2"/></iothreadids>'
    xml = OURS.replace("<os ", f"{threads}<cputune><shares>9</shares></cputune><os ", 1)
    after = alter.set_placement(xml, Placement(((4,), (5,)), (6,), (6, 7), (0,), "strict"), 48)
    assert config(after).placement == Placement(((4,), (5,)), (6,), (6, 7), (0,), "strict")
    tune = tree.parse(after).find("cputune")
    assert tune is not None
    assert [(pin.get("iothread"), pin.get("cpuset")) for pin in tune.iterfind("iothreadpin")] == [
        (str(number), "6-7") for number in (1, 2, 3)]
    assert tune.findtext("shares") == "9"
    assert same(alter.set_placement(after, ANYWHERE, 48), xml)


@pytest.mark.parametrize(("before", "memfd", "mounted"), [
    ("", "<source type='memfd'/>", ""),
    ("<locked/>", "<source type='memfd'/><locked/>", "<locked/>"),
    ("<source type='file'/>", "<source type='file'/>", "<source type='file'/>"),
    ("<source type='memfd'/><access mode='shared'/>",) * 3,
])
def test_huge_pages_come_by_memfd_without_a_mount_unless_others_said_from_where(
        before: str, memfd: str, mounted: str) -> None:
    xml = OURS.replace("<vcpu", f"<memoryBacking>{before}</memoryBacking><vcpu" if before else "<vcpu", 1)
    pages = "<hugepages><page size='1048576' unit='KiB'/></hugepages>"
    for sizes, after in (((1 << 30,), mounted), ((2 << 20,), memfd), ((1 << 30,), mounted)):
        placement = Placement(((1,), (2,)), (3,), hugepages=1 << 30)
        xml = alter.set_placement(xml, placement, 48, Ground("", frozenset(sizes)))
        backing = tree.parse(xml).find("memoryBacking")
        assert backing is not None
        assert canonical(backing) == canonical(tree.parse(f"<memoryBacking>{pages}{after}</memoryBacking>"))
    back = tree.parse(alter.set_placement(xml, ANYWHERE, 48)).find("memoryBacking")
    assert canonical(tree.parse(f"<memoryBacking>{before}</memoryBacking>")) == (
        canonical(back) if back is not None else "<memoryBacking></memoryBacking>")


def topoext(xml: str) -> list[str | None]:
    return [feature.get("policy") for feature in tree.parse(xml).iterfind("cpu/feature[@name='topoext']")]


def test_guests_with_amds_cpu_see_its_threads() -> None:
    """The CPU that is passed through lacks the feature; a named one has it, or libvirt works it out."""
    threads = Placement(((0,), (1,)), (2,), threads=2)
    placed = alter.set_placement(OURS, threads, 48, AMD)
    assert topoext(placed) == ["require"] == topoext(alter.set_placement(placed, threads, 48, AMD))
    for xml, placement, vendor in ((OURS, threads, "Intel"), (OURS, replace(threads, threads=1), "AMD"),
                                   (alter.set_type(OURS, "qemu"), threads, "AMD"),
                                   (alter.set_cpu(OURS, "EPYC", "kvm"), threads, "AMD")):
        assert topoext(alter.set_placement(xml, placement, 48, Ground(vendor))) == []
    named = alter.set_placement(alter.set_cpu(OURS, "EPYC", "kvm", AMD), threads, 48, AMD)
    assert topoext(alter.set_cpu(named, "host-passthrough", "kvm", AMD)) == ["require"]
    off = OURS.replace("<topology", '<feature policy="disable" name="topoext"/><topology')
    assert topoext(alter.set_placement(off, threads, 48, AMD)) == ["disable"]


def test_a_nic_or_disk_cannot_be_there_twice() -> None:
    with pytest.raises(VmwrightError, match=r"^VM nas already has a NIC with MAC 52:54:00:1A:2B:3C$"):
        alter.add_nic(OTHERS, NicChoice("52:54:00:1A:2B:3C", "bridge", "br0"))
    with pytest.raises(VmwrightError, match=r"^VM nas already has a disk with serial scratch$"):
        alter.add_disk(OTHERS, replace(DISK, serial="scratch"))


def test_a_nic_that_is_not_there_cannot_move() -> None:
    with pytest.raises(VmwrightError, match=r"^VM nas has no NIC with MAC 52:00:00:00:00:09$"):
        alter.move_nic(OTHERS, "52:00:00:00:00:09", "bridge", "br0")


def test_what_is_not_there_is_removed_already() -> None:
    assert alter.remove_disk(OTHERS, "gone") == OTHERS
    assert alter.remove_nic(OTHERS, "52:00:00:00:00:09") == OTHERS
    assert alter.disk_xml(OTHERS, "gone") is None
    assert alter.nic_xml(OTHERS, "52:00:00:00:00:09") is None


def _targets(xml: str) -> dict[str | None, str]:
    return {disk.serial: disk.target for disk in config(xml).disks}


def test_a_new_disk_gets_a_target_that_is_free_in_both_configurations() -> None:
    """A disk taken out of the definition of a running VM still holds its target there."""
    defined = alter.remove_disk(OURS, "data")
    assert _targets(alter.add_disk(defined, DISK))["new"] == "vdb"
    assert _targets(alter.add_disk(defined, DISK, running=OURS))["new"] == "vdc"


def test_there_are_targets_for_twenty_four_data_disks_and_no_more() -> None:
    xml = OURS
    for n in range(23):  # ours has one data disk
        xml = alter.add_disk(xml, replace(DISK, serial=f"d{n}"))
    assert sorted(_targets(xml).values())[-2:] == ["vdy", "vdz"]
    with pytest.raises(VmwrightError, match=r"^VM z-dev has as many disks as it can\n  do:  remove a data disk first$"):
        alter.add_disk(xml, DISK)


def test_a_device_is_handed_out_as_it_stands_or_without_its_place() -> None:
    disk, nic = alter.disk_xml(OTHERS, "S1"), alter.nic_xml(OTHERS, "52:54:00:1a:2b:3d")
    assert disk is not None and nic is not None
    assert "<address" in disk and "ua-system" in disk and "/dev/vg-libvirt/nas" in disk
    for device in (disk, nic):
        free = tree.parse(alter.unplaced(device))
        assert free.find("address") is None and free.find("alias") is None
        whole = tree.parse(device)
        tree.drop(whole, "address", "alias")
        assert canonical(free) == canonical(whole)
