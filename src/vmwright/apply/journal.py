"""The journal: every run's events, a JSON object a line, on disk before the next thing is done."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vmwright.errors import HostError

_BEGINNINGS = ("begin", "started")


class Journal:
    """One run's journal. Safe to write from several threads."""

    def __init__(self, folder: Path, command: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = folder / f"{stamp}-{os.getpid()}.jsonl"
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error
        with suppress(OSError):  # only to tell a run that is under way from one that was cut off
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.write("begin", command=command, pid=os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write("end", outcome="done" if value is None else f"{kind.__name__ if kind else ''}: {value}")
        with suppress(OSError):  # what could not be written before
            self._file.close()

    def write(self, event: str, **values: Any) -> None:
        """Add one event. Values must be JSON; secrets never are among them.

        Raises HostError when the beginning of something cannot be written: then it is not begun. How something ended is
        not worth another failure.
        """
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
        try:
            with self._lock:
                self._file.write(json.dumps(row) + "\n")
                self._file.flush()
        except OSError as error:
            if event in _BEGINNINGS:
                raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> HostError:
        return HostError(f"cannot write the journal {self.path}", why=error.strerror or str(error),
                         todo="make room, or name another directory in $XDG_STATE_HOME, then apply again")


def runs(folder: Path) -> list[Path]:
    """The journals of a cloud, oldest first."""
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def under_way(path: Path) -> bool:
    """Whether the run that writes this journal is still at work."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def read(path: Path) -> Iterator[dict[str, Any]]:
    """A journal's events. The last line of a run that was killed may be torn; it is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row
