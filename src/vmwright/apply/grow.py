"""Handler: make a disk larger, from the volume to the file system inside the guest."""

from __future__ import annotations

from vmwright.apply.context import Context
from vmwright.apply.stores import store_of
from vmwright.errors import GuestError
from vmwright.guest import grow
from vmwright.guest.grow import Grown
from vmwright.plan.actions import GrowDisk
from vmwright.spec.cloud import VmSpec
from vmwright.units import format_size


def grow_disk(action: GrowDisk, context: Context) -> None:
    """Online and at once when the VM runs; else the volume now and the guest's side at its next start.

    The guest is asked first whether it can grow what is on the disk, so that a refusal leaves all as it was. The note
    on the host stays until the guest's side is done: a run that is cut off in between is finished by the next one.
    """
    store = store_of(context, action.pool)
    if not action.running:
        store.enlarge(action.volume, action.size, running=False)
        context.note("the guest sees it at its next start")
        return
    agent, note = context.agent(action.vm.name), f"{action.vm.name}@{action.serial}"
    if action.size > action.old_size:
        grow.check(agent, action.serial)
    context.intend(note, "grow")
    if action.size > action.old_size:
        context.say("making the disk larger", None)
        store.enlarge(action.volume, action.size, running=True)
        context.virt.grow_disk_live(action.vm.name, action.path, action.size)
    grown = grow.grow(agent, action.serial, size=action.size, disk_before=action.old_size,
                      progress=lambda step: context.say(step, None))
    context.note(describe(grown))
    for text in grown.notes:
        context.note(text)
    context.fulfil(note)


def describe(grown: Grown) -> str:
    """The result in numbers, as the guest sees them. Pure."""
    disk = f"{grown.disk}: {format_size(grown.disk_before)} -> {format_size(grown.disk_after)}"
    if grown.size_before is None or grown.size_after is None:
        return disk
    used = f", {format_size(grown.used_after)} used" if grown.used_after is not None else ""
    before, after = format_size(grown.size_before), format_size(grown.size_after)
    return f"{disk}; {grown.fstype} at {grown.mount}: {before} -> {after}{used}"


def catch_up(vm: VmSpec, context: Context) -> None:
    """After a start: let what the spec put on the disks fill them, where they grew while the VM was off."""
    agent = context.agent(vm.name)
    for serial in ("root", *(disk.serial for disk in vm.data_disks if disk.filesystem)):
        try:
            grown = grow.grow(agent, serial)
        except GuestError as error:
            context.note(f"disk {serial} was not grown inside the guest: {error.what}")
            continue
        if grown.size_before != grown.size_after:
            context.note(describe(grown))
