"""Plans as text and as JSON, whole, beside files that say how they should look; and nothing secret in them.

Write the files anew with VMWRIGHT_GOLDEN=write, then read the difference before you commit it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.plan.build import cloud, made, plan, vm
from tests.unit.plan.simulate import Machine, all_facts

from vmwright.errors import Problem
from vmwright.facts.model import Kvm
from vmwright.plan.action import Action, Change, Effect, Sign
from vmwright.plan.actions import CreatePool, Kept, Plan, Tidy
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.report.data import plan_data
from vmwright.report.text import action_lines, mark, plan_lines, summary
from vmwright.spec.cloud import Pool

GOLDEN = Path(__file__).parent / "golden"
BEFORE = """
vms:
  web: {count: 3, template: base, memory: 1G, address: 10.0.0.10}
  db: {template: base, vcpus: 2, memory: 4G, address: 10.0.0.20, disk: 8G, disks: {data: {size: 4G, mount: /srv}}}
  old: {template: base, address: 10.0.0.30}
"""
AFTER = """
networks: {lan: {nat: 10.0.0.0/24}, wan: {bridge: br0, subnet: 10.9.0.0/24}}
vms:
  web: {count: 3, template: base, vcpus: 2, memory: 2G, address: 10.0.0.10, network: lan, packages: [vim]}
  db: {template: base, vcpus: 2, memory: 4G, nics: [{network: wan, address: 10.9.0.20}], disk: 12G,
       disks: {logs: {size: 4G, mount: /srv}}, autostart: true}
  new: {template: base, copy: full, address: 10.0.0.40, network: lan}
"""
HOSTS = """
hosts:
  one: {pools: {images: {dir: /srv/images}}}
  two: {connect: 'ssh://root@two', pools: {images: {dir: /srv/images}}}
vms: {a: {template: base, host: one, address: 10.0.0.10}, b: {template: base, host: two, address: 10.0.0.11}}
"""


def two_hosts() -> Plan:
    wanted = cloud(HOSTS)
    hosts = tuple(Machine(name).facts(wanted) for name in ("one", "two"))
    return make_plan(wanted, replace(all_facts(wanted, Machine("one")), hosts=hosts))


def rebuilt() -> Plan:
    machine = made(cloud(BEFORE))
    return make_rebuild_plan(cloud(BEFORE), all_facts(cloud(BEFORE), machine), ["db"])


def destroyed() -> Plan:
    machine = made(cloud(BEFORE))
    return make_destroy_plan(cloud(BEFORE), all_facts(cloud(BEFORE), machine), ["web-1", "old", "nobody"])


CASES: dict[str, tuple[Callable[[], Plan], bool]] = {
    "first": (lambda: plan(cloud(BEFORE), Machine(kvm=Kvm.BROKEN)), False),
    "nothing": (lambda: plan(cloud(BEFORE), made(cloud(BEFORE))), False),
    "nothing-verbose": (lambda: plan(cloud(BEFORE), made(cloud(BEFORE))), True),
    "changes": (lambda: plan(cloud(AFTER), made(cloud(BEFORE))), False),
    "prune-restart": (lambda: plan(cloud(AFTER), made(cloud(BEFORE)), prune=True, restart=True), True),
    "refused": (lambda: plan(cloud(vm(disk="2G").replace("2G", "5G")), made(cloud(vm(disk="8G")))), False),
    "rebuild": (rebuilt, False),
    "destroy": (destroyed, False),
    "two-hosts": (two_hosts, False),
}


def golden(name: str, text: str) -> None:
    """The text must be that of the file, but for what others decide: a template's version, how large a seed is."""
    for version in {template.version for file in (BEFORE, AFTER, HOSTS, vm()) for template in cloud(file).templates}:
        text = text.replace(version, "0123456789ab")
    text, path = re.sub(r"(seed\.iso\W+(?:old\W+)?)\d+K", r"\g<1>70K", text), GOLDEN / name
    if os.environ.get("VMWRIGHT_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs: if that is meant, write it anew with VMWRIGHT_GOLDEN=write"


@pytest.mark.parametrize("name", CASES)
def test_a_plan_reads_as_the_golden_file_says(name: str) -> None:
    make, verbose = CASES[name]
    lines = [line.plain for line in plan_lines(make(), verbose=verbose)]
    golden(f"{name}.txt", "".join(f"{line}\n" for line in lines))
    assert all(line == line.rstrip() for line in lines)
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("name", ["changes", "refused"])
def test_a_plan_as_json_is_as_the_golden_file_says(name: str) -> None:
    golden(f"{name}.json", json.dumps(plan_data(CASES[name][0]()), indent=1) + "\n")


def test_every_golden_file_has_a_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.txt" for name in CASES} | {
        "changes.json", "refused.json"}


@pytest.mark.parametrize("name", CASES)
def test_the_same_things_are_in_text_and_json(name: str) -> None:
    found = CASES[name][0]()
    text = "\n".join(line.plain for line in plan_lines(found, verbose=True))
    data = plan_data(found)
    assert json.loads(json.dumps(data)) == data
    assert data["empty"] == found.empty
    for action in data["actions"]:
        assert action["why"] in text and action["object"] in text
        for change in action["changes"]:
            assert change["key"] in text and change["old"] in text and change["new"] in text
    for kept in (*data["kept"], *data["unlisted"]):
        assert kept["object"] in text and kept["why"] in text
    assert sum(data["counts"].values()) == len(data["actions"])


def test_nothing_secret_is_in_a_plan(tmp_path: Path) -> None:
    """Neither in the text, nor in JSON, nor in what a traceback would show of its actions."""
    secret = "$6$saltsalt$" + "q" * 86
    (tmp_path / "hash").write_text(secret)
    text = vm(write_files="[{path: /etc/token, content: hunter2}]", runcmd="['echo hunter2']")
    wanted = cloud(f"users: {{admin: {{password_hash_file: {tmp_path}/hash, sudo: password}}}}\n" + text)
    assert wanted.vms[0].guest.users[0].password_hash == secret
    for found in (plan(wanted, Machine()), plan(wanted, made(cloud()))):
        assert found.actions
        told = json.dumps(plan_data(found)) + "\n".join(line.plain for line in plan_lines(found, verbose=True))
        assert secret not in told + repr(found)
        assert "hunter2" not in told


def step(**given: object) -> Action:
    """A pool to make, with other values where given."""
    plain = {"host": "h", "why": "because", "pool": Pool("p", "h", "/p")}
    return CreatePool(**(plain | given))  # type: ignore[arg-type]


@pytest.mark.parametrize(("sign", "effects", "shown"), [
    (Sign.ADD, set(), Sign.ADD), (Sign.CHANGE, {Effect.STOPS}, Sign.CHANGE),
    (Sign.CHANGE, {Effect.NEXT_START}, Sign.CHANGE),
    (Sign.CHANGE, {Effect.CUTS_OFF}, Sign.WARN), (Sign.ADD, {Effect.TAKES_DATA}, Sign.WARN),
    (Sign.REMOVE, {Effect.TAKES_DATA}, Sign.REMOVE)])
def test_what_takes_data_or_cuts_off_is_marked(sign: Sign, effects: set[Effect], shown: Sign) -> None:
    assert mark(step(sign=sign, effects=frozenset(effects))) is shown


def test_costs_are_told_in_one_order() -> None:
    line = next(action_lines(step(effects=frozenset({Effect.CUTS_OFF, Effect.TAKES_DATA, Effect.STOPS}))))
    assert line.plain == "! pool p  create  because  ! stops the VM, takes data, cuts the network"


def test_what_is_new_is_on_one_line_and_what_changes_on_one_each() -> None:
    def rows(*changes: Change) -> list[str]:
        return [line.plain for line in action_lines(step(changes=changes))][1:]

    assert rows() == []
    assert rows(Change("a", "", "1"), Change("b", "", "2")) == ["      a 1, b 2"]
    assert rows(Change("a", "", "1, 2"), Change("b", "", "2")) == ["      a 1, 2; b 2"]
    assert rows(Change("a", "", "1"), Change("long", "1", "22", "now")) == [
        "      a     new: 1", "      long  1 -> 22  now"]
    assert rows(Change("a", "", "1", "now")) == ["      a  new: 1  now"]


def test_one_long_name_does_not_push_all_others_aside() -> None:
    actions = (step(), Tidy(host="h", why="because", name="x" * 80, operation="template"))
    lines = [line.plain for line in plan_lines(Plan("lab", actions=actions))]
    assert lines[0] == f"+ {'pool p':<44}  create  because"
    assert lines[1] == f"~ leftover {'x' * 80}  tidy    because"


@pytest.mark.parametrize(("found", "text"), [
    (Plan("lab"), "Nothing to do: everything is as the file says."),
    (Plan("lab", actions=(step(),)), "1 to add."),
    (Plan("lab", actions=(step(sign=Sign.WARN), step(sign=Sign.REMOVE), step(sign=Sign.CHANGE))),
     "2 to change, 1 to remove."),
    (Plan("lab", actions=(step(sign=Sign.CHANGE, effects=frozenset({Effect.STOPS})),)),
     "1 to change. ! stops the VM: pool p."),
    (Plan("lab", actions=(step(effects=frozenset({Effect.NEXT_START})),)), "1 to add."),
])
def test_the_last_line_counts_and_names_what_it_costs(found: Plan, text: str) -> None:
    assert summary(found) == text


def test_a_plan_for_single_vms_does_not_speak_for_the_whole_file() -> None:
    kept = (Kept("h", "vm web", "is not there"),)
    lines = [line.plain for line in plan_lines(Plan("lab", kept=kept), whole=False)]
    assert lines == ["  vm web  is not there", "", "Nothing to do."]


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("chosen", [*itertools.product([False, True], repeat=5)], ids=str)
def test_one_empty_line_between_the_parts_and_none_at_either_end(chosen: tuple[bool, ...], verbose: bool) -> None:
    """Whatever parts there are."""
    warned, acts, left, kept, refused = chosen
    found = Plan(
        "lab", warnings=("one", "two") if warned else (), actions=(step(),) if acts else (),
        unlisted=(Kept("h", "vm old", "is no longer in the file"),) if left else (),
        kept=(Kept("h", "vm a", "is as the file says"),) if kept else (), refused=(Problem("no"),) if refused else ())
    text = "\n".join(line.plain for line in plan_lines(found, verbose=verbose))
    shown = kept and (verbose or not (acts or refused))
    assert len(re.split(r"(?<=\S)\n\n(?=[ \S])", text)) == 1 + warned + acts + left + shown
    assert "\n\n\n" not in text and text[0] != "\n" and text[-1] != "\n"


def test_many_that_it_costs_something_are_not_all_named() -> None:
    pools = [step(pool=Pool(f"p{n}", "h", "/p"), effects=frozenset({Effect.TAKES_DATA})) for n in range(7)]
    assert summary(Plan("lab", actions=tuple(pools))) == (
        "7 to add. ! takes data: pool p0, pool p1, pool p2, pool p3, pool p4 and 2 more.")


def test_vms_as_asked_are_gathered_in_one_line_but_not_those_with_something_to_say() -> None:
    kept = (Kept("h", "vm a", "is as the file says"), Kept("h", "vm b", "is as the file says, but runs"),
            Kept("h", "vm c", "is as the file says"))
    lines = [line.plain for line in plan_lines(Plan("lab", kept=kept))]
    assert lines[:2] == ["  vm b   is as the file says, but runs", "  2 VMs  are as the file says"]
    assert len([line for line in plan_lines(Plan("lab", kept=kept), verbose=True) if "vm " in line.plain]) == 3
