"""Doctor: pins, NUMA nodes and huge pages, and what of the host disturbs pinned VMs."""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.doctor.check import Area, Case, Check, Verdict, names, refused
from vmwright.plan.host_actions import PrepareFiles
from vmwright.plan.hugepages import plan_hugepages
from vmwright.plan.nodes import Bound, bound, check_nodes
from vmwright.plan.place import place
from vmwright.plan.view import Draft
from vmwright.spec.cloud import SMALLEST_PAGES
from vmwright.units import format_cpuset, format_size

_AREA = Area.PLACEMENT


def placement(case: Case) -> Iterator[Check]:
    """Is there room on each node for what is bound there, and are pinned CPUs left alone?"""
    yield from _aside(case)
    stands = list(refused(_AREA, case.asked(check_nodes), "pinned VMs run there and nowhere else"))
    yield from stands
    yield from _nodes(case, told=bool(stands))
    yield from _pages(case)
    if any(vm.pin for vm in case.view.vms):
        yield from _interrupts(case)
        yield from _merging(case)


def _aside(case: Case) -> Iterator[Check]:
    """Huge pages that the file wants on the host."""
    draft = Draft()
    plan_hugepages(case.view, draft)
    why = "the file wants them there: `hugepages:`"
    yield from refused(_AREA, draft, why)
    for action in draft.actions:
        if isinstance(action, PrepareFiles):
            rows = "; ".join(f"{change.key}: {change.old or 'none'}, not {change.new}" for change in action.changes)
            yield Check(Verdict.WARN, _AREA, f"huge pages are not as the file says: {rows}", why, "vmwright apply")
    yield from (Check(Verdict.WARN, _AREA, warning, why, "reboot the host") for warning in draft.told())


def _nodes(case: Case, *, told: bool) -> Iterator[Check]:
    """A line for each node, and one for each set of nodes that has not room for all that is to be there."""
    rows = bound(case.soon)
    for node in case.view.facts.nodes:
        mine = sum(row.size for row in rows if row.nodes == (node.number,) and not row.pages)
        huge = "".join(f", {page.free} of {page.total} huge pages of {format_size(page.size)} free"
                       for page in node.hugepages if page.total)
        yield Check(Verdict.OK, _AREA, f"node {node.number}: {format_size(node.free + node.reclaimable)} of "
                    f"{format_size(node.memory)} free{huge}" + (f", {format_size(mine)} bound to it" if mine else ""))
    for row in rows:
        if row.size > row.room and not told:
            yield _crowded(row)


def _crowded(row: Bound) -> Check:
    where = f"node{'s' * (len(row.nodes) > 1)} {format_cpuset(row.nodes)}"
    kind = f"huge pages of {format_size(row.pages)}" if row.pages else "memory"
    return Check(Verdict.WARN, _AREA, f"{where}: {format_size(row.size)} of {kind} are bound to it, and it has "
                 f"{format_size(row.room)} for VMs", f"they cannot all run at once: {names(row.vms)}",
                 "give less `memory:`, say `memory: preferred` in a pin, or pin some to another node")


def _pages(case: Case) -> Iterator[Check]:
    """Pinned VMs without huge pages leave speed unused: each of their pages is looked up in two tables."""
    plain = [vm for vm in case.running if vm.pin and vm.pin.hugepages is None and not place(case.soon, vm).hugepages]
    if not plain:
        return
    count = sum(-(-vm.memory // SMALLEST_PAGES) for vm in plain)
    yield Check(Verdict.NOTE, _AREA, f"no huge pages for {names(vm.name for vm in plain)}",
                "pinned VMs with much memory are faster with them (fewer misses of the TLB); the file leaves it open",
                f"for {count} of them in all, say `hugepages: {{{format_size(SMALLEST_PAGES)}: ...}}` of the host; or "
                "decline in the pin: `hugepages: false`")


def _interrupts(case: Case) -> Iterator[Check]:
    health = case.health
    pinned = {cpu for vm in case.view.vms if vm.pin for cpu in vm.pin.cpus}
    open_to = pinned - set(health.quiet)
    if not health.irqbalance or not pinned:
        return
    if not open_to:
        yield Check(Verdict.OK, _AREA, "irqbalance keeps interrupts off the CPUs of pinned VMs")
        return
    yield Check(Verdict.NOTE, _AREA, f"irqbalance may have CPUs {format_cpuset(open_to)} serve the host's interrupts",
                "they are pinned VMs' own: a vCPU waits while its CPU serves an interrupt",
                f'IRQBALANCE_BANNED_CPULIST="{format_cpuset(pinned | set(health.quiet))}" in /etc/default/irqbalance '
                "(Fedora: /etc/sysconfig/irqbalance), then: systemctl restart irqbalance")


def _merging(case: Case) -> Iterator[Check]:
    if case.health.ksm and len(case.view.facts.nodes) > 1:
        yield Check(Verdict.NOTE, _AREA, "the kernel merges equal pages of VMs on different NUMA nodes (KSM)",
                    "memory that is bound to a node may be read from another one, which is slower",
                    "while there is free memory for all that is merged now (pages_sharing there, of 4K): echo 2 > "
                    "/sys/kernel/mm/ksm/run; echo 0 > /sys/kernel/mm/ksm/merge_across_nodes; "
                    "echo 1 > /sys/kernel/mm/ksm/run (ksmtuned, where it runs, sets the first anew)")
