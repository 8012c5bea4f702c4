"""What doctor says of one thing, and what it knows of a host. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from vmwright.errors import VmwrightError, Where
from vmwright.facts.health import HealthFacts
from vmwright.plan.action import Action
from vmwright.plan.hugepages import plan_hugepages
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import VmSpec
from vmwright.units import some

_SHOWN = 4  # VMs named in one sentence


class Verdict(StrEnum):
    """How a check ended. NOTE is advice: all works, and could be faster or safer."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "fail"


class Area(StrEnum):
    """What a check is about, in the order in which it is shown."""

    ACCESS = "access"
    SOFTWARE = "software"
    CPU = "CPU"
    MEMORY = "memory"
    PLACEMENT = "placement"
    DEVICES = "devices"
    STORAGE = "storage"
    NETWORK = "network"
    CLOCK = "clock"
    SECURITY = "security"
    BOOT = "boot"
    FILE = "file"


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, why it matters, and what to do. Only OK has neither reason nor remedy.

    `covers` are refusals of the plan that say the same in other words: they need not be told again.
    """

    verdict: Verdict
    area: Area
    what: str
    why: str = ""
    todo: str = ""
    where: Where | None = None
    covers: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Case:
    """One host, as it was found.

    `wanted`: there is a file, and what is judged is what that needs; else it is what any cloud would need. `silent` is
    why libvirt, though it is installed, does not answer; `actions` are what a plan would do, none where none was made.
    """

    view: View
    health: HealthFacts
    wanted: bool = True
    silent: VmwrightError | None = None
    actions: tuple[Action, ...] = ()

    @property
    def running(self) -> tuple[VmSpec, ...]:
        """The VMs that the file wants to run here."""
        return tuple(vm for vm in self.view.vms if vm.running)

    @property
    def soon(self) -> View:
        """The host as it will be when its huge pages are as the file says: what else is planned is for that one."""
        return plan_hugepages(self.view, Draft())

    def asked(self, look: Callable[[View, Draft], object]) -> Draft:
        """What a part of the plan finds, after all that a plan would do."""
        draft = Draft(actions=list(self.actions))
        look(self.soon, draft)
        return draft

    def refusals(self, look: Callable[[View, Draft], object], where: Where | None = None) -> tuple[str, ...]:
        """What a part of the plan would refuse, in its words; with `where`, at that place of the file."""
        return tuple(problem.what for problem in self.asked(look).refused if where is None or problem.where == where)


def refused(area: Area, draft: Draft, why: str) -> Iterable[Check]:
    """What stands in the way, in the words of the plan."""
    return [Check(Verdict.FAIL, area, problem.what, why, problem.todo, problem.where) for problem in draft.refused]


def names(vms: Iterable[str]) -> str:
    """VMs by name; the first few of many."""
    return some(tuple(vms), _SHOWN)
