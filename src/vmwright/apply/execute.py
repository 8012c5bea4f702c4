"""Walks a plan: what is ready runs side by side, bounded per host; what needs something that failed is left out."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Protocol

from vmwright.apply.context import Context
from vmwright.apply.handlers import HANDLERS
from vmwright.apply.journal import Journal
from vmwright.errors import ApplyError, Bug, Cancelled, VmwrightError
from vmwright.facts.model import Facts
from vmwright.plan.action import Action
from vmwright.plan.actions import Plan
from vmwright.session import Sessions
from vmwright.spec.cloud import Cloud
from vmwright.state import State

_TICK = 0.2  # seconds between looks for a Ctrl-C; Python runs signal handlers in the main thread only


class Reporter(Protocol):
    """Who is told how a run goes. Called from several threads."""

    def started(self, action: Action) -> None:
        """An action begins."""

    def progress(self, action: Action, text: str, fraction: float | None) -> None:
        """How far it is."""

    def done(self, action: Action, seconds: float, notes: list[str]) -> None:
        """It ended well."""

    def failed(self, action: Action, error: Exception) -> None:
        """It did not."""

    def skipped(self, action: Action, why: str) -> None:
        """It was not begun."""


@dataclass
class Outcome:
    """What became of each action."""

    done: list[Action] = field(default_factory=list)
    failed: list[tuple[Action, VmwrightError]] = field(default_factory=list)
    skipped: list[tuple[Action, str]] = field(default_factory=list)
    cancelled: bool = False

    def error(self) -> VmwrightError | None:
        """The error to end the run with, or None."""
        if self.cancelled:
            left = len(self.skipped) + len(self.failed)
            return Cancelled(f"stopped: {_count(len(self.done))} done, {_count(left)} not; what was under way has been "
                             "finished or undone", todo="apply again picks up from there")
        if not self.failed:
            return None
        action, first = self.failed[0]
        counts = (f"{_count(len(self.failed))} failed, {_count(len(self.done))} done, "
                  f"{_count(len(self.skipped))} not begun")
        raised = ApplyError(f"{counts}. First: {action.object} ({action.verb}): {first.what}",
                            why=first.why, todo=first.todo or "mend that, then apply again: it picks up from there")
        raised.exit_code = first.exit_code
        return raised


def _count(number: int) -> str:
    return f"{number} action{'s' if number != 1 else ''}"


@dataclass(frozen=True)
class Run:
    """What one run works with."""

    cloud: Cloud
    facts: Facts
    sessions: Sessions
    state: State
    journal: Journal
    reporter: Reporter
    cancel: threading.Event
    parallel: int = 0  # per host; 0: as many as the host has CPUs, between 4 and 16
    changed: set[tuple[str, str]] = field(default_factory=set)  # see Context

    def bound(self, host: str) -> int:
        """How many actions may run at once on a host."""
        return self.parallel or max(4, min(16, self.facts.host(host).cpus))


def execute(plan: Plan, run: Run) -> Outcome:
    """Do what the plan says. The caller holds the locks of the hosts, from before it read the facts of the plan."""
    outcome = Outcome()
    hosts = list(dict.fromkeys(action.host for action in plan.actions))
    with ExitStack() as stack:
        pools = {name: stack.enter_context(ThreadPoolExecutor(run.bound(name), thread_name_prefix=name))
                 for name in hosts}
        _walk(plan.actions, run, pools, outcome)
    for host, pool in sorted(run.changed):
        _tell_libvirt(host, pool, run)
    return outcome


def _tell_libvirt(host: str, pool: str, run: Run) -> None:
    """Let libvirt list the volumes of a volume group as they are now. Nothing of ours depends on it.

    Once for a run: it looks at the whole group. A pool that it cannot look at, it stops.
    """
    virt = run.sessions[host].virt
    try:
        virt.refresh_pool(pool)
    except VmwrightError as error:
        run.journal.write("refresh-failed", host=host, pool=pool, error=str(error))
        with suppress(VmwrightError):
            virt.ensure_pool(pool, None, build=False)


def _walk(actions: tuple[Action, ...], run: Run, pools: Mapping[str, ThreadPoolExecutor], outcome: Outcome) -> None:
    known = {action.id: action for action in actions}
    needs = {action.id: [need for need in action.needs if need in known] for action in actions}
    order, running, lost = TopologicalSorter(needs), dict[Future[float], Action](), set[str]()
    order.prepare()
    while order.is_active():
        outcome.cancelled |= run.cancel.is_set()
        for name in order.get_ready():
            action, broken = known[name], next((need for need in needs[name] if need in lost), None)
            if outcome.cancelled:
                why = "stopped before it was begun"
            elif broken:
                why = f"it needs {broken}, which was not done"
            else:
                running[pools[action.host].submit(_perform, action, run)] = action
                continue
            _skip(action, why, run, outcome)
            lost.add(name)
            order.done(name)
        finished, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
        for future in finished:
            action = running.pop(future)
            if not _settle(action, future, run, outcome):
                lost.add(action.id)
            order.done(action.id)


def _skip(action: Action, why: str, run: Run, outcome: Outcome) -> None:
    outcome.skipped.append((action, why))
    run.journal.write("skipped", action=action.id, why=why)
    run.reporter.skipped(action, why)


def _perform(action: Action, run: Run) -> float:
    """One action, in a thread of its host's pool. Returns the seconds it took."""
    if run.cancel.is_set():
        raise Cancelled("stopped before it was begun")
    began = time.monotonic()
    context = Context(
        cloud=run.cloud, session=run.sessions[action.host], facts=run.facts.host(action.host), state=run.state,
        journal=run.journal, cancel=run.cancel, action=action.id, changed=run.changed,
        say=lambda text, fraction: run.reporter.progress(action, text, fraction))
    run.journal.write("started", action=action.id, why=action.why,
                      changes=[[c.key, c.old, c.new] for c in action.changes])
    run.reporter.started(action)
    HANDLERS[type(action)](action, context)
    seconds = time.monotonic() - began
    run.journal.write("done", action=action.id, seconds=round(seconds, 3), notes=context.notes)
    run.reporter.done(action, seconds, context.notes)
    return seconds


def _settle(action: Action, future: Future[float], run: Run, outcome: Outcome) -> bool:
    error = future.exception()
    if error is None:
        outcome.done.append(action)
        return True
    if isinstance(error, Cancelled):
        outcome.cancelled = True
        _skip(action, f"{error.what}; taken back, or left for the next apply", run, outcome)
        return False
    if not isinstance(error, Exception):
        raise error
    if not isinstance(error, VmwrightError):
        traced = "".join(traceback.format_exception(error))
        run.journal.write("bug", action=action.id, traceback=traced)
        error = Bug(f"this is a bug in vmwright: {type(error).__name__}: {error}", why=f"traceback: {run.journal.path}",
                    todo="please report it with that file; applying again picks up from what is there")
    outcome.failed.append((action, error))
    run.journal.write("failed", action=action.id, error=str(error))
    run.reporter.failed(action, error)
    return False
