"""Templates: model -> what a template is made from. Which hosts and pools need one follows from the VMs."""

from __future__ import annotations

from dataclasses import dataclass

from vmwright.errors import SpecError, Where
from vmwright.spec import keyfiles
from vmwright.spec.cloud import BuildSource, Filesystem, Firmware, ImageSource, TemplateSpec
from vmwright.spec.findings import Findings
from vmwright.spec.hosts import HostView, valid_label
from vmwright.spec.model import Spec, TemplateIn
from vmwright.spec.users import base_of
from vmwright.spec.values import parse_url
from vmwright.spec.version import template_version
from vmwright.spec.yaml import KeyPath
from vmwright.units import GIB, format_size

DEFAULT_SIZE = 10 * GIB
DEFAULT_RELEASE = "bookworm"
_BUILD_ONLY = ("release", "filesystem", "packages", "mirror")
_IMAGE_ONLY = ("sha256", "sums")


@dataclass(frozen=True)
class Template:
    """A template as the file describes it. `host` and `pool` are set when the file ties it to one."""

    name: str
    source: BuildSource | ImageSource | None  # None: it was refused
    size: int
    firmware: Firmware
    host: str | None
    pool: str | None
    where: Where

    def on(self, host: str, pool: str) -> TemplateSpec | None:
        """This template on one host and pool."""
        if self.source is None:
            return None
        version = template_version(self.source, self.size, self.firmware)
        return TemplateSpec(self.name, host, pool, self.source, self.size, self.firmware, version, self.where)


def resolve_templates(spec: Spec, hosts: dict[str, HostView], findings: Findings) -> dict[str, Template]:
    """The templates by name."""
    return {name: _template(name, template, spec, hosts, findings) for name, template in spec.templates.items()}


def _template(name: str, template: TemplateIn, spec: Spec, hosts: dict[str, HostView], findings: Findings) -> Template:
    path: KeyPath = ("templates", name)
    valid_label(findings, path, name, "template name")
    if template.host:
        findings.refers((*path, "host"), "host", template.host, hosts, "hosts")
    if template.pool:
        known = sorted(
            {pool for host in hosts.values() if template.host in (None, host.spec.name) for pool in host.pool_names}
        )
        if not findings.broken("hosts"):
            findings.refers((*path, "pool"), "pool", template.pool, known)
    size = template.disk or spec.defaults.disk or DEFAULT_SIZE
    return Template(
        name=name,
        source=_source(path, template, size, spec, findings),
        size=size,
        firmware=template.firmware or spec.defaults.firmware or Firmware.UEFI,
        host=template.host,
        pool=template.pool,
        where=findings.where(path, key=True),
    )


def _source(
    path: KeyPath, template: TemplateIn, size: int, spec: Spec, findings: Findings
) -> BuildSource | ImageSource | None:
    given = [key for key in ("os", "image", "build") if getattr(template, key) is not None]
    if len(given) != 1:
        if len(given) > 1 or not findings.broken("templates", str(path[1])):
            what = f"{' and '.join(given)} are given together" if given else "says neither os, nor image, nor build"
            findings.error(path, what, "give exactly one: os: debian12, image: FILE-OR-URL, or build: debian", key=True)
        return None
    unfit = (*(_BUILD_ONLY if template.build is None else ()), *(_IMAGE_ONLY if template.image is None else ()))
    for key in unfit:
        if key in template.model_fields_set:
            home = "build" if key in _BUILD_ONLY else "image"
            findings.error((*path, key), f"goes with {home}, not with {given[0]}", key=True)
    if template.os is not None:
        return _catalogued(path, template.os, size, findings)
    return (
        _image(path, template, template.image, findings)
        if template.image is not None
        else _build(path, template, spec, findings)
    )


def _build(path: KeyPath, template: TemplateIn, spec: Spec, findings: Findings) -> BuildSource:
    return BuildSource(
        distribution=template.build or "debian",
        release=template.release or DEFAULT_RELEASE,
        filesystem=template.filesystem or Filesystem.EXT4,
        packages=tuple(template.packages or ()),
        mirror=template.mirror or spec.defaults.mirror,
    )


def _catalogued(path: KeyPath, name: str, size: int, findings: Findings) -> ImageSource | None:
    from vmwright.image import catalogue  # only files that use `os:` pay for it

    try:
        entry = catalogue.lookup(name)
    except SpecError as error:
        findings.error((*path, "os"), error.problems[0].what, error.problems[0].todo)
        return None
    if size < entry.min_disk and not findings.broken(*map(str, path), "disk"):
        place = (*path, "disk") if findings.has((*path, "disk")) else ("defaults", "disk")
        what = f"{format_size(size)} is smaller than the image of {name}, {format_size(entry.min_disk)}"
        findings.error(place, what, f"write {format_size(entry.min_disk)} or more")
    if entry.archived:
        findings.warn((*path, "os"), f"{entry.title} gets no updates from its publisher any more")
    return entry.source()


def _image(path: KeyPath, template: TemplateIn, image: str, findings: Findings) -> ImageSource | None:
    if template.sha256 and template.sums:
        findings.error((*path, "sums"), "sha256 and sums are given together", "keep one of them", key=True)
    if "://" in image:
        return _remote_image(path, template, image, findings)
    if template.sums:
        findings.error(
            (*path, "sums"),
            "goes with the URL of an image, not with a file",
            "give sha256 instead, or neither",
            key=True,
        )
    if not keyfiles.is_path(image):
        findings.error(
            (*path, "image"), f"{image!r} is neither a URL nor a path", f"write ./{image} for a file beside this one"
        )
        return None
    try:
        location = keyfiles.local_path(image, base_of(findings, (*path, "image")))
    except keyfiles.Absent as absent:
        findings.absent((*path, "image"), f"the image {absent}", absent.todo)
        return None
    if not location.is_file():
        lacking = keyfiles.absent(image, location)
        findings.absent((*path, "image"), f"the image {lacking}", lacking.todo)
    return ImageSource(str(location), template.sha256)


def _remote_image(path: KeyPath, template: TemplateIn, image: str, findings: Findings) -> ImageSource | None:
    try:
        parse_url(image)
    except ValueError as error:
        findings.error((*path, "image"), str(error))
        return None
    if not (template.sha256 or template.sums) and not findings.broken("templates", str(path[1])):
        todo = "add sha256, or sums: URL of the publisher's SHA256SUMS"
        findings.error((*path, "image"), "an image from the network needs its sum", todo)
    algorithm = "sha512" if template.sums and "sha512" in template.sums.lower() else "sha256"
    return ImageSource(image, template.sha256, template.sums, algorithm)
