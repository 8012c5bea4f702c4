"""Tiers and profiles of the test suite.

unit    pure and fast; everything but the directories below
local   tests/local: the real libvirt of this machine, minutes; run when asked for with --tier or by path
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

LOCAL = Path(__file__).parent / "local"

# No deadlines: a test that fails because the machine is busy says nothing. CI draws the same examples at every run.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=("unit", "local", "all"), default="unit", help="which tests run (default: unit)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the local tier by its place, put it last, and skip what was not asked for, so that the summary shows it."""
    items.sort(key=lambda item: item.path.is_relative_to(LOCAL))
    tier = config.getoption("--tier")
    wanted = {"unit": tier in ("unit", "all"), "local": tier in ("local", "all") or _named(config)}
    for item in items:
        kind = "local" if item.path.is_relative_to(LOCAL) else "unit"
        if kind == "local":
            item.add_marker(pytest.mark.local)
        if not wanted[kind]:
            item.add_marker(pytest.mark.skip(reason=f"{kind} tier: ask with --tier {kind}"))


def _named(config: pytest.Config) -> bool:
    """Whether the command line names tests/local or something in it."""
    here = config.invocation_params.dir
    return any((here / arg.partition("::")[0]).resolve().is_relative_to(LOCAL) for arg in config.args)
