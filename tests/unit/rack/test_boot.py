"""Starts that do not end in a log in: recognised, told, tried once more. The processes are real, and no servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vmwright.errors import Cancelled, HostError
from vmwright.host import daemon
from vmwright.rack import boot, machine, qmp, record
from vmwright.rack.firmware import Firmware
from vmwright.rack.machine import Machine
from vmwright.rack.record import Record
from vmwright.rack.shape import REFERENCE

Run = Callable[[list[str]], tuple[HostError, list[str]]]
MACHINE = Machine("lab", "deb5b636-441d-5b68-8f77-7d0aaf133486", REFERENCE,
                  Firmware("/none", "raw", "/none", "raw"), False, 9)


@pytest.fixture
def rack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return record.enroll("lab", 9)  # nobody answers there


@pytest.fixture
def fail(rack: Record, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Boot with another command in QEMU's place; the error, and what was told."""

    def run(command: list[str]) -> tuple[HostError, list[str]]:
        monkeypatch.setattr(machine, "argv", lambda _made: command)
        told: list[str] = []
        with pytest.raises(HostError) as caught:
            boot.boot(rack, MACHINE, lambda text, _share: told.append(text), threading.Event())
        return caught.value, told

    return run


def started(rack: Record) -> int:
    """How many times something was started, by the rack's log."""
    return (rack.folder / boot.LOG).read_text().count("QEMU started")


@pytest.mark.parametrize("words", [
    "ERROR:tcg.c:12: assertion failed", "qemu-system-x86_64: a.c:1: f: Assertion failed"])
def test_a_crash_is_told_and_tried_once_more(fail: Run, rack: Record, words: str) -> None:
    error, told = fail(["sh", "-c", f"echo '{words}' >&2; kill -ABRT $$"])
    assert error.what == "rack lab did not come up"
    assert [line.split(" s: ")[1] for line in error.why.splitlines()[:2]] == [words] * 2
    again = [text for text in told if text.endswith("; trying once more")]
    assert len(again) == 1 and again[0].startswith("the rack did not come up: QEMU ended after ")
    assert started(rack) == 2
    assert "start 1: QEMU ended after" in (rack.folder / boot.LOG).read_text()


def test_what_qemu_refuses_is_not_tried_again(fail: Run, rack: Record) -> None:
    error, told = fail(["qemu-system-x86_64", "-machine", "no-such-machine"])
    assert "qemu-system-x86_64: unsupported machine type" in error.why
    assert "trying once more" not in " ".join(told) and started(rack) == 1


@pytest.mark.parametrize(("limit", "does"), [
    ("_SILENT_IDLE", "exec sleep 600"), ("_SILENT_CPU", "while :; do :; done")])
def test_a_hang_is_ended_and_tried_once_more(
    fail: Run, rack: Record, monkeypatch: pytest.MonkeyPatch, limit: str, does: str
) -> None:
    monkeypatch.setattr(boot, limit, 0.3)
    monkeypatch.setattr(boot, "_LOOK", 0.3)
    error, _ = fail(["sh", "-c", f"echo last words >> console.log; {does}"])
    assert "start 2: it hung: nothing on the console and no disk read for" in error.why
    assert error.why.endswith("last words")
    assert str(rack.folder / "console.log") in error.todo and "vmwright rack reset lab" in error.todo
    assert started(rack) == 2
    left = record.read("lab")
    assert left is not None and left.process is None


def test_one_that_talks_but_never_lets_anybody_in(fail: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_LONGEST", 1.0)
    monkeypatch.setattr(boot, "_LOOK", 0.2)
    error, _ = fail(["sh", "-c", "while :; do echo talk >> console.log; sleep 0.1; done"])
    assert "nobody could log in within 1 s" in error.why


def test_stopped_it_is_off(rack: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "argv", lambda _made: ["sleep", "600"])
    seen: list[daemon.Process] = []
    cancel = threading.Event()

    def tell(_text: str, _share: float | None) -> None:
        now = record.read("lab")
        if now and now.process:
            seen.append(now.process)
        cancel.set()

    with pytest.raises(Cancelled) as caught:
        boot.boot(rack, MACHINE, tell, cancel)
    assert str(caught.value) == "stopped: rack lab is off"
    assert seen and not daemon.alive(seen[0])


def test_the_console_of_the_last_start_is_kept(fail: Run, rack: Record) -> None:
    fail(["sh", "-c", "echo said >> console.log; exit 1"])
    assert "said" in (rack.folder / "console.log.1").read_text()
    assert (rack.folder / "console.log").read_text().startswith("-- start 2 at ")


def test_the_monitor_is_reached_in_a_folder_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    argv = ["qemu-system-x86_64", "-machine", "none", "-display", "none", "-nodefaults", "-qmp",
            f"unix:{machine.QMP},server=on,wait=off"]
    process = daemon.start(argv, folder=folder, log=folder / "log")
    try:
        while not (folder / machine.QMP).exists():
            assert daemon.alive(process), (folder / "log").read_text()
        assert qmp.ask(folder / machine.QMP, "query-status")["running"] is True
        with pytest.raises(HostError) as caught:
            qmp.ask(folder / machine.QMP, "no-such-command")
        assert caught.value.why == "The command no-such-command has not been found"
    finally:
        daemon.kill(process)
        daemon.wait(process, 30)
    with pytest.raises(HostError) as gone:
        qmp.ask(folder / machine.QMP, "query-status")
    assert gone.value.what == "the rack's QEMU does not answer"
