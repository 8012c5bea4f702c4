"""<disk>: a virtio disk in a file."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmwright.virt.xml.tree import el


def disk(
    path: str,
    format: str,
    target: str,
    serial: str,
    *,
    cache: str | None = None,
    discard: str | None = None,
    readonly: bool = False,
    boot_order: int | None = None,
) -> ET.Element:
    """A disk. `target` orders the disks (the guest may name them otherwise); the guest finds it by `serial`."""
    return el(
        "disk",
        el("driver", name="qemu", type=format, cache=cache, discard=discard),
        el("source", file=path),
        el("target", dev=target, bus="virtio"),
        el("readonly") if readonly else None,
        el("serial", text=serial),
        el("boot", order=boot_order) if boot_order is not None else None,
        type="file",
        device="disk",
    )
