"""Commands on racks: up, ssh, status, reset, down; and guests small enough for one: micro."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vmwright.cli.common import Json, ask, console, print_lines
from vmwright.errors import UsageError

if TYPE_CHECKING:
    from vmwright.rack.process import Status

_NAME = "rack"  # of a rack when none is given


def _rack_names(incomplete: str) -> list[str]:
    """Names for shell completion."""
    try:
        from vmwright.rack.record import everyone

        return [rack.name for rack in everyone() if rack.name.startswith(incomplete)]
    except Exception:  # completion has nowhere to say an error
        return []


Name = Annotated[str, typer.Argument(metavar="NAME", help="The rack.", autocompletion=_rack_names)]
Accelerator = Annotated[
    Literal["auto", "kvm", "qemu"],
    typer.Option("--accelerator", help="kvm, qemu (emulation), or auto: kvm where guests of guests can use it.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before its disks are thrown away.")]

app = typer.Typer(no_args_is_help=True, help="An emulated two-socket server, to try a whole cloud on.")


def register(main: typer.Typer) -> None:
    """Add these commands."""
    app.command()(up)
    own = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
    app.command(context_settings=own)(ssh)
    app.command()(status)
    app.command()(reset)
    app.command()(down)
    app.command()(micro)
    main.add_typer(app, name="rack")


def up(
    name: Name = _NAME,
    shape: Annotated[str, typer.Option("--shape", metavar="FILE", help="A YAML file with the rack's shape; else the "
                                                                       "reference shape.")] = "",
    image: Annotated[
        Literal["ready", "bare", ""],
        typer.Option("--image", help="What is installed: ready (libvirt, QEMU, LVM) or bare (a plain server). Default: "
                                     "ready, or what the rack has.", show_default=False)] = "",
    accelerator: Accelerator = "auto",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help=(
        "The loopback port for ssh. Default: one that is free, and the same from then on."), show_default=False)] = 0,
    mirror: Annotated[str, typer.Option("--mirror", metavar="URL", help="The Debian mirror for the image; else this "
                                                                        "machine's own.")] = "",
) -> None:
    """Bring a rack up; the first time its host image is built, some minutes."""
    from vmwright.rack import process
    from vmwright.rack import shape as shapes
    from vmwright.rack.contents import Image

    wish = process.Wish(shapes.load(shape) if shape else None, Image(image) if image else None, accelerator,
                        port or None, mirror or None)
    with _teller() as (tell, cancel):
        rack = process.up(name, wish, tell=tell, cancel=cancel)
    print_lines(process.lines(process.status(rack)))


def ssh(context: typer.Context, name: Name = _NAME) -> None:
    """Log in to a rack as root; words after its name are run there."""
    from vmwright.host.run import attach
    from vmwright.rack import process, record

    rack = record.known(name)
    if not process.is_up(rack):
        raise UsageError(f"rack {name} is off", todo=f"bring it up: vmwright rack up {name}")
    raise typer.Exit(attach(process.ssh_argv(rack, context.args)))


def status(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rack; else all.", autocompletion=_rack_names)] = "",
    json: Json = False,
) -> None:
    """Whether racks are up, and how a cloud's file reaches them."""
    from vmwright.rack import process, record

    racks = [record.known(name)] if name else record.everyone()
    found = [process.status(rack) for rack in racks]
    if json:
        import json as encoder

        typer.echo(encoder.dumps([_data(one) for one in found], indent=2))
        return
    if not found:
        typer.echo("There is no rack yet: vmwright rack up")
    for one in found:
        print_lines(process.lines(one))


def _data(found: Status) -> dict[str, Any]:
    from vmwright.rack.seed import SSH_CONFIG

    rack = found.rack
    return {"name": rack.name, "state": found.state, "image": str(rack.disks.image) if rack.disks else None,
            "accelerator": "kvm" if rack.kvm else "qemu", "boot_seconds": rack.boot_seconds,
            "connect": f"ssh://root@127.0.0.1:{rack.port}", "ssh_config": str(rack.folder / SSH_CONFIG),
            "address": rack.address, "folder": str(rack.folder)}


def reset(name: Name = _NAME, accelerator: Accelerator = "auto", yes: Yes = False) -> None:
    """Back to the fresh image, all its drives empty. One that is up comes up again."""
    from vmwright.rack import process, record

    rack = record.known(name)
    _confirm(f"Throw away all that the disks of rack {name} hold?", yes)
    with _teller() as (tell, cancel):
        rack = process.reset(name, accelerator=accelerator, tell=tell, cancel=cancel)
    print_lines(process.lines(process.status(rack)))


def down(
    name: Name = _NAME,
    force: Annotated[
        bool, typer.Option("--force", help="Pull the plug when it has not powered off in time.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.")] = 180.0,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the rack with all its files, too.")] = False,
    yes: Yes = False,
) -> None:
    """Power a rack off, and wait until it is."""
    from vmwright.rack import process, record

    record.known(name)
    if remove:
        _confirm(f"Remove rack {name} with its disks?", yes)
    with _teller() as (tell, cancel):
        was_up = process.down(name, force=force, seconds=timeout, remove=remove, tell=tell, cancel=cancel)
    said = "off" if was_up else "off already"
    typer.echo(f"rack {name}: {'removed' if remove else said}")


def _confirm(question: str, yes: bool) -> None:
    if not yes and not ask(question):
        raise UsageError("nothing was changed", todo="")


@contextmanager
def _teller() -> Iterator[tuple[Any, threading.Event]]:
    """How it goes, on the terminal or as plain lines; and Ctrl-C and TERM, which bring it to a good end."""
    out = console(error=True)
    cancel = threading.Event()
    last = ""

    def stop(_number: int, _frame: object) -> None:
        cancel.set()

    with out.status("", spinner="dots") as live:
        def tell(text: str, share: float | None) -> None:
            nonlocal last
            stage, _, rest = text.partition("  ")
            if share is None and not rest:
                out.print(text, style="dim", soft_wrap=True)
                return
            live.update(f"{text}{f'  {share:.0%}' if share is not None and not rest else ''}")
            if stage != last and not out.is_terminal:
                out.print(stage, style="dim", soft_wrap=True)
            last = stage

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield tell, cancel
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def micro(
    file: Annotated[Path, typer.Argument(metavar="FILE.qcow2", help="Where to put it.")],
    anew: Annotated[bool, typer.Option("--anew", help="Make it again, with the packages that the mirror has now.")]
    = False,
) -> None:
    """Make an image of a guest that is small enough for an emulated server. Takes root, and half a minute."""
    import tempfile

    from vmwright.host.local import LocalHost
    from vmwright.image.micro import build

    with _teller() as (tell, cancel), tempfile.TemporaryDirectory(prefix="vmwright-micro-") as work:
        build(LocalHost("here"), str(file.absolute()), f"{work}/image", progress=tell, cancel=cancel, anew=anew)
    typer.echo(f"wrote {file}; in a cloud's file: templates: {{micro: {{image: {_from_here(file)}, disk: 256M}}}}")


def _from_here(file: Path) -> str:
    return str(file) if file.is_absolute() else f"./{file}"
