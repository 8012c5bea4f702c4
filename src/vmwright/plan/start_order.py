"""Which VMs start before which: within a plan, and when their host starts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import inf

from vmwright.plan.action import Action
from vmwright.plan.actions import CreateVm, RestartVm, StartVm, VmAction, WaitReady
from vmwright.plan.order import order


def in_order(actions: Sequence[Action]) -> list[Action]:
    """The actions; each that starts a VM needs those that start VMs of the next lower order on its host, too.

    VMs without an order come after all that have one. What a VM of a lower order needs itself goes before it, whatever
    its own order is (a device is handed over by a rebuild, say): so no two can come to need each other. An action has
    as its order the lowest of its VM's and of those of all that need it; then needs never lead from an order to a
    higher one, and those added here always lead to a lower one.
    """
    if not any(isinstance(action, VmAction) and action.vm.start_order.order is not None for action in actions):
        return list(actions)
    ranks = _ranks(actions)
    levels: defaultdict[tuple[str, float], list[str]] = defaultdict(list)
    for action in actions:
        if _counts(action):
            levels[action.host, ranks[action.id]].append(action.id)
    before = {(host, rank): max((lower for at, lower in levels if at == host and lower < rank), default=None)
              for host, rank in levels}
    return [_after(action, levels.get((action.host, lower), []))
            if _counts(action) and (lower := before[action.host, ranks[action.id]]) is not None else action
            for action in actions]


def _after(action: Action, others: list[str]) -> Action:
    return replace(action, needs=tuple(dict.fromkeys((*action.needs, *others))))


def _counts(action: Action) -> bool:
    """Whether an action starts a VM, or sees to the end of a start that others wait for."""
    if isinstance(action, CreateVm):
        return action.vm.running
    return isinstance(action, StartVm | RestartVm) or (isinstance(action, WaitReady) and action.vm.start_order.healthy)


def _ranks(actions: Sequence[Action]) -> dict[str, float]:
    """The order of each action, by its id: its VM's, or that of what needs it where that is lower."""
    ranks = {action.id: _own_rank(action) for action in actions}
    for action in reversed(order(actions)):
        for need in action.needs:
            if need in ranks:
                ranks[need] = min(ranks[need], ranks[action.id])
    return ranks


def _own_rank(action: Action) -> float:
    said = action.vm.start_order.order if isinstance(action, VmAction) and _counts(action) else None
    return inf if said is None else said
