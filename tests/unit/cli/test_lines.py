"""Lines on a terminal: the rest of a long detail stands below its beginning; no word is cut, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from vmwright.cli.common import _hanging

DETAIL = "      from debian@7e230eaff98b; vcpus 1; memory 512M; address 10.213.77.11/24; cpu maximum, emulated"


def test_a_detail_hangs_below_its_beginning() -> None:
    rows = [str(row) for row in _hanging(Text(DETAIL), 60)]
    assert rows == ["      from debian@7e230eaff98b; vcpus 1; memory 512M;",
                    "      address 10.213.77.11/24; cpu maximum, emulated"]


@pytest.mark.parametrize("line", ["VM  HOST  " * 20, "", Text("a" * 300), object(), Text(DETAIL[:50])])
def test_other_lines_stay_as_they_are(line: object) -> None:
    assert _hanging(line, 60) == [line]


@given(st.lists(st.from_regex(r"[a-z0-9/:.;]{1,90}", fullmatch=True), min_size=1, max_size=30), st.integers(30, 200))
def test_no_word_is_lost_or_cut(words: list[str], width: int) -> None:
    rows = [str(row) for row in _hanging(Text("      " + " ".join(words)), width)]
    assert " ".join(rows).split() == words
    assert all(row.startswith("      ") for row in rows)
