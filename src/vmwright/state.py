"""What vmwright keeps on the machine it runs on: journals, known hosts of guests, sums of local images. Never needed.

Everything here can be lost without harm: the file, the hosts and libvirt are the truth. The directory is
$XDG_STATE_HOME/vmwright, by default ~/.local/state/vmwright (XDG Base Directory Specification).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LOCK = threading.Lock()


def base_folder() -> Path:
    """The directory of all state on this machine. A relative XDG_STATE_HOME does not count (so its specification)."""
    wanted = os.environ.get("XDG_STATE_HOME", "")
    return (Path(wanted) if wanted.startswith("/") else Path.home() / ".local" / "state") / "vmwright"


@dataclass(frozen=True)
class State:
    """The state directory of one cloud."""

    folder: Path

    @classmethod
    def of(cls, cloud: str) -> State:
        """The state of that cloud on this machine."""
        return cls(base_folder() / cloud)

    @property
    def journals(self) -> Path:
        """One file per run."""
        return self.folder / "journal"

    @property
    def known_hosts(self) -> Path:
        """The SSH host keys of the cloud's guests, read from inside each guest by its agent."""
        return self.folder / "known_hosts"

    @property
    def cache(self) -> Path:
        """Sums of local image files."""
        return self.folder / "cache"

    def remember_guest(self, vm: str, addresses: Iterable[str], keys: Iterable[str]) -> None:
        """Replace what is known of a guest's host keys. `keys` are public-key lines: type, key, comment.

        An address belongs to who has it now: keys of another guest that had it before are no longer good for it.
        """
        taken = tuple(dict.fromkeys(addresses))
        words = [key.split()[:2] for key in keys]
        self._rewrite(vm, taken, [" ".join([",".join([vm, *taken]), *pair]) for pair in words if len(pair) == 2])

    def forget_guest(self, vm: str) -> None:
        """Drop a guest's host keys."""
        self._rewrite(vm, (), [])

    def _rewrite(self, vm: str, taken: tuple[str, ...], lines: list[str]) -> None:
        with _LOCK:
            old = self.known_hosts.read_text().splitlines() if self.known_hosts.exists() else []
            new = [kept for line in old if (kept := _without(line, vm, taken)) is not None] + lines
            if new == old:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.known_hosts.with_suffix(f".new-{os.getpid()}")
            temporary.write_text("".join(f"{line}\n" for line in new))
            temporary.replace(self.known_hosts)


def _without(line: str, vm: str, taken: tuple[str, ...]) -> str | None:
    """A line of known_hosts without those addresses; None when it is of that VM, whose name comes first."""
    names, space, key = line.partition(" ")
    first, *rest = names.split(",")
    if first == vm:
        return None
    return ",".join([first, *(name for name in rest if name not in taken)]) + space + key
