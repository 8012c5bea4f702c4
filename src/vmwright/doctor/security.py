"""Doctor: AppArmor and SELinux: do they confine VMs, and what have they denied?"""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.doctor.check import Area, Case, Check, Verdict
from vmwright.facts.denials import Denial

_AREA = Area.SECURITY
_SHOWN = 3
_UNCONFINED = "a guest that breaks out of QEMU has all that QEMU's user has, the disks of other VMs included"
_PROFILE = "libvirt-"  # and the VM's UUID


def security(case: Case) -> Iterator[Check]:
    """What confines VMs, and denials of the last day."""
    yield _confined(case)
    yield from _denials(case)


def _confined(case: Case) -> Check:
    health = case.health
    if '"none"' in health.security_driver:
        return Check(Verdict.NOTE, _AREA, "libvirt is told to confine no VM", _UNCONFINED,
                     "take security_driver out of /etc/libvirt/qemu.conf, and restart libvirt's daemon")
    if health.selinux == "enforcing":
        return Check(Verdict.OK, _AREA, "SELinux is enforcing")
    if health.selinux:
        return Check(Verdict.NOTE, _AREA, "SELinux is permissive: it denies nothing", _UNCONFINED,
                     "fixfiles -F onboot and a reboot; when nothing is denied any more (ausearch -m AVC), setenforce 1 "
                     "and SELINUX=enforcing in /etc/selinux/config")
    if health.apparmor:
        return Check(Verdict.OK, _AREA, "AppArmor is on")
    return Check(Verdict.NOTE, _AREA, "neither AppArmor nor SELinux confines VMs", _UNCONFINED,
                 "switch on the one that the host's distribution has, as its manual says: SELinux permissive first, "
                 "with all files labelled anew")


def _denials(case: Case) -> Iterator[Check]:
    found = case.health.denials
    if found is None or not (case.health.apparmor or case.health.selinux or found):
        return
    if not found:
        yield Check(Verdict.OK, _AREA, "nothing was denied to libvirt or QEMU in the last day")
    for one in found[:_SHOWN]:
        yield _denial(case, one)
    if len(found) > _SHOWN:
        yield Check(Verdict.WARN, _AREA, f"{len(found) - _SHOWN} more things were denied in the last day",
                    "each may be why something does not work", _log(found[0]))


def _denial(case: Case, one: Denial) -> Check:
    uuid = one.label.removeprefix(_PROFILE) if one.label.startswith(_PROFILE) else ""
    vm = next((domain.name for domain in case.view.facts.domains if uuid and domain.uuid == uuid), None)
    whom = f"{one.program} (VM {vm})" if vm else one.program if one.label in (one.program, "") else \
        f"{one.program} ({one.label})"
    what = f"{whom}: {one.what} {one.on}".rstrip() + (f", {one.times} times" if one.times > 1 else "")
    if one.allowed:
        return Check(Verdict.NOTE, _AREA, f"{one.by} would have denied {what}",
                     "it works only as long as that is not enforced", _remedy(one))
    return Check(Verdict.WARN, _AREA, f"{one.by} denied {what}",
                 f"it may be why VM {vm} does not start" if vm else "it may be why something does not work",
                 _remedy(one))


def _remedy(one: Denial) -> str:
    if one.by == "SELinux":
        return ("disks belong in a directory of type virt_image_t: semanage fcontext -a -t virt_image_t "
                f"'/DIRECTORY(/.*)?', then restorecon -R /DIRECTORY; {_log(one)}")
    if one.on.startswith("/") and one.label.startswith(_PROFILE):
        return (f'disks belong in a pool that the file names; else allow it: "{one.on}" rwk, in '
                f"/etc/apparmor.d/local/abstractions/libvirt-qemu, for all VMs; {_log(one)}")
    return _log(one)


def _log(one: Denial) -> str:
    return "all of them: ausearch -m avc -ts yesterday | audit2why" if one.by == "SELinux" else \
        "all of them: journalctl -k --since -1day | grep DENIED"
