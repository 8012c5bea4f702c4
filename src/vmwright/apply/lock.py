"""One apply at a time on a host: a lock that the host itself holds for as long as our end of a pipe is open."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from vmwright.errors import Busy, HostError, VmwrightError
from vmwright.guest.wait import pauses
from vmwright.host.run import Host, end
from vmwright.names import HOST_RUN, lock_path

# The kernel lets go of a flock(2) when its holder ends, and the holder ends when our end of its standard input closes:
# at the end of a run, after a kill -9, and when an ssh connection breaks. There is no stale lock to remove by hand.
_TAKEN = 75
_FIRST_LOOK = 0.2  # seconds
_HOLD = f"""
mkdir -p -- "$1" || exit 1
exec 9>>"$2"
flock --nonblock 9 || {{ cat -- "$2.holder" 2>/dev/null; exit {_TAKEN}; }}
printf '%s\\n' "$3" > "$2.holder"
echo held
read -r _
rm -f -- "$2.holder"
"""


def _nobody(_text: str) -> None:
    """Nobody listens."""


@contextmanager
def host_lock(host: Host, *, until: float = 0.0, tell: Callable[[str], None] = _nobody) -> Iterator[None]:
    """Hold a host's lock. Raises Busy, naming the holder, when another run has it, and has it still at `until`.

    `until` is a time of time.monotonic(); `tell` gets a sentence when there is somebody to wait for. We look again and
    again: a queue on the host would have us stand there when we are gone.
    """
    with ExitStack() as held:
        for pause in pauses(_FIRST_LOOK, 1.0):
            try:
                held.enter_context(_taken(host))
                break
            except Busy as busy:
                if time.monotonic() + pause > until:
                    raise
                if pause == _FIRST_LOOK:
                    tell(f"{busy.what} ({busy.why}): waiting")
            time.sleep(pause)
        yield


@contextmanager
def _taken(host: Host) -> Iterator[None]:
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    me = f"{getpass.getuser()}@{platform.node()}, process {os.getpid()}, since {since}"
    process = host.hold(["sh", "-c", _HOLD, "sh", HOST_RUN, lock_path(), me])
    try:
        first = process.stdout.readline().decode(errors="replace").strip() if process.stdout else ""
        if first != "held":
            _, said = process.communicate()
            raise _refused(host, process.returncode, first, said.decode(errors="replace").strip())
        yield
    finally:
        end(process)


def _refused(host: Host, code: int, holder: str, said: str) -> VmwrightError:
    if code == _TAKEN:
        return Busy(f"another vmwright is at work on host {host.name}", why=holder,
                    todo="wait until it is done (--wait SECONDS does), then run the same again; no lock has to be "
                         "removed by hand")
    return HostError(f"cannot take the lock of host {host.name}, {lock_path()}", why=said or holder,
                     todo="work as root there; flock is in the package util-linux")


@contextmanager
def all_locked(hosts: Iterable[Host], *, wait: float = 0.0,
               tell: Callable[[str], None] = _nobody) -> Iterator[None]:
    """Hold the locks of several hosts, in the order of their names, so that two runs cannot wait for each other.

    `wait` is for how many seconds in all to wait for those that another run has.
    """
    until = time.monotonic() + wait
    with ExitStack() as stack:
        for host in sorted(hosts, key=lambda host: host.name):
            stack.enter_context(host_lock(host, until=until, tell=tell))
        yield
