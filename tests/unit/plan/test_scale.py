"""Planning many VMs is linear work: counted in bytecode instructions of plan and report, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from types import CodeType, FrameType
from typing import Any, TypeVar

import pytest
from tests.unit.plan.build import cloud
from tests.unit.plan.places import small
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import (
    ConfigFacts,
    DiskFacts,
    DomainFacts,
    DomainState,
    Facts,
    IntentFacts,
    NetworkFacts,
    NicFacts,
    OwnerFacts,
    PoolFacts,
    VolumeFacts,
)
from vmwright.names import data_volume, root_volume, seed_volume, template_volume
from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.plan.power import make_start_plan, make_stop_plan
from vmwright.plan.seeds import seed_mark
from vmwright.plan.view import Request
from vmwright.report.data import plan_data
from vmwright.report.status import status_data
from vmwright.report.text import plan_lines
from vmwright.spec.cloud import Cloud, VmSpec
from vmwright.units import GIB

T = TypeVar("T")
SIZES = (20, 40, 80)
POOL = "/srv/images"


@cache
def wanted(count: int, memory: str = "1G", size: str = "1G") -> Cloud:
    """A cloud of that many VMs, each with a data disk."""
    return cloud(f"networks: {{lan: {{nat: 10.0.0.0/16}}}}\nvms: {{web: {{count: {count}, template: base, "
                 f"memory: {memory}, address: 10.0.0.10, disks: {{data: {size}}}}}}}\n")


def volume(name: str, size: int, backing: str | None = None) -> VolumeFacts:
    return VolumeFacts("images", name, f"{POOL}/{name}", "qcow2", size, 0, backing)


@cache
def there(count: int, state: DomainState = DomainState.RUNNING) -> Facts:
    """Facts in which all of them are there."""
    spec = wanted(count)
    template = spec.templates[0]
    base = volume(template_volume("lab", "base", template.version), template.size)
    volumes, domains = [base], []
    for vm in spec.vms:
        own = (volume(root_volume("lab", vm.name), template.size, base.path),
               volume(seed_volume("lab", vm.name), 1 << 16),
               volume(data_volume("lab", vm.name, "data"), GIB))
        volumes += own
        domains.append(domain(vm, own, template.version, state))
    host = Machine().facts(spec)
    return Facts((replace(
        host, volumes=tuple(volumes), domains=tuple(domains),
        memory=count * 10 * GIB, memory_available=count * 10 * GIB,
        pools=(PoolFacts("images", "dir", POOL, True, True, 1 << 50, 1 << 50),),
        networks=(NetworkFacts("lan", True, True, "nat", "virbr1", "10.0.0.1/16"),)),))


def domain(vm: VmSpec, own: tuple[VolumeFacts, ...], version: str, state: DomainState) -> DomainFacts:
    root, seed, data = own
    disks = (DiskFacts("vda", root.path, "root", format="qcow2"), DiskFacts("vdz", seed.path, "seed", readonly=True),
             DiskFacts("vdb", data.path, "data", format="qcow2"))
    owner = OwnerFacts("lab", vm.name, "base", version, "i", seed_mark("lab", vm))
    nics = tuple(NicFacts(nic.mac, "network", "lan") for nic in vm.nics)
    config = ConfigFacts(vm.vcpus, 4, vm.memory, vm.memory, disks, nics, "uefi", "kvm", "host-passthrough", owner)
    return DomainFacts(vm.name, "u", state, False, config, config if state is DomainState.RUNNING else None)


def notes(count: int, operation: str, *, domains: bool) -> Facts:
    """Facts in which a note says of each VM that something was begun."""
    host = there(count).hosts[0]
    intents = tuple(IntentFacts("lab", vm.name, operation, (f"{POOL}/{root_volume('lab', vm.name)}",), "i")
                    for vm in wanted(count).vms)
    return Facts((replace(host, intents=intents, domains=host.domains if domains else ()),))


def instructions(function: Callable[[], T]) -> tuple[int, T]:
    """How many bytecode instructions of plan and report a call takes, and what it returns."""
    counted = 0
    ours: dict[CodeType, bool] = {}

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal counted
        code = frame.f_code
        if code not in ours:
            ours[code] = "/vmwright/plan/" in code.co_filename or "/vmwright/report/" in code.co_filename
        if not ours[code]:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = function()
    finally:
        sys.settrace(before)
    return counted, result


class Counted(tuple[Any, ...]):
    """A tuple that counts how often it is walked through or searched."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        Counted.walks += 1
        return super().__iter__()

    def __contains__(self, value: object) -> bool:
        Counted.walks += 1
        return super().__contains__(value)


def names(count: int) -> list[str]:
    return [vm.name for vm in wanted(count).vms]


def status(count: int) -> int:
    made = make_plan(wanted(count, "2G"), there(count))
    return len(status_data(wanted(count, "2G"), there(count), made, {}))


def shown(count: int) -> int:
    made = make_plan(wanted(count, "2G", "2G"), there(count), Request(restart=True))
    return len(list(plan_lines(made, verbose=True))) + len(plan_data(made)["actions"])


@cache
def pinned(count: int, each: bool) -> Cloud:
    """As many VMs bound to CPUs of a large host: all to the same, or each to one."""
    pin = f"[{', '.join(str(n % 64) for n in range(count))}]" if each else "0-15"
    return cloud(f"networks: {{lan: {{nat: 10.0.0.0/16}}}}\nvms: {{web: {{count: {count}, template: base, "
                 f"memory: 1G, address: 10.0.0.10, pin: {pin}}}}}\n")


def large() -> Facts:
    """A host of 256 CPUs, with huge pages for some of the VMs."""
    host = small(cores=64, threads=2, nodes=2, memory=1000 * GIB, pages=512 * 50).facts(pinned(2, False))
    return Facts((replace(host, pools=there(2).hosts[0].pools),))


NONE = replace(cloud("vms: {}\n"), networks=())
CASES: dict[str, tuple[Callable[[int], Any], Callable[[int], int]]] = {
    "nothing to do": (lambda n: make_plan(wanted(n), there(n)), lambda n: 0),
    "all to create": (lambda n: make_plan(wanted(n), Facts((replace(there(n).hosts[0], domains=(), volumes=()),))),
                      lambda n: n + 1),
    "all pinned to the same": (lambda n: make_plan(pinned(n, False), large()), lambda n: n + 2),
    "all pinned": (lambda n: make_plan(pinned(n, True), large()), lambda n: n + 2),
    "all to change": (lambda n: make_plan(wanted(n, "2G", "2G"), there(n)), lambda n: 2 * n),
    "all to restart": (lambda n: make_plan(wanted(n, "2G", "2G"), there(n), Request(restart=True)), lambda n: 3 * n),
    "all to start": (lambda n: make_plan(wanted(n), there(n, DomainState.SHUTOFF)), lambda n: n),
    "all to prune": (lambda n: make_plan(NONE, there(n), Request(prune=True)), lambda n: n + 1),
    "all cut off in creating": (lambda n: make_plan(wanted(n), notes(n, "create", domains=False)), lambda n: n),
    "all cut off in booting": (lambda n: make_plan(wanted(n), notes(n, "boot", domains=True)), lambda n: n),
    "all cut off in rebuilding": (lambda n: make_plan(wanted(n), notes(n, "rebuild", domains=True)), lambda n: n),
    "all cut off in removing": (lambda n: make_plan(NONE, notes(n, "destroy", domains=True)), lambda n: n),
    "all refused": (lambda n: make_plan(wanted(n, "1G", "512M"), there(n)), lambda n: 0),
    "destroy all": (lambda n: make_destroy_plan(wanted(n), there(n), names(n)), lambda n: n),
    "rebuild all": (lambda n: make_rebuild_plan(wanted(n), there(n), names(n)), lambda n: n),
    "start all": (lambda n: make_start_plan(wanted(n), there(n, DomainState.SHUTOFF), names(n)), lambda n: n),
    "stop all": (lambda n: make_stop_plan(wanted(n), there(n), names(n), patience=1, force=False), lambda n: n),
    "status": (status, lambda n: n),
    "shown": (shown, lambda n: 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_work_grows_no_worse_than_linearly(case: str) -> None:
    """From N to 2N to 4N VMs: the second step is twice the first one, not four times."""
    make, expected = CASES[case]
    make(2)  # what is worked out once and kept
    counts = []
    for size in SIZES:
        for prepared in (wanted(size), wanted(size, "2G"), wanted(size, "2G", "2G"), there(size),
                         pinned(size, True), pinned(size, False)):
            assert prepared
        count, made = instructions(lambda size=size: make(size))
        counts.append(count)
        if isinstance(made, Plan):
            assert len(made.actions) == expected(size), [action.id for action in made.actions][:5]
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    assert first > 0
    assert second <= 2.05 * first, f"{case}: {counts}"


@pytest.mark.parametrize("case", ["nothing to do", "all to create", "all to change"])
def test_what_is_listed_is_walked_through_a_few_times_however_much_it_is(case: str) -> None:
    walks = []
    for size in SIZES:
        host = there(size).hosts[0]
        host = replace(host, volumes=Counted(host.volumes), domains=Counted(host.domains))
        if case == "all to create":
            host = replace(host, domains=(), volumes=Counted(host.volumes[:1]))
        spec = wanted(size, *(("2G", "2G") if case == "all to change" else ()))
        spec = replace(spec, vms=Counted(spec.vms))
        Counted.walks = 0
        make_plan(spec, Facts((host,)))
        walks.append(Counted.walks)
    assert walks[0] == walks[1] == walks[2]
    assert 0 < walks[0] < 30
