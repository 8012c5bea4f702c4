"""Commands on hosts: doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vmwright.cli.common import DEFAULT_FILE, File, console, load_cloud
from vmwright.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmwright.doctor import Check
    from vmwright.session import Session
    from vmwright.spec.cloud import Cloud


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(doctor)


def doctor(file: File = DEFAULT_FILE) -> None:
    """What will not work on the hosts, and what to do about it. Without a file: on this machine."""
    from vmwright.doctor import Verdict
    from vmwright.session import Sessions
    from vmwright.spec.cloud import Cloud, HostSpec

    there = file != DEFAULT_FILE or Path(file).exists()
    cloud = load_cloud(file) if there else Cloud("none", (HostSpec("local", "local"),), (), (), (), ())
    out = console()
    failed = False
    with Sessions(cloud.hosts) as sessions:
        for session in sessions:
            out.print(f"host {session.spec.name} ({session.host.address})", style="bold")
            for check in _examine(session, cloud, there):
                failed = failed or check.verdict is Verdict.FAIL
                style = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}[check.verdict]
                out.print(f"  {check.verdict:<4}  {check.what}", style=style, soft_wrap=True)
                if check.todo:
                    out.print(f"        do: {check.todo}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _examine(session: Session, cloud: Cloud, there: bool) -> Iterable[Check]:
    from vmwright.doctor import Check, Verdict, checks
    from vmwright.facts.gather import gather_host

    try:
        facts = gather_host(cloud, session)
    except HostError as error:
        return [Check(Verdict.FAIL, error.what + (f" ({error.why})" if error.why else ""), error.todo)]
    return checks(facts, cloud if there else None)
