"""What several commands share: the file, the facts, the console, questions."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmwright.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from vmwright.facts.model import Facts
    from vmwright.plan.actions import Plan
    from vmwright.session import Sessions
    from vmwright.spec.cloud import Cloud

DEFAULT_FILE = "cloud.yaml"
_DETAIL = 4  # spaces before what is said of the line above


def _vm_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names for shell completion; silent when the file is not right."""
    try:
        cloud = load_cloud(context.params.get("file") or DEFAULT_FILE)
    except Exception:  # completion has nowhere to say an error
        return []
    return [vm.name for vm in cloud.vms if vm.name.startswith(incomplete)]


File = Annotated[str, typer.Option("-f", "--file", help="The cloud's file.")]
Names = Annotated[list[str], typer.Argument(help="Names of VMs.", autocompletion=_vm_names)]
Name = Annotated[str, typer.Argument(help="Name of a VM.", autocompletion=_vm_names)]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
FactsFile = Annotated[str, typer.Option("--facts", help="Plan against facts saved by `vmwright facts --json`.")]


def console(*, error: bool = False) -> Console:
    """The terminal, or the pipe."""
    from rich.console import Console

    return Console(stderr=error, highlight=False, markup=False, emoji=False)


def load_cloud(file: str) -> Cloud:
    """The cloud of a file. Raises SpecError."""
    from vmwright.spec.load import load

    if file == DEFAULT_FILE and not Path(file).exists():
        raise UsageError(f"there is no {DEFAULT_FILE} here",
                         todo="name your file with -f FILE, or start one: vmwright init")
    return load(file)


def with_images(cloud: Cloud) -> tuple[Cloud, list[str]]:
    """The cloud with the sums of its local image files filled in; they are part of the templates' versions."""
    from vmwright.image.fetch import local_sha256
    from vmwright.spec.cloud import ImageSource
    from vmwright.state import State

    images = [t.source.location for t in cloud.templates if isinstance(t.source, ImageSource)]
    wanted = {location for location in images if "://" not in location and Path(location).is_file()}
    if not wanted:
        return cloud, []
    from vmwright.spec.version import with_image_sums

    cache = str(State.of(cloud.name).cache)
    return with_image_sums(cloud, {path: local_sha256(path, cache) for path in sorted(wanted)}), sorted(wanted)


def read_facts(cloud: Cloud, sessions: Sessions, *, disks: bool = False, devices: bool = False) -> Facts:
    """The facts of all hosts of the cloud; with `disks` and `devices`, theirs whatever the file says."""
    from vmwright.facts.gather import gather

    return gather(cloud, sessions, disks=disks, devices=devices)


def unknown_vm(name: str, known: Collection[str], where: str = "in the file") -> UsageError:
    """The error of a VM that is not there, with the nearest name, or with those that are."""
    from vmwright.spec.findings import nearest

    return UsageError(f"there is no vm {name} {where}",
                      todo=f"{nearest(name, known) or 'there are none yet'}\nsee them: vmwright status")


def refuse_if_refused(plan: Plan) -> None:
    """Raise PlanRefused when something stands in the way."""
    from vmwright.errors import PlanRefused

    if plan.refused:
        raise PlanRefused(plan.refused)


def print_lines(lines: Iterable[object]) -> None:
    """Lines of text, styled on a terminal, never cut. There, the rest of a long detail stands below its beginning."""
    out = console()
    for line in lines:
        for part in _hanging(line, out.width) if out.is_terminal else [line]:
            out.print(part, soft_wrap=True)


def _hanging(line: object, width: int) -> list[object]:
    """A line of details in parts that fit; any other line as it is."""
    plain = getattr(line, "plain", "")
    indent = len(plain) - len(plain.lstrip())
    if indent < _DETAIL or "\n" in plain or len(plain) <= width:
        return [line]
    from rich.text import Text

    style = line.style if isinstance(line, Text) else ""
    rows = textwrap.wrap(plain.strip(), max(20, width - indent), break_long_words=False, break_on_hyphens=False)
    return [Text(" " * indent + row, style=style) for row in rows]


def ask(question: str) -> bool:
    """Yes or no; no terminal means that nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", todo="say -y to do it without a question")
    return _answer(f"{question} [y/N] ").lower() in ("y", "yes")


def ask_name(what: str, name: str) -> bool:
    """A question that only the name itself answers: for what takes data."""
    if not sys.stdin.isatty():
        return False
    return _answer(f"{what}: type {name} to confirm: ") == name


def _answer(question: str) -> str:
    """What is typed; nothing when the input ends (Ctrl-D)."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""
