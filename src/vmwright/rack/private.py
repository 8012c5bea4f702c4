"""The switch of the network that racks share: started with the first rack, ended with the last one."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from vmwright.host import daemon
from vmwright.rack import machine, record, switch

_RECORD, _LOG = "switch.json", "switch.log"


def folder() -> Path:
    """Where the sockets are."""
    return record.racks_folder() / machine.PRIVATE


def ensure() -> None:
    """See that the switch runs. Racks whose switch has ended go on, without their private network, until it is back."""
    where = folder()
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    process = _read(where)
    if process and daemon.alive(process):
        return
    # By its file: the child's environment has no PYTHONPATH.
    process = daemon.start([sys.executable, switch.__file__, str(where)], folder=where, log=where / _LOG)
    (where / _RECORD).write_text(json.dumps(asdict(process)))


def end() -> None:
    """End the switch."""
    process = _read(folder())
    if process:
        daemon.kill(process)
        daemon.wait(process, 5.0)


def _read(where: Path) -> daemon.Process | None:
    try:
        return daemon.Process(**json.loads((where / _RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
