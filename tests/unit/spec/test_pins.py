"""Pins: what they mean, dealt out in groups, and what the file alone tells about them."""

from __future__ import annotations

import pytest

from vmwright.spec.cloud import ANY_PAGES, Cloud, MemoryPolicy, PinSpec
from vmwright.units import GIB, MIB

from .conftest import Desk


def pins(cloud: Cloud) -> list[PinSpec | None]:
    return [vm.pin for vm in cloud.vms]


@pytest.mark.parametrize(("pin", "meant"), [
    ("24-27", PinSpec((24, 25, 26, 27))), ("3", PinSpec((3,))), ('"0,8-9"', PinSpec((0, 8, 9))),
    ("{cpus: 3}", PinSpec((3,))),
    ('{cpus: 2-3, emulator: "6,7", memory: preferred}', PinSpec((2, 3), (6, 7), MemoryPolicy.PREFERRED)),
    ("{cpus: 2, emulator: 6}", PinSpec((2,), (6,))),
    ("{cpus: 2, hugepages: true}", PinSpec((2,), hugepages=ANY_PAGES)),
    ("{cpus: 2, hugepages: false}", PinSpec((2,), hugepages=0)),
    ("{cpus: 2, hugepages: 2M}", PinSpec((2,), hugepages=2 * MIB)),
    ("{cpus: 2, hugepages: 1G}", PinSpec((2,), hugepages=GIB)),
])  # fmt: skip
def test_what_a_pin_means(desk: Desk, pin: str, meant: PinSpec) -> None:
    assert pins(desk.vms(f"vms: {{a: {{template: base, pin: {pin}}}}}")) == [meant]


def test_lists_are_dealt_out_in_a_mapping_too(desk: Desk) -> None:
    for text in ("pin: [0-1, 2-3, 4]", "pin: {cpus: [0-1, 2-3, 4]}", "pin: [{cpus: 0-1}, 2-3, {cpus: 4}]"):
        cloud = desk.vms(f"vms: {{g: {{count: 3, template: base, {text}}}}}")
        assert pins(cloud) == [PinSpec((0, 1)), PinSpec((2, 3)), PinSpec((4,))]
        assert not cloud.warnings
    cloud = desk.vms("vms: {g: {count: 2, template: base, pin: {cpus: [0, 1], emulator: [4, 5], memory: preferred}}}")
    assert pins(cloud) == [PinSpec((n,), (n + 4,), MemoryPolicy.PREFERRED) for n in (0, 1)]


def test_a_dealt_list_in_a_mapping_is_as_long_as_the_group(desk: Desk) -> None:
    assert desk.wrong("vms: {g: {count: 3, template: base, pin: {cpus: [0, 1], hugepages: 1G}}}") == [
        "cloud.yaml:6:49: vms.g.pin.cpus: the list has 2 items, but the group has 3 VMs\n"
        "    give 3, one for each VM, or one value for all"]
    assert desk.wrong("vms: {g: {count: 2, template: base, pin: {cpus: [0, x]}}}") == [
        "cloud.yaml:6:53: vms.g.pin.cpus.1: 'x' is not a CPU list\n    write numbers and ranges, like 0-3,8"]


def test_pages_of_a_member_are_told_where_they_stand(desk: Desk) -> None:
    text = "{count: 2, template: base, memory: [1G, 1.5G], pin: {cpus: [0, 1], hugepages: 1G}}"
    assert desk.wrong(f"vms: {{g: {text}}}") == [
        "cloud.yaml:6:88: vms.g.pin.hugepages: 1.5G of memory are not whole pages of 1G\n"
        "    say `memory: 1G or 2G`, or other pages"]  # fmt: skip


@pytest.mark.parametrize(("vm", "warning"), [
    ("pin: 4", "a.pin: 2 vCPUs on 1 CPU: they will wait for each other"),
    ("pin: {cpus: 4-5, emulator: 5-6}", "a.pin.emulator: CPU 5 is a vCPU's, too: it will wait for the emulator"),
    ("count: 2, pin: 4-5", "a.pin: all 2 VMs of the group run on CPUs 4-5; for CPUs of their own, give a list of 2"),
    ("count: 2, pin: {cpus: 4-5, emulator: [1, 2]}", "a.pin: all 2 VMs of the group run on CPUs 4-5; for CPUs of their "
                                                     "own, give a list of 2"),
])  # fmt: skip
def test_what_may_be_a_mistake(desk: Desk, vm: str, warning: str) -> None:
    told = desk.vms(f"vms: {{a: {{template: base, vcpus: 2, {vm}}}}}").warnings
    assert [text.partition(" vms.")[2] for text in told] == [warning]


@pytest.mark.parametrize("vm", ["pin: 4-5", "pin: 4-7", "pin: {cpus: 4-7, emulator: 4}", "count: 1, pin: 4-5"])
def test_what_is_no_mistake(desk: Desk, vm: str) -> None:
    assert desk.vms(f"vms: {{a: {{template: base, vcpus: 2, {vm}}}}}").warnings == ()


@pytest.mark.parametrize(("pin", "place"), [
    ("auto", "6:39"), ("{cpus: auto}", "6:45"), ("[auto, auto]", "6:39")])
def test_an_automatic_choice_comes_later(desk: Desk, pin: str, place: str) -> None:
    cloud = desk.vms(f"vms: {{web: {{template: base, count: 2, pin: {pin}}}}}")
    key = "vms.web.pin.cpus: auto" if "{" in pin else "vms.web.pin: auto"
    assert [(note.key, str(note.where).rpartition("yaml:")[2]) for note in cloud.not_yet] == [(key, place)]
    assert pins(cloud) == [None, None]
