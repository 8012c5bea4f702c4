"""Doctor: everything that will not work on a host is found, and says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import cloud, made
from tests.unit.plan.simulate import Machine

from vmwright.doctor import Check, Verdict, checks
from vmwright.facts.model import HostFacts, IntentFacts, Kvm, PathFacts
from vmwright.names import HOST_STATE
from vmwright.units import GIB, MIB

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
WANTED = cloud()


@pytest.fixture
def host() -> HostFacts:
    """A host on which all is well."""
    return replace(made(WANTED).facts(WANTED), kvm_device_mode="root:kvm 660")


def bad(host: HostFacts, *, wanted: bool = True) -> list[Check]:
    """What is not fine."""
    return [check for check in checks(host, WANTED if wanted else None) if check.verdict is not OK]


def test_a_host_on_which_all_is_well(host: HostFacts) -> None:
    assert [(check.verdict, check.what, check.todo) for check in checks(host, WANTED)] == [
        (OK, "commands on the host run as root", ""),
        (OK, "libvirt 9.0.0 answers", ""),
        (OK, "QEMU 7.2.0", ""),
        (OK, "a guest starts under KVM", ""),
        (OK, "/dev/kvm is open to QEMU (root:kvm 660)", ""),
        (OK, "libvirt finds UEFI firmware", ""),
        (OK, "63G of 64G memory free", ""),
        (OK, "pool images at /srv/images: 500G free", ""),
        (OK, f"{HOST_STATE}, where templates are made: 500G free", ""),
        (OK, "the programs that make templates are there", ""),
        (OK, "flock, setsid and setpriv are there", "")]


@pytest.mark.parametrize(("changed", "found"), [
    ({"user": "joe"}, Check(FAIL, "commands on the host run as joe, not as root",
                            "run vmwright with sudo, or say connect: ssh://root@HOST")),
    ({"emulator": None}, Check(FAIL, "QEMU for x86_64 guests is not there",
                               "apt-get install qemu-system-x86 qemu-utils")),
    ({"uefi": False}, Check(FAIL, "libvirt finds no UEFI firmware", "apt-get install ovmf")),
    ({"kvm": Kvm.ABSENT, "kvm_reason": "there is no /dev/kvm"},
     Check(WARN, "no KVM: there is no /dev/kvm; guests run emulated, some ten times slower",
           "switch on VT-x or AMD-V in the firmware (in a VM: nested virtualisation), then: modprobe kvm_intel or "
           "kvm_amd")),
    ({"kvm": Kvm.BROKEN, "kvm_reason": "failed to set MSR"},
     Check(WARN, "/dev/kvm is there, but a guest does not start under it: failed to set MSR; guests run emulated, some "
                 "ten times slower",
           "in a VM: ask for nested virtualisation, or a newer hypervisor; else update firmware and kernel")),
    ({"kvm_device_mode": "root:root 600"},
     Check(FAIL, "/dev/kvm is root:root 600: QEMU may not open it, and libvirt then probes QEMU anew at each "
                 "definition of a VM, which takes long",
           "chgrp kvm /dev/kvm; chmod 660 /dev/kvm (udev does so on most systems)")),
    ({"memory_available": 100 * MIB}, Check(WARN, "only 100M of 64G memory free", "stop VMs or other programs")),
    ({"paths": (PathFacts(HOST_STATE, True, GIB),)},
     Check(WARN, f"{HOST_STATE}, where templates are made: only 1G free", "make room there")),
    ({"paths": (PathFacts("/srv/images", False, 9 * GIB, "/srv"),)},
     Check(FAIL, "pool images: /srv/images: the user that QEMU runs as cannot reach it: /srv is closed",
           "chmod o+x /srv")),
    ({"paths": (PathFacts("/srv/images", False, GIB),)},
     Check(WARN, "pool images: /srv/images will be made, only 1G free", "make room there")),
    ({"intents": (IntentFacts("lab", "web", "rebuild"),)},
     Check(WARN, "unfinished: rebuild of web, by a run that was cut off", "vmwright apply picks it up")),
])
def test_each_thing_that_is_wrong_says_what_to_do(host: HostFacts, changed: dict[str, object], found: Check) -> None:
    assert bad(replace(host, **changed)) == [found]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["root:kvm 660", "root:root 666", "root:kvm 0660", "libvirt-qemu:kvm 770"])
def test_a_kvm_device_that_qemu_can_open(host: HostFacts, mode: str) -> None:
    assert not bad(replace(host, kvm_device_mode=mode))


@pytest.mark.parametrize("mode", ["root:root 660", "root:kvm 640", "root:kvm 600", "root:kvm", "odd"])
def test_a_kvm_device_that_qemu_cannot_open(host: HostFacts, mode: str) -> None:
    assert [check.verdict for check in bad(replace(host, kvm_device_mode=mode))] == [FAIL]


def test_a_device_is_no_matter_where_there_is_no_kvm(host: HostFacts) -> None:
    said = [check.what for check in checks(replace(host, kvm=Kvm.ABSENT, kvm_device_mode="root:root 600"), WANTED)]
    assert not [what for what in said if what.startswith("/dev/kvm")]


def test_pools_that_are_off_or_full(host: HostFacts) -> None:
    pool = host.pools[0]
    assert bad(replace(host, pools=(replace(pool, active=False),))) == [
        Check(WARN, "pool images is not active", "virsh pool-start images, or vmwright apply")]
    assert bad(replace(host, pools=(replace(pool, available=GIB),))) == [
        Check(WARN, "pool images at /srv/images: only 1G free", "make room there")]


def test_programs_that_the_file_needs_fail_and_others_only_warn(host: HostFacts) -> None:
    bare = replace(host, tools=("flock", "setsid", "setpriv"))
    packages = "apt-get install mmdebstrap apt gdisk mtools dosfstools qemu-utils e2fsprogs"
    what = "missing, to make templates: mmdebstrap, apt-get, sgdisk, mcopy, mkfs.vfat, qemu-img, mke2fs"
    assert bad(bare) == [Check(FAIL, what, packages)]
    assert bad(bare, wanted=False) == [Check(WARN, what, packages)]
    assert bad(replace(host, tools=tuple(tool for tool in host.tools if tool != "flock"))) == [
        Check(FAIL, "missing: flock", "apt-get install util-linux")]


def test_a_file_without_templates_needs_no_programs(host: HostFacts) -> None:
    bare = replace(host, tools=("flock", "setsid", "setpriv"))
    assert not [check for check in checks(bare, cloud("vms: {}\n")) if "templates:" in check.what]


def test_everything_that_is_wrong_says_what_to_do_on_any_host() -> None:
    worst = replace(Machine().facts(WANTED), user="", emulator=None, uefi=False, kvm=Kvm.BROKEN, tools=(),
                    kvm_device_mode="root:root 600", memory_available=0)
    for check in checks(worst, WANTED):
        assert bool(check.todo) == (check.verdict is not OK), check


NOT_YET = Check(WARN, "nothing starts VMs in the file's order yet when the host boots", "vmwright apply")
ORDERED = cloud("vms: {web: {template: base, autostart: {order: 1}}}\n")


def ordered(**boot: Any) -> list[Check]:
    """What doctor says of the order on a host where it has been applied, with some of that changed."""
    host = made(ORDERED).facts(ORDERED)
    host = replace(host, boot=replace(host.boot, **boot))
    plain = {check.what for check in checks(host, WANTED)}
    return [check for check in checks(host, ORDERED) if check.what not in plain]


@pytest.mark.parametrize(("boot", "found"), [
    ({}, [Check(OK, "VMs start in the file's order when the host boots")]),
    ({"enabled": False}, [NOT_YET]),
    ({"order": None}, [NOT_YET]),
    ({"systemd": False}, [Check(
        WARN, "the host does not run systemd: when it boots, VMs start in no order",
        "start those that need others by hand, or have them wait for each other themselves")]),
    ({"guests": "start"}, [
        Check(OK, "VMs start in the file's order when the host boots"),
        Check(WARN, "libvirt-guests starts VMs when the host boots, in no order, before vmwright's unit",
              "say ON_BOOT=ignore in its settings: libvirt-guests in /etc/default, /etc/sysconfig or /etc/conf.d, as "
              "the distribution has it")]),
])
def test_whether_the_order_is_kept(boot: dict[str, Any], found: list[Check]) -> None:
    assert ordered(**boot) == found
