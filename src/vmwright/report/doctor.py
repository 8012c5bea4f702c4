"""What doctor found, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.text import Text

from vmwright.doctor.check import Check, Verdict
from vmwright.doctor.examine import by_severity
from vmwright.doctor.visit import Report

_STYLE = {Verdict.OK: "green", Verdict.NOTE: "cyan", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_WORDS = {Verdict.FAIL: "will not work", Verdict.WARN: "to look at", Verdict.NOTE: "advice", Verdict.OK: "fine"}
_INDENT = " " * 8


def doctor_lines(reports: Sequence[Report]) -> Iterator[Text]:
    """Each host: what is wrong, the worst first, with why and what to do; then what is fine; a count at the end."""
    for number, report in enumerate(reports):
        if number:
            yield Text()
        head = f"host {report.host} ({report.address})" if report.host else "the file"
        yield Text(head, style="bold")
        yield from _wrong(report.checks)
        yield from _fine(report.checks)
    yield from (Text(), Text(summary(check for report in reports for check in report.checks), style="bold"))


def _wrong(checks: Iterable[Check]) -> Iterator[Text]:
    for check in by_severity(check for check in checks if check.verdict is not Verdict.OK):
        shown = check.verdict.upper() if check.verdict is Verdict.FAIL else check.verdict
        place = f"{check.where}: " if check.where else ""
        yield Text(f"  {shown:<4}  {place}{check.what}", style=_STYLE[check.verdict])
        if check.why:
            yield Text(f"{_INDENT}why: {check.why}", style="dim")
        yield from (Text(f"{_INDENT}{'do:  ' if line == 0 else '     '}{words}")
                    for line, words in enumerate(check.todo.splitlines()))


def _fine(checks: Iterable[Check]) -> Iterator[Text]:
    """A line for each area."""
    for area, found in groupby((check for check in checks if check.verdict is Verdict.OK), lambda check: check.area):
        yield Text(f"  ok    {area}: {'; '.join(check.what for check in found)}", style=_STYLE[Verdict.OK])


def summary(checks: Iterable[Check]) -> str:
    """How many there are of each verdict, the worst first."""
    counts = {verdict: 0 for verdict in _WORDS}
    for check in checks:
        counts[check.verdict] += 1
    return ", ".join(f"{count} {_WORDS[verdict]}" for verdict, count in counts.items() if count) + "."


def doctor_data(reports: Iterable[Report]) -> dict[str, Any]:
    """The same as plain data. `host` is null for what concerns the file as a whole."""
    return {"format": 1, "checks": [
        {"host": report.host, "verdict": str(check.verdict), "area": str(check.area), "what": check.what,
         "why": check.why, "todo": check.todo, "where": str(check.where) if check.where else None}
        for report in reports for check in report.checks]}
