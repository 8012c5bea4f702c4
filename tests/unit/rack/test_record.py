"""What is kept of racks: names, places, ports, and what happens when two work on one."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from vmwright.errors import Busy, HostError, UsageError
from vmwright.host.daemon import Process
from vmwright.rack import record
from vmwright.rack.contents import Image
from vmwright.rack.record import Disks
from vmwright.rack.shape import REFERENCE


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_record_is_read_as_it_was_written() -> None:
    full = replace(record.enroll("lab", None), disks=Disks(Image.BARE, "/cache/bare.qcow2", REFERENCE), kvm=True,
                   process=Process(42, 4242, "boot"), boot_seconds=51.5)
    record.write(full)
    assert record.read("lab") == full
    assert full.folder.stat().st_mode & 0o777 == 0o700


def test_each_rack_has_a_place_an_address_and_a_port_of_its_own() -> None:
    one, two = record.enroll("one", None), record.enroll("two", None)
    assert (one.slot, one.address, two.slot, two.address) == (1, "192.168.6.200/24", 2, "192.168.6.199/24")
    assert one.port != two.port
    assert record.enroll("one", None) == one
    (one.folder / "rack.json").unlink()
    assert record.enroll("three", None).slot == 1
    assert [rack.name for rack in record.everyone()] == ["three", "two"]


def test_a_port_that_is_listened_on_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not record.port_is_free(port)
    assert record.port_is_free(port)
    first = record.free_port(())
    assert record.free_port({first}) > first


def test_a_port_that_is_another_racks() -> None:
    record.enroll("one", 22500)
    with pytest.raises(UsageError) as caught:
        record.enroll("two", 22500)
    assert str(caught.value) == "port 22500 is rack one's\n  do:  name another one: --port N"
    assert record.enroll("one", 22501).port == 22501


@pytest.mark.parametrize("name", ["", "Lab", "-a", "a.b", "../x", "x" * 41, "journal", "cache"])
def test_names_that_no_rack_can_have(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        record.enroll(name, None)
    assert str(caught.value) == (
        f"{name!r} cannot be the name of a rack\n  why: it becomes its host name, and a folder's name\n"
        "  do:  take up to 40 lower-case letters, digits and -, not journal or cache")
    assert not record.racks_folder().exists()


def test_a_rack_that_is_not_there() -> None:
    record.enroll("lab-1", None)
    with pytest.raises(UsageError) as caught:
        record.known("lab1")
    assert str(caught.value) == (
        "there is no rack lab1\n  do:  did you mean lab-1?\n       make it: vmwright rack up lab1")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": "lab"}', "\0"])
def test_a_record_that_cannot_be_read(text: str) -> None:
    made = record.enroll("lab", None)
    (made.folder / "rack.json").write_text(text)
    with pytest.raises(HostError) as caught:
        record.read("lab")
    assert caught.value.what == f"the record of rack lab cannot be read: {made.folder}/rack.json"
    assert caught.value.todo == f"remove {made.folder} if no QEMU uses it, and start the rack anew"


def test_two_at_once() -> None:
    with record.alone("lab"), record.alone("other"), pytest.raises(Busy) as caught, record.alone("lab"):
        pass
    assert str(caught.value) == "another vmwright works on rack lab\n  do:  wait until it is done"
    with record.alone("lab"):
        pass


def test_a_state_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(HostError) as caught:
        record.enroll("lab", None)
    assert caught.value.why == "Not a directory"
    assert caught.value.todo == "set XDG_STATE_HOME to a directory that you can write to"
