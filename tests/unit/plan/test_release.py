"""Release: what is ours goes, what was there before comes back, and VMs go on as they are."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.plan.build import changes, cloud, facts, made
from tests.unit.plan.simulate import DEBIAN, Machine
from tests.unit.plan.test_aside import LIST, ONE, READY
from tests.unit.plan.test_devices import device, file, server

from vmwright.boot import files
from vmwright.facts.model import BootFacts, Facts, FileFacts, PlatformFacts
from vmwright.names import (
    ASIDE_LIST,
    FILTER_RULE,
    FILTER_SETTINGS,
    GRUB_DROP_IN,
    HUGE_PAGES,
    INITRAMFS_HOOK,
    INITRAMFS_SCRIPT,
    KERNEL_NOTE,
)
from vmwright.plan.actions import Plan, UpdateVm
from vmwright.plan.diff import make_release_plan
from vmwright.plan.host_actions import GiveBack, RemoveStartOrder, WriteFiles
from vmwright.plan.own_files import mark


def ours(*paths: str, text: str = "ours\n") -> tuple[FileFacts, ...]:
    return tuple(FileFacts(path, text, text) for path in paths)


def released(platform: PlatformFacts, machine: Machine | None = None) -> Plan:
    wanted = cloud()
    found = facts(wanted, replace(machine or made(wanted), platform=platform))
    return make_release_plan(wanted, found, "here")


def test_a_host_that_has_nothing_of_ours_is_left_alone() -> None:
    found = released(DEBIAN)
    assert found.empty
    assert [kept.object for kept in found.kept] == ["1 VM", "/var/lib/vmwright", "packages"]


def test_every_file_goes_with_what_must_know() -> None:
    found = released(replace(DEBIAN, files=ours(GRUB_DROP_IN, FILTER_SETTINGS, FILTER_RULE, HUGE_PAGES)))
    writes = [action for action in found.actions if isinstance(action, WriteFiles)]
    assert {action.what: (action.remove, action.after) for action in writes} == {
        "bridge filter": ((FILTER_SETTINGS, FILTER_RULE), (("udevadm", "control", "--reload"),)),
        "huge pages": ((HUGE_PAGES,), ()),
        "kernel arguments": ((GRUB_DROP_IN,), (("update-grub",),)),
    }
    assert len(found.actions) == 3


def test_what_was_changed_by_hand_stays() -> None:
    there = FileFacts(HUGE_PAGES, "mine\n", "ours\n")
    found = released(replace(DEBIAN, files=(there,)))
    assert found.empty
    assert found.warnings == (f"host here: {HUGE_PAGES} was changed by hand, and stays; remove it when you have what "
                              "you need of it",)


def test_what_another_cloud_has_written_stays() -> None:
    assert released(replace(DEBIAN, files=ours(HUGE_PAGES, text=mark("other")))).empty


def test_arguments_that_grubby_has_set() -> None:
    (action,) = released(replace(DEBIAN, files=ours(KERNEL_NOTE, text="intel_iommu=on iommu=pt\n"))).actions
    assert isinstance(action, WriteFiles)
    assert action.after == (("grubby", "--update-kernel=ALL", "--remove-args=intel_iommu=on iommu=pt"),)


def test_devices_go_back_to_the_hosts_drivers() -> None:
    """At once where no VM has them, and at each boot from then on."""
    platform = replace(READY, files=(*ours(ASIDE_LIST, text=LIST), *ours(INITRAMFS_HOOK, INITRAMFS_SCRIPT)))
    host = replace(device(server(), "0000:05:00.0", driver="vfio-pci", former="nvme"), platform=platform)
    back, away = make_release_plan(file(ONE), Facts((host,)), "here").actions
    assert isinstance(back, GiveBack) and back.addresses == ("0000:05:00.0",)
    assert isinstance(away, WriteFiles) and away.remove == (ASIDE_LIST, INITRAMFS_HOOK, INITRAMFS_SCRIPT)
    assert changes(away)[0].startswith("device nvme-1: 05:00.0, S676NF0R908202 by vfio-pci -> left to the host's ")


def test_vms_that_our_unit_started_are_libvirts_to_start() -> None:
    wanted = cloud("vms: {web: {template: base, address: 10.0.0.10, autostart: {order: 1}}}\n")
    machine = made(wanted)
    boot = BootFacts(True, True, files.unit(), files.script(), files.list_text(files.rows(wanted.vms)))
    found = make_release_plan(wanted, facts(wanted, machine, boot=boot), "here")
    kinds = {type(action): action for action in found.actions}
    assert set(kinds) == {UpdateVm, RemoveStartOrder}
    assert changes(kinds[UpdateVm]) == ["autostart: in order -> by libvirt"]
    assert kinds[UpdateVm].id in kinds[RemoveStartOrder].needs, "at no time does nobody start it"
