"""Starts processes: the only module that does. Commands are argv lists; a failure prints a line you can paste."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from vmwright.errors import Cancelled, HostError

# A child sees a C locale and nothing of the user's session but what a command needs to be found and to authenticate.
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR", "XDG_RUNTIME_DIR", "TERM")
OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its argv, exit code and both outputs, as bytes."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without the last line's end."""
        return self.stdout.decode(errors="replace").rstrip("\n")


class Host(Protocol):
    """A machine that runs guests. `local` and `ssh` have the same face; nothing above here knows which it is."""

    name: str
    address: str  # what a person would call it: "local" or "root@host:22"

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
        """Run one command as root on the host and wait for it.

        `on_line` gets each line of output (both streams) as it comes, carriage returns counting as line ends, for
        progress. `timeout` is in seconds. `cancel`, when set, ends the command: TERM to its process group, KILL after 5 s.
        Raises HostError when the command fails and `check` is set, Cancelled when it was cancelled.
        """
        ...

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Put `data` at `path` on the host, atomically (a temporary name beside it, then rename); makes its directory."""
        ...

    def upload(self, source: str, path: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """Stream a local file to `path` on the host, atomically; `on_bytes` gets the count of bytes sent so far."""
        ...

    def libvirt_uri(self) -> str:
        """The libvirt URI through which this host's system daemon is reached."""
        ...

    def hold(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command that lives until its standard input closes (a lock holder, a console); the caller ends it."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The chosen environment of every child: C locale, and what `_KEPT` names."""
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    kept.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return {**kept, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **(extra or {})}


def spawn(argv: Sequence[str], *, stdin: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None,
          stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start one process in a session of its own, so that a Ctrl-C at the terminal reaches us and not it."""
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=subprocess.PIPE, stderr=stderr,
                                env=environment(env), start_new_session=True)
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed here", todo=f"install the package that has {argv[0]}") from error


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    on_line: OnLine | None = None,
    cancel: threading.Event | None = None,
    where: str = "",
) -> Completed:
    """Run a command on this machine; see Host.run. `where` names the host in an error."""
    process = spawn(argv, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL, env=env)
    guard = _Guard(process, timeout, cancel)
    with guard:
        out, err = _collect(process, input, on_line)
    done = Completed(tuple(argv), process.returncode, out, err)
    if guard.cancelled:
        raise Cancelled(f"stopped: {shlex.join(argv)}")
    if guard.timed_out:
        raise HostError(f"{argv[0]}{where} did not end within {timeout:.0f} s", why=f"command: {shlex.join(argv)}")
    if check and done.code != 0:
        raise failed(done, where)
    return done


def failed(done: Completed, where: str = "") -> HostError:
    """The error of a command that ended badly: the command to paste, and its own last words."""
    words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-12:]
    return HostError(f"{done.argv[0]}{where} failed with code {done.code}",
                     why="\n".join([f"command: {shlex.join(done.argv)}", *words]))


class _Guard:
    """Ends a process's whole group when its time is up or its run is cancelled."""

    def __init__(self, process: subprocess.Popen[bytes], timeout: float | None, cancel: threading.Event | None) -> None:
        self._process, self._timeout, self._cancel = process, timeout, cancel
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.timed_out = self.cancelled = False

    def __enter__(self) -> None:
        if self._timeout is not None or self._cancel is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        waited, step = 0.0, 0.1
        while not self._over.wait(step):
            waited += step
            self.cancelled = self._cancel is not None and self._cancel.is_set()
            self.timed_out = self._timeout is not None and waited >= self._timeout
            if self.cancelled or self.timed_out:
                end_group(self._process)
                return


def end_group(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """TERM to the process's group, KILL when it is still there after `patience` seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def _collect(process: subprocess.Popen[bytes], input: bytes | None, on_line: OnLine | None) -> tuple[bytes, bytes]:
    if on_line is None:
        return process.communicate(input)
    kept: tuple[list[bytes], list[bytes]] = ([], [])
    readers = [threading.Thread(target=_read, args=(stream, kept[n], on_line), daemon=True)
               for n, stream in enumerate((process.stdout, process.stderr))]
    for reader in readers:
        reader.start()
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(input or b"")
    process.wait()
    for reader in readers:
        reader.join()
    return b"".join(kept[0]), b"".join(kept[1])


def _read(stream: object, kept: list[bytes], on_line: OnLine) -> None:
    pending = b""
    while chunk := stream.read1(65536):  # type: ignore[attr-defined]
        kept.append(chunk)
        *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.strip():
                on_line(line.decode(errors="replace").rstrip())
    if pending.strip():
        on_line(pending.decode(errors="replace").rstrip())
