"""Devices of the host on their way to a VM and back: notes, wiping, and whether the host's driver has them again."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from functools import partial

from vmwright.apply.context import Context, Undo
from vmwright.errors import ApplyError
from vmwright.facts import domains
from vmwright.facts.model import ConfigFacts, DeviceFacts, Held, HeldFacts, OwnerFacts
from vmwright.guest.wait import pauses
from vmwright.host import pci
from vmwright.names import device_note, lost_device_note
from vmwright.plan.actions import Given
from vmwright.plan.host_actions import GiveBack
from vmwright.spec.cloud import VmSpec
from vmwright.units import format_size
from vmwright.virt import alter, design

_VFIO = "vfio-pci"
_OFF_TRIES, _BACK_TRIES, _UNPLUG_TRIES, _DISK_TRIES = 5, 10, 30, 20  # of up to 2 seconds each


# -- notes ------------------------------------------------------------------------------------------------------------

def give(context: Context, vm: str, given: Collection[Given], undo: Undo | None = None) -> None:
    """Write down whose devices are from now on. Right before they are in the VM's definition."""
    for device in given:
        _note(context, vm, device, Held.GIVEN)
        if undo and device.wipe:
            undo.push(f"note that {device.name} is empty", partial(_note, context, vm, device, Held.WIPED))


def _note(context: Context, vm: str, given: Given, state: Held) -> None:
    """Write the note about a device. One about another that was at its place stays, under its serial."""
    facts, held = _facts(context, given.address), context.facts.held
    before = next((note for note in held if note.address == given.address), None)
    if before and before.serial and given.serial and before.serial != given.serial:
        _write(context, lost_device_note(before.serial), replace(before, address=""))
        before = None
    driver = _own_driver(facts) or (before.driver if before else None)
    _write(context, device_note(given.address), HeldFacts(
        given.address, given.serial, context.cloud.name, vm, state, driver))
    for note in held:
        if note.serial and note.serial == given.serial and note.address != given.address and _gone(context, note):
            context.host.remove(device_note(note.address) if note.address else lost_device_note(note.serial))


def _write(context: Context, path: str, note: HeldFacts) -> None:
    context.host.write(path, json.dumps(asdict(note)).encode(), mode=0o600)


def _gone(context: Context, note: HeldFacts) -> bool:
    """Whether what a note is about is not at its address any more."""
    there = _facts(context, note.address)
    return there is None or there.serial not in (None, note.serial)


def _own_driver(facts: DeviceFacts | None) -> str | None:
    """The host's own driver for a device, as far as it is known without our note."""
    return None if facts is None else facts.former if facts.driver in (None, _VFIO) else facts.driver


def _facts(context: Context, address: str) -> DeviceFacts | None:
    return next((device for device in context.facts.devices if device.address == address), None)


# -- wiping -----------------------------------------------------------------------------------------------------------

def wipe(context: Context, vm: str, given: Collection[Given]) -> None:
    """Wipe those devices that are to be wiped; none before all can be."""
    looks = [(device, examine(context, device)) for device in given if device.wipe]
    for device, look in looks:
        erase(context, vm, device, look)


def examine(context: Context, given: Given) -> pci.Look:
    """See that a device is at its host driver, is the one that was planned for, and that nothing uses it.

    Raises ApplyError when it is not so. Nothing is changed but the driver, and volumes of a guest's that the host has
    made active.
    """
    _to_host(context, given.address, "nothing was wiped")
    look = _with_disks(context, given.address)
    if not look.disks:
        raise ApplyError(f"device {given.name} ({given.address}) has no disks", todo="see why: dmesg on the host",
                         why=f"its driver is {look.driver or 'none'}")
    if given.serial and look.serial and look.serial != given.serial:
        raise ApplyError(f"device {given.name} ({given.address}) has serial {look.serial}, not {given.serial}",
                         why="it is another one since the plan was made; nothing was wiped", todo="plan again")
    return _quiet(context, given.address)


def _with_disks(context: Context, address: str) -> pci.Look:
    """A device when its disks have appeared: its driver finds them some time after it has got it."""
    look = _look(context, address)
    for pause in _tries(_DISK_TRIES):
        if look.disks:
            break
        context.cancel.wait(pause)
        context.check()
        look = _look(context, address)
    return look


def erase(context: Context, vm: str, given: Given, look: pci.Look) -> None:
    """Write zeros over all disks of a device, and read whether they are there. The note says how far it is."""
    known = replace(given, serial=look.serial or given.serial)
    _note(context, vm, known, Held.WIPING)
    total, done = sum(size for _, size in look.disks), 0
    for path, size in look.disks:
        _zero(context, given.name, path, done, total)
        done += size
    context.host.run(pci.settle(), check=False)
    context.say(f"reading whether {given.name} is empty", None)
    for path, size in look.disks:
        found = context.host.run(pci.blank(path, size), check=False)
        if found.code:
            raise ApplyError(f"device {given.name}: {path} is not empty after it was wiped",
                             why=found.text or found.stderr.decode(errors="replace").strip(),
                             todo="does the drive fail? see dmesg and smartctl on the host")
    _note(context, vm, known, Held.WIPED)


def _zero(context: Context, name: str, path: str, before: int, total: int) -> None:
    def progress(line: str) -> None:
        done = pci.zeroed(line)
        if done is not None:
            done += before
            context.say(f"wiping {name}  {format_size(done >> 20 << 20)} of {format_size(total)}", done / total)

    context.check()
    context.say(f"wiping {name}", 0.0)
    context.host.run(pci.zero(path), on_line=progress, cancel=context.cancel)


def _look(context: Context, address: str) -> pci.Look:
    done = context.host.run(pci.look(address), check=False)
    if done.code == 3:
        raise ApplyError(f"there is no device at {address} any more", todo="plan again")
    try:
        return pci.parse_look(done.text)
    except (ValueError, KeyError) as error:
        raise ApplyError(f"what is on device {address} could not be seen", why=f"{error}; "
                         f"{done.stderr.decode(errors='replace').strip()}", todo="try lsblk on the host") from error


def _quiet(context: Context, address: str) -> pci.Look:
    """See that nothing of the host's uses a device, with the volumes of a guest's made inactive. Raises ApplyError."""
    context.host.run(pci.settle(), check=False)
    look = _look(context, address)
    if look.uses:
        raise ApplyError(f"device {address} is in use by the host: {'; '.join(look.uses)}", todo="end that, then apply "
                         "again", why="that has begun since the plan was made")
    if not look.members:
        return look
    groups = context.host.run(pci.group_of(look.members)).text.split()
    inside = {row.path for row in look.above}
    for group in dict.fromkeys(groups):
        members = context.host.run(pci.members_of(group)).text.split()
        if host := next((path for path in members if path not in inside and not _has_note(context, path)), None):
            raise ApplyError(f"device {address} is in use by the host: it is a part of volume group {group}",
                             why=f"so is {host}, which no VM was given",
                             todo=f"take it out of the group (vgreduce {group}), or name another device")
        context.host.run(pci.deactivate(group))
    return _look(context, address)


def _has_note(context: Context, path: str) -> bool:
    """Whether a disk or partition is on a device that a VM has had."""
    noted = {note.address for note in context.facts.held}
    on = {block for device in context.facts.devices if device.address in noted for block in device.blocks}
    parents = {block.path: block.parents for block in context.facts.blocks}
    return path in on or any(parent in on for parent in parents.get(path, ()))


# -- before a start, after an end -------------------------------------------------------------------------------------

def config_of(xml: str) -> ConfigFacts:
    """A domain's configuration from its XML."""
    return domains.parse_domain(xml, None, "shut off", False).persistent


def ours(config: ConfigFacts) -> tuple[str, ...]:
    """The devices in a configuration that we have put there."""
    return tuple(address for address in config.hostdevs if config.owner and address in config.owner.devices)


def check_free(context: Context, vm: VmSpec) -> None:
    """See that nothing of the host's uses the drives that a VM is about to start with. Raises ApplyError."""
    known = next((domain for domain in context.facts.domains if domain.name == vm.name), None)
    if not vm.devices and not (known and known.persistent.hostdevs):
        return
    for address in ours(config_of(context.virt.domain_xml(vm.name))):
        look = _look(context, address)
        if look.driver != _VFIO and look.disks:
            _quiet(context, address)


def leaving(context: Context, name: str) -> tuple[str, ...]:
    """Devices that a running VM of ours has, and at its next start has not any more."""
    known = next((domain for domain in context.facts.domains if domain.name == name), None)
    if known is None or known.live is None or not known.live.hostdevs or not context.virt.alive(name):
        return ()
    live, persistent = (config_of(context.virt.domain_xml(name, live=live)) for live in (True, False))
    return tuple(address for address in ours(live) if address not in persistent.hostdevs)


def give_back(context: Context, addresses: Collection[str]) -> None:
    """See that the host's drivers have devices again. Raises ApplyError when one does not come back."""
    for address in addresses:
        note = next((note for note in context.facts.held if note.address == address), None)
        facts = _facts(context, address)
        had = _own_driver(facts) or (note.driver if note else None)
        if had:  # else the host had no driver for it before
            _to_host(context, address, f"its driver was {had}")


def give_devices_back(action: GiveBack, context: Context) -> None:
    """Those that were set aside at boot. Raises ApplyError when one does not come back."""
    for address in action.addresses:
        context.check()
        _to_host(context, address, "it was set aside for VMs when the host booted")


def _to_host(context: Context, address: str, why: str) -> None:
    """Wait until a driver of the host's has a device; let the kernel find one if that one for guests keeps it."""
    if _awaited(context, address, _OFF_TRIES):
        return
    if not any(address in config_of(xml).hostdevs for xml in context.virt.running_xml()):
        context.host.run(pci.release(address), check=False)
        if _awaited(context, address, _BACK_TRIES):
            return
    driver = _look(context, address).driver
    raise ApplyError(f"device {address} did not come back to the host: {driver or 'no driver'} has it", why=why,
                     todo=f"see dmesg on the host; by hand: echo > /sys/bus/pci/devices/{address}/driver_override; "
                          f"echo {address} > /sys/bus/pci/drivers/{driver or 'DRIVER'}/unbind; "
                          f"echo {address} > /sys/bus/pci/drivers_probe")


def _awaited(context: Context, address: str, tries: int) -> bool:
    for pause in _tries(tries):
        if _look(context, address).driver not in (None, _VFIO):
            return True
        context.cancel.wait(pause)
    return False


def _tries(count: int) -> list[float]:
    return [pause for _, pause in zip(range(count), pauses(0.1, 2.0), strict=False)]


def plug(context: Context, name: str, address: str) -> None:
    """Give a running guest a device, which nothing of the host's uses. Raises ApplyError."""
    if _look(context, address).driver != _VFIO:
        _quiet(context, address)
    context.virt.attach_live(name, design.hostdev_xml(address))


def unplug(context: Context, name: str, addresses: Collection[str]) -> None:
    """Have a running guest let go of devices, and see that they come back to the host. Raises ApplyError.

    First all, then each: no driver of the host's gets a member of an IOMMU group while a guest has another of it.
    """
    for address in addresses:
        context.virt.detach_live(name, design.hostdev_xml(address))
    for address in addresses:
        _await_unplugged(context, name, address)
    give_back(context, addresses)


def _await_unplugged(context: Context, name: str, address: str) -> None:
    for pause in _tries(_UNPLUG_TRIES):
        if address not in config_of(context.virt.domain_xml(name, live=True)).hostdevs:
            return
        if context.cancel.wait(pause):
            context.check()
    raise ApplyError(f"vm {name} does not let go of device {address}", why="its guest was asked, and did not react",
                     todo="vmwright apply --restart takes it from it; its definition has it no more")


def let_go(context: Context, name: str, addresses: Collection[str]) -> None:
    """Take devices out of the definition of a VM that is off: while they are wiped nothing starts with them."""
    xml = context.virt.domain_xml(name)
    owner = config_of(xml).owner
    for address in addresses:
        xml = alter.remove_hostdev(xml, address)
    if owner:
        xml = alter.set_owner(xml, without(owner, addresses))
    context.virt.define(name, xml)


def without(owner: OwnerFacts, addresses: Collection[str]) -> OwnerFacts:
    """The mark without these devices."""
    return replace(owner, devices=tuple(address for address in owner.devices if address not in addresses))
