"""What starts VMs in order when a host boots: what its probe says, and what is made of that."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.facts import boot
from vmwright.facts.model import BootFacts


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_host_that_nobody_asks_says_nothing() -> None:
    assert boot.parse("") == BootFacts()


def test_all_that_it_may_say() -> None:
    text = (f"systemd yes\nenabled yes\nunit {encoded('[Unit]')}\nscript {encoded('#!/bin/sh')}\norder {encoded('')}\n"
            "other a\nother b\nguests start\n")
    assert boot.parse(text) == BootFacts(True, True, "[Unit]", "#!/bin/sh", "", ("a", "b"), "start")


@given(st.text())
def test_files_of_any_text(text: str) -> None:
    assert boot.parse(f"unit {encoded(text)}").unit == text


def test_a_torn_answer_is_told() -> None:
    with pytest.raises(ValueError, match="not base64"):
        boot.parse("unit a")
