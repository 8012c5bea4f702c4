"""The journal: order, what a kill leaves of it, and a disk that is full."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from vmwright.apply.journal import Journal, read, runs, under_way
from vmwright.errors import HostError


def test_events_stand_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "new", "apply") as journal:
        journal.write("started", action="a", changes=[["memory", "1G", "2G"]])
        journal.write("done", action="a", seconds=0.5)
    events = list(read(journal.path))
    assert [event["event"] for event in events] == ["begin", "started", "done", "end"]
    assert (events[0]["command"], events[0]["pid"]) == ("apply", os.getpid())
    assert events[1]["changes"] == [["memory", "1G", "2G"]]
    assert events[-1]["outcome"] == "done"
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_each_event_is_on_disk_before_the_next_thing_is_done(tmp_path: Path) -> None:
    with Journal(tmp_path, "apply") as journal:
        journal.write("started", action="a")
        assert [event["event"] for event in read(journal.path)] == ["begin", "started"]


def test_an_error_is_its_end(tmp_path: Path) -> None:
    with pytest.raises(HostError), Journal(tmp_path, "apply") as journal:
        raise HostError("no such host", why="the network is down")
    assert list(read(journal.path))[-1]["outcome"] == "HostError: no such host\n  why: the network is down"


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    """At every byte where a kill may have cut it off: all whole events, and nothing else."""
    with Journal(tmp_path, "apply") as journal:
        journal.write("started", action="a", why="ö")
    whole = journal.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole[:length])
        complete = sum(length >= sum(map(len, lines[:n + 1])) - 1 for n in range(len(lines)))
        assert len(list(read(journal.path))) == complete, whole[:length]


def test_several_threads(tmp_path: Path) -> None:
    """No line is torn by another."""
    with Journal(tmp_path, "apply") as journal:
        threads = [threading.Thread(target=lambda n=n: [journal.write("done", action=f"{n}-{i}") for i in range(200)])
                   for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = journal.path.read_text().splitlines()
    found = [json.loads(line)["action"] for line in lines[1:-1]]
    assert sorted(found) == sorted(f"{n}-{i}" for n in range(8) for i in range(200))


def test_runs_are_listed_oldest_first(tmp_path: Path) -> None:
    made = list[Path]()
    for command in ("apply", "destroy", "apply"):
        with Journal(tmp_path, command) as journal:
            made.append(journal.path)
    (tmp_path / "notes.txt").write_text("not a journal")
    assert runs(tmp_path) == made
    assert runs(tmp_path / "nowhere") == []


def test_nothing_is_begun_that_cannot_be_written_down(tmp_path: Path) -> None:
    """On a full disk (/dev/full): the beginning of an action is an error, how one ended is not."""
    os.symlink("/dev/full", tmp_path / "full")
    with Journal(tmp_path, "apply") as journal:
        journal._file.close()
        journal._file = (tmp_path / "full").open("w")
        journal.path = tmp_path / "full"
        journal.write("done", action="a")
        with pytest.raises(HostError) as caught:
            journal.write("started", action="b")
    assert caught.value.what == f"cannot write the journal {tmp_path}/full"
    assert caught.value.why == "No space left on device"


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot write the journal") as caught:
        Journal(tmp_path / "file" / "journal", "apply")
    assert "XDG_STATE_HOME" in caught.value.todo


def test_a_run_under_way_is_told_from_one_that_was_cut_off(tmp_path: Path) -> None:
    with Journal(tmp_path, "apply") as journal:
        assert under_way(journal.path)
    assert not under_way(journal.path)
