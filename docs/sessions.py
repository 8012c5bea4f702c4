"""The shell sessions that pages show: the commands run for real, on a host that the tests' simulator keeps.

A page whose first line is "<!-- session -->" has sessions. Its blocks are taken in order. A yaml block right after the
comment "file: cloud.yaml" is that file from then on, one right after "made" is what init writes. In a console block
each line with "$ vmwright ..." is run, and what it prints stands below it. The comments "applied", "rebuilt" and
"destroyed" (with names) say what the reader has done by then: the simulator does it, too, by the real plan and the real
handlers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.unit.plan.build import public_key
from tests.unit.plan.places import small
from tests.unit.plan.simulate import Machine, all_facts, carry_out, use
from typer.testing import CliRunner

from vmwright.cli import starter
from vmwright.cli.main import app
from vmwright.errors import VmwrightError
from vmwright.facts.model import Facts, LinkFacts
from vmwright.facts.store import dumps
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.plan.view import Request
from vmwright.report.data import plan_data
from vmwright.spec.cloud import Cloud, HostSpec
from vmwright.spec.load import load
from vmwright.units import GIB

_BLOCK = re.compile(
    r"<!-- (?P<word>file|made|applied|rebuilt|destroyed)(?:: (?P<of>[^>]*?))? -->\n(?:```yaml\n(?P<yaml>.*?)```\n)?"
    r"|```console\n(?P<console>.*?)```\n", re.DOTALL)
_MARK = "<!-- session -->"


def pages(docs: Path) -> list[Path]:
    """The pages that have sessions."""
    return [path for path in sorted(docs.rglob("*.md")) if path.read_text(encoding="utf-8").startswith(_MARK)]


def refreshed(page: Path) -> str:
    """The page, with what its commands print now."""
    return refresh(page.read_text(encoding="utf-8"))


def refresh(text: str) -> str:
    """A page's text, with what its commands print now."""
    with tempfile.TemporaryDirectory() as folder, _in(Path(folder)):
        key = Path(folder) / ".ssh" / "id_ed25519.pub"
        key.parent.mkdir()
        key.write_text(public_key() + "\n", encoding="utf-8")
        links = (LinkFacts("lo", "loopback", ("127.0.0.1/8",), True),
                 LinkFacts("eno1", "ethernet", ("192.168.6.200/24",), True))
        machine = replace(small(cores=4, threads=2, nodes=2, memory=16 * GIB), name="local", free=200 * GIB,
                          links=links)
        return _BLOCK.sub(lambda found: _block(found, machine), text)


def plan_example() -> str:
    """The JSON of a small plan: a running VM is to have a second CPU."""
    with tempfile.TemporaryDirectory() as folder, _in(Path(folder)):
        machine = Machine(name="local")
        for vcpus in (1, 2):
            Path("cloud.yaml").write_text(_EXAMPLE.format(vcpus=vcpus, key=public_key()), encoding="utf-8")
            if vcpus == 1:
                _do("applied", [], machine)
        return json.dumps(plan_data(make_plan(load("cloud.yaml"), _facts(machine))), indent=2)


_EXAMPLE = """\
cloud: lab
hosts: {{local: {{pools: {{vms: {{dir: /var/lib/libvirt/vms}}}}}}}}
users: {{admin: {{ssh_keys: {key}}}}}
templates: {{debian: {{build: debian}}}}
vms: {{web: {{template: debian, vcpus: {vcpus}, address: 192.168.122.10}}}}
"""


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    """In that directory, which is home, too."""
    before, home = Path.cwd(), os.environ.get("HOME")
    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if home is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = home


def _block(found: re.Match[str], machine: Machine) -> str:
    word, of = found["word"], found["of"] or ""
    if found["console"] is not None:
        return "```console\n" + "".join(_ran(line, machine) for line in found["console"].splitlines()
                                        if line.startswith("$ ")) + "```\n"
    if word == "made":
        Path("cloud.yaml").write_text(_starter(machine), encoding="utf-8")
        return f"<!-- made -->\n```yaml\n{_starter(machine)}```\n"
    if word == "file":
        Path("cloud.yaml").write_text(found["yaml"], encoding="utf-8")
    else:
        _do(word, of.split(), machine)
    return found[0]


def _starter(machine: Machine) -> str:
    """What `vmwright init --cloud lab` writes on this host."""
    empty = Cloud("none", (HostSpec(machine.name, "local"),), (), (), (), ())
    return starter.render("lab", "local", machine.facts(empty), "~/.ssh/id_ed25519.pub", key_there=True)


def _do(word: str, names: list[str], machine: Machine) -> None:
    cloud = load("cloud.yaml")
    facts = all_facts(cloud, machine)
    made = {"applied": lambda: make_plan(cloud, facts, Request(prune="prune" in names, restart="restart" in names)),
            "rebuilt": lambda: make_rebuild_plan(cloud, facts, names),
            "destroyed": lambda: make_destroy_plan(cloud, facts, names)}[word]()
    failed = carry_out(made, cloud, machine)
    if failed:
        raise AssertionError(f"{word}: {failed[0].object} failed")
    use(machine)


def _ran(line: str, machine: Machine) -> str:
    """The line, and what its command prints."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if words[0] != "vmwright":
        raise AssertionError(f"only vmwright is run here: {line}")
    argv = words[1:]
    if argv[0] == "plan" and "--facts" not in argv:
        Path("facts.json").write_text(dumps(_facts(machine)), encoding="utf-8")
        argv += ["--facts", "facts.json"]
    result = CliRunner().invoke(app, argv)
    said = result.output
    if isinstance(result.exception, VmwrightError):
        said += f"error: {result.exception}\n"
    elif result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return f"{line}\n" + "".join(f"{row.rstrip()}\n" for row in said.splitlines())


def _facts(machine: Machine) -> Facts:
    return all_facts(load("cloud.yaml"), machine)
