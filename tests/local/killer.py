"""vmwright that is killed (SIGKILL, by itself) right after its N-th step of an apply. For tests of picking up again.

usage: killer.py COMMAND ARGS...   with KILL_AFTER=N in the environment: steps are calls to libvirt, commands and files
written on the host, counted from the moment the plan begins to be carried out. N beyond the last step: a whole run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from vmwright.apply import execute
from vmwright.cli.main import main
from vmwright.host.local import LocalHost
from vmwright.virt.connect import Connection

_LIMIT = int(os.environ["KILL_AFTER"])
_LOCK = threading.Lock()
_counted = -1  # not begun


def _counting(function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **values: Any) -> Any:
        global _counted
        result = function(*args, **values)
        with _LOCK:
            if _counted >= 0:
                _counted += 1
                if _counted >= _LIMIT:
                    os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


def _beginning(function: Callable[..., Any]) -> Callable[..., Any]:
    def begun(*args: Any, **values: Any) -> Any:
        global _counted
        _counted = 0
        return function(*args, **values)

    return begun


Connection._call = _counting(Connection._call)  # type: ignore[method-assign]
LocalHost.run = _counting(LocalHost.run)  # type: ignore[method-assign]
LocalHost.write = _counting(LocalHost.write)  # type: ignore[method-assign]
execute._walk = _beginning(execute._walk)
main()
