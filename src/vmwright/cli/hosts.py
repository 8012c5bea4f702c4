"""Commands on hosts: doctor."""

from __future__ import annotations

from pathlib import Path

import typer

from vmwright.cli.common import DEFAULT_FILE, File, Json, load_cloud, print_lines, with_images

# By the worst that was found; 2 is kept for `plan --exit-code`, 3 to 8 are those of errors.
EXIT_FAIL, EXIT_WARN = 1, 9


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(doctor)


def doctor(file: File = DEFAULT_FILE, json: Json = False) -> None:
    """What will not work on the hosts, why it matters for the file, and what to do. Without a file: on this machine."""
    from json import dumps

    from vmwright.doctor.check import Verdict
    from vmwright.doctor.examine import worst
    from vmwright.doctor.visit import reports, visit
    from vmwright.report.doctor import doctor_data, doctor_lines
    from vmwright.session import Sessions
    from vmwright.spec.cloud import Cloud, HostSpec

    wanted = file != DEFAULT_FILE or Path(file).exists()
    cloud = with_images(load_cloud(file))[0] if wanted else Cloud("none", (HostSpec("local", "local"),), (), (), (), ())
    with Sessions(cloud.hosts) as sessions:
        found = reports(cloud, visit(cloud, sessions), wanted=wanted)
    if json:
        typer.echo(dumps(doctor_data(found), indent=2))
    else:
        print_lines(doctor_lines(found))
    code = {Verdict.FAIL: EXIT_FAIL, Verdict.WARN: EXIT_WARN}.get(worst(check for one in found for check in one.checks))
    if code:
        raise typer.Exit(code)
