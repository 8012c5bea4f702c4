"""Runs vmwright's command line many times, each time in a fresh fork of this process, which has everything imported.

usage: forks.py        One request a line on standard input, one answer a line on standard output; ends with its input.
A request: {"argv", "cwd", "env", "in", "out", "err", "seconds", "driver"}; the answer is the exit code, negative for a
signal. `driver` ("module:function") is called in the fork before the command line, to arrange a fault.

A fork is a process of its own: its connections, its locks, its death by kill -9 are real. What it saves is the start of
an interpreter and the imports, most of what a short run costs. Nothing here connects to anything before it forks.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys
import traceback
from typing import Any, NoReturn

import vmwright


def serve() -> None:
    """Answer requests until there are no more."""
    for found in pkgutil.walk_packages(vmwright.__path__, "vmwright."):
        importlib.import_module(found.name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(request: dict[str, Any]) -> NoReturn:
    """Be the command line, and end as it ends."""
    code = 70
    try:
        os.setsid()
        _open(request)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.argv = ["vmwright", *request["argv"]]
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        code = _main(request["driver"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _open(request: dict[str, Any]) -> None:
    for number, (name, flags) in enumerate((("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))):
        opened = os.open(request[name], flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)


def _main(driver: str) -> int:
    from vmwright.cli.main import main

    if driver:
        module, _, function = driver.partition(":")
        getattr(importlib.import_module(module), function)()
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    serve()
