"""What starts the VMs of a host in order when it boots: written, kept, mended, removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import changes, cloud, made, plan, refused, told
from tests.unit.plan.simulate import ALL_TOOLS, Killed, Machine, all_facts, carry_out, clone

from vmwright.boot import files
from vmwright.boot.files import LINK_PATH, SCRIPT_PATH, UNIT_PATH
from vmwright.facts.model import BootFacts
from vmwright.names import start_list
from vmwright.plan.action import Action
from vmwright.plan.actions import CreateVm, Plan, UpdateVm
from vmwright.plan.diff import make_plan
from vmwright.plan.host_actions import RemoveStartOrder, WriteStartOrder
from vmwright.plan.view import Request
from vmwright.spec.cloud import Cloud

PLAIN = """\
vms:
  some: {template: base, autostart: true}
  data: {count: 2, template: base, autostart: true}
  no: {template: base}
"""
ORDERED = PLAIN.replace("count: 2, template: base, autostart: true",
                        "count: 2, template: base, autostart: {order: 1, healthy: agent}")
LIST = start_list("lab")


def flags(machine: Machine) -> list[str]:
    """The VMs that libvirt starts."""
    return [name for name, domain in machine.domains.items() if domain.autostart]


def listed(machine: Machine) -> list[str]:
    """The lines of the list, without its mark."""
    return text(machine, LIST).splitlines()[1:]


def text(machine: Machine, path: str) -> str:
    data = machine.files.get(path, b"")
    assert isinstance(data, bytes)
    return data.decode()


def boot_action(found: Plan) -> Action:
    return next(a for a in found.actions if isinstance(a, WriteStartOrder | RemoveStartOrder))


def planned(wanted: Cloud, machine: Machine, **changed: Any) -> Plan:
    """The plan, with some of what is known of the host's start changed."""
    host = machine.facts(wanted)
    boot: BootFacts = replace(host.boot, **changed)
    return make_plan(wanted, replace(all_facts(wanted, machine), hosts=(replace(host, boot=boot),)))


def test_new_vms_are_put_on_the_list_and_not_flagged() -> None:
    wanted, machine = cloud(ORDERED), Machine()
    found = plan(wanted, machine)
    action = boot_action(found)
    assert (told(found)[-1], action.why) == ("+ start order: write", "the file gives VMs an order")
    assert changes(action) == [
        "order 1: data-1, data-2 (until their agents answer, 600 s)", "then: some",
        "unit: vmwright-autostart.service"]
    assert not any(a.autostart for a in found.actions if isinstance(a, CreateVm))
    machine = made(wanted, machine)
    assert flags(machine) == []
    assert listed(machine) == ["1 data-1 agent 600", "1 data-2 agent 600", "- some - 0"]
    assert (text(machine, UNIT_PATH), text(machine, SCRIPT_PATH)) == (files.unit(), files.script())
    again = plan(wanted, machine)
    assert again.empty
    assert ("start order", "is as the file says, for 3 VMs") in {(kept.object, kept.why) for kept in again.kept}


def test_from_libvirts_flag_to_the_unit_and_back() -> None:
    """The flags go after the unit has come, and come before it goes."""
    plain, wanted = cloud(PLAIN), cloud(ORDERED)
    machine = made(plain)
    assert flags(machine) == ["some", "data-1", "data-2"] and not machine.files.keys() & {UNIT_PATH, LIST}
    there = plan(wanted, machine)
    updates = [action for action in there.actions if isinstance(action, UpdateVm)]
    assert [changes(action) for action in updates] == [["autostart by libvirt: yes -> no"]] * 3
    assert {action.needs for action in updates} == {(boot_action(there).id,)}
    assert not carry_out(there, wanted, machine)
    assert flags(machine) == [] and len(listed(machine)) == 3 and plan(wanted, machine).empty
    back = plan(plain, machine)
    updates = [action for action in back.actions if isinstance(action, UpdateVm)]
    action = boot_action(back)
    assert told(back)[-1] == "- start order: remove" and action.why == "the file gives no VM an order"
    assert set(action.needs) == {update.id for update in updates} and len(updates) == 3
    assert not carry_out(back, plain, machine)
    assert flags(machine) == ["some", "data-1", "data-2"]
    assert not machine.files.keys() & {UNIT_PATH, SCRIPT_PATH, LINK_PATH, LIST} and plan(plain, machine).empty


@pytest.mark.parametrize(("before", "after"), [(PLAIN, ORDERED), (ORDERED, PLAIN)])
def test_cut_off_anywhere_no_vm_is_without_a_start(before: str, after: str) -> None:
    first, steps = made(cloud(before)), 0
    while True:
        machine, steps = clone(first), steps + 1
        machine.fuse = steps - 1
        try:
            carry_out(plan(cloud(after), machine), cloud(after), machine)
        except Killed:
            pass
        else:
            break
        works = {UNIT_PATH, SCRIPT_PATH, LINK_PATH, LIST} <= machine.files.keys()
        started = {*flags(machine), *([row.split()[1] for row in listed(machine)] if works else [])}
        assert started == {"some", "data-1", "data-2"}, steps
        machine.fuse, machine.dead = None, False
        assert not carry_out(plan(cloud(after), machine), cloud(after), machine)
        assert plan(cloud(after), machine).empty
    assert steps > 6


def test_without_systemd_libvirt_starts_them_and_the_plan_says_so() -> None:
    wanted, machine = cloud(ORDERED), Machine(systemd=False)
    found = plan(wanted, machine)
    assert found.warnings == (
        "cloud.yaml:8:47: host here does not run systemd: the order in which VMs start is kept by `vmwright apply`, "
        "but when the host boots libvirt starts them, in no order",)
    made(wanted, machine)
    assert set(flags(machine)) == {"some", "data-1", "data-2"}
    assert not machine.files.keys() & {UNIT_PATH, SCRIPT_PATH, LIST} and plan(wanted, machine).empty


def test_a_host_that_no_longer_runs_systemd_is_given_back_to_libvirt() -> None:
    wanted, machine = cloud(ORDERED), made(cloud(ORDERED))
    machine.systemd = False
    found = plan(wanted, machine)
    assert boot_action(found).why == "the host does not run systemd"
    assert not carry_out(found, wanted, machine)
    assert len(flags(machine)) == 3 and LINK_PATH not in machine.files and plan(wanted, machine).empty


SPOILT = files.unit() + "# mine\n"
OLDER = "#!/bin/sh\n" + files.marked("# an older one\n")


@pytest.mark.parametrize(("changed", "told"), [
    ({"unit": SPOILT}, ["unit: changed on the host -> as this version writes it"]),
    ({"script": OLDER}, ["script: of another version of vmwright -> as this version writes it"]),
    ({"enabled": False}, ["at boot: off -> on"]),
    ({"script": None}, [f"script: {SCRIPT_PATH}"]),
    ({"order": files.list_text([files.Row("1", "data-1", 600), files.Row("-", "data-2", 7)])},
     ["order 1: data-1 (until its agent answers, 600 s) -> data-1, data-2 (until their agents "
      "answer, 600 s)", "then: data-2 (until its agent answers, 7 s) -> some"]),
    ({"order": files.list_text([files.Row("1", "data-1", 600), files.Row("1", "data-2", 600), files.Row("-", "some"),
                                files.Row("5", "web")])}, ["order 5: web -> none"]),
])
def test_what_was_changed_on_the_host_is_written_again(changed: dict[str, Any], told: list[str]) -> None:
    wanted = cloud(ORDERED)
    found = planned(wanted, made(wanted), **changed)
    (action,) = found.actions
    assert isinstance(action, WriteStartOrder)
    assert (action.why, changes(action)) == ("it is not as the file says", told)
    paths = {"unit": UNIT_PATH, "script": SCRIPT_PATH, "order": LIST}
    assert [file.path for file in action.files] == [paths[key] for key in changed if key in paths]


def test_a_list_that_says_the_same_in_other_words_is_written_again() -> None:
    wanted = cloud(ORDERED)
    machine = made(wanted)
    found = planned(wanted, machine, order=text(machine, LIST) + "# by hand\n")
    assert changes(boot_action(found)) == ["list: changed on the host -> as this version writes it"]


@pytest.mark.parametrize(("changed", "path"), [
    ({"unit": "[Unit]\n"}, UNIT_PATH),
    ({"script": "#!/bin/sh\n"}, SCRIPT_PATH),
])
def test_others_files_are_not_overwritten_nor_removed(changed: dict[str, Any], path: str) -> None:
    wanted = cloud(ORDERED)
    machine = made(wanted)
    assert refused(planned(wanted, machine, **changed)) == [
        f"host here: {path} is there, and vmwright did not write it\n    move it away: vmwright keeps there what "
        "starts VMs in order"]
    action = boot_action(planned(cloud(PLAIN), machine, **changed))
    assert isinstance(action, RemoveStartOrder)
    assert path not in action.paths and LIST in action.paths
    assert not any(isinstance(a, RemoveStartOrder) for a in planned(
        cloud(PLAIN), made(cloud(PLAIN)), **changed).actions)


def test_a_host_without_virsh_cannot_keep_the_order() -> None:
    machine = Machine(tools=tuple(tool for tool in ALL_TOOLS if tool != "virsh"))
    assert refused(plan(cloud(ORDERED), machine)) == [
        "host here: virsh is not installed, which starts VMs in order when the host boots\n    install it there: "
        "apt-get install libvirt-clients"]
    assert not refused(plan(cloud(PLAIN), machine))


def test_other_clouds_keep_the_unit() -> None:
    wanted, machine = cloud(ORDERED), made(cloud(ORDERED))
    machine.files[start_list("theirs")] = b"1 web - 0\n"
    assert plan(wanted, machine).empty
    found = plan(cloud(PLAIN), machine)
    action = boot_action(found)
    assert isinstance(action, RemoveStartOrder) and (action.paths, action.unit) == ((LIST,), False)
    assert not carry_out(found, cloud(PLAIN), machine)
    assert {UNIT_PATH, SCRIPT_PATH, LINK_PATH} <= machine.files.keys() and plan(cloud(PLAIN), machine).empty


def test_libvirt_guests_is_told_of_where_it_starts_vms() -> None:
    wanted = cloud(ORDERED)
    machine = made(wanted)
    assert planned(wanted, machine, guests="ignore").warnings == ()
    (warning,) = planned(wanted, machine, guests="start").warnings
    assert "libvirt-guests starts the VMs that ran when the host went down" in warning
    assert "ON_BOOT=ignore" in warning
    assert planned(cloud(PLAIN), made(cloud(PLAIN)), guests="start").warnings == ()


def test_a_vm_that_has_left_the_file_starts_as_before_until_it_is_removed() -> None:
    machine = made(cloud(ORDERED))
    fewer = cloud(ORDERED.replace("count: 2", "count: 1"))
    found = plan(fewer, machine)
    assert changes(boot_action(found)) == [
        "order 1: data-1, data-2 (until their agents answer, 600 s) -> "
        "data-1 (until its agent answers, 600 s)", "then: some -> some, data-2 (until its agent answers, 600 s)"]
    assert not carry_out(found, fewer, machine)
    assert listed(machine)[-1] == "- data-2 agent 600" and plan(fewer, machine).empty
    pruned = plan(fewer, machine, prune=True)
    assert changes(boot_action(pruned)) == ["then: some, data-2 (until its agent answers, 600 s) -> some"]
    assert not carry_out(pruned, fewer, machine)
    assert make_plan(fewer, all_facts(fewer, machine), Request(prune=True)).empty


def test_many_names_are_not_all_told() -> None:
    wanted = cloud("vms: {web: {count: 9, template: base, autostart: {order: 3}}}\n")
    assert changes(boot_action(plan(wanted, Machine())))[0] == (
        "order 3: web-1, web-2, web-3, web-4, web-5, web-6 and 3 more")
    found = planned(wanted, made(wanted), order=files.list_text([
        files.Row("3", f"web-{n}") for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)]))
    assert changes(boot_action(found)) == ["list: other VMs, of those not named here -> as the file says"]
