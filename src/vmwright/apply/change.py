"""Handler: change a VM in place. One new persistent definition; then live, what libvirt can."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from vmwright.apply import devices
from vmwright.apply.context import Context
from vmwright.apply.create import seed_image
from vmwright.apply.stores import data_disk_choice, store_of
from vmwright.errors import ApplyError, GuestError
from vmwright.facts import domains
from vmwright.facts.model import ConfigFacts, OwnerFacts
from vmwright.guest.wait import pauses
from vmwright.plan.actions import UpdateVm
from vmwright.spec.cloud import DataDisk, TemplateSpec
from vmwright.virt import alter, design
from vmwright.virt.design import NicChoice
from vmwright.virt.placing import Ground

_ONLINE_TRIES = 18  # half a minute


def update_vm(action: UpdateVm, context: Context) -> None:
    """Volumes and seed first, then the definition, then the running VM.

    Each step is one that a second run finds done or does again: a cut-off run leaves nothing that the next plan does
    not see. What the definition has and the running VM has not counts from its next start, and the plan says so.
    """
    vm = action.vm
    for disk in action.add_disks:
        _ensure_data_disk(vm.name, disk, context)
    devices.wipe(context, vm.name, action.add_devices)
    old = context.virt.domain_xml(vm.name)
    owner = _new_owner(action, _config(old).owner)
    if action.seed is not None:
        store = store_of(context, vm.pool)
        store.put(store.seed(vm.name),
                  seed_image(vm, _template(action, context), context, owner.instance, regenerate=False))
    running = context.virt.domain_xml(vm.name, live=True) if action.live else None
    new = _altered(action, old, running, owner, context)
    devices.give(context, vm.name, action.add_devices)
    if new != old:
        context.virt.define(vm.name, new)
    if action.autostart is not None:
        context.virt.set_autostart(vm.name, action.autostart)
    if action.live:
        _live(action, context)


def _config(xml: str) -> ConfigFacts:
    return domains.parse_domain(xml, None, "shut off", False).persistent


def _new_owner(action: UpdateVm, owner: OwnerFacts | None) -> OwnerFacts:
    if owner is None:
        raise ApplyError(f"vm {action.vm.name} has lost vmwright's mark since the plan was made", todo="plan again")
    changed = replace(devices.without(owner, action.remove_devices),
                      protect=owner.protect if action.protect is None else action.protect,
                      nics=tuple(nic.mac for nic in action.vm.nics), pinned=action.vm.pin is not None)
    changed = replace(changed, devices=(*changed.devices, *(device.address for device in action.add_devices)))
    return changed if action.seed is None else replace(changed, seed=action.seed, instance=action.instance)


def _template(action: UpdateVm, context: Context) -> TemplateSpec:
    vm = action.vm
    found = [t for t in context.cloud.templates if t.name == vm.template and t.host == vm.host]
    return next((t for t in found if t.pool == vm.pool), found[0])


def _ensure_data_disk(vm: str, disk: DataDisk, context: Context) -> None:
    """Make the disk's volume, unless it is there with the data it has."""
    store = store_of(context, disk.pool)
    name = store.data(vm, disk.name)
    if any(v.pool == disk.pool and v.name == name for v in context.facts.volumes):
        store.wake(name)
    else:
        store.blank(name, disk.size)


def _altered(action: UpdateVm, xml: str, running: str | None, owner: OwnerFacts, context: Context) -> str:
    """The definition with everything that the action changes; all else in it, ours or not, stays."""
    xml = alter.set_owner(xml, owner)
    if action.type is not None:
        xml = alter.set_type(xml, action.type)
    if action.vcpus is not None:
        xml = alter.set_vcpus(xml, action.vcpus, context.facts.cpus)
    if action.memory is not None:
        xml = alter.set_memory(xml, action.memory)
    if action.placement is not None:
        xml = alter.set_placement(xml, action.placement, context.facts.cpus, Ground.of(context.facts))
    if action.cpu is not None:
        xml = alter.set_cpu(xml, action.cpu, _config(xml).type, Ground.of(context.facts))
    for mac in action.remove_nics:
        xml = alter.remove_nic(xml, mac)
    for mac, kind, source in action.move_nics:
        xml = alter.move_nic(xml, mac, kind, source)
    for nic, kind, source in action.add_nics:
        xml = alter.add_nic(xml, NicChoice(nic.mac, kind, source))
    for serial in action.remove_disks:
        xml = alter.remove_disk(xml, serial)
    for disk in action.add_disks:
        xml = alter.add_disk(xml, data_disk_choice(action.vm, disk, context), running=running)
    for address in action.remove_devices:
        xml = alter.remove_hostdev(xml, address)
    for device in action.add_devices:
        xml = alter.add_hostdev(xml, device.address)
    return xml


def _live(action: UpdateVm, context: Context) -> None:
    name, virt = action.vm.name, context.virt
    if "vcpus" in action.live and action.vcpus is not None:
        virt.set_vcpus_live(name, action.vcpus)
        _online(name, action.vcpus, context)
    if "memory" in action.live and action.memory is not None:
        virt.set_memory_live(name, action.memory)
    running = virt.domain_xml(name, live=True)
    if "placement" in action.live and action.placement is not None:
        placement = action.placement
        virt.pin_live(name, placement.vcpus, placement.emulator,
                      dict.fromkeys(alter.iothreads(running) if placement.iothreads else (), placement.iothreads))
    if "remove_nics" in action.live:
        for mac in action.remove_nics:
            if (device := alter.nic_xml(running, mac)) is not None:
                virt.detach_live(name, device)
    if "move_nics" in action.live:
        for mac, kind, source in action.move_nics:
            if (device := alter.nic_xml(alter.move_nic(running, mac, kind, source), mac)) is not None:
                virt.update_live(name, device)
    if "add_nics" in action.live:
        for nic, kind, source in action.add_nics:
            virt.attach_live(name, design.nic_device_xml(NicChoice(nic.mac, kind, source)))
    if "add_disks" in action.live:
        persistent = virt.domain_xml(name)
        for disk in action.add_disks:
            # As it stands in the definition, but where there is room in the running VM.
            device = alter.disk_xml(persistent, disk.serial)
            if device is not None:
                virt.attach_live(name, alter.unplaced(device))
    devices.unplug(context, name, [address for address in action.remove_devices if address in action.plug])
    for given in action.add_devices:
        if given.address in action.plug:
            devices.plug(context, name, given.address)


def _online(name: str, count: int, context: Context) -> None:
    """A plugged-in CPU comes up in the guest a moment later, and is offline in many guests until somebody says so."""
    online, agent = 0, context.agent(name)
    try:
        for pause in islice(pauses(0.1, 2.0), _ONLINE_TRIES):
            online = agent.set_vcpus(count)
            if online >= count or context.cancel.wait(pause):
                break
    except GuestError as error:
        context.note(f"the guest was given {count} CPUs, but whether it uses them is not known: {error.what}")
        return
    late = "" if online >= count else "; the others come up at its next start, or by hand"
    context.note(f"the guest has {online} CPUs online{late}")
