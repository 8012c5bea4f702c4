"""Drivers: vmwright with a fault arranged, for tests of picking up again. See forks.py.

Steps are calls to libvirt, commands and files written on the host, counted from the moment the plan begins to be
carried out.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmwright.apply import execute
from vmwright.host.local import LocalHost
from vmwright.virt.connect import Connection


def kill() -> None:
    """SIGKILL to this process right after step $KILL_AFTER. Beyond the last step: a whole run."""
    limit = int(os.environ["KILL_AFTER"])
    steps = _Steps(lambda step: os.kill(os.getpid(), signal.SIGKILL) if step >= limit else None)
    for owner, name in ((Connection, "_call"), (LocalHost, "run"), (LocalHost, "write")):
        setattr(owner, name, steps.counting(getattr(owner, name)))
    execute._walk = steps.beginning(execute._walk)


def fill() -> None:
    """Fill the file system of $FILL (a file to be made) when the plan begins to be carried out."""
    steps = _Steps(lambda _: None, begin=lambda: _fill(Path(os.environ["FILL"])))
    execute._walk = steps.beginning(execute._walk)


def _fill(path: Path) -> None:
    """Take blocks, in ever smaller pieces, until none are free; the last of them by writing."""
    with path.open("wb", buffering=0) as file:
        end, size = 0, 1 << 30
        while size >= 1 << 12:
            try:
                os.posix_fallocate(file.fileno(), end, size)
                end += size
            except OSError:
                size >>= 1
        with suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass


class _Steps:
    """Calls `reached` after each step since the beginning."""

    def __init__(self, reached: Callable[[int], object], *, begin: Callable[[], object] = lambda: None) -> None:
        self._reached, self._begin, self._lock = reached, begin, threading.Lock()
        self._count = -1  # not begun

    def counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **values: Any) -> Any:
            result = function(*args, **values)
            with self._lock:
                if self._count >= 0:
                    self._count += 1
                    self._reached(self._count)
            return result

        return counted

    def beginning(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def begun(*args: Any, **values: Any) -> Any:
            self._begin()
            self._count = 0
            return function(*args, **values)

        return begun
