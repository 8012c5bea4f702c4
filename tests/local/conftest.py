"""Fixtures of the tests on this machine's libvirt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.kit import Kit, kit


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Kit]:
    """A cloud of the test's own."""
    with kit(tmp_path) as made:
        yield made
