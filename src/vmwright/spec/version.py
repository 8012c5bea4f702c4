"""Versions of templates: a short hash of everything a template is made from. The same inputs, the same version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from vmwright.spec.cloud import BuildSource, Cloud, Firmware, ImageSource, TemplateSpec
from vmwright.units import content_hash

# Raised when vmwright makes something different from the same inputs, so that templates are made anew.
TEMPLATE_REVISION = 1


def template_version(source: BuildSource | ImageSource, size: int, firmware: Firmware) -> str:
    """The version of a template made from this. What counts is the content, not the place it comes from."""
    inputs = asdict(source)
    inputs.pop("mirror", None)
    if isinstance(source, ImageSource) and source.sha256:
        inputs = {"sha256": source.sha256}
    made_from = json.dumps({"source": type(source).__name__, **inputs}, sort_keys=True)
    return content_hash(str(TEMPLATE_REVISION), made_from, str(size), firmware)


def with_image_sums(cloud: Cloud, sums: Mapping[str, str]) -> Cloud:
    """The cloud with the sums of local images filled in (by location), and the versions that follow from them.

    A sum that the file gives stays: the image is checked against it.
    """
    return replace(cloud, templates=tuple(_with_sum(template, sums) for template in cloud.templates))


def _with_sum(template: TemplateSpec, sums: Mapping[str, str]) -> TemplateSpec:
    source = template.source
    if not isinstance(source, ImageSource) or source.sha256 or source.location not in sums:
        return template
    source = replace(source, sha256=sums[source.location])
    return replace(template, source=source, version=template_version(source, template.size, template.firmware))
