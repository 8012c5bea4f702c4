"""The network that a user's racks share: a switch for Ethernet frames, as a program of its own on Unix sockets.

QEMU's multicast network gives each machine its own frames back, which a bridge in a rack would take for a loop. So each
rack sends to the socket of this switch, and it passes a frame on to the rack that has the address, or to all others.
Frames leave neither this machine nor the folder of the sockets, which is its owner's alone. It ends by itself when no
rack is left. It is run as a file, by whatever Python vmwright has: it uses nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

SOCKET = "switch.sock"
_FRAME = 65536 + 14
_LOOK_EVERY = 2.0  # seconds between two looks at which racks are there
_IDLE = 30.0  # seconds without a rack before it ends
_KNOWN_MOST = 4096  # addresses that it remembers


class Table:
    """Who has which address. `forward` is all that it does: the frame's sender in, its receivers out."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def forward(self, frame: bytes, sender: str, racks: Iterable[str]) -> list[str]:
        """The racks that a frame goes to; never back to its sender."""
        target, source = frame[:6], frame[6:12]
        if len(frame) < 14:
            return []
        if not source[0] & 1 and (source in self._known or len(self._known) < _KNOWN_MOST):
            self._known[source] = sender
        others = [rack for rack in racks if rack != sender]
        home = self._known.get(target)
        if target[0] & 1 or home is None or home not in others:
            return others if home != sender else []
        return [home]


def serve(folder: Path, *, idle: float = _IDLE) -> None:
    """Pass frames on until no rack has been there for `idle` seconds. One per folder: a second one ends at once."""
    os.chdir(folder)
    with open("switch.lock", "w") as lock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        Path(SOCKET).unlink(missing_ok=True)
        line.bind(SOCKET)
        line.setblocking(False)
        _pass_on(line, folder.name, idle)
        Path(SOCKET).unlink(missing_ok=True)


def _pass_on(line: socket.socket, folder: str, idle: float) -> None:
    table, racks = Table(), tuple[str, ...]()
    looked = seen = time.monotonic()
    while True:
        ready, _, _ = select.select([line], [], [], _LOOK_EVERY)
        now = time.monotonic()
        if not racks or now - looked >= _LOOK_EVERY:
            racks, looked = tuple(present(folder)), now
            seen = now if racks else seen
        if now - seen > idle:
            return
        if ready:
            _drain(line, table, racks)


def _drain(line: socket.socket, table: Table, racks: tuple[str, ...]) -> None:
    """Pass on what has come, a bounded number of frames."""
    for _ in range(256):
        try:
            frame, sender = line.recvfrom(_FRAME)
        except OSError:  # nothing more
            return
        for rack in table.forward(frame, sender or "", racks):
            try:
                line.sendto(frame, rack)
            except OSError:  # its queue is full, or it has ended: Ethernet loses frames
                continue


def present(folder: str) -> Iterable[str]:
    """The sockets of racks that run, named as the racks' QEMUs name them: from their own folders."""
    for path in sorted(Path().glob("*.sock")):
        if path.name == SOCKET:
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
            try:
                trial.connect(path.name)
            except OSError:
                continue
            yield f"../{folder}/{path.name}"


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve())
