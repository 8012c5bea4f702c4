"""The model's objections in plain words, each with its place. What is refused is taken out, and the rest checked."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vmwright.spec.findings import Findings, nearest
from vmwright.spec.model import Spec
from vmwright.spec.values import kind
from vmwright.spec.yaml import KeyPath

# Keys people reach for, and what they are here.
_ALIASES = {
    "cpus": "vcpus",
    "cores": "vcpus",
    "ram": "memory",
    "ip": "address",
    "gw": "gateway",
    "nameservers": "dns",
    "size": "disk",
    "passwd": "password_hash_file",
    "password": "password_hash_file",
    "ssh_key": "ssh_keys",
    "ssh_authorized_keys": "ssh_keys",
    "bridge": "network",
    "networks": "nics",
    "distro": "os",
    "url": "image",
    "path": "dir",
}

# Keys of a VM or host that hold further things by name: one that is wrong does not hide the others.
_NAMED = ("disks", "pools", "bridges", "devices", "services")


def validate(data: dict[str, Any], findings: Findings) -> Spec:
    """The model of the data. What is wrong goes to the findings, and the model is of the rest."""
    while True:
        try:
            return Spec.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
        for path in [_refuse(detail, data, findings) for detail in details]:
            _take_out(data, path, findings)


def _refuse(detail: ErrorDetails, data: dict[str, Any], findings: Findings) -> KeyPath:
    """Tell what is wrong. Returns the path of what cannot be used because of it."""
    path = path_in(data, detail["loc"])
    if detail["type"] == "missing":
        if (*path, detail["loc"][-1]) not in findings.dropped:
            findings.error(path, f"{detail['loc'][-1]} is missing", _missing_todo(detail["loc"]), key=True)
    elif detail["type"] == "extra_forbidden":
        findings.error(path, *unknown_key(detail["loc"]), key=True)
    else:
        findings.error(path, *sentence(detail), key=detail["loc"][-1:] == ("[key]",))
    if path[:1] == ("defaults",):
        return path[:2]
    return path[: 4 if len(path) > 2 and path[2] in _NAMED else 3]


def _take_out(data: dict[str, Any], path: KeyPath, findings: Findings) -> None:
    findings.dropped.add(path or ("cloud",))
    if not path:  # only the cloud's name can be missing at the top
        data["cloud"] = "cloud"
        return
    holder: Any = data
    for part in path[:-1]:
        holder = holder.get(part, {}) if isinstance(holder, dict) else {}
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
    else:
        _take_out(data, path[:-1], findings)
    if path == ("cloud",):
        data["cloud"] = "cloud"


def path_in(data: Any, loc: Iterable[str | int]) -> KeyPath:
    """The part of an error's location that is there in the data; pydantic adds names of types and missing keys."""
    path: list[str | int] = []
    for part in loc:
        match data, part:
            case dict(), _ if part in data:
                data = data[part]
            case list(), int() if part < len(data):
                data = data[part]
            case _:
                continue
        path.append(part)
    return tuple(path)


def _missing_todo(loc: tuple[str | int, ...]) -> str:
    return "give the cloud a name: cloud: NAME" if loc == ("cloud",) else f"add {loc[-1]}: to it"


def unknown_key(loc: tuple[str | int, ...], model: type[BaseModel] = Spec) -> tuple[str, str]:
    """What an unknown key is, and the nearest right one of that model."""
    key = str(loc[-1])
    known = _keys_at(loc[:-1], model)
    todo = nearest(key, known)
    if not todo.startswith("did you mean") and _ALIASES.get(key) in known:
        todo = f"did you mean {_ALIASES[key]}?"
    return "unknown key", todo.replace("there is:", "keys here:")


def _keys_at(loc: tuple[str | int, ...], model: type[BaseModel] = Spec) -> set[str]:
    """The keys the model has at this place."""
    found: set[type[BaseModel]] = {model}
    annotations: list[Any] = [model]
    for part in loc:
        inner = [_inside(annotation, part) for annotation in annotations]
        annotations = [annotation for group in inner for annotation in group]
        found = {
            annotation
            for annotation in annotations
            if isinstance(annotation, type) and issubclass(annotation, BaseModel)
        }
    return {info.alias or name for model in found for name, info in model.model_fields.items()}


def _inside(annotation: Any, part: str | int) -> list[Any]:
    """The types a value of this type has at a key or index."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [
            choice
            for name, info in annotation.model_fields.items()
            if part in (name, info.alias)
            for choice in _choices(info.annotation)
        ]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return _choices(args[1])
    if origin is list and isinstance(part, int):
        return _choices(args[0])
    return [annotation]  # the name of a type that pydantic put into the location


def _choices(annotation: Any) -> list[Any]:
    """A type taken apart: the members of a union, without annotations."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _choices(args[0])
    if origin is typing.Union or type(annotation).__name__ == "UnionType":
        return [choice for arg in args for choice in _choices(arg)]
    return [annotation]


def sentence(detail: ErrorDetails) -> tuple[str, str]:
    """What a wrong value is, and what to do."""
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            what, _, todo = str(context["error"]).partition(": write ")
            return what, f"write {todo}" if todo else ""
        case "int_type":
            quoted = isinstance(value, str) and re.fullmatch(r"\d+", value)
            return f"a whole number is needed, not {kind(value)}", f"write {value} without quotes" if quoted else ""
        case "bool_type":
            return f"true or false is needed, not {kind(value)}", _yes_no(value)
        case "enum" | "literal_error":
            return _one_of(value, context)
        case "string_type":
            return f"one value is needed, not {kind(value)}", ""
        case "dict_type" | "model_type" | "model_attributes_type":
            return (
                f"keys and values are needed, not {kind(value)}",
                "write {KEY: VALUE}, or indented lines of KEY: VALUE",
            )
        case "list_type":
            return f"a list is needed, not {kind(value)}", "write [ITEM, ITEM]"
        case "greater_than_equal" | "less_than_equal":
            bound = "at least" if "ge" in context else "at most"
            return f"{value} is out of range: it must be {bound} {context.get('ge', context.get('le'))}", ""
        case "string_pattern_mismatch":
            return f"{value!r} has characters that are not allowed here", ""
        case _:
            return detail["msg"], ""


def _yes_no(value: object) -> str:
    meant: Mapping[str, str] = {"yes": "true", "on": "true", "no": "false", "off": "false"}
    word = meant.get(str(value).lower())
    return f"write {word}" if word else ""


def _one_of(value: object, context: Mapping[str, Any]) -> tuple[str, str]:
    known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    if not isinstance(value, str):
        return f"{' or '.join(known)} is needed, not {kind(value)}", ""
    todo = nearest(value, known)
    return f"{value!r} is not one of {', '.join(known)}", todo if todo.startswith("did you mean") else ""
