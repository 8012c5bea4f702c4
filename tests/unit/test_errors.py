"""Errors: what happened, where, why, what to do; and an exit code per class."""

from __future__ import annotations

import pytest

from vmwright import errors
from vmwright.errors import HostError, PlanRefused, Problem, SpecError, VmwrightError, Where

HERE = Where("cloud.yaml", 7, 3)


def every(kind: type[VmwrightError]) -> list[type[VmwrightError]]:
    """A class and all that come from it."""
    return [kind, *(below for child in kind.__subclasses__() for below in every(child))]


def test_each_class_has_its_own_exit_code() -> None:
    """But for refinements of one, which a script need not tell apart; none is 0, or what a shell or signal means."""
    codes: dict[int, list[str]] = {}
    for kind in every(VmwrightError):
        if kind.__module__ == errors.__name__:
            codes.setdefault(kind.exit_code, []).append(kind.__name__)
    assert codes == {
        1: ["VmwrightError"], 3: ["SpecError"], 4: ["PlanRefused"], 5: ["HostError"], 6: ["ApplyError"], 7: ["Busy"],
        8: ["GuestError", "AgentSilent"], 64: ["UsageError"], 70: ["Bug"], 130: ["Cancelled"]}


@pytest.mark.parametrize(("error", "text"), [
    (VmwrightError("it broke"), "it broke"),
    (HostError("it broke", why="so", todo="mend it"), "it broke\n  why: so\n  do:  mend it"),
    (HostError("it broke", why="one\ntwo", todo="this\nthat"),
     "it broke\n  why: one\n       two\n  do:  this\n       that"),
    (VmwrightError("it broke", where=HERE, todo="mend it"), "cloud.yaml:7:3: it broke\n  do:  mend it"),
])
def test_an_error_says_what_why_and_what_to_do(error: VmwrightError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(("problem", "text"), [
    (Problem("it is wrong"), "it is wrong"),
    (Problem("it is wrong", "write this", HERE), "cloud.yaml:7:3: it is wrong\n    write this"),
    (Problem("it is wrong", "this\nor that"), "it is wrong\n    this\n    or that"),
])
def test_a_problem_says_what_where_and_what_to_do(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_all_problems_are_told_at_once() -> None:
    assert str(SpecError([Problem("one"), Problem("two", "", HERE)])) == (
        "one\ncloud.yaml:7:3: two\n2 problems in the file")
    assert str(SpecError(iter([Problem("one")]))) == "one\n1 problem in the file"
    assert str(SpecError([Problem("one")], "no facts")) == "one\nno facts"


def test_a_refused_plan_changed_nothing() -> None:
    error = PlanRefused([Problem("no room", "make room")])
    assert isinstance(error, SpecError)
    assert str(error) == "no room\n    make room\nrefused: nothing was changed"
    assert error.args == ("refused: nothing was changed",)


def test_places_are_in_file_order() -> None:
    places = [Where("a", 2, 1), Where("a", 10, 1), Where("a", 2, 10), Where("b", 1, 1)]
    assert sorted(places) == [places[0], places[2], places[1], places[3]]
