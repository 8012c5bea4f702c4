"""Handlers: make a VM from its template, and make it anew."""

from __future__ import annotations

from dataclasses import replace

from vmwright.apply import devices
from vmwright.apply.context import Context, Undo
from vmwright.apply.power import await_ready
from vmwright.apply.remove import power_off_ours, remove_domain
from vmwright.apply.stores import data_disk_choice, disk_target, store_of, template_path
from vmwright.facts.model import OwnerFacts
from vmwright.guest.seed import iso, seed
from vmwright.image.traits import traits_of
from vmwright.plan.actions import CreateVm, RebuildVm
from vmwright.plan.view import ROOT_SERIAL
from vmwright.spec.cloud import Copy, TemplateSpec, VmSpec
from vmwright.virt import design
from vmwright.virt.design import NicChoice
from vmwright.virt.placing import Ground


def create_vm(action: CreateVm, context: Context) -> None:
    """Volumes, seed, definition, start, ready.

    The note on the host comes first and names every volume that is made here. Until the VM has started nothing of a
    user's is in them, so a failure (or the next run) may remove them.
    """
    vm, name = action.vm, action.vm.name
    volumes = _volumes(action, context)
    context.intend(name, "create", volumes=tuple(volumes), instance=action.instance)
    with context.undoing() as undo:
        pools = {volume.path: volume.pool for volume in context.facts.volumes}
        for path in action.remove:
            store_of(context, pools.get(path, vm.pool)).drop(path)
        if not action.keep:  # the note is what tells data disks that belong to this VM from strange ones
            undo.push("drop the note", lambda: context.fulfil(name))
        devices.wipe(context, name, action.devices)
        _make(action, context, undo)
        if vm.running:
            devices.check_free(context, vm)
            context.say("starting", None)
            # From its first instruction on the guest may put something of worth on its disks: no note may call them
            # half made then. Until it has started, they are, and a failure says so again before it removes them.
            context.intend(name, "boot", instance=action.instance)
            undo.push("note that it is half made", lambda: context.intend(
                name, "create", volumes=tuple(volumes), instance=action.instance))
            context.virt.start(vm.name)
    finish_boot(vm, context, action.instance)


def rebuild_vm(action: RebuildVm, context: Context) -> None:
    """Power off, forget definition and NVRAM, remove root disk and seed, and make the VM again; data disks stay."""
    volumes = _volumes(action, context)
    context.intend(action.vm.name, "rebuild", volumes=tuple(volumes), instance=action.instance)
    context.say("removing the old one", None)
    if any(device.wipe for device in action.devices):
        _wipe(action, context)
    remove_domain(context, action.vm.name)
    context.state.forget_guest(action.vm.name)
    create_vm(replace(action, devices=tuple(replace(device, wipe=False) for device in action.devices)), context)


def _wipe(action: RebuildVm, context: Context) -> None:
    """Wipe devices of the old VM, or new ones, while it is off and still there: this may fail, and it may be needed.

    They are taken out of its definition first, so that nothing starts with a drive that is wiped in part.
    """
    name, given = action.vm.name, [device for device in action.devices if device.wipe]
    if power_off_ours(context, name):
        looks = [devices.examine(context, device) for device in given]
        devices.let_go(context, name, [device.address for device in given])
    else:
        looks = [devices.examine(context, device) for device in given]
    for device, look in zip(given, looks, strict=True):
        devices.erase(context, name, device, look)


def finish_boot(vm: VmSpec, context: Context, instance: str) -> None:
    """See a first boot to its end. From here on nothing is taken back: the VM is there, and a look at it may help."""
    if not vm.running:
        context.fulfil(vm.name)
        return
    await_ready(vm, context, instance=instance)
    context.fulfil(vm.name)


def _volumes(action: CreateVm, context: Context) -> list[str]:
    """The paths of all volumes that this action makes. Those it is told to keep are not among them."""
    vm, store = action.vm, store_of(context, action.vm.pool)
    paths = [store.path(store.root(vm.name)), store.path(store.seed(vm.name))]
    for disk in vm.data_disks:
        store = store_of(context, disk.pool)
        paths.append(store.path(store.data(vm.name, disk.name)))
    return [path for path in paths if path not in action.keep]


def _make(action: CreateVm, context: Context, undo: Undo) -> None:
    vm, store = action.vm, store_of(context, action.vm.pool)
    context.check()
    context.say("copying its disk" if vm.copy is Copy.FULL else "making its disk", None)
    store.clone(vm, action.template, template_path(context, action.template), undo)
    for disk in vm.data_disks:
        place = store_of(context, disk.pool)
        name = place.data(vm.name, disk.name)
        if place.path(name) in action.keep:
            place.wake(name)
        else:
            place.blank(name, disk.size, undo)
    context.check()
    store.put(store.seed(vm.name), seed_image(vm, action.template, context, action.instance, regenerate=True), undo)
    devices.give(context, vm.name, action.devices, undo)
    context.virt.define(vm.name, _domain_xml(action, context))
    undo.push(f"undefine {vm.name}", lambda: remove_domain(context, vm.name))
    if action.autostart:
        context.virt.set_autostart(vm.name, True)


def seed_image(vm: VmSpec, template: TemplateSpec, context: Context, instance: str, *, regenerate: bool) -> bytes:
    """The VM's cloud-init data as a volume's content."""
    return iso(seed(context.cloud.name, vm, instance=instance, regenerate=regenerate,
                    image=traits_of(template.source)))


def _domain_xml(action: CreateVm, context: Context) -> str:
    vm, cloud, store = action.vm, context.cloud.name, store_of(context, action.vm.pool)
    disks = [store.choice(store.root(vm.name), ROOT_SERIAL, disk_target(0)),
             *(data_disk_choice(vm, disk, context) for disk in vm.data_disks)]
    links = {name: (kind, source) for name, kind, source in action.networks}
    nics = [NicChoice(nic.mac, *links[nic.network]) for nic in vm.nics]
    template = action.template
    hostdevs = tuple(device.address for device in action.devices)
    owner = OwnerFacts(cloud, vm.name, template.name, template.version, action.instance, action.seed, vm.protect,
                       tuple(nic.mac for nic in vm.nics), hostdevs, pinned=vm.pin is not None)
    return design.domain_xml(cloud, vm, type=action.type, machine=context.facts.machine, host_cpus=context.facts.cpus,
                             disks=disks, seed_path=store.path(store.seed(vm.name)), nics=nics, owner=owner,
                             hostdevs=hostdevs, placement=action.placement, ground=Ground.of(context.facts))
