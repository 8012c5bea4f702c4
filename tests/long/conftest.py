"""Fixtures of the tests that boot racks for long: the same as of the rack tier."""

from __future__ import annotations

from tests.rack.conftest import _state, rack

__all__ = ["_state", "rack"]
