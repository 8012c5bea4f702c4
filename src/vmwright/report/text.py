"""Plans, facts and states as lines of text. Pure: what is styled is said by rich's markup-free Text objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.text import Text

from vmwright.facts.model import HostFacts, Kvm
from vmwright.plan.action import Action, Change, Effect, Sign
from vmwright.plan.actions import AS_ASKED, GrowDisk, Kept, Plan, VmAction
from vmwright.units import format_size, some

_STYLE = {Sign.ADD: "green", Sign.CHANGE: "yellow", Sign.REMOVE: "red", Sign.WARN: "bold red"}
_COUNTED = {Sign.ADD: "to add", Sign.CHANGE: "to change", Sign.REMOVE: "to remove"}
# That something counts at a next start is told by the change.
_COSTS = (Effect.REBOOTS, Effect.STOPS, Effect.TAKES_DATA, Effect.CUTS_OFF)
_WIDEST, _SHOWN = 44, 5


def plan_lines(plan: Plan, *, verbose: bool = False, whole: bool = True) -> Iterable[Text]:
    """A plan as a person reads it: warnings, what is done and why and what it costs, what is left alone, a summary.

    The parts that there are have one empty line between them. `whole`: the plan is for all that the file says, not for
    single VMs.
    """
    kept = plan.kept if verbose else _gathered(plan.kept) if plan.empty and not plan.refused else ()
    warnings = (Text(f"warning: {warning}", style="yellow") for warning in plan.warnings)
    last = [Text(summary(plan, whole=whole), style="bold")]
    yield from parts(list(warnings), list(_actions(plan)), list(_left(plan.unlisted)), list(_left(kept)), last)


def parts(*blocks: Sequence[Text]) -> Iterator[Text]:
    """Blocks of lines with an empty line between them; those without lines leave no trace."""
    for number, block in enumerate(filter(None, blocks)):
        yield from [Text(), *block] if number else block


def _actions(plan: Plan) -> Iterator[Text]:
    widths = _widths(plan.actions)
    for host, actions in groupby(plan.actions, lambda action: action.host):
        if len(plan.hosts) > 1:
            yield Text(f"host {host}", style="bold")
        for action in actions:
            yield from action_lines(action, widths)
    if plan.first != plan.actions:
        yield Text("What prepares hosts is done first. Then they are read again, and the rest is worked out anew, and "
                   "shown again where it differs from this.", style="dim")


def _widths(actions: Iterable[Action]) -> tuple[int, int]:
    """How wide the columns of objects and verbs are; one long name does not push all others aside."""
    sizes = [(min(_WIDEST, len(action.object)), len(action.verb)) for action in actions]
    return max((width for width, _ in sizes), default=0), max((width for _, width in sizes), default=0)


def action_lines(action: Action, widths: tuple[int, int] = (0, 0)) -> Iterator[Text]:
    """One action: sign, object, verb, why, costs; below, each value from what to what."""
    sign = mark(action)
    line = Text(f"{sign} {action.object:<{widths[0]}}", style=_STYLE[sign])
    line.append(f"  {action.verb:<{widths[1]}}")
    line.append(f"  {action.why}", style="dim" if sign is not Sign.WARN else "not dim not bold")
    if costs := [effect.value for effect in _COSTS if effect in action.effects]:
        line.append(f"  ! {', '.join(costs)}", style="bold red")
    yield line
    if action.changes and all(not change.old and not change.when for change in action.changes):
        yield Text(f"      {_in_a_row(action.changes)}")
        return
    key = max((len(change.key) for change in action.changes), default=0)
    value = max((len(_value(change)) for change in action.changes if change.when), default=0)
    for change in action.changes:
        when = f"  {change.when}" if change.when else ""
        yield Text(f"      {change.key:<{key}}  {_value(change):<{value if when else 0}}{when}")


def _in_a_row(changes: Iterable[Change]) -> str:
    """What something new is like, on one line."""
    words = [f"{change.key} {change.new}" for change in changes]
    return ("; " if any("," in word for word in words) else ", ").join(words)


def _value(change: Change) -> str:
    return f"{change.old} -> {change.new}" if change.old else f"new: {change.new}"


def _left(kept: Sequence[Kept]) -> Iterator[Text]:
    width = min(_WIDEST, max((len(one.object) for one in kept), default=0))
    for one in kept:
        yield Text(f"  {one.object:<{width}}  {one.why}", style="dim")


def _gathered(kept: Sequence[Kept]) -> Sequence[Kept]:
    """What is left alone, with all VMs of which there is nothing to say in one line."""
    plain = [one for one in kept if one.object.startswith("vm ") and one.why == AS_ASKED]
    if len(plain) < 2:
        return kept
    rest = [one for one in kept if one not in set(plain)]
    return [*rest, Kept("", f"{len(plain)} VMs", AS_ASKED.replace("is", "are", 1))]


def mark(action: Action) -> Sign:
    """The sign to show: what takes data or cuts the network is marked, whatever else it does."""
    costly = action.effects & {Effect.TAKES_DATA, Effect.CUTS_OFF, Effect.REBOOTS}
    return Sign.WARN if costly and action.sign is not Sign.REMOVE else action.sign


def counts(plan: Plan) -> dict[str, int]:
    """How many actions add, change and remove something; a rebuild (!) is a change."""
    signs = [action.sign if action.sign in _COUNTED else Sign.CHANGE for action in plan.actions]
    return {words: signs.count(sign) for sign, words in _COUNTED.items()}


def costs(plan: Plan) -> dict[Effect, tuple[str, ...]]:
    """Whom it costs what: names of objects by effect."""
    return {effect: tuple(dict.fromkeys(_whom(a) for a in plan.actions if effect in a.effects)) for effect in _COSTS}


def _whom(action: Action) -> str:
    return f"vm {action.vm.name}" if isinstance(action, VmAction | GrowDisk) else action.object


def summary(plan: Plan, *, whole: bool = True) -> str:
    """The last line of a plan."""
    if plan.refused:
        number = len(plan.refused)
        return f"Refused: {number} thing{'s stand' if number > 1 else ' stands'} in the way."
    if plan.empty:
        return "Nothing to do: everything is as the file says." if whole else "Nothing to do."
    told = [f"{number} {words}" for words, number in counts(plan).items() if number]
    costly = [f"{effect.value}: {some(names, _SHOWN)}" for effect, names in costs(plan).items() if names]
    return f"{', '.join(told)}." + "".join(f" ! {words}." for words in costly)


def host_line(facts: HostFacts) -> str:
    """A host in a line."""
    how = {Kvm.WORKS: "KVM", Kvm.BROKEN: "emulated: KVM does not work", Kvm.ABSENT: "emulated: no KVM"}[facts.kvm]
    return (f"host {facts.name}: {facts.os}, {facts.cpus} CPUs, {format_size(facts.memory_available)} of "
            f"{format_size(facts.memory)} memory free, guests run {how}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Text:
    """A plain table: a head, no rules, columns as wide as they need; never cut, however narrow the terminal is."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    made = Text()
    for number, line in enumerate(lines):
        padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        made.append(padded + ("\n" if number < len(lines) - 1 else ""), style="bold" if number == 0 else "")
    return made
