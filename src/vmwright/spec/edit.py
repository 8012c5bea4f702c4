"""Change one value in a spec file: comments, layout, quotes and anchors stay. Checked first, written in one step."""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vmwright.errors import Problem, SpecError, UsageError, Where
from vmwright.spec import splice
from vmwright.spec.findings import dotted, nearest
from vmwright.spec.groups import expand
from vmwright.spec.load import SECTIONS, Source, read_source, resolve_source
from vmwright.spec.model import Spec
from vmwright.spec.splice import NewValue
from vmwright.spec.yaml import Document, KeyPath, parse

_PLAIN = re.compile(r"[A-Za-z0-9_./~+-]([A-Za-z0-9_./~+ :@-]*[A-Za-z0-9_./~+@-])?")
_BOM = b"\xef\xbb\xbf"


class EditRefused(SpecError):
    """With the new value the file would be wrong. It is unchanged."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__(problems)
        self.what = "not set: the file is unchanged"


@dataclass(frozen=True)
class Edit:
    """One value changed in one file. `old` and `new` are text on one line; `old` is None when the key was not there."""

    file: str
    key: str
    old: str | None
    new: str
    where: Where  # of the new value

    @property
    def changed(self) -> bool:
        """Whether the file says something else now."""
        return self.old != self.new

    def describe(self) -> str:
        """What was done, in one line."""
        if self.old is None:
            return f"{self.where}: {self.key}: {self.new} (new)"
        return (
            f"{self.where}: {self.key}: {self.old} -> {self.new}"
            if self.changed
            else f"{self.where}: {self.key}: {self.old} already"
        )


def set_value(path: str | Path, key: str, value: str) -> Edit:
    """Set the key (vms.z-dev.disk) to a value, in the file that holds it. Checks the whole spec before it writes.

    Raises UsageError when there is no such thing to set, EditRefused when the outcome would be wrong.
    """
    source = read_source(path)
    if any(document.root is None for document in source.documents):
        raise SpecError(resolve_source(source)[1])
    document, keys = _find(source, key)
    new, data = _parse_value(key, value)
    text = _new_text(document, keys, new, data)
    where = _check(path, document, text, keys)
    old = _shown(_get(document.data, keys)) if _depth(document.data, keys) == len(keys) else None
    edit = Edit(document.file, key, old, _shown(data), where)
    if text != document.text:
        _write(Path(document.file), document.text, text)
    return edit


def _find(source: Source, key: str) -> tuple[Document, KeyPath]:
    """The file that holds the key, and the key's path there."""
    names = key.split(".")
    if not all(names):
        raise UsageError(f"{key!r} is not a key", todo="write it with dots, like vms.z-dev.disk")
    known = [info.alias or name for name, info in Spec.model_fields.items()]
    if names[0] not in known:
        raise UsageError(f"there is no section {names[0]!r}", todo=nearest(names[0], known))
    if names[0] in SECTIONS and names[0] != "defaults" and len(names) > 2:
        _check_entry(source, names)
    return max(
        ((document, _path(document.data, names)) for document in source.documents),
        key=lambda found: _depth(found[0].data, found[1]),
    )


def _check_entry(source: Source, names: list[str]) -> None:
    """Complain unless the VM (or host, ...) whose key is to be set is there."""
    section, name = names[:2]
    entries = source.data.get(section)
    entries = entries if isinstance(entries, dict) else {}
    if name in entries:
        return
    member = expand(source.data, source.marks).groups.members.get(name) if section == "vms" else None
    if member:
        group, rest = f"vms.{member.group}", ".".join(names[2:])
        todo = f"set {group}.{rest} for all of them, or to a list of {member.count}, one each: {group}.{rest}=[...]"
        raise UsageError(f"{name} is one of the group {member.group}, and has no keys of its own", todo=todo)
    kind = {"vms": "VM", "hosts": "host", "networks": "network", "users": "user", "templates": "template"}[section]
    raise UsageError(f"there is no {kind} {name!r}", todo=nearest(name, entries))


def _path(data: Any, names: Iterable[str]) -> KeyPath:
    """The names as a path in this data: numbers where it has lists."""
    path: list[str | int] = []
    for name in names:
        part: str | int = int(name) if isinstance(data, list) and name.isdigit() else name
        path.append(part)
        data = _step(data, part)
    return tuple(path)


def _step(data: Any, part: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(str(part))
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def _depth(data: Any, path: KeyPath) -> int:
    """How many steps of the path are there."""
    for steps, part in enumerate(path):
        there = part in data if isinstance(data, dict) else isinstance(data, list) and _step(data, part) is not None
        if not there:
            return steps
        data = _step(data, part)
    return len(path)


def _parse_value(key: str, value: str) -> tuple[NewValue, Any]:
    """The value as it is to be written, and what it means."""
    document = parse("the value", f"value: {value}\n".encode())
    mapping = document.root
    node = mapping.value[0][1] if isinstance(mapping, MappingNode) and len(mapping.value) == 1 else None
    if node is None or document.problems or splice.is_empty(node) or node.anchor or "\n" in value:
        todo = f"write a word, a number, [a, b] or {{a: b}}; as text: {json.dumps(value, ensure_ascii=False)}"
        raise UsageError(f"{key}: {value!r} is not a value", todo=todo)
    text = document.text[node.start_mark.index : node.end_mark.index]
    data = document.data["value"]
    return NewValue(text, data if isinstance(data, str) else None), data


def _new_text(document: Document, path: KeyPath, new: NewValue, data: Any) -> str:
    """The file's text with the new value. Raises UsageError where that cannot be done without changing more."""
    wanted = copy.deepcopy(document.data)
    _put(wanted, path, data)
    other = ""
    for text in _attempts(document, path, new, wanted):
        outcome = parse(document.file, text.encode())
        if outcome.root is not None and _same(outcome.data, wanted):
            return text
        other = other or _changed(outcome, wanted, path)
    why = f"{other} takes its value from there, by an alias, and would change with it" if other else ""
    todo = f"give {other} a value of its own first" if other else "change it with an editor"
    raise UsageError(f"{dotted(path)} cannot be set alone", why=why, todo=todo, where=_place(document, path))


def _put(data: Any, path: KeyPath, value: Any) -> None:
    """Set a value in data; mappings on the way are made."""
    for position, part in enumerate(path[:-1]):
        inner = _step(data, part)
        if isinstance(data, dict) and inner is None:
            inner = data[part] = {}
        if not isinstance(inner, dict | list):
            raise UsageError(
                f"{dotted(path[: position + 1])} is a single value: there is no {path[position + 1]!r} in it"
            )
        data = inner
    last = path[-1]
    if isinstance(data, list) and not (isinstance(last, int) and last < len(data)):
        raise UsageError(
            f"{dotted(path[:-1])} is a list of {len(data)}: there is no item {last!r}", todo="items count from 0"
        )
    data[last] = value


def _attempts(document: Document, path: KeyPath, new: NewValue, wanted: Any) -> Iterator[str]:
    """Texts that may say what is wanted: the value is set as deep in the file as it is written out there."""
    node: Node = document.root  # type: ignore[assignment]
    text = document.text
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, SequenceNode):
            item = node.value[int(part)]
            if last:
                yield from splice.replace_item(text, node, int(part), new)
            node = item
            continue
        if not isinstance(node, MappingNode):
            return
        entry = splice.own_entry(node, str(part))
        if entry is None:
            whole = new if last else _written(_get(wanted, path[: depth + 1]))
            yield from splice.insert_entry(text, node, str(part), whole)
            return
        key, value = entry
        if last:
            yield from splice.replace_entry(text, key, value, new)
        elif splice.is_alias(key, value) or not isinstance(value, MappingNode | SequenceNode):
            yield from _overlay(text, key, value, path[depth + 1 :], new)
            yield from splice.replace_entry(text, key, value, _written(_get(wanted, path[: depth + 1])))
            return
        node = value


def _overlay(text: str, key: ScalarNode, value: Node, rest: KeyPath, new: NewValue) -> Iterator[str]:
    """For KEY: *ALIAS, a mapping that takes all from the alias but one key."""
    if isinstance(value, MappingNode) and splice.is_alias(key, value) and len(rest) == 1:
        for spelling in new.spellings():
            merged = NewValue(f"{{<<: {splice.alias_name(text, key)}, {rest[0]}: {spelling}}}")
            yield from splice.replace_entry(text, key, value, merged)


def _written(data: Any) -> NewValue:
    return NewValue(_flow(data))


def _flow(data: Any) -> str:
    """Data as YAML on one line, with quotes only where they are needed."""
    if isinstance(data, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ", ".join(map(_flow, data)) + "]"
    plain = isinstance(data, str) and _PLAIN.fullmatch(data) and parse("", f"a: {data}".encode()).data.get("a") == data
    return str(data) if plain else json.dumps(data, ensure_ascii=False)


def _get(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _same(one: Any, other: Any) -> bool:
    """Equal, where true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _changed(outcome: Document, wanted: Any, path: KeyPath) -> str:
    """The first other value that an attempt would change, when the attempt sets the value at all."""
    if outcome.root is None or _depth(outcome.data, path) < len(path):
        return ""
    others = [other for other in outcome.marks if not _is_within(other, path) and not _is_within(path, other)]
    both = [other for other in others if _depth(wanted, other) == _depth(outcome.data, other) == len(other)]
    found = [other for other in both if not _same(_get(outcome.data, other), _get(wanted, other))]
    deepest: KeyPath = max(found, key=len, default=())
    return dotted(deepest)


def _is_within(path: KeyPath, outer: KeyPath) -> bool:
    return path[: len(outer)] == outer


def _place(document: Document, path: KeyPath) -> Where | None:
    mark = next((document.marks[path[:n]] for n in range(len(path), 0, -1) if path[:n] in document.marks), None)
    return mark.value if mark else None


def _shown(data: Any) -> str:
    """A value for people: text without quotes."""
    return data if isinstance(data, str) else _flow(data)


def _check(path: str | Path, document: Document, text: str, keys: KeyPath) -> Where:
    """Check the whole spec with the new text. Returns where the new value stands."""
    changed = Path(document.file).resolve()

    def read(file: Path) -> bytes:
        return text.encode() if file.resolve() == changed else file.read_bytes()

    source = read_source(path, read)
    _, problems = resolve_source(source)
    if problems:
        raise EditRefused(problems)
    outcome = next(new for new in source.documents if Path(new.file).resolve() == changed)
    return _place(outcome, keys) or Where(document.file, 1, 1)


def _write(path: Path, old: str, new: str) -> None:
    """Replace the file's content in one step; owner and mode stay; a link is followed."""
    target = path.resolve()
    try:
        content = target.read_bytes()
        if content.removeprefix(_BOM) != old.encode():
            raise UsageError(f"{path} was changed by someone else just now", todo="look at it, and set the value again")
        _replace(target, (_BOM if content.startswith(_BOM) else b"") + new.encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", why="the file is unchanged") from None


def _replace(target: Path, content: bytes) -> None:
    status = target.stat()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            with suppress(PermissionError):  # only root can give a file away; else it is the writer's
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
