"""What is asked before something is changed, what -y answers, and what the help says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.unit.plan.build import WEB, cloud, made
from tests.unit.plan.drives import Drive
from tests.unit.plan.simulate import Machine, all_facts

from vmwright.cli import runs
from vmwright.cli.common import ask, ask_name
from vmwright.cli.main import app
from vmwright.errors import UsageError
from vmwright.plan.actions import DestroyVm, Plan
from vmwright.plan.diff import make_plan, make_rebuild_plan
from vmwright.spec.cloud import Cloud

TWO = "vms: {web-1: {template: base, address: 10.0.0.10}, web-2: {template: base, address: 10.0.0.11}}\n"


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal as standard input; what is written here has been typed there."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        yield ours
    os.close(ours)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No terminal to ask at."""
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


def typed(keyboard: int, *lines: str) -> None:
    """Type these lines."""
    os.write(keyboard, "".join(f"{line}\n" for line in lines).encode())


@pytest.mark.parametrize(("line", "answer"), [("y", True), (" YES ", True), ("n", False), ("", False), ("yup", False)])
def test_a_question(keyboard: int, line: str, answer: bool) -> None:
    typed(keyboard, line)
    assert ask("Apply this?") is answer


def test_the_end_of_input_is_no(keyboard: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-D, twice."""
    os.write(keyboard, b"\x04\x04")
    assert not ask("Apply this?")
    assert not ask_name("vm web: remove it with its disks", "web")
    assert capsys.readouterr().out == (
        "Apply this? [y/N] \nvm web: remove it with its disks: type web to confirm: \n")


@pytest.mark.usefixtures("nobody")
def test_nobody_to_ask() -> None:
    with pytest.raises(UsageError) as caught:
        ask("Apply this?")
    assert str(caught.value) == "there is nobody to ask\n  do:  say -y to do it without a question"
    assert not ask_name("vm web: remove it with its disks", "web")


def destroying(wanted: Cloud, machine: Machine, *names: str) -> Any:
    return runs.destroy_plan(wanted, all_facts(wanted, machine), list(names))


@pytest.mark.parametrize(("name", "todo"), [
    ("wbe-1", "did you mean web-1?"), ("nosuch", "there is: web-1, web-2"), ("old-1", "there is: web-1, web-2")])
def test_destroy_of_an_unknown_vm(name: str, todo: str) -> None:
    """However many right names stand beside it; others' VMs are no suggestion."""
    wanted, machine = cloud(TWO), made(cloud(TWO))
    for names in ([name], ["web-1", name]):
        with pytest.raises(UsageError) as caught:
            destroying(wanted, machine, *names)
        assert caught.value.exit_code == 64
        assert str(caught.value) == (f"there is no vm {name} in the file, and no host has anything of it\n"
                                     f"  do:  {todo}\n       see them: vmwright status")


def test_destroy_where_there_is_no_vm_at_all() -> None:
    with pytest.raises(UsageError) as caught:
        destroying(cloud("vms: {}\n"), Machine(), "web")
    assert caught.value.todo == "there are none yet\nsee them: vmwright status"


def test_destroy_knows_what_is_in_the_file_only_or_on_a_host_only() -> None:
    found = destroying(cloud(WEB), Machine(), "web")
    assert [(kept.object, kept.why) for kept in found.kept] == [("vm web", "is not there")]
    for machine in (made(cloud(WEB)), _volumes_only(), _note_only()):
        (action,) = destroying(cloud("vms: {}\n"), machine, "web").actions
        assert isinstance(action, DestroyVm)


def _volumes_only() -> Machine:
    machine = made(cloud(WEB))
    machine.domains.clear()
    return machine


def _note_only() -> Machine:
    machine = Machine()
    machine.files["/var/lib/vmwright/lab/intents/web.json"] = \
        b'{"cloud": "lab", "object": "web", "operation": "create", "volumes": [], "instance": "i"}'
    return machine


def test_destroy_refuses_the_vm_of_others() -> None:
    """Which is there, so that it is not unknown."""
    theirs = cloud(f"cloud: other\n{WEB}")
    (problem,) = destroying(cloud("vms: {}\n"), made(theirs), "web").refused
    assert problem.what == "vm web was not made by cloud lab, and is not touched"


# ---- what the help says is what is done ----


def help_of(command: str, option: str) -> str:
    """What the help says of an option."""
    group: Any = typer.main.get_command(app)
    return str(next(param.help for param in group.commands[command].params if option in param.opts))


def test_every_command_says_what_its_yes_answers() -> None:
    group: Any = typer.main.get_command(app)
    with_yes = {name for name, command in group.commands.items() if any("--yes" in p.opts for p in command.params)}
    assert with_yes == {"apply", "rebuild", "destroy", "release", "set"}
    assert help_of("release", "-y") == "Do not ask whether to do what the plan shows."
    assert help_of("apply", "-y") == (
        "Do not ask whether to apply the plan. What takes a VM's data is still refused without --confirm NAME, what "
        "cuts the network of a running VM, or of the host, without --allow-cut-off.")
    assert help_of("rebuild", "-y") == \
        "Ask nothing. Else the name of each VM must be typed before its root disk is thrown away."
    assert help_of("destroy", "-y") == \
        "Ask nothing. Else the name of each VM must be typed before it is removed with its disks."
    assert help_of("set", "-y").startswith("With --apply: do not ask whether to apply the plan.")
    assert help_of("apply", "--allow-cut-off") == (
        "Allow what cuts the network of a running VM, or for a moment of the host itself; only -y needs it.")


def allowed(made_plan: Any, command: str, **given: Any) -> bool:
    return runs._allow(made_plan, command, runs.Allowed(**({"yes": False} | given)))


def test_destroy_and_rebuild_ask_for_each_name_and_yes_answers(keyboard: int) -> None:
    wanted, machine = cloud(TWO), made(cloud(TWO))
    names = ["web-1", "web-2"]
    for command, found in (("destroy", destroying(wanted, machine, *names)),
                           ("rebuild", make_rebuild_plan(wanted, all_facts(wanted, machine), names))):
        typed(keyboard, *names)
        assert allowed(found, command), "nothing is left to ask"
        typed(keyboard, "web-1", "y")
        with pytest.raises(UsageError) as caught:
            allowed(found, command)
        assert caught.value.what.startswith("vm web-2: it was not confirmed to ")
        assert caught.value.what.endswith("; nothing was changed")
        assert caught.value.todo == "type its name when asked, or say -y"
        assert not allowed(found, command, yes=True, confirm=names)


def test_apply_refuses_data_and_network_under_yes_unless_an_option_says_so() -> None:
    before, after = cloud(WEB), cloud("networks: {lan: {nat: 10.0.0.0/24}, wan: {bridge: br0, subnet: 10.9.0.0/24}}\n"
                                      "vms: {web: {template: base, nics: [{network: wan, address: 10.9.0.20}]}}\n")
    machine = made(before)
    cutting = make_plan(after, all_facts(after, machine))
    with pytest.raises(UsageError, match="vm web: this cuts the network of a running VM; nothing was changed"):
        allowed(cutting, "apply", yes=True)
    assert not allowed(cutting, "apply", yes=True, cut_off=True)
    assert not allowed(cutting, "apply"), "the question whether to apply is left"
    gone = destroying(cloud("vms: {}\n"), machine, "web")
    with pytest.raises(UsageError) as caught:
        allowed(gone, "apply", yes=True)
    assert caught.value.todo == "type its name when asked, or say --confirm web"
    assert not allowed(gone, "apply", yes=True, confirm=["web"])


@pytest.mark.usefixtures("nobody")
def test_a_wipe_is_confirmed_by_name() -> None:
    """Of a new VM, of one that is rebuilt, and of one that gets a device."""
    head = "hosts: {here: {pools: {images: {dir: /srv/images}}, devices: {n1: {serial: S1}}}}\nvms:\n"
    row = "  web: {template: base, memory: 1G, address: 10.0.0.10, devices: %s}\n"
    wiped, none = cloud(head + row % "{n1: wipe}"), cloud(head + row % "[]")
    machine = Machine(drives={"0000:05:00.0": Drive("S1")})

    def asked(plan: Plan) -> str:
        with pytest.raises(UsageError) as caught:
            allowed(plan, "apply", yes=True)
        assert allowed(plan, "apply", yes=True, confirm=("web",)) is False
        return caught.value.what

    assert asked(make_plan(wiped, all_facts(wiped, machine))) == (
        "vm web: it was not confirmed to wipe n1; nothing was changed")
    made(none, machine)
    assert asked(make_plan(wiped, all_facts(wiped, machine))) == (
        "vm web: it was not confirmed to wipe n1; nothing was changed")
    made(wiped, machine)
    assert asked(make_rebuild_plan(wiped, all_facts(wiped, machine), ["web"])) == (
        "vm web: it was not confirmed to throw away its root disk and wipe n1; nothing was changed")
