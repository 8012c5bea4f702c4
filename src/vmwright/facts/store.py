"""Facts as JSON: saved whole, and checked when loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vmwright.errors import Problem, SpecError
from vmwright.facts.model import FORMAT, Facts


def dumps(facts: Facts) -> str:
    """The facts as JSON text, two spaces deep, keys in the model's order."""
    return json.dumps(asdict(facts), indent=2) + "\n"


def load(path: str) -> Facts:
    """Facts that `dumps` saved. Raises SpecError naming the first things that are wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(f"cannot read facts from {path}: {error}", "record them with `vmwright facts --json`")]) from error
    try:
        facts = TypeAdapter(Facts).validate_json(text)
    except ValidationError as error:
        problems = [Problem(f"{path}: {'.'.join(str(p) for p in e['loc']) or 'the file'}: {e['msg']}",
                            "record the host anew with `vmwright facts --json`") for e in error.errors()[:10]]
        raise SpecError(problems) from error
    if facts.format != FORMAT:
        raise SpecError([Problem(f"{path} has facts of format {facts.format}; this vmwright reads {FORMAT}",
                                 "record the host anew with `vmwright facts --json`")])
    return facts
