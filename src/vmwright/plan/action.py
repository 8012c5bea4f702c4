"""What every action of a plan has: what it does, why, and what it costs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Sign(StrEnum):
    """How an action looks in a plan."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"
    WARN = "!"


class Effect(Enum):
    """What an action costs the user, beyond time. The value is how a plan says it."""

    STOPS = "stops the VM"
    TAKES_DATA = "takes data"
    REBOOTS = "reboots the host"
    CUTS_OFF = "cuts the network"
    NEXT_START = "at next start"


@dataclass(frozen=True)
class Change:
    """One value: from what to what, as a person writes it. `old` is empty for something new; `when`: now or later."""

    key: str
    old: str
    new: str
    when: str = ""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One step. `needs` are ids of actions that must have succeeded before."""

    host: str
    why: str
    changes: tuple[Change, ...] = ()
    effects: frozenset[Effect] = frozenset()
    needs: tuple[str, ...] = ()
    sign: Sign = Sign.CHANGE

    @property
    def object(self) -> str:
        """What it acts on, e.g. "vm z-dev"."""
        raise NotImplementedError

    @property
    def verb(self) -> str:
        """What it does, one word or two: "create", "grow disk"."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """Unique in a plan, the same at every run."""
        return f"{self.host}/{self.object}/{self.verb}".replace(" ", "-")
