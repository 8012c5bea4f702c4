"""VMs that are not there: created, with all that says what they will be; or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.plan.build import changes, cloud, facts, made, plan, refused, told, vm
from tests.unit.plan.simulate import Image, Machine, all_facts, carry_out

from vmwright.facts.model import Kvm, OwnerFacts
from vmwright.plan.actions import CreateVm
from vmwright.plan.diff import make_plan
from vmwright.units import GIB


def create(text: str, machine: Machine | None = None) -> CreateVm:
    """The action that makes web."""
    wanted = cloud(text)
    action = next(a for a in plan(wanted, machine or Machine()).actions if isinstance(a, CreateVm))
    return action


def test_it_says_what_it_makes_and_why() -> None:
    action = create(vm())
    version = action.template.version
    assert (action.sign, action.object, action.verb) == ("+", "vm web", "create")
    assert action.why == "libvirt has no VM of that name"
    assert not action.effects
    assert changes(action) == [f"from: base@{version}", "vcpus: 1", "memory: 1G", "disk: 4G", "address: 10.0.0.10/24"]
    assert action.networks == (("lan", "network", "lan"),)


def test_everything_unusual_is_told() -> None:
    text = vm(copy="full", disk="8G", disks="{data: 2G}", running="false", cpu="qemu64")
    rows = changes(create(text.replace("address: 10.0.0.10", "nics: [{network: lan}]"), Machine(kvm=Kvm.ABSENT)))
    assert rows[0].startswith("from: full copy of base@")
    assert rows[1:] == ["vcpus: 1", "memory: 1G", "disk: 8G", "address: DHCP", "disk data: 2G", "cpu: qemu64, emulated",
                        "state: off"]


@pytest.mark.parametrize(("accelerator", "kvm", "kind"), [
    ("auto", Kvm.WORKS, "kvm"), ("auto", Kvm.BROKEN, "qemu"), ("auto", Kvm.ABSENT, "qemu"), ("qemu", Kvm.WORKS, "qemu"),
    ("kvm", Kvm.WORKS, "kvm")])
def test_kvm_where_guests_run_under_it(accelerator: str, kvm: Kvm, kind: str) -> None:
    text = f"hosts: {{here: {{accelerator: {accelerator}, pools: {{images: {{dir: /srv/images}}}}}}}}\n" + vm()
    assert create(text, Machine(kvm=kvm)).type == kind


def test_emulation_is_warned_of_with_its_reason() -> None:
    wanted, machine = cloud(), Machine()
    found = make_plan(wanted, facts(wanted, machine, kvm=Kvm.BROKEN, kvm_reason="failed to set MSR"))
    assert found.warnings == ("host here: guests run emulated, some ten times slower than with KVM, because KVM is "
                              "broken (failed to set MSR)",)
    assert not make_plan(cloud("vms: {}\n"), facts(wanted, machine, kvm=Kvm.BROKEN)).warnings


@pytest.mark.parametrize(("changed", "text", "said"), [
    ({"emulator": None, "uefi": False}, vm(),
     "host here: libvirt knows no QEMU for x86_64\n    see what it says of it there: virsh domcapabilities"),
    ({"uefi": False}, vm(), "host here: libvirt finds no UEFI firmware, which web boots with\n"
                            "    install it: apt-get install ovmf (or say `firmware: bios`)"),
    ({"kvm": Kvm.BROKEN, "kvm_reason": "it hangs"},
     "hosts: {here: {accelerator: kvm, pools: {images: {dir: /srv/images}}}}\n" + vm(),
     "host here: `accelerator: kvm`, but KVM is broken: it hangs\n"
     "    see `vmwright doctor`, or say `accelerator: auto`"),
])
def test_a_host_that_cannot_run_guests_is_refused(changed: dict[str, object], text: str, said: str) -> None:
    wanted = cloud(text)
    assert refused(make_plan(wanted, facts(wanted, Machine(), **changed))) == [said]


def test_bios_guests_need_no_uefi_firmware() -> None:
    wanted = cloud("templates: {base: {build: debian, disk: 4G, firmware: bios}}\n" + vm())
    assert not make_plan(wanted, facts(wanted, Machine(), uefi=False)).refused


@pytest.mark.parametrize(("owner", "whose"), [
    (None, "was not made by vmwright"),
    (OwnerFacts("theirs", "web", "t", "1", "i", "s"), "belongs to cloud theirs"),
    (OwnerFacts("lab", "db", "t", "1", "i", "s"), "is a copy of this cloud's db, or that one renamed"),
])
def test_a_name_that_another_vm_has_is_refused(owner: OwnerFacts | None, whose: str) -> None:
    wanted, machine = cloud(), made(cloud())
    domain = machine.facts(wanted).domains[0]
    strange = replace(domain, persistent=replace(domain.persistent, owner=owner))
    found = make_plan(wanted, facts(wanted, machine, domains=(strange,)))
    assert refused(found) == [f"vm web: host here has a VM of that name already, which {whose}\n"
                              "    choose another name, or rename the other one (virsh domrename)"]
    assert str(found.refused[0].where) == "cloud.yaml:6:7"
    assert not found.actions


def test_a_volume_of_its_name_that_nobody_knows_is_refused() -> None:
    machine = made(cloud("vms: {}\n"))
    machine.files["/srv/images/lab.web.root.qcow2"] = Image(4 * GIB, used=True)
    machine.files["/srv/images/lab.web.disk-data.qcow2"] = Image(4 * GIB, used=True)
    assert refused(plan(cloud(), machine)) == [
        "vm web: there is no such VM, but a volume of that name: /srv/images/lab.web.root.qcow2, "
        "/srv/images/lab.web.disk-data.qcow2\n"
        "    if it holds nothing of worth: vmwright destroy web; else rename or move it away"]


def test_a_seed_alone_holds_nothing_of_worth() -> None:
    machine = made(cloud("vms: {}\n"))
    machine.files["/srv/images/lab.web.seed.iso"] = b"seed"
    found = plan(cloud(), machine)
    action = found.actions[-1]
    assert isinstance(action, CreateVm) and action.remove == ("/srv/images/lab.web.seed.iso",)
    assert changes(action)[-1] == "leftover lab.web.seed.iso: 4B -> removed"
    assert not carry_out(found, cloud(), machine)
    assert not plan(cloud(), machine).actions


def test_what_is_not_yet_applied_is_named_with_its_place() -> None:
    wanted = cloud("""
        vms: {web: {template: base, address: 10.0.0.10, pin: auto}}
        """)
    found = plan(wanted, Machine())
    assert [str(problem) for problem in found.refused] == [
        "cloud.yaml:7:49: vms.web.pin: auto is not yet applied by this version of vmwright\n"
        "    take it out of the file (or comment it out) until a version that does"]


def test_a_missing_key_file_is_refused() -> None:
    wanted = cloud("users: {admin: {ssh_keys: [/nowhere/id.pub]}}\n" + vm())
    found = plan(wanted, Machine())
    assert found.refused == wanted.missing
    assert [str(problem) for problem in found.refused] == [
        "cloud.yaml:5:28: users.admin.ssh_keys.0: the key file /nowhere/id.pub is not on this machine\n"
        "    name a file of public keys that is there"]


def test_warnings_of_the_file_are_passed_on() -> None:
    wanted = replace(cloud(), warnings=("cloud.yaml:1:1: something odd",))
    assert make_plan(wanted, all_facts(wanted, Machine())).warnings == ("cloud.yaml:1:1: something odd",)


def test_a_vm_that_is_not_to_run_is_made_and_left_off() -> None:
    wanted = cloud(vm(running="false"))
    machine = made(wanted)
    assert machine.domains["web"].live is None
    found = plan(wanted, machine)
    assert not found.actions
    assert ("vm web", "is off, as the file says") in {(kept.object, kept.why) for kept in found.kept}


def test_the_id_of_an_incarnation_follows_from_names_and_version() -> None:
    """So a plan is the same at every run; a rebuild makes another (tested there)."""
    one, other = create(vm()), create(vm(memory="2G"))
    assert one.instance == other.instance
    assert create(vm()).instance != create("templates: {base: {build: debian, disk: 5G}}\n" + vm()).instance


def test_many_vms_come_in_the_order_of_the_file() -> None:
    found = plan(cloud("vms: {z: {count: 3, template: base, address: 10.0.0.10}, a: {template: base}}\n"), Machine())
    assert told(found)[3:] == [f"+ vm {name}: create" for name in ("z-1", "z-2", "z-3", "a")]
