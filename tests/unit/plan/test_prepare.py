"""What prepares a host: packages by its distribution, the IOMMU by its firmware and kernel, a reboot when asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.plan.build import WEB, changes, cloud, facts, made, plan, refused
from tests.unit.plan.simulate import DEBIAN, Machine

from vmwright.facts.model import FileFacts, IommuFacts, PlatformFacts
from vmwright.names import GRUB_DROP_IN, written_note
from vmwright.plan.action import Action, Effect
from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_plan, make_rebuild_plan
from vmwright.plan.host_actions import InstallPackages, Reboot, SetKernelArguments
from vmwright.plan.needs import VIRTUALISATION
from vmwright.plan.prepare import drop_in

FEDORA = PlatformFacts("rocky", ("rhel", "centos", "fedora"), "boot-1", "ro", True, ("dnf", "grubby"))
IOMMU = ("hosts: {here: {connect: 'ssh://root@h', iommu: true, pools: {images: {dir: /srv/images}}}}\n" + WEB)
INTEL = ("intel_iommu=on", "iommu=pt")
OFF = IommuFacts(False, "DMAR")
ON = IommuFacts(True, "DMAR")


def bare(platform: PlatformFacts = DEBIAN, **changed: Any) -> Plan:
    """The plan for a host that has nothing of what guests need."""
    wanted, machine = cloud(), Machine(platform=platform)
    programs = (*VIRTUALISATION, "virtqemud", "qemu-kvm")
    machine.tools = tuple(tool for tool in machine.tools if tool not in programs)
    found = facts(wanted, machine, emulator=None, libvirt=None, uefi=False, **changed)
    return make_plan(wanted, found)


def test_a_bare_debian_gets_libvirt_and_what_belongs_to_it() -> None:
    found = bare()
    (install,) = found.first
    assert isinstance(install, InstallPackages)
    assert (install.tool, install.why) == ("apt-get", "libvirt and QEMU are not installed")
    assert install.packages == ("qemu-system-x86", "libvirt-daemon-system", "libvirt-clients", "qemu-utils", "ovmf",
                                "dnsmasq-base")
    assert install.services == ("libvirtd.socket", "virtlogd.socket")
    assert not found.refused
    assert len(found.actions) > 1, "the rest is shown, too, as far as it is known"


def test_a_bare_host_of_the_other_family() -> None:
    (install,) = bare(FEDORA).first
    assert isinstance(install, InstallPackages)
    assert install.tool == "dnf"
    assert install.packages == ("qemu-kvm", "libvirt-daemon-kvm", "libvirt-client", "qemu-img", "edk2-ovmf", "dnsmasq")
    assert "virtproxyd.socket" in install.services


def test_programs_that_do_the_same_are_not_installed() -> None:
    """Fedora's QEMU for guests is qemu-kvm, and its libvirt is virtqemud."""
    wanted, machine = cloud(), Machine(platform=FEDORA)
    machine.tools = tuple(tool for tool in machine.tools if tool not in ("qemu-system-x86_64", "libvirtd"))
    found = plan(wanted, machine)
    assert found.first == found.actions


def test_a_distribution_that_we_do_not_know_is_refused_with_what_is_missing() -> None:
    (said,) = refused(bare(replace(DEBIAN, id="alpine", tools=())))
    assert said == (
        "host here: not installed there: qemu-system-x86_64, libvirtd, virsh, qemu-img; and vmwright knows no way to "
        "install packages on Debian GNU/Linux 12 (bookworm)\n    install them by hand; by Debian's names: apt-get "
        "install qemu-system-x86 libvirt-daemon-system libvirt-clients qemu-utils")


def test_without_systemd_no_service_is_started() -> None:
    (install,) = bare(replace(DEBIAN, systemd=False)).first
    assert isinstance(install, InstallPackages)
    assert not install.services


def test_a_rebuild_does_not_prepare_hosts() -> None:
    wanted = cloud()
    machine = made(wanted)
    machine.tools = tuple(tool for tool in machine.tools if tool != "qemu-img")
    assert refused(make_rebuild_plan(wanted, facts(wanted, machine), ["web"])) == [
        "host here is not prepared: not installed: qemu-img\n    first: vmwright apply"]


# ---- IOMMU ----

def iommu(state: IommuFacts, platform: PlatformFacts = DEBIAN, text: str = IOMMU) -> Plan:
    wanted, machine = cloud(text), made(cloud(text), Machine(iommu=ON))
    return make_plan(wanted, facts(wanted, machine, iommu=state, platform=platform))


def kinds(found: Plan) -> list[type[Action]]:
    return [type(action) for action in found.actions]


def test_an_iommu_that_is_off_is_switched_on_by_a_file_of_our_own_and_a_reboot() -> None:
    found = iommu(OFF)
    assert kinds(found) == [SetKernelArguments, Reboot]
    setting, reboot = found.actions
    assert changes(setting) == ["adds: intel_iommu=on iommu=pt", f"by: {GRUB_DROP_IN} and update-grub"]
    assert isinstance(reboot, Reboot)
    assert (reboot.needs, reboot.boot, reboot.stop) == ((setting.id,), "boot-1", ("web",))
    assert reboot.effects == {Effect.REBOOTS, Effect.STOPS}
    assert changes(reboot) == ["vm web: running -> shut down"]


def test_amds_has_another_name_and_fedora_another_tool() -> None:
    setting, _ = iommu(IommuFacts(False, "IVRS"), replace(FEDORA, tools=("dnf", "grubby", "update-grub"))).actions
    assert isinstance(setting, SetKernelArguments)
    assert (setting.tool, setting.arguments) == ("grubby", ("amd_iommu=on", "iommu=pt"))


def test_an_iommu_that_is_on_is_left_alone_whoever_switched_it_on() -> None:
    assert iommu(ON).empty


def test_after_the_file_is_written_only_the_reboot_is_left() -> None:
    ours = drop_in(INTEL)
    found = iommu(OFF, replace(DEBIAN, files=(FileFacts(GRUB_DROP_IN, ours, ours),)))
    assert kinds(found) == [Reboot]
    assert found.actions[0].why == "the kernel reads its arguments (intel_iommu=on iommu=pt) when it starts"


def test_firmware_without_one_is_what_a_person_must_mend() -> None:
    (said,) = refused(iommu(IommuFacts(False, None)))
    assert said.startswith("host here: `iommu: true`, but its firmware tells of no IOMMU\n    switch on VT-d (Intel)")


def test_arguments_that_did_not_help_are_not_set_again() -> None:
    (said,) = refused(iommu(OFF, replace(DEBIAN, cmdline=f"ro {' '.join(INTEL)} quiet")))
    assert said.startswith("host here: the kernel was started with intel_iommu=on iommu=pt, and its firmware has a "
                           "DMAR table, but no IOMMU is in use\n    see what the kernel says of it: dmesg")


def test_our_file_changed_by_hand_is_not_overwritten() -> None:
    file = FileFacts(GRUB_DROP_IN, drop_in(INTEL) + "GRUB_TIMEOUT=9\n", drop_in(INTEL))
    assert refused(iommu(OFF, replace(DEBIAN, files=(file,)))) == [
        f"host here: {GRUB_DROP_IN} was changed by hand:\n    @@ -2,0 +3 @@\n    +GRUB_TIMEOUT=9\n    put it into a "
        f"file of your own; back to what vmwright wrote: cp {written_note(GRUB_DROP_IN)} {GRUB_DROP_IN}"]


def test_a_loader_that_we_do_not_know_is_refused() -> None:
    assert refused(iommu(OFF, replace(DEBIAN, tools=("apt-get",)))) == [
        "host here: its kernel must be started with intel_iommu=on iommu=pt, and it has neither update-grub nor grubby"
        "\n    add them to the kernel's command line by hand, and reboot"]


def test_this_machine_is_not_rebooted() -> None:
    found = iommu(OFF, text="hosts: {here: {iommu: true, pools: {images: {dir: /srv/images}}}}\n" + WEB)
    assert kinds(found) == [SetKernelArguments]
    assert found.warnings == (
        "host here: the kernel reads its arguments (intel_iommu=on iommu=pt) when it starts: reboot it when it suits "
        "you, and apply again then; vmwright does not reboot the machine that it runs on",)


def test_vms_of_others_go_down_with_it_and_that_is_said() -> None:
    wanted, theirs = cloud(IOMMU), cloud(f"cloud: other\n{IOMMU}")
    found = make_plan(wanted, facts(wanted, made(theirs, Machine(iommu=ON)), iommu=OFF))
    assert "host here: VMs that are not this cloud's go down with it: web" in found.warnings
