"""Small changes to YAML text by the marks of its nodes: everything else in the text stays as it is. Pure.

Each function gives the texts worth trying, best first; the caller parses each and takes the first that says what is
meant. So an odd layout is refused rather than spoilt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vmwright.spec.yaml import is_merge

_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)*")
_ALIAS = re.compile(r"\*[^\s,\[\]{}]+")
_COLON = re.compile(r"\s*:")


@dataclass(frozen=True)
class NewValue:
    """A value to put in: its text on one line, and whether it is text (then it may be quoted)."""

    text: str
    string: str | None = None

    def spellings(self, like: str | None = None) -> Iterator[str]:
        """Ways to write it: in the quotes that stand there now (`like` is ' or "), as given, in quotes."""
        if self.string is not None and like in ("'", '"') and self.text == self.string:
            yield _quoted(self.string, like)
        yield self.text
        if self.string is not None:
            yield _quoted(self.string, '"')


def _quoted(text: str, quote: str) -> str:
    return "'" + text.replace("'", "''") + "'" if quote == "'" else json.dumps(text, ensure_ascii=False)


def replace_entry(text: str, key: ScalarNode, value: Node, new: NewValue) -> Iterator[str]:
    """The text with another value for a key of a mapping."""
    if is_alias(key, value):
        for spelling in new.spellings():
            start, end = _alias_span(text, key.end_mark.index)
            yield text[:start] + spelling + text[end:]
    elif is_empty(value):
        end = entry_end(text, key, value)
        for spelling in new.spellings():
            yield text[:end] + " " + spelling + text[end:]
    else:
        yield from _replace_node(text, value, new, after=_colon_end(text, key))


def replace_item(text: str, sequence: SequenceNode, position: int, new: NewValue) -> Iterator[str]:
    """The text with another item in a list."""
    item = sequence.value[position]
    if not is_alias(sequence, item) and not is_empty(item):
        yield from _replace_node(text, item, new, after=None)


def _replace_node(text: str, node: Node, new: NewValue, after: int | None) -> Iterator[str]:
    start, end = _start(text, node), true_end(text, node)
    if after is None or not _is_indented(node):
        for spelling in new.spellings(getattr(node, "style", None)):
            yield text[:start] + spelling + text[end:]
        return
    # An indented collection gives way to a value on the key's own line; a comment there stays behind the value.
    head = text[after : min(start, _line_end(text, after))]
    properties, _, comment = head.partition("#")
    kept = " ".join(properties.split())
    behind = f"  #{comment}" if comment else ""
    for spelling in new.spellings():
        yield text[:after] + " " + (kept + " " if kept else "") + spelling + behind + text[end:]


def insert_entry(text: str, mapping: MappingNode, key: str, new: NewValue) -> Iterator[str]:
    """The text with one more key in a mapping that is written out there."""
    for spelling in new.spellings():
        entry = f"{key}: {spelling}"
        if mapping.flow_style:
            yield from _insert_flow(text, mapping, entry)
        else:
            yield from _insert_block(text, mapping, entry)


def _insert_flow(text: str, mapping: MappingNode, entry: str) -> Iterator[str]:
    if mapping.value:
        end = entry_end(text, *mapping.value[-1])
        yield text[:end] + ", " + entry + text[end:]
    else:
        end = mapping.end_mark.index - 1
        yield text[:end] + entry + text[end:]


def _insert_block(text: str, mapping: MappingNode, entry: str) -> Iterator[str]:
    newline = "\r\n" if "\r\n" in text else "\n"
    first = mapping.value[0][0]
    indent = " " * first.start_mark.column
    end = _line_end(text, entry_end(text, *mapping.value[-1]))
    yield text[:end] + newline + indent + entry + text[end:]
    start = first.start_mark.index
    yield text[:start] + entry + newline + indent + text[start:]


def is_alias(holder: Node, value: Node) -> bool:
    """Whether a value is written as an alias there: then its own text stands before its holder or key."""
    return bool(value.start_mark.index < holder.start_mark.index)


def _is_indented(node: Node) -> bool:
    return isinstance(node, MappingNode | SequenceNode) and not node.flow_style


def is_empty(node: Node) -> bool:
    """Whether a value is not written at all."""
    return isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index


def alias_name(text: str, key: Node) -> str:
    """The alias (*NAME) that stands behind a key."""
    start, end = _alias_span(text, key.end_mark.index)
    return text[start:end]


def entry_end(text: str, key: Node, value: Node) -> int:
    """Where an entry of a mapping ends in the text, comments behind it not counted."""
    if is_alias(key, value):
        return _alias_span(text, key.end_mark.index)[1]
    if is_empty(value):
        return _colon_end(text, key)
    return true_end(text, value)


def true_end(text: str, node: Node) -> int:
    """Where the text of a node ends: the parser's mark of an indented one is behind the comments that follow."""
    if isinstance(node, MappingNode) and _is_indented(node):
        return entry_end(text, *node.value[-1])
    if isinstance(node, SequenceNode) and _is_indented(node):
        last = node.value[-1]
        if is_empty(last) or is_alias(node, last):
            before = true_end(text, node.value[-2]) if len(node.value) > 1 else node.start_mark.index
            dash = re.compile(r"[^#]*?-\s*(\*\S+)?").match(text, before)
            return dash.end() if dash else before
        return true_end(text, last)
    end = int(node.end_mark.index)
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        return len(text[:end].rstrip())
    return end


def _start(text: str, node: Node) -> int:
    """Where a node's own text starts, behind its anchor and tag."""
    match = _PROPERTIES.match(text, node.start_mark.index)
    return match.end() if match else int(node.start_mark.index)


def _colon_end(text: str, key: Node) -> int:
    match = _COLON.match(text, key.end_mark.index)
    return match.end() if match else int(key.end_mark.index)


def _alias_span(text: str, after: int) -> tuple[int, int]:
    match = _ALIAS.search(text, after)
    return match.span() if match else (after, after)


def _line_end(text: str, position: int) -> int:
    """The end of the line, before its line break."""
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    return end - 1 if end > position and text[end - 1] == "\r" else end


def own_entry(mapping: MappingNode, name: str) -> tuple[ScalarNode, Node] | None:
    """The entry a mapping has of its own, not by a merge key."""
    for key, value in mapping.value:
        if isinstance(key, ScalarNode) and key.value == name and not is_merge(key):
            return key, value
    return None
