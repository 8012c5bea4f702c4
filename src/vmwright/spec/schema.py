"""The JSON Schema of the spec, for editors and for the reference in the docs: generated from the model."""

from __future__ import annotations

from typing import Any

from vmwright.spec.model import DEALT, DEALT_NIC, DEALT_PIN, Spec
from vmwright.spec.values import IDENTIFIER, LABEL, USER

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMES = {
    "hosts": IDENTIFIER, "networks": IDENTIFIER, "users": USER, "templates": LABEL, "vms": LABEL,
}  # fmt: skip


def generate() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of one whole file. A file that is included may lack `cloud`."""
    schema: dict[str, Any] = _without_null(Spec.model_json_schema(by_alias=True, mode="validation"))
    definitions = schema["$defs"]
    for model, keys in (("VmIn", DEALT), ("NicIn", DEALT_NIC), ("PinIn", DEALT_PIN)):
        properties = definitions[model]["properties"]
        for key in sorted(keys & properties.keys()):
            properties[key] = _dealt(properties[key])
    for section, name in _NAMES.items():
        schema["properties"][section]["propertyNames"] = {"pattern": f"^{name.pattern}$"}
        entry = schema["properties"][section]["additionalProperties"]
        schema["properties"][section]["additionalProperties"] = {"anyOf": [entry, {"type": "null"}]}
    for section in (*_NAMES, "defaults"):
        schema["properties"][section] = _or_empty(schema["properties"][section])
    return {"$schema": DIALECT, **schema, "title": "vmwright spec"}


def _or_empty(section: dict[str, Any]) -> dict[str, Any]:
    """A section may be there and say nothing."""
    description = section.pop("description")
    return {"description": description, "anyOf": [section, {"type": "null"}]}


def _dealt(schema: dict[str, Any]) -> dict[str, Any]:
    """What a key of a group may hold: one value, or a list of values, one for each VM."""
    one = {key: value for key, value in schema.items() if key != "description"}
    return {**_words(schema), "anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _without_null(schema: Any) -> Any:
    """The schema without "or null" (a key without a value is an error), "default: null" and made-up titles."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    idle = {"title"} if isinstance(schema.get("title"), str) else set()
    idle |= {"default"} if schema.get("default") is None else set()
    kept = {key: _without_null(value) for key, value in schema.items() if key not in idle}
    choices = kept.get("anyOf")
    if isinstance(choices, list):
        choices = [choice for choice in choices if choice != {"type": "null"}]
        if len(choices) == 1:
            kept = {**{key: value for key, value in kept.items() if key != "anyOf"}, **choices[0], **_words(kept)}
        else:
            kept["anyOf"] = choices
    return kept


def _words(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}
