"""QEMU's monitor (QMP): one connection per request. The rack's folder may have a long path; sockets may not."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmwright.errors import HostError


def ask(path: Path, command: str, arguments: Mapping[str, Any] | None = None, *, seconds: float = 10.0) -> Any:
    """What the monitor at `path` answers. Raises HostError when nobody does in time, or it refuses."""
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(seconds)
                line.connect(f"/proc/self/fd/{folder}/{path.name}")
                return _converse(line, {"execute": command, **({"arguments": arguments} if arguments else {})})
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:
        raise HostError("the rack's QEMU does not answer", why=str(error) or "it said nothing in time",
                        todo="see vmwright rack status; pull its plug: vmwright rack down --force") from error


def _converse(line: socket.socket, command: Mapping[str, Any]) -> Any:
    """Greet, ask, and read until the answer; events in between are nobody's here."""
    with line.makefile("rwb") as talk:
        for request in ({"execute": "qmp_capabilities"}, command):
            talk.write(json.dumps(request).encode() + b"\n")
            talk.flush()
            answer = _answer(talk)
    return answer


def _answer(talk: Any) -> Any:
    while text := talk.readline():
        said = json.loads(text)
        if "error" in said:
            raise ValueError(said["error"].get("desc", "it refused"))
        if "return" in said:
            return said["return"]
    raise ValueError("it hung up")
