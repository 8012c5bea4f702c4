"""Everything that will not work on a host, and what to do about it. Pure: it judges facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vmwright.facts.model import HostFacts, Kvm
from vmwright.names import HOST_STATE
from vmwright.plan.boot import GUESTS_REMEDY
from vmwright.plan.needs import remedy, there, tools_of
from vmwright.spec.cloud import BuildSource, Cloud, Filesystem, ImageSource, Pool
from vmwright.units import GIB, MIB, format_size

_LOW_MEMORY, _LOW_SPACE = 512 * MIB, 4 * GIB


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do."""

    verdict: Verdict
    what: str
    todo: str = ""


def checks(facts: HostFacts, cloud: Cloud | None = None) -> list[Check]:
    """All checks of one host; with a cloud, also of what its file wants there."""
    pools = [pool for pool in cloud.pools if pool.host == facts.name] if cloud else []
    return [*_user(facts), *_emulation(facts), *_room(facts), *_pools(facts), *_paths(facts, pools),
            *_tools(facts, cloud), *_start_order(facts, cloud), *_leftovers(facts)]


def _check(fine: bool, good: str, bad: str, todo: str, *, otherwise: Verdict = Verdict.FAIL) -> Check:
    return Check(Verdict.OK, good) if fine else Check(otherwise, bad, todo)


def _user(facts: HostFacts) -> Iterator[Check]:
    yield _check(facts.user == "root", "commands on the host run as root",
                 f"commands on the host run as {facts.user or 'nobody knows whom'}, not as root",
                 "run vmwright with sudo, or say connect: ssh://root@HOST")


def _emulation(facts: HostFacts) -> Iterator[Check]:
    yield Check(Verdict.OK, f"libvirt {facts.libvirt} answers")
    yield _check(facts.emulator is not None, f"QEMU {facts.emulator}", "QEMU for x86_64 guests is not there",
                 "apt-get install qemu-system-x86 qemu-utils")
    slow = "guests run emulated, some ten times slower"
    if facts.kvm is Kvm.WORKS:
        yield Check(Verdict.OK, "a guest starts under KVM")
    elif facts.kvm is Kvm.ABSENT:
        yield Check(Verdict.WARN, f"no KVM: {facts.kvm_reason}; {slow}",
                    "switch on VT-x or AMD-V in the firmware (in a VM: nested virtualisation), then: modprobe "
                    "kvm_intel or kvm_amd")
    else:
        yield Check(Verdict.WARN, f"/dev/kvm is there, but a guest does not start under it: {facts.kvm_reason}; {slow}",
                    "in a VM: ask for nested virtualisation, or a newer hypervisor; else update firmware and kernel")
    yield from _kvm_device(facts)
    yield _check(facts.uefi, "libvirt finds UEFI firmware", "libvirt finds no UEFI firmware", "apt-get install ovmf")


def _kvm_device(facts: HostFacts) -> Iterator[Check]:
    if facts.kvm is Kvm.ABSENT or facts.kvm_device_mode is None:
        return
    owner, _, text = facts.kvm_device_mode.partition(" ")
    mode = int(text, 8) if text and set(text) <= set("01234567") else 0
    opens = (owner.endswith(":kvm") and mode & 0o060 == 0o060) or mode & 0o006 == 0o006
    yield _check(opens, f"/dev/kvm is open to QEMU ({facts.kvm_device_mode})",
                 f"/dev/kvm is {facts.kvm_device_mode}: QEMU may not open it, and libvirt then probes QEMU anew at "
                 "each definition of a VM, which takes long",
                 "chgrp kvm /dev/kvm; chmod 660 /dev/kvm (udev does so on most systems)")


def _room(facts: HostFacts) -> Iterator[Check]:
    free = f"{format_size(facts.memory_available)} of {format_size(facts.memory)} memory free"
    yield _check(facts.memory_available >= _LOW_MEMORY, free, f"only {free}", "stop VMs or other programs",
                 otherwise=Verdict.WARN)


def _pools(facts: HostFacts) -> Iterator[Check]:
    for pool in facts.pools:
        free = f"{format_size(pool.available)} free"
        if not pool.active:
            yield Check(Verdict.WARN, f"pool {pool.name} is not active",
                        f"virsh pool-start {pool.name}, or vmwright apply")
        else:
            yield _check(pool.available >= _LOW_SPACE, f"pool {pool.name} at {pool.target}: {free}",
                         f"pool {pool.name} at {pool.target}: only {free}", "make room there", otherwise=Verdict.WARN)


def _paths(facts: HostFacts, wanted: Iterable[Pool]) -> Iterator[Check]:
    """Directories that the file wants, and vmwright's own, where templates are made."""
    names = {pool.path: pool.name for pool in wanted}
    for path in facts.paths:
        what, free = f"pool {names.get(path.path)}: {path.path}", f"{format_size(path.available)} free"
        if path.path == HOST_STATE:
            place = f"{HOST_STATE}, where templates are made"
            yield _check(path.available >= _LOW_SPACE, f"{place}: {free}", f"{place}: only {free}", "make room there",
                         otherwise=Verdict.WARN)
        elif path.blocked_by:
            closed = f"the user that QEMU runs as cannot reach it: {path.blocked_by} is closed"
            yield Check(Verdict.FAIL, f"{what}: {closed}", f"chmod o+x {path.blocked_by}")
        elif not path.exists:
            what = f"{what} will be made"
            yield _check(path.available >= _LOW_SPACE, f"{what}, {free}", f"{what}, only {free}", "make room there",
                         otherwise=Verdict.WARN)


def _tools(facts: HostFacts, cloud: Cloud | None) -> Iterator[Check]:
    default: list[BuildSource | ImageSource] = [BuildSource("debian", "stable", Filesystem.EXT4)]
    sources = [t.source for t in cloud.templates if t.host == facts.name] if cloud else default
    needed = tuple(dict.fromkeys(tool for source in sources for tool in tools_of(source)))
    missing = tuple(tool for tool in needed if not there(tool, facts))
    if needed:
        yield _check(not missing, "the programs that make templates are there",
                     f"missing, to make templates: {', '.join(missing)}",
                     remedy(missing, facts.platform),
                     otherwise=Verdict.FAIL if cloud else Verdict.WARN)
    lacks = [tool for tool in ("flock", "setsid", "setpriv") if tool not in facts.tools]
    yield _check(not lacks, "flock, setsid and setpriv are there", f"missing: {', '.join(lacks)}",
                 "apt-get install util-linux")


def _start_order(facts: HostFacts, cloud: Cloud | None) -> Iterator[Check]:
    """Where the file gives VMs an order: will it be kept when the host boots?"""
    boot = facts.boot
    if cloud is None or not any(vm.host == facts.name and vm.start_order.said for vm in cloud.vms):
        return
    if not boot.systemd:
        yield Check(Verdict.WARN, "the host does not run systemd: when it boots, VMs start in no order",
                    "start those that need others by hand, or have them wait for each other themselves")
        return
    yield _check(boot.enabled and boot.order is not None, "VMs start in the file's order when the host boots",
                 "nothing starts VMs in the file's order yet when the host boots", "vmwright apply",
                 otherwise=Verdict.WARN)
    if boot.guests == "start":
        yield Check(Verdict.WARN, "libvirt-guests starts VMs when the host boots, in no order, before vmwright's unit",
                    GUESTS_REMEDY)


def _leftovers(facts: HostFacts) -> Iterator[Check]:
    for intent in facts.intents:
        yield Check(Verdict.WARN, f"unfinished: {intent.operation} of {intent.object}, by a run that was cut off",
                    "vmwright apply picks it up")
