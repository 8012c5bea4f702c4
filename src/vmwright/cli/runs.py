"""Commands that plan and apply: facts, plan, apply, rebuild, destroy, log."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmwright.cli.common import (
    DEFAULT_FILE,
    FactsFile,
    File,
    Json,
    Names,
    ask,
    ask_name,
    console,
    load_cloud,
    print_lines,
    read_facts,
    refuse_if_refused,
    unknown_vm,
    with_images,
)
from vmwright.errors import ApplyError, UsageError

if TYPE_CHECKING:
    from vmwright.facts.model import Facts
    from vmwright.plan.action import Action
    from vmwright.plan.actions import Plan
    from vmwright.session import Sessions
    from vmwright.spec.cloud import Cloud

Confirm = Annotated[list[str] | None, typer.Option("--confirm", metavar="NAME", help=(
    "Allow what takes the data of this VM, or of disks for this pool, without a question."))]
CutOff = Annotated[bool, typer.Option("--allow-cut-off", help=(
    "Allow what cuts the network of a running VM, or for a moment of the host itself; only -y needs it."))]
MayReboot = Annotated[bool, typer.Option("--reboot", help=(
    "Reboot hosts that need it, without a question: their VMs are shut down before."))]
Parallel = Annotated[int, typer.Option("--parallel", metavar="N", help="Actions at once on a host (0: from its CPUs).")]
Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help=(
    "How long to wait for another vmwright that is at work on a host. 0: end at once, with 7."))]

ApplyYes = Annotated[bool, typer.Option("-y", "--yes", help=(
    "Do not ask whether to apply the plan. What takes a VM's data is still refused without --confirm NAME, what cuts "
    "the network of a running VM, or of the host, without --allow-cut-off."))]
Wipe = Annotated[list[str] | None, typer.Option("--wipe", metavar="DEVICE", help=(
    "Erase this device of theirs, too, this once, whatever the file says. May be given several times."))]
RebuildYes = Annotated[bool, typer.Option("-y", "--yes", help=(
    "Ask nothing. Else the name of each VM must be typed before its root disk is thrown away."))]
ReleaseYes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask whether to do what the plan shows.")]
DestroyYes = Annotated[bool, typer.Option("-y", "--yes", help=(
    "Ask nothing. Else the name of each VM must be typed before it is removed with its disks."))]


_SAID = {"start": "Done.", "release": "Done: read again, and nothing of vmwright's is left but what was said to stay."}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(facts)
    app.command()(plan)
    app.command()(apply)
    app.command()(rebuild)
    app.command()(destroy)
    app.command()(release)
    app.command()(log)


def facts(
    file: File = DEFAULT_FILE,
    json: Json = False,
    disks: Annotated[bool, typer.Option("--disks", help="With disks and partitions, and what is on them. They are read "
                                                        "anyway where the file has an LVM pool.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help=(
        "With PCI devices, their IOMMU groups and who uses them; disks too. They are read anyway where the file sets "
        "devices aside."))] = False,
) -> None:
    """What is on the hosts: memory, pools, networks, VMs. --json records them."""
    from vmwright.facts.store import dumps
    from vmwright.report.facts import facts_lines
    from vmwright.session import Sessions

    cloud = load_cloud(file)
    with Sessions(cloud.hosts) as sessions:
        found = read_facts(cloud, sessions, disks=disks, devices=devices)
    if json:
        typer.echo(dumps(found), nl=False)
    else:
        print_lines(facts_lines(found))


def plan(
    file: File = DEFAULT_FILE,
    json: Json = False,
    facts: FactsFile = "",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 2 when there is something to do.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="With what is no longer in the file removed.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="With restarts for what waits for a next start.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="With what is left alone, and why.")] = False,
) -> None:
    """What would change, and why. Changes nothing."""
    from vmwright.facts.store import load as load_facts
    from vmwright.plan.diff import make_plan
    from vmwright.plan.view import Request
    from vmwright.session import Sessions

    cloud, _ = with_images(load_cloud(file))
    if facts:
        found = load_facts(facts)
    else:
        with Sessions(cloud.hosts) as sessions:
            found = read_facts(cloud, sessions)
    _know_hosts(cloud, found)
    made = make_plan(cloud, found, Request(restart=restart, prune=prune))
    _show(made, json=json, verbose=verbose)
    refuse_if_refused(made)
    if exit_code and not made.empty:
        raise typer.Exit(2)


def _know_hosts(cloud: Cloud, found: Facts) -> None:
    there = {host.name for host in found.hosts}
    missing = [host.name for host in cloud.hosts if host.name not in there]
    if missing:
        raise UsageError(f"the facts do not have host {missing[0]}",
                         why=f"they have: {', '.join(sorted(there)) or 'none'}",
                         todo="record them anew: vmwright facts --json")


def _show(made: Plan, *, json: bool = False, verbose: bool = False, whole: bool = True) -> None:
    if json:
        import json as encoder

        from vmwright.report.data import plan_data

        typer.echo(encoder.dumps(plan_data(made), indent=2))
        return
    from vmwright.report.text import plan_lines

    print_lines(plan_lines(made, verbose=verbose, whole=whole))


def apply(
    file: File = DEFAULT_FILE,
    yes: ApplyYes = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what is no longer in the file; each VM is asked for by "
                                                        "name.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Restart VMs for which something waits for a next "
                                                            "start.")] = False,
    confirm: Confirm = None,
    allow_cut_off: CutOff = False,
    reboot: MayReboot = False,
    parallel: Parallel = 0,
    wait: Wait = 0.0,
) -> None:
    """Show the plan, ask, and make it so. Picks up after a fault."""
    apply_file(file, yes=yes, prune=prune, restart=restart, confirm=confirm or [], allow_cut_off=allow_cut_off,
               allow_reboot=reboot, parallel=parallel, wait=wait)


def apply_file(
    file: str, *, yes: bool = False, prune: bool = False, restart: bool = False, confirm: list[str] | None = None,
    allow_cut_off: bool = False, allow_reboot: bool = False, parallel: int = 0, wait: float = 0.0,
) -> None:
    """Plan and apply a file."""
    from vmwright.plan.diff import make_plan
    from vmwright.plan.view import Request

    def planner(cloud: Cloud, found: Facts) -> Plan:
        return make_plan(cloud, found, Request(restart=restart, prune=prune))

    carry_out(file, planner, command="apply", yes=yes, confirm=confirm or [], allow_cut_off=allow_cut_off,
              allow_reboot=allow_reboot, parallel=parallel, wait=wait)


def carry_out(file: str, planner: Callable[[Cloud, Facts], Plan], *, command: str, yes: bool, confirm: list[str],
              allow_cut_off: bool = False, allow_reboot: bool = False, parallel: int = 0, wait: float = 0.0) -> None:
    """Lock, read, plan, show, ask, do, read again and compare; again from the start after hosts have been prepared.

    The hosts are locked from before they are read: a plan is carried out on what it was made from.
    """
    from vmwright.apply.lock import all_locked
    from vmwright.plan.host_actions import Prepare
    from vmwright.session import Sessions

    shown: dict[str, frozenset[Any]] = {}
    while True:
        cloud, _ = with_images(load_cloud(file))
        with Sessions(cloud.hosts) as sessions, all_locked([s.host for s in sessions], wait=wait, tell=_aside):
            found = read_facts(cloud, sessions)
            made = planner(cloud, found)
            known = bool(shown) and all(shown.get(action.id) == action.effects for action in made.actions)
            if not known or made.refused:
                _show(made, whole=command == "apply", verbose=command == "release")
            refuse_if_refused(made)
            if made.empty:
                _say_done(shown)
                return
            if not known:
                allowed = Allowed(yes, tuple(confirm), allow_cut_off, allow_reboot)
                if not _allow(made, command, allowed) and not yes and not ask("Apply this?"):
                    raise UsageError("nothing was changed", todo="")
            _run(cloud, found, replace(made, actions=made.first), sessions, command, parallel)
            if not any(isinstance(action, Prepare) for action in made.actions):
                _verify(cloud, sessions, made, command, planner)
                return
        _say_prepared(made, shown)
        shown = {action.id: action.effects for action in made.actions}


def _say_done(shown: dict[str, frozenset[Any]]) -> None:
    """Say that all is as it should be, where preparing was all there was to do; else the empty plan has said so."""
    if shown:
        console().print("Done: read again, and everything is as the file says.", style="green")


def _aside(text: str) -> None:
    """Say something that is no result."""
    typer.echo(text, err=True)


def _say_prepared(made: Plan, shown: dict[str, frozenset[Any]]) -> None:
    """Raises ApplyError when a host was to be prepared by the same steps twice: they do not come about."""
    again = [action for action in made.first if action.id in shown]
    if again:
        raise ApplyError("what prepares the hosts was done, but read again they are as before",
                         why="\n".join(f"{a.object}: {a.verb} ({a.why})" for a in again),
                         todo="look on the host why it did not help; then apply again")
    console().print("The hosts are prepared; reading them again.", style="green")


@dataclass(frozen=True)
class Allowed:
    """What may be done without a question. `confirm` are names whose data may be taken."""

    yes: bool
    confirm: tuple[str, ...] = ()
    cut_off: bool = False
    reboot: bool = False


def _allow(made: Plan, command: str, allowed: Allowed) -> bool:
    """What takes data or reboots is asked for by name, what cuts the network by an option, even under -y.

    Returns whether a name was typed for every action that is there: then there is nothing left to ask.
    """
    from vmwright.plan.action import Effect
    from vmwright.plan.host_actions import Prepare

    typed = 0
    for action in made.actions:
        name, verb = _at_stake(action)
        if Effect.TAKES_DATA in action.effects and name not in allowed.confirm:
            if allowed.yes or not ask_name(f"{action.object}: {verb}", name):
                option = f"--confirm {name}" if command == "apply" else "-y"
                raise UsageError(f"{action.object}: it was not confirmed to {verb}; nothing was changed",
                                 todo=f"type its name when asked, or say {option}")
            typed += 1
        if Effect.CUTS_OFF in action.effects and not allowed.cut_off and allowed.yes:
            whose = "the host itself, for a moment" if isinstance(action, Prepare) else "a running VM"
            raise UsageError(f"{action.object}: this cuts the network of {whose}; nothing was changed",
                             todo="say --allow-cut-off with -y, or apply without -y and look")
        if Effect.REBOOTS in action.effects and not allowed.reboot:
            if allowed.yes or not ask_name(f"reboot host {action.host} ({action.why})", action.host):
                raise UsageError(f"host {action.host} has to be rebooted: {action.why}; nothing was changed",
                                 todo="type its name when asked, or say --reboot")
            typed += 1
    return typed == len(made.actions)


def _at_stake(action: Action) -> tuple[str, str]:
    """The name that must be given before an action takes data, and what it does then."""
    from vmwright.plan.actions import CreateGroup, CreateVm, DestroyVm, RebuildVm, UpdateVm, VmAction

    if isinstance(action, CreateGroup):
        disks = ", ".join(disk.path for disk in action.disks if disk.wipe)
        return action.pool.name, f"take {disks} with all that is on it"
    if isinstance(action, CreateVm | UpdateVm):
        given = action.devices if isinstance(action, CreateVm) else action.add_devices
        wiped = [f"wipe {device.name}" for device in given if device.wipe]
        root = ["throw away its root disk"] if isinstance(action, RebuildVm) else []
        return action.vm.name, " and ".join([*root, *wiped])
    name = action.name if isinstance(action, DestroyVm) else action.vm.name if isinstance(action, VmAction) else ""
    return name, "remove it with its disks"


def _run(cloud: Cloud, found: Facts, made: Plan, sessions: Sessions, command: str, parallel: int) -> None:
    from vmwright.apply.execute import Run, execute
    from vmwright.apply.journal import Journal
    from vmwright.report.progress import reporter
    from vmwright.state import State

    state = State.of(cloud.name)
    out = console()
    with Journal(state.journals, command) as journal, _interruptible(out) as cancel, reporter(out) as told:
        outcome = execute(made, Run(cloud, found, sessions, state, journal, told, cancel, parallel))
        error = outcome.error()
        if error:
            raise error


@contextmanager
def _interruptible(out: Any) -> Iterator[threading.Event]:
    """Ctrl-C and TERM ask the run to come to a good end."""
    cancel = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        out.print("\nstopping: what is under way is finished or undone first" if not cancel.is_set() else
                  "still stopping", style="yellow")
        cancel.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verify(cloud: Cloud, sessions: Sessions, made: Plan, command: str,
            planner: Callable[[Cloud, Facts], Plan]) -> None:
    """An action is done when the facts say so. Commands on single VMs answer for what they did."""
    from vmwright.plan.actions import StartVm, VmAction, WaitReady
    from vmwright.plan.diff import make_plan

    if command in ("stop", "destroy"):
        return  # their handlers end when libvirt says so, and the file may well want the VM back
    left = (planner if command == "release" else make_plan)(cloud, read_facts(cloud, sessions))
    if command not in ("apply", "release"):
        touched = {action.vm.name for action in made.actions if isinstance(action, VmAction)}
        # start answers for the start alone
        kinds = (StartVm, WaitReady) if command == "start" else (VmAction,)
        kept = tuple(a for a in left.actions
                     if isinstance(a, VmAction) and isinstance(a, kinds) and a.vm.name in touched)
        left = replace(left, actions=kept, refused=())
    if left.empty and not left.refused and command != "apply":
        said = _SAID.get(command, "Done: read again, and it is as the file says.")
        console().print(said, style="green")
        return
    if left.empty and not left.refused:
        console().print("Done: read again, and everything is as the file says.", style="green")
        return
    differs = [f"{a.object}: {a.verb} ({a.why})" for a in left.actions] + [p.what for p in left.refused]
    raise ApplyError("every action was done, but read again the hosts still differ from the file",
                     why="\n".join(differs), todo="did somebody else change them meanwhile? plan again to see")


def rebuild(names: Names, file: File = DEFAULT_FILE, yes: RebuildYes = False, wipe: Wipe = None,
            parallel: Parallel = 0, wait: Wait = 0.0) -> None:
    """Throw VMs' root disks away and make them anew from their templates. Data disks stay, and what is on devices."""
    from vmwright.plan.diff import make_rebuild_plan

    known_vms(file, names)
    carry_out(file, lambda cloud, found: make_rebuild_plan(cloud, found, names, wipe or ()), command="rebuild", yes=yes,
              confirm=names if yes else [], parallel=parallel, wait=wait)


def destroy(names: Names, file: File = DEFAULT_FILE, yes: DestroyYes = False, wait: Wait = 0.0) -> None:
    """Remove VMs with their disks, seeds, NVRAM and host keys."""
    carry_out(file, lambda cloud, found: destroy_plan(cloud, found, names), command="destroy", yes=yes,
              confirm=names if yes else [], wait=wait)


def release(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the file, by its name there.")],
    file: File = DEFAULT_FILE, yes: ReleaseYes = False, wait: Wait = 0.0,
) -> None:
    """Take everything of vmwright's off a host again; VMs and data stay. `apply` would set it all again."""
    from vmwright.plan.diff import make_release_plan

    names = [spec.name for spec in load_cloud(file).hosts]
    if host not in names:
        raise UsageError(f"there is no host {host} in the file", todo=f"it has: {', '.join(names)}")
    carry_out(file, lambda cloud, found: make_release_plan(cloud, found, host), command="release", yes=yes, confirm=[],
              wait=wait)


def destroy_plan(cloud: Cloud, found: Facts, names: list[str]) -> Plan:
    """The plan that removes these VMs. Raises UsageError for a name that nothing has; others' VMs the plan refuses."""
    from vmwright.plan.diff import make_destroy_plan, removable_vms

    known = removable_vms(cloud, found)
    others = {domain.name for host in found.hosts for domain in host.domains}
    for name in names:
        if name not in known and name not in others:
            raise unknown_vm(name, known, "in the file, and no host has anything of it")
    return make_destroy_plan(cloud, found, names)


def known_vms(file: str, names: list[str]) -> None:
    cloud = load_cloud(file)
    for name in names:
        if cloud.vm(name) is None:
            raise unknown_vm(name, [vm.name for vm in cloud.vms])


def log(
    file: File = DEFAULT_FILE,
    run: Annotated[int, typer.Option("-n", "--run", help="Which run: 1 is the last one, 2 the one before.")] = 1,
    all: Annotated[bool, typer.Option("--all", help="List all runs.")] = False,
) -> None:
    """What earlier runs did, from the journal."""
    from vmwright.apply.journal import read, runs, under_way
    from vmwright.report.log import log_lines, run_line
    from vmwright.state import State

    found = runs(State.of(load_cloud(file).name).journals)
    if not found:
        typer.echo("There is no journal yet: nothing has been applied from this machine.")
        return
    if all:
        numbered = zip(range(len(found), 0, -1), found, strict=True)
        print_lines(run_line(n, list(read(path)), under_way=under_way(path)) for n, path in numbered)
        return
    if not 1 <= run <= len(found):
        raise UsageError(f"there are {len(found)} runs, not {run}", todo="see them with vmwright log --all")
    print_lines(log_lines(list(read(found[-run])), under_way=under_way(found[-run])))


