"""Tiers and profiles of the test suite.

unit    pure and fast; everything but the directories below
local   tests/local: the real libvirt of this machine, minutes; run when asked for with --tier or by path
rack    tests/rack: emulated servers that boot, minutes; run when asked for with --tier or by path
long    tests/long: the same for half an hour and more; run only when asked for by name, not by --tier all
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest

PLACES = {name: Path(__file__).parent / name for name in ("local", "rack", "long")}  # of the tiers besides unit

_FIRST = {"test_groups.py": 1, "test_devices.py": 2, "test_host.py": 3}  # of the files of a tier, the longest

# No deadlines: a test that fails because the machine is busy says nothing. CI draws the same examples at every run.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=("unit", *PLACES, "all"), default="unit", help="which tests run (default: unit)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadfile: whole files side by side, but all that use this machine's libvirt in one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class ByTier(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place = nodeid.partition("::")[0]
            return "local" if (config.rootpath / place).is_relative_to(PLACES["local"]) else place

    return ByTier(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their place, put the slow tiers last, and skip what was not asked for: the summary shows it."""
    order = ("unit", *PLACES)
    items.sort(key=lambda item: order.index(_tier(item)))
    if "PYTEST_XDIST_WORKER" in os.environ:
        _longest_first(items)
    asked = config.getoption("--tier")
    for item in items:
        kind = _tier(item)
        if kind != "unit":
            item.add_marker(getattr(pytest.mark, kind))
        everything = asked == "all" and kind != "long"
        if asked != kind and not everything and not (kind != "unit" and _named(config, PLACES[kind])):
            item.add_marker(pytest.mark.skip(reason=f"{kind} tier: ask with --tier {kind}"))


def _longest_first(items: list[pytest.Item]) -> None:
    """For workers side by side. An emulated server takes one CPU for itself, most of the time."""
    long = {"local": 1, "rack": 2}
    items.sort(key=lambda item: (long.get(_tier(item), 3), _FIRST.get(item.path.name, 9)))


def _tier(item: pytest.Item) -> str:
    return next((name for name, place in PLACES.items() if item.path.is_relative_to(place)), "unit")


def _named(config: pytest.Config, place: Path) -> bool:
    """Whether the command line names a tier's directory or something in it."""
    here = config.invocation_params.dir
    return any((here / arg.partition("::")[0]).resolve().is_relative_to(place) for arg in config.args)
