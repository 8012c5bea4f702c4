"""What the tests of the rack share: racks in a state folder of their own, commands in them, and their removal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from vmwright.rack import boot, private, process, record
from vmwright.rack.record import Record

_PORTS, _RACKS = 23000, 20  # the first port of the first worker, and how many each has
SOURCES = Path(__file__).resolve().parents[2] / "src"


def say(text: str, _share: float | None) -> None:
    """Progress, for who runs pytest -s."""
    print(text, file=sys.stderr)


def up(name: str, wish: process.Wish | None = None) -> Record:
    """Bring a rack up. Where tests run side by side, each worker's racks have ports of their own."""
    wish, worker = wish or process.Wish(), os.environ.get("PYTEST_XDIST_WORKER")
    if worker and record.read(name) is None:
        first = _PORTS + _RACKS * int(worker.removeprefix("gw"))
        taken = {rack.port for rack in record.everyone()}
        wish = replace(wish, port=next(port for port in range(first, first + _RACKS) if port not in taken))
    return process.up(name, wish, tell=say)


def sh(rack: Record, script: str, *, check: bool = True) -> str:
    """What a shell script prints in a rack."""
    done = subprocess.run(process.ssh_argv(rack, ["sh", "-eu"]), input=script.encode(), capture_output=True,
                          timeout=300)
    assert done.returncode == 0 or not check, done.stderr.decode()
    return done.stdout.decode().strip()


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    """vmwright rack ..., as a user calls it."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-m", "vmwright.cli.main", "rack", *words], env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200)


def boot_id(rack: Record) -> str:
    """Which boot of the rack this is; empty while nobody can log in."""
    return sh(rack, "cat /proc/sys/kernel/random/boot_id", check=False) if boot.answers(rack.port) else ""


def await_reboot(rack: Record, before: str, seconds: float = 900) -> None:
    """Wait until it is another boot than `before`, or fail with the console's end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if boot_id(rack) not in ("", before):
            return
        time.sleep(2)
    raise AssertionError((rack.folder / "console.log").read_bytes()[-2000:].decode(errors="replace"))


def remove_all() -> None:
    """No rack of this state folder is left, nor its process."""
    for rack in record.everyone():
        process.pull_plug(rack)
    private.end()
