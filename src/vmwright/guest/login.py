"""The ssh command that logs in to a guest: user, address and host key are known, so nothing is asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmwright.spec.cloud import VmSpec


def login_argv(vm: VmSpec, user: str, address: str, known_hosts: Path, *, jump: str | None = None,
               command: Sequence[str] = ()) -> list[str]:
    """argv of ssh. Only host keys that were read from inside the guest are accepted, under the VM's name."""
    options = [f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null", f"HostKeyAlias={vm.name}",
               "StrictHostKeyChecking=yes", "ServerAliveInterval=15"]
    argv = ["ssh", *(word for option in options for word in ("-o", option))]
    return [*argv, *(["-J", jump] if jump else []), "-l", user, "--", address, *command]
