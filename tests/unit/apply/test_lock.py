"""The lock, with real processes, in a directory of the test's own."""

from __future__ import annotations

import getpass
import os
import platform
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmwright.apply.lock import all_locked, host_lock
from vmwright.errors import Busy, HostError
from vmwright.host.local import LocalHost
from vmwright.names import HOST_RUN


class Elsewhere(LocalHost):
    """This machine, but its lock is in another directory."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder
        self.held = list[subprocess.Popen[bytes]]()

    def hold(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        self.held.append(super().hold([word.replace(HOST_RUN, str(self.folder)) for word in argv]))
        return self.held[-1]


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second is refused, with who has it and since when; afterwards it is free, and nothing tells of a holder."""
    host = Elsewhere("zcloud", tmp_path / "run")
    with host_lock(host):
        with pytest.raises(Busy) as caught, host_lock(host):
            pytest.fail("two have it")
        assert caught.value.what == "another vmwright is at work on host zcloud"
        me = re.escape(f"{getpass.getuser()}@{platform.node()}, process {os.getpid()}, since ")
        assert re.fullmatch(me + r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", caught.value.why)
        assert caught.value.todo == (
            "wait until it is done (--wait SECONDS does), then run the same again; no lock has to be removed by hand")
    with host_lock(host):
        pass
    assert {path.name for path in host.folder.iterdir()} == {"lock"}


def test_one_may_wait_for_it(tmp_path: Path) -> None:
    """Told once for whom; in vain only when the time is up."""
    host, told = Elsewhere("a", tmp_path), list[str]()
    first = ExitStack()
    first.enter_context(host_lock(host))
    timer = threading.Timer(0.5, first.close)

    def tell(text: str) -> None:
        told.append(text)
        timer.start()

    with all_locked([host], wait=60, tell=tell):
        timer.join()
        with pytest.raises(Busy), all_locked([host], wait=0.3, tell=told.append):
            pytest.fail("two have it")
    assert len(told) == 2
    assert re.fullmatch(r"another vmwright is at work on host a \(\S+, process \d+, since .* UTC\): waiting", told[0])


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    host = Elsewhere("a", tmp_path)
    with pytest.raises(ZeroDivisionError), host_lock(host):
        _ = 1 / 0
    with host_lock(host):
        pass


def test_the_end_of_the_holder_frees_it(tmp_path: Path) -> None:
    """What it wrote about itself stays, and keeps nobody out."""
    host = Elsewhere("a", tmp_path)
    with host_lock(host):
        os.kill(host.held[0].pid, signal.SIGKILL)
        host.held[0].wait()
        for _ in range(200):  # `read` is the shell's own: the kernel frees the lock with it
            try:
                with host_lock(Elsewhere("a", tmp_path)):
                    return
            except Busy:
                time.sleep(0.05)
    pytest.fail("it never became free")


def test_a_lock_that_cannot_be_made_is_not_a_busy_host(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError) as caught, host_lock(Elsewhere("a", tmp_path / "file" / "run")):
        pytest.fail("there is no such lock")
    assert caught.value.what == "cannot take the lock of host a, /run/vmwright/lock"
    assert "Not a directory" in caught.value.why


def test_several_hosts_in_the_order_of_their_names(tmp_path: Path) -> None:
    """All or none: a lock taken before another was refused is given back."""
    hosts = [Elsewhere(name, tmp_path / name) for name in "cab"]
    with host_lock(hosts[0]):  # c
        with pytest.raises(Busy, match="at work on host c"), all_locked(hosts):
            pytest.fail("c is taken")
        with all_locked(hosts[1:]):
            pass
    with all_locked(hosts):
        for host in hosts:
            with pytest.raises(Busy), host_lock(host):
                pytest.fail("two have it")
