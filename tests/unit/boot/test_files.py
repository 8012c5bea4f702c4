"""The files that start VMs in order: whose they are, and what is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plan.build import cloud

from vmwright.boot import files
from vmwright.boot.files import Row

ROWS = st.lists(st.builds(Row, st.one_of(st.just("-"), st.integers(0, 99).map(str)),
                          st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True), st.integers(0, 9999)))


def test_a_list_has_the_vms_that_start_with_the_host_in_their_order() -> None:
    wanted = cloud("vms: {late: {template: base, autostart: true}, two: {template: base, autostart: {order: 10, "
                   "healthy: agent, timeout: 60}}, no: {template: base}, one: {template: base, autostart: {order: "
                   "9}}}\n")
    text = files.list_text(files.rows(wanted.vms))
    assert text.splitlines()[1:] == ["9 one - 0", "10 two agent 60", "- late - 0"]


@given(ROWS)
def test_a_list_is_read_as_it_was_written(rows: list[Row]) -> None:
    text = files.list_text(rows)
    assert files.parse_list(text) == tuple(rows)
    assert files.is_ours(text) and files.is_intact(text)


@given(st.text())
def test_any_text_is_a_list_of_some_kind(text: str) -> None:
    assert len(files.parse_list(text)) <= len(text.splitlines())
    assert not files.is_intact(text)


@pytest.mark.parametrize("text", [files.unit(), files.script()], ids=["unit", "script"])
def test_the_mark_says_whose_it_is_and_whether_it_is_whole(text: str) -> None:
    assert files.is_ours(text) and files.is_intact(text)
    changed = f"{text}# by hand\n"
    assert files.is_ours(changed) and not files.is_intact(changed)
    start, mark, rest = text.partition("# Written by vmwright")
    assert (start, mark) == (text[:len(start)], "# Written by vmwright") and start in ("", "#!/bin/sh\n")
    without = f"{start}{rest.partition(chr(10))[2]}"
    assert not files.is_ours(without) and not files.is_intact(without)
    assert not files.is_ours(f"# mine\n{text}")


def test_the_unit_runs_the_script_and_the_script_is_for_any_shell() -> None:
    assert f"ExecStart=/bin/sh {files.SCRIPT_PATH}\n" in files.unit()
    assert files.script().startswith("#!/bin/sh\n# Written by vmwright (")
