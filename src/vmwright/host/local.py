"""This machine as a host."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vmwright.errors import HostError
from vmwright.host.run import Completed, OnLine, attach, ending, lifeline, run, spawn


class LocalHost:
    """The machine vmwright runs on."""

    def __init__(self, name: str, *, uri: str = "qemu:///system") -> None:
        self.name, self.address, self._uri = name, "local", uri

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
        cancel = ending(input, timeout, cancel)
        wrapped = lifeline(argv) if cancel is not None else argv
        return run(wrapped, input=input, check=check, timeout=timeout, env=env, on_line=on_line, cancel=cancel,
                   shown=argv)

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """See Host.write."""
        try:
            _write(Path(path), data, mode)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def remove(self, *paths: str) -> None:
        """See Host.remove."""
        for path in paths:
            try:
                Path(path).unlink(missing_ok=True)
            except OSError as error:
                raise HostError(f"cannot remove {path}", why=error.strerror or str(error),
                                todo="work as root, or see why the file system does not let you remove it") from error

    def upload(self, source: str, path: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """See Host.upload. Holes stay holes where the file system can."""
        partial = f"{path}.partial"
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self.run(["cp", "--sparse=always", "--reflink=auto", "--", source, partial], cancel=threading.Event())
            os.replace(partial, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        finally:
            Path(partial).unlink(missing_ok=True)
        if on_bytes:
            on_bytes(os.path.getsize(path))

    def libvirt_uri(self) -> str:
        """See Host.libvirt_uri."""
        return self._uri

    def hold(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """See Host.hold."""
        return spawn(argv, stdin=subprocess.PIPE)

    def interactive(self, argv: Sequence[str]) -> int:
        """See Host.interactive."""
        return attach(argv)

    def close(self) -> None:
        """Nothing is held."""


def _write(target: Path, data: bytes, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _cannot_write(path: str, error: OSError) -> HostError:
    todo = "make room on that file system, then apply again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else \
        "work as root, or see why the file system does not let you write there"
    return HostError(f"cannot write {path}", why=error.strerror or str(error), todo=todo)
