"""What is kept of each rack on this machine: its folder, and a record of what it is and which process runs it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vmwright.errors import Busy, HostError, UsageError
from vmwright.host.daemon import Process
from vmwright.rack.contents import Image
from vmwright.rack.shape import Shape, from_data, to_data
from vmwright.spec.findings import nearest
from vmwright.spec.values import LABEL
from vmwright.state import base_folder

DEFAULT_NAME = "rack"
_RECORD = "rack.json"
_RESERVED = ("journal", "cache")  # what a cloud of the name "racks" has in its folder
_FIRST_PORT, _LAST_PORT = 22022, 22999
_MOST = 80  # racks of one user; each has an address of its own on the network that they share


@dataclass(frozen=True)
class Disks:
    """What the disks of a rack were made from and for."""

    image: Image
    base: str  # path of the image that the system disk is an overlay of
    shape: Shape


@dataclass(frozen=True)
class Record:
    """A rack. `slot` counts from 1 and is its place among the racks of this user; `disks` is None when it has none.

    `process` is the QEMU that was started last, which may have ended; `boot_seconds` None: not up yet."""

    name: str
    slot: int
    port: int
    disks: Disks | None = None
    kvm: bool = False
    process: Process | None = None
    boot_seconds: float | None = None

    @property
    def folder(self) -> Path:
        """Where all files of the rack are."""
        return folder(self.name)

    @property
    def address(self) -> str:
        """The rack's own address, with its prefix, on the network that racks share."""
        return f"192.168.6.{201 - self.slot}/24"


def racks_folder() -> Path:
    """The folder of all racks."""
    return base_folder() / "racks"


def folder(name: str) -> Path:
    """The folder of a rack."""
    return racks_folder() / name


def check_name(name: str) -> None:
    """Raises UsageError unless a rack can have this name."""
    if not LABEL.fullmatch(name) or len(name) > 40 or name in _RESERVED:
        raise UsageError(f"{name!r} cannot be the name of a rack", why="it becomes its host name, and a folder's name",
                         todo="take up to 40 lower-case letters, digits and -, not journal or cache")


def read(name: str) -> Record | None:
    """The record of a rack; None when there is no such rack. Raises HostError when it cannot be read."""
    file = folder(name) / _RECORD
    try:
        return _parse(json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(f"the record of rack {name} cannot be read: {file}", why=str(error),
                        todo=f"remove {file.parent} if no QEMU uses it, and start the rack anew") from error


def known(name: str) -> Record:
    """The record of a rack that is there. Raises UsageError when it is not."""
    check_name(name)
    record = read(name)
    if record is None:
        hint = nearest(name, [other.name for other in everyone()])
        raise UsageError(f"there is no rack {name}", todo=f"{hint}\nmake it: vmwright rack up {name}".strip())
    return record


def everyone() -> list[Record]:
    """All racks, by name."""
    names = sorted(path.parent.name for path in racks_folder().glob(f"*/{_RECORD}"))
    return [record for record in map(read, names) if record]


def write(record: Record) -> Record:
    """Keep a record; atomically."""
    record.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = asdict(record)
    if record.disks:
        shape = to_data(record.disks.shape)
        data["disks"] = {"image": str(record.disks.image), "base": record.disks.base, "shape": shape}
    temporary = record.folder / f".{_RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    temporary.replace(record.folder / _RECORD)
    return record


def _parse(data: dict[str, Any]) -> Record:
    disks = data["disks"]
    made = Disks(Image(disks["image"]), disks["base"], from_data(disks["shape"])) if disks else None
    process = Process(**data["process"]) if data["process"] else None
    return Record(data["name"], data["slot"], data["port"], made, data["kvm"], process, data["boot_seconds"])


def enroll(name: str, port: int | None) -> Record:
    """The record of a rack, with a slot and a port of its own; kept. Raises UsageError when the port is another's."""
    check_name(name)
    with _locked(racks_folder() / ".lock", wait=True):
        others = [record for record in everyone() if record.name != name]
        mine = read(name)
        for other in others:
            if port == other.port:
                raise UsageError(f"port {port} is rack {other.name}'s", todo="name another one: --port N")
        if mine is None:
            mine = Record(name, _free_slot(others), port or free_port({other.port for other in others}))
        if port is not None and port != mine.port:
            mine = replace(mine, port=port)
        return write(mine)


def _free_slot(others: Iterable[Record]) -> int:
    taken = {other.slot for other in others}
    slot = next(number for number in range(1, _MOST + 2) if number not in taken)
    if slot > _MOST:
        raise UsageError(f"there are {_MOST} racks already", todo="remove one: vmwright rack down NAME --remove")
    return slot


def free_port(taken: Iterable[int]) -> int:
    """A loopback port that nobody listens on and no rack has. Raises HostError."""
    for port in range(_FIRST_PORT, _LAST_PORT + 1):
        if port not in taken and port_is_free(port):
            return port
    raise HostError(f"none of the ports {_FIRST_PORT} to {_LAST_PORT} is free", todo="name one: --port N")


def port_is_free(port: int) -> bool:
    """Whether one could listen on a loopback port."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One vmwright at a time works on a rack. Raises Busy."""
    check_name(name)
    try:
        with _locked(racks_folder() / f".{name}.lock", wait=False):
            yield
    except BlockingIOError as error:
        raise Busy(f"another vmwright works on rack {name}", todo="wait until it is done") from error


@contextmanager
def _locked(file: Path, *, wait: bool) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = file.open("w")
    except OSError as error:
        raise HostError(f"cannot write {file}", why=error.strerror or str(error),
                        todo="set XDG_STATE_HOME to a directory that you can write to") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
