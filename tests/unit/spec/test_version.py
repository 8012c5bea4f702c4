"""Versions of templates: the same content, the same version; other content, another."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vmwright.spec.cloud import BuildSource, Cloud, Filesystem, Firmware, ImageSource, TemplateSpec
from vmwright.spec.version import template_version, with_image_sums
from vmwright.units import GIB

BUILD = BuildSource("debian", "bookworm", Filesystem.EXT4, ("vim",))
IMAGE = ImageSource("/images/a.qcow2")


def test_what_makes_another_version() -> None:
    base = template_version(BUILD, GIB, Firmware.UEFI)
    others = [
        template_version(BUILD, 2 * GIB, Firmware.UEFI),
        template_version(BUILD, GIB, Firmware.BIOS),
        template_version(replace(BUILD, release="trixie"), GIB, Firmware.UEFI),
        template_version(replace(BUILD, filesystem=Filesystem.XFS), GIB, Firmware.UEFI),
        template_version(replace(BUILD, packages=()), GIB, Firmware.UEFI),
        template_version(IMAGE, GIB, Firmware.UEFI),
        template_version(replace(IMAGE, location="/images/b.qcow2"), GIB, Firmware.UEFI),
        template_version(replace(IMAGE, sha256="a" * 64), GIB, Firmware.UEFI),
        template_version(replace(IMAGE, sums="https://h/SHA256SUMS"), GIB, Firmware.UEFI),
    ]
    assert len({base, *others}) == len(others) + 1
    assert all(len(version) == 12 for version in others)


def test_where_it_comes_from_makes_no_other_version() -> None:
    mirrored = replace(BUILD, mirror="http://mirror.example/debian")
    assert template_version(BUILD, GIB, Firmware.UEFI) == template_version(mirrored, GIB, Firmware.UEFI)
    here, there = ImageSource("/a.qcow2", "a" * 64), ImageSource("https://h/b.qcow2", "a" * 64, os="debian12")
    assert template_version(here, GIB, Firmware.UEFI) == template_version(there, GIB, Firmware.UEFI)


def test_versions_stay_the_same_from_release_to_release() -> None:
    """When this fails, every template of every user is made anew: raise TEMPLATE_REVISION only for that."""
    assert template_version(BUILD, GIB, Firmware.UEFI) == "fda05afd5bd2"
    assert template_version(IMAGE, GIB, Firmware.BIOS) == "4f3ce358b053"


def test_sums_of_local_images_are_filled_in() -> None:
    def template(name: str, source: BuildSource | ImageSource) -> TemplateSpec:
        return TemplateSpec(name, "h", "p", source, GIB, Firmware.UEFI, template_version(source, GIB, Firmware.UEFI))

    given_sum = ImageSource("/images/a.qcow2", "b" * 64)
    cloud = Cloud("c", (), (), (), (template("a", IMAGE), template("b", BUILD), template("c", given_sum)), ())
    filled = with_image_sums(cloud, {"/images/a.qcow2": "a" * 64, "/images/other": "c" * 64})
    assert filled.templates[0].source == replace(IMAGE, sha256="a" * 64)
    assert filled.templates[0].version == template_version(replace(IMAGE, sha256="a" * 64), GIB, Firmware.UEFI)
    assert filled.templates[0].version != cloud.templates[0].version
    assert filled.templates[1:] == cloud.templates[1:]
    assert with_image_sums(filled, {"/images/a.qcow2": "d" * 64}) == filled


@given(
    st.lists(st.text("abc", min_size=1, max_size=2), max_size=3),
    st.lists(st.text("abc", min_size=1, max_size=2), max_size=3),
)
def test_other_packages_make_another_version(one: list[str], other: list[str]) -> None:
    versions = [template_version(replace(BUILD, packages=tuple(names)), GIB, Firmware.UEFI) for names in (one, other)]
    assert (versions[0] == versions[1]) == (one == other)
