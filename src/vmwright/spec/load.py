"""A spec file and those it includes -> the resolved cloud, or every problem in them, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from vmwright.errors import Problem, SpecError, UsageError, Where
from vmwright.spec.cloud import Cloud, NotYet
from vmwright.spec.explain import validate
from vmwright.spec.findings import Findings, dotted
from vmwright.spec.groups import expand
from vmwright.spec.resolve import resolve
from vmwright.spec.yaml import Document, KeyPath, Mark, parse

SECTIONS = ("hosts", "networks", "users", "defaults", "templates", "vms")

Reader = Callable[[Path], bytes]
Placed = TypeVar("Placed", Problem, NotYet)


@dataclass
class Source:
    """What the files say, joined. `documents` are in the order they were read, the main file first."""

    documents: list[Document] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def load(path: str | Path) -> Cloud:
    """The resolved cloud of a spec file. Raises SpecError with every problem found, in file order.

    Raises UsageError when there is no such file.
    """
    return load_with(path, Path.read_bytes)


check = load


def load_with(path: str | Path, read: Reader) -> Cloud:
    """As `load`, with files read by `read` (which raises OSError)."""
    source = read_source(path, read)
    cloud, problems = resolve_source(source)
    if problems:
        raise SpecError(problems)
    return cloud


def read_source(path: str | Path, read: Reader = Path.read_bytes) -> Source:
    """The file and all it includes. Raises UsageError when the file itself cannot be read."""
    source = Source()
    try:
        content = read(Path(path))
    except OSError as error:
        todo = "name the file, or let `vmwright init` write one" if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"cannot read {path}: {error.strerror}", todo=todo) from None
    _add_file(Path(path), content, source, read, ())
    return source


def _in_file_order(items: Iterable[Placed], source: Source) -> list[Placed]:
    """Each item once, sorted by file (in the order they were read), line and column."""
    order = {document.file: number for number, document in enumerate(source.documents)}

    def position(item: Placed) -> tuple[int, int, int]:
        where = item.where
        return (order.get(where.file, len(order)), where.line, where.column) if where else (-1, 0, 0)

    return sorted(dict.fromkeys(items), key=position)


def _add_file(path: Path, content: bytes, source: Source, read: Reader, above: tuple[Path, ...]) -> None:
    document = parse(str(path), content)
    source.documents.append(document)
    source.problems += document.problems
    data = dict(document.data)
    included = data.pop("include", None)
    _join(data, document, source)
    if isinstance(included, str):
        included = [included]
    if included is None or not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        _keep_include(included, document, source)
        return
    for position, name in enumerate(included):
        mark = document.marks.get(("include", position)) or document.marks[("include",)]
        _include(path, name, mark.value, source, read, (*above, _real(path)))


def _keep_include(included: Any, document: Document, source: Source) -> None:
    """Let the model complain about an include that is no list of files."""
    if "include" in document.data:
        source.data["include"] = included
        source.marks |= {path: mark for path, mark in document.marks.items() if path[0] == "include"}


def _include(parent: Path, name: str, where: Where, source: Source, read: Reader, above: tuple[Path, ...]) -> None:
    path = parent.parent / Path(name).expanduser()
    real = _real(path)
    if real in above:
        circle = " -> ".join(str(step) for step in (*above[above.index(real) :], real))
        source.problems.append(
            Problem(f"include: {name} includes itself: {circle}", "remove one of these includes", where)
        )
    elif all(_real(Path(document.file)) != real for document in source.documents):
        try:
            content = read(path)
        except OSError as error:
            what = f"include: cannot read {path}: {error.strerror}"
            source.problems.append(
                Problem(what, "a relative path starts at the directory of the file with the include", where)
            )
            return
        _add_file(path, content, source, read, above)


def _real(path: Path) -> Path:
    return path.resolve()


def _join(data: Mapping[str, Any], document: Document, source: Source) -> None:
    """Add a file's keys to what is there. Mappings are joined by name; what is said twice is an error."""
    twice: set[KeyPath] = set()
    for key, value in data.items():
        if key in SECTIONS and value is None:
            value = {}
        if key not in source.data:
            source.data[key] = dict(value) if isinstance(value, dict) else value
            continue
        present = source.data[key]
        if isinstance(present, dict) and isinstance(value, dict):
            for name, entry in value.items():
                if name in present:
                    twice.add((key, name))
                else:
                    present[name] = entry
        else:
            twice.add((key,))
    for path in sorted(twice, key=str):
        first, second = source.marks[path].key, document.marks[path].key
        source.problems.append(Problem(f"{dotted(path)} is given twice: also at {first}", "keep one of them", second))
    for path, mark in document.marks.items():
        if path[:1] not in twice and path[:2] not in twice:
            source.marks.setdefault(path, mark)


def resolve_source(source: Source) -> tuple[Cloud, list[Problem]]:
    """The cloud, and what is wrong with it, in file order; with any problem the cloud is not whole."""
    if any(document.root is None for document in source.documents):
        # A file that cannot be parsed hides names that others refer to: nothing further can be said.
        return Cloud("", (), (), (), (), ()), _in_file_order(source.problems, source)
    data, empty = _without_nothing(source)
    expansion = expand(data, source.marks)
    findings = Findings(source.marks, expansion.groups, Where(source.documents[0].file, 1, 1))
    findings.problems += source.problems + expansion.problems
    findings.dropped |= expansion.dropped | _counted_out(empty, findings)
    for path in empty:
        what = f"{dotted(path)}: has no value"
        findings.problems.append(Problem(what, "give it one, or leave the key out", source.marks[path].key))
    spec = validate(expansion.data, findings)
    cloud = resolve(spec, expansion.groups.members, findings)
    return _with_notes(cloud, findings, source), _in_file_order(findings.problems, source)


def _with_notes(cloud: Cloud, findings: Findings, source: Source) -> Cloud:
    """The cloud with what the findings hold besides problems, in file order."""
    return replace(
        cloud,
        not_yet=tuple(_in_file_order(findings.not_yet, source)),
        warnings=tuple(str(note) for note in _in_file_order(findings.warnings, source)),
        missing=tuple(_in_file_order(findings.missing, source)),
    )


def _counted_out(paths: list[KeyPath], findings: Findings) -> set[KeyPath]:
    """Paths of the file as paths of the counted-out spec."""
    found: set[KeyPath] = set()
    for path in paths:
        found |= {path, path[:3]}
        if path[0] == "vms":
            names = [name for name, member in findings.groups.members.items() if member.group == path[1]]
            found |= {("vms", name, *rest) for name in names for rest in (path[2:], path[2:3])}
    return found


def _without_nothing(source: Source) -> tuple[dict[str, Any], list[KeyPath]]:
    """The data without keys that have no value, and their paths. An empty section or entry is an empty mapping."""
    empty: list[KeyPath] = []
    data: dict[str, Any] = _clean(source.data, (), empty)
    return data, empty


def _clean(value: Any, path: KeyPath, empty: list[KeyPath]) -> Any:
    if isinstance(value, list):
        empty += [(*path, position) for position, item in enumerate(value) if item is None]
        return [_clean(item, (*path, position), empty) for position, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        here = (*path, key)
        if inner is None and _may_be_empty(here):
            kept[key] = {}
        elif inner is None:
            empty.append(here)
        else:
            cleaned = _clean(inner, here, empty)
            if not (isinstance(inner, list) and None in inner):
                kept[key] = cleaned
    return kept


def _may_be_empty(path: KeyPath) -> bool:
    """Whether this is a section, or an entry of one, which may say nothing."""
    return path[0] in SECTIONS and (len(path) == 1 or (len(path) == 2 and path[0] != "defaults"))
