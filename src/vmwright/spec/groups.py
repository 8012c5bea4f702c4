"""Groups counted out: `count: 3` becomes three VMs, lists dealt out one item each, defaults filled in. Plain data only.

Done before the model looks at the values, so that the model describes one VM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmwright.errors import Problem
from vmwright.spec.model import DEALT, DEALT_NIC, DEALT_PIN, CommonIn
from vmwright.spec.yaml import KeyPath, Mark

_SHARED = frozenset(info.alias or name for name, info in CommonIn.model_fields.items())
_LARGEST = 1000


@dataclass(frozen=True)
class Member:
    """A VM and where its values come from. `index` counts from 0; `count` is None for a VM that is no group.

    `own` are the keys the file says for this VM or group; the others come from defaults. `dealt` are the paths (below
    the VM) of lists it got one item of.
    """

    group: str
    index: int = 0
    count: int | None = None
    own: frozenset[str] = frozenset()
    dealt: frozenset[KeyPath] = frozenset()


@dataclass(frozen=True)
class Groups:
    """Every VM by name, and the way back from its values to the file."""

    members: Mapping[str, Member] = field(default_factory=dict)

    def source(self, path: KeyPath) -> KeyPath:
        """The path in the file of a path in the counted-out spec."""
        member = self.members.get(str(path[1])) if len(path) > 1 and path[0] == "vms" else None
        if member is None:
            return path
        if len(path) > 2 and path[2] not in member.own and path[2] in _SHARED:
            return ("defaults", *path[2:])
        rest = path[2:]
        for length in range(len(rest), 0, -1):
            if rest[:length] in member.dealt:
                rest = (*rest[:length], member.index, *rest[length:])
        return ("vms", member.group, *rest)


@dataclass
class Expansion:
    """The counted-out data, the way back, what is wrong with groups, and the paths that were left out because of it."""

    data: dict[str, Any]
    groups: Groups = field(default_factory=Groups)
    problems: list[Problem] = field(default_factory=list)
    dropped: set[KeyPath] = field(default_factory=set)


def expand(data: Mapping[str, Any], marks: Mapping[KeyPath, Mark]) -> Expansion:
    """The data with groups counted out. The data given is not changed, and what is returned may be."""
    copied = {section: _copy_entries(value) for section, value in data.items()}
    result = Expansion(copied)
    vms = data.get("vms")
    if not isinstance(vms, dict):
        return result
    defaults = copied.get("defaults")
    shared = {key: value for key, value in defaults.items() if key in _SHARED} if isinstance(defaults, dict) else {}
    members: dict[str, Member] = {}
    out: dict[str, Any] = {}
    for name, raw in vms.items():
        for vm, member, values in _count_out(name, raw, marks, result):
            if vm in members:
                _clash(vm, name, members[vm].group, marks, result)
                continue
            members[vm] = member
            out[vm] = {**shared, **values} if isinstance(values, dict) else values
    copied["vms"] = out
    result.groups = Groups(members)
    return result


def _copy_entries(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: dict(entry) if isinstance(entry, dict) else entry for name, entry in value.items()}
    return value


def _clash(vm: str, name: str, other: str, marks: Mapping[KeyPath, Mark], result: Expansion) -> None:
    first, second = marks[("vms", other)].key, marks[("vms", name)].key
    what = f"vms.{name}: the name {vm} is used twice: also by {other} at {first}"
    result.problems.append(
        Problem(what, "a group NAME with count: N has the VMs NAME-1 to NAME-N; rename one of the two", second)
    )


def _count_out(name: str, raw: Any, marks: Mapping[KeyPath, Mark], result: Expansion) -> list[tuple[str, Member, Any]]:
    """The VMs of one entry: name, origin and values."""
    if not isinstance(raw, dict):
        return [(name, Member(name), raw)]
    count = raw.get("count")
    grouped = isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= _LARGEST
    dealt, wrong = _dealt_lists(name, raw, count if grouped else None, marks, result)
    own = frozenset(raw)
    kept = {key: value for key, value in raw.items() if key not in wrong}
    members = []
    for index in range(count if isinstance(count, int) and grouped else 1):
        vm = f"{name}-{index + 1}" if grouped else name
        member = Member(name, index, count if grouped else None, own, dealt)
        members.append((vm, member, _deal(kept, dealt, index) if dealt else dict(kept)))
        result.dropped |= {("vms", vm, key) for key in wrong}
    return members


def _dealt_lists(
    name: str, raw: dict[str, Any], count: int | None, marks: Mapping[KeyPath, Mark], result: Expansion
) -> tuple[frozenset[KeyPath], set[str]]:
    """The paths of lists to deal out, and the keys that cannot be."""
    paths: list[KeyPath] = [(key,) for key in DEALT if isinstance(raw.get(key), list) and (key != "devices" or count)]
    wrong = set()
    for path in (*paths, *_inner_lists(raw)):
        items = len(_get(raw, path))
        if items != count:
            result.problems.append(_wrong_length(name, path, items, count, marks))
            wrong.add(str(path[0]))
    return frozenset(path for path in (*paths, *_inner_lists(raw)) if path[0] not in wrong), wrong


def _inner_lists(raw: dict[str, Any]) -> Iterator[KeyPath]:
    """The paths of lists within a mapping that may be dealt out."""
    pin, nics = raw.get("pin"), raw.get("nics")
    if isinstance(pin, dict):
        yield from (("pin", key) for key in DEALT_PIN if isinstance(pin.get(key), list))
    for position, nic in enumerate(nics if isinstance(nics, list) else ()):
        if isinstance(nic, dict):
            yield from (("nics", position, key) for key in DEALT_NIC if isinstance(nic.get(key), list))


def _wrong_length(name: str, path: KeyPath, items: int, count: int | None, marks: Mapping[KeyPath, Mark]) -> Problem:
    where = marks[("vms", name, *path)].value
    key = ".".join(map(str, path))
    if count is None:
        todo = (
            "write one value"
            + (', a CPU list like "0-3,8"' if path[0] == "pin" else "")
            + ", or make it a group with count:"
        )
        return Problem(f"vms.{name}.{key}: a list, but {name} is one VM", todo, where)
    have = f"{items} item{'s' if items != 1 else ''}"
    what = f"vms.{name}.{key}: the list has {have}, but the group has {count} VM{'s' if count != 1 else ''}"
    return Problem(
        what, f"give {count}, one for each VM" + ("" if key in ("devices", "mac") else ", or one value for all"), where
    )


def _get(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _deal(values: dict[str, Any], dealt: frozenset[KeyPath], index: int) -> dict[str, Any]:
    """The values of the VM with that index."""
    mine = dict(values)
    for path in dealt:
        if len(path) == 1:
            mine[str(path[0])] = values[str(path[0])][index]
        elif path[0] == "pin":
            mine["pin"] = {**mine["pin"], path[1]: values["pin"][path[1]][index]}
    if "nics" in values and isinstance(values["nics"], list):
        mine["nics"] = [
            {key: value[index] if ("nics", position, key) in dealt else value for key, value in nic.items()}
            if isinstance(nic, dict)
            else nic
            for position, nic in enumerate(values["nics"])
        ]
    return mine
