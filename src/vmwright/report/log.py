"""Journals as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text

_STYLE = {"done": "green", "failed": "red", "undo-failed": "red", "undo": "yellow", "skipped": "yellow"}


def run_line(number: int, events: list[dict[str, Any]], *, under_way: bool = False) -> Text:
    """One run in a line."""
    begin = events[0] if events else {}
    kinds = [event.get("event") for event in events]
    counts = {kind: kinds.count(kind) for kind in ("done", "failed", "skipped")}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing done"
    ended = "" if "end" in kinds else "  (under way)" if under_way else "  (cut off: it has no end)"
    time = begin.get("time", "?")[:19].replace("T", " ")
    return Text(f"{number:4}  {time}  {begin.get('command', '?'):<8} {told}{ended}")


def log_lines(events: list[dict[str, Any]], *, under_way: bool = False) -> Iterable[Text]:
    """A run's events, one a line, with what changed and what went wrong."""
    for event in events:
        kind = event.get("event", "?")
        what = event.get("action") or event.get("command") or ""
        yield Text(f"{event.get('time', '')[11:19]:<8}  {kind:<11} {what}".rstrip(), style=_STYLE.get(kind, ""))
        for key, old, new in event.get("changes", ()):
            yield Text(f"             {key}: {old + ' -> ' if old else ''}{new}", style="dim")
        for word in ("why", "what", "error", "outcome"):
            for line in str(event.get(word) or "").splitlines():
                yield Text(f"             {line}", style="dim")
        for note in event.get("notes", ()):
            yield Text(f"             {note}")
    if not any(event.get("event") == "end" for event in events):
        yield Text("This run is under way." if under_way else
                   "This run was cut off: it has no end. Apply again picks up from there.", style="yellow")
