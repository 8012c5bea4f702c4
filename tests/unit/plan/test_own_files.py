"""Files of ours on a host: whose they are, what was changed by hand, what is no longer needed."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.plan.build import cloud, facts, made

from vmwright.facts.model import FileFacts
from vmwright.names import GRUB_DROP_IN, written_note
from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_plan

OURS = "# ours\na = 1\n"


def with_file(text: str | None, ours: str | None) -> Plan:
    wanted = cloud()
    machine = made(wanted)
    machine.platform = replace(machine.platform, files=(FileFacts(GRUB_DROP_IN, text, ours),))
    return make_plan(wanted, facts(wanted, machine))


def test_a_file_of_ours_that_was_changed_is_shown_with_what_is_other() -> None:
    assert with_file(OURS + "b = 2\n", OURS).warnings == (
        f"host here: {GRUB_DROP_IN} was changed by hand, and stays so:\n    @@ -2,0 +3 @@\n    +b = 2",)


def test_one_that_is_gone_is_told() -> None:
    assert with_file(None, OURS).warnings == (
        f"host here: {GRUB_DROP_IN}, which vmwright wrote, is gone; what it was: "
        f"{written_note(GRUB_DROP_IN)}",)


def test_one_as_we_wrote_it_and_one_of_others_are_nothing_to_tell() -> None:
    assert not with_file(OURS, OURS).warnings
    assert not with_file(OURS, None).warnings
