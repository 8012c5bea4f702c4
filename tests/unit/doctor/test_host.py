"""Doctor: what is judged of any host, with a file and without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.doctor.cases import FAIL, NOTE, OK, WARN, WEB, WELL, applied, said, verdicts, wrong
from tests.unit.plan.build import WEB as WEB_TEXT
from tests.unit.plan.build import cloud
from tests.unit.plan.simulate import Machine

from vmwright.doctor.check import Area, Check
from vmwright.doctor.examine import worst
from vmwright.doctor.visit import Visit, reports
from vmwright.errors import HostError
from vmwright.facts.health import Clock
from vmwright.facts.model import HostFacts, IntentFacts, Kvm, PathFacts, PlatformFacts
from vmwright.names import HOST_STATE
from vmwright.plan.needs import VIRTUALISATION
from vmwright.units import GIB, MIB

SLOW = "guests run emulated, some ten times slower"
MAY_NOT = ("VMs under KVM do not start, and libvirt probes QEMU anew at each definition of a VM, which takes long",
           "chgrp kvm /dev/kvm; chmod 660 /dev/kvm (udev does so on most systems); usermod -aG kvm libvirt-qemu, then "
           "restart libvirt's daemon")


@pytest.fixture
def host() -> HostFacts:
    """A host on which all is well."""
    return applied(WEB)


def test_a_host_on_which_all_is_well(host: HostFacts) -> None:
    found = said(WEB, host)
    assert [(check.area, check.what) for check in found] == [
        (Area.ACCESS, "commands run as root"),
        (Area.ACCESS, "/dev/kvm is open to QEMU (root:kvm 660)"),
        (Area.SOFTWARE, "the programs that make templates are there"),
        (Area.SOFTWARE, "libvirt 9.0.0 answers"),
        (Area.SOFTWARE, "QEMU 7.2.0"),
        (Area.SOFTWARE, "libvirt finds UEFI firmware"),
        (Area.SOFTWARE, "both are new enough for the file"),
        (Area.CPU, "a guest starts under KVM (VT-x)"),
        (Area.CPU, "VMs with the host's CPU can have VMs of their own"),
        (Area.CPU, "CPU frequency: performance"),
        (Area.MEMORY, "63G of 64G memory free"),
        (Area.STORAGE, "pool images at /srv/images: 500G free"),
        (Area.STORAGE, f"{HOST_STATE}, where templates are made: 500G free"),
        (Area.NETWORK, "network lan is active (nat 10.0.0.1/24)"),
        (Area.CLOCK, "the clock is synchronised (chrony)"),
        (Area.SECURITY, "AppArmor is on"),
        (Area.SECURITY, "nothing was denied to libvirt or QEMU in the last day")]
    assert {(check.verdict, check.why, check.todo) for check in found} == {(OK, "", "")}


@pytest.mark.parametrize(("changed", "found"), [
    ({"user": "joe"}, Check(FAIL, Area.ACCESS, "commands run as joe, not as root",
                            "pools, networks and devices of the host are root's to change",
                            "run vmwright with sudo, or say connect: ssh://USER@HOST with a USER who may use sudo")),
    ({"emulator": None}, Check(FAIL, Area.SOFTWARE, "libvirt knows no QEMU for x86_64", "it could start no VM",
                               "see what it says of it there: virsh domcapabilities")),
    ({"uefi": False}, Check(FAIL, Area.SOFTWARE, "libvirt finds no UEFI firmware", "web boots with it",
                            "apt-get install ovmf (or say `firmware: bios`)")),
    ({"memory_available": 100 * MIB}, Check(WARN, Area.MEMORY, "only 100M of 64G memory free",
                                            "the host swaps, or kills a VM, when it runs out",
                                            "stop VMs or other programs")),
    ({"paths": (PathFacts(HOST_STATE, True, GIB),)},
     Check(WARN, Area.STORAGE, f"{HOST_STATE}, where templates are made: only 1G free",
           "a template is made there before it goes to its pool", "make room there")),
    ({"paths": (PathFacts("/srv/images", False, 9 * GIB, "/srv"),)},
     Check(FAIL, Area.STORAGE, "pool images at /srv/images: /srv is closed to the user that QEMU runs as",
           "no VM with a disk there can start", "chmod o+x /srv")),
    ({"paths": (PathFacts("/srv/images", False, GIB),)},
     Check(WARN, Area.STORAGE, "pool images will be made at /srv/images, with only 1G free",
           "VMs whose disks cannot be written stop with an I/O error", "make room there")),
    ({"intents": (IntentFacts("lab", "web", "boot"),)},
     Check(WARN, Area.BOOT, "unfinished: boot of web", "a run was cut off there", "vmwright apply picks it up")),
])
def test_facts_that_are_wrong(host: HostFacts, changed: dict[str, Any], found: Check) -> None:
    assert found in wrong(WEB, replace(host, **changed))


@pytest.mark.parametrize(("health", "found"), [
    ({"kvm_opens": False}, Check(FAIL, Area.ACCESS, "/dev/kvm is root:kvm 660: libvirt-qemu, the user that QEMU runs "
                                 "as, may not open it", *MAY_NOT)),
    ({"nested": False, "modules": ("kvm", "kvm_amd")},
     Check(NOTE, Area.CPU, "nested virtualisation is off",
           "VMs with `cpu: host-passthrough` (web) cannot run VMs under KVM themselves",
           "if they are to: echo 'options kvm_amd nested=1' > /etc/modprobe.d/kvm-nested.conf, and reboot")),
    ({"governors": (("performance", 6), ("powersave", 2)), "scaling": "intel_pstate"},
     Check(NOTE, Area.CPU, "CPU frequency: powersave on 2 CPUs (intel_pstate)",
           "CPUs that idle between two requests begin each of them slowly, in guests too; it saves power",
           "where speed counts more: cpupower frequency-set -g performance, and at each boot by tuned (tuned-adm "
           "profile virtual-host) or a unit of your own")),
])
def test_what_only_doctor_looks_at(host: HostFacts, health: dict[str, Any], found: Check) -> None:
    assert wrong(WEB, host, **health) == [found]


@pytest.mark.parametrize(("mode", "opens"), [
    ("root:kvm 660", True), ("root:root 666", True), ("root:kvm 0660", True), ("libvirt-qemu:kvm 770", True),
    ("root:root 660", False), ("root:kvm 640", False), ("root:kvm 600", False), ("root:kvm", False), ("odd", False)])
def test_a_kvm_device_that_could_not_be_tried_is_judged_by_its_mode(host: HostFacts, mode: str, opens: bool) -> None:
    found = wrong(WEB, replace(host, kvm_device_mode=mode), kvm_opens=None)
    assert [check.verdict for check in found] == ([] if opens else [FAIL])


def test_a_device_is_no_matter_where_there_is_no_kvm(host: HostFacts) -> None:
    found = said(WEB, replace(host, kvm=Kvm.ABSENT, kvm_device_mode="root:root 600"), kvm_opens=False)
    assert not [check for check in found if "/dev/kvm" in check.what]


# -- KVM --------------------------------------------------------------------------------------------------------------

ABSENT = {"kvm": Kvm.ABSENT, "kvm_reason": "there is no /dev/kvm"}


@pytest.mark.parametrize(("health", "what", "todo"), [
    ({"firmware": ("kvm: disabled by bios",)}, "the firmware has switched it off (kvm: disabled by bios)",
     "switch on VT-x (Intel) or SVM (AMD) in the firmware's set-up, often below Processor"),
    ({"virtualisation": "", "guest": True},
     "the host is a virtual machine itself, and its CPU has neither VT-x nor AMD-V",
     "have it made with nested virtualisation, and with the CPU of its own host (host-passthrough)"),
    ({"virtualisation": ""}, "the CPU shows neither VT-x nor AMD-V",
     "switch it on in the firmware's set-up (VT-x, SVM); a CPU that has none of it will not do"),
    ({"virtualisation": "svm", "modules": ("kvm",)}, "AMD-V is there, and the kernel has not loaded kvm_amd",
     "modprobe kvm_amd; when that fails: dmesg | grep -i kvm"),
    ({}, "there is no /dev/kvm", "modprobe -r kvm_intel; modprobe kvm_intel; dmesg | grep -i kvm"),
])
def test_why_there_is_no_kvm(host: HostFacts, health: dict[str, Any], what: str, todo: str) -> None:
    assert Check(WARN, Area.CPU, f"no KVM: {what}", SLOW, todo) in wrong(WEB, replace(host, **ABSENT), **health)


def test_kvm_that_does_not_work(host: HostFacts) -> None:
    broken = replace(host, kvm=Kvm.BROKEN, kvm_reason="failed to set MSR")
    what = "/dev/kvm is there, but a guest does not start under it: failed to set MSR"
    assert Check(WARN, Area.CPU, what, SLOW, "update firmware and kernel") in wrong(WEB, broken)
    assert Check(WARN, Area.CPU, what, SLOW, "the host is a virtual machine itself: have it made with nested "
                 "virtualisation, or by a newer hypervisor") in wrong(WEB, broken, guest=True)


def test_the_file_may_insist_on_kvm_or_want_none(host: HostFacts) -> None:
    insists = cloud("hosts: {here: {accelerator: kvm, pools: {images: {dir: /srv/images}}}}\n"
                    "vms: {web: {template: base, vcpus: 1, memory: 1G, address: 10.0.0.10}}\n")
    found = next(check for check in wrong(insists, replace(host, **ABSENT)) if check.area is Area.CPU)
    assert (found.verdict, found.why) == (FAIL, "the file insists on it: `accelerator: kvm`")
    none = cloud("hosts: {here: {accelerator: qemu, pools: {images: {dir: /srv/images}}}}\nvms: {}\n")
    assert not [check for check in wrong(none, replace(host, **ABSENT)) if check.area is Area.CPU]


# -- programs and versions --------------------------------------------------------------------------------------------

def bare(host: HostFacts, platform: PlatformFacts) -> HostFacts:
    """The host before anything was installed."""
    tools = tuple(tool for tool in host.tools if tool not in (*VIRTUALISATION, "virtqemud", "qemu-kvm", "sgdisk"))
    return replace(Machine().facts(WEB), tools=tools, emulator=None, libvirt=None, uefi=False, platform=platform,
                   kvm=Kvm.ABSENT, kvm_reason="QEMU is not installed")


@pytest.mark.parametrize(("platform", "packages"), [
    (PlatformFacts("debian", (), "b", "", True, ("apt-get",)),
     "apt-get install qemu-system-x86 libvirt-daemon-system libvirt-clients qemu-utils ovmf dnsmasq-base"),
    (PlatformFacts("fedora", (), "b", "", True, ("dnf",)),
     "dnf install qemu-kvm libvirt-daemon-kvm libvirt-client qemu-img edk2-ovmf dnsmasq"),
])
@pytest.mark.parametrize("file", [True, False])
def test_without_libvirt_what_apply_would_install(host: HostFacts, platform: PlatformFacts, packages: str,
                                                  file: bool) -> None:
    found = wrong(WEB, bare(host, platform), file=file)
    assert Check(WARN, Area.SOFTWARE, "not installed: qemu-system-x86_64, libvirtd, virsh, qemu-img",
                 "no VM can be made without libvirt and QEMU",
                 f"vmwright apply installs what its file needs; by hand: {packages}") in found
    rest = next(check for check in found if check.what == "not installed: sgdisk")
    assert (rest.verdict, rest.why) == (WARN, "templates and pools are made with them")
    assert worst(found) is WARN, "apply does what is missing"
    assert not [check for check in found if check.area is Area.CPU], "KVM cannot be tried without QEMU"
    off = wrong(WEB, bare(host, platform), file=file, firmware=("kvm: disabled by bios",), modules=())
    assert [check.what for check in off if check.area is Area.CPU] == [
        "no KVM: the firmware has switched it off (kvm: disabled by bios)"]


def test_a_distribution_that_nothing_can_be_installed_on(host: HostFacts) -> None:
    found = wrong(WEB, bare(host, PlatformFacts("void")))
    first = next(check for check in found if check.what.startswith("not installed: qemu-system"))
    assert (first.verdict, first.todo.split(":")[0]) == (FAIL, "install them by hand; by Debian's names")
    assert first.why.endswith("and vmwright knows no way to install packages on Debian GNU/Linux 12 (bookworm)")


def test_a_file_without_templates_needs_no_programs(host: HostFacts) -> None:
    empty = replace(host, tools=("flock", "setsid", "setpriv", *VIRTUALISATION))
    assert not [check for check in wrong(cloud("vms: {}\ntemplates: {}\n"), empty) if check.area is Area.SOFTWARE]


def test_programs_of_our_own_commands(host: HostFacts) -> None:
    assert wrong(WEB, replace(host, tools=tuple(tool for tool in host.tools if tool != "flock"))) == [
        Check(FAIL, Area.SOFTWARE, "missing: flock", "the lock of a host, and commands that can be stopped, are made "
              "of them", "apt-get install util-linux")]


NEWER = "take a newer release of the host's distribution"
BIOS = WEB_TEXT + "templates: {base: {build: debian, disk: 4G, firmware: bios}}\n"


@pytest.mark.parametrize(("libvirt", "emulator", "vms", "found"), [
    ("8.1.0", "5.1.0", "", []),
    ("8.0.0", "6.2.0", "", [
        Check(WARN, Area.SOFTWARE, "libvirt 8.0.0 is too old for all that may be asked of it: 8.1 is needed",
              "the file takes a fresh copy of UEFI's variables when web is rebuilt: 8.1", NEWER)]),
    ("8.0.0", "6.2.0", BIOS, []),
    ("7.0.0", "5.2.0", BIOS, []),
    ("9.0.0", "4.2.1", BIOS, [
        Check(WARN, Area.SOFTWARE, "QEMU 4.2.1 is too old for all that may be asked of it: 5.1 is needed",
              "the file takes free memory given back by VMs: 5.1", NEWER)]),
])
def test_versions_that_the_file_takes(libvirt: str, emulator: str, vms: str, found: list[Check]) -> None:
    wanted = cloud(vms) if vms else WEB
    assert wrong(wanted, applied(wanted, libvirt=libvirt, emulator=emulator)) == found


# -- without a file ---------------------------------------------------------------------------------------------------

def test_without_a_file_nothing_is_asked_for_but_a_host_that_can_run_vms(host: HostFacts) -> None:
    found = wrong(WEB, replace(host, uefi=False, kvm=Kvm.ABSENT), file=False)
    assert {check.verdict for check in found} == {WARN}


def test_all_that_is_wrong_says_why_and_what_to_do() -> None:
    worst_case = replace(Machine().facts(WEB), user="", emulator=None, uefi=False, kvm=Kvm.BROKEN, tools=(),
                         kvm_device_mode="root:root 600", memory_available=0)
    found = said(WEB, worst_case, kvm_opens=False, synchronised=False, apparmor=False, nested=False)
    for check in found:
        assert bool(check.todo) == bool(check.why) == (check.verdict is not OK), check


# -- hosts that cannot be asked ---------------------------------------------------------------------------------------

def gone(why: str) -> HostError:
    return HostError("libvirt on host here does not answer", why=why, todo="systemctl start libvirtd")


DENIED = "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied"


@pytest.mark.parametrize(("login", "groups", "why", "what", "todo"), [
    ("root", ("root",), "refused", "libvirt on host here does not answer", "systemctl start libvirtd"),
    ("joe", ("joe", "libvirt"), DENIED, "libvirt on host here does not answer", "systemctl start libvirtd"),
    ("joe", ("joe",), "refused", "libvirt on host here does not answer", "systemctl start libvirtd"),
    ("joe", ("joe",), DENIED, "libvirt on host here does not answer, and joe is not in the group libvirt",
     "as root: usermod -aG libvirt joe; it counts from the next login on"),
])
def test_libvirt_that_does_not_answer(host: HostFacts, login: str, groups: tuple[str, ...], why: str, what: str,
                                      todo: str) -> None:
    """All the rest is judged all the same, but for what a plan would do."""
    facts = replace(Machine().facts(WEB), libvirt=None, emulator=None, uefi=False, kvm_device_mode="root:kvm 660")
    seen = Visit("here", "local", facts, replace(WELL, login=login, groups=groups), silent=gone(why))
    (report,) = reports(WEB, [seen])
    assert [check for check in report.checks if check.verdict is FAIL] == [
        Check(FAIL, Area.ACCESS, what, f"nothing can be done without it ({why})", todo)]
    assert any(check.area is Area.STORAGE for check in report.checks)


def test_one_host_of_several_that_cannot_be_reached() -> None:
    wanted = cloud("hosts: {here: {pools: {images: {dir: /srv/images}}}, far: {connect: 'ssh://root@far'}}\n"
                   "vms: {web: {template: base, host: here, vcpus: 1, memory: 1G, address: 10.0.0.10}}\n")
    lost = HostError("cannot connect to host far", why="timed out", todo="is it up?")
    here, far = reports(wanted, [Visit("here", "local", applied(WEB), WELL), Visit("far", "root@far", lost=lost)])
    assert far.checks == (Check(FAIL, Area.ACCESS, "cannot connect to host far", "timed out", "is it up?"),)
    assert verdicts([check for check in here.checks if check.verdict is FAIL]) == []


def test_clocks_that_differ() -> None:
    wanted = cloud("hosts: {one: {connect: 'ssh://root@one'}, two: {connect: 'ssh://root@two'}}\nvms: {}\n"
                   "templates: {}\n")
    clocks = {"one": Clock(-40.0, 0.1), "two": Clock(0.5, 0.3)}
    seen = [Visit(name, name, replace(applied(cloud("vms: {}\n")), name=name), WELL, clock)
            for name, clock in clocks.items()]
    one, two = reports(wanted, seen)
    assert [check.what for check in one.checks if check.area is Area.CLOCK] == [
        "the clock is synchronised (chrony)", "its clock is 40 s behind this machine's"]
    assert [check.what for check in two.checks if check.area is Area.CLOCK] == [
        "the clock is synchronised (chrony)", "its clock and this machine's agree within 0.5 s",
        "its clock is 40 s ahead of host one's"]


@pytest.mark.parametrize(("health", "verdict", "what"), [
    ({"synchronised": None, "clock_services": ()}, NOTE,
     "whether the clock is synchronised is not known: neither timedatectl nor chronyc answers"),
    ({"synchronised": False}, WARN, "the clock is not synchronised, though something is to keep it (chrony)"),
    ({"synchronised": False, "clock_services": ()}, WARN, "the clock is not synchronised, and nothing keeps it"),
])
def test_a_clock_that_nobody_keeps(host: HostFacts, health: dict[str, Any], verdict: Any, what: str) -> None:
    assert verdicts(wrong(WEB, host, **health)) == [(verdict, what)]
