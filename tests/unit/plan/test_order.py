"""The order of actions, for any needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.plan.action import Action
from vmwright.plan.actions import Tidy
from vmwright.plan.order import order, with_needs


def step(name: str, *needs: str) -> Tidy:
    """An action; it needs others by their names."""
    return Tidy(host="h", name=name, operation="template", why="", needs=tuple(f"h/leftover-{n}/tidy" for n in needs))


def names(actions: tuple[Action, ...]) -> str:
    return "".join(action.name for action in actions if isinstance(action, Tidy))


@pytest.mark.parametrize(("actions", "ordered"), [
    ([], ""),
    ([step("a"), step("b")], "ab"),
    ([step("a", "b"), step("b")], "ba"),
    ([step("a"), step("b", "d"), step("c"), step("d")], "acdb"),
    ([step("a", "not there"), step("b")], "ab"),
    ([step("a"), step("b", "a"), step("c"), step("d", "c")], "abcd"),
])
def test_each_comes_after_its_needs_and_else_as_it_was_found(actions: list[Action], ordered: str) -> None:
    assert names(order(actions)) == ordered


def test_two_with_the_same_id_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two actions of one plan have the same id"):
        order([step("a"), step("a")])


def test_two_that_need_each_other_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="some actions of one plan need each other"):
        order([step("a", "b"), step("b", "a")])


def test_chosen_ones_come_with_all_they_need() -> None:
    actions = [step("a"), step("b", "a"), step("c"), step("d", "b", "not there")]
    assert names(with_needs(actions, frozenset({actions[3].id}))) == "abd"
    assert with_needs(actions, frozenset({"unknown"})) == ()


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=30))
def test_any_needs_without_a_circle(needs: list[list[int]]) -> None:
    """Each may need any of those before it (in some order that is then turned round)."""
    actions = [step(f"n{place}", *(f"n{need}" for need in wanted if need < place))
               for place, wanted in enumerate(needs)]
    ordered = order(actions[::-1])
    seen: set[str] = set()
    for action in ordered:
        assert set(action.needs) <= seen
        seen.add(action.id)
    assert set(ordered) == set(actions)
    assert order(ordered) == ordered
