"""Clouds and facts for the tests of the plan: spec files as text, hosts as the simulator makes them."""

from __future__ import annotations

import base64
import textwrap
from dataclasses import replace
from functools import cache
from typing import Any

from tests.unit.plan.simulate import Machine, all_facts, carry_out, use

from vmwright.facts.model import Facts, HostFacts
from vmwright.plan.action import Action
from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_plan
from vmwright.plan.view import Request
from vmwright.spec.cloud import Cloud
from vmwright.spec.load import load_with

HEAD = """\
cloud: lab
hosts: {here: {pools: {images: {dir: /srv/images}}}}
networks: {lan: {nat: 10.0.0.0/24}}
users: {admin: {ssh_keys: [KEY]}}
templates: {base: {build: debian, disk: 4G}}
"""
WEB = "vms: {web: {template: base, vcpus: 1, memory: 1G, address: 10.0.0.10}}\n"


def public_key() -> str:
    """The text of a public key, well formed, of nobody."""
    name = b"ssh-ed25519"
    return "ssh-ed25519 " + base64.b64encode(
        len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes(32)).decode()


@cache
def cloud(text: str = WEB, head: str = HEAD) -> Cloud:
    """The cloud of a file: this text behind the head. A section that the text has is taken out of the head."""
    text = textwrap.dedent(text)
    kept = [line for line in head.splitlines() if f"\n{line.split(':')[0]}:" not in f"\n{text}"]
    content = "\n".join([*kept, text]).replace("KEY", public_key()).encode()
    return load_with("cloud.yaml", lambda path: content)


def vm(**given: Any) -> str:
    """The section of one VM, web, with other values where given (YAML flow text)."""
    plain = {"template": "base", "vcpus": 1, "memory": "1G", "address": "10.0.0.10"}
    return f"vms: {{web: {{{', '.join(f'{key}: {value}' for key, value in (plain | given).items())}}}}}\n"


def made(wanted: Cloud, machine: Machine | None = None) -> Machine:
    """A machine on which that cloud has been applied, and its guests have been at work."""
    machine = machine or Machine()
    assert not carry_out(plan(wanted, machine), wanted, machine)
    use(machine)
    return machine


def plan(wanted: Cloud, machine: Machine, **request: Any) -> Plan:
    """The plan of a cloud on a machine."""
    return make_plan(wanted, all_facts(wanted, machine), Request(**request))


def facts(wanted: Cloud, machine: Machine, **changed: Any) -> Facts:
    """The facts of a machine, with some of the host's values changed."""
    return Facts((replace(machine.facts(wanted), **changed),))


def host(wanted: Cloud, machine: Machine) -> HostFacts:
    """The facts of the one host."""
    return machine.facts(wanted)


def told(found: Plan) -> list[str]:
    """The actions of a plan in short: "+ vm web: create"."""
    return [f"{action.sign} {action.object}: {action.verb}" for action in found.actions]


def changes(action: Action) -> list[str]:
    """The changes of an action in short: "vcpus: 1 -> 2 (now)"."""
    return [f"{c.key}: {c.old + ' -> ' if c.old else ''}{c.new}{f' ({c.when})' if c.when else ''}"
            for c in action.changes]


def refused(found: Plan) -> list[str]:
    """What stands in the way, as the user reads it; without places."""
    return [f"{problem.what}\n    {problem.todo}" for problem in found.refused]


def only(found: Plan) -> Action:
    """The one action of a plan."""
    assert len(found.actions) == 1, told(found)
    return found.actions[0]
