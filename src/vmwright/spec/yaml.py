"""YAML text -> plain data, and where each value stands in the text. Reads one file; knows nothing of clouds.

Numbers are read as a person means them: `4` is a number; `0644`, `1.50`, `22.04` and `52:54:00:12:34:56` stay the text
they are, because nothing in a spec is a fraction or octal. `yes` and `no` are text, too (YAML 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vmwright.errors import Problem, Where

KeyPath = tuple[str | int, ...]

MAX_DEPTH = 40
MAX_VALUES = 200_000  # a small file whose aliases multiply must not fill the memory

_PREFIX = "tag:yaml.org,2002:"
_KNOWN_TAGS = {
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
}
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Mark:
    """Where a key and its value stand. An item of a list has no key: both are the item's place."""

    key: Where
    value: Where


@dataclass(frozen=True)
class Document:
    """One file: its text, its nodes (None when it cannot be parsed), plain data, and what is wrong with it."""

    file: str
    text: str
    root: Node | None
    data: Any
    marks: Mapping[KeyPath, Mark]
    problems: tuple[Problem, ...]


class _Broken(Exception):
    """The file cannot be read any further."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def parse(file: str, content: bytes) -> Document:
    """The document in `content`; `file` is how messages name it. Never raises for what a user can write."""
    text = ""
    try:
        text = _decode(file, content)
        root = _compose(file, text)
        converter = _Converter(file)
        data = converter.convert(root, ())
        return Document(file, text, root, data, converter.marks, tuple(dict.fromkeys(converter.problems)))
    except _Broken as broken:
        return Document(file, text, None, {}, {}, (broken.problem,))


def node_at(node: Node, file: str) -> Where:
    """The place of a node, past its anchor and tag."""
    return Where(file, node.start_mark.line + 1, node.start_mark.column + 1)


def is_merge(key: Node) -> bool:
    """Whether this is the merge key, <<."""
    return isinstance(key, ScalarNode) and key.tag == _PREFIX + "merge" and key.style is None


def _decode(file: str, content: bytes) -> str:
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        where = Where(file, before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1)
        raise _Broken(
            Problem(f"not UTF-8 text: byte 0x{content[error.start]:02x}", "save the file as UTF-8", where)
        ) from None


def _compose(file: str, text: str) -> Node:
    reader = YAML(typ="safe", pure=True)
    reader.max_depth = MAX_DEPTH
    reader.composer.warn_double_anchors = False  # YAML allows it: the later anchor counts from there on
    try:
        root = reader.compose(text)
    except MarkedYAMLError as error:
        raise _Broken(_syntax_problem(file, text, error)) from None
    except YAMLError as error:
        raise _Broken(_character_problem(file, text, error)) from None
    if root is None:
        todo = "start with `cloud: NAME`; `vmwright init` writes a commented starter file"
        raise _Broken(Problem("the file is empty", todo, Where(file, 1, 1)))
    if not isinstance(root, MappingNode):
        kind = "a list" if isinstance(root, SequenceNode) else "a single value"
        raise _Broken(
            Problem(f"the file is {kind}, not keys and values", "start with `cloud: NAME`", node_at(root, file))
        )
    return root


# What the parser says -> what happened, and what to do. The first that is found in the message counts.
_SYNTAX = (
    (r"found character '\\t'", "a tab", "use spaces instead"),
    (
        r"mapping values are not allowed",
        "a ':' where no key can be",
        "check the indentation of this line; put a value that holds ': ' in quotes",
    ),
    (
        r"expected <block end>",
        "this line does not fit the lines above it",
        "check its indentation, and brackets and quotes before it",
    ),
    (r"could not find expected ':'", "a line that is neither a key with a ':' nor part of a list", "write KEY: VALUE"),
    (
        r"expected ',' or '[]}]'",
        "a bracket is not closed, or a comma is missing",
        "close it with ] or }, and put commas between items",
    ),
    (r"found unexpected end of stream", "a quote is not closed before the end of the file", "close it"),
    (r"but found '<stream end>'", "the file ends inside a bracket", "close it with ] or }"),
    (
        r"found undefined alias (.+)",
        "alias {} has no anchor before it",
        "write &NAME at the value it stands for, further up",
    ),
    (r"found character ('.+') that cannot start", "{} cannot start a value", "put the value in quotes"),
    (r"found another document", "a second document (---)", "one file holds one document: use include: for more files"),
    (r"maximum depth", f"nested deeper than {MAX_DEPTH} levels", "no spec needs that: check the brackets"),
)


def _syntax_problem(file: str, text: str, error: MarkedYAMLError) -> Problem:
    message = str(error.problem or error.context or "not valid YAML")
    mark = error.problem_mark or error.context_mark
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file, 1, 1)
    if "\t" in text.split("\n")[where.line - 1][: where.column]:
        return Problem("not valid YAML: a tab", _SYNTAX[0][2], where)
    for pattern, what, todo in _SYNTAX:
        if match := re.search(pattern, message):
            opened = error.context_mark
            since = (
                f" (opened at line {opened.line + 1})"
                if opened and "close" in todo and opened.line + 1 != where.line
                else ""
            )
            return Problem(f"not valid YAML: {what.format(*match.groups())}{since}", todo, where)
    return Problem(f"not valid YAML: {message}", "", where)


def _character_problem(file: str, text: str, error: YAMLError) -> Problem:
    position = int(getattr(error, "position", 0))
    character = text[position] if position < len(text) else ""
    before = text[:position]
    where = Where(file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
    return Problem(f"not valid YAML: control character {character!a}", "remove it", where)


@dataclass
class _Converter:
    """Nodes -> data and marks. A mapping that is met through an alias is converted at each place it is used."""

    file: str
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    open: list[Node] = field(default_factory=list)
    values: int = 0

    def convert(self, node: Node, path: KeyPath) -> Any:
        self._count(node)
        if node.tag not in _KNOWN_TAGS:
            self._problem(node, f"the tag {node.tag} means nothing here", "leave it out")
        if isinstance(node, ScalarNode):
            return _scalar(node)
        self.open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self.open.pop()

    def _count(self, node: Node) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise _Broken(
                Problem(
                    f"the file unfolds to more than {MAX_VALUES} values", "use fewer aliases", node_at(node, self.file)
                )
            )
        if any(node is outer for outer in self.open):
            raise _Broken(
                Problem("a value holds itself, by its own alias", "remove the alias", node_at(node, self.file))
            )

    def _problem(self, node: Node, what: str, todo: str = "") -> None:
        self.problems.append(Problem(what, todo, node_at(node, self.file)))

    def _item(self, node: Node, path: KeyPath) -> Any:
        where = node_at(node, self.file)
        self.marks[path] = Mark(where, where)
        return self.convert(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        entries = self._entries(node)
        merged = next((value for key, value in entries if is_merge(key)), None)
        data = self._merge(merged, path) if merged else {}
        for key, value in entries:
            if not is_merge(key):
                data[key.value] = self._entry(key, value, (*path, key.value))
        return data

    def _entries(self, node: MappingNode) -> list[tuple[ScalarNode, Node]]:
        """The entries whose key is a word, each key once."""
        first: dict[str, ScalarNode] = {}
        entries = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._problem(key, "a key must be a word, not a list or a mapping")
            elif key.value in first:
                self._problem(
                    key,
                    f"{key.value!r} is given twice; first at {node_at(first[key.value], self.file)}",
                    "keep one of them",
                )
            else:
                first[key.value] = key
                entries.append((key, value))
        return entries

    def _entry(self, key: Node, value: Node, path: KeyPath) -> Any:
        where = node_at(key, self.file)
        empty = isinstance(value, ScalarNode) and value.start_mark.index == value.end_mark.index
        self.marks[path] = Mark(where, where if empty else node_at(value, self.file))
        return self.convert(value, path)

    def _merge(self, node: Node, path: KeyPath) -> dict[str, Any]:
        """What `<<: *a` or `<<: [*a, *b]` brings; of several, the first counts (YAML merge key)."""
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in reversed(nodes):
            if isinstance(part, MappingNode):
                merged |= self.convert(part, path)
            else:
                self._problem(part, "<< takes a mapping, by its alias: <<: *NAME")
        return merged


def _scalar(node: ScalarNode) -> str | int | bool | None:
    text: str = node.value
    if node.style is not None or node.tag == _PREFIX + "str":
        return text
    if node.tag == _PREFIX + "null":
        return None
    if node.tag == _PREFIX + "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if node.tag == _PREFIX + "int" and _WHOLE_NUMBER.fullmatch(text) and len(text) < 20:
        return int(text)
    return text
