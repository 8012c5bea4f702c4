"""One start of a rack's QEMU, and the wait until one can log in. A hang or a crash on the way is recognised."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vmwright.errors import Cancelled, HostError, VmwrightError
from vmwright.host import daemon
from vmwright.host.run import run
from vmwright.rack import machine, qmp, record
from vmwright.rack.record import Record
from vmwright.rack.seed import SSH_CONFIG

Progress = Callable[[str, float | None], None]

QEMU_LOG, LOG = "qemu.log", "rack.log"
ATTEMPTS = 2
_LONGEST = 900.0  # seconds from power to log in, on a very busy machine
# It hangs when it says nothing on its console and reads from no disk for so long: in seconds of the CPUs, as a busy
# machine gives it few, and the longest silence of a boot, between GRUB and the initramfs, takes about 25 of them. Or in
# seconds of the clock, when it does nothing at all.
_SILENT_CPU, _SILENT_IDLE, _IDLE_CPU = 120.0, 120.0, 3.0
_LOOK = 1.0
_LOGIN_SECONDS = 60.0


class Failed(Exception):
    """A start that did not end in a log in; the message says why. `hopeless`: another try would end the same."""

    def __init__(self, why: str, *, hopeless: bool = False) -> None:
        super().__init__(why)
        self.hopeless = hopeless


@dataclass
class _Signs:
    """Signs of life, and when the last one was seen: on the clock, and in CPU time that QEMU had had by then."""

    console: int = 0
    reads: int = 0
    seen: float = 0.0
    cpu: float = 0.0

    def hang(self, now: float, cpu: float) -> bool:
        """Whether it has been silent for too long."""
        return cpu - self.cpu > _SILENT_CPU or (now - self.seen > _SILENT_IDLE and cpu - self.cpu < _IDLE_CPU)


def boot(rack: Record, made: machine.Machine, tell: Progress, cancel: threading.Event) -> Record:
    """Start it, a second time if need be; the record of the running rack. Raises HostError, Cancelled.

    What failed is killed: a QEMU that hangs must not keep the ports and files.
    """
    reasons: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        console = rack.folder / machine.CONSOLE
        _mark(console, attempt)
        try:
            return _attempt(rack, made, tell, cancel)
        except Failed as error:
            reasons.append(f"start {attempt}: {error}")
            note(rack, reasons[-1])
            if error.hopeless:
                break
            if attempt < ATTEMPTS:
                tell(f"the rack did not come up: {error}; trying once more", None)
    raise HostError(f"rack {rack.name} did not come up", why="\n".join([*reasons, *_tail(console)]),
                    todo=f"its console: {console}\nwhat QEMU said: {rack.folder / QEMU_LOG}\n"
                         f"fresh disks: vmwright rack reset {rack.name}")


def note(rack: Record, text: str) -> None:
    """Keep a line in the rack's log."""
    with (rack.folder / LOG).open("a") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")


def _mark(console: Path, attempt: int) -> None:
    """The console's log is of this start; the last one's is kept beside it."""
    if console.exists():
        console.replace(console.with_suffix(".log.1"))
    console.write_text(f"-- start {attempt} at {time.strftime('%Y-%m-%dT%H:%M:%S%z')} --\n")


def _attempt(rack: Record, made: machine.Machine, tell: Progress, cancel: threading.Event) -> Record:
    began = time.monotonic()
    log = rack.folder / QEMU_LOG
    said_before = log.stat().st_size if log.exists() else 0
    process = daemon.start(machine.argv(made), folder=rack.folder, log=log)
    running = record.write(replace(rack, process=process, kvm=made.kvm, boot_seconds=None))
    note(rack, f"QEMU started, process {process.pid}, {'KVM' if made.kvm else 'emulation'}")
    try:
        _await(running, process, began, said_before, tell, cancel)
        seconds = round(time.monotonic() - began, 1)
        note(rack, f"logged in after {seconds} s")
        return record.write(replace(running, boot_seconds=seconds))
    except BaseException:
        daemon.kill(process)
        daemon.wait(process, 10.0)
        record.write(replace(running, process=None))
        raise


def _await(rack: Record, process: daemon.Process, began: float, said_before: int, tell: Progress,
           cancel: threading.Event) -> None:
    signs = _Signs(seen=began)
    while True:
        if cancel.wait(_LOOK):
            raise Cancelled(f"stopped: rack {rack.name} is off")
        if not daemon.alive(process):
            raise _crash(rack.folder / QEMU_LOG, said_before, time.monotonic() - began)
        if answers(rack.port) and _log_in(rack):
            return
        now, cpu = time.monotonic(), daemon.cpu_seconds(process)
        _look(rack.folder, signs, now, cpu)
        tell(f"starting the rack  {now - began:.0f} s", min(0.95, (now - began) / 90))
        if signs.hang(now, cpu):
            raise Failed(f"it hung: nothing on the console and no disk read for {now - signs.seen:.0f} s, in which it "
                         f"had {cpu - signs.cpu:.0f} s of CPU time")
        if now - began > _LONGEST:
            raise Failed(f"nobody could log in within {_LONGEST:.0f} s")


def _look(folder: Path, signs: _Signs, now: float, cpu: float) -> None:
    """See whether the console or a disk has moved."""
    console = (folder / machine.CONSOLE).stat().st_size
    try:
        stats = qmp.ask(folder / machine.QMP, "query-blockstats", seconds=5.0)
        reads = sum(disk["stats"]["rd_operations"] for disk in stats)
    except VmwrightError:  # not yet, or too busy to say
        reads = signs.reads
    if (console, reads) != (signs.console, signs.reads):
        signs.console, signs.reads, signs.seen, signs.cpu = console, reads, now, cpu


def _crash(log: Path, said_before: int, seconds: float) -> Failed:
    """QEMU ended: its last words. What it refuses at once it would refuse again."""
    said = log.read_bytes()[said_before:].decode(errors="replace")
    lines = [line for line in said.splitlines() if line.strip() and "warning:" not in line]
    words = " / ".join(lines[-3:]) or "without a word"
    refused = any(line.startswith(machine.QEMU) and "Assertion" not in line for line in lines)
    return Failed(f"QEMU ended after {seconds:.0f} s: {words}", hopeless=refused)


def _tail(console: Path) -> list[str]:
    lines = console.read_bytes()[-4000:].decode(errors="replace").replace("\r", "").splitlines()
    printable = ["".join(letter for letter in line if letter.isprintable()) for line in lines]
    return ["the end of its console:", *[line for line in printable if line.strip()][-5:]]


def answers(port: int, seconds: float = 2.0) -> bool:
    """Whether an ssh server greets at a loopback port. QEMU itself takes the call before the rack does."""
    try:
        with socket.create_connection(("127.0.0.1", port), seconds) as line:
            line.settimeout(seconds)
            return line.recv(4) == b"SSH-"
    except OSError:
        return False


def _log_in(rack: Record) -> bool:
    done = run(ssh_argv(rack, ["true"]), check=False, timeout=_LOGIN_SECONDS)
    return done.code == 0


def ssh_argv(rack: Record, command: list[str] | None = None) -> list[str]:
    """The command that logs in to a rack, or runs a command there (as ssh does: its words are joined with spaces)."""
    batch = ["-o", "BatchMode=yes"] if command else []
    return ["ssh", "-F", str(rack.folder / SSH_CONFIG), *batch, rack.name, *(["--", *command] if command else [])]
