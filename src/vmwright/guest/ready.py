"""Waiting until a guest is ready: its agent answers, and cloud-init has done what its seed says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Protocol

from vmwright.errors import AgentSilent, Cancelled, GuestError
from vmwright.guest.agent import AgentRefused, Interface, Runs
from vmwright.guest.cloudinit import LOGS, PROBE, Boot, judge, sections, telling_lines
from vmwright.guest.wait import pauses

_LOG_BYTES = 200_000
_CONSOLE_SECONDS = 5.0  # between two looks at the console of a guest whose agent is silent
_SILENT = "waiting for the guest agent"
_COMMAND_TIMEOUT = 60.0  # for one probe; an emulated guest that boots is slow
_FACTS = """\
say() { printf '==%s==\\n' "$1"; }
word() { word=; [ ! -r "$1" ] || read -r word rest < "$1"; echo "$word"; }
say hostname; word /proc/sys/kernel/hostname
say machine; word /etc/machine-id
say uptime; word /proc/uptime
say keys; cat /etc/ssh/ssh_host_*_key.pub
"""


class Asked(Runs, Protocol):
    """What waiting needs of an agent."""

    def interfaces(self) -> tuple[Interface, ...]:
        """See Agent.interfaces."""
        ...


@dataclass(frozen=True)
class Ready:
    """A guest that is ready. `addresses` are CIDR text, `ssh_host_keys` public key lines, without comments.

    `boot_seconds` is the guest's uptime when it was seen to be ready; `instance` the seed's instance that it applied.
    """

    hostname: str
    addresses: tuple[str, ...]
    ssh_host_keys: tuple[str, ...]
    machine_id: str
    boot_seconds: float
    instance: str
    warnings: tuple[str, ...] = ()


def wait_ready(
    agent: Asked,
    *,
    timeout: float,
    domain_alive: Callable[[], bool],
    agent_failed: Callable[[], bool] = lambda: False,
    instance: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
    cancel: threading.Event | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Ready:
    """Wait until the guest is ready; `progress` gets the stage whenever it changes.

    With `instance`, a guest that has applied another seed than this one is an error. `sleep` waits for `cancel` unless
    another is given. `agent_failed` tells whether the console says that there will be no agent; it is asked now and
    then. Raises GuestError: the VM stopped, cloud-init failed (with the lines of its logs that say why), there is no
    cloud-init, or no agent, or `timeout` seconds have passed (with the stage that was reached). Raises Cancelled.
    """
    pause_for = sleep or (cancel.wait if cancel else time.sleep)
    looked = clock()
    deadline = looked + timeout
    boot = Boot("")
    for pause in pauses(0.2, 2.0):
        _go_on(cancel, domain_alive, boot.stage)
        before, boot = boot, _look(agent, boot)
        if boot.stage != before.stage:
            progress(boot.stage)
        if boot.finished or boot.problem:
            with suppress(AgentSilent):  # restarted just now, as packages do
                return _finish(agent, boot, instance)
        now = clock()
        if boot.stage == _SILENT and now - looked >= _CONSOLE_SECONDS:
            looked = now
            if agent_failed():
                raise GuestError("the guest agent could not be installed in the guest", why="its console says so",
                                 todo="the image needs qemu-guest-agent, or a network from which its package can be "
                                      "installed")
        if (left := deadline - now) <= 0:
            break
        pause_for(min(pause, left))
    raise _late(timeout, boot)


def _go_on(cancel: threading.Event | None, domain_alive: Callable[[], bool], stage: str) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped waiting for the guest")
    if not domain_alive():
        raise GuestError("the VM stopped before it was ready", why=f"the last that was seen: {stage or 'nothing yet'}",
                         todo="the last lines of its console say more")


def _look(agent: Asked, before: Boot) -> Boot:
    """How far the guest is now. An agent that is silent again was restarted, or the guest is busy: not a step back."""
    try:
        return judge(agent.exec(["sh", "-c", PROBE], timeout=_COMMAND_TIMEOUT).stdout)
    except AgentSilent:
        return before if before.stage else Boot(_SILENT)
    except AgentRefused as error:  # the seed lifts that early in the first boot
        return Boot("the agent answers, but may not run commands yet", errors=(str(error.todo),))
    except GuestError:
        return before if before.stage else Boot("the agent answers, but not as it should")


def _finish(agent: Asked, boot: Boot, instance: str | None) -> Ready:
    if boot.problem:
        raise boot.problem
    if boot.errors:
        raise GuestError("cloud-init failed in the guest", why="\n".join([*boot.errors, *_reasons(agent)]),
                         todo="set it right in the spec and rebuild the VM, or log in and read /var/log/cloud-init.log")
    if instance is not None and boot.instance != instance:
        raise GuestError("the guest has applied another seed than its own",
                         why=f"it says it is instance {boot.instance or 'nothing'}, and should be {instance}",
                         todo="see that the VM has its seed disk, and no other disk with the label CIDATA")
    return _facts(agent, boot)


def _reasons(agent: Asked) -> tuple[str, ...]:
    """The log lines that say why; none when the logs cannot be read, for the errors themselves matter more."""
    try:
        log, output = (agent.exec(["tail", "-c", str(_LOG_BYTES), path]).stdout for path in LOGS)
    except GuestError:
        return ()
    return telling_lines(log, output)


def _facts(agent: Asked, boot: Boot) -> Ready:
    said = sections(agent.exec(["sh", "-c", _FACTS], timeout=_COMMAND_TIMEOUT).stdout)
    keys = [line.split()[:2] for line in said.get("keys", "").splitlines()]
    return Ready(
        hostname=said.get("hostname", ""),
        addresses=tuple(address for link in agent.interfaces() for address in link.addresses if _reachable(address)),
        ssh_host_keys=tuple(" ".join(key) for key in keys if len(key) == 2),
        machine_id=said.get("machine", ""),
        boot_seconds=float(said.get("uptime") or 0),
        instance=boot.instance,
        warnings=boot.warnings,
    )


def _reachable(address: str) -> bool:
    ip = ip_interface(address).ip
    return not (ip.is_loopback or ip.is_link_local)


def _late(timeout: float, boot: Boot) -> GuestError:
    silent = boot.stage == _SILENT
    todo = ("see its console; the image needs qemu-guest-agent, or a network from which its package can be installed"
            if silent else "see its console, or give it more time: ready_timeout")
    return GuestError(f"the guest was not ready within {timeout:.0f} s",
                      why=f"it got this far: {boot.stage}", todo="\n".join([*boot.errors, todo]))
