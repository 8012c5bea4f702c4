"""Does it fit? Memory and pool space, with figures, before anything is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from vmwright.facts.model import DomainFacts, Kvm
from vmwright.names import partial_volume
from vmwright.plan.action import Action
from vmwright.plan.actions import CreateVm, GrowDisk, MakeTemplate, RebuildVm, RestartVm, StartVm, UpdateVm, VmAction
from vmwright.plan.groups import check_overcommit, copies_holes
from vmwright.plan.needs import firmware_remedy, there
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import Copy, Firmware
from vmwright.units import GIB, MIB, format_size

# What the host itself should keep; below it, it starts to swap or to kill.
_HOST_RESERVE = 256 * MIB
_SHOWN = 4  # VMs named as the largest
_SEED = MIB  # about; in a volume group it is at least one extent


def check_host(view: View, draft: Draft) -> None:
    """Is the host able to run guests at all?"""
    name, facts = view.host.name, view.facts
    if not view.vms:
        return
    if facts.emulator is None:
        if facts.libvirt and there("qemu-system-x86_64", facts):
            draft.refuse(f"host {name}: libvirt knows no QEMU for x86_64", "see what it says of it there: virsh "
                         "domcapabilities", view.host.where)
        return  # what KVM and firmware are like is seen when it is installed
    if view.host.accelerator == "kvm" and facts.kvm is not Kvm.WORKS:
        draft.refuse(f"host {name}: `accelerator: kvm`, but KVM is {facts.kvm}: {facts.kvm_reason}",
                     "see `vmwright doctor`, or say `accelerator: auto`", view.host.where)
    uefi = next((vm for vm in view.vms if vm.firmware is Firmware.UEFI), None)
    if uefi and not facts.uefi:
        draft.refuse(f"host {name}: libvirt finds no UEFI firmware, which {uefi.name} boots with",
                     f"install it: {firmware_remedy(facts.platform)} (or say `firmware: bios`)", uefi.where)
    if view.domain_type == "qemu" and view.host.accelerator == "auto":
        reason = f" ({facts.kvm_reason})" if facts.kvm_reason else ""
        draft.warnings.append(f"host {name}: guests run emulated, some ten times slower than with KVM, because KVM is "
                              f"{facts.kvm}{reason}")


def check_memory(view: View, draft: Draft) -> None:
    """Does what is going to run fit into the memory that is free now?"""
    here = [a for a in draft.actions if isinstance(a, VmAction) and a.host == view.host.name]
    rows = [(name, size) for name, size in _memory(view, here) if size > 0]
    freed = sum(_takes(view.domains[a.vm.name]) for a in here if isinstance(a, RebuildVm))
    wanted, free = sum(size for _, size in rows), view.facts.memory_available - _HOST_RESERVE + freed
    if wanted <= max(0, free):
        return
    largest = sorted(rows, key=lambda row: (-row[1], row[0]))[:_SHOWN]
    named = ", ".join(f"{name} {format_size(size)}" for name, size in largest) + (", ..." if len(rows) > _SHOWN else "")
    draft.refuse(
        f"host {view.host.name}: the VMs to start want {_size(wanted)} of memory ({named}); {_size(max(0, free))} of "
        f"{format_size(view.facts.memory)} are free for them",
        "give less `memory:`, stop a VM, or say `running: false` for some")


def _memory(view: View, actions: list[VmAction]) -> Iterator[tuple[str, int]]:
    """(VM, bytes more than it takes now) of everything that starts or gets more while it runs.

    Huge pages are set aside already: what is made of them is not taken from the memory that is free.
    """
    defined = {a.vm.name: a.memory for a in actions if isinstance(a, UpdateVm) and a.memory is not None}
    placed = {a.vm.name: a.placement for a in actions if isinstance(a, UpdateVm) and a.placement is not None}
    for action in actions:
        name, domain = action.vm.name, view.domains.get(action.vm.name)
        if isinstance(action, CreateVm):
            yield name, action.vm.memory if action.vm.running and not action.placement.hugepages else 0
        elif domain and isinstance(action, StartVm | RestartVm):
            huge = placed.get(name, domain.persistent.placement).hugepages
            yield name, (0 if huge else defined.get(name, domain.persistent.memory)) - _takes(domain)
        elif domain and isinstance(action, UpdateVm) and action.memory is not None and "memory" in action.live:
            yield name, action.memory - domain.live.memory if domain.live else 0


def _takes(domain: DomainFacts) -> int:
    """Bytes of memory that a VM takes now; a guest that has touched little of it may well take them yet."""
    return domain.live.memory if domain.live and not domain.live.placement.hugepages else 0


def _size(size: int) -> str:
    """Figures that are compared are told to the MiB: 2G and 2G free would not explain a refusal."""
    return format_size(size) if size % GIB == 0 or size < GIB else f"{size // MIB}M"


@dataclass(frozen=True)
class _Want:
    """What one action takes from a pool: bytes it may come to take, those it takes at once, and those it gives back."""

    pool: str
    what: str
    most: int
    now: int = 0
    back: int = 0


def check_space(view: View, draft: Draft) -> None:
    """Does what is certain to be written fit, and can each new disk ever be filled?"""
    wants: defaultdict[str, list[_Want]] = defaultdict(list)
    for action in draft.actions:
        if action.host == view.host.name:
            for want in _wants(view, action):
                wants[want.pool].append(want)
    for pool, rows in wants.items():
        free, certain = view.free(pool) + sum(row.back for row in rows), sum(row.now for row in rows)
        largest = max(rows, key=lambda row: row.most)
        place = f"pool {pool} of host {view.host.name}"
        if certain > free:
            todo = "ask for less, use another pool, or add a disk to its volume group" if view.thick(pool) else \
                "use overlays (`copy: overlay`), another pool, or make room"
            draft.refuse(f"{place}: what is to be made takes {_size(certain)}, and {_size(free)} are free", todo)
        elif largest.most > free:
            draft.refuse(f"{place}: {largest.what} wants {_size(largest.most)}, and {_size(free)} are free",
                         "ask for less, use another pool, or make room")
        _check_promises(view, pool, sum(row.most for row in rows), free, draft)


def _wants(view: View, action: Action) -> Iterator[_Want]:
    if isinstance(action, CreateVm):
        yield from _wants_of_vm(view, action)
    elif isinstance(action, MakeTemplate) and view.lvm(action.template.pool):  # of a directory: where it is planned
        size = action.template.size
        yield _want(view, action.template.pool, action.object, size,
                    now=0 if copies_holes(view.facts.emulator) else size)
    elif isinstance(action, GrowDisk) and action.size > action.old_size:
        more = action.size - action.old_size
        begun = view.volumes.get((action.pool, partial_volume(action.volume)))
        yield _want(view, action.pool, f"growing disk {action.serial} of {action.vm.name} by {format_size(more)}", more,
                    back=begun.allocation if begun else 0)
    elif isinstance(action, UpdateVm):
        for disk in action.add_disks:
            if view.volume(disk.pool, action.vm.name, "disk", disk.name) is None:
                yield _want(view, disk.pool, f"disk {disk.name} of {action.vm.name}", disk.size)


def _wants_of_vm(view: View, action: CreateVm) -> Iterator[_Want]:
    vm, template = action.vm, action.template
    base = view.volume(template.pool, template.name, "template", template.version)
    old = view.volume(vm.pool, vm.name, "root")
    yield _want(view, vm.pool, f"the root disk of {vm.name}", vm.disk or template.size,
                now=base.allocation if base and vm.copy is Copy.FULL else 0, back=old.allocation if old else 0)
    seed = view.volume(vm.pool, vm.name, "seed")
    if view.thick(vm.pool) and seed is None:
        yield _want(view, vm.pool, f"the cloud-init data of {vm.name}", _SEED)
    for disk in vm.data_disks:
        volume = view.volume(disk.pool, vm.name, "disk", disk.name)
        if volume is None or volume.path not in action.keep:
            yield _want(view, disk.pool, f"disk {disk.name} of {vm.name}", disk.size,
                        back=volume.allocation if volume else 0)


def _want(view: View, pool: str, what: str, most: int, *, now: int = 0, back: int = 0) -> _Want:
    """What a disk takes: of a thick pool all of it at once."""
    most = view.whole(pool, most)
    return _Want(pool, what, most, most if view.thick(pool) else now, back)


def _check_promises(view: View, pool: str, more: int, free: int, draft: Draft) -> None:
    if view.lvm(pool):
        check_overcommit(view, view.pools[pool], more, draft)
        return
    promised = more + sum(max(0, v.capacity - v.allocation) for v in view.by_pool.get(pool, ()))
    if promised > max(free, GIB):
        draft.warnings.append(f"pool {pool} of host {view.host.name}: its disks may come to take "
                              f"{format_size(promised)} more than now, and {format_size(free)} are free: watch it as "
                              "they fill")
