"""Handlers: pools, networks, templates."""

from __future__ import annotations

import json

from vmwright.apply.context import Context
from vmwright.apply.stores import store_of
from vmwright.errors import ApplyError
from vmwright.host import lvm
from vmwright.image import debian, fetch
from vmwright.names import manifest_path
from vmwright.plan.actions import CreateGroup, CreateNetwork, CreatePool, MakeTemplate
from vmwright.spec.cloud import BuildSource, Firmware
from vmwright.virt import design


def create_pool(action: CreatePool, context: Context) -> None:
    """Define, build, start and autostart a directory pool; each step is one that a second run finds done."""
    xml = None if action.exists else design.pool_xml(action.pool.name, action.pool.path)
    there = any(path.path == action.pool.path and path.exists for path in context.facts.paths)
    context.virt.ensure_pool(action.pool.name, xml, build=xml is not None or not there)


def create_group(action: CreateGroup, context: Context) -> None:
    """Physical volumes, volume group, thin pool, libvirt's pool; each step is one that the next plan finds done.

    A disk is only wiped when the file names it. Without that, LVM itself is to refuse one that is not blank after all:
    something may have come onto it since the plan was made.
    """
    host, group, make = context.host, action.lvm.group, action.make
    for disk in action.disks:
        context.say(f"taking {disk.path}", None)
        if disk.wipe:
            host.run(lvm.wipe(disk.path))
        host.run(lvm.pvcreate(disk.path, wipe=disk.wipe))
    if action.disks:
        paths = [disk.path for disk in action.disks]
        host.run(lvm.vgcreate(group, paths) if make else lvm.vgextend(group, paths))
    if action.thin:
        host.run(lvm.create_thin_pool(group, action.thin.name, action.thin.size or 0, action.thin.metadata or 0))
    xml = None if action.exists else design.group_xml(action.pool.name, group)
    context.virt.ensure_pool(action.pool.name, xml, build=False)


def create_network(action: CreateNetwork, context: Context) -> None:
    """Define, start and autostart a NAT network."""
    subnet = action.network.subnet
    if subnet is None:
        raise ApplyError(f"network {action.network.name} has no subnet", todo="give `nat:` a subnet in the file")
    name = action.libvirt_name
    xml = None if action.exists else design.network_xml(name, subnet, action.reserved, dhcp=action.dhcp)
    with context.undoing() as undo:
        if xml is not None:
            context.virt.define_network(name, xml)
            undo.push(f"undefine network {name}", lambda: context.virt.undefine_network(name))
        context.virt.ensure_network(name)


def make_template(action: MakeTemplate, context: Context) -> None:
    """Build or fetch the image in a work directory, then put it into the pool under its final name in one step."""
    template = action.template
    work = context.work(f"{template.name}-{template.version}")
    context.host.run(["mkdir", "-p", "-m", "0700", "--", work])
    try:
        path, manifest = _image(action, context, work)
        context.say("moving it into the pool", None)
        manifest = {"template": template.name, "version": template.version, **manifest}
        context.host.write(manifest_path(context.cloud.name, template.name, template.version),
                           json.dumps(manifest, indent=1).encode())
        store_of(context, template.pool).publish(path, template)
    finally:
        context.host.run(["rm", "-rf", "--", work], check=False)


def _image(action: MakeTemplate, context: Context, work: str) -> tuple[str, dict[str, object]]:
    source, size = action.template.source, action.template.size
    if isinstance(source, BuildSource):
        built = debian.build(context.host, source, size, work, progress=context.say, cancel=context.cancel)
        return built.path, {"source": "build", "packages": built.manifest}
    fetched = fetch.fetch(context.host, source, size or None, work, proxy=_proxy(action, context), progress=context.say,
                          cancel=context.cancel)
    fetch.check_firmware(fetched, _uefi_vms(action, context))
    return fetched.path, {"source": fetched.origin, "sha256": fetched.sha256}


def _uefi_vms(action: MakeTemplate, context: Context) -> list[str]:
    """The VMs that come from this template and boot by UEFI."""
    wanted = (action.template.name, action.template.host, Firmware.UEFI)
    return [vm.name for vm in context.cloud.vms if (vm.template, vm.host, vm.firmware) == wanted]


def _proxy(action: MakeTemplate, context: Context) -> str | None:
    """The proxy that the guests of this template use: where they need one to reach the world, their host does, too."""
    name, host = action.template.name, action.template.host
    return next((vm.guest.proxy for vm in context.cloud.vms
                 if (vm.template, vm.host) == (name, host) and vm.guest.proxy), None)
