"""Devices in the plan: which one is meant, and every reason why a VM cannot be given it. On a recorded server, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.facts.test_pci import GPU, NVME, zcloud
from tests.unit.plan.build import changes, cloud, made, plan, refused, told
from tests.unit.plan.drives import Drive
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import (
    BlockFacts,
    CpuFacts,
    DeviceFacts,
    DomainFacts,
    Facts,
    Held,
    HeldFacts,
    HostFacts,
    IommuFacts,
    PoolFacts,
    Use,
    UseFacts,
)
from vmwright.plan.actions import CreateVm, Given, Plan
from vmwright.plan.diff import make_plan
from vmwright.spec.cloud import Cloud, PinSpec

FIRST, SECOND = "S676NF0R908202", "S676NF0R908203"
SEE = "see what is there: vmwright facts --devices; then correct the file, or plug it in"
MOVE = "move the host's network to another interface first"
GROUP = ("0000:02:00.0", "0000:02:00.1", "0000:02:00.2", "0000:02:00.3")


def file(devices: str, *uses: str, more: str = "") -> Cloud:
    """A file that sets these devices aside; each of `uses` makes a VM: a, b, ..."""
    rows = "".join(f"  {name}: {{template: base, memory: 1G, address: 10.0.0.{10 + place}, devices: {use}}}\n"
                   for place, (name, use) in enumerate(zip("abcd", uses, strict=False)))
    return cloud(f"hosts:\n  here:\n    pools: {{images: {{dir: /srv/images}}}}\n    devices: {devices}\n{more}vms:\n"
                 f"{rows}" if rows else f"hosts:\n  here: {{devices: {devices}, {more}}}\nvms: {{}}\n")


def server(**changed: Any) -> HostFacts:
    """The reference server, with room for guests."""
    host, found = zcloud(), Machine().facts(cloud())
    return replace(found, devices=host.devices, iommu=host.iommu, blocks=host.blocks, cpu_list=host.cpu_list,
                   nodes=host.nodes, **changed)


def device(host: HostFacts, address: str, **changed: Any) -> HostFacts:
    """The host with one device changed."""
    return replace(host, devices=tuple(replace(d, **changed) if d.address == address else d for d in host.devices))


def planned(wanted: Cloud, host: HostFacts) -> Plan:
    return make_plan(wanted, Facts((host,)))


def why_not(wanted: Cloud, host: HostFacts) -> list[str]:
    return refused(planned(wanted, host))


def given(found: Plan) -> dict[str, tuple[Given, ...]]:
    return {action.vm.name: action.devices for action in found.actions if isinstance(action, CreateVm)}


def note(address: str, serial: str | None, vm: str = "a", state: Held = Held.GIVEN, name: str = "lab") -> HeldFacts:
    return HeldFacts(address, serial, name, vm, state, "nvme")


# -- which one --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec", [
    f"{{serial: {FIRST}}}", '{address: "05:00.0"}', f'{{serial: {FIRST}, address: "05:00.0"}}'])
def test_a_device_by_serial_by_address_or_both(spec: str) -> None:
    found = planned(file(f"{{n: {spec}}}", "n"), server())
    assert not found.refused
    assert given(found) == {"a": (Given("n", NVME[0], FIRST),)}
    assert "device n: 05:00.0, S676NF0R908202, with what is on it (931.5G, no signature)" in changes(
        next(a for a in found.actions if isinstance(a, CreateVm)))


def test_a_serial_that_nobody_has() -> None:
    assert why_not(file("{n: {serial: S0}}", "n"), server()) == [
        f"device n: host here has no device with the serial S0\n    {SEE}"]


def test_an_address_where_nothing_is() -> None:
    assert why_not(file('{n: {address: "06:00.0"}}', "n"), server()) == [
        f"device n: host here has no PCI device at 0000:06:00.0\n    {SEE}"]


def test_a_serial_and_an_address_that_do_not_agree() -> None:
    assert why_not(file(f'{{n: {{serial: {FIRST}, address: "08:00.0"}}}}', "n"), server()) == [
        f"device n (08:00.0): its serial is {SECOND}, and the file says {FIRST}\n    {FIRST} is at 05:00.0 now: "
        "take its address out of the file, or correct it"]
    assert why_not(file('{n: {serial: S0, address: "08:00.0"}}', "n"), server()) == [
        f"device n (08:00.0): its serial is {SECOND}, and the file says S0\n    {SEE}"]
    assert why_not(file('{n: {serial: S0, address: "82:00.0"}}', "n"), server()) == [
        f"device n (82:00.0): it has no serial that could be read, and the file says S0\n    {SEE}"]


def test_a_serial_that_several_ports_have() -> None:
    host = server()
    for address in GROUP:
        host = device(host, address, serial="MAC")
    (problem,) = why_not(file("{n: {serial: MAC}}", "n"), host)
    assert problem == ("device n: 4 devices of host here have the serial MAC: 02:00.0, 02:00.1, 02:00.2, 02:00.3\n"
                       "    give its address, too")


def hidden(**changed: Any) -> HostFacts:
    """The first drive is another driver's, so that its serial cannot be read."""
    return device(server(**changed), NVME[0], driver="vfio-pci", serial=None, blocks=())


def test_a_serial_that_cannot_be_read() -> None:
    """Its address tells which it is; with our note, its serial does."""
    assert why_not(file(f"{{n: {{serial: {FIRST}}}}}", "n"), hidden()) == [
        f"device n: host here has no device with the serial {FIRST}, as far as serials can be read; not read: 05:00.0 "
        "(vfio-pci)\n    give its address, too, or give it back to its driver on the host"]
    found = planned(file(f'{{n: {{serial: {FIRST}, address: "05:00.0"}}}}', "n"), hidden())
    assert not found.refused and given(found)["a"][0].serial is None
    assert (f"device n (05:00.0): its serial cannot be read while vfio-pci has it; it is taken for {FIRST} by its "
            "address alone") in found.warnings
    known = planned(file(f"{{n: {{serial: {FIRST}}}}}", "n"), hidden(held=(note(NVME[0], FIRST),)))
    assert not known.refused and given(known)["a"] == (Given("n", NVME[0], FIRST),)


def test_a_note_about_another_drive_does_not_count() -> None:
    """Where the serial can be read, it says that the drive there is another one."""
    (problem,) = why_not(file("{n: {serial: OLD}}", "n"), server(held=(note(NVME[0], "OLD", "z"),)))
    assert problem.startswith("device n: host here has no device with the serial OLD\n")
    found = planned(file('{n: {address: "05:00.0"}}', "n"), server(held=(note(NVME[0], "OLD", "z"),)))
    assert not found.refused, "what was vm z's is not here"


def test_a_drive_that_was_moved_is_known_by_its_serial() -> None:
    moved = server(held=(note("0000:99:00.0", FIRST, "z"),))
    (problem,) = why_not(file('{n: {address: "05:00.0"}}', "n"), moved)
    assert problem.startswith("vm a: device n (05:00.0) was vm z's last, and what that one has left is still on it\n")


def test_ports_of_a_card_have_a_note_each() -> None:
    """They have one serial: a note about one of them says nothing of the others."""
    host = server(held=(note(GROUP[0], "MAC", "z"),))
    for address in GROUP[:2]:
        host = device(host, address, serial="MAC", group=int(address[-1]), peers=(), uses=())
    found = planned(file('{n: {address: "02:00.1"}}', "n"), host)
    assert not found.refused and given(found)["a"] == (Given("n", GROUP[1], "MAC"),)


def test_two_names_of_the_same_device() -> None:
    wanted = file(f'{{one: {{serial: {FIRST}}}, two: {{address: "05:00.0"}}}}', "one", "two")
    (problem,) = planned(wanted, server()).refused
    assert problem.what == "vm b: device two (05:00.0) is given twice: it is device one of vm a"
    assert str(problem.where) == "cloud.yaml:11:64"


# -- can it be given --------------------------------------------------------------------------------------------------

ALONE = file(f"{{n: {{serial: {FIRST}}}}}", "n")


@pytest.mark.parametrize(("iommu", "why"), [
    (IommuFacts(False), "the firmware tells of none\n    switch it on in the firmware's setup (VT-d, AMD-Vi), then "
                        "apply again"),
    (IommuFacts(False, "DMAR", ("iommu=pt",)),
     "the firmware tells of one (DMAR), and the kernel does not use it (its command line has: iommu=pt)\n"
     "    say `iommu: true` for the host: then vmwright switches it on, which takes a reboot"),
    (IommuFacts(False, "IVRS"),
     "the firmware tells of one (IVRS), and the kernel does not use it\n"
     "    say `iommu: true` for the host: then vmwright switches it on, which takes a reboot"),
])
def test_an_iommu_that_is_off(iommu: IommuFacts, why: str) -> None:
    """Where the file does not say that it is to be switched on."""
    said = f"host here: its IOMMU is off, so no device can be given to a VM: {why}"
    assert why_not(ALONE, replace(server(), iommu=iommu)) == [said]
    assert not planned(file("{}", more="iommu: true"), server()).refused


def test_vms_wait_for_an_iommu_that_is_to_be_switched_on() -> None:
    """What can be given to whom is not known before."""
    found = planned(file(f"{{n: {{serial: {FIRST}}}}}", "n", more="    iommu: true\n"),
                    replace(server(), iommu=IommuFacts(False, "DMAR")))
    assert not found.refused
    assert [type(action).__name__ for action in found.first] == ["SetKernelArguments"]
    assert not given(found)
    assert ("vm a", "waits until the IOMMU is on, for its devices") in [(kept.object, kept.why) for kept in found.kept]


def test_facts_without_devices() -> None:
    assert why_not(ALONE, Machine().facts(ALONE)) == [
        "host here: the facts do not have its devices\n    record them anew: vmwright facts --devices --json"]


def test_a_group_with_others_that_stay_with_the_host() -> None:
    host = server()
    for address in GROUP:
        host = device(host, address, uses=())
    ports = "{" + ", ".join(f'p{n}: {{address: "02:00.{n}"}}' for n in range(4)) + "}"
    assert why_not(file(ports, "[p0, p1]"), host)[0] == (
        "vm a: device p0 (02:00.0) shares IOMMU group 34 with 02:00.2 (tg3), 02:00.3 (tg3), which would stay with "
        "the host\n    give all of the group to a, or use a device (or slot) that is alone in its group; see vmwright "
        "facts --devices")
    assert not planned(file(ports, "[p0, p1, p2, p3]"), host).refused
    assert ("vm b: device p3 (02:00.3) shares IOMMU group 34 with 02:00.0, which is vm a's\n    all members of a "
            "group go to one VM") in why_not(file(ports, "[p0, p1, p2]", "p3"), host)


def test_bridges_and_idle_devices_in_a_group_do_not_count() -> None:
    """A bridge is nobody's; what no driver has, or one for guests, nobody of the host needs."""
    others = (DeviceFacts("0000:00:03.0", "8086:2f08", "060400", driver="pcieport", group=39),
              DeviceFacts("0000:05:00.1", "144d:0000", "088000", driver=None, group=39),
              DeviceFacts("0000:05:00.2", "144d:0000", "088000", driver="vfio-pci", group=39))
    host = device(server(), NVME[0], peers=tuple(other.address for other in others))
    host = replace(host, devices=(*host.devices, *others))
    assert not planned(ALONE, host).refused


def test_a_device_without_a_group() -> None:
    (problem,) = why_not(ALONE, device(server(), NVME[0], group=None))
    assert problem.startswith("vm a: device n (05:00.0) is in no IOMMU group, so nothing would keep it within its VM\n")


def test_a_bridge() -> None:
    (problem,) = why_not(file('{n: {address: "00:1f.0"}}', "n"), server())
    assert problem.startswith("vm a: device n (00:1f.0) is a bridge of the host's, which no VM can be given")


@pytest.mark.parametrize(("use", "why", "todo"), [
    (UseFacts(Use.MOUNT, "/dev/nvme0n1p1", "/data"), "/dev/nvme0n1p1 is mounted at /data",
     "unmount it (umount /data; and see /etc/fstab)"),
    (UseFacts(Use.SWAP, "/dev/nvme0n1"), "/dev/nvme0n1 is swap space in use",
     "end that (swapoff /dev/nvme0n1; and see /etc/fstab)"),
    (UseFacts(Use.LVM, "/dev/nvme0n1", "data"), "/dev/nvme0n1 is a physical volume of volume group data",
     "take it out of the group (vgreduce, pvremove) or remove the group (vgremove data)"),
    (UseFacts(Use.LVM, "/dev/nvme0n1"), "/dev/nvme0n1 is a physical volume of LVM",
     "see of which group (pvs), and take it out of that"),
    (UseFacts(Use.RAID, "/dev/md0"), "/dev/md0 stands on it", "stop it (mdadm --stop /dev/md0)"),
    (UseFacts(Use.RAID, "/dev/nvme0n1", "linux_raid_member"),
     "/dev/nvme0n1 is part of something that holds several devices (linux_raid_member)", "take it out of that"),
    (UseFacts(Use.HOLDER, "/dev/mapper/x"), "/dev/mapper/x stands on it",
     "close that (cryptsetup close, multipath -f, ...)"),
    (UseFacts(Use.DISK, "other", "/dev/nvme0n1"), "vm other has a disk there, /dev/nvme0n1",
     "take that disk out of other"),
    (UseFacts(Use.ROUTE, "eno1", "br0"), "the default route goes by eno1", MOVE),
    (UseFacts(Use.SESSION, "eno1", "10.0.0.1"), "the ssh session of vmwright comes in by eno1", MOVE),
    (UseFacts(Use.LINK, "eno1", "br0"), "its interface eno1 belongs to br0", MOVE),
    (UseFacts(Use.LINK, "eno1", "10.0.0.1/24"), "its interface eno1 has the address 10.0.0.1/24", MOVE),
])
def test_each_use_by_the_host(use: UseFacts, why: str, todo: str) -> None:
    assert why_not(ALONE, device(server(), NVME[0], uses=(use,))) == [
        f"vm a: device n (05:00.0) is in use by the host: {why}\n    {todo}, or give a another device"]


def test_every_use_has_words() -> None:
    """So that one that is added is told, too."""
    for use in set(Use) - {Use.VM}:
        assert why_not(ALONE, device(server(), NVME[0], uses=(UseFacts(use, "by", "what"),)))


def test_what_a_guest_has_left_on_its_drive_is_no_use_of_the_hosts() -> None:
    """Signatures and volumes of its own are tolerated; what is mounted or stands on them is not; nor a pool's."""
    uses = (UseFacts(Use.LVM, "/dev/nvme0n1"), UseFacts(Use.RAID, "/dev/nvme0n1", "linux_raid_member"))
    own = device(server(held=(note(NVME[0], FIRST),)), NVME[0], uses=uses)
    assert not planned(ALONE, own).refused
    active = replace(own, blocks=(*own.blocks, BlockFacts("/dev/mapper/ceph-osd", 1 << 30, "lvm", ("/dev/nvme0n1",))))
    found = planned(ALONE, active)
    assert not found.refused
    assert ("vm a: on device n (05:00.0), the host has found the guest's own volumes and made them active "
            "(/dev/mapper/ceph-osd); they are switched off there before the guest gets it") in found.warnings
    mounted = device(active, NVME[0], uses=(*uses, UseFacts(Use.MOUNT, "/dev/mapper/ceph-osd", "/mnt")))
    assert len(why_not(ALONE, mounted)) == 1
    pool = PoolFacts("ceph", "logical", "/dev/ceph", True, True, 1, 1)
    assert len(why_not(ALONE, replace(active, pools=(pool,)))) == 2


def test_the_use_of_a_vm_that_is_off_and_stays_so_is_not_asked() -> None:
    """The host may look at what is on its drive."""
    machine = Machine(drives={NVME[0]: Drive(FIRST)})
    on = made(ALONE, machine)
    off = cloud_with(running="false")
    on.domains["a"].live = None
    on.drives[NVME[0]].driver, on.drives[NVME[0]].user = "nvme", ""
    mounted = device(on.facts(off), NVME[0], uses=(UseFacts(Use.MOUNT, "/dev/nvme0n1", "/mnt"),))
    assert not why_not(off, mounted)
    assert len(why_not(ALONE, mounted)) == 1


def cloud_with(**given: str) -> Cloud:
    """One VM, a, with the first drive, and this said of it."""
    more = "".join(f", {key}: {value}" for key, value in given.items())
    return cloud(f"""
        hosts: {{here: {{pools: {{images: {{dir: /srv/images}}}}, devices: {{n: {{serial: {FIRST}}}}}}}}}
        vms: {{a: {{template: base, memory: 1G, address: 10.0.0.10, devices: n{more}}}}}
        """)


def foreign(host: HostFacts, name: str, address: str) -> HostFacts:
    """A VM of others that has a device."""
    template = made(cloud()).facts(cloud()).domains[0]
    config = replace(template.persistent, owner=None, hostdevs=(address,))
    return replace(host, domains=(DomainFacts(name, "u", template.state, False, config, config),))


def test_a_device_that_a_vm_of_others_has() -> None:
    assert why_not(ALONE, foreign(server(), "other", NVME[0])) == [
        "vm a: device n (05:00.0) is given to vm other, which cloud lab did not make\n    take it out of that VM first "
        "(virsh detach-device other, or virsh edit), or name another device"]


def test_a_group_of_which_a_vm_of_others_has_a_part() -> None:
    host = device(server(), NVME[0], peers=(NVME[1],))
    host = device(host, NVME[1], driver="vfio-pci", group=39)
    assert why_not(ALONE, foreign(host, "other", NVME[1])) == [
        "vm a: device n (05:00.0) shares IOMMU group 39 with 08:00.0, which is vm other's\n    all members of a group "
        "go to one VM"]


def test_a_device_far_from_its_vms_cpus_is_told_once() -> None:
    wanted = file(f'{{n: {{serial: {FIRST}}}, gpu: {{address: "82:00.0"}}}}', "[n, gpu]", "[]")
    wanted = replace(wanted, vms=(replace(wanted.vms[0], pin=PinSpec((24, 25))), *wanted.vms[1:]))
    assert [text for text in planned(wanted, server()).warnings if "NUMA" in text] == [
        "vm a: device gpu (82:00.0) is on NUMA node 1, and its CPUs are on node 0: what goes between them is slower"]
    unknown = replace(server(), cpu_list=(CpuFacts(24), CpuFacts(25)))
    assert not [text for text in planned(wanted, unknown).warnings if "NUMA" in text]


def test_a_display_that_the_host_may_need() -> None:
    host = device(server(), GPU, kind="030000", driver="mgag200")
    found = planned(file('{gpu: {address: "82:00.0"}}', "gpu"), host)
    assert not found.refused
    assert ("vm a: device gpu (82:00.0) is a display that mgag200 drives; if it is the host's own screen, nothing is "
            "shown there while the VM has it") in found.warnings


def test_a_vm_whose_memory_is_saved() -> None:
    plain = cloud("vms: {a: {template: base, memory: 1G, address: 10.0.0.10}}\n")
    machine = made(plain, Machine(drives={NVME[0]: Drive(FIRST)}))
    machine.domains["a"].live = None
    host = machine.facts(ALONE)
    saved = replace(host, domains=tuple(replace(domain, saved=True) for domain in host.domains))
    assert why_not(ALONE, saved) == [
        "vm a: its memory is saved in a file, and it would go on from there without its devices\n    start it and shut "
        "it down; or, if what it was at may be lost: virsh managedsave-remove a"]
    assert told(planned(ALONE, host)) == ["~ vm a: change", "~ vm a: start"]


def test_a_vm_with_devices_is_not_moved() -> None:
    machine = made(cloud("vms: {a: {template: base, memory: 1G, address: 10.0.0.10}}\n"))
    wanted = cloud(f"""
        hosts:
          here: {{pools: {{images: {{dir: /srv/images}}}}}}
          there:
            connect: ssh://root@there
            pools: {{images: {{dir: /srv/images}}}}
            devices: {{n: {{serial: {FIRST}}}}}
        networks: {{lan: {{nat: 10.0.0.0/24}}}}
        vms: {{a: {{template: base, host: there, memory: 1G, address: 10.0.0.10, devices: n}}}}
        """)
    other = replace(server(), name="there")
    found = make_plan(wanted, Facts((machine.facts(wanted), other)))
    assert refused(found) == [
        "vm a is on host here, and the file has it on there; one that has devices of its host cannot be moved\n    say "
        "`host: here`, or first: vmwright destroy a"]


def test_plans_say_the_same_when_nothing_is_to_do() -> None:
    machine = made(ALONE, Machine(drives={NVME[0]: Drive(FIRST)}))
    found = plan(ALONE, machine)
    assert not found.actions and not found.refused and not found.warnings
