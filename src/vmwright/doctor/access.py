"""Doctor: who is vmwright on the host, does libvirt let it in, may QEMU open /dev/kvm?"""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.doctor.check import Area, Case, Check, Verdict
from vmwright.facts.model import Kvm

_AREA = Area.ACCESS
_GROUP = "libvirt"
_REFUSED = ("ermission denied", "authentication", "polkit")  # in what libvirt says to who may not use its socket


def access(case: Case) -> Iterator[Check]:
    """Root, libvirt's socket, /dev/kvm."""
    facts, login = case.view.facts, case.health.login
    if facts.user == "root":
        by = f", by sudo of {login}" if login not in ("", "root") else ""
        yield Check(Verdict.OK, _AREA, f"commands run as root{by}")
    else:
        yield Check(Verdict.FAIL, _AREA, f"commands run as {facts.user or 'nobody knows whom'}, not as root",
                    "pools, networks and devices of the host are root's to change",
                    "run vmwright with sudo, or say connect: ssh://USER@HOST with a USER who may use sudo")
    yield from _socket(case)
    yield from _kvm(case)


def _socket(case: Case) -> Iterator[Check]:
    if case.silent is None:
        return
    login, why = case.health.login, f"nothing can be done without it ({case.silent.why or 'it did not say why'})"
    refused = any(word in case.silent.why for word in _REFUSED)
    if refused and login not in ("", "root") and _GROUP not in case.health.groups:
        yield Check(Verdict.FAIL, _AREA, f"{case.silent.what}, and {login} is not in the group {_GROUP}", why,
                    f"as root: usermod -aG {_GROUP} {login}; it counts from the next login on")
    else:
        yield Check(Verdict.FAIL, _AREA, case.silent.what, why, case.silent.todo)


def _kvm(case: Case) -> Iterator[Check]:
    facts, user = case.view.facts, case.health.qemu_user
    if facts.kvm is Kvm.ABSENT or (facts.kvm_device_mode is None and case.health.kvm_opens is None):
        return
    mode = facts.kvm_device_mode or "there"
    opens = case.health.kvm_opens if case.health.kvm_opens is not None else _opens(mode)
    if opens:
        yield Check(Verdict.OK, _AREA, f"/dev/kvm is open to QEMU ({mode})")
        return
    who = f"{user}, the user that QEMU runs as," if user else "QEMU"
    yield Check(Verdict.FAIL, _AREA, f"/dev/kvm is {mode}: {who} may not open it",
                "VMs under KVM do not start, and libvirt probes QEMU anew at each definition of a VM, which takes long",
                f"chgrp kvm /dev/kvm; chmod 660 /dev/kvm (udev does so on most systems); usermod -aG kvm "
                f"{user or 'libvirt-qemu'}, then restart libvirt's daemon")


def _opens(mode: str) -> bool:
    """Whether "root:kvm 660" and the like let QEMU in: it is in the group kvm, as packages set it up."""
    owner, _, text = mode.partition(" ")
    bits = int(text, 8) if text and set(text) <= set("01234567") else 0
    return (owner.endswith(":kvm") and bits & 0o060 == 0o060) or bits & 0o006 == 0o006
