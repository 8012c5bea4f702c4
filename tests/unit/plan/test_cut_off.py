"""Notes of runs that were cut off, at every point where they can be: what the next plan makes of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from tests.unit.plan.build import WEB, cloud, made, only, plan, refused, told, vm
from tests.unit.plan.simulate import Image, Machine, all_facts, carry_out

from vmwright.facts.model import IntentFacts
from vmwright.names import HOST_STATE, intent_path
from vmwright.plan.action import Effect
from vmwright.plan.actions import CreateVm, DestroyVm, GrowDisk, Tidy, WaitReady
from vmwright.plan.diff import make_destroy_plan, make_rebuild_plan
from vmwright.units import GIB

EMPTY = "vms: {}\n"
DATA = vm(disks="{data: 2G}")
ROOT, SEED, DISK = (f"/srv/images/lab.web.{name}" for name in ("root.qcow2", "seed.iso", "disk-data.qcow2"))


def note(machine: Machine, operation: str, *volumes: str, object: str = "web", instance: str = "") -> Machine:
    """The machine with a note."""
    intent = IntentFacts("lab", object, operation, volumes, instance)
    machine.files[intent_path("lab", object)] = json.dumps(asdict(intent)).encode()
    return machine


def instance(machine: Machine) -> str:
    """The incarnation of web that is there."""
    owner = machine.facts(cloud()).domains[0].persistent.owner
    assert owner
    return owner.instance


def without_vm(machine: Machine, *kept: str) -> Machine:
    """The machine without web's domain, and of its volumes with these only."""
    del machine.domains["web"]
    for path in (ROOT, SEED, DISK):
        if path not in kept:
            machine.files.pop(path, None)
    return machine


def ends(machine: Machine, text: str = WEB) -> None:
    """Carrying the plan out leaves nothing to do, and no note."""
    wanted = cloud(text)
    assert not carry_out(plan(wanted, machine), wanted, machine)
    assert told(plan(wanted, machine)) == []
    assert not [path for path in machine.files if path.startswith(HOST_STATE) and "/templates/" not in path]


@pytest.mark.parametrize("there", [(), (ROOT,), (ROOT, DISK), (ROOT, DISK, SEED)])
def test_a_create_cut_off_before_the_vm_was_defined(there: tuple[str, ...]) -> None:
    machine = made(cloud(EMPTY))
    for path in there:
        machine.files[path] = Image(2 * GIB)
    note(machine, "create", ROOT, SEED, DISK, instance="cut")
    action = plan(cloud(DATA), machine).actions[-1]
    assert isinstance(action, CreateVm)
    assert action.why == "a run that was cut off had begun to make it"
    assert action.remove == tuple(sorted(there)) and not action.keep
    assert not action.effects
    ends(machine, DATA)


def test_a_create_cut_off_before_the_vm_was_started() -> None:
    machine = made(cloud())
    machine.domains["web"].live = None
    note(machine, "create", ROOT, SEED, instance=instance(machine))
    assert told(plan(cloud(), machine)) == ["~ vm web: start"]
    ends(machine)


def test_a_create_cut_off_before_its_note_said_boot() -> None:
    machine = made(cloud())
    note(machine, "create", ROOT, SEED, instance=instance(machine))
    action = only(plan(cloud(), machine))
    assert isinstance(action, WaitReady) and action.why == "an earlier run did not see its first boot end"
    ends(machine)


def test_a_first_boot_that_was_not_seen_to_end() -> None:
    machine = note(made(cloud()), "boot", instance=instance(made(cloud())))
    assert told(plan(cloud(), machine)) == ["~ vm web: wait until ready"]
    ends(machine)


def test_a_first_boot_comes_before_growing_and_after_changes() -> None:
    """A guest in its first boot cannot grow; but what keeps it from becoming ready can be changed."""
    machine = note(made(cloud()), "boot", instance=instance(made(cloud())))
    text = vm(disk="6G", vcpus=2)
    assert told(plan(cloud(text), machine)) == [
        "~ vm web: change", "~ vm web: wait until ready", "~ vm web disk root: grow"]
    ends(machine, text)


def test_a_first_boot_that_has_to_be_done_again() -> None:
    machine = note(made(cloud()), "boot", instance=instance(made(cloud())))
    text = vm(packages="[vim]")
    assert told(plan(cloud(text), machine, restart=True)) == ["~ vm web: change", "~ vm web: restart"]


def test_a_first_boot_of_a_vm_that_is_off() -> None:
    machine = note(made(cloud()), "boot", instance=instance(made(cloud())))
    machine.domains["web"].live = None
    assert told(plan(cloud(), machine)) == ["~ vm web: start"]
    action = only(plan(cloud(vm(running="false")), machine))
    assert isinstance(action, Tidy)
    assert action.why == "the VM is whole, and there is no first boot to wait for"
    ends(machine, vm(running="false"))


def test_a_first_boot_of_an_earlier_incarnation() -> None:
    machine = note(made(cloud()), "boot", instance="another")
    assert isinstance(only(plan(cloud(), machine)), Tidy)
    ends(machine)


def test_a_first_boot_of_a_vm_that_somebody_undefined() -> None:
    """It may have run for a year since: its disks are not half made."""
    machine = note(without_vm(made(cloud()), ROOT, SEED), "boot", instance="i")
    assert refused(plan(cloud(), machine)) == [
        f"vm web: there is no such VM, but a volume of that name: {ROOT}\n"
        "    if it holds nothing of worth: vmwright destroy web; else rename or move it away"]
    machine = note(without_vm(made(cloud())), "boot", instance="i")
    action = only(plan(cloud(), machine))
    assert action.why == "libvirt has no VM of that name"
    ends(machine)


@pytest.mark.parametrize("running", [True, False])
def test_a_rebuild_cut_off_before_anything_was_thrown_away(running: bool) -> None:
    machine = note(made(cloud(DATA)), "rebuild", ROOT, SEED, instance="new")
    if not running:
        machine.domains["web"].live = None
    found = plan(cloud(DATA), machine)
    tidy = found.actions[-1]
    assert told(found) == ([] if running else ["~ vm web: start"]) + (["~ note web: tidy"] if running else [])
    if running:
        assert isinstance(tidy, Tidy)
        assert tidy.why == "its rebuild was cut off before anything was thrown away; to have it, ask again"
    ends(machine, DATA)
    assert machine.images()[ROOT].used and machine.images()[DISK].used


@pytest.mark.parametrize("there", [(ROOT, SEED, DISK), (SEED, DISK), (DISK,)])
@pytest.mark.parametrize("operation", ["rebuild", "create"])
def test_a_rebuild_cut_off_after_the_vm_was_undefined(there: tuple[str, ...], operation: str) -> None:
    machine = note(without_vm(made(cloud(DATA)), *there), operation, ROOT, SEED, instance="new")
    action = only(plan(cloud(DATA), machine))
    assert isinstance(action, CreateVm)
    assert action.why == f"a run that was cut off had begun to {'rebuild' if operation == 'rebuild' else 'make'} it"
    assert action.keep == (DISK,) and set(action.remove) == set(there) - {DISK}
    machine.given_up |= {ROOT}  # confirmed when the rebuild was asked for
    ends(machine, DATA)
    assert machine.images()[DISK].used


def test_a_rebuild_asked_for_again() -> None:
    machine = note(made(cloud()), "rebuild", ROOT, SEED, instance="new")
    found = make_rebuild_plan(cloud(), all_facts(cloud(), machine), ["web"])
    assert told(found) == ["! vm web: rebuild"]
    assert Effect.TAKES_DATA in found.actions[0].effects
    carry_out(found, cloud(), machine)
    ends(machine)


def test_a_rebuild_cut_off_of_a_vm_no_longer_in_the_file_keeps_its_data() -> None:
    machine = note(without_vm(made(cloud(DATA)), ROOT, DISK), "rebuild", ROOT, SEED, instance="new")
    found = plan(cloud(EMPTY), machine)
    assert not found.actions
    assert [(kept.object, kept.why) for kept in found.unlisted] == [
        ("vm web", "a run that was cut off left it, and the file does not have it; it has data, so only `vmwright "
                   "apply --prune` removes it")]
    action = plan(cloud(EMPTY), machine, prune=True).actions[0]
    assert isinstance(action, DestroyVm) and action.effects == {Effect.TAKES_DATA}


@pytest.mark.parametrize("there", [(), (ROOT,), (ROOT, SEED)])
def test_a_create_cut_off_of_a_vm_no_longer_in_the_file_is_removed(there: tuple[str, ...]) -> None:
    machine = made(cloud(EMPTY))
    for path in there:
        machine.files[path] = Image(GIB)
    note(machine, "create", ROOT, SEED, instance="cut")
    action = only(plan(cloud(EMPTY), machine))
    assert isinstance(action, DestroyVm if there else Tidy)
    assert not action.effects
    ends(machine, EMPTY)
    assert not any(path in machine.files for path in (ROOT, SEED))


@pytest.mark.parametrize("running", [True, False])
def test_a_destroy_cut_off_before_anything_was_lost_of_a_vm_in_the_file(running: bool) -> None:
    machine = note(made(cloud(DATA)), "destroy", ROOT, SEED, DISK)
    if not running:
        machine.domains["web"].live = None
    found = plan(cloud(DATA), machine)
    if running:
        assert only(found).why == "its removal was cut off before anything was lost, and the file has it"
    assert not any(isinstance(action, DestroyVm) for action in found.actions)
    ends(machine, DATA)
    assert machine.images()[DISK].used


@pytest.mark.parametrize("there", [(ROOT, SEED, DISK), (SEED, DISK), (DISK,), ()])
def test_a_destroy_cut_off_later_of_a_vm_in_the_file(there: tuple[str, ...]) -> None:
    """What is left of it goes, as was confirmed; then it is made as the file says."""
    machine = note(without_vm(made(cloud(DATA)), *there), "destroy", ROOT, SEED, DISK)
    action = only(plan(cloud(DATA), machine))
    assert isinstance(action, CreateVm)
    assert action.why == "a run that was cut off had begun to remove it"
    assert set(action.remove) == set(there) and not action.keep
    machine.given_up |= {ROOT, DISK}
    ends(machine, DATA)


@pytest.mark.parametrize("there", [(ROOT, SEED, DISK), (DISK,), ()])
def test_a_destroy_cut_off_of_a_vm_not_in_the_file_is_finished_and_not_asked_again(there: tuple[str, ...]) -> None:
    machine = note(without_vm(made(cloud(DATA)), *there), "destroy", ROOT, SEED, DISK)
    action = only(plan(cloud(EMPTY), machine))
    assert isinstance(action, DestroyVm) and not action.effects
    machine.given_up |= {ROOT, DISK}
    ends(machine, EMPTY)
    assert "web" not in machine.known_hosts


def test_a_destroy_cut_off_at_once_of_a_vm_not_in_the_file_is_finished() -> None:
    machine = note(made(cloud(DATA)), "destroy", ROOT, SEED, DISK)
    action = only(plan(cloud(EMPTY), machine))
    assert isinstance(action, DestroyVm)
    assert action.why == "a run that was cut off had begun to remove it"
    assert action.effects == {Effect.STOPS}


def test_a_disk_made_since_is_not_covered_by_an_old_confirmation() -> None:
    machine = note(without_vm(made(cloud(DATA)), ROOT, DISK), "destroy", ROOT, SEED)
    found = make_destroy_plan(cloud(DATA), all_facts(cloud(DATA), machine), ["web"])
    assert only(found).effects == {Effect.TAKES_DATA}
    assert refused(plan(cloud(DATA), machine)) == [
        f"vm web: there is no such VM, but a volume of that name: {DISK}\n"
        "    if it holds nothing of worth: vmwright destroy web; else rename or move it away"]


def test_a_note_about_a_vm_that_is_not_ours_touches_nothing() -> None:
    machine = note(made(cloud(DATA)), "destroy", ROOT, SEED, DISK)
    machine.domains["web"].persistent = machine.domains["web"].persistent.replace('cloud="lab"', 'cloud="theirs"')
    found = plan(cloud(EMPTY), machine)
    assert not found.actions
    assert found.warnings == ("vm web: what a cut-off run left of it cannot be removed, as host here has a VM of that "
                              "name which is not ours",)


def test_growing_that_was_not_seen_to_end_is_finished() -> None:
    machine = note(made(cloud(vm(disk="6G"))), "grow", object="web@root")
    action = only(plan(cloud(vm(disk="6G")), machine))
    assert isinstance(action, GrowDisk)
    assert (action.old_size, action.size, action.running) == (6 * GIB, 6 * GIB, True)
    assert action.why == "an earlier run did not see it end"
    ends(machine, vm(disk="6G"))


def test_growing_cut_off_and_the_file_wants_more_by_now() -> None:
    machine = note(made(cloud(vm(disk="6G"))), "grow", object="web@root")
    action = only(plan(cloud(vm(disk="7G")), machine))
    assert isinstance(action, GrowDisk) and action.size == 7 * GIB
    ends(machine, vm(disk="7G"))


def test_growing_cut_off_and_the_file_wants_less_by_now() -> None:
    machine = note(made(cloud(vm(disk="6G"))), "grow", object="web@root")
    assert refused(plan(cloud(vm(disk="5G")), machine)) == [
        "vm web: its disk is 6G and cannot become 5G: what is at its end would be lost\n"
        "    say 6G or more; for a smaller one, rebuild the VM"]


def test_growing_of_a_vm_that_is_off_ends_at_its_next_start() -> None:
    machine = note(made(cloud(vm(disk="6G"))), "grow", object="web@root")
    machine.domains["web"].live = None
    assert told(plan(cloud(vm(disk="6G")), machine)) == ["~ vm web: start", "~ note web@root: tidy"]
    ends(machine, vm(disk="6G"))


def test_growing_of_a_vm_that_is_gone() -> None:
    machine = note(without_vm(made(cloud())), "grow", object="web@root")
    assert told(plan(cloud(EMPTY), machine)) == ["~ note web@root: tidy"]
    ends(machine, EMPTY)


def template_work(machine: Machine, version: str) -> Machine:
    """The machine with a work directory in which that version was being made."""
    machine.files[f"{HOST_STATE}/lab/work/base-{version}/tree"] = b""
    return machine


def test_a_template_cut_off_is_made_again() -> None:
    version = cloud().templates[0].version
    machine = template_work(Machine(), version)
    machine.files[f"/srv/images/.lab.base.template-{version}.qcow2.partial"] = Image(GIB)
    assert "~ leftover" not in str(told(plan(cloud(), machine)))
    ends(machine)
    assert not [path for path in machine.files if "partial" in path]


def test_a_template_cut_off_that_is_no_longer_wanted_is_removed() -> None:
    machine = template_work(made(cloud()), "0123456789ab")
    partial = "/srv/images/.lab.base.template-0123456789ab.qcow2.partial"
    machine.files[partial] = Image(GIB)
    action = only(plan(cloud(), machine))
    assert isinstance(action, Tidy)
    assert (action.object, action.verb) == ("leftover base-0123456789ab", "tidy")
    assert action.why == "a run that was cut off left it"
    assert action.paths == (partial, f"{HOST_STATE}/lab/templates/base-0123456789ab.json")
    ends(machine)
    assert partial not in machine.files


def test_a_template_cut_off_when_it_was_whole_keeps_its_manifest() -> None:
    machine = template_work(made(cloud()), cloud().templates[0].version)
    action = only(plan(cloud(), machine))
    assert isinstance(action, Tidy) and not action.paths
    ends(machine)


def test_an_image_half_moved_without_its_work_directory_is_removed() -> None:
    machine = made(cloud())
    machine.files["/srv/images/.lab.base.template-0123456789ab.qcow2.partial"] = Image(GIB)
    machine.files["/srv/images/.theirs.base.template-0123456789ab.qcow2.partial"] = Image(GIB)
    action = only(plan(cloud(), machine))
    assert isinstance(action, Tidy)
    assert action.paths[0] == "/srv/images/.lab.base.template-0123456789ab.qcow2.partial"
    ends(machine)
    assert [path for path in machine.files if "partial" in path] == [
        "/srv/images/.theirs.base.template-0123456789ab.qcow2.partial"]


def test_notes_of_other_clouds_are_theirs() -> None:
    machine = made(cloud())
    theirs = IntentFacts("theirs", "web", "destroy", (ROOT,))
    machine.files[intent_path("lab", "web")] = json.dumps(asdict(theirs)).encode()
    assert told(plan(cloud(), machine)) == []
