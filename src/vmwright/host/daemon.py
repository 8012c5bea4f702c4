"""Processes that outlive us: started detached, and told apart from strangers that were given their number later."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmwright.errors import HostError
from vmwright.host.run import await_end, environment

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STARTED: list[subprocess.Popen[bytes]] = []  # by this process: only their parent can lay them to rest


@dataclass(frozen=True)
class Process:
    """A process on this machine: its number, when it was started (in ticks since boot), and the boot it belongs to."""

    pid: int
    started: int
    boot: str


def start(argv: Sequence[str], *, folder: Path, log: Path) -> Process:
    """Start a command in a session of its own, in `folder`, with both outputs going to the end of `log`."""
    with log.open("ab") as out:
        try:
            child = subprocess.Popen(list(argv), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                     env=environment(), start_new_session=True)
        except FileNotFoundError as error:
            raise HostError(f"{argv[0]} is not installed here",
                            todo=f"install the package that has {argv[0]}") from error
    _STARTED.append(child)
    return Process(child.pid, _started(child.pid) or 0, _boot())


def alive(process: Process) -> bool:
    """Whether that very process runs."""
    for child in list(_STARTED):
        if child.poll() is not None:
            _STARTED.remove(child)
    return process.boot == _boot() and process.started == _started(process.pid)


def wait(process: Process, seconds: float) -> bool:
    """Whether it ends within so many seconds."""
    handle = _handle(process)
    if handle is not None:
        await_end(handle, seconds)
    return not alive(process)


def kill(process: Process) -> None:
    """End it at once, as a power cut would. A stranger with its number is left alone."""
    if (handle := _handle(process)) is not None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def cpu_seconds(process: Process) -> float:
    """The CPU time that it has had so far, in seconds; 0 when it is gone."""
    fields = _stat(process.pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields and alive(process) else 0.0


def _handle(process: Process) -> int | None:
    """A descriptor of the process; None when it is gone. Looked at again after it was opened: it is no stranger's."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return None
    if alive(process):
        return handle
    os.close(handle)
    return None


def _started(pid: int) -> int | None:
    """When a process was started; None when there is none, or it waits to be laid to rest.

    Its first thread may have ended before the others; until they have, its files and ports are in use.
    """
    fields = _stat(pid)
    return None if fields is None or (fields[0] in "ZX" and int(fields[17]) <= 1) else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """What the kernel tells of a process, from its state on: fields 3 and up of proc(5), stat."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _boot() -> str:
    return _BOOT.read_text().strip()
