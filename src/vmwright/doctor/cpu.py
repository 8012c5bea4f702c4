"""Doctor: KVM, from the firmware to a guest that starts; guests of guests; the speed of the clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vmwright.doctor.check import Area, Case, Check, Verdict, names
from vmwright.facts.model import Kvm
from vmwright.plan.checks import check_host
from vmwright.plan.needs import there

_AREA = Area.CPU
_SLOW = "guests run emulated, some ten times slower"
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_CALLED = {"vmx": "VT-x", "svm": "AMD-V"}


def cpu(case: Case) -> Iterator[Check]:
    """Can guests run at full speed?"""
    yield replace(_kvm(case), covers=case.refusals(check_host))
    if case.view.facts.kvm is Kvm.WORKS:
        yield from _nested(case)
    yield from _governor(case)


def _kvm(case: Case) -> Check:
    facts, said = case.view.facts, case.health.virtualisation
    if facts.kvm is Kvm.WORKS:
        by = f" ({_CALLED.get(said, said)})" if said else ""
        return Check(Verdict.OK, _AREA, f"a guest starts under KVM{by}")
    if not there("qemu-system-x86_64", facts) and _MODULES.get(said) in case.health.modules:
        return Check(Verdict.OK, _AREA, f"{_CALLED[said]} and {_MODULES[said]} are there, to be tried with QEMU")
    asked = case.view.host.accelerator
    if asked == "qemu":
        return Check(Verdict.OK, _AREA, "guests run emulated, as the file says (`accelerator: qemu`)")
    verdict = Verdict.FAIL if asked == "kvm" else Verdict.WARN
    why = "the file insists on it: `accelerator: kvm`" if asked == "kvm" else _SLOW
    if facts.kvm is Kvm.BROKEN:
        todo = "have it made with nested virtualisation, or by a newer hypervisor" if case.health.guest else \
            "update firmware and kernel"
        return Check(verdict, _AREA, f"/dev/kvm is there, but a guest does not start under it: {facts.kvm_reason}",
                     why, f"{'the host is a virtual machine itself: ' if case.health.guest else ''}{todo}")
    what, todo = _absent(case)
    return Check(verdict, _AREA, what, why, todo)


def _absent(case: Case) -> tuple[str, str]:
    """Why there is no KVM, from the firmware upwards, and what to do about it."""
    health, reason = case.health, case.view.facts.kvm_reason
    module = _MODULES.get(health.virtualisation, "")
    if health.firmware:
        return (f"no KVM: the firmware has switched it off ({health.firmware[0]})",
                "switch on VT-x (Intel) or SVM (AMD) in the firmware's set-up, often below Processor")
    if not health.virtualisation and health.guest:
        return ("no KVM: the host is a virtual machine itself, and its CPU has neither VT-x nor AMD-V",
                "have it made with nested virtualisation, and with the CPU of its own host (host-passthrough)")
    if not health.virtualisation:
        return ("no KVM: the CPU shows neither VT-x nor AMD-V",
                "switch it on in the firmware's set-up (VT-x, SVM); a CPU that has none of it will not do")
    if module not in health.modules:
        return (f"no KVM: {_CALLED[health.virtualisation]} is there, and the kernel has not loaded {module}",
                f"modprobe {module}; when that fails: dmesg | grep -i kvm")
    return f"no KVM: {reason}", f"modprobe -r {module}; modprobe {module}; dmesg | grep -i kvm"


def _nested(case: Case) -> Iterator[Check]:
    """Guests of guests, where a VM has the CPU that is needed for it."""
    vms = [vm.name for vm in case.view.vms if vm.cpu == "host-passthrough"]
    if case.health.nested is None or (case.wanted and not vms):
        return
    if case.health.nested:
        yield Check(Verdict.OK, _AREA, "VMs with the host's CPU can have VMs of their own")
        return
    module = next((name for name in case.health.modules if name != "kvm"), "kvm_intel")
    yield Check(Verdict.NOTE, _AREA, "nested virtualisation is off",
                f"VMs with `cpu: host-passthrough` ({names(vms)}) cannot run VMs under KVM themselves" if vms else
                "VMs cannot run VMs under KVM themselves",
                f"if they are to: echo 'options {module} nested=1' > /etc/modprobe.d/kvm-nested.conf, and reboot")


def _governor(case: Case) -> Iterator[Check]:
    health = case.health
    others = {name: count for name, count in health.governors if name != "performance"}
    if not health.governors:
        return  # firmware or hypervisor sees to it
    if not others:
        yield Check(Verdict.OK, _AREA, "CPU frequency: performance")
        return
    told = ", ".join(f"{name} on {count} CPU{'s' * (count != 1)}" for name, count in sorted(others.items()))
    yield Check(Verdict.NOTE, _AREA, f"CPU frequency: {told} ({health.scaling or 'cpufreq'})",
                "CPUs that idle between two requests begin each of them slowly, in guests too; it saves power",
                "where speed counts more: cpupower frequency-set -g performance, and at each boot by tuned "
                "(tuned-adm profile virtual-host) or a unit of your own")
