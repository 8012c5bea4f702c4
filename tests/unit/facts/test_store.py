"""Facts saved and loaded: the same again; and what is wrong in a recording edited by hand is named."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plan.build import cloud, made, vm
from tests.unit.plan.simulate import Machine

from vmwright.errors import SpecError
from vmwright.facts.model import (
    BlockFacts,
    BootFacts,
    ConfigFacts,
    DeviceFacts,
    DiskFacts,
    DomainFacts,
    DomainState,
    Facts,
    GroupFacts,
    Held,
    HeldFacts,
    HostFacts,
    ImageFacts,
    IntentFacts,
    IommuFacts,
    Kvm,
    LinkFacts,
    NetworkFacts,
    NicFacts,
    OwnerFacts,
    PathFacts,
    Placement,
    PlatformFacts,
    PoolFacts,
    ThinFacts,
    Use,
    UseFacts,
    VolumeFacts,
)
from vmwright.facts.store import dumps, load, loads

KINDS = (BlockFacts, BootFacts, ConfigFacts, DeviceFacts, DiskFacts, DomainFacts, GroupFacts, HeldFacts, HostFacts,
         ImageFacts, IntentFacts, IommuFacts, LinkFacts, NetworkFacts, NicFacts, OwnerFacts, PathFacts, Placement,
         PlatformFacts, PoolFacts, ThinFacts, UseFacts, VolumeFacts)

st.register_type_strategy(float, st.floats(0, 100))  # percents: there is no other number with a fraction in facts


@pytest.fixture(scope="module")
def facts() -> Facts:
    """Facts of a host on which something of every kind is there."""
    machine = made(cloud(vm(disks="{data: 2G}")))
    thin = ThinFacts("thin", 1 << 30, 4 << 20, 12.34, 0.5, monitored=True)
    host = replace(machine.facts(cloud()), intents=(IntentFacts("lab", "db", "boot", ("/a",), "i"),),
                   blocks=(BlockFacts("/dev/sda4", 1 << 30, "part", ("/dev/sda",), mounts=("[SWAP]",)),),
                   groups=(GroupFacts("vg", 2 << 30, 1 << 30, 4 << 20, ("/dev/sda4",), thin=(thin,)),),
                   devices=(DeviceFacts("0000:05:00.0", "144d:a80a", "010802", uses=(UseFacts(Use.VM, "db"),)),),
                   iommu=IommuFacts(True, "DMAR"), held=(HeldFacts("0000:05:00.0", "S1", "lab", "db", Held.WIPED),))
    return Facts((host,), (ImageFacts("/a", "0" * 64, 7),))


def test_facts_have_something_of_every_kind(facts: Facts) -> None:
    seen = set()

    def visit(value: Any) -> None:
        if is_dataclass(value):
            seen.add(type(value))
            for field in fields(value):
                visit(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                visit(item)

    visit(facts)
    assert seen == {Facts, *KINDS}


def test_what_is_saved_is_loaded(facts: Facts, tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text(dumps(facts))
    assert load(str(file)) == facts


@given(st.from_type(HostFacts))
def test_any_facts_are_loaded_as_they_were_saved(host: HostFacts) -> None:
    found = Facts((host,))
    assert loads(dumps(found), "facts.json") == found


def test_enums_are_words(facts: Facts) -> None:
    row = json.loads(dumps(facts))["hosts"][0]
    assert row["kvm"] == "works" and row["domains"][0]["state"] == "running"


def test_old_recordings_without_later_fields_are_loaded() -> None:
    data = json.loads(dumps(Facts((Machine().facts(cloud()),))))
    for optional in ("machine", "kvm_device_mode", "user", "paths", "intents", "blocks", "groups"):
        del data["hosts"][0][optional]
    assert loads(json.dumps(data), "f").hosts[0].machine == "q35"


def edited(facts: Facts, *path: Any, value: Any = None, remove: bool = False, rename: str = "") -> str:
    """Saved facts with one value changed by hand."""
    data = json.loads(dumps(facts))
    place = data
    for key in path[:-1]:
        place = place[key]
    if remove or rename:
        value = place.pop(path[-1])
    if not remove:
        place[rename or path[-1]] = value
    return json.dumps(data)


HOST = ("hosts", 0)
WEB = (*HOST, "domains", 0)


@pytest.mark.parametrize(("path", "how", "said"), [
    ((*HOST, "memory"), {"value": "much"}, "hosts[0].memory: Input should be a valid integer"),
    ((*HOST, "memory"), {"value": "64"}, "hosts[0].memory: Input should be a valid integer"),
    ((*HOST, "memory"), {"remove": True}, "hosts[0].memory: Field required"),
    ((*HOST, "kvm"), {"value": "perhaps"}, "hosts[0].kvm: Input should be 'works', 'broken' or 'absent'"),
    ((*HOST, "uefi"), {"value": 1}, "hosts[0].uefi: Input should be a valid boolean"),
    ((*WEB, "state"), {"value": "on"}, "hosts[0].domains[0].state: Input should be 'running', 'paused', 'shut off' or "
                                       "'crashed'"),
    ((*WEB, "persistent", "vcpus"), {"value": 1.5},
     "hosts[0].domains[0].persistent.vcpus: Input should be a valid integer"),
    ((*WEB, "persistent", "disks"), {"value": {}},
     "hosts[0].domains[0].persistent.disks: Input should be a valid array"),
    ((*HOST, "user"), {"rename": "usr"}, "hosts[0].usr: no such key"),
    ((*WEB, "persistent", "owner", "protect"), {"rename": "protected"},
     "hosts[0].domains[0].persistent.owner.protected: no such key"),
    (("hosts",), {"value": {}}, "hosts: Input should be a valid array"),
    (("format",), {"value": 2}, "format: these are facts of format 2; this vmwright reads 1"),
])
def test_a_mistake_is_named_with_its_place(facts: Facts, path: tuple[Any, ...], how: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(edited(facts, *path, **how), "host.json")
    assert str(caught.value) == (
        f"host.json: {said}\n    record the host anew with `vmwright facts --json`\n"
        "host.json does not hold facts as vmwright records them")


@pytest.mark.parametrize(("text", "said"), [
    ("", "host.json: the file: Invalid JSON: EOF while parsing a value at line 1 column 0"),
    ("{", "host.json: the file: Invalid JSON: EOF while parsing an object at line 1 column 1"),
    ("[]", "host.json: the file: Input should be an object"),
    ("cloud: lab", "host.json: the file: Invalid JSON: expected value at line 1 column 1"),
    ("{}", "host.json: hosts: Field required"),
])
def test_what_is_no_facts_at_all(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(text, "host.json")
    assert str(caught.value).splitlines()[0] == said


def test_only_the_first_mistakes_are_told() -> None:
    text = json.dumps({"hosts": [{}]})
    with pytest.raises(SpecError) as caught:
        loads(text, "host.json")
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "host.json does not hold facts as vmwright records them, and 2 more"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(str(tmp_path / "none.json"))
    assert str(caught.value).startswith(f"cannot read facts from {tmp_path}/none.json: [Errno 2] No such file")
    assert str(caught.value).endswith("    record them with `vmwright facts --json`\nno facts")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"cannot read facts from .*binary: 'utf-8' codec can't decode"):
        load(str(tmp_path / "binary"))


def test_a_host_is_found_by_its_name(facts: Facts) -> None:
    assert facts.host("here") is facts.hosts[0]
    with pytest.raises(KeyError):
        facts.host("there")


def test_words_are_words() -> None:
    assert [str(kvm) for kvm in Kvm] == ["works", "broken", "absent"]
    assert DomainState("shut off") is DomainState.SHUTOFF
