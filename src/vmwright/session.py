"""Open connections to the hosts of a cloud: one Host and one libvirt connection each, opened when first needed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from vmwright.host.local import LocalHost
from vmwright.host.run import Host
from vmwright.host.ssh import SshHost
from vmwright.spec.cloud import HostSpec
from vmwright.virt.connect import Connection


def open_host(spec: HostSpec) -> Host:
    """The host a spec names; nothing is connected yet."""
    return LocalHost(spec.name) if spec.connect == "local" else SshHost(spec.name, spec.connect, config=spec.ssh_config)


class Session:
    """One host: commands and libvirt."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.host = open_host(spec)
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    @property
    def virt(self) -> Connection:
        """The libvirt connection. Raises HostError when libvirt does not answer."""
        with self._lock:
            if self._connection is None:
                self._connection = Connection(self.host.libvirt_uri(), self.spec.name)
            return self._connection

    def close(self) -> None:
        """Let go of both."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.host.close()


class Sessions:
    """The sessions of all hosts, closed together."""

    def __init__(self, specs: Iterable[HostSpec]) -> None:
        self._sessions = {spec.name: Session(spec) for spec in specs}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Session:
        return self._sessions[name]

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def close(self) -> None:
        """Close every session."""
        for session in self._sessions.values():
            session.close()
