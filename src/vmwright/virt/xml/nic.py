"""<interface>: a virtio NIC on a libvirt network or on a bridge of the host."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmwright.virt.xml.tree import el


def nic(mac: str, type: str, source: str) -> ET.Element:
    """A NIC. `type` is network or bridge. Without a boot ROM: VMs boot from their disks, and it takes seconds."""
    return el("interface", el("mac", address=mac), nic_source(type, source), el("model", type="virtio"),
              el("rom", enabled="no"), type=type)


def nic_source(type: str, source: str) -> ET.Element:
    """<source>: the attribute is called as the type is, for networks and bridges alike."""
    return el("source", **{type: source})
