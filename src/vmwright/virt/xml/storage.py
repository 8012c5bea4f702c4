"""<pool> and <volume>: a directory and the images in it, a volume group. Source: formatstorage.html."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmwright.virt.xml.tree import el


def directory_pool(name: str, path: str, *, mode: str) -> ET.Element:
    """A pool that is a directory. `mode` is octal text."""
    return el("pool", el("name", text=name), el("target", el("path", text=path), _permissions(mode)), type="dir")


def logical_pool(name: str, group: str) -> ET.Element:
    """A pool that is an LVM volume group. Its disks are not named: they count for libvirt only when it makes one."""
    source = el("source", el("name", text=group), el("format", type="lvm2"))
    return el("pool", el("name", text=name), source, el("target", el("path", text=f"/dev/{group}")), type="logical")


def volume(name: str, capacity: int, format: str, *, mode: str, backing: ET.Element | None = None) -> ET.Element:
    """An image of `capacity` bytes, as the guest sees it; none of them allocated beforehand."""
    compat = el("compat", text="1.1") if format == "qcow2" else None
    return el(
        "volume",
        el("name", text=name),
        el("capacity", text=str(capacity), unit="bytes"),
        el("allocation", text="0", unit="bytes"),
        el("target", el("format", type=format), _permissions(mode), compat),
        backing,
        type="file",
    )


def backing_store(path: str, format: str) -> ET.Element:
    """The image that an overlay lies over. The format is always said: guessing it from content is a known hole."""
    return el("backingStore", el("path", text=path), el("format", type=format))


def _permissions(mode: str) -> ET.Element:
    return el("permissions", el("mode", text=mode))
