"""Measures commands and prints tables: medians of several runs, and ratios within one run."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class Failed(Exception):
    """A command that is measured did not do its work."""


@dataclass(frozen=True)
class Spent:
    """What one run took: seconds by the clock, and of the CPUs (of all child processes)."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Series:
    """The runs of one contender. With `absent`, it could not be measured, and that is why."""

    name: str
    runs: tuple[Spent, ...] = ()
    absent: str = ""

    @property
    def wall(self) -> float:
        """The median by the clock, seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """The median of the CPU time, seconds."""
        return statistics.median(run.cpu for run in self.runs)


@dataclass(frozen=True)
class Target:
    """What is wanted: a number, and the bound that it must keep."""

    what: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass(frozen=True)
class Table:
    """One benchmark's outcome. Ratios are to the first series; `counts` are plain numbers that were counted."""

    title: str
    series: tuple[Series, ...] = ()
    targets: tuple[Target, ...] = ()
    counts: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = field(default=())


def spend(work: Callable[[], object]) -> Spent:
    """What this took, and the child processes that it waited for."""
    before, began = _children(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - began, _children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(argv: Sequence[str], *, env: Mapping[str, str] | None = None, folder: Path | None = None,
            timeout: float = 600, given: str = "") -> str:
    """Run a command to its end, with that text `given` as its input; its output. Raises Failed with its last words."""
    done = subprocess.run(list(argv), env=dict(env or os.environ), cwd=folder, capture_output=True, text=True,
                          timeout=timeout, input=given, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise Failed(f"{Path(argv[0]).name} ended with code {done.returncode}: {' / '.join(words)}")
    return done.stdout


def rounds(count: int, contenders: Mapping[str, Callable[[], Spent]]) -> tuple[Series, ...]:
    """Each contender once a round, so that a busy minute of the machine is everybody's. One that fails drops out."""
    runs: dict[str, list[Spent]] = {name: [] for name in contenders}
    absent: dict[str, str] = {}
    for _ in range(count):
        for name, once in contenders.items():
            if name in absent:
                continue
            try:
                runs[name].append(once())
            except (Failed, subprocess.TimeoutExpired) as error:
                absent[name] = str(error)
    return tuple(Series(name, () if name in absent else tuple(runs[name]), absent.get(name, "")) for name in contenders)


# -- as text and as data ----------------------------------------------------------------------------------------------


def text(table: Table) -> str:
    """A table for the terminal."""
    lines = [table.title]
    width = max((len(name) for name in _names(table)), default=0) + 2
    there = [series for series in table.series if series.runs]
    if there:
        lines.append(f"  {'':{width}}{'median':>9}{'least':>9}{'most':>9}{'CPU':>9}{'ratio':>9}   runs")
    for series in table.series:
        lines.append(f"  {series.name:{width}}" + _figures(series, there[0] if there else series))
    lines += [f"  {name:{width}}{value:9.2f}" for name, value in table.counts]
    for target in table.targets:
        verdict, sign = "met   " if target.met else "MISSED", "at least" if target.at_least else "at most"
        lines.append(f"  {verdict}  {target.what}: {target.value:.2f}, wanted {sign} {target.bound:g}")
    return "\n".join([*lines, *(f"  {note}" for note in table.notes)]) + "\n"


def _names(table: Table) -> list[str]:
    return [series.name for series in table.series] + [name for name, _ in table.counts]


def _figures(series: Series, first: Series) -> str:
    if not series.runs:
        return f"  {series.absent}"
    walls = [run.wall for run in series.runs]
    return (f"{series.wall:7.2f} s{min(walls):7.2f} s{max(walls):7.2f} s{series.cpu:7.2f} s"
            f"{series.wall / first.wall:9.2f}   {len(walls)}")


def data(table: Table) -> dict[str, object]:
    """A table as JSON data: every run, not only the medians."""
    return {
        "title": table.title,
        "series": [{"name": s.name, "absent": s.absent, **({"median": s.wall, "median_cpu": s.cpu} if s.runs else {}),
                    "runs": [{"wall": run.wall, "cpu": run.cpu} for run in s.runs]} for s in table.series],
        "targets": [{"what": t.what, "value": t.value, "bound": t.bound, "at_least": t.at_least, "met": t.met}
                    for t in table.targets],
        "counts": dict(table.counts),
        "notes": list(table.notes),
    }


def named(series: Sequence[Series], name: str) -> Series | None:
    """The series of that name, if it was measured."""
    return next((one for one in series if one.name == name and one.runs), None)
