"""The command line: `vmwright COMMAND`. Heavy modules are imported by the command that needs them: help is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vmwright import __version__
from vmwright.cli import hosts, runs, specs, vms
from vmwright.errors import VmwrightError

app = typer.Typer(
    name="vmwright", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Bare KVM hosts to a private cloud, from one YAML file.",
    context_settings={"help_option_names": ["-h", "--help"]})
for module in (specs, runs, vms, hosts):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vmwright {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Bare KVM hosts to a private cloud, from one YAML file."""


def main() -> None:
    """The entry point. An error that a user can cause ends with its words and its exit code, never with a traceback."""
    try:
        app()
    except VmwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
