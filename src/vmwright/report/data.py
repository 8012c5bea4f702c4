"""Plans as JSON: for programs, and for keeping."""

from __future__ import annotations

from typing import Any

from vmwright.plan.action import Action
from vmwright.plan.actions import Kept, Plan
from vmwright.report.text import costs, counts


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan as plain data. Values are what a person would read; secrets are not part of a plan."""
    return {
        "format": 1,
        "cloud": plan.cloud,
        "empty": plan.empty,
        "counts": {words.removeprefix("to "): number for words, number in counts(plan).items()},
        "costs": {effect.value: list(names) for effect, names in costs(plan).items() if names},
        "actions": [_action(action) for action in plan.actions],
        "refused": [{"what": p.what, "do": p.todo, "where": str(p.where) if p.where else None} for p in plan.refused],
        "warnings": list(plan.warnings),
        "kept": [_kept(kept) for kept in plan.kept],
        "unlisted": [_kept(kept) for kept in plan.unlisted],
    }


def _action(action: Action) -> dict[str, Any]:
    return {
        "id": action.id, "sign": str(action.sign), "host": action.host, "object": action.object, "verb": action.verb,
        "why": action.why, "effects": sorted(effect.value for effect in action.effects), "needs": list(action.needs),
        "changes": [{"key": c.key, "old": c.old, "new": c.new, "when": c.when} for c in action.changes],
    }


def _kept(kept: Kept) -> dict[str, str]:
    return {"host": kept.host, "object": kept.object, "why": kept.why}
