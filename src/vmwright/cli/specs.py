"""Commands on the file: init, check, set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmwright.cli.common import DEFAULT_FILE, File, console, load_cloud
from vmwright.cli.runs import Wait, apply_file
from vmwright.errors import UsageError, VmwrightError


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(init)
    app.command()(check)
    app.command("set")(set_)


def init(
    file: Annotated[str, typer.Argument(help="The file to write.")] = DEFAULT_FILE,
    cloud: Annotated[str, typer.Option(help="The cloud's name.")] = "",
    connect: Annotated[str, typer.Option(help="The host: local, or ssh://user@host[:port].")] = "local",
) -> None:
    """Write a commented starter file, filled in from the host's facts."""
    from vmwright.cli.starter import starter

    if Path(file).exists():
        raise UsageError(f"{file} is there already", todo="name another file, or edit this one")
    text = starter(cloud, connect)
    Path(file).write_text(text, encoding="utf-8")
    load_cloud(file)  # what we write must be right
    console().print(f"Wrote {file}. Look at it, then: vmwright plan -f {file}", soft_wrap=True)


def check(
    file: File = DEFAULT_FILE,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file, for editors.")] = False,
) -> None:
    """Is the file right? Needs no host."""
    if schema:
        import json

        from vmwright.spec.model import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        return
    cloud = load_cloud(file)
    for warning in (*cloud.warnings, *cloud.missing):
        typer.echo(f"! {warning}")
    for note in cloud.not_yet:
        typer.echo(f"! {note.where}: {note.key}: right, but not yet applied by this version")
    counts = ((len(cloud.hosts), "host"), (len(cloud.templates), "template"), (len(cloud.vms), "VM"))
    counted = ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts)
    typer.echo(f"{file}: right. Cloud {cloud.name}: {counted}.")


def set_(
    assignment: Annotated[str, typer.Argument(metavar="PATH=VALUE", help="For example vms.z-dev.disk=32G")],
    file: File = DEFAULT_FILE,
    apply: Annotated[bool, typer.Option("--apply", help="Apply the file afterwards.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help=(
        "With --apply: do not ask whether to apply the plan. What takes a VM's data or cuts its network is refused "
        "then; `vmwright apply` has options for it."))] = False,
    wait: Wait = 0.0,
) -> None:
    """Change one value in the file; comments and layout stay."""
    from vmwright.spec.edit import set_value

    path, separator, value = assignment.partition("=")
    if not separator or not path:
        raise UsageError(f"{assignment!r} is not PATH=VALUE", todo="write it like vms.z-dev.disk=32G")
    edit = set_value(file, path, value)
    typer.echo(edit.describe())
    if apply:
        typer.echo()
        _apply(file, yes=yes, wait=wait)


def _apply(file: str, *, yes: bool, wait: float) -> None:
    """Apply a file that has just been changed. Whatever stands in the way of that, the change is in the file."""
    try:
        apply_file(file, yes=yes, wait=wait)
    except VmwrightError as error:
        named = "" if file == DEFAULT_FILE else f" -f {file}"
        error.add_note(f"{file} has the new value, and what it asks for is not done, or not all of it: apply it with "
                       f"`vmwright apply{named}`, or set the old value again")
        raise
