"""Destroy, prune, rebuild: what takes data says so, what is protected is refused, what is not ours is not touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.plan.build import WEB, changes, cloud, facts, made, only, plan, refused, told, vm
from tests.unit.plan.simulate import Image, Machine, all_facts, carry_out

from vmwright.facts.model import DomainState
from vmwright.plan.action import Effect
from vmwright.plan.actions import DestroyVm, Plan, RebuildVm
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.spec.cloud import Cloud
from vmwright.units import GIB

EMPTY = "vms: {}\n"
DATA = vm(disks="{data: 2G}")


def destroy(wanted: Cloud, machine: Machine, *names: str) -> Plan:
    return make_destroy_plan(wanted, all_facts(wanted, machine), names)


def rebuild(wanted: Cloud, machine: Machine, *names: str) -> Plan:
    return make_rebuild_plan(wanted, all_facts(wanted, machine), names)


def test_destroy_removes_all_that_is_the_vms_own_and_says_what_it_costs() -> None:
    machine = made(cloud(DATA))
    action = only(destroy(cloud(DATA), machine, "web"))
    assert isinstance(action, DestroyVm)
    assert (action.sign, action.object, action.verb, action.why) == ("-", "vm web", "destroy", "asked for")
    assert action.effects == {Effect.TAKES_DATA, Effect.STOPS}
    assert sorted(changes(action)) == [
        "lab.web.disk-data.qcow2: 64M -> removed", "lab.web.root.qcow2: 64M -> removed",
        f"lab.web.seed.iso: {len(machine.files['/srv/images/lab.web.seed.iso']) // 1024}K -> removed"]
    carry_out(destroy(cloud(DATA), machine, "web"), cloud(DATA), machine)
    assert not machine.domains and "web" not in machine.known_hosts
    assert [path for path in machine.files if "web" in path] == []


def test_destroy_of_a_vm_that_is_off_stops_nothing() -> None:
    machine = made(cloud(vm(running="false")))
    assert only(destroy(cloud(), machine, "web")).effects == {Effect.TAKES_DATA}


def test_destroy_takes_detached_disks_too() -> None:
    machine = made(cloud(DATA))
    carry_out(plan(cloud(), machine, restart=True), cloud(), machine)
    action = only(destroy(cloud(), machine, "web"))
    assert "lab.web.disk-data.qcow2: 64M -> removed" in changes(action)


def test_destroy_of_what_is_not_there() -> None:
    found = destroy(cloud(), Machine(), "web", "web")
    assert found.empty and [(kept.object, kept.why) for kept in found.kept] == [("vm web", "is not there")]


def test_one_refusal_does_not_hide_what_else_is_not_there() -> None:
    machine = made(cloud(vm(protect="true")))
    found = destroy(cloud(vm(protect="true")), machine, "web", "nothere")
    assert len(found.refused) == 1
    assert [kept.object for kept in found.kept] == ["vm nothere"]


def test_destroy_removes_volumes_of_a_vm_that_is_gone() -> None:
    machine = made(cloud())
    del machine.domains["web"]
    action = only(destroy(cloud(), machine, "web"))
    assert action.effects == {Effect.TAKES_DATA}
    carry_out(destroy(cloud(), machine, "web"), cloud(), machine)
    assert told(plan(cloud(), machine)) == ["+ vm web: create"]


@pytest.mark.parametrize("wanted", [vm(protect="true"), vm()])
def test_a_protected_vm_is_not_destroyed(wanted: str) -> None:
    """By its mark or by the file: taking `protect` out of the file has to be applied first."""
    machine = made(cloud(vm(protect="true" if wanted == vm() else "false")))
    assert refused(destroy(cloud(wanted), machine, "web")) == [
        "vm web is protected, and not destroyed\n"
        "    say `protect: false` for web in the file, apply, and destroy it then"]


def test_a_protected_vm_is_not_pruned() -> None:
    machine = made(cloud(vm(protect="true")))
    assert not plan(cloud(EMPTY), machine).refused
    assert refused(plan(cloud(EMPTY), machine, prune=True)) == [
        "vm web is protected, and not destroyed\n"
        "    put it back into the file with `protect: false`, apply, and take it out then"]


@pytest.mark.parametrize("protect", ["vm", "mark"])
def test_a_protected_vm_is_not_rebuilt(protect: str) -> None:
    machine = made(cloud(vm(protect="true" if protect == "mark" else "false")))
    wanted = cloud(vm(protect="true" if protect == "vm" else "false"))
    assert refused(rebuild(wanted, machine, "web")) == [
        "vm web is protected: rebuild would throw its root disk away\n"
        "    say `vmwright set vms.web.protect=false`, apply, and rebuild then"]


@pytest.mark.parametrize("change", ["unmarked", "theirs", "copy"])
def test_what_is_not_ours_is_not_destroyed(change: str) -> None:
    wanted, machine = cloud(), made(cloud())
    domain = machine.facts(wanted).domains[0]
    owner = domain.persistent.owner
    assert owner
    other = {"unmarked": None, "theirs": replace(owner, cloud="theirs"), "copy": replace(owner, vm="db")}[change]
    strange = facts(wanted, machine, domains=(replace(domain, persistent=replace(domain.persistent, owner=other)),))
    assert refused(make_destroy_plan(wanted, strange, ["web"])) == [
        "vm web was not made by cloud lab, and is not touched\n"
        "    remove it with virsh, if that is what you want"]


def test_a_vm_taken_out_of_the_file_is_shown_and_removed_with_prune_only() -> None:
    machine = made(cloud(DATA))
    found = plan(cloud(EMPTY), machine)
    assert not found.actions
    assert [(kept.object, kept.why) for kept in found.unlisted] == [
        ("vm web", "is no longer in the file; `vmwright apply --prune` removes it, with its disks")]
    action, template = plan(cloud(EMPTY), machine, prune=True).actions  # nobody needs the template then
    assert isinstance(action, DestroyVm)
    assert template.needs == (action.id,)
    assert action.why == "it is no longer in the file"
    assert action.effects == {Effect.TAKES_DATA, Effect.STOPS}


def test_volumes_whose_vm_is_gone_are_shown_and_pruned() -> None:
    machine = made(cloud(DATA))
    del machine.domains["web"]
    found = plan(cloud(EMPTY), machine)
    assert [(kept.object, kept.why) for kept in found.unlisted] == [
        ("vm web", "there is no such VM any more, but 3 volumes (128.1M) of it; `vmwright apply --prune` removes it, "
                   "with its disks")]
    action = plan(cloud(EMPTY), machine, prune=True).actions[0]
    assert action.why == "there is no such VM any more, but 3 volumes (128.1M) of it"
    assert action.effects == {Effect.TAKES_DATA}
    carry_out(plan(cloud(EMPTY), machine, prune=True), cloud(EMPTY), machine)
    assert not [path for path in machine.files if "web" in path]


def test_what_other_clouds_have_is_neither_shown_nor_pruned() -> None:
    theirs = cloud(WEB, "cloud: theirs\nhosts: {here: {pools: {theirs: {dir: /srv/theirs}}}}\n"
                        "networks: {theirs: {nat: 10.5.0.0/24}}\ntemplates: {base: {build: debian, disk: 4G}}\n"
                   .replace("10.5.0", "10.0.0"))
    machine = made(theirs)
    machine.files["/srv/theirs/lab.web.root.qcow2.bak"] = Image(GIB, used=True)
    found = plan(cloud(EMPTY), machine, prune=True)
    assert "web" not in f"{found.actions} {found.unlisted}"


def test_rebuild_throws_the_root_disk_away_and_keeps_data_disks() -> None:
    machine = made(cloud(DATA))
    action = only(rebuild(cloud(DATA), machine, "web"))
    version = cloud(DATA).templates[0].version
    assert isinstance(action, RebuildVm)
    assert (action.sign, action.object, action.verb, action.why) == ("!", "vm web", "rebuild", "asked for")
    assert action.effects == {Effect.TAKES_DATA, Effect.STOPS}
    assert changes(action) == ["root disk: 64M of data -> thrown away",
                               f"template: base@{version} -> the same, there is no newer one",
                               "disk data: attached -> kept, with its data"]
    assert action.keep == ("/srv/images/lab.web.disk-data.qcow2",)
    assert action.remove == ("/srv/images/lab.web.root.qcow2", "/srv/images/lab.web.seed.iso")
    carry_out(rebuild(cloud(DATA), machine, "web"), cloud(DATA), machine)
    images = machine.images()
    assert images["/srv/images/lab.web.disk-data.qcow2"].used
    assert not images["/srv/images/lab.web.root.qcow2"].used
    assert not plan(cloud(DATA), machine).actions


def test_a_rebuilt_vm_is_another_incarnation_every_time() -> None:
    machine, seen = made(cloud()), set()
    for _ in range(3):
        action = only(rebuild(cloud(), machine, "web"))
        assert isinstance(action, RebuildVm)
        seen.add(action.instance)
        carry_out(rebuild(cloud(), machine, "web"), cloud(), machine)
    assert len(seen) == 3


def test_rebuild_takes_the_new_template_and_nothing_else_of_the_plan() -> None:
    wanted = cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n"
                   "vms: {web: {template: base, memory: 2G, address: 10.0.0.10}, db: {template: base}, "
                   "new: {template: base}}\n")
    machine = made(cloud("vms: {web: {template: base, address: 10.0.0.10}, db: {template: base}, old: {template: "
                         "base}}\n"))
    found = rebuild(wanted, machine, "web")
    assert told(found) == ["+ template base: make", "! vm web: rebuild"]
    assert found.actions[0].id in found.actions[1].needs
    old, new = cloud().templates[0].version, wanted.templates[0].version
    assert changes(found.actions[1])[1] == f"template: base@{old} -> base@{new}"
    assert not found.unlisted


def test_rebuild_is_not_refused_for_what_stands_in_the_way_of_others() -> None:
    machine = made(cloud("vms: {web: {template: base, address: 10.0.0.10}, db: {template: base, disk: 9G}}\n"))
    wanted = cloud("networks: {lan: {nat: 10.0.0.0/24}, far: {bridge: br9}}\n"
                   "vms: {web: {template: base, network: lan, address: 10.0.0.10}, "
                   "db: {template: base, network: far, disk: 8G}}\n")
    assert len(plan(wanted, machine).refused) == 2  # the bridge, and a disk that would shrink
    assert told(rebuild(wanted, machine, "web")) == ["! vm web: rebuild"]
    assert not rebuild(wanted, machine, "web").refused
    assert rebuild(wanted, machine, "db").refused


def test_rebuild_of_a_vm_that_is_not_there_makes_it() -> None:
    machine = made(cloud("vms: {db: {template: base}}\n"))
    assert told(rebuild(cloud(), machine, "web")) == ["+ vm web: create"]


def test_rebuild_grows_kept_disks_in_the_same_run() -> None:
    machine = made(cloud(DATA))
    wanted = cloud(vm(disks="{data: 3G}"))
    found = rebuild(wanted, machine, "web")
    assert told(found) == ["! vm web: rebuild", "~ vm web disk data: grow"]
    assert found.actions[1].needs == (found.actions[0].id,)
    assert not carry_out(found, wanted, machine)
    assert not plan(wanted, machine).actions


def test_rebuild_with_a_smaller_kept_disk_is_refused() -> None:
    assert refused(rebuild(cloud(vm(disks="{data: 1G}")), made(cloud(DATA)), "web")) == [
        "vm web: disk data is 2G and cannot become 1G: what is at its end would be lost\n"
        "    say 2G or more; for a smaller one, move the data to a new disk"]


def test_rebuild_with_a_data_disk_in_another_pool_is_refused() -> None:
    pools = "hosts: {here: {pools: {images: {dir: /srv/images}, big: {dir: /srv/big}}}}\n"
    machine = made(cloud(pools + vm(pool="images", disks="{data: 2G}")))
    assert refused(rebuild(cloud(pools + vm(pool="big", disks="{data: 2G}")), machine, "web")) == [
        "vm web: its disk data is in pool images, not in big; disks are not moved\n"
        "    say `pool: images` for this disk, or give the new one another name"]


def test_rebuild_into_another_pool_takes_the_old_root_disk_away() -> None:
    pools = "hosts: {here: {pools: {images: {dir: /srv/images}, big: {dir: /srv/big}}}}\n"
    machine = made(cloud(pools + vm(pool="images")))
    wanted = cloud(pools + vm(pool="big"))
    assert not carry_out(rebuild(wanted, machine, "web"), wanted, machine)
    assert [path for path in machine.images() if "web.root" in path] == ["/srv/big/lab.web.root.qcow2"]
    assert not plan(wanted, machine).actions


def test_rebuild_of_a_crashed_vm_stops_nothing() -> None:
    wanted, machine = cloud(), made(cloud())
    domain = replace(machine.facts(wanted).domains[0], state=DomainState.CRASHED, live=None)
    found = make_rebuild_plan(wanted, facts(wanted, machine, domains=(domain,)), ["web"])
    assert only(found).effects == {Effect.TAKES_DATA}


def test_two_hosts_are_planned_side_by_side_and_vms_do_not_move() -> None:
    hosts = "hosts: {one: {pools: {images: {dir: /srv/images}}}, two: {connect: 'ssh://root@two', pools: {images: " \
            "{dir: /srv/images}}}}\n"
    before = cloud(hosts + "vms: {a: {template: base, host: one, address: 10.0.0.10}, "
                           "b: {template: base, host: two, address: 10.0.0.11}}\n")
    one, two = Machine("one"), Machine("two")
    both = replace(all_facts(before, one), hosts=(one.facts(before), two.facts(before)))
    found = make_plan(before, both)
    assert [(action.host, action.object) for action in found.actions if action.object.startswith("vm")] == [
        ("one", "vm a"), ("two", "vm b")]
    assert len({action.id for action in found.actions}) == len(found.actions)
    alone = cloud("hosts: {one: {pools: {images: {dir: /srv/images}}}}\n"
                  "vms: {a: {template: base, address: 10.0.0.10}}\n")
    made(alone, one)
    after = cloud(hosts + "vms: {a: {template: base, host: two, address: 10.0.0.10}}\n")
    both = replace(both, hosts=(one.facts(after), two.facts(after)))
    found = make_plan(after, both)
    assert refused(found) == ["vm a is on host one, and the file has it on two; VMs are not moved yet\n"
                              "    say `host: one`, or first: vmwright destroy a"]
    assert [(kept.host, kept.object, kept.why) for kept in found.unlisted] == [(
        "one", "vm a", "is in the file for host two, not for this one; `vmwright apply --prune` removes it, with its "
                       "disks")]
