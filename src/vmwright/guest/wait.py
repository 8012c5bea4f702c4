"""Waiting with a bounded back-off: short pauses first, never longer than a limit."""

from __future__ import annotations

from collections.abc import Iterator


def pauses(first: float, longest: float) -> Iterator[float]:
    """Seconds to wait, one after the other without end: `first`, doubled each time, `longest` at most."""
    pause = first
    while True:
        yield pause
        pause = min(pause * 2, longest)
