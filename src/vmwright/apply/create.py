"""Handlers: make a VM from its template, and make it anew."""

from __future__ import annotations

from vmwright.apply.context import Context, Undo
from vmwright.apply.power import await_ready
from vmwright.apply.remove import drop_volume, remove_domain
from vmwright.apply.storage import pool_target
from vmwright.errors import ApplyError
from vmwright.facts.model import OwnerFacts
from vmwright.guest.seed import iso, seed
from vmwright.host.copy import claim, copy
from vmwright.image.traits import traits_of
from vmwright.names import data_volume, root_volume, seed_volume, template_volume
from vmwright.plan.actions import CreateVm, RebuildVm
from vmwright.spec.cloud import Copy, DataDisk, TemplateSpec, VmSpec
from vmwright.virt import design
from vmwright.virt.design import DiskChoice, NicChoice


def create_vm(action: CreateVm, context: Context) -> None:
    """Volumes, seed, definition, start, ready.

    The note on the host comes first and names every volume that is made here. Until the VM has started nothing of a
    user's is in them, so a failure (or the next run) may remove them.
    """
    vm, name = action.vm, action.vm.name
    volumes = _volumes(action, context)
    context.intend(name, "create", volumes=tuple(volumes.values()), instance=action.instance)
    with context.undoing() as undo:
        pools = {volume.path: volume.pool for volume in context.facts.volumes}
        for path in action.remove:
            drop_volume(context, pools.get(path, vm.pool), path)
        if not action.keep:  # the note is what tells data disks that belong to this VM from strange ones
            undo.push("drop the note", lambda: context.fulfil(name))
        _make(action, context, undo)
        if vm.running:
            context.say("starting", None)
            # From its first instruction on the guest may put something of worth on its disks: no note may call them
            # half made then. Until it has started, they are, and a failure says so again before it removes them.
            context.intend(name, "boot", instance=action.instance)
            undo.push("note that it is half made", lambda: context.intend(
                name, "create", volumes=tuple(volumes.values()), instance=action.instance))
            context.virt.start(vm.name)
    finish_boot(vm, context, action.instance)


def rebuild_vm(action: RebuildVm, context: Context) -> None:
    """Power off, forget definition and NVRAM, remove root disk and seed, and make the VM again; data disks stay."""
    volumes = _volumes(action, context)
    context.intend(action.vm.name, "rebuild", volumes=tuple(volumes.values()), instance=action.instance)
    context.say("removing the old one", None)
    remove_domain(context, action.vm.name)
    context.state.forget_guest(action.vm.name)
    create_vm(action, context)


def finish_boot(vm: VmSpec, context: Context, instance: str) -> None:
    """See a first boot to its end. From here on nothing is taken back: the VM is there, and a look at it may help."""
    if not vm.running:
        context.fulfil(vm.name)
        return
    await_ready(vm, context, instance=instance)
    context.fulfil(vm.name)


def _volumes(action: CreateVm, context: Context) -> dict[str, str]:
    """Every volume that this action makes: name -> path. Those it is told to keep are not among them."""
    cloud, vm = context.cloud.name, action.vm
    pools = {root_volume(cloud, vm.name): vm.pool, seed_volume(cloud, vm.name): vm.pool,
             **{data_volume(cloud, vm.name, disk.name): disk.pool for disk in vm.data_disks}}
    paths = {name: f"{pool_target(context, pool)}/{name}" for name, pool in pools.items()}
    return {name: path for name, path in paths.items() if path not in action.keep}


def _make(action: CreateVm, context: Context, undo: Undo) -> None:
    vm, cloud = action.vm, context.cloud.name
    folder = pool_target(context, vm.pool)
    context.check()
    context.say("copying its disk" if vm.copy is Copy.FULL else "making its disk", None)
    root = root_volume(cloud, vm.name)
    remove = (f"remove volume {root}", lambda: drop_volume(context, vm.pool, f"{folder}/{root}"))
    if vm.copy is Copy.FULL:
        _claim(f"{folder}/{root}", context)
        undo.push(*remove)  # a copy that fails leaves a part
        _full_copy(vm, action.template, context)
    else:
        _overlay(vm, action.template, context)
        undo.push(*remove)  # one that libvirt refuses to make may be somebody else's
    for disk in vm.data_disks:
        _data_disk(vm, disk, action.keep, context, undo)
    context.check()
    seed_path = f"{folder}/{seed_volume(cloud, vm.name)}"
    undo.push("remove the seed", lambda: context.host.remove(seed_path))
    write_seed(vm, action.template, context, seed_path, instance=action.instance, regenerate=True)
    context.virt.define(vm.name, _domain_xml(action, context, seed_path))
    undo.push(f"undefine {vm.name}", lambda: remove_domain(context, vm.name))
    if vm.autostart:
        context.virt.set_autostart(vm.name, True)


def _overlay(vm: VmSpec, template: TemplateSpec, context: Context) -> None:
    name = root_volume(context.cloud.name, vm.name)
    size, base = vm.disk or template.size, _base_path(template, context)
    context.virt.create_volume(vm.pool, design.overlay_xml(name, size, base, "qcow2"))


def _base_path(template: TemplateSpec, context: Context) -> str:
    name = template_volume(context.cloud.name, template.name, template.version)
    return f"{pool_target(context, template.pool)}/{name}"


def _claim(path: str, context: Context) -> None:
    """Make the file that is to be written, unless there is one: that may be somebody else's."""
    if context.host.run(claim(path), check=False).code:
        raise ApplyError(f"{path} has not been made", why="a file of that name is there now, and was not when the plan "
                         "was made; or its directory cannot be written to", todo="see what it is, then plan again")


def _full_copy(vm: VmSpec, template: TemplateSpec, context: Context) -> None:
    """An image of its own: shared blocks where the file system can (reflink), else a copy that keeps holes.

    libvirt sees it in its pool when it next looks; nothing here waits for that, and to make it look now would fail
    while other volumes are being made there.
    """
    name = root_volume(context.cloud.name, vm.name)
    base, path = _base_path(template, context), f"{pool_target(context, vm.pool)}/{name}"
    context.host.run(copy(base, path), cancel=context.cancel)
    if vm.disk and vm.disk > template.size:
        context.host.run(["qemu-img", "resize", "-q", "-f", "qcow2", path, str(vm.disk)])


def _data_disk(vm: VmSpec, disk: DataDisk, keep: tuple[str, ...], context: Context, undo: Undo) -> None:
    name = data_volume(context.cloud.name, vm.name, disk.name)
    if f"{pool_target(context, disk.pool)}/{name}" in keep:
        return
    context.virt.create_volume(disk.pool, design.volume_xml(name, disk.size, "qcow2"))
    undo.push(f"remove volume {name}", lambda: context.virt.delete_volume(disk.pool, name))


def write_seed(
    vm: VmSpec, template: TemplateSpec, context: Context, path: str, *, instance: str, regenerate: bool
) -> None:
    """Put the VM's cloud-init data beside its disks; readable by its owner only, for it may hold password hashes."""
    made = seed(context.cloud.name, vm, instance=instance, regenerate=regenerate, image=traits_of(template.source))
    context.host.write(path, iso(made), mode=0o600)


def data_disk_choice(vm: VmSpec, disk: DataDisk, index: int, context: Context) -> DiskChoice:
    """How a data disk is attached: vdb and on, in the order of the file."""
    path = f"{pool_target(context, disk.pool)}/{data_volume(context.cloud.name, vm.name, disk.name)}"
    return DiskChoice(path=path, format="qcow2", serial=disk.serial, target=disk_target(index + 1),
                      cache=_cache(context, disk.pool))


def _cache(context: Context, pool: str) -> str:
    """The cache mode that suits the file system of a pool."""
    folder = pool_target(context, pool)
    return design.cache_for(next((path.filesystem for path in context.facts.paths if path.path == folder), ""))


def disk_target(index: int) -> str:
    """vda, vdb, ...: the name in libvirt's XML; what the guest calls it may differ, its serial does not."""
    return "vd" + "abcdefghijklmnopqrstuvwxy"[index]


def _domain_xml(action: CreateVm, context: Context, seed_path: str) -> str:
    vm, cloud = action.vm, context.cloud.name
    root = DiskChoice(path=f"{pool_target(context, vm.pool)}/{root_volume(cloud, vm.name)}", format="qcow2",
                      serial="root", target=disk_target(0), cache=_cache(context, vm.pool))
    disks = [root, *(data_disk_choice(vm, disk, n, context) for n, disk in enumerate(vm.data_disks))]
    links = {name: (kind, source) for name, kind, source in action.networks}
    nics = [NicChoice(nic.mac, *links[nic.network]) for nic in vm.nics]
    template = action.template
    owner = OwnerFacts(cloud, vm.name, template.name, template.version, action.instance, action.seed, vm.protect,
                       tuple(nic.mac for nic in vm.nics))
    return design.domain_xml(cloud, vm, type=action.type, machine=context.facts.machine, host_cpus=context.facts.cpus,
                             disks=disks, seed_path=seed_path, nics=nics, owner=owner)
