"""Plans that find nothing to do, with many VMs; and what they ask of libvirt."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.local.kit import URI, Kit

from bench.measure import Series, Spent, Table, Target, command, rounds, spend
from bench.peers import Peer
from bench.scratch import act, plain, quiet, scratch, vmwright, write
from bench.specs import existing, recorded, spec
from vmwright.facts.gather import gather
from vmwright.plan.diff import make_plan
from vmwright.session import Sessions
from vmwright.spec.load import load

FEW, MANY = 100, 1000
DEFINED = (5, 25)


def tables(runs: int, peers: dict[str, Peer]) -> Iterator[Table]:
    """The benchmark."""
    yield _pure(runs)
    yield _recorded(runs)
    yield _real(runs, peers)


def _pure(runs: int) -> Table:
    """The pure function alone, in this process."""
    series = rounds(runs, {f"make_plan, {count} VMs": _planned(count) for count in (FEW, MANY)})
    return Table("Plan alone: spec and facts in memory, nothing to do", series, (
        Target(f"CPU with {MANY} VMs to CPU with {FEW}, ratio", series[1].cpu / series[0].cpu, 12),))


def _planned(count: int) -> Callable[[], Spent]:
    wanted, found = existing(count)

    def once() -> Spent:
        began, used = time.perf_counter(), time.process_time()
        for _ in range(10):  # one is too short for the clock of the CPU
            assert make_plan(wanted, found).empty
        return Spent((time.perf_counter() - began) / 10, (time.process_time() - used) / 10)

    return once


def _recorded(runs: int) -> Table:
    """`vmwright plan --facts FILE` as a whole process: start, file, facts, plan, output."""
    with tempfile.TemporaryDirectory(prefix="vmwright-bench-") as folder:
        contenders = {f"vmwright plan --facts, {count} VMs": _process(count, Path(folder)) for count in (FEW, MANY)}
        series = rounds(runs, contenders)
    few, many = series
    return Table("Plan of recorded facts: whole processes, nothing to do", series, (
        Target(f"CPU with {MANY} VMs, seconds", many.cpu, 5),
        Target(f"CPU with {MANY} VMs to CPU with {FEW}, ratio", many.cpu / few.cpu, MANY / FEW)))


def _process(count: int, folder: Path) -> Callable[[], Spent]:
    file, facts = folder / f"{count}.yaml", folder / f"{count}.json"
    file.write_text(spec(count), encoding="utf-8")
    facts.write_text(recorded(count), encoding="utf-8")
    argv = [*vmwright(), "plan", "-f", str(file), "--facts", str(facts), "--exit-code"]
    return lambda: spend(lambda: command(argv, env=plain()))


# -- against the real libvirt ----------------------------------------------------------------------------------------


def _real(runs: int, peers: dict[str, Peer]) -> Table:
    """VMs that are defined and off: what a look at them takes, and how many calls to libvirt it makes."""
    series: list[Series] = []
    calls: list[float] = []
    with scratch() as cloud:
        for count in DEFINED:
            write(cloud, {f"{cloud.name}-{n}": "overlay" for n in range(count)})
            act(cloud, "apply", "-y")
            calls.append(_calls(cloud))
            contenders = {f"vmwright plan, {count} VMs": lambda: act(cloud, "plan", "--exit-code")}
            series += rounds(runs, contenders | _lists(peers, count, cloud))
    per_vm = (calls[1] - calls[0]) / (DEFINED[1] - DEFINED[0])
    return Table("Plan on real libvirt: VMs that are defined, nothing to do", tuple(series), (
        Target("calls to libvirt for one more VM, when reading the facts", per_vm, 4),),
        counts=tuple((f"calls to libvirt, {n} VMs", value) for n, value in zip(DEFINED, calls, strict=True)),
        notes=("the peers only list VMs: none of them can tell whether they are as a file says",
               "calls: one description per VM, root disk and seed; other VMs and pools of this machine count, too"))


def _calls(cloud: Kit) -> int:
    wanted = load(str(cloud.file))
    with Sessions(wanted.hosts) as sessions:
        gather(wanted, sessions)
        return sessions["here"].virt.calls


def _lists(peers: dict[str, Peer], count: int, cloud: Kit) -> dict[str, Callable[[], Spent]]:
    home = {**os.environ, "HOME": str(cloud.folder), "XDG_CONFIG_HOME": str(cloud.folder / "config")}
    lists = {"kcli": ["list", "vm"]}

    def timed(argv: list[str]) -> Callable[[], Spent]:
        def once() -> Spent:
            quiet()
            return spend(lambda: command(argv, env=home))

        return once

    found = {f"{name} {' '.join(words)}, {count} VMs": timed([peers[name].program, *words])
             for name, words in lists.items() if peers[name].program}
    return found | {f"virsh list --all, {count} VMs": timed(["virsh", "--connect", URI, "list", "--all"])}
