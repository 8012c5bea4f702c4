"""Starting: `vmwright --help`, and `check` of a file of 100 VMs, as whole processes; the peers' --help beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import Series, Spent, Table, Target, command, rounds, spend
from bench.peers import Peer
from bench.scratch import plain, vmwright
from bench.specs import spec

VMS = 100


def tables(runs: int, peers: dict[str, Peer]) -> Iterator[Table]:
    """The benchmark."""
    with tempfile.TemporaryDirectory(prefix="vmwright-bench-") as folder:
        file = Path(folder) / "cloud.yaml"
        file.write_text(spec(VMS), encoding="utf-8")
        helps = {"vmwright --help": _timed([*vmwright(), "--help"])}
        helps |= {f"{peer.name} --help": _timed([peer.program, "--help"]) for peer in peers.values() if peer.program}
        check = f"vmwright check, {VMS} VMs"
        series = rounds(runs, helps | {check: _timed([*vmwright(), "check", "-f", str(file)])})
    absent = tuple(Series(f"{peer.name} --help", absent=peer.absent) for peer in peers.values() if not peer.program)
    targets = (Target("--help, seconds", series[0].wall, 0.25),
               Target(f"check of {VMS} VMs, seconds", series[-1].wall, 0.6))
    yield Table("Starting: whole processes", (*series, *absent), targets, notes=tuple(
        f"{peer.name} {peer.version}" for peer in peers.values() if peer.program))


def _timed(argv: list[str]) -> Callable[[], Spent]:
    return lambda: spend(lambda: command(argv, env=plain()))
