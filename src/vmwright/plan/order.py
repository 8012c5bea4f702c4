"""The order of actions: each after all it needs; otherwise as they were found, which is the order of the file."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from vmwright.plan.action import Action


def order(actions: Sequence[Action]) -> tuple[Action, ...]:
    """The actions, each after all it needs. Needs that are not among the actions are met already.

    Of those that could come next, the one that was found first does. Raises ValueError when two have the same id, or
    when some need each other: mistakes of whoever made the actions, not of the user.
    """
    places = {action.id: place for place, action in enumerate(actions)}
    if len(places) != len(actions):
        raise ValueError("two actions of one plan have the same id")
    open_needs = [{places[need] for need in action.needs if need in places} for action in actions]
    waiting: list[list[int]] = [[] for _ in actions]
    for place, needs in enumerate(open_needs):
        for need in needs:
            waiting[need].append(place)
    ready = [place for place, needs in enumerate(open_needs) if not needs]
    heapify(ready)
    found: list[Action] = []
    while ready:
        place = heappop(ready)
        found.append(actions[place])
        for other in waiting[place]:
            open_needs[other].discard(place)
            if not open_needs[other]:
                heappush(ready, other)
    if len(found) != len(actions):
        raise ValueError("some actions of one plan need each other")
    return tuple(found)


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
