"""Tiers and profiles of the test suite.

unit    pure and fast; everything but the directories below
local   tests/local: the real libvirt of this machine, minutes; run when asked for with --tier or by path
rack    tests/rack: emulated servers that boot, minutes; run when asked for with --tier or by path
long    tests/long: the same for half an hour and more; run only when asked for by name, not by --tier all
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

PLACES = {name: Path(__file__).parent / name for name in ("local", "rack", "long")}  # of the tiers besides unit

# No deadlines: a test that fails because the machine is busy says nothing. CI draws the same examples at every run.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=("unit", *PLACES, "all"), default="unit", help="which tests run (default: unit)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their place, put the slow tiers last, and skip what was not asked for: the summary shows it."""
    order = ("unit", *PLACES)
    items.sort(key=lambda item: order.index(_tier(item)))
    asked = config.getoption("--tier")
    for item in items:
        kind = _tier(item)
        if kind != "unit":
            item.add_marker(getattr(pytest.mark, kind))
        everything = asked == "all" and kind != "long"
        if asked != kind and not everything and not (kind != "unit" and _named(config, PLACES[kind])):
            item.add_marker(pytest.mark.skip(reason=f"{kind} tier: ask with --tier {kind}"))


def _tier(item: pytest.Item) -> str:
    return next((name for name, place in PLACES.items() if item.path.is_relative_to(place)), "unit")


def _named(config: pytest.Config, place: Path) -> bool:
    """Whether the command line names a tier's directory or something in it."""
    here = config.invocation_params.dir
    return any((here / arg.partition("::")[0]).resolve().is_relative_to(place) for arg in config.args)
