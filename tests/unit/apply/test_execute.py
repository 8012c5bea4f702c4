"""The walk through a plan: order, needs, bound, what failed and what it keeps from being done, stopping, bugs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vmwright.apply.context import Context
from vmwright.apply.execute import Outcome, Run, execute
from vmwright.apply.handlers import HANDLERS
from vmwright.apply.journal import Journal, read
from vmwright.errors import ApplyError, Bug, Cancelled, GuestError
from vmwright.facts.model import Facts, HostFacts, Kvm
from vmwright.plan import actions, host_actions
from vmwright.plan.action import Action
from vmwright.plan.actions import Plan
from vmwright.session import Sessions
from vmwright.spec.cloud import Cloud, HostSpec
from vmwright.state import State

CLOUD = Cloud("lab", (HostSpec("here", "local"), HostSpec("there", "local")), (), (), (), ())
FACTS = Facts(tuple(HostFacts(name, name, "Debian", "6.1", 4, 8 << 30, 8 << 30, Kvm.WORKS, "", "7.2", "9.0", True)
                    for name in ("here", "there")))


@dataclass(frozen=True, kw_only=True)
class Step(Action):
    """An action of the tests: does what it was given."""

    name: str
    work: Callable[[Context], None] = lambda context: None
    host: str = "here"
    why: str = "a test wants it"

    @property
    def object(self) -> str:
        return f"step {self.name}"

    @property
    def verb(self) -> str:
        return "do"


@dataclass
class Told:
    """A reporter that keeps what it was told, in order."""

    said: list[tuple[Any, ...]] = field(default_factory=list)

    def started(self, action: Action) -> None:
        self.said.append(("started", action.id))

    def progress(self, action: Action, text: str, fraction: float | None) -> None:
        self.said.append(("progress", action.id, text, fraction))

    def done(self, action: Action, seconds: float, notes: list[str]) -> None:
        self.said.append(("done", action.id, *notes))

    def failed(self, action: Action, error: Exception) -> None:
        self.said.append(("failed", action.id, str(error)))

    def skipped(self, action: Action, why: str) -> None:
        self.said.append(("skipped", action.id, why))


@dataclass
class Bench:
    """A run to be made, and what was told and written."""

    folder: Path
    cancel: threading.Event = field(default_factory=threading.Event)
    told: Told = field(default_factory=Told)
    events: list[dict[str, Any]] = field(default_factory=list)

    def do(self, *steps: Step, parallel: int = 0) -> Outcome:
        with Sessions(CLOUD.hosts) as sessions, Journal(self.folder, "apply") as journal:
            run = Run(CLOUD, FACTS, sessions, State(self.folder), journal, self.told, self.cancel, parallel)
            outcome = execute(Plan("lab", CLOUD.hosts, steps), run)
        self.events = list(read(journal.path))
        return outcome


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setitem(HANDLERS, Step, lambda action, context: action.work(context))
    yield Bench(tmp_path)


def names(rows: list[Any]) -> list[str]:
    return [(row[0] if isinstance(row, tuple) else row).name for row in rows]


def fail(_: Context) -> None:
    raise GuestError("the guest is asleep", why="it is late", todo="wake it")


def test_every_action_has_a_handler() -> None:
    """A kind of action that nobody handles would be a bug at the user's."""
    kinds = {kind for module in (actions, host_actions) for kind in vars(module).values()
             if isinstance(kind, type) and issubclass(kind, Action)}
    assert kinds - {Action, host_actions.Prepare, actions.VmAction} == set(HANDLERS)


def test_needs_come_before(bench: Bench) -> None:
    """However the bound is: an action starts after all it needs are done."""
    chain = [Step(name=str(n), needs=(f"here/step-{n - 1}/do",) if n else ()) for n in range(6)]
    assert names(bench.do(*chain, parallel=6).done) == list("012345")
    assert bench.told.said == [row for n in range(6) for row in
                               (("started", f"here/step-{n}/do"), ("done", f"here/step-{n}/do"))]


def test_needs_that_are_not_in_the_plan_are_met(bench: Bench) -> None:
    assert names(bench.do(Step(name="a", needs=("here/pool-images/create",))).done) == ["a"]


def test_needs_of_another_host(bench: Bench) -> None:
    first = Step(name="a", host="there")
    assert names(bench.do(first, Step(name="b", needs=(first.id,))).done) == ["a", "b"]


def test_ready_actions_run_side_by_side(bench: Bench) -> None:
    """Four meet at a barrier that only opens when all are there; both hosts work at once."""
    barrier = threading.Barrier(4, timeout=30)
    steps = [Step(name=str(n), host=("here", "there")[n % 2], work=lambda _: barrier.wait() and None) for n in range(4)]
    outcome = bench.do(*steps, parallel=2)
    assert sorted(names(outcome.done)) == list("0123")


def test_no_more_at_once_than_the_bound(bench: Bench) -> None:
    at_work, most, lock, pause = 0, 0, threading.Lock(), threading.Event()

    def work(_: Context) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        pause.wait(0.02)
        with lock:
            at_work -= 1

    assert len(bench.do(*(Step(name=str(n), work=work) for n in range(20)), parallel=3).done) == 20
    assert most == 3


def test_the_bound_comes_from_the_hosts_cpus(tmp_path: Path, bench: Bench) -> None:
    with Journal(tmp_path, "apply") as journal:
        run = Run(CLOUD, FACTS, Sessions(()), State(tmp_path), journal, bench.told, bench.cancel)
        assert run.bound("here") == 4


def test_what_needs_something_that_failed_is_left_out(bench: Bench) -> None:
    """Through several steps; all else is done."""
    steps = [Step(name="a", work=fail), Step(name="b", needs=("here/step-a/do",)),
             Step(name="c", needs=("here/step-b/do",)), Step(name="d")]
    outcome = bench.do(*steps)
    assert (names(outcome.failed), names(outcome.skipped), names(outcome.done)) == (["a"], ["b", "c"], ["d"])
    assert [why for _, why in outcome.skipped] == [
        "it needs here/step-a/do, which was not done", "it needs here/step-b/do, which was not done"]
    error = outcome.error()
    assert isinstance(error, ApplyError)
    assert error.exit_code == 8, "the class of what went wrong first"
    assert str(error) == ("1 action failed, 1 action done, 2 actions not begun. First: step a (do): the guest is "
                          "asleep\n  why: it is late\n  do:  wake it")


def test_the_journal_has_it_all(bench: Bench) -> None:
    def work(context: Context) -> None:
        context.say("half way", 0.5)
        context.note("look at this")

    steps = [Step(name="a", work=work), Step(name="b", work=fail), Step(name="c", needs=("here/step-b/do",))]
    bench.do(*steps, parallel=1)
    assert [(e["event"], e.get("action")) for e in bench.events] == [
        ("begin", None), ("started", "here/step-a/do"), ("done", "here/step-a/do"), ("started", "here/step-b/do"),
        ("failed", "here/step-b/do"), ("skipped", "here/step-c/do"), ("end", None)]
    assert bench.events[2]["notes"] == ["look at this"]
    assert ("progress", "here/step-a/do", "half way", 0.5) in bench.told.said
    assert ("done", "here/step-a/do", "look at this") in bench.told.said


def test_stopping(bench: Bench) -> None:
    """What is under way comes to an end, what has not begun does not begin."""
    def work(context: Context) -> None:
        bench.cancel.set()

    outcome = bench.do(Step(name="a", work=work), Step(name="b", needs=("here/step-a/do",)))
    assert (names(outcome.done), names(outcome.skipped)) == (["a"], ["b"])
    assert outcome.skipped[0][1] == "stopped before it was begun"
    error = outcome.error()
    assert isinstance(error, Cancelled)
    assert str(error) == ("stopped: 1 action done, 1 action not; what was under way has been finished or undone\n"
                          "  do:  apply again picks up from there")


def test_an_action_that_stops_at_the_users_wish_has_not_failed(bench: Bench) -> None:
    def work(context: Context) -> None:
        bench.cancel.set()
        context.check()

    outcome = bench.do(Step(name="a", work=work))
    assert (outcome.failed, names(outcome.skipped), outcome.cancelled) == ([], ["a"], True)
    assert outcome.skipped[0][1] == "stopped at your wish; taken back, or left for the next apply"


def test_what_waits_for_a_free_place_is_not_begun_after_a_stop(bench: Bench) -> None:
    """Handed to a thread already, but not begun."""
    done = list[str]()
    steps = [Step(name="a", work=lambda _: bench.cancel.set()), *(
        Step(name=n, work=lambda _, n=n: done.append(n)) for n in "bcd")]
    outcome = bench.do(*steps, parallel=1)
    assert done == []
    assert sorted(names(outcome.skipped)) == ["b", "c", "d"]


def test_a_bug_is_said_to_be_one(bench: Bench) -> None:
    """One line for the user; the traceback is in the journal."""
    def work(_: Context) -> None:
        {}["key"]

    error = bench.do(Step(name="a", work=work)).error()
    assert error is not None
    assert error.exit_code == Bug.exit_code
    assert "First: step a (do): this is a bug in vmwright: KeyError: 'key'" in error.what
    assert error.why.startswith(f"traceback: {bench.folder}/")
    assert "Traceback" not in str(error)
    bug = next(event for event in bench.events if event["event"] == "bug")
    assert bug["traceback"].startswith("Traceback (most recent call last):\n")
    assert '{}["key"]' in bug["traceback"]


def test_undoing_goes_backwards_and_only_after_a_failure(bench: Bench) -> None:
    steps = list[str]()

    def work(context: Context, then: Callable[[Context], None]) -> None:
        with context.undoing() as undo:
            for name in ("first", "second", "third"):
                undo.push(f"take {name} back", lambda name=name: steps.append(name))
            then(context)

    bench.do(Step(name="a", work=lambda context: work(context, lambda _: None)))
    assert steps == []
    bench.do(Step(name="a", work=lambda context: work(context, fail)))
    assert steps == ["third", "second", "first"]
    assert [e["what"] for e in bench.events if e["event"] == "undo"] == [
        "take third back", "take second back", "take first back"]


def test_what_lies_below_a_step_back_that_fails_is_left(bench: Bench) -> None:
    """It is still in use by what could not be removed. And the first error stays the one that is shown."""
    steps = list[str]()

    def broken() -> None:
        raise ValueError("this cannot be taken back")

    def work(context: Context) -> None:
        with context.undoing() as undo:
            undo.push("take first back", lambda: steps.append("first"))
            undo.push("take second back", broken)
            fail(context)

    error = bench.do(Step(name="a", work=work)).error()
    assert error is not None and "the guest is asleep" in error.what
    assert steps == []
    failed = next(event for event in bench.events if event["event"] == "undo-failed")
    assert (failed["what"], failed["error"]) == ("take second back", "this cannot be taken back")
