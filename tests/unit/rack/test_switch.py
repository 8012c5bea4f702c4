"""The switch of the network that racks share: whom a frame goes to, and the program itself on real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmwright.rack import switch

A, B, C = b"\x52\0\0\0\0\x0a", b"\x52\0\0\0\0\x0b", b"\x52\0\0\0\0\x0c"
ALL = b"\xff" * 6
RACKS = ("a", "b", "c")


def frame(target: bytes, source: bytes) -> bytes:
    """An Ethernet frame."""
    return target + source + b"\x08\0" + bytes(46)


def test_a_broadcast_goes_to_all_others_and_never_back() -> None:
    assert switch.Table().forward(frame(ALL, A), "a", RACKS) == ["b", "c"]


def test_an_address_that_is_known_gets_its_frames_alone() -> None:
    table = switch.Table()
    assert table.forward(frame(B, A), "a", RACKS) == ["b", "c"]
    assert table.forward(frame(A, B), "b", RACKS) == ["a"]
    assert table.forward(frame(B, A), "a", RACKS) == ["b"]


def test_an_address_that_moves_is_found_again() -> None:
    table = switch.Table()
    table.forward(frame(ALL, B), "b", RACKS)
    table.forward(frame(ALL, B), "c", RACKS)
    assert table.forward(frame(B, A), "a", RACKS) == ["c"]


def test_a_frame_to_a_neighbour_in_the_same_rack_stays_there() -> None:
    table = switch.Table()
    table.forward(frame(ALL, B), "a", RACKS)
    assert table.forward(frame(B, A), "a", RACKS) == []


def test_a_rack_that_has_ended_is_no_receiver() -> None:
    table = switch.Table()
    table.forward(frame(ALL, C), "c", RACKS)
    assert table.forward(frame(C, A), "a", ("a", "b")) == ["b"]


@pytest.mark.parametrize("short", [b"", b"\xff" * 13])
def test_what_is_no_frame_goes_nowhere(short: bytes) -> None:
    assert switch.Table().forward(short, "a", RACKS) == []


@contextmanager
def port(folder: Path, name: str) -> Iterator[socket.socket]:
    """A rack's end of its cable, named as QEMU names it: from the rack's own folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"../net/{name}.sock")
        line.settimeout(30)
        yield line


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A switch, as the program that it is."""
    folder, rack = tmp_path / "net", tmp_path / "lab"
    folder.mkdir()
    rack.mkdir()
    monkeypatch.chdir(rack)
    program = f"import sys; sys.path.insert(0, {str(Path(switch.__file__).parent)!r}); import switch, pathlib; " \
        f"switch.serve(pathlib.Path({str(folder)!r}), idle=60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        while not (folder / switch.SOCKET).exists():
            assert process.poll() is None
        yield folder
    finally:
        process.kill()
        process.communicate()


def test_frames_pass_between_racks(running: Path) -> None:
    with port(running, "a") as a, port(running, "b") as b, port(running, "c") as c:
        a.sendto(frame(ALL, A), f"../net/{switch.SOCKET}")
        assert b.recv(2000) == c.recv(2000) == frame(ALL, A)
        b.sendto(frame(A, B), f"../net/{switch.SOCKET}")
        assert a.recv(2000) == frame(A, B)
        c.setblocking(False)
        with pytest.raises(BlockingIOError):
            c.recv(2000)


def test_a_second_switch_ends_at_once(running: Path) -> None:
    done = subprocess.run([sys.executable, switch.__file__, str(running)], capture_output=True, timeout=60, check=True)
    assert done.stdout == b""
    assert (running / switch.SOCKET).exists()


def test_it_ends_when_no_rack_is_left(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(switch.__file__).parent)!r}); import switch, pathlib; " \
        f"switch.serve(pathlib.Path({str(tmp_path)!r}), idle=0.1)"
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    assert not (tmp_path / switch.SOCKET).exists()
