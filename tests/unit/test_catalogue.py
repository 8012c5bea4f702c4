"""The catalogue of cloud images: every entry can be used, and a wrong name gets the right ones offered."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from vmwright.errors import SpecError
from vmwright.image import catalogue
from vmwright.image.fetch import refusal
from vmwright.units import GIB

ENTRIES = [catalogue.lookup(name) for name in catalogue.names()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.os)
class TestEntries:
    def test_the_policy_allows_it(self, entry: catalogue.CatalogueEntry) -> None:
        assert refusal(entry.source()) is None

    def test_its_addresses_are_those_of_publishers(self, entry: catalogue.CatalogueEntry) -> None:
        for url in filter(None, (entry.location, entry.sums, *entry.elsewhere)):
            assert re.fullmatch(r"https://[a-z.-]+\.(debian\.org|ubuntu\.com|fedoraproject\.org|almalinux\.org|centos\.org|"
                                r"rockylinux\.org|opensuse\.org)/[A-Za-z0-9._/-]+[^/]", url), url
        assert re.search(r"(x86_64|amd64)", entry.location)

    def test_it_has_a_fixed_sum_or_a_list_beside_it(self, entry: catalogue.CatalogueEntry) -> None:
        assert (entry.sha256 is None) != (entry.sums is None)
        if entry.sums:
            assert entry.sums.rpartition("/")[0] == entry.location.rpartition("/")[0]
            assert entry.sums_algorithm == ("sha512" if entry.sums.endswith("SHA512SUMS") else "sha256")

    def test_its_facts_agree(self, entry: catalogue.CatalogueEntry) -> None:
        assert entry.family in ("debian", "rhel", "suse")
        assert entry.agent_exec_blocked == (entry.family == "rhel")
        assert 2 * GIB <= entry.min_disk <= 10 * GIB
        assert entry.cpu_level in (1, 2, 3)
        assert entry.source().os == entry.os

    def test_it_moves_to_another_server_as_a_whole(self, entry: catalogue.CatalogueEntry) -> None:
        moved = catalogue.lookup(entry.os, base_url="http://127.0.0.1:8000/")
        assert moved.location == "http://127.0.0.1:8000" + urlsplit(entry.location).path
        for url in filter(None, (moved.sums, *moved.elsewhere)):
            assert url.startswith("http://127.0.0.1:8000/")
        assert moved.sha256 == entry.sha256


def test_what_is_in_it() -> None:
    wanted = {"debian11", "debian12", "debian13", "ubuntu20.04", "ubuntu22.04", "ubuntu24.04", "ubuntu26.04",
              "fedora35", "fedora40", "fedora43", "fedora44",
              "almalinux8", "almalinux9", "almalinux10", "centos-stream9", "centos-stream10",
              "rocky8", "rocky9", "rocky10", "opensuse-leap15.6", "opensuse-tumbleweed"}
    assert wanted <= set(catalogue.names())
    assert {entry.os for entry in ENTRIES if entry.archived} >= {"fedora35", "ubuntu20.04", "debian11"}


@pytest.mark.parametrize(("wrong", "hint"), [
    ("debain12", "did you mean debian12"), ("Debian13", "did you mean debian13"), ("fedora99", "did you mean fedora4"),
    ("ubuntu-24.04", "did you mean ubuntu24.04"), ("centos_stream9", "did you mean centos-stream9"),
    ("windows", "known: debian11, debian12"), ("", "known: debian11, debian12"),
])  # fmt: skip
def test_a_wrong_name_gets_the_nearest_ones(wrong: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        catalogue.lookup(wrong)
    [problem] = caught.value.problems
    assert problem.what == f"no image is known by the name {wrong!r}"
    assert problem.todo.startswith(hint)
    assert problem.todo.endswith("for any other, write image: with a URL or a file, and its sha256")


def test_only_the_same_bytes_are_looked_for_elsewhere() -> None:
    entry = catalogue.lookup("fedora43")
    assert catalogue.elsewhere(entry.source()) == entry.elsewhere
    assert entry.elsewhere[0].startswith("https://archives.fedoraproject.org/pub/archive/")
    moved = catalogue.lookup("fedora43", base_url="http://127.0.0.1:8000")
    assert catalogue.elsewhere(moved.source()) == moved.elsewhere
    assert catalogue.elsewhere(replace(entry.source(), sha256="0" * 64)) == ()
    assert catalogue.elsewhere(replace(entry.source(), os=None)) == ()
    assert catalogue.elsewhere(replace(entry.source(), location="https://h/other.qcow2")) == ()
    assert catalogue.elsewhere(catalogue.lookup("debian12").source()) == ()
