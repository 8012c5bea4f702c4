"""What the plan asks a host for is what making a template takes there."""

from __future__ import annotations

import pytest

from vmwright.facts.probes import TOOLS
from vmwright.image import debian, fetch
from vmwright.plan.needs import package, tools_of
from vmwright.spec.cloud import BuildSource, Filesystem, ImageSource


@pytest.mark.parametrize("filesystem", Filesystem)
def test_a_build_is_planned_with_the_programs_that_it_takes(filesystem: Filesystem) -> None:
    """All that facts look for: one that they do not look for would be missing on every host."""
    takes = debian.required_tools(filesystem)
    looked_for = {tool: package for tool, package in takes.items() if tool in TOOLS}
    assert {tool: package(tool) for tool in tools_of(BuildSource("debian", "stable", filesystem))} == looked_for
    assert {package for tool, package in takes.items() if tool not in TOOLS} <= {"util-linux"}  # of every system


@pytest.mark.parametrize("location", ["/a.qcow2", "https://e.org/a.qcow2", "/a.raw.xz", "/a.img.gz", "/a.raw.zst"])
def test_an_image_is_planned_with_programs_that_fetching_takes(location: str) -> None:
    asked = tools_of(ImageSource(location))
    assert asked
    assert {(tool, package(tool)) for tool in asked} <= set(fetch.REQUIRED_TOOLS.items())
