"""What things are called on a host: a volume's name says whose it is, and nothing else looks like one of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright import names
from vmwright.names import OurVolume, parse_partial, parse_path, parse_volume, partial_volume

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(LABEL, LABEL, LABEL, st.booleans())
def test_names_can_be_taken_apart_again(cloud: str, object: str, detail: str, block: bool) -> None:
    expected = {
        names.root_volume(cloud, object, block=block): OurVolume(cloud, object, "root", ""),
        names.seed_volume(cloud, object, block=block): OurVolume(cloud, object, "seed", ""),
        names.data_volume(cloud, object, detail, block=block): OurVolume(cloud, object, "disk", detail),
        names.template_volume(cloud, object, detail, block=block): OurVolume(cloud, object, "template", detail)}
    assert len(expected) == 4
    folder = "/dev/vg-libvirt" if block else "/srv/images"
    for name, parts in expected.items():
        assert parse_volume(name, block=block) == parse_path(f"{folder}/{name}") == parts
        assert parse_volume(name, block=not block) is None
        partial = partial_volume(name)
        assert parse_volume(partial, block=block) is None
        assert parse_partial(f"{folder}/{partial}") == parts
        assert parse_partial(f"{folder}/{name}") is None


@pytest.mark.parametrize("name", [
    "", "lab", "lab.web.root", "lab.web.root.raw", "lab.web.root-x.qcow2", "lab.web.seed.qcow2", "lab.web.root.iso",
    "lab.web.disk.qcow2", "lab.web.disk-.qcow2", "lab.web.template-.qcow2", "lab..root.qcow2", ".web.root.qcow2",
    "lab.web.root-.qcow2",
    "lab.web.root.qcow2.bak", "a.lab.web.root.qcow2", "lab.web.other-x.qcow2", "lab.web.seed-1.iso"])
def test_what_only_looks_like_ours_is_not(name: str) -> None:
    assert parse_volume(name) is None
    assert parse_partial(f".{name}.partial") is None


@given(st.text(max_size=40))
def test_any_name_is_ours_only_if_we_would_give_it(name: str) -> None:
    ours = parse_volume(name)
    if ours is None:
        return
    made = {"root": names.root_volume(ours.cloud, ours.object), "seed": names.seed_volume(ours.cloud, ours.object),
            "disk": names.data_volume(ours.cloud, ours.object, ours.detail),
            "template": names.template_volume(ours.cloud, ours.object, ours.detail)}
    assert made[ours.role] == name


def test_places_on_the_host() -> None:
    assert names.intent_path("lab", "web@root") == "/var/lib/vmwright/lab/intents/web@root.json"
    assert names.manifest_path("lab", "base", "12") == "/var/lib/vmwright/lab/templates/base-12.json"
    assert names.lock_path() == "/run/vmwright/lock"
