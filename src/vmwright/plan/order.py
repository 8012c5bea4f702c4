"""The order of actions: each after all it needs; otherwise as they were found, which is the order of the file."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter

from vmwright.plan.actions import Action


def order(actions: Sequence[Action]) -> tuple[Action, ...]:
    """The actions, each after all it needs. Needs that are not among the actions are met already."""
    by_id = {action.id: action for action in actions}
    if len(by_id) != len(actions):
        raise ValueError("two actions of one plan have the same id")
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for action in actions:
        sorter.add(action.id, *(need for need in action.needs if need in by_id))
    return tuple(by_id[i] for i in sorter.static_order())


def with_needs(actions: Sequence[Action], chosen: frozenset[str]) -> tuple[Action, ...]:
    """Of the actions, those with a chosen id and all that they need, in their order."""
    by_id = {action.id: action for action in actions}
    wanted, todo = set[str](), [i for i in chosen if i in by_id]
    while todo:
        current = todo.pop()
        if current not in wanted:
            wanted.add(current)
            todo += [need for need in by_id[current].needs if need in by_id]
    return tuple(action for action in actions if action.id in wanted)
