"""Pins: model -> resolved, and what the file alone tells about them. What the host has is the plan's to check."""

from __future__ import annotations

from vmwright.spec.cloud import ANY_PAGES, SMALLEST_PAGES, PinSpec
from vmwright.spec.findings import Findings
from vmwright.spec.groups import Member
from vmwright.spec.model import PinIn, VmIn
from vmwright.spec.yaml import KeyPath
from vmwright.units import GIB, format_cpuset, format_size, parse_cpuset


def resolve_pin(path: KeyPath, vm: VmIn, member: Member, findings: Findings) -> PinSpec | None:
    """Where the VM runs; None: anywhere, or where is not said yet."""
    if vm.pin is None:
        return None
    place = (*path, "pin")
    if vm.pin.cpus == "auto":
        findings.later((*place, "cpus") if findings.has((*place, "cpus")) else place, "auto")
        return None
    pin = PinSpec(parse_cpuset(vm.pin.cpus), vm.pin.emulator or (), vm.pin.memory, vm.pin.hugepages)
    _check_counts(place, vm, pin, member, findings)
    _check_emulator(place, vm, pin, findings)
    _check_pages(path, vm, vm.pin, findings)
    return pin


def _check_counts(place: KeyPath, vm: VmIn, pin: PinSpec, member: Member, findings: Findings) -> None:
    vcpus, cpus = vm.vcpus or 1, len(pin.cpus)
    if vcpus > cpus:
        findings.warn(place, f"{vcpus} vCPUs on {cpus} CPU{'s' if cpus > 1 else ''}: they will wait for each other")
    if (member.count or 1) > 1 and not member.dealt & {("pin",), ("pin", "cpus")}:
        findings.warn(place, f"all {member.count} VMs of the group run on CPUs {format_cpuset(pin.cpus)}; for CPUs of "
                             f"their own, give a list of {member.count}")  # fmt: skip


def _check_emulator(place: KeyPath, vm: VmIn, pin: PinSpec, findings: Findings) -> None:
    shared = set(pin.emulator) & set(pin.cpus)
    if shared and len(pin.cpus) == (vm.vcpus or 1):
        what = f"CPU {format_cpuset(shared)} is a vCPU's, too: it will wait for the emulator"
        findings.warn((*place, "emulator"), what)


def _check_pages(path: KeyPath, vm: VmIn, pin: PinIn, findings: Findings) -> None:
    memory = vm.memory or GIB
    size = SMALLEST_PAGES if pin.hugepages == ANY_PAGES else pin.hugepages
    if size and memory % size:
        whole = memory // size * size
        near = " or ".join(format_size(near) for near in (whole, whole + size) if near)
        findings.error(
            (*path, "pin", "hugepages"),
            f"{format_size(memory)} of memory are not whole pages of {format_size(size)}",
            f"say `memory: {near}`, or other pages",
        )
