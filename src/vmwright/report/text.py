"""Plans, facts and states as lines of text. Pure: what is styled is said by rich's markup-free Text objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from vmwright.facts.model import HostFacts, Kvm
from vmwright.plan.actions import Action, Effect, Plan, Sign
from vmwright.units import format_size

_STYLE = {Sign.ADD: "green", Sign.CHANGE: "yellow", Sign.REMOVE: "red", Sign.WARN: "bold red"}
_WIDTH = 34


def plan_lines(plan: Plan, *, verbose: bool = False) -> Iterable[Text]:
    """A plan as a person reads it: what stands in the way, what is done and why, what is left alone."""
    for warning in plan.warnings:
        yield Text(f"! {warning}", style="yellow")
    if plan.warnings:
        yield Text()
    many = len(plan.hosts) > 1
    for action in plan.actions:
        yield from action_lines(action, host=many)
    for kept in plan.unlisted:
        yield Text(f"  {kept.object}: {kept.why}", style="dim")
    if verbose or plan.empty:
        for kept in plan.kept:
            yield Text(f"  {kept.object}: {kept.why}", style="dim")
    yield Text(summary(plan), style="bold")


def action_lines(action: Action, *, host: bool = False) -> Iterable[Text]:
    """One action: sign, object, verb, why, costs; below, each value from what to what."""
    sign = _mark(action)
    head = f"{sign} {action.object}" + (f" on {action.host}" if host else "")
    costs = [effect.value for effect in Effect if effect in action.effects and effect is not Effect.NEXT_START]
    line = Text(f"{head:<{_WIDTH}} {action.verb:<8} {action.why}", style=_STYLE[sign])
    if costs:
        line.append(f"  [{', '.join(costs)}]", style="bold red")
    yield line
    for change in action.changes:
        what = f"{change.old} -> {change.new}" if change.old else change.new
        when = f"  ({change.when})" if change.when else ""
        yield Text(f"    {change.key}: {what}{when}")


def _mark(action: Action) -> Sign:
    """What takes data or cuts the network is marked, whatever else it does."""
    return Sign.WARN if action.effects & {Effect.TAKES_DATA, Effect.CUTS_OFF} and action.sign is not Sign.REMOVE else action.sign


def summary(plan: Plan) -> str:
    """The last line of a plan."""
    if plan.empty:
        return "Nothing to do: everything is as the file says."
    counts = {sign: sum(1 for action in plan.actions if _mark(action) is sign) for sign in Sign}
    words = {Sign.ADD: "to add", Sign.CHANGE: "to change", Sign.REMOVE: "to remove", Sign.WARN: "with a cost, marked !"}
    return ", ".join(f"{counts[sign]} {words[sign]}" for sign in Sign if counts[sign]) + "."


def host_line(facts: HostFacts) -> str:
    """A host in a line."""
    how = {Kvm.WORKS: "KVM", Kvm.BROKEN: "emulated: KVM does not work", Kvm.ABSENT: "emulated: no KVM"}[facts.kvm]
    return (f"host {facts.name}: {facts.os}, {facts.cpus} CPUs, {format_size(facts.memory_available)} of "
            f"{format_size(facts.memory)} memory free, guests run {how}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table: a head, no rules, columns as wide as they need."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made
