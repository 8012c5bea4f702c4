"""Everything that will not work on a host, and what to do about it. Pure: it judges facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vmwright.facts.model import HostFacts, Kvm
from vmwright.plan.needs import tools_of
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
    return [*_emulation(facts), *_room(facts), *_pools(facts, pools), *_tools(facts, cloud), *_leftovers(facts)]


def _check(fine: bool, good: str, bad: str, todo: str, *, otherwise: Verdict = Verdict.FAIL) -> Check:
    return Check(Verdict.OK, good) if fine else Check(otherwise, bad, todo)


def _emulation(facts: HostFacts) -> Iterator[Check]:
    yield Check(Verdict.OK, f"libvirt {facts.libvirt} answers")
    yield _check(facts.emulator is not None, f"QEMU {facts.emulator}", "QEMU for x86_64 guests is not there",
                 "apt-get install qemu-system-x86 qemu-utils")
    if facts.kvm is Kvm.WORKS:
        yield Check(Verdict.OK, "a guest starts under KVM")
    elif facts.kvm is Kvm.ABSENT:
        yield Check(Verdict.WARN, f"no KVM: {facts.kvm_reason}; guests run emulated, some ten times slower",
                    "switch on VT-x or AMD-V in the firmware (in a VM: nested virtualisation), then: modprobe kvm_intel or kvm_amd")
    else:
        yield Check(Verdict.WARN, f"/dev/kvm is there, but a guest does not start under it: {facts.kvm_reason}; "
                                  "guests run emulated, some ten times slower",
                    "in a VM: ask for nested virtualisation, or a newer hypervisor; on iron: update firmware and kernel")
    yield from _kvm_device(facts)
    yield _check(facts.uefi, "libvirt finds UEFI firmware", "libvirt finds no UEFI firmware", "apt-get install ovmf")


def _kvm_device(facts: HostFacts) -> Iterator[Check]:
    if facts.kvm is Kvm.ABSENT or facts.kvm_device_mode is None:
        return
    owner, _, mode = facts.kvm_device_mode.partition(" ")
    group_opens = owner.endswith(":kvm") and mode.isdigit() and int(mode, 8) & 0o060 == 0o060
    others_open = mode.isdigit() and int(mode, 8) & 0o006 == 0o006
    yield _check(group_opens or others_open, f"/dev/kvm is open to the group kvm ({facts.kvm_device_mode})",
                 f"/dev/kvm is {facts.kvm_device_mode}: QEMU may not open it, and libvirt then probes QEMU anew at each "
                 "definition of a VM, a minute each", "chgrp kvm /dev/kvm; chmod 660 /dev/kvm (udev does so on most systems)")


def _room(facts: HostFacts) -> Iterator[Check]:
    free = f"{format_size(facts.memory_available)} of {format_size(facts.memory)} memory free"
    yield _check(facts.memory_available >= _LOW_MEMORY, free, free, "stop VMs or other programs", otherwise=Verdict.WARN)


def _pools(facts: HostFacts, wanted: Iterable[Pool]) -> Iterator[Check]:
    for pool in facts.pools:
        state = f"pool {pool.name} at {pool.target}: {format_size(pool.available)} free"
        if not pool.active:
            yield Check(Verdict.WARN, f"pool {pool.name} is not active", f"virsh pool-start {pool.name}, or apply")
            continue
        yield _check(pool.available >= _LOW_SPACE, state, state, "make room there", otherwise=Verdict.WARN)
    for path in facts.paths:
        names = ", ".join(pool.name for pool in wanted if pool.path == path.path)
        if path.blocked_by:
            yield Check(Verdict.FAIL, f"pool {names}: the user that QEMU runs as cannot reach {path.path}: "
                                      f"{path.blocked_by} is closed to it", f"chmod o+x {path.blocked_by}")
        elif not path.exists:
            yield _check(path.available >= _LOW_SPACE, f"pool {names}: {path.path} will be made, {format_size(path.available)} free",
                         f"pool {names}: {path.path} will be made, only {format_size(path.available)} free", "make room there",
                         otherwise=Verdict.WARN)


def _tools(facts: HostFacts, cloud: Cloud | None) -> Iterator[Check]:
    default: list[BuildSource | ImageSource] = [BuildSource("debian", "stable", Filesystem.EXT4)]
    sources = [t.source for t in cloud.templates if t.host == facts.name] if cloud else default
    needed = dict(tool for source in sources for tool in tools_of(source))
    missing = {tool: package for tool, package in needed.items() if tool not in facts.tools}
    yield _check(not missing, "the programs that make templates are there", f"missing for templates: {', '.join(missing)}",
                 f"apt-get install {' '.join(dict.fromkeys(missing.values()))}", otherwise=Verdict.FAIL if cloud else Verdict.WARN)
    yield _check("flock" in facts.tools and "setsid" in facts.tools, "flock and setsid are there",
                 "flock or setsid is missing", "apt-get install util-linux")


def _leftovers(facts: HostFacts) -> Iterator[Check]:
    for intent in facts.intents:
        yield Check(Verdict.WARN, f"unfinished: {intent.operation} of {intent.object}, by a run that was cut off",
                    "vmwright apply picks it up")
