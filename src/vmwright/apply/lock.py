"""One apply at a time on a host: a lock that the host itself holds for as long as our end of a pipe is open."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from vmwright.errors import Busy, HostError, VmwrightError
from vmwright.host.run import Host, end
from vmwright.names import HOST_RUN, lock_path

# The kernel lets go of a flock(2) when its holder ends, and the holder ends when our end of its standard input closes:
# at the end of a run, after a kill -9, and when an ssh connection breaks. There is no stale lock to remove by hand.
_TAKEN = 75
_HOLD = f"""
mkdir -p -- "$1" || exit 1
exec 9>>"$2"
flock --nonblock 9 || {{ cat -- "$2.holder" 2>/dev/null; exit {_TAKEN}; }}
printf '%s\\n' "$3" > "$2.holder"
echo held
read -r _
rm -f -- "$2.holder"
"""


@contextmanager
def host_lock(host: Host) -> Iterator[None]:
    """Hold a host's lock. Raises Busy, naming the holder, when another run has it."""
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
                    todo="wait until it is done, then run the same again; no lock has to be removed by hand")
    return HostError(f"cannot take the lock of host {host.name}, {lock_path()}", why=said or holder,
                     todo="work as root there; flock is in the package util-linux")


@contextmanager
def all_locked(hosts: Iterable[Host]) -> Iterator[None]:
    """Hold the locks of several hosts, in the order of their names, so that two runs cannot wait for each other."""
    with ExitStack() as stack:
        for host in sorted(hosts, key=lambda host: host.name):
            stack.enter_context(host_lock(host))
        yield
