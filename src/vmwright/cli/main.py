"""The command line: `vmwright COMMAND`. Heavy modules are imported by the command that needs them: help is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated, cast

import typer

from vmwright import __version__
from vmwright.cli import hosts, rack, runs, specs, vms
from vmwright.errors import Bug, Cancelled, UsageError, VmwrightError

# pydantic would look through every installed distribution for plugins of its own: 25 ms, for what nobody here uses.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# What typer raises for an option, argument or command that is not right; where the class stands depends on its version.
_WRONG_LINE = cast(type[typer.BadParameter], typer.BadParameter.__base__)
_READER_GONE = 141  # 128 + SIGPIPE, as a shell says it

app = typer.Typer(
    name="vmwright", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Bare KVM hosts to a private cloud, from one YAML file.",
    context_settings={"help_option_names": ["-h", "--help"]})
for module in (specs, runs, vms, hosts, rack):
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
    """The entry point. An error ends with its words and the exit code of its class, never with a traceback."""
    try:
        app()
    except VmwrightError as error:
        print("\n".join([f"error: {error}", *(f"note: {note}" for note in getattr(error, "__notes__", ()))]),
              file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        sys.exit(_code(end))
    except Exception as error:
        bug = _bug(error)
        print(f"error: {bug}", file=sys.stderr)
        sys.exit(bug.exit_code)


def _code(end: SystemExit) -> int | str | None:
    """The exit code that the reference gives. Typer (and rich, for a closed pipe) say why they end by what they handle.

    Their own codes are in use for something else: 2 by `plan --exit-code`, 1 and 9 by `doctor`.
    """
    why = end.__context__
    if isinstance(why, _WRONG_LINE):
        return UsageError.exit_code
    if why is not None and isinstance(why.__cause__, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        return Cancelled.exit_code
    return _READER_GONE if isinstance(why, BrokenPipeError) else end.code


def _bug(error: Exception) -> Bug:
    """What nobody foresaw: its traceback goes into a file for whoever mends it."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="vmwright-bug-", suffix=".txt", delete=False) as file:
        file.write(f"vmwright {__version__}: {sys.argv}\n{''.join(traceback.format_exception(error))}")
    return Bug(f"this is a bug in vmwright: {type(error).__name__}: {error}", why=f"traceback: {file.name}",
               todo="please report it with that file")


if __name__ == "__main__":
    main()
