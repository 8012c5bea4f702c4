"""Handlers: remove VMs, old versions of templates, and what cut-off runs left."""

from __future__ import annotations

from vmwright.apply import devices
from vmwright.apply.context import Context
from vmwright.apply.stores import store_of
from vmwright.errors import ApplyError
from vmwright.facts import domains
from vmwright.names import intent_path, is_block, manifest_path
from vmwright.plan.actions import DestroyVm, RemoveTemplate, Tidy
from vmwright.virt.design import serial_log


def remove_domain(context: Context, name: str) -> None:
    """Power a domain off and forget it, with its NVRAM; nothing when there is none. Its devices are the host's again.

    Raises ApplyError when it is not this cloud's any more: somebody may have put another in its place since the plan.
    """
    if not power_off_ours(context, name):
        return
    had = devices.ours(devices.config_of(context.virt.domain_xml(name)))
    context.virt.undefine(name)
    devices.give_back(context, had)


def power_off_ours(context: Context, name: str) -> bool:
    """Pull a VM's plug; whether there is such a VM. Raises ApplyError as above."""
    if not context.virt.exists(name):
        return False
    owner = domains.parse_domain(context.virt.domain_xml(name), None, "shut off", False).persistent.owner
    if owner is None or (owner.cloud, owner.vm) != (context.cloud.name, name):
        raise ApplyError(f"vm {name} is not the one that was planned for, and is left alone",
                         why="it has no mark of this cloud", todo="see whose it is: virsh dominfo; then plan again")
    if context.virt.domain_state(name) in ("running", "paused"):
        leaving = devices.leaving(context, name)
        context.virt.kill(name)
        devices.give_back(context, leaving)
    return True


def destroy_vm(action: DestroyVm, context: Context) -> None:
    """Power off, undefine, remove disks and seed, forget its host keys. The note names the volumes to the end."""
    paths = {(v.pool, v.name): v.path for v in context.facts.volumes}
    context.intend(action.name, "destroy", volumes=tuple(paths[key] for key in action.volumes if key in paths))
    remove_domain(context, action.name)
    for pool, name in action.volumes:
        context.say(f"removing {name}", None)
        store = store_of(context, pool)
        store.drop(store.path(name))
    context.host.remove(serial_log(action.name), f"/var/log/libvirt/qemu/{action.name}.log")
    context.state.forget_guest(action.name)
    context.fulfil(action.name)


def remove_template(action: RemoveTemplate, context: Context) -> None:
    """Remove one version; the plan has seen that no disk stands on it, and the host's lock keeps it so."""
    store = store_of(context, action.pool)
    store.drop(store.path(action.volume))
    context.host.remove(manifest_path(context.cloud.name, action.template, action.version))


def tidy(action: Tidy, context: Context) -> None:
    """Remove a note that has nothing left to say, or what was begun of a template: its work directory goes last."""
    pools = {volume.path: volume.pool for volume in context.facts.volumes}
    for path in filter(is_block, action.paths):
        store_of(context, pools[path]).drop(path)
    files = [path for path in action.paths if not is_block(path)]
    if files:
        context.host.remove(*files)
    if action.operation == "template":
        context.host.run(["rm", "-rf", "--", context.work(action.name)])
    elif action.operation != "volume":
        context.host.remove(intent_path(context.cloud.name, action.name))
