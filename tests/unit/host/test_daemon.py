"""Processes that outlive us: real ones, and numbers that belong to somebody else by now."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vmwright.errors import HostError
from vmwright.host import daemon


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[daemon.Process]:
    """A process that would sleep for long."""
    process = daemon.start(["sleep", "600"], folder=tmp_path, log=tmp_path / "log")
    yield process
    daemon.kill(process)
    assert daemon.wait(process, 30)


def test_it_runs_in_a_session_and_folder_of_its_own(sleeper: daemon.Process, tmp_path: Path) -> None:
    assert daemon.alive(sleeper)
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert os.readlink(f"/proc/{sleeper.pid}/cwd") == str(tmp_path)


def test_killed_it_is_gone(sleeper: daemon.Process) -> None:
    daemon.kill(sleeper)
    assert daemon.wait(sleeper, 30)
    assert not daemon.alive(sleeper)
    daemon.kill(sleeper)


def test_one_that_runs_is_waited_for_in_vain(sleeper: daemon.Process) -> None:
    assert not daemon.wait(sleeper, 0.01)


def test_what_it_says_is_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    process = daemon.start(["sh", "-c", "echo out; echo err >&2"], folder=tmp_path, log=tmp_path / "log")
    assert daemon.wait(process, 30)
    assert (tmp_path / "log").read_text() == "before\nout\nerr\n"


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "of another day"}])
def test_a_stranger_with_its_number_is_left_alone(tmp_path: Path, other: dict[str, object]) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        mine = daemon.start(["true"], folder=tmp_path, log=tmp_path / "log")
        recorded = replace(mine, pid=stranger.pid, **other)  # type: ignore[arg-type]
        assert not daemon.alive(recorded)
        daemon.kill(recorded)
        assert daemon.wait(recorded, 5)
        assert stranger.poll() is None
        stranger.kill()


def test_one_that_has_ended_and_was_not_laid_to_rest_does_not_run(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        text = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        process = daemon.Process(child.pid, int(text[19]), boot)
        assert daemon.alive(process)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and still there as a zombie
        assert not daemon.alive(process)


def test_one_whose_first_thread_has_ended_still_runs(tmp_path: Path) -> None:
    program = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); " \
        "ctypes.CDLL(None).syscall(60, 0)"  # exit of this thread alone
    process = daemon.start([sys.executable, "-c", program], folder=tmp_path, log=tmp_path / "log")
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert daemon.alive(process) and not daemon.wait(process, 0.01)
    daemon.kill(process)
    assert daemon.wait(process, 30)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        daemon.start(["no-such-program"], folder=tmp_path, log=tmp_path / "log")
    assert str(caught.value) == (
        "no-such-program is not installed here\n  do:  install the package that has no-such-program")
