"""The ssh command that logs in to a guest: user, address and host key are known, so nothing is asked."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface
from pathlib import Path

from vmwright.guest.agent import Agent, must
from vmwright.spec.cloud import VmSpec


def login_argv(vm: VmSpec, user: str, address: str, known_hosts: Path, *, jump: str | None = None,
               command: Sequence[str] = ()) -> list[str]:
    """argv of ssh. Only host keys that were read from inside the guest are accepted, under the VM's name."""
    options = [f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null", f"HostKeyAlias={vm.name}",
               "StrictHostKeyChecking=yes", "ServerAliveInterval=15"]
    argv = ["ssh", *identities(vm, user), *(word for option in options for word in ("-o", option))]
    return [*argv, *(["-J", jump] if jump else []), "-l", user, "--", address, *command]


def identities(vm: VmSpec, user: str) -> list[str]:
    """-i for each private key that lies beside a public key file of the user; ssh tries the agent's keys, too."""
    files = (Path(file) for known in vm.guest.users if known.name == user for file in known.key_files)
    private = [file.with_suffix("") for file in files if file.suffix == ".pub"]
    return [word for key in private if key.is_file() for word in ("-i", str(key))]


def host_keys(agent: Agent) -> list[str]:
    """The guest's SSH host keys, public key lines, read from inside it."""
    return must(agent, ["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).splitlines()


def addresses(agent: Agent) -> list[str]:
    """The guest's addresses that others can reach, IPv4 first."""
    found = [ip_interface(address).ip for link in agent.interfaces() for address in link.addresses]
    return [str(ip) for ip in sorted(found, key=lambda ip: ip.version) if not (ip.is_loopback or ip.is_link_local)]
