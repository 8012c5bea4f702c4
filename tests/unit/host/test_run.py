"""Processes, for real: outputs, limits, cancelling, and that nothing outlives vmwright."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vmwright.errors import Cancelled, HostError
from vmwright.host.local import LocalHost
from vmwright.host.run import environment, lifeline, run

HOST = LocalHost("here")


def until(true: Callable[[], object]) -> None:
    """Wait until something becomes so."""
    for _ in range(1200):
        if true():
            return
        time.sleep(0.025)
    pytest.fail("waited half a minute in vain")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def written(path: Path) -> list[int]:
    """The process numbers in a file, when it is there."""
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def test_both_outputs_and_the_code() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.code, done.stdout, done.stderr, done.text) == (3, b"out\n", b"err\n", "out")


def test_a_failure_shows_a_command_to_paste_and_its_last_words() -> None:
    with pytest.raises(HostError) as caught:
        run(["sh", "-c", "seq 20 >&2; exit 4"])
    assert caught.value.what == "sh failed with code 4"
    command, *words = caught.value.why.splitlines()
    assert command == "command: sh -c 'seq 20 >&2; exit 4'"
    assert words == [str(number) for number in range(9, 21)]


def test_what_is_said_on_the_other_stream_counts_when_stderr_is_silent() -> None:
    with pytest.raises(HostError, match="sh failed with code 1") as caught:
        run(["sh", "-c", "echo reason; exit 1"])
    assert caught.value.why.endswith("\nreason")


def test_a_missing_program() -> None:
    with pytest.raises(HostError) as caught:
        run(["no-such-program-here"])
    assert (caught.value.what, caught.value.todo) == (
        "no-such-program-here is not installed here", "install the package that has no-such-program-here")


def test_input_arrives_and_large_outputs_do_not_block() -> None:
    data = os.urandom(1 << 20)
    done = run(["sh", "-c", "cat; head -c 1000000 /dev/zero >&2"], input=data)
    assert (done.stdout, len(done.stderr)) == (data, 1_000_000)


def test_a_command_that_does_not_read_its_input() -> None:
    assert run(["true"], input=bytes(1 << 20)).code == 0


def test_without_input_standard_input_is_empty() -> None:
    assert run(["cat"]).stdout == b""


def test_the_environment_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    found = dict(line.split("=", 1) for line in run(["env"], env={"MORE": "1"}).text.splitlines())
    assert "SECRET_TOKEN" not in found
    assert (found["LC_ALL"], found["LANG"], found["MORE"]) == ("C.UTF-8", "C.UTF-8", "1")
    monkeypatch.delenv("PATH")
    assert environment()["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"


def test_lines_come_one_by_one_and_carriage_returns_end_them() -> None:
    lines = list[str]()
    done = run(["printf", "10%%\\r20%%\\r\\n30%%\\n\\nend"], on_line=lines.append)
    assert lines == ["10%", "20%", "30%", "end"]
    assert done.stdout == b"10%\r20%\r\n30%\n\nend", "the output itself is kept as it came"


def test_a_time_limit(tmp_path: Path) -> None:
    """It ends the command with all that it started."""
    pids = tmp_path / "pids"
    with pytest.raises(HostError) as caught:
        HOST.run(["sh", "-c", f"sleep 600 & echo $! $$ > {pids}; wait"], timeout=1)
    assert caught.value.what == "sh did not end within 1 s"
    assert "sleep 600" in caught.value.why
    until(lambda: not any(map(alive, written(pids))))


def test_cancelling(tmp_path: Path) -> None:
    """Grandchildren end, too."""
    cancel, pids = threading.Event(), tmp_path / "pids"
    threading.Thread(target=lambda: (until(lambda: len(written(pids)) == 2), cancel.set())).start()
    with pytest.raises(Cancelled, match="stopped: sh -c"):
        HOST.run(["sh", "-c", f"sleep 600 & echo $! $$ > {pids}; wait"], cancel=cancel)
    until(lambda: not any(map(alive, written(pids))))


def test_a_command_that_can_be_cancelled_is_else_the_same() -> None:
    done = HOST.run(["sh", "-c", "cat; echo out; echo err >&2; exit 5"], cancel=threading.Event(), check=False)
    assert (done.code, done.stdout, done.stderr) == (5, b"out\n", b"err\n")
    assert done.argv == ("sh", "-c", "cat; echo out; echo err >&2; exit 5"), "an error shows the command that was meant"


def test_a_kill_of_vmwright_ends_what_it_runs(tmp_path: Path) -> None:
    """Even kill -9, which nobody can catch: the watcher sees our end of the pipe close."""
    pids = tmp_path / "pids"
    program = ("import sys, threading\nfrom vmwright.host.local import LocalHost\n"
               "LocalHost('here').run(['sh', '-c', sys.argv[1]], cancel=threading.Event())")
    parent = subprocess.Popen([sys.executable, "-c", program, f"sleep 600 & echo $! $$ > {pids}; wait"],
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    until(lambda: len(written(pids)) == 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not any(map(alive, written(pids))))


def test_the_lifeline_is_one_argv_list() -> None:
    """Words are passed on, never read by a shell again."""
    assert lifeline(["echo", "$(id)", "a b"])[-2:] == ["$(id)", "a b"]
    assert HOST.run(["echo", "$(id)", "a b", "*"], cancel=threading.Event()).text == "$(id) a b *"


def test_a_grandchild_that_keeps_the_output_open_does_not_keep_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmwright.host.run._LINGER", 0.5)
    pid = tmp_path / "pid"
    try:
        assert run(["sh", "-c", f"echo out; sleep 600 & echo $! > {pid}"]).stdout == b"out\n"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_writing_is_atomic(tmp_path: Path) -> None:
    """The directory is made, the mode is set, and nothing else is left."""
    path = tmp_path / "new" / "file"
    HOST.write(str(path), b"one", mode=0o600)
    old = path.open("rb")
    HOST.write(str(path), b"two")
    assert (old.read(), path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", b"two", 0o644)
    old.close()
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError) as caught:
        HOST.write(str(tmp_path / "file" / "below"), b"")
    assert caught.value.what == f"cannot write {tmp_path}/file/below"
    assert caught.value.why in ("Not a directory", "File exists")


def test_uploading_keeps_holes(tmp_path: Path) -> None:
    source, sent = tmp_path / "source", list[int]()
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    HOST.upload(str(source), str(tmp_path / "there" / "copy"), on_bytes=sent.append)
    copy = tmp_path / "there" / "copy"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20
    assert sent == [64 << 20]
    assert list(copy.parent.iterdir()) == [copy]
