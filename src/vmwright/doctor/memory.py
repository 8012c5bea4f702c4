"""Doctor: memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.doctor.check import Area, Case, Check, Verdict, names, refused
from vmwright.plan.checks import check_memory
from vmwright.units import MIB, format_size

_LOW = 512 * MIB


def memory(case: Case) -> Iterator[Check]:
    """Is there room for what is to run?"""
    facts = case.view.facts
    free = f"{format_size(facts.memory_available)} of {format_size(facts.memory)} memory free"
    found = list(refused(Area.MEMORY, case.asked(check_memory), "vmwright apply would refuse to start them"))
    yield from found
    if facts.memory_available < _LOW:
        yield Check(Verdict.WARN, Area.MEMORY, f"only {free}", "the host swaps, or kills a VM, when it runs out",
                    "stop VMs or other programs")
    elif not found:
        yield Check(Verdict.OK, Area.MEMORY, free)
    yield from _all(case)


def _all(case: Case) -> Iterator[Check]:
    """What all VMs of the file take together, whether or not they run now."""
    wanted = [vm for vm in case.running if not (vm.pin and vm.pin.hugepages)]
    total, has = sum(vm.memory for vm in wanted), case.view.facts.memory
    if total > has:
        yield Check(Verdict.WARN, Area.MEMORY, f"the VMs that are to run have {format_size(total)} together, and the "
                    f"host has {format_size(has)}", f"not all of {names(vm.name for vm in wanted)} can run at once",
                    "give less `memory:`, or say `running: false` for some")
