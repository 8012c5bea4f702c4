"""An sshd of the tests' own, on loopback: own host key, own configuration, own log; nothing of this machine's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sshd:
    """A running sshd, and the files of a client that may log in."""

    folder: Path
    port: int

    @property
    def config(self) -> Path:
        """The client's configuration: its key and the host keys it knows."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def authorized(self) -> Path:
        return self.folder / "authorized_keys"

    def url(self, user: str = "root") -> str:
        return f"ssh://{user}@127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text()

    def logins(self) -> int:
        """How many connections have been authenticated."""
        return len(re.findall("Accepted publickey", self.log()))

    def sessions(self) -> list[int]:
        """The processes of its connections that stand."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        server = int((self.folder / "sshd.pid").read_text())
        return [int(pid) for pid, parent, _ in rows if int(parent) == server]

    def know(self, key: Path | None) -> None:
        """Let the client know this as the host's key; None: no key at all."""
        text = f"[127.0.0.1]:{self.port} {key.read_text()}" if key else ""
        self.known_hosts.write_text(text)


def make_key(path: Path) -> Path:
    """A new pair of keys; the path of the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub")


@contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    """Start it, and end it with all its connections."""
    folder.mkdir(mode=0o755)
    made = Sshd(folder, _free_port())
    host_key, client_key = make_key(folder / "host_key"), make_key(folder / "client_key")
    made.authorized.write_text(client_key.read_text())
    made.know(host_key)
    made.config.write_text(f"""\
IdentityFile {folder}/client_key
IdentitiesOnly yes
UserKnownHostsFile {made.known_hosts}
GlobalKnownHostsFile /dev/null
""")
    (folder / "sshd_config").write_text(f"""\
Port {made.port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {made.authorized}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
""")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd wants it, and a service manager makes it there
    process = subprocess.Popen([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config"),
                                "-E", str(folder / "sshd.log")], stdin=subprocess.DEVNULL)
    try:
        _await(made, process)
        yield made
    finally:
        connections = made.sessions() if (folder / "sshd.pid").exists() else []
        process.terminate()
        process.wait()
        for pid in connections:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _await(made: Sshd, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", made.port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"sshd did not start: {made.log()}")
