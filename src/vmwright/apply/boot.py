"""Handlers: what starts the VMs of a host in order when it boots, and its removal."""

from __future__ import annotations

from vmwright.apply.context import Context
from vmwright.boot.files import SCRIPT_PATH, UNIT
from vmwright.plan.host_actions import RemoveStartOrder, WriteStartOrder


def write_start_order(action: WriteStartOrder, context: Context) -> None:
    """List and script first: a host that boots in the middle finds a unit with nothing missing, or none."""
    for file in action.files:
        context.host.write(file.path, file.text.encode(), mode=0o755 if file.path == SCRIPT_PATH else 0o644)
    context.host.run(["systemctl", "daemon-reload"])
    context.host.run(["systemctl", "enable", "--quiet", UNIT])


def remove_start_order(action: RemoveStartOrder, context: Context) -> None:
    """The list first, the unit next: what is left when this is cut off does nothing, and is found by the next plan.

    Whatever the unit is just doing is ended: VMs that it has started run on.
    """
    if action.unit and context.facts.boot.systemd:
        context.host.run(["systemctl", "stop", UNIT], check=False)  # of a unit that was spoilt by hand it fails
    context.host.remove(*action.paths)
    if action.unit and context.facts.boot.systemd:
        context.host.run(["systemctl", "daemon-reload"])
        context.host.run(["systemctl", "reset-failed", UNIT], check=False)  # it may not be known any more
