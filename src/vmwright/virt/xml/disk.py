"""<disk>: a virtio disk in a file or on a block device."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmwright.virt.xml.tree import el


def disk(
    path: str,
    format: str,
    target: str,
    serial: str,
    *,
    block: bool = False,
    cache: str | None = None,
    io: str | None = None,
    iothread: int | None = None,
    discard: str | None = None,
    readonly: bool = False,
    boot_order: int | None = None,
) -> ET.Element:
    """A disk. `target` orders the disks (the guest may name them otherwise); the guest finds it by `serial`."""
    return el(
        "disk",
        el("driver", name="qemu", type=format, cache=cache, io=io, discard=discard, iothread=iothread),
        el("source", dev=path) if block else el("source", file=path),
        el("target", dev=target, bus="virtio"),
        el("readonly") if readonly else None,
        el("serial", text=serial),
        el("boot", order=boot_order) if boot_order is not None else None,
        type="block" if block else "file",
        device="disk",
    )
