"""A host reached over plain OpenSSH: one control socket, known hosts checked, libvirt's socket forwarded through it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vmwright.errors import HostError
from vmwright.host.run import Completed, OnLine, attach, end, ending, lifeline, run, spawn

_URL = re.compile(r"ssh://(?:(?P<user>[^@/:]+)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:/@\[\]]+)(?::(?P<port>\d+))?/?")
_LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
_RELAY = "virt-ssh-helper"
_CHUNK = 1 << 20
_CONNECT_SECONDS = 15
_SESSIONS = 7  # sshd allows ten over one connection, if not told otherwise: its own, the lock's and libvirt's are three
_OPTIONS = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ControlPersist=no",
            "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")


@dataclass(frozen=True)
class SshTarget:
    """Where to connect: the parts of ssh://user@host[:port]. None leaves the choice to ~/.ssh/config."""

    host: str
    user: str | None = None
    port: int | None = None

    def argv(self) -> list[str]:
        """The arguments that name this target, options first."""
        user, port = ["-l", self.user] if self.user else [], ["-p", str(self.port)] if self.port else []
        return [*user, *port, "--", self.host]

    def __str__(self) -> str:
        return (f"{self.user}@" if self.user else "") + self.host + (f":{self.port}" if self.port else "")


def parse_url(url: str) -> SshTarget:
    """The target of ssh://user@host[:port]. Raises ValueError with a sentence for the user."""
    match = _URL.fullmatch(url)
    # A name that starts with a dash would be read as an option somewhere on its way.
    if not match or match["host"].startswith("-") or (match["user"] or "").startswith("-"):
        raise ValueError(f"{url!r} is not a host: write local or ssh://user@host[:port]")
    return SshTarget(match["host"].strip("[]"), match["user"], int(match["port"]) if match["port"] else None)


class SshHost:
    """See Host. The first command opens the control connection; `close` ends it."""

    @property
    def target(self) -> SshTarget:
        """Where it connects to."""
        return self._target

    @property
    def config(self) -> list[str]:
        """The options that name a client configuration of its own, if any."""
        return self._config

    def __init__(self, name: str, url: str, *, config: str | None = None) -> None:
        self.name = name
        self._target = parse_url(url)
        self.address = str(self._target)
        self._config = ["-F", config] if config else []
        self._lock = threading.RLock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._sessions = threading.BoundedSemaphore(_SESSIONS)
        self._sudo: list[str] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        check: bool = True,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        on_line: OnLine | None = None,
        cancel: threading.Event | None = None,
    ) -> Completed:
        """See Host.run."""
        self._connect()
        cancel = ending(input, timeout, cancel)
        remote = self._remote(lifeline(argv) if cancel is not None else argv, env)
        try:
            with self._sessions:
                done = run(self._ssh(remote), input=input, check=check, timeout=timeout, on_line=on_line, cancel=cancel,
                           where=f" on {self.name}", shown=argv)
        except HostError as error:
            self._demand(error.why)
            raise
        if done.code == _SSH_FAILED:
            self._demand(done.stderr.decode(errors="replace").strip())
        return done

    def _demand(self, said: str) -> None:
        """Raise HostError when the control connection has ended: a command's failure is only a consequence then."""
        try:
            if self._master is not None:
                self._master.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return
        raise HostError(f"the connection to host {self.name} ({self._target}) was lost", why=said,
                        todo="see that the host is up and reachable, then run the same again: it picks up from there")

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """See Host.write."""
        self.run(_write_argv(path, mode, len(data)), input=data)

    def remove(self, *paths: str) -> None:
        """See Host.remove."""
        self.run(["rm", "-f", "--", *paths])

    def upload(self, source: str, path: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """See Host.upload."""
        self._connect()
        remote = self._remote(_write_argv(path, 0o644, os.path.getsize(source)))
        with self._sessions:
            process = spawn(self._ssh(remote), stdin=subprocess.PIPE)
            try:
                _send(source, process, on_bytes)
            except BaseException:
                process.kill()
                process.communicate()
                raise
            _, said = process.communicate()
        if process.returncode:
            raise HostError(f"upload of {source} to host {self.name} failed",
                            why=said.decode(errors="replace").strip(),
                            todo="see that the host has room, then run the same again")

    def libvirt_uri(self) -> str:
        """See Host.libvirt_uri: the daemon's socket, forwarded through the control connection.

        A user who is not root would be asked who it is at that socket, by polkit, or refused: for one libvirt's own
        relay is run through sudo, as every other command is. It came with libvirt 6.8; before, the user must be in the
        group libvirt.
        """
        self._connect()
        if self._sudo and not self.run(["sh", "-c", f"command -v {_RELAY}"], check=False).code:
            return f"qemu+ext:///system?command={quote(str(self._relay()))}"
        local = str(self._path("libvirt"))
        if not Path(local).exists():
            run(self._control("forward", "-L", f"{local}:{_LIBVIRT_SOCKET}"), where=f" on {self.name}",
                timeout=_CONNECT_SECONDS)
        return f"qemu+unix:///system?socket={local}"

    def _relay(self) -> Path:
        """A program of ours that speaks with the host's libvirt by its standard input and output (libvirt: ext)."""
        path = self._path("relay")
        # Not in our group of processes: a Ctrl-C is for us alone, and what is under way still needs libvirt.
        path.write_text(f"#!/bin/sh\nexec setsid {shlex.join(self._ssh(self._remote([_RELAY, 'qemu:///system'])))}\n")
        path.chmod(0o700)
        return path

    def hold(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """See Host.hold."""
        self._connect()
        return spawn(self._ssh(self._remote(argv)), stdin=subprocess.PIPE)

    def interactive(self, argv: Sequence[str]) -> int:
        """See Host.interactive."""
        self._connect()
        command = self._ssh(self._remote(argv, {"TERM": os.environ.get("TERM", "dumb")}))
        return attach([("-t" if word == "-T" else word) for word in command])

    def close(self) -> None:
        """End the control connection."""
        with self._lock:
            if self._master is not None:
                end(self._master)
            if self._folder is not None:
                self._folder.cleanup()
            self._master = self._folder = None

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise HostError(f"not connected to {self.name}")
        return Path(self._folder.name) / name

    def _control(self, *words: str) -> list[str]:
        return ["ssh", *self._config, "-S", str(self._path("ctl")), "-O", *words, *self._target.argv()]

    def _ssh(self, command: str) -> list[str]:
        # Only through the control connection: when it is gone, so is the lock that it held, and ssh must not quietly
        # make another one, by other rules.
        only = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]
        return ["ssh", *self._config, *only, "-S", str(self._path("ctl")), "-T", *self._target.argv(), command]

    def _remote(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
        """One line for the login shell at the other side, whatever shell that is to split it: every word quoted."""
        chosen = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})}
        return shlex.join([*self._sudo, "env", *(f"{key}={value}" for key, value in chosen.items()), *argv])

    def _connect(self) -> None:
        with self._lock:
            if self._folder is not None:
                return
            folder = tempfile.TemporaryDirectory(prefix="vmwright-ssh-")
            os.chmod(folder.name, 0o700)
            # The connection lives as long as its own session, which lives as long as our end of its standard input:
            # nothing of it is left behind, not even by a kill -9.
            master = spawn(["ssh", *self._config, *_OPTIONS, "-M", "-S", f"{folder.name}/ctl", "-T",
                            *self._target.argv(), shlex.join(["sh", "-c", _GREET])], stdin=subprocess.PIPE)
            who = _greeting(master)
            if who is None:
                _, said = master.communicate()
                folder.cleanup()
                raise connect_error(self.name, self._target, said.decode(errors="replace"))
            self._folder, self._master = folder, master
            if who != "0":
                self._become_root()

    def _become_root(self) -> None:
        done = run(self._ssh("sudo -n -- true"), check=False, timeout=_CONNECT_SECONDS)
        if done.code:
            self.close()
            raise HostError(f"on host {self.name} ({self._target}) you are not root, and sudo does not make you root",
                            why=done.stderr.decode(errors="replace").strip(),
                            todo="connect as root, or let this user do everything without a password: "
                                 "`NOPASSWD: ALL` in a file of /etc/sudoers.d")
        self._sudo = ["sudo", "-n", "--"]


def _write_argv(path: str, mode: int, size: int) -> list[str]:
    """Takes a file of that size from standard input."""
    return ["sh", "-c", _WRITE, "sh", path, f"{mode:o}", str(size)]


def _send(source: str, process: subprocess.Popen[bytes], on_bytes: Callable[[int], None] | None) -> None:
    sent = 0
    with Path(source).open("rb") as file, suppress(BrokenPipeError):
        while (chunk := file.read(_CHUNK)) and process.stdin:
            process.stdin.write(chunk)
            sent += len(chunk)
            if on_bytes:
                on_bytes(sent)


def _greeting(master: subprocess.Popen[bytes]) -> str | None:
    """The user number at the other side, when the connection stands; None when it came to nothing."""
    late = threading.Timer(2 * _CONNECT_SECONDS, master.kill)
    late.start()
    try:
        for line in master.stdout or ():  # a login shell may print what it likes before
            if line.startswith(_GREETING.encode()):
                return line.split()[1].decode()
    finally:
        late.cancel()
    return None


_SSH_FAILED = 255  # ssh's own exit code, when it is not the command's
_GREETING = "vmwright-here"
_GREET = f"echo {_GREETING} $(id -u); exec cat >/dev/null"

# Our connection may end before all of it was sent: then nothing appears under the final name.
_WRITE = """
set -eu
mkdir -p -- "$(dirname -- "$1")"
t=$(mktemp -- "$1.XXXXXX")
trap 'rm -f -- "$t"' EXIT
cat > "$t"
[ "$(stat -c %s -- "$t")" = "$3" ] || exit 1
chmod -- "$2" "$t"
sync -- "$t"
mv -f -- "$t" "$1"
trap - EXIT
"""


def connect_error(name: str, target: SshTarget, said: str) -> HostError:
    """What ssh's own words mean, and what to do. Pure."""
    place = (f"-p {target.port} " if target.port else "") + (f"{target.user}@" if target.user else "") + target.host
    shell = f"ssh {place}"
    remedies = (
        ("REMOTE HOST IDENTIFICATION HAS CHANGED",
         "its host key is not the one you have known: find out why; if the host was installed anew, remove the old key "
         f"with ssh-keygen -R '{_known_name(target)}' and connect once by hand"),
        ("Host key verification failed",
         f"this machine does not know the host's key yet: run `{shell}` once by hand, compare the fingerprint, and "
         "accept it"),
        ("Permission denied",
         f"no key is accepted there: run `ssh-copy-id {place}`, or start ssh-agent with the right key"),
        ("Could not resolve", "the name is unknown: check `connect:` in the file and your DNS"),
        ("Connection refused", "nothing answers at that port: is sshd running there, and is the port right?"),
        ("timed out", "the host does not answer: is it up, and reachable from here?"),
        ("No route to host", "there is no way to that address from here: check the network"),
    )
    todo = next((remedy for mark, remedy in remedies if mark in said), f"try `{shell}` by hand")
    return HostError(f"cannot connect to host {name} ({target})", why=said.strip(), todo=todo)


def _known_name(target: SshTarget) -> str:
    return f"[{target.host}]:{target.port}" if target.port and target.port != 22 else target.host
