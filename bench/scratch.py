"""A cloud of the bench's own on this machine's libvirt, whole vmwright processes on it, and its removal."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.local.kit import Kit, kit

from bench.measure import Failed, Spent, command, spend

ROOT = Path(__file__).resolve().parents[1]
SOURCES = str(ROOT / "src")
LOCK = "/run/vmwright/lock"
_BUSY = "another vmwright is at work"


def vmwright() -> list[str]:
    """The command as a user has it, beside this interpreter; else the module."""
    script = Path(sys.executable).with_name("vmwright")
    return [str(script)] if script.exists() else [sys.executable, "-m", "vmwright.cli.main"]


def plain() -> dict[str, str]:
    """The environment in which this checkout is what runs."""
    return {**os.environ, "PYTHONPATH": SOURCES, "COLUMNS": "200"}


@contextmanager
def scratch() -> Iterator[Kit]:
    """An empty cloud; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="vmwright-bench-") as folder, kit(Path(folder)) as cloud:
        yield cloud


def act(cloud: Kit, *words: str) -> Spent:
    """Time one vmwright command on the cloud's file, as a process of its own; anew when another one was at work."""
    argv = [*vmwright(), words[0], "-f", str(cloud.file), *words[1:]]
    while True:
        quiet()
        try:
            return spend(lambda: command(argv, env=cloud.environment, folder=cloud.folder, timeout=1800))
        except Failed as error:
            if _BUSY not in str(error):
                raise
            time.sleep(2)


def quiet() -> None:
    """What was written before is on the disk, and no other apply is at work on this machine."""
    command(["sync"])
    if Path(LOCK).exists():
        command(["flock", "--wait", "900", LOCK, "true"], timeout=1000)


def write(cloud: Kit, vms: Mapping[str, str], *, template: str = "", image: Path | None = None) -> None:
    """The cloud's file with VMs that are not started: name -> how the disk is made (overlay, full)."""
    rows = "".join(
        f"  {name}: {{template: base, firmware: bios, memory: 64M, running: false, copy: {copy}, "
        f"pool: {cloud.name}-pool, network: {cloud.name}-net, address: {cloud.subnet}.{10 + n}}}\n"
        for n, (name, copy) in enumerate(vms.items()))
    disk = template or f"  base: {{image: {image or cloud.blank}, disk: {'2G' if image else '64M'}, firmware: bios}}\n"
    cloud.write(rows or "  {}\n", template=disk)
