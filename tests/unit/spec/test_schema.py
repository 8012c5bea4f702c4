"""The JSON Schema: valid, says what every key means, and accepts what is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmwright.spec.model import json_schema
from vmwright.spec.yaml import parse

EXAMPLE = Path(__file__).parents[3] / "examples" / "zcloud.yaml"


def validator() -> Any:
    """A validator of the schema. Raises when the schema itself is wrong."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_it_accepts_the_example() -> None:
    data = parse("zcloud.yaml", EXAMPLE.read_bytes()).data
    assert [f"{error.json_path}: {error.message}" for error in validator().iter_errors(data)] == []


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("cloud: c", True),
        ("cloud: c\nvms: {a: , b: {}}\nhosts:\n", True),
        (
            "cloud: c\nvms: {g: {count: 2, memory: [1G, 2G], nics: [{mac: ['52:54:00:00:00:01', "
            "'52:54:00:00:00:02']}]}}",
            True,
        ),
        (
            "cloud: c\nvms: {a: {disks: {data: 10G, b: {size: 1G, mount: /b}}, autostart: {order: 1}, devices: [x, "
            "{y: keep}]}}",
            True,
        ),
        ("cloud: c\ninclude: a.yaml\n", True),
        ("vms: {}", False),
        ("cloud: c\nvms: {a: {memory: 16}}", False),
        ("cloud: c\nvms: {a: {memory: 16GB}}", False),
        ("cloud: c\nvms: {a: {memory: }}", False),
        ("cloud: c\nvms: {a: {vcpu: 1}}", False),
        ("cloud: c\nvms: {A_b: {}}", False),
        ("cloud: c\nnothing: 1", False),
        ("cloud: c\ndefaults: {memory: [1G, 2G]}", False),
        ("cloud: c\nhosts: {h: {connect: root@h}}", False),
    ],
)
def test_it_tells_right_from_wrong(text: str, right: bool) -> None:
    assert validator().is_valid(parse("f.yaml", text.encode()).data) is right


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that a schema describes."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}", inner
    for name, inner in schema.get("$defs", {}).items():
        yield from properties(inner, f"{name}.")


def test_every_key_says_what_it_means() -> None:
    silent = [name for name, schema in properties(json_schema()) if len(schema.get("description", "")) < 15]
    assert silent == []


def test_every_default_is_told() -> None:
    """A key that may be left out says what happens then."""
    schema = json_schema()
    required = {f"{name}.{key}" for name, inner in schema["$defs"].items() for key in inner.get("required", ())} | {
        "cloud"
    }
    open_keys = {"os", "image", "build", "dir", "lvm", "disks", "sha256", "sums", "serial", "address", "bridge",
    "nat", "subnet",
                 "content", "source", "order", "healthy", "pin", "devices", "addresses", "nics"}  # fmt: skip
    untold = [
        name for name, inner in properties(schema)
        if not any(words in inner["description"] for words in ("efault:", "Not applied yet")) and name not in required
        and name.rpartition(".")[2] not in open_keys | {"users", "templates", "vms", "defaults", "include", "template"}
    ]  # fmt: skip
    assert untold == []
