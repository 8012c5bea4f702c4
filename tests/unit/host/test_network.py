"""The script that takes a change of the network back: a shell accepts it, and each set-up has its steps."""

from __future__ import annotations

import subprocess

import pytest

from vmwright.host import network
from vmwright.host.network import Managed

CALL = ("sh", "-c", '. /dev/stdin; "$0"')
TOOLS = ("netplan", "ifup", "ifdown", "nmcli")


def said(script: str, function: str) -> list[str]:
    """What one of the two functions runs: every command is one that only tells what it was asked for."""
    tools = "".join(f"{name}() {{ echo {name} $*; [ $1 != fail ]; }}\n" for name in TOOLS)
    done = subprocess.run([*CALL, function], input=f"{tools}{script}", capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_shell_accepts_the_guard() -> None:
    subprocess.run(["sh", "-n"], input=network.GUARD, text=True, check=True)


@pytest.mark.parametrize(("manager", "leave", "apply", "leave_back", "apply_back"), [
    ("netplan", [], ["netplan apply"], [], ["netplan apply"]),
    ("ifupdown", ["ifdown --force br0", "ifdown --force eno1"], ["ifup eno1", "ifup br0"],
     ["ifdown --force br0", "ifdown --force eno1"], ["ifup eno1", "ifup br0"]),
    ("NetworkManager", [],
     ["nmcli connection reload", "nmcli --wait 30 connection up id vmwright-br0",
      "nmcli --wait 30 connection up id vmwright-br0-port"],
     ["nmcli --wait 10 connection down id vmwright-br0-port", "nmcli --wait 10 connection down id vmwright-br0"],
     ["nmcli connection reload", "nmcli --wait 30 connection up uuid u-1"]),
])
def test_the_steps_there_and_back(manager: str, leave: list[str], apply: list[str], leave_back: list[str],
                                  apply_back: list[str]) -> None:
    forth, back = network.steps([Managed(manager, ("br0",), ("eno1",))], ["u-1"])
    assert (said(forth.script(), "leave"), said(forth.script(), "apply")) == (leave, apply)
    assert (said(back.script(), "leave"), said(back.script(), "apply")) == (leave_back, apply_back)


def test_a_step_that_fails_is_told_after_the_others() -> None:
    steps = network.Steps((("ifup", "fail"), ("ifup", "a")), (("ifup", "fail"), ("ifup", "b")))
    assert said(steps.script(), "leave") == ["ifup fail", "ifup a"], "what cannot be left is no reason to stop"
    tools = "ifup() { [ $1 != fail ]; }\n"
    done = subprocess.run([*CALL, "apply"], input=tools + steps.script(), text=True)
    assert done.returncode == 1


def test_several_set_ups_at_once() -> None:
    forth, _ = network.steps([Managed("netplan", ("br0",), ("eno1",)), Managed("ifupdown", ("br1",), ("eno2",))], [])
    assert said(forth.script(), "apply") == ["netplan apply", "ifup eno2", "ifup br1"]
