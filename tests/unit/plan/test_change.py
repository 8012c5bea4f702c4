"""VMs that are there: each difference, mended in place, now or at the next start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.plan.build import changes, cloud, facts, made, only, plan, refused, told, vm
from tests.unit.plan.simulate import Machine, carry_out

from vmwright.facts.model import DomainState, Kvm, NicFacts
from vmwright.plan.action import Effect
from vmwright.plan.actions import GrowDisk, Plan, RestartVm, StartVm, UpdateVm
from vmwright.plan.diff import make_plan
from vmwright.units import GIB

STOPS, LATER = Effect.STOPS, Effect.NEXT_START
TWO = "networks: {lan: {nat: 10.0.0.0/24}, wan: {bridge: br0, subnet: 10.9.0.0/24}}\n"
ONE_NIC = TWO + "vms: {web: {template: base, memory: 1G, nics: [{network: lan, address: 10.0.0.10}]}}\n"


def why(found: Plan, object: str = "vm web") -> str:
    """Why something is left alone."""
    return {kept.object: kept.why for kept in found.kept}[object]


def update(machine: Machine, text: str, **request: bool) -> UpdateVm:
    """The change of web that a file asks for."""
    action = plan(cloud(text), machine, **request).actions[0]
    assert isinstance(action, UpdateVm)
    assert (action.sign, action.object, action.verb, action.why) == (
        "~", "vm web", "change", "the file says otherwise")
    return action


def stopped(text: str) -> Machine:
    """A machine on which web has been made, and is off."""
    machine = made(cloud(text))
    machine.domains["web"].live = None
    return machine


@pytest.mark.parametrize(("before", "after", "rows", "live", "effects"), [
    (vm(vcpus=1), vm(vcpus=2), ["vcpus: 1 -> 2 (now)"], {"vcpus"}, set()),
    (vm(vcpus=1), vm(vcpus=8), ["vcpus: 1 -> 8 (at next start)"], set(), {LATER}),  # more than it can grow to
    (vm(vcpus=2), vm(vcpus=1), ["vcpus: 2 -> 1 (at next start)"], set(), {LATER}),
    (vm(memory="1G"), vm(memory="2G"), ["memory: 1G -> 2G (at next start)"], set(), {LATER}),
    (vm(memory="2G"), vm(memory="1G"), ["memory: 2G -> 1G (at next start)"], set(), {LATER}),
    (vm(), vm(autostart="true"), ["autostart: no -> yes"], set(), set()),
    (vm(autostart="true"), vm(), ["autostart: yes -> no"], set(), set()),
    (vm(), vm(protect="true"), ["protect: no -> yes"], set(), set()),
    (vm(protect="true"), vm(), ["protect: yes -> no"], set(), set()),
    (vm(), vm(cpu="qemu64"), ["cpu: host-passthrough -> qemu64 (at next start)"], set(), {LATER}),
    (vm(), vm(timezone="Asia/Shanghai"), ["cloud-init data: as it was told -> other timezone (at next start)"], set(),
     {LATER}),
    (vm(), vm(disks="{data: 2G}"), ["disk data: new 2G (now)"], {"add_disks"}, set()),
    (vm(disks="{data: 2G}"), vm(), ["disk data: attached -> detached; its volume is kept (at next start)"], set(),
     {LATER}),
])
def test_each_difference_is_mended_in_place(before: str, after: str, rows: list[str], live: set[str],
                                            effects: set[Effect]) -> None:
    machine = made(cloud(before))
    action = update(machine, after)
    assert [row.replace("data: 2G", "data: new 2G") for row in changes(action)] == rows
    assert (action.live, action.effects) == (live, effects)
    wanted = cloud(after)
    assert not carry_out(plan(wanted, machine), wanted, machine)
    again = plan(wanted, machine)
    assert not again.actions
    assert ("next start" in why(again)) == bool(effects)


@pytest.mark.parametrize("changed", [
    {"vcpus": 2}, {"memory": "2G"}, {"cpu": "qemu64"}, {"timezone": "Asia/Shanghai"}, {"disks": "{data: 2G}"},
    {"address": "10.0.0.11"}])
def test_a_vm_that_is_off_has_nothing_to_wait_for(changed: dict[str, object]) -> None:
    action = update(stopped(vm(running="false")), vm(running="false", **changed))
    assert not action.live and not action.effects
    assert all(not change.when for change in action.changes)


@pytest.mark.parametrize(("text", "parts"), [
    (vm(address="10.0.0.11"), "network"),
    (vm(packages="[vim]"), "packages"),
    (vm(runcmd="['true']"), "commands"),
    (vm(write_files="[{path: /a, content: b}]"), "files"),
    (vm(ntp="[10.0.0.9]"), "NTP servers"),
    (vm(proxy="'http://10.0.0.9:3128'"), "proxy"),
    (vm(locale="C.UTF-8", timezone="Etc/UTC"), "timezone, locale"),
    ("users: {other: {ssh_keys: [KEY]}}\n" + vm(), "users"),
    (vm(disks="{data: {size: 1G, mount: /srv}}"), "disks to mount"),
])
def test_cloud_init_data_says_which_part_differs(text: str, parts: str) -> None:
    rows = changes(update(made(cloud()), text))
    assert f"cloud-init data: as it was told -> other {parts} (at next start)" in rows


def test_a_vm_of_before_the_parts_were_marked() -> None:
    wanted, machine = cloud(vm(packages="[vim]")), made(cloud())
    domain = machine.facts(wanted).domains[0]
    owner = domain.persistent.owner
    assert owner
    old = replace(domain, persistent=replace(domain.persistent, owner=replace(owner, seed=owner.seed.split(" ")[0])))
    action = only(make_plan(wanted, facts(wanted, machine, domains=(old,))))
    assert changes(action) == ["cloud-init data: as it was told -> other (at next start)"]
    same = cloud()
    assert not make_plan(same, facts(same, machine, domains=(old,))).actions


def test_new_cloud_init_data_is_a_new_incarnation() -> None:
    machine = made(cloud())
    owner = machine.facts(cloud()).domains[0].persistent.owner
    action = update(machine, vm(packages="[vim]"))
    assert owner and action.instance and action.instance != owner.instance
    assert action.seed and action.seed.split(" ")[0] != owner.seed.split(" ")[0]


def test_nics_are_known_by_their_macs() -> None:
    one = ONE_NIC
    two = one.replace("10.0.0.10}]", "10.0.0.10}, {network: wan, address: 10.9.0.10}]")
    machine = made(cloud(one))
    macs = [nic.mac for nic in cloud(two).vms[0].nics]
    action = update(machine, two)
    assert changes(action)[0] == f"NIC {macs[1]}: network wan (br0) (now)"
    assert [nic.mac for nic, _, _ in action.add_nics] == [macs[1]]
    assert Effect.CUTS_OFF not in action.effects
    carry_out(plan(cloud(two), machine), cloud(two), machine)
    action = update(machine, one)
    assert changes(action)[0] == f"NIC {macs[1]}: network br0 -> removed (now)"
    assert action.remove_nics == (macs[1],) and Effect.CUTS_OFF in action.effects


def test_a_nic_on_another_network_is_moved() -> None:
    one = ONE_NIC
    moved = one.replace("{network: lan, address: 10.0.0.10}", "{network: wan, address: 10.9.0.10}")
    machine = made(cloud(one))
    mac = cloud(one).vms[0].nics[0].mac
    action = update(machine, moved)
    assert changes(action)[0] == f"NIC {mac}: network lan -> network wan (br0) (now)"
    assert action.move_nics == ((mac, "bridge", "br0"),) and Effect.CUTS_OFF in action.effects
    machine.domains["web"].live = None
    off = next(a for a in plan(cloud(moved), machine).actions if isinstance(a, UpdateVm))
    assert Effect.CUTS_OFF not in off.effects


def test_a_nic_that_somebody_plugged_in_is_left_alone() -> None:
    wanted, machine = cloud(), made(cloud())
    domain = machine.facts(wanted).domains[0]
    more = replace(domain.persistent, nics=(*domain.persistent.nics, NicFacts("52:54:00:00:00:01", "bridge", "br7")))
    theirs = facts(wanted, machine, domains=(replace(domain, persistent=more, live=more),))
    assert not make_plan(wanted, theirs).actions

    assert domain.persistent.owner is not None
    unsaid = replace(more, owner=replace(domain.persistent.owner, nics=None))
    action = only(make_plan(wanted, facts(wanted, machine, domains=(replace(domain, persistent=unsaid, live=unsaid),))))
    assert changes(action) == ["NIC 52:54:00:00:00:01: network br7 -> removed (now)"]


def test_a_nic_that_came_by_a_change_goes_by_a_change() -> None:
    """The mark says which NICs are ours after every change."""
    one, two = cloud(vm()), cloud(vm().replace("address: 10.0.0.10", "nics: [{network: lan, address: 10.0.0.10}, "
                                                                     "{network: lan, address: 10.0.0.20}]"))
    machine = made(one)
    for wanted in (two, one):
        found = plan(wanted, machine)
        assert not carry_out(found, wanted, machine)
        owner = machine.facts(wanted).domains[0].persistent.owner
        assert owner is not None and owner.nics == tuple(nic.mac for nic in wanted.vms[0].nics)
        assert not plan(wanted, machine).actions


def test_a_disk_that_somebody_attached_is_left_alone() -> None:
    wanted, machine = cloud(), made(cloud())
    domain = machine.facts(wanted).domains[0]
    theirs = replace(domain.persistent.disks[0], serial="backup", path="/backup/web.qcow2")
    more = replace(domain.persistent, disks=(*domain.persistent.disks, theirs))
    assert not make_plan(wanted, facts(wanted, machine, domains=(replace(domain, persistent=more, live=more),))).actions


def test_a_detached_disk_keeps_its_data_and_comes_back_with_it() -> None:
    machine = made(cloud(vm(disks="{data: 2G}")))
    carry_out(plan(cloud(), machine), cloud(), machine)
    found = plan(cloud(), machine)
    assert [(kept.object, kept.why) for kept in found.unlisted] == []  # the running VM still has it
    carry_out(plan(cloud(), machine, restart=True), cloud(), machine)
    found = plan(cloud(), machine)
    assert [(kept.object, kept.why) for kept in found.unlisted] == [(
        "disk data of vm web", "is no longer in the file; its volume stays (64M): name it again to attach it, or: "
                               "virsh vol-delete lab.web.disk-data.qcow2 images")]
    assert not plan(cloud(), machine, prune=True).actions
    action = update(machine, vm(disks="{data: 3G}"))
    assert changes(action) == ["disk data: 2G, with the data it has (now)"]
    assert told(plan(cloud(vm(disks="{data: 3G}")), machine)) == ["~ vm web: change", "~ vm web disk data: grow"]
    wanted = cloud(vm(disks="{data: 3G}"))
    assert not carry_out(plan(wanted, machine), wanted, machine)
    image = machine.images()["/srv/images/lab.web.disk-data.qcow2"]
    assert image.used and image.capacity == 3 * GIB


@pytest.mark.parametrize(("before", "after", "said", "place"), [
    (vm(disk="8G"), vm(disk="6G"),
     "vm web: its disk is 8G and cannot become 6G: what is at its end would be lost\n"
     "    say 8G or more; for a smaller one, rebuild the VM", "cloud.yaml:6:77"),
    (vm(disks="{data: 2G}"), vm(disks="{data: 1537M}"),
     "vm web: disk data is 2G and cannot become 1537M: what is at its end would be lost\n"
     "    say 2G or more; for a smaller one, move the data to a new disk", "cloud.yaml:6:85"),
])
def test_shrinking_is_refused_with_its_place(before: str, after: str, said: str, place: str) -> None:
    found = plan(cloud(after), made(cloud(before)))
    assert refused(found) == [said]
    assert "vm web" not in {kept.object for kept in found.kept}
    assert str(found.refused[0].where) == place


def test_a_template_that_became_smaller_shrinks_nobody() -> None:
    machine = made(cloud())
    wanted = cloud("templates: {base: {build: debian, disk: 3G}}\n" + vm())
    found = plan(wanted, machine)
    assert not found.refused
    assert told(found) == ["+ template base: make"]


def test_a_disk_as_large_as_its_template_grows_with_it() -> None:
    machine = made(cloud())
    wanted = cloud("templates: {base: {build: debian, disk: 6G}}\n" + vm())
    assert told(plan(wanted, machine)) == ["+ template base: make", "~ vm web disk root: grow"]


def test_growing_says_from_what_to_what() -> None:
    machine = made(cloud(vm(disks="{data: 2G}")))
    root, data = plan(cloud(vm(disk="6G", disks="{data: 3G}")), machine).actions
    assert isinstance(root, GrowDisk) and isinstance(data, GrowDisk)
    assert (root.sign, root.object, root.verb, root.why) == ("~", "vm web disk root", "grow", "the file says more")
    assert changes(root) == ["size: 4G -> 6G (now)"]
    assert changes(data) == ["size: 2G -> 3G (now)"]
    assert (root.running, root.root, data.root, data.serial) == (True, True, False, "data")
    assert data.needs == (root.id,)


def test_a_disk_of_a_vm_that_is_off_grows_at_its_next_start() -> None:
    machine = stopped(vm(running="false"))
    action = only(plan(cloud(vm(running="false", disk="6G")), machine))
    assert isinstance(action, GrowDisk) and not action.running
    assert changes(action) == ["size: 4G -> 6G (at next start)"]
    assert action.effects == {LATER}


def test_what_is_off_is_grown_before_it_is_started() -> None:
    machine = stopped(vm())
    found = plan(cloud(vm(disk="6G", vcpus=2)), machine)
    assert told(found) == ["~ vm web: change", "~ vm web disk root: grow", "~ vm web: start"]
    change, grow, start = found.actions
    assert (grow.needs, start.needs) == ((change.id,), (grow.id,))
    assert isinstance(start, StartVm) and start.why == "it is shut off, and the file wants it running"
    assert changes(start) == ["state: shut off -> running"]


def test_a_disk_that_the_running_vm_does_not_have_is_grown_as_a_file() -> None:
    """Plugging it in was cut off: libvirt could not resize it in the VM."""
    wanted, machine = cloud(vm(disks="{data: 3G}")), made(cloud(vm(disks="{data: 2G}")))
    domain = machine.facts(wanted).domains[0]
    assert domain.live
    without = replace(domain.live, disks=tuple(disk for disk in domain.live.disks if disk.serial != "data"))
    action = only(make_plan(wanted, facts(wanted, machine, domains=(replace(domain, live=without),))))
    assert isinstance(action, GrowDisk) and not action.running


def test_crashed_is_off_and_paused_is_on() -> None:
    wanted, machine = cloud(), made(cloud())
    domain = machine.facts(wanted).domains[0]
    gone = replace(domain, state=DomainState.CRASHED, live=None)
    crashed = make_plan(wanted, facts(wanted, machine, domains=(gone,)))
    assert only(crashed).why == "it is crashed, and the file wants it running"
    paused = make_plan(wanted, facts(wanted, machine, domains=(replace(domain, state=DomainState.PAUSED),)))
    assert not paused.actions
    assert why(paused) == "is as the file says, but is paused: virsh resume web, when you know why"


def test_running_false_is_no_reason_to_stop() -> None:
    machine = made(cloud())
    found = plan(cloud(vm(running="false")), machine)
    assert not found.actions
    assert why(found) == "is as the file says, but runs: vmwright stop web"
    machine.domains["web"].live = None
    assert not plan(cloud(vm(running="false")), machine).actions
    assert told(plan(cloud(), machine)) == ["~ vm web: start"]


def test_what_waits_for_the_next_start_is_told_and_restarted_when_asked() -> None:
    machine, wanted = made(cloud()), cloud(vm(memory="2G", packages="[vim]", cpu="qemu64"))
    carry_out(plan(wanted, machine), wanted, machine)
    found = plan(wanted, machine)
    assert not found.actions
    assert why(found) == ("is as the file says, but memory, cpu, cloud-init data will count from its next start "
                          "(`vmwright apply --restart`)")
    action = only(plan(wanted, machine, restart=True))
    assert isinstance(action, RestartVm)
    assert (action.sign, action.verb, action.effects) == ("~", "restart", {STOPS})
    assert action.why == "memory, cpu, cloud-init data shall count now (--restart)"
    carry_out(plan(wanted, machine, restart=True), wanted, machine)
    assert why(plan(wanted, machine)) == "is as the file says"
    assert not plan(wanted, machine, restart=True).actions


def test_restart_follows_the_change_that_needs_it_and_no_other() -> None:
    machine = made(cloud())
    assert told(plan(cloud(vm(memory="2G")), machine, restart=True)) == ["~ vm web: change", "~ vm web: restart"]
    assert told(plan(cloud(vm(vcpus=2)), machine, restart=True)) == ["~ vm web: change"]
    assert told(plan(cloud(), machine, restart=True)) == []


def test_what_only_a_rebuild_changes_is_told_once_for_all() -> None:
    machine = made(cloud("vms: {web: {count: 7, template: base, address: 10.0.0.10}}\n"))
    wanted = cloud("templates: {base: {build: debian, disk: 4G, firmware: bios}}\n"
                   "vms: {web: {count: 7, template: base, address: 10.0.0.10}}\n")
    old, new = cloud().templates[0].version, wanted.templates[0].version
    found = plan(wanted, machine)
    assert told(found) == ["+ template base: make"]
    assert found.warnings == (
        f"7 VMs (web-1, web-2, web-3, web-4, web-5 and 2 more): from base@{old}, while the file's template is now "
        f"base@{new}; `vmwright rebuild` takes it",
        "7 VMs (web-1, web-2, web-3, web-4, web-5 and 2 more): boots by uefi, the file says bios; only `vmwright "
        "rebuild` changes that")


def test_a_vm_goes_from_emulation_to_kvm_when_that_works() -> None:
    machine = made(cloud(), Machine(kvm=Kvm.BROKEN))
    machine.kvm = Kvm.WORKS
    found = plan(cloud(), machine)
    assert changes(only(found)) == ["accelerator: emulation -> KVM (at next start)",
                                    "cpu: maximum -> host-passthrough (at next start)"]
    assert not carry_out(found, cloud(), machine)
    again = plan(cloud(), machine)
    assert not again.actions and "but accelerator, cpu will count from its next start" in why(again)
    assert not carry_out(plan(cloud(), machine, restart=True), cloud(), machine)
    assert machine.facts(cloud()).domains[0].live == machine.facts(cloud()).domains[0].persistent


def test_a_vm_does_not_go_back_to_emulation_unless_the_file_says_so() -> None:
    machine = made(cloud())
    machine.kvm = Kvm.ABSENT
    found = plan(cloud(), machine)
    assert not found.actions and found.warnings[1:] == (
        "vm web: defined for KVM, which is absent here now, so that it will not start; see `vmwright doctor`, or say "
        "`accelerator: qemu` for the host",)
    wanted = cloud("hosts: {here: {accelerator: qemu, pools: {images: {dir: /srv/images}}}}\n" + vm())
    assert changes(only(plan(wanted, machine)))[0] == "accelerator: KVM -> emulation (at next start)"


def test_another_pool_is_told_for_the_root_disk_and_refused_for_data() -> None:
    pools = "hosts: {here: {pools: {images: {dir: /srv/images}, big: {dir: /srv/big}}}}\n"
    machine = made(cloud(pools + vm(pool="images", disks="{data: 2G}")))
    assert plan(cloud(pools + vm(pool="big", disks="{data: {size: 2G, pool: images}}")), machine).warnings == (
        "vm web: its disk is in pool images, the file says big; only `vmwright rebuild` takes another pool",)
    assert refused(plan(cloud(pools + vm(pool="images", disks="{data: {size: 2G, pool: big}}")), machine)) == [
        "vm web: its disk data is in pool images, not in big; disks are not moved\n"
        "    say `pool: images` for this disk, or give the new one another name"]


def test_a_root_disk_that_is_gone_is_told() -> None:
    machine = made(cloud())
    del machine.files["/srv/images/lab.web.root.qcow2"]
    assert plan(cloud(), machine).warnings == (
        "vm web: its root disk is gone from pool images; put it back from a backup, or: vmwright rebuild",)


def test_emulated_guests_have_the_nearest_cpu_and_do_not_drift() -> None:
    machine = made(cloud(), Machine(kvm=Kvm.ABSENT))
    domain = machine.facts(cloud()).domains[0]
    assert domain.persistent.cpu == "maximum"
    assert not plan(cloud(), machine).actions
