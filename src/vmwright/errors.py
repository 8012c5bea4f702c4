"""Errors: what happened, where, why, and what to do about it; one exit code per class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Where:
    """A place in a file the user wrote. Line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what happened, where, and what to do."""

    what: str
    todo: str = ""
    where: Where | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return "".join([f"{place}{self.what}", *(f"\n    {line}" for line in self.todo.splitlines())])


class VmwrightError(Exception):
    """Base of every error a user can cause. Shown without a traceback; `exit_code` is the process's."""

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", todo: str = "", where: Where | None = None) -> None:
        super().__init__(what)
        self.what, self.why, self.todo, self.where = what, why, todo, where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        lines = [f"{place}{self.what}"]
        lines += [f"  why: {line}" if n == 0 else f"       {line}" for n, line in enumerate(self.why.splitlines())]
        lines += [f"  do:  {line}" if n == 0 else f"       {line}" for n, line in enumerate(self.todo.splitlines())]
        return "\n".join(lines)


class SpecError(VmwrightError):
    """The file is wrong. Carries every problem found, in file order."""

    exit_code = 3

    def __init__(self, problems: Iterable[Problem], what: str = "") -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        count = len(self.problems)
        super().__init__(what or f"{count} problem{'s' if count != 1 else ''} in the file")

    def __str__(self) -> str:
        return "\n".join([*(str(p) for p in self.problems), self.what])


class PlanRefused(SpecError):
    """The file is right, but what it asks for cannot be done on these hosts. Nothing was changed."""

    exit_code = 4

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__(problems, "refused: nothing was changed")


class HostError(VmwrightError):
    """A host cannot be reached, or a command on it failed."""

    exit_code = 5


class ApplyError(VmwrightError):
    """An action failed; what was done and undone is in the message and the journal."""

    exit_code = 6
    code = 0  # libvirt's own number for the error (virErrorNumber), where it comes from there


class Busy(VmwrightError):
    """Another vmwright works on the same host."""

    exit_code = 7


class GuestError(VmwrightError):
    """A guest did not do what was asked: not ready in time, agent silent, command failed inside."""

    exit_code = 8


class AgentSilent(GuestError):
    """The guest agent does not answer (yet): not installed, not started, or the guest is busy."""


class UsageError(VmwrightError):
    """The command line is wrong, asks for something that is not there, or what it asked was not confirmed."""

    exit_code = 64  # EX_USAGE of sysexits.h; 2 is kept for `plan --exit-code`


class Bug(VmwrightError):
    """vmwright itself is wrong. Carries no traceback; that goes into a file, which the message names."""

    exit_code = 70


class Cancelled(VmwrightError):
    """Ctrl-C: what was under way has been finished or undone."""

    exit_code = 130
