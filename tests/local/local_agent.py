"""A real guest agent on this machine: QEMU's own qemu-ga, listening on a Unix socket instead of a virtio channel."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmwright.errors import AgentSilent


def find_qemu_ga(tmp: Path) -> str:
    """The program: installed, or unpacked from the distribution's package without installing it."""
    if found := shutil.which("qemu-ga"):
        return found
    got = subprocess.run(["apt-get", "download", "-q", "qemu-guest-agent"], cwd=tmp, capture_output=True, check=False)
    packages = list(tmp.glob("qemu-guest-agent_*.deb"))
    if got.returncode != 0 or not packages:
        pytest.skip("no qemu-ga here, and its package cannot be had")
    subprocess.run(["dpkg", "-x", str(packages[0]), str(tmp / "qga")], check=True)
    return str(next((tmp / "qga").rglob("qemu-ga")))


class Channel:
    """Sends one command to the agent and reads one line of answer, as libvirt's qemuAgentCommand does."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket: socket.socket | None = None

    def __call__(self, text: str, timeout: int) -> str:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(self._path)
            self._socket.settimeout(timeout)
            self._socket.sendall(text.encode() + b"\n")
            answer = bytearray()
            while not answer.endswith(b"\n"):
                answer += self._socket.recv(1 << 20)
            return answer.decode()
        except OSError as error:
            self.close()
            raise AgentSilent("the guest agent does not answer", why=str(error)) from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@contextmanager
def qemu_ga(program: str, tmp: Path, *arguments: str) -> Iterator[Channel]:
    """A running agent, ended afterwards."""
    path = tmp / "agent.sock"
    process = subprocess.Popen([program, "-m", "unix-listen", "-p", str(path), "-t", str(tmp), "-f", str(tmp / "pid"),
                                *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    channel = Channel(path)
    try:
        while not path.exists() and process.poll() is None:
            time.sleep(0.02)
        yield channel
    finally:
        channel.close()
        process.kill()  # it holds nothing but its socket, and now and then misses a TERM that comes with a hang-up
        process.wait(10)
