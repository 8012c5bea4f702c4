"""What all mappings of the spec have in common, and lists of which one item may stand without brackets."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from vmwright.spec import values as v


def listed(value: object) -> object:
    """A list; one value alone is the only item of one."""
    return value if isinstance(value, list) else [value]


class Base(BaseModel):
    """Every mapping of the spec: an unknown key is an error; a bare number is taken where text is meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, defer_build=True)


Texts = Annotated[list[str], BeforeValidator(listed, json_schema_input_type=str | list[str])]
Servers = Annotated[list[v.Server], BeforeValidator(listed, json_schema_input_type=str | list[str])]
Ips = Annotated[list[v.Ip], BeforeValidator(listed, json_schema_input_type=str | list[str])]
Domains = Annotated[list[v.Domain], BeforeValidator(listed, json_schema_input_type=str | list[str])]
