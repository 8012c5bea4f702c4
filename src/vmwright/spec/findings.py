"""What is found while a spec is checked: problems and notes, each with the place in the user's files it is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from vmwright.errors import Problem, Where
from vmwright.spec.cloud import NotYet
from vmwright.spec.groups import Groups
from vmwright.spec.yaml import KeyPath, Mark


def nearest(word: str, known: Collection[str]) -> str:
    """A remedy for a wrong name: the nearest right one, or what there is."""
    if close := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"did you mean {close[0]}?"
    if not known:
        return ""
    shown = sorted(known)
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"there is: {', '.join(shown[:12])}{more}"


def dotted(path: Iterable[str | int]) -> str:
    """A path as a person writes it: vms.z-dev.disk."""
    return ".".join(str(part) for part in path)


@dataclass
class Findings:
    """Collects what is wrong. Paths are those of the counted-out spec: a member of a group has its own name in them.

    `dropped` are paths whose value was refused already and taken out: nothing that follows from their absence is told.
    """

    marks: Mapping[KeyPath, Mark]
    groups: Groups
    root: Where
    problems: list[Problem] = field(default_factory=list)
    dropped: set[KeyPath] = field(default_factory=set)
    not_yet: list[NotYet] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    missing: list[Problem] = field(default_factory=list)

    def where(self, path: KeyPath, *, key: bool = False) -> Where:
        """The place of a value (or key); of something that is not there: the place of what should hold it."""
        full = self._said(path)
        for length in range(len(full), 0, -1):
            if mark := self.marks.get(full[:length]):
                return mark.key if key or length < len(full) else mark.value
        return self.root

    def _said(self, path: KeyPath) -> KeyPath:
        """The path as the user wrote it: of a group, not of its members; of a single item without brackets, its key."""
        said = self.groups.source(path)
        while said not in self.marks and said and isinstance(said[-1], int):
            said = said[:-1]
        return said

    def has(self, path: KeyPath) -> bool:
        """Whether the file says this itself."""
        return self.groups.source(path) in self.marks

    def name(self, path: KeyPath) -> str:
        """A path as the user wrote it, with dots."""
        return dotted(self._said(path))

    def error(self, path: KeyPath, what: str, todo: str = "", *, key: bool = False) -> None:
        """Something is wrong at this path."""
        subject = f"{self.name(path)}: " if path else ""
        self.problems.append(Problem(f"{subject}{what}", todo, self.where(path, key=key)))

    def later(self, path: KeyPath, value: str = "") -> None:
        """A key, or this value of it, that is understood but not applied by this version."""
        said = self.groups.source(path)
        while isinstance(said[-1], int):  # of a list dealt out to a group: the list
            said = said[:-1]
        note = NotYet(dotted(said) + (f": {value}" if value else ""), self.marks[said].key)
        if note not in self.not_yet:
            self.not_yet.append(note)

    def warn(self, path: KeyPath, what: str) -> None:
        """Something that may well be a mistake."""
        self.warnings.append(Problem(f"{self.name(path)}: {what}", "", self.where(path)))

    def absent(self, path: KeyPath, what: str, todo: str) -> None:
        """Something that is not on this machine: a check tolerates it, a plan cannot."""
        self.missing.append(Problem(f"{self.name(path)}: {what}", todo, self.where(path)))

    def broken(self, *path: str) -> bool:
        """Whether something in this object was refused already, so that what it says is not known in full."""
        return any(dropped[: len(path)] == path or path[: len(dropped)] == dropped for dropped in self.dropped)

    def refers(self, path: KeyPath, kind: str, name: str, known: Collection[str], section: str = "") -> bool:
        """Whether a reference is right. One to something that was refused itself counts as right but unusable."""
        if name in known:
            return True
        if not (section and self.broken(section, name)):
            self.error(path, f"there is no {kind} {name!r}", nearest(name, known))
        return False
