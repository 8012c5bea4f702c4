"""Handlers: start, stop, restart, and wait until a guest is ready."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from vmwright.apply import devices
from vmwright.apply.context import Context
from vmwright.apply.grow import catch_up
from vmwright.apply.stores import wake_disks
from vmwright.errors import ApplyError, Cancelled, GuestError, VmwrightError
from vmwright.guest.ready import Ready, wait_ready
from vmwright.guest.seed import AGENT_FAILED
from vmwright.guest.wait import pauses
from vmwright.plan.actions import RestartVm, StartVm, StopVm, WaitReady
from vmwright.spec.cloud import VmSpec
from vmwright.virt.design import serial_log

_CONSOLE_LINES = 15
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")  # of ECMA-48: CSI, OSC, others
_RESTART_PATIENCE = 180.0
_PRESS_AGAIN = 15.0  # seconds


def await_ready(vm: VmSpec, context: Context, *, instance: str | None = None) -> Ready:
    """Wait until the guest is ready, and remember its host keys. What goes wrong is told with the console's last lines.

    With `instance`, the guest must have applied this incarnation's seed and no other.
    """
    try:
        ready = wait_ready(
            context.agent(vm.name), timeout=vm.ready_timeout, instance=instance, cancel=context.cancel,
            domain_alive=lambda: context.virt.alive(vm.name), agent_failed=lambda: _agent_failed(vm, context),
            progress=lambda stage: context.say(stage, None))
    except GuestError as error:
        raise _with_console(error, vm, context) from error
    addresses = [address.split("/")[0] for address in ready.addresses]
    context.state.remember_guest(vm.name, addresses, ready.ssh_host_keys)
    for warning in ready.warnings:
        context.note(f"cloud-init warns: {warning}")
    context.note(f"ready {ready.boot_seconds:.0f} s after its start, {', '.join(addresses) or 'no address'}")
    return ready


def _agent_failed(vm: VmSpec, context: Context) -> bool:
    """Whether the console of this start has the line by which the seed tells of an agent that is not to be had."""
    return context.host.run(["grep", "-aqF", "--", AGENT_FAILED, serial_log(vm.name)], check=False).code == 0


def _with_console(error: GuestError, vm: VmSpec, context: Context) -> GuestError:
    """The same error, with the last lines of the VM's console."""
    try:
        tail = context.host.run(["tail", "-n", str(_CONSOLE_LINES), "--", serial_log(vm.name)], check=False).text
    except VmwrightError:
        tail = ""
    shown = console_text(tail)
    why = f"{error.why}\nlast lines of its console:\n{shown}" if shown else error.why
    todo = "\n".join(line for line in (error.todo, f"look inside: vmwright console {vm.name}; then apply again, or "
                                                   f"vmwright rebuild {vm.name}") if line)
    return GuestError(f"vm {vm.name}: {error.what}", why=why, todo=todo)


def console_text(raw: str) -> str:
    """What a console said, without what moves its cursor, and without empty lines. Pure."""
    plain = (_ESCAPE.sub("", line) for line in raw.replace("\r", "\n").split("\n"))
    lines = ("".join(filter(str.isprintable, line)).rstrip() for line in plain)
    return "\n".join(line for line in lines if line)


def wait_vm(action: WaitReady, context: Context) -> None:
    """See a first boot to its end that an earlier run did not."""
    await_ready(action.vm, context)
    context.fulfil(action.vm.name)


def start_vm(action: StartVm, context: Context) -> None:
    """Start, wait until ready."""
    devices.check_free(context, action.vm)
    wake_disks(context, action.vm.name)
    context.virt.start(action.vm.name)
    up_again(action.vm, context)


def up_again(vm: VmSpec, context: Context) -> None:
    """What a start ends with: ready, and its disks' file systems as large as the disks."""
    await_ready(vm, context)
    catch_up(vm, context)
    context.fulfil(vm.name)


def stop_vm(action: StopVm, context: Context) -> None:
    """Ask the guest to power off, and wait until libvirt says that it is off."""
    power_off(action.vm.name, context, patience=action.patience, force=action.force)


def restart_vm(action: RestartVm, context: Context) -> None:
    """Off and on again: a reboot inside the guest would keep the old definition."""
    power_off(action.vm.name, context, patience=_RESTART_PATIENCE, force=False)
    devices.check_free(context, action.vm)
    context.virt.start(action.vm.name)
    up_again(action.vm, context)


def power_off(name: str, context: Context, *, patience: float, force: bool) -> None:
    """Press the power button until the guest is off. Raises GuestError when it is not off in time, unless `force`.

    The button is pressed again now and then: a guest that has not come far enough yet does not notice it. Devices that
    the VM does not have at its next start are the host's again then.
    """
    leaving = devices.leaving(context, name)
    _await_off(name, context, patience=patience, force=force)
    devices.give_back(context, leaving)


def _await_off(name: str, context: Context, *, patience: float, force: bool) -> None:
    began = pressed = time.monotonic()
    _unless_off(context.virt.shutdown, name, context)
    for pause in pauses(0.1, 1.0):
        if context.virt.domain_state(name) == "shut off":
            return
        if context.cancel.wait(pause):
            raise Cancelled(f"stopped waiting for {name} to power off; it may still do so")
        now = time.monotonic()
        context.say(f"waiting for it to power off  {now - began:.0f} s", None)
        if now - began > patience:
            break
        if now - pressed > _PRESS_AGAIN:
            _unless_off(context.virt.shutdown, name, context)
            pressed = now
    if not force:
        raise GuestError(f"vm {name} did not power off within {patience:.0f} s", why="the guest did not react in time",
                         todo=f"look at its console: vmwright console {name}; or pull the plug: "
                              f"vmwright stop --force {name}")
    _unless_off(context.virt.kill, name, context)
    context.note(f"did not power off within {patience:.0f} s: the plug was pulled")


def _unless_off(call: Callable[[str], None], name: str, context: Context) -> None:
    """Ask libvirt for something that a VM which has just gone off by itself does not need any more."""
    try:
        call(name)
    except ApplyError:
        if context.virt.domain_state(name) != "shut off":
            raise
