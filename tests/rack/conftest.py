"""Fixtures of the tests that boot racks: one state folder for all of them; the host images stay in the user's cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.rack import kit

from vmwright.rack import process
from vmwright.rack.record import Record


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
        kit.remove_all()


@pytest.fixture(scope="module")
def rack() -> Iterator[Record]:
    """The reference shape with the ready image, up."""
    made = kit.up("lab")
    yield made
    process.down("lab", force=True, seconds=0, remove=True)
