"""Commands on VMs: status, start, stop, console, ssh."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vmwright.cli.common import (
    DEFAULT_FILE,
    File,
    Json,
    Name,
    Names,
    load_cloud,
    print_lines,
    read_facts,
    unknown_vm,
    with_images,
)
from vmwright.cli.runs import Wait, carry_out, known_vms
from vmwright.errors import GuestError, UsageError

if TYPE_CHECKING:
    from vmwright.facts.model import Facts
    from vmwright.session import Session, Sessions
    from vmwright.spec.cloud import Cloud, VmSpec
    from vmwright.state import State


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(status)
    app.command()(start)
    app.command()(stop)
    app.command("console")(console_)
    # What stands after the VM's name is the guest's, options and all.
    own = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
    app.command(context_settings=own)(ssh)


def status(file: File = DEFAULT_FILE, json: Json = False) -> None:
    """Every VM: state, address, template, and what differs from the file."""
    from vmwright.plan.diff import make_plan
    from vmwright.report.status import status_data, status_lines
    from vmwright.session import Sessions

    cloud, _ = with_images(load_cloud(file))
    with Sessions(cloud.hosts) as sessions:
        found = read_facts(cloud, sessions)
        made = make_plan(cloud, found)
        answers = _ping_all(cloud, found, sessions)
    if json:
        import json as encoder

        typer.echo(encoder.dumps(status_data(cloud, found, made, answers), indent=2))
        return
    print_lines(status_lines(cloud, found, made, answers))


def _ping_all(cloud: Cloud, found: Facts, sessions: Sessions) -> dict[str, bool]:
    """Which running VMs' guest agents answer; all are asked at once."""
    from concurrent.futures import ThreadPoolExecutor

    from vmwright.facts.model import DomainState

    running = [(host.name, d.name) for host in found.hosts for d in host.domains
               if d.state is DomainState.RUNNING and d.persistent.owner and d.persistent.owner.cloud == cloud.name]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda row: _answers(sessions[row[0]], row[1]), running)
        return {name: answer for (_, name), answer in zip(running, answers, strict=True)}


def _answers(session: Session, name: str) -> bool:
    try:
        session.virt.agent(name)('{"execute":"guest-ping"}', 3)
    except GuestError:
        return False
    return True


def start(names: Names, file: File = DEFAULT_FILE, wait: Wait = 0.0) -> None:
    """Start VMs and wait until they are ready."""
    from vmwright.plan.power import make_start_plan

    known_vms(file, names)
    carry_out(file, lambda cloud, found: make_start_plan(cloud, found, names), command="start", yes=True, confirm=[],
              wait=wait)


def stop(
    names: Names,
    file: File = DEFAULT_FILE,
    force: Annotated[
        bool, typer.Option("--force", help="Pull the plug when the guest has not powered off in time.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long a guest may take.")] = 120.0,
    wait: Wait = 0.0,
) -> None:
    """Ask VMs to power off, and wait until they have."""
    from vmwright.plan.power import make_stop_plan

    known_vms(file, names)
    carry_out(file, lambda cloud, found: make_stop_plan(cloud, found, names, patience=timeout, force=force),
              command="stop", yes=True, confirm=[], wait=wait)


def console_(name: Name, file: File = DEFAULT_FILE) -> None:
    """A VM's serial console. Leave it with Ctrl-]."""
    from vmwright.session import Sessions
    from vmwright.virt.design import serial_log

    cloud = load_cloud(file)
    vm = _vm(cloud, name)
    if not sys.stdin.isatty():
        raise UsageError("a console needs a terminal", todo="run it in one, or see what it said so far, on the "
                         f"host: {serial_log(name)}")
    with Sessions(cloud.hosts) as sessions:
        host = sessions[vm.host].host
        raise typer.Exit(host.interactive(["virsh", "-c", "qemu:///system", "console", name, "--force"]))


def ssh(
    context: typer.Context,
    name: Name,
    file: File = DEFAULT_FILE,
    user: Annotated[
        str, typer.Option("-l", "--user", help="The user inside the guest; else the first one of the VM.")
    ] = "",
) -> None:
    """Log in to a VM; words after its name are run there."""
    from vmwright.guest.login import login_argv
    from vmwright.host.run import attach
    from vmwright.session import Sessions
    from vmwright.state import State

    cloud = load_cloud(file)
    vm = _vm(cloud, name)
    state = State.of(cloud.name)
    with Sessions(cloud.hosts) as sessions:
        session = sessions[vm.host]
        address = next((str(nic.address.ip) for nic in vm.nics if nic.address), "") or _ask_address(session, name)
        _know(session, state, vm, address)
        chosen = user or (vm.guest.users[0].name if vm.guest.users else "root")
        argv = login_argv(vm, chosen, address, state.known_hosts, jump=_jump(cloud, vm, session),
                          command=context.args[1:] if context.args[:1] == ["--"] else context.args)
    raise typer.Exit(attach(argv))


def _know(session: Session, state: State, vm: VmSpec, address: str) -> None:
    """Read the guest's host keys from inside it, when this machine does not have them."""
    from vmwright.guest.agent import Agent
    from vmwright.guest.login import host_keys

    known = state.known_hosts.read_text().splitlines() if state.known_hosts.exists() else []
    if any(line.startswith(f"{vm.name},") for line in known):
        return
    state.remember_guest(vm.name, [address], host_keys(Agent(session.virt.agent(vm.name))))


def _ask_address(session: Session, name: str) -> str:
    from vmwright.guest.agent import Agent
    from vmwright.guest.login import addresses

    found = addresses(Agent(session.virt.agent(name)))
    if not found:
        raise GuestError(f"vm {name} has no address yet", todo=f"look at its console: vmwright console {name}")
    return found[0]


def _jump(cloud: Cloud, vm: VmSpec, session: Session) -> str | None:
    """A guest behind a remote host's NAT is reached through that host."""
    from vmwright.host.ssh import SshHost

    network = next((n for n in cloud.networks if vm.nics and n.name == vm.nics[0].network), None)
    if network is None or not network.nat or not isinstance(session.host, SshHost):
        return None
    return str(session.host.target)


def _vm(cloud: Cloud, name: str) -> VmSpec:
    vm = cloud.vm(name)
    if vm is None:
        raise unknown_vm(name, [vm.name for vm in cloud.vms])
    return vm


