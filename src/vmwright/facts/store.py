"""Facts as JSON: saved whole, and checked when loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmwright.errors import Problem, SpecError
from vmwright.facts.model import FORMAT, Facts

_RECORD = "record the host anew with `vmwright facts --json`"
_SHOWN = 10  # problems; a file of another kind has hundreds


def dumps(facts: Facts) -> str:
    """The facts as JSON text, two spaces deep, keys in the model's order."""
    return json.dumps(asdict(facts), indent=2) + "\n"


def load(path: str) -> Facts:
    """Facts that `dumps` saved. Raises SpecError naming the first things that are wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(f"cannot read facts from {path}: {error}", "record them with `vmwright facts --json`")
        raise SpecError([problem], "no facts") from error
    return loads(text, path)


def loads(text: str, name: str) -> Facts:
    """Facts from their JSON text; errors call it `name`. Raises SpecError."""
    from pydantic import TypeAdapter, ValidationError

    try:
        facts = TypeAdapter(Facts).validate_json(text, strict=True)
    except ValidationError as error:
        raise _wrong(name, [(_place(e["loc"]), e["msg"]) for e in error.errors()]) from error
    if facts.format != FORMAT:
        raise _wrong(name, [("format", f"these are facts of format {facts.format}; this vmwright reads {FORMAT}")])
    # A misspelt optional key would leave its default standing, and the plan would be made for another host.
    strange = [(place, "no such key") for place in _strange(json.loads(text), asdict(facts), ())]
    if strange:
        raise _wrong(name, strange)
    return facts


def _wrong(name: str, found: list[tuple[str, str]]) -> SpecError:
    rest = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return SpecError([Problem(f"{name}: {place}: {what}", _RECORD) for place, what in found[:_SHOWN]],
                     f"{name} does not hold facts as vmwright records them{rest}")


def _place(keys: tuple[int | str, ...]) -> str:
    """A place as one would look it up: hosts[0].memory."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".") or "the file"


def _strange(given: Any, known: Any, at: tuple[int | str, ...]) -> Iterator[str]:
    """Places of keys that the loaded facts do not have."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from _strange(value, known[key], (*at, key))
            else:
                yield _place((*at, key))
    elif isinstance(given, list) and isinstance(known, list | tuple):
        for place, (value, other) in enumerate(zip(given, known, strict=True)):
            yield from _strange(value, other, (*at, place))
