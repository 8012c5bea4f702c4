"""The mark of cloud-init data: decides by the whole, explains by the parts."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plan.build import cloud, vm

from vmwright.guest.seed import seed_hash
from vmwright.plan.seeds import is_current, seed_mark, what_differs
from vmwright.spec.cloud import GuestSpec

VALUES = {
    "users": cloud().vms[0].guest.users, "timezone": "Etc/UTC", "locale": "C.UTF-8", "proxy": "http://p:1",
    "ntp": ("n",), "packages": ("vim",), "runcmd": ("true",),
    "write_files": cloud(vm(write_files="[{path: /a, content: b}]")).vms[0].guest.write_files,
}


def test_a_mark_is_short_text_without_anything_of_the_user() -> None:
    web = replace(cloud().vms[0], guest=GuestSpec(**VALUES))  # type: ignore[arg-type]
    mark = seed_mark("lab", web)
    assert mark.split(" ")[0] == seed_hash("lab", web)
    assert [word.partition("=")[0] for word in mark.split(" ")[1:]] == ["network", *(f.name for f in fields(GuestSpec))]
    assert all(len(word.partition("=")[2]) == 4 for word in mark.split(" ")[1:])
    assert len(mark) < 160


def test_every_part_of_the_guests_data_has_a_value_here() -> None:
    assert VALUES.keys() == {field.name for field in fields(GuestSpec)}


def test_what_is_empty_is_not_in_it() -> None:
    bare = replace(cloud().vms[0], guest=GuestSpec(), nics=())
    assert seed_mark("lab", bare) == seed_hash("lab", bare)


@given(st.sets(st.sampled_from(sorted(VALUES))), st.sets(st.sampled_from(sorted(VALUES))))
def test_the_parts_that_differ_are_those_that_do(one: set[str], other: set[str]) -> None:
    web = cloud().vms[0]
    marks = [seed_mark("lab", replace(web, guest=GuestSpec(**{name: VALUES[name] for name in names})))  # type: ignore[arg-type]
             for names in (one, other)]
    words = {"ntp": "NTP servers", "write_files": "files", "runcmd": "commands"}
    told = {part for part in what_differs(*marks).split(", ") if part}
    assert told == {words.get(name, name) for name in one ^ other}
    assert (marks[0] == marks[1]) == (one == other)


def test_only_the_whole_decides() -> None:
    """A later version may divide otherwise; a VM of an earlier one has no parts at all."""
    web = cloud().vms[0]
    whole = seed_hash("lab", web)
    assert is_current(seed_mark("lab", web), "lab", web)
    assert is_current(whole, "lab", web)
    assert is_current(f"{whole} something=else", "lab", web)
    assert not is_current(seed_mark("lab", replace(web, name="db")), "lab", web)
    assert what_differs(whole, seed_mark("lab", web)) == ""
