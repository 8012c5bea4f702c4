"""How a run goes, live: a line per action on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vmwright.plan.action import Action

_PLAIN_EVERY = 10.0  # seconds between two plain lines about the same action


def words(action: Action) -> str:
    """An action in a few words: "vm web-1: create"."""
    return f"{action.object}: {action.verb}"


class PlainReporter:
    """Lines for a log file or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        pass

    def _line(self, text: str, style: str = "") -> None:
        with self._lock:
            self._console.print(Text(text, style=style), soft_wrap=True)

    def started(self, action: Action) -> None:
        """See Reporter."""
        self._line(f"  ...  {words(action)}")

    def progress(self, action: Action, text: str, fraction: float | None) -> None:
        """See Reporter. A new stage is told at once, the same one again only now and then."""
        now = time.monotonic()
        stage = text.split("  ")[0]
        last, before = self._last.get(action.id, (0.0, ""))
        if stage == before and now - last < _PLAIN_EVERY:
            return
        self._last[action.id] = (now, stage)
        share = f" ({fraction:.0%})" if fraction is not None else ""
        self._line(f"       {words(action)}: {text}{share}", "dim")

    def done(self, action: Action, seconds: float, notes: list[str]) -> None:
        """See Reporter."""
        self._line(f"  ok   {words(action)} ({seconds:.1f} s)", "green")
        for note in notes:
            self._line(f"       {note}")

    def failed(self, action: Action, error: Exception) -> None:
        """See Reporter."""
        self._line(f"  FAIL {words(action)}: {error}", "red")

    def skipped(self, action: Action, why: str) -> None:
        """See Reporter."""
        self._line(f"  skip {words(action)}: {why}", "yellow")


class LiveReporter(PlainReporter):
    """A terminal: what is under way moves at the bottom, what has ended stands above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._running: dict[str, tuple[Action, float, str, float | None]] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)
        self._spinner = Spinner("dots")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._live.stop()

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        now = time.monotonic()
        # Without our lock: rich calls this with its own held, and printing a line takes them the other way round.
        for action, began, text, fraction in list(self._running.values()):
            bar = ""
            if fraction is not None:
                full = round(20 * min(1.0, max(0.0, fraction)))
                bar = "█" * full + "░" * (20 - full) + f" {fraction:4.0%}"
            grid.add_row(self._spinner, Text(words(action)), Text(text, style="dim"), bar, f"{now - began:.0f} s")
        return grid

    def started(self, action: Action) -> None:
        """See Reporter."""
        with self._lock:
            self._running[action.id] = (action, time.monotonic(), "", None)

    def progress(self, action: Action, text: str, fraction: float | None) -> None:
        """See Reporter."""
        with self._lock:
            _, began, _, _ = self._running.get(action.id, (action, time.monotonic(), "", None))
            self._running[action.id] = (action, began, text, fraction)

    def _end(self, action: Action) -> None:
        with self._lock:
            self._running.pop(action.id, None)

    def done(self, action: Action, seconds: float, notes: list[str]) -> None:
        """See Reporter."""
        self._end(action)
        super().done(action, seconds, notes)

    def failed(self, action: Action, error: Exception) -> None:
        """See Reporter."""
        self._end(action)
        super().failed(action, error)

    def skipped(self, action: Action, why: str) -> None:
        """See Reporter."""
        self._end(action)
        super().skipped(action, why)


def reporter(console: Console) -> PlainReporter:
    """The right one for this output."""
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)
