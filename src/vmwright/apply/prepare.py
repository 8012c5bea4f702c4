"""Handlers: packages, kernel arguments, reboot. Each ends with a look at whether it has come about."""

from __future__ import annotations

import re
import time

from vmwright.apply.context import Context
from vmwright.apply.files import put
from vmwright.apply.power import power_off
from vmwright.errors import ApplyError, Cancelled, HostError
from vmwright.guest.wait import pauses
from vmwright.host import kernel, packages
from vmwright.names import ASIDE_LIST, GRUB_DROP_IN, KERNEL_NOTE
from vmwright.plan.host_actions import InstallPackages, Reboot, SetKernelArguments
from vmwright.session import open_host

_COUNTED = re.compile(r"(\d+) newly installed|^Install +(\d+) Package")
_STEP = re.compile(r"^(?:Get:\d+|Unpacking|Setting up) ")
_STEPS = 3  # of each package: it is fetched, unpacked and set up
_STOP_PATIENCE = 180.0
_REBOOT_PATIENCE = 900.0


def install_packages(action: InstallPackages, context: Context) -> None:
    """Refresh the lists, install, start services, and see that the programs are there.

    The package manager fetches everything before it installs anything, so that a mirror that is down leaves the host as
    it was.
    """
    _mend(action, context)
    context.say("fetching the lists of packages", None)
    _run(packages.refresh(action.tool), action, context)
    _run(packages.install(action.tool, action.packages), action, context)
    if action.services:
        context.say("starting services", None)
        context.host.run(packages.start(action.services), timeout=_STOP_PATIENCE)
    missing = [tool for tool in action.programs
               if context.host.run(["sh", "-c", 'command -v "$1"', "sh", tool], check=False).code]
    if missing:
        context.note(f"not found by that name afterwards: {', '.join(missing)}")


def _mend(action: InstallPackages, context: Context) -> None:
    argv = packages.mend(action.tool)
    if argv:
        context.say("looking for an installation that was cut off", None)
        _run(argv, action, context)


def _run(argv: list[str], action: InstallPackages, context: Context) -> None:
    """Not to be cancelled: a package manager that is killed leaves packages half configured."""
    context.check()

    count, seen = 0, 0

    def told(line: str) -> None:
        nonlocal count, seen
        if found := _COUNTED.search(line):
            count = int(found[1] or found[2])
        elif _STEP.search(line) and count:
            seen += 1
            context.say(f"installing {count} packages", min(seen / (_STEPS * count), 1.0))

    try:
        context.host.run(argv, on_line=told)
    except HostError as error:
        raise ApplyError(f"packages were not installed on host {context.facts.name}", why=error.why,
                         todo=_todo(error.why, action.tool)) from error


def _todo(said: str, tool: str) -> str:
    """What a package manager's last words mean. Pure."""
    if "Could not get lock" in said or "lock" in said.lower():
        return "another package manager is at work there: wait until it is done, then apply again"
    if any(words in said for words in ("Failed to fetch", "Temporary failure", "Could not resolve", "Cannot download",
                                       "Failed to download", "Could not connect", "Unable to connect")):
        return f"its mirror or proxy does not answer: see what {tool} is told of them there; then apply again"
    if "Unable to locate package" in said or "No match for argument" in said:
        return "its package sources do not have them: add the distribution's own, then apply again"
    if "No space left" in said or "not enough free space" in said.lower():
        return "make room there, then apply again"
    return "mend that on the host, then apply again: it goes on from there"


def set_kernel_arguments(action: SetKernelArguments, context: Context) -> None:
    """A file of our own and GRUB's menu anew, or grubby; the administrator's own line is not touched."""
    if action.tool == "grubby":
        noted = (context.facts.platform.file(KERNEL_NOTE).text or "").split()
        had = {*context.facts.platform.cmdline.split(), *noted}
        ours = [*noted, *(word for word in action.arguments if word not in had)]
        put(context, KERNEL_NOTE, f"{' '.join(ours)}\n", mode=0o600)
        context.host.run(kernel.grubby(action.arguments))
        return
    with context.undoing() as undo:
        put(context, GRUB_DROP_IN, action.text, undo=undo)
        context.say("writing GRUB's menu", None)
        context.host.run(kernel.update_grub())
        if context.host.run(kernel.in_menu(action.arguments), check=False).code:
            raise ApplyError(f"GRUB's menu on host {context.facts.name} does not have {' '.join(action.arguments)}",
                             why=f"update-grub has run, with {GRUB_DROP_IN} there",
                             todo="see whether /etc/default/grub sets GRUB_CMDLINE_LINUX after it has read grub.d, or "
                                  "another boot loader is in use")


def reboot(action: Reboot, context: Context) -> None:
    """Shut VMs down, reboot, and wait until the host answers under another boot id."""
    for name in action.stop:
        context.say(f"shutting {name} down", None)
        power_off(name, context, patience=_STOP_PATIENCE, force=False)
    context.check()
    context.host.run(kernel.reboot())
    _await_boot(action, context)


def _await_boot(action: Reboot, context: Context) -> None:
    began, said = time.monotonic(), ""
    for pause in pauses(2.0, 5.0):
        waited = time.monotonic() - began
        context.say(f"waiting for the host to come back  {waited:.0f} s", None)
        if context.cancel.wait(pause):
            raise Cancelled(f"stopped waiting for host {action.host}, which reboots; apply again goes on")
        host = open_host(context.session.spec)  # our connection has ended with the old boot
        try:
            if host.run(kernel.boot_id(), timeout=20.0).text.strip() not in ("", action.boot):
                return
        except HostError as error:
            said = error.why or error.what
        finally:
            host.close()
        if waited > _REBOOT_PATIENCE:
            break
    raise ApplyError(f"host {action.host} has not come back within {_REBOOT_PATIENCE:.0f} s after its reboot", why=said,
                     todo="look at its console. In the boot menu (e), add vmwright.aside=off to the kernel's "
                          "arguments, which leaves all devices to the host, and take out those that vmwright added; "
                          f"for good: vmwright release, or remove {GRUB_DROP_IN} and {ASIDE_LIST}, update-grub, "
                          "update-initramfs -u")
