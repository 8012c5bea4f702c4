"""Does it fit? Memory and pool space, with figures, before anything is changed."""

from __future__ import annotations

from collections import defaultdict

from vmwright.facts.model import DomainState, Kvm
from vmwright.names import template_volume
from vmwright.plan.actions import CreateVm, GrowDisk, RebuildVm, StartVm, UpdateVm
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import Copy, Firmware
from vmwright.units import GIB, MIB, format_size

# What the host itself should keep; below it, it starts to swap or to kill.
_HOST_RESERVE = 256 * MIB


def check_host(view: View, draft: Draft) -> None:
    """Is the host able to run guests at all?"""
    name, facts = view.host.name, view.facts
    if not view.vms:
        return
    if facts.emulator is None:
        draft.refuse(f"host {name}: QEMU for x86_64 is not installed", "install it: apt-get install qemu-system-x86", view.host.where)
    if view.host.accelerator == "kvm" and facts.kvm is not Kvm.WORKS:
        draft.refuse(f"host {name}: `accelerator: kvm`, but KVM is {facts.kvm}: {facts.kvm_reason}",
                     "see `vmwright doctor`, or say `accelerator: auto`", view.host.where)
    uefi = next((vm for vm in view.vms if vm.firmware is Firmware.UEFI), None)
    if uefi and facts.emulator and not facts.uefi:
        draft.refuse(f"host {name}: libvirt finds no UEFI firmware, which {uefi.name} and others boot with",
                     "install it: apt-get install ovmf (or say `firmware: bios`)", uefi.where)
    if view.domain_type == "qemu" and view.host.accelerator == "auto":
        draft.warnings.append(f"host {name}: guests run emulated, some ten times slower than with KVM, because KVM is "
                              f"{facts.kvm}" + (f" ({facts.kvm_reason})" if facts.kvm_reason else ""))


def check_memory(view: View, draft: Draft) -> None:
    """Does what is going to start fit into the memory that is free now?"""
    rows = [(a.vm.name, a.vm.memory) for a in draft.actions if isinstance(a, CreateVm | StartVm) and a.host == view.host.name]
    running = {d.name: d.live.memory for d in view.facts.domains if d.live and d.state is DomainState.RUNNING}
    freed = sum(running.get(a.vm.name, 0) for a in draft.actions if isinstance(a, RebuildVm) and a.host == view.host.name)
    for action in draft.actions:
        if isinstance(action, UpdateVm) and action.host == view.host.name and action.memory and action.vm.name in running:
            rows.append((action.vm.name, max(0, action.memory - running[action.vm.name])))
    wanted, free = sum(size for _, size in rows), view.facts.memory_available - _HOST_RESERVE + freed
    if wanted > free:
        largest = ", ".join(f"{name} {format_size(size)}" for name, size in sorted(rows, key=lambda r: -r[1])[:4])
        draft.refuse(f"host {view.host.name}: the VMs to start want {format_size(wanted)} of memory ({largest}"
                     f"{', ...' if len(rows) > 4 else ''}); free are {format_size(max(0, free))} of {format_size(view.facts.memory)}",
                     "give less `memory:`, stop a VM, or say `running: false` for some")


def check_space(view: View, draft: Draft) -> None:
    """Does what is certain to be written fit, and can each new disk ever be filled?"""
    certain: dict[str, int] = defaultdict(int)
    largest: dict[str, tuple[int, str]] = {}
    for action in draft.actions:
        if action.host != view.host.name:
            continue
        for pool, what, virtual, sure in _wants(view, action):
            certain[pool] += sure
            largest[pool] = max(largest.get(pool, (0, "")), (virtual, what))
    for pool in largest:
        free, (size, what) = view.free(pool), largest[pool]
        if certain[pool] > free:
            draft.refuse(f"pool {pool} of host {view.host.name}: the copies to be made take {format_size(certain[pool])}, and "
                         f"{format_size(free)} are free", "use overlays (`copy: overlay`), another pool, or make room")
        elif size > free:
            draft.refuse(f"pool {pool} of host {view.host.name}: {what} wants {format_size(size)}, and {format_size(free)} are free",
                         "ask for less, use another pool, or make room")
    _warn_overcommit(view, draft, set(largest))


def _wants(view: View, action: object) -> list[tuple[str, str, int, int]]:
    """(pool, what, bytes it may come to take, bytes it takes at once) of one action."""
    if isinstance(action, CreateVm):
        vm, template = action.vm, action.template
        base = view.volumes.get((template.pool, template_volume(view.cloud.name, template.name, template.version)))
        size = vm.disk or template.size
        taken = base.allocation if base else 0
        rows = [(vm.pool, f"the root disk of {vm.name}", size, taken if vm.copy is Copy.FULL else 0)]
        return rows + [(d.pool, f"disk {d.name} of {vm.name}", d.size, 0) for d in vm.data_disks]
    if isinstance(action, GrowDisk):
        more = action.size - action.old_size
        return [(action.pool, f"growing {action.object} by {format_size(more)}", more, 0)]
    if isinstance(action, UpdateVm):
        return [(d.pool, f"disk {d.name} of {action.vm.name}", d.size, 0) for d in action.add_disks]
    return []


def _warn_overcommit(view: View, draft: Draft, pools: set[str]) -> None:
    for pool in sorted(pools):
        promised = sum(v.capacity - v.allocation for v in view.facts.volumes if v.pool == pool and v.capacity > v.allocation)
        promised += sum(virtual for a in draft.actions if a.host == view.host.name
                        for name, _, virtual, _ in _wants(view, a) if name == pool)
        free = view.free(pool)
        if promised > max(free, GIB):
            draft.warnings.append(f"pool {pool} of host {view.host.name} is promised {format_size(promised)} more than its disks "
                                  f"take now, and has {format_size(free)} free: watch it as they fill")
