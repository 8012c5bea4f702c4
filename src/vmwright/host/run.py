"""Starts processes: the only module that does. Commands are argv lists; a failure prints a line you can paste."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Protocol

from vmwright.errors import Cancelled, HostError

# A child sees a C locale and nothing of the user's session but what a command needs to be found and to authenticate.
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR", "XDG_RUNTIME_DIR", "TERM")
_LINGER = 5.0  # seconds after a command's end for what it said to arrive
OnLine = Callable[[str], None]

# A command that can be cancelled must not outlive us, not even a kill -9, and not on the far side of an ssh connection:
# it runs in a session of its own, and a watcher ends that session when our end of its standard input closes.
_LIFELINE = """
exec 3<&0
setsid "$@" </dev/null 3<&- &
p=$!
{ read -r _ <&3; kill -TERM "-$p" || kill -TERM "$p"; sleep 5; kill -KILL "-$p"; } >/dev/null 2>&1 </dev/null &
w=$!
wait "$p"; code=$?
kill "$w" 2>/dev/null
exit "$code"
"""


def lifeline(argv: Sequence[str]) -> list[str]:
    """The same command, ended as soon as its standard input closes."""
    return ["sh", "-c", _LIFELINE, "sh", *argv]


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
        progress. `timeout` is in seconds. `cancel`, when set, ends the command: TERM to its group, KILL after 5 s.
        Raises HostError when the command fails and `check` is set, Cancelled when it was cancelled.
        """
        ...

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Put `data` at `path` on the host, atomically (a temporary name beside it, renamed); makes its directory."""
        ...

    def remove(self, *paths: str) -> None:
        """Remove files on the host; those that are not there are no error. Raises HostError when one stays."""
        ...

    def upload(self, source: str, path: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """Stream a local file to `path` on the host, atomically; `on_bytes` gets the count of bytes sent so far.

        What `on_bytes` raises ends the upload, and nothing appears at `path`.
        """
        ...

    def libvirt_uri(self) -> str:
        """The libvirt URI through which this host's system daemon is reached."""
        ...

    def hold(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command that lives until its standard input closes (a lock holder, a console); the caller ends it."""
        ...

    def interactive(self, argv: Sequence[str]) -> int:
        """Run a command on the user's own terminal; its exit code."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def ending(
    input: bytes | None, timeout: float | None, cancel: threading.Event | None
) -> threading.Event | None:
    """A command with a time limit must end on the host, too, not only here: it is run as one that can be cancelled."""
    return threading.Event() if cancel is None and timeout is not None and input is None else cancel


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The chosen environment of every child: C locale, and what `_KEPT` names."""
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    kept.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return {**kept, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **(extra or {})}


def spawn(
    argv: Sequence[str], *, stdin: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start one process in a session of its own, so that a Ctrl-C at the terminal reaches us and not it."""
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=environment(env), start_new_session=True)
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed here", todo=f"install the package that has {argv[0]}") from error


def attach(argv: Sequence[str]) -> int:
    """Run a command on the user's own terminal, and wait. Ctrl-C is the command's, not ours."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.call(list(argv), env=environment(), preexec_fn=_default_sigint)
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed here", todo=f"install the package that has {argv[0]}") from error
    finally:
        signal.signal(signal.SIGINT, before)


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
    shown: Sequence[str] | None = None,
) -> Completed:
    """Run a command on this machine; see Host.run. `where` and `shown` are how an error names the host and the command.

    With `cancel`, `argv` must already be wrapped by `lifeline` (here or on the far side), and `input` must be None.
    """
    shown = tuple(shown or argv)
    piped = input is not None or cancel is not None
    process = spawn(argv, stdin=subprocess.PIPE if piped else subprocess.DEVNULL, env=env)
    readers = _start_readers(process, on_line)
    if input is not None and process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(input)
    ending = _wait(process, timeout, cancel)
    if process.stdin is not None:
        process.stdin.close()
    until = time.monotonic() + _LINGER
    out, err = (reader.join_all(until) for reader in readers)
    done = Completed(tuple(shown), process.returncode, out, err)
    if ending == "cancelled":
        raise Cancelled(f"stopped: {shlex.join(shown)}")
    if ending == "late":
        raise HostError(f"{shown[0]}{where} did not end within {timeout:.0f} s", why=f"command: {shlex.join(shown)}",
                        todo="see whether the host hangs, then run the same again")
    if check and done.code != 0:
        raise failed(done, where)
    return done


def failed(done: Completed, where: str = "") -> HostError:
    """The error of a command that ended badly: the command to paste, and its own last words."""
    words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-12:]
    return HostError(f"{done.argv[0]}{where} failed with code {done.code}",
                     why="\n".join([f"command: {shlex.join(done.argv)}", *words]))


def _wait(process: subprocess.Popen[bytes], timeout: float | None, cancel: threading.Event | None) -> str:
    """Wait for the end; how it came: "done", "late" or "cancelled"."""
    if cancel is None:
        if _ended(process, timeout):
            return "done"
        end_group(process)
        return "late"
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        if _ended(process, 0.1):
            return "done"
        late = until is not None and time.monotonic() > until
        if cancel.is_set() or late:
            if process.stdin is not None:
                process.stdin.close()  # the watcher at the other end of the lifeline does the rest
            with suppress(subprocess.TimeoutExpired):
                process.wait(8.0)
            end_group(process)
            return "late" if late and not cancel.is_set() else "cancelled"


def await_end(handle: int, seconds: float) -> None:
    """Wait until the process of a descriptor (pidfd_open(2)) has ended, or the time is up; closes the descriptor."""
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(seconds * 1000)
    finally:
        os.close(handle)


def _ended(process: subprocess.Popen[bytes], timeout: float | None) -> bool:
    """Whether a process ends within so many seconds (None: wait for it).

    Popen.wait with a time limit sleeps between its looks, and notices an end up to 50 ms late; Linux can tell at once.
    """
    if timeout is not None and hasattr(os, "pidfd_open"):
        with suppress(OSError):
            await_end(os.pidfd_open(process.pid), timeout)
            return process.poll() is not None
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True


def end_group(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """TERM to the process's group, KILL when it is still there after `patience` seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def end(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a process that lives until its standard input closes, and close all its pipes."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    _ended(process, patience)
    end_group(process)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class _Reader(threading.Thread):
    """Keeps what comes out of one stream, and hands each line on."""

    def __init__(self, stream: IO[bytes], on_line: OnLine | None) -> None:
        super().__init__(daemon=True)
        self._stream, self._on_line = stream, on_line
        self._kept: list[bytes] = []

    def run(self) -> None:
        pending = b""
        while chunk := os.read(self._stream.fileno(), 65536):
            self._kept.append(chunk)
            if self._on_line:
                *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    self._say(line)
        if self._on_line:
            self._say(pending)

    def _say(self, line: bytes) -> None:
        if self._on_line and line.strip():
            self._on_line(line.decode(errors="replace").rstrip())

    def join_all(self, until: float) -> bytes:
        # A grandchild that kept the stream open must not keep us: what has come by then is what there is.
        self.join(max(0.0, until - time.monotonic()))
        if not self.is_alive():
            self._stream.close()
        return b"".join(self._kept)


def _start_readers(process: subprocess.Popen[bytes], on_line: OnLine | None) -> tuple[_Reader, _Reader]:
    if process.stdout is None or process.stderr is None:
        raise ValueError("both outputs must be pipes")
    readers = (_Reader(process.stdout, on_line), _Reader(process.stderr, on_line))
    for reader in readers:
        reader.start()
    return readers
