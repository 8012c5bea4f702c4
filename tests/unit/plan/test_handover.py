"""What becomes of the data on devices, and how they go from one VM to another; carried out on the simulated host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from tests.unit.plan.build import changes, cloud, made, plan, refused, told
from tests.unit.plan.drives import Drive, notes
from tests.unit.plan.simulate import Killed, Machine, all_facts, carry_out, clone, use

from vmwright.errors import ApplyError
from vmwright.facts.model import DeviceFacts, Facts, Held, Use, UseFacts
from vmwright.plan.action import Effect
from vmwright.plan.actions import Plan, UpdateVm, VmAction
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.plan.power import make_start_plan
from vmwright.plan.view import Request
from vmwright.spec.cloud import Cloud

ONE, TWO, CARD = "0000:05:00.0", "0000:08:00.0", "0000:03:00.0"
NAMES = {"n1": "{serial: S1}", "n2": "{serial: S2}", "card": '{address: "03:00.0"}'}


def file(more: str = "", **devices: str) -> Cloud:
    """VMs with these devices, in the order given."""
    plain = "template: base, memory: 1G, address: 10.0.0"
    rows = "".join(f"\n  {name}: {{{plain}.{20 + ord(name)}, devices: {use}{more}}}" for name, use in devices.items())
    names = ", ".join(f"{name}: {spec}" for name, spec in NAMES.items())
    return cloud(f"hosts: {{here: {{pools: {{images: {{dir: /srv/images}}}}, devices: {{{names}}}}}}}\n"
                 f"vms:{rows or ' {}'}\n")


def machine() -> Machine:
    """A host with two drives and a card, all blank."""
    return Machine(drives={ONE: Drive("S1"), TWO: Drive("S2"), CARD: Drive("", "020000", "igb")})


def after(*files: Cloud, before: Machine | None = None) -> Machine:
    """The host on which these files have been applied, one after the other, everything confirmed; guests worked."""
    found = before or machine()
    for wanted in files:
        made(wanted, found)
    return found


def states(found: Machine) -> dict[str, tuple[str, Held]]:
    return {note.address: (note.vm, note.state) for note in notes(found.files)}


def of(found: Plan, vm: str) -> VmAction:
    """The first action on a VM."""
    return next(action for action in found.actions if isinstance(action, VmAction) and action.vm.name == vm)


def restarted(wanted: Cloud, found: Machine) -> None:
    """Apply with --restart."""
    assert not carry_out(plan(wanted, found, restart=True), wanted, found)
    use(found)


# -- what becomes of the data -----------------------------------------------------------------------------------------

def test_what_is_on_a_drive_is_kept_unless_the_file_says_wipe() -> None:
    for content, takes in (("n1", False), ("{n1: keep}", False), ("{n1: wipe}", True)):
        found = machine()
        found.drives[ONE].written = "before"
        action = of(plan(file(a=content), found), "a")
        assert (Effect.TAKES_DATA in action.effects) is takes
        text = ": what is on it (2G, ext4) -> wiped" if takes else ", with what is on it (2G, ext4)"
        assert f"device n1: 05:00.0, S1{text}" in changes(action)
        assert not carry_out(plan(file(a=content), found), file(a=content), found)
        assert found.drives[ONE].written == ("" if takes else "before") and states(found) == {ONE: ("a", Held.GIVEN)}


def test_its_own_data_is_its_own_when_it_is_made_again() -> None:
    """Destroyed and made again: kept; with wipe in the file: wiped, and that is asked for."""
    found = after(file(a="n1"))
    destroy = make_destroy_plan(file(a="n1"), all_facts(file(a="n1"), found), ["a"])
    assert not carry_out(destroy, file(a="n1"), found)
    assert found.drives[ONE].driver == "nvme" and states(found) == {ONE: ("a", Held.GIVEN)}
    action = of(plan(file(a="n1"), found), "a")
    assert not action.effects and "device n1: 05:00.0, S1, with the data it has (2G, ext4)" in changes(action)
    action = of(plan(file(a="{n1: wipe}"), found), "a")
    assert action.effects == {Effect.TAKES_DATA}
    assert "device n1: 05:00.0, S1: the data it has (2G, ext4) -> wiped" in changes(action)


@pytest.mark.parametrize(("content", "asked", "wiped"), [
    ("n1", (), False), ("{n1: keep}", (), False), ("{n1: wipe}", (), True), ("n1", ("n1",), True),
    ("{n1: keep}", ("n1",), True)])
def test_a_rebuild_keeps_or_wipes(content: str, asked: tuple[str, ...], wiped: bool) -> None:
    found, wanted = after(file(a="n1")), file(a=content)
    rebuild = make_rebuild_plan(wanted, all_facts(wanted, found), ["a"], asked)
    text = "05:00.0, S1: the data it has -> wiped" if wiped else "attached -> kept, with its data"
    assert f"device n1: {text}" in changes(of(rebuild, "a"))
    assert not carry_out(rebuild, wanted, found)
    assert found.drives[ONE].written == ("" if wiped else "a") and found.drives[ONE].driver == "vfio-pci"
    assert not plan(wanted, found).actions


def test_a_drive_of_its_own_that_comes_back_is_not_wiped() -> None:
    """Wipe is for a VM that is made, or for what was another's: not for what it had before."""
    wanted = file(a="{n1: wipe}")
    found = after(wanted, file(a="[]"))
    restarted(file(a="[]"), found)
    action = of(plan(wanted, found), "a")
    assert isinstance(action, UpdateVm) and Effect.TAKES_DATA not in action.effects


def test_to_wipe_what_no_vm_has() -> None:
    wanted = file(a="n1", b="n2")
    found = make_rebuild_plan(wanted, all_facts(wanted, after(wanted)), ["a"], ["n2"])
    assert refused(found) == ["--wipe n2: none of the VMs to rebuild has such a device\n    those that they have: n1"]


def test_what_it_takes_to_wipe() -> None:
    found = machine()
    found.tools = ()
    assert ("vm a: device n1 (05:00.0) cannot be wiped: blkdiscard is not installed on host here\n    install it "
            "there: apt-get install util-linux") in refused(plan(file(a="{n1: wipe}"), found))


def test_a_card_cannot_be_wiped() -> None:
    assert refused(plan(file(a="{card: wipe}"), machine())) == [
        "vm a: device card (03:00.0) has no disks, so there is nothing on it to wipe\n    take `wipe` out"]
    assert not plan(file(a="{card: keep}"), machine()).refused


# -- from one VM to another -------------------------------------------------------------------------------------------

def given_up(vm: str = "a") -> Machine:
    """A drive that a VM had, and that nobody has now."""
    found = after(file(a="n1", b="[]"), file(a="[]", b="[]"))
    restarted(file(a="[]", b="[]"), found)
    return found


def test_what_was_anothers_is_handed_over_by_word_alone() -> None:
    found = given_up()
    assert refused(plan(file(a="[]", b="n1"), found)) == [
        "vm b: device n1 (05:00.0) was vm a's last, and what that one has left is still on it\n    say what shall "
        "become of that: {n1: keep} or {n1: wipe}"]
    action = of(plan(file(a="[]", b="{n1: keep}"), found), "b")
    assert Effect.TAKES_DATA not in action.effects
    assert "device n1: 05:00.0, S1, with what was vm a's (2G, ext4) (now)" in changes(action)
    kept = after(file(a="[]", b="{n1: keep}"), before=clone(found))
    assert kept.drives[ONE].written == "b" and states(kept)[ONE] == ("b", Held.GIVEN)
    action = of(plan(file(a="[]", b="{n1: wipe}"), found), "b")
    assert Effect.TAKES_DATA in action.effects
    assert "device n1: 05:00.0, S1: what was vm a's (2G, ext4) -> wiped (now)" in changes(action)
    after(file(a="[]", b="{n1: wipe}"), before=found)
    assert states(found)[ONE] == ("b", Held.GIVEN)


def test_what_was_another_clouds() -> None:
    found = given_up()
    for path, data in list(found.files.items()):
        if "devices/" in path and isinstance(data, bytes):
            found.files[path] = data.replace(b'"lab"', b'"other"')
    assert "was vm a's of cloud other last" in refused(plan(file(a="n1", b="[]"), found))[0]


def test_a_card_goes_from_one_to_another_without_a_word() -> None:
    """There is no data on it. A running guest gives it up at once, and the other gets it after that."""
    found = after(file(a="card", b="[]"))
    wanted = file(b="card", a="[]")
    moved = plan(wanted, found)
    assert told(moved) == ["~ vm a: change", "~ vm b: change"]
    assert changes(moved.actions[0]) == ["device card: passed through -> given back to the host (now)"]
    assert moved.actions[0].effects == {Effect.CUTS_OFF}, "it is a NIC"
    assert moved.actions[0].id in moved.actions[1].needs
    after(wanted, before=found)
    assert found.drives[CARD].user == "b" and not plan(wanted, found).actions


def test_a_drive_goes_after_a_restart_only() -> None:
    found, wanted = after(file(a="n1", b="[]")), file(a="[]", b="{n1: keep}")
    assert refused(plan(wanted, found)) == [
        "vm b: device n1 (05:00.0) is vm a's until its next start\n    say --restart, and apply does that first"]
    moved = plan(wanted, found, restart=True)
    assert told(moved) == ["~ vm a: change", "~ vm a: restart", "~ vm b: change"]
    restarted(wanted, found)
    assert found.drives[ONE].user == "b" and found.drives[ONE].written == "b"


def test_a_drive_comes_from_a_vm_that_goes() -> None:
    found, wanted = after(file(a="n1")), file(b="{n1: wipe}")
    assert refused(plan(wanted, found)) == [
        "vm b: device n1 (05:00.0) is given to vm a\n    a is no longer in the file: vmwright apply --prune removes it"]
    moved = make_plan(wanted, all_facts(wanted, found), Request(prune=True))
    assert told(moved) == ["- vm a: destroy", "+ vm b: create"] and not moved.refused
    assert not carry_out(moved, wanted, found)
    assert found.drives[ONE].user == "b" and found.drives[ONE].written == ""


def test_an_exchange_is_refused() -> None:
    found = after(file(a="card", b="n1"))
    wanted = file(a="{n1: keep}", b="card")
    (problem,) = refused(plan(wanted, found, restart=True))
    assert problem.endswith("in exchange\n    take one of them out of the file, apply, and put it back")


def test_a_device_put_there_by_hand_stays_there() -> None:
    """What is not in our mark was not put there by us: it is not taken away, and not given to another."""
    found = after(file(a="card", b="[]"))
    for domain in found.domains.values():
        domain.persistent = domain.persistent.replace(f' devices="{CARD}"', "")
        domain.live = domain.persistent
    assert not [row for row in told(plan(file(a="[]", b="[]"), found)) if "vm a" in row]
    assert refused(plan(file(a="[]", b="card"), found)) == [
        "vm b: device card (03:00.0) is given to vm a, not by vmwright\n    take it out of that VM first (virsh "
        "detach-device a)"]
    assert not plan(file(a="card", b="[]"), found).actions


def test_a_rebuild_of_one_does_not_take_from_another() -> None:
    found, wanted = after(file(a="n1", b="[]")), file(a="[]", b="{n1: keep}")
    rebuild = make_rebuild_plan(wanted, all_facts(wanted, found), ["b"])
    assert refused(rebuild) == [
        "vm b: device n1 (05:00.0) is given to vm a\n    apply the whole file, where that VM is not to have it"]


def test_a_drive_that_was_pulled_is_known_when_it_is_back() -> None:
    """Another one was given at its place meanwhile; it comes back in another slot."""
    found = after(file(a="n1"))
    destroyed = make_destroy_plan(file(a="n1"), all_facts(file(a="n1"), found), ["a"])
    assert not carry_out(destroyed, file(a="n1"), found)
    found.drives[ONE] = Drive("S9")
    place = "hosts: {here: {pools: {images: {dir: /srv/images}}, devices: {n9: {serial: S9}, n1: {serial: S1}}}}\n"
    row = "template: base, memory: 1G, address: 10.0.0.3"
    after(cloud(f"{place}vms: {{b: {{{row}, devices: n9}}}}\n"), before=found)
    assert {(note.address, note.serial, note.vm) for note in notes(found.files)} == {(ONE, "S9", "b"), ("", "S1", "a")}
    found.drives[TWO] = Drive("S1", written="a")
    both = f"{place}vms: {{b: {{{row}, devices: n9}}, c: {{{row}0, devices: %s}}}}\n"
    assert refused(plan(cloud(both % "n1"), found))[0].startswith("vm c: device n1 (08:00.0) was vm a's last, and what")
    after(cloud(both % "{n1: keep}"), before=found)
    assert {(note.address, note.serial, note.vm) for note in notes(found.files)} == {(ONE, "S9", "b"), (TWO, "S1", "c")}


# -- in place ---------------------------------------------------------------------------------------------------------

def test_a_device_is_plugged_in_where_a_port_is_free_and_memory_too() -> None:
    found, wanted = after(file(a="[]")), file(a="[n1, n2]")
    rows = changes(of(plan(wanted, found), "a"))
    assert [row.endswith("(now)") for row in rows] == [True, True]
    facts = found.facts(wanted)
    def live(**changed: object) -> list[str]:
        config = facts.domains[0].live
        assert config
        domain = replace(facts.domains[0], live=replace(config, **changed))  # type: ignore[arg-type]
        host = replace(facts, domains=(domain,))
        return changes(of(make_plan(wanted, replace(all_facts(wanted, found), hosts=(host,))), "a"))

    assert [row.rpartition("(")[2] for row in live(free_ports=1)] == ["now)", "at next start)"]
    assert [row.rpartition("(")[2] for row in live(free_ports=0)] == ["at next start)"] * 2
    tight = replace(facts, memory_available=1 << 29)
    later = make_plan(wanted, replace(all_facts(wanted, found), hosts=(tight,)))
    assert [row.rpartition("(")[2] for row in changes(of(later, "a"))] == ["at next start)"] * 2, "all gets pinned"


def test_memory_is_not_changed_while_a_device_is_there() -> None:
    found = after(file(a="n1"))
    domain = found.domains["a"]
    domain.live = (domain.live or "").replace('<memory unit="KiB">1048576', '<memory unit="KiB">4194304')
    row = changes(of(plan(cloud_memory("2G"), found), "a"))
    assert row == ["memory: 1G -> 2G (at next start)"]


def cloud_memory(memory: str) -> Cloud:
    wanted = file(a="n1")
    return replace(wanted, vms=(replace(wanted.vms[0], memory=2 << 30),))


def test_a_drive_is_taken_away_at_the_next_start() -> None:
    found, without = after(file(a="[n1, card]")), file(a="[]")
    assert changes(of(plan(without, found), "a")) == [
        "device n1: passed through -> given back to the host (at next start)",
        "device card: passed through -> given back to the host (now)"]
    after(without, before=found)
    assert (found.drives[ONE].user, found.drives[CARD].user) == ("a", "")
    (kept,) = plan(without, found).kept[-1:]
    assert "devices will count from its next start" in kept.why
    restarted(without, found)
    assert found.drives[ONE].driver == "nvme" and not plan(without, found).actions


def test_its_next_start_is_not_the_only_way() -> None:
    """Off, it is given back already."""
    found = after(file(a="n1"))
    found.domains["a"].live = None
    found.drives[ONE].driver, found.drives[ONE].user = "nvme", ""
    after(file(a="[]"), before=found)
    assert found.drives[ONE].user == ""


# -- wiped, and cut off -----------------------------------------------------------------------------------------------

def begun(found: Machine, vm: str = "a") -> Machine:
    """A wipe of the first drive was begun for a VM, and cut off."""
    (path,) = (path for path in found.files if path.endswith(f"{ONE}.json"))
    text = found.files[path]
    assert isinstance(text, bytes)
    found.files[path] = text.replace(b'"given"', b'"wiping"').replace(b'"vm": "a"', f'"vm": "{vm}"'.encode())
    found.drives[ONE].half = True
    return found


def test_a_wipe_that_was_cut_off_is_finished_without_being_asked_for() -> None:
    """By whoever gets the drive next; what was to be kept cannot be any more."""
    found = begun(given_up())
    for devices in ("n1", "{n1: wipe}"):
        wanted = file(a="[]", b=devices)
        action = of(plan(wanted, found), "b")
        assert Effect.TAKES_DATA not in action.effects
        assert ("device n1: 05:00.0, S1: wiped in part, by a run that was cut off -> wiped to its end (now)"
                in changes(action))
    assert refused(plan(file(a="[]", b="{n1: keep}"), found)) == [
        "vm b: device n1 (05:00.0) is to be kept, but a wipe of it was begun and cut off: it is not whole\n    say "
        "wipe; or, to have what is left, remove the note on the host: rm /var/lib/vmwright/devices/0000:05:00.0.json"]
    after(file(a="[]", b="n1"), before=found)
    assert not found.drives[ONE].half and states(found)[ONE] == ("b", Held.GIVEN)


def test_a_drive_that_is_half_wiped_and_in_a_definition_is_refused() -> None:
    found = begun(after(file(a="n1")))
    assert refused(plan(file(a="n1"), found)) == [
        "vm a: device n1 (05:00.0) was half wiped when a run was cut off, and has been given to the VM since\n"
        "    vmwright rebuild a finishes the wipe"]
    rebuild = make_rebuild_plan(file(a="n1"), all_facts(file(a="n1"), found), ["a"])
    assert not carry_out(rebuild, file(a="n1"), found) and not found.drives[ONE].half


def test_a_drive_that_is_not_empty_after_all_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found, wanted = after(file(a="n1")), file(a="{n1: wipe}")
    rebuild = make_rebuild_plan(wanted, all_facts(wanted, found), ["a"])
    monkeypatch.setattr("tests.unit.plan.drives._zero", lambda *_: None)
    assert carry_out(rebuild, wanted, found)
    assert states(found)[ONE] == ("a", Held.WIPING) and found.drives[ONE].user == ""


def _apply(wanted: Cloud, found: Machine) -> Plan:
    return make_plan(wanted, all_facts(wanted, found), Request(restart=True, prune=True))


def _rebuild(wanted: Cloud, found: Machine) -> Plan:
    return make_rebuild_plan(wanted, all_facts(wanted, found), ["a"], ["n1"])


FILES = (file(a="n1"), file(a="{n1: wipe}", b="n2"), file(a="[{n1: wipe}, card]"), file(b="{n1: wipe}"),
         file(a="{n2: wipe}", b="{n1: keep}"), file(a="[]", b="[{n1: wipe}, {n2: wipe}]"), file(a="card", b="n1"))


@for_all(st.sampled_from(FILES), st.sampled_from(FILES), st.booleans(), st.integers(0, 60), st.booleans())
def test_cut_off_anywhere_it_converges(first: Cloud, second: Cloud, rebuilt: bool, fuse: int, fails: bool) -> None:
    """Killed, or failed, after any step: the next apply ends as the file says; no data is lost that was not given up,

    and nobody gets a drive that is wiped in part (the simulated drives see to both).
    """
    found = after(first)
    make: Callable[[Cloud, Machine], Plan] = _rebuild if rebuilt and second.vms[0].name == "a" else _apply
    begin = make(second, found)
    if begin.refused:
        return
    found.fuse, found.fails = fuse, fails
    with suppress(Killed):
        carry_out(begin, second, found)
    found.fuse, found.dead = None, False
    again = _apply(second, found)
    assert not again.refused, refused(again)
    assert not carry_out(again, second, found)
    assert not _apply(second, found).actions
    held = {drive.user for drive in found.drives.values() if drive.user}
    assert held == {vm.name for vm in second.vms if vm.devices}
    assert not any(drive.half for drive in found.drives.values())


def test_a_device_that_does_not_come_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmwright.apply import devices

    monkeypatch.setattr(devices, "_tries", lambda count: [0.0])
    found, wanted = after(file(a="card")), file(a="[]")
    found.drives[CARD].native = "vfio-pci"  # its driver has gone
    said: list[str] = []
    monkeypatch.setattr(ApplyError, "__init__", lambda self, what, **_: said.append(what))
    assert carry_out(plan(wanted, found), wanted, found)
    assert said == [f"device {CARD} did not come back to the host: vfio-pci has it"]


# -- destroy and start ------------------------------------------------------------------------------------------------

def test_what_a_vm_that_goes_gives_back_is_told() -> None:
    found, wanted = after(file(a="[n1, card]")), file(a="[n1, card]")
    (action,) = make_destroy_plan(wanted, all_facts(wanted, found), ["a"]).actions
    assert [row for row in changes(action) if row.startswith("device")] == [
        "device card: passed through -> given back to the host, as it is",
        "device n1: passed through -> given back to the host, as it is"]
    less = file(a="n1")
    rebuild = make_rebuild_plan(less, all_facts(less, found), ["a"])
    assert [row for row in changes(of(rebuild, "a")) if row.startswith("device")] == [
        "device n1: attached -> kept, with its data", "device card: passed through -> given back to the host, as it is"]


def off(wanted: Cloud) -> Machine:
    """The host, with the VM a off."""
    found = after(wanted)
    found.domains["a"].live = None
    found.drives[ONE].driver, found.drives[ONE].user = "nvme", ""
    return found


def start(wanted: Cloud, found: Machine, change: Callable[[DeviceFacts], DeviceFacts] = lambda device: device) -> Plan:
    """The plan of `vmwright start a`, with the first drive's facts changed."""
    facts = found.facts(wanted)
    devices = tuple(change(device) if device.address == ONE else device for device in facts.devices)
    return make_start_plan(wanted, Facts((replace(facts, devices=devices),)), ["a"])


def test_a_start_looks_at_the_devices_that_the_vm_has() -> None:
    """Whatever the file says of them by now."""
    found, wanted = off(file(a="n1")), file(a="[n1, n2]")
    assert told(start(wanted, found)) == ["~ vm a: start"] and not start(wanted, found).refused
    mounted = start(wanted, found, lambda drive: replace(drive, uses=(UseFacts(Use.MOUNT, "/dev/nvme0n1", "/mnt"),)))
    assert refused(mounted) == [
        "vm a: device n1 (05:00.0) is in use by the host: /dev/nvme0n1 is mounted at /mnt\n    unmount it (umount "
        "/mnt; and see /etc/fstab), or give a another device"]
    gone = start(wanted, found, lambda drive: replace(drive, address="0000:99:00.0"))
    assert refused(gone) == ["vm a: its device 05:00.0 is not at 05:00.0 any more\n    see what is there: vmwright "
                             "facts --devices; then vmwright apply"]
    assert refused(start(wanted, begun(clone(found)))) == [
        "vm a: device n1 (05:00.0) is wiped in part, by a run that was cut off\n    vmwright rebuild a finishes that"]


def test_a_start_of_a_vm_whose_device_is_with_another() -> None:
    found, wanted = after(file(a="n1", b="[]")), file(a="n1", b="[]")
    found.domains["b"].live = found.domains["a"].live
    found.domains["a"].live = None
    assert "vm a: device n1 (05:00.0) is with vm b, which runs\n    stop b first" in refused(start(wanted, found))
