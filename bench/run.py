"""Benchmarks of vmwright against what users would pick instead."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from bench import clones, plan, rack, start  # noqa: E402
from bench.measure import Table, data, text  # noqa: E402
from bench.peers import Peer, peers  # noqa: E402

BENCHES = {"start": start.tables, "plan": plan.tables, "clones": clones.tables, "rack": rack.tables}
MINUTES = {"start": "under a minute", "plan": "three minutes", "clones": "a quarter of an hour, with 25 GiB of room",
           "rack": "ten minutes, and ten for each run, with 12 GiB of room"}
APART = {"rack"}  # only when it is named


def main() -> int:
    """Run them; 1 when a target is missed."""
    wanted = _arguments()
    names = wanted.benches or [name for name in BENCHES if name not in APART]
    for name in names:
        print(f"bench {name}: about {MINUTES[name]}", file=sys.stderr)
    shown: list[Table] = []
    with peers() as there:
        for table in _tables(names, wanted.runs, there):
            print(text(table), flush=True)
            shown.append(table)
        if wanted.json:
            record = json.dumps(_record(shown, wanted.runs, there), indent=2)
            Path(wanted.json).write_text(f"{record}\n", encoding="utf-8")
    return int(any(not target.met for table in shown for target in table.targets))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("benches", nargs="*", metavar="BENCH", choices=[*BENCHES, []],
                        help=f"{', '.join(BENCHES)}; all when none is named, but for rack, which boots a server")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median counts (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured, too")
    return parser.parse_args()


def _tables(names: list[str], runs: int, there: dict[str, Peer]) -> Iterator[Table]:
    for name in names:
        yield from BENCHES[name](runs, there)


def _record(shown: list[Table], runs: int, there: dict[str, Peer]) -> dict[str, object]:
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "runs": runs,
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "peers": {peer.name: peer.version or peer.absent for peer in there.values()},
        "tables": [data(table) for table in shown],
    }


if __name__ == "__main__":
    sys.exit(main())
