"""The devices of a domain besides disks and NICs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmwright.virt.xml.tree import el


def devices(*parts: ET.Element) -> ET.Element:
    """All of them."""
    return el("devices", *parts)


def no_usb() -> ET.Element:
    """No USB controller. Without this libvirt adds one."""
    return el("controller", type="usb", model="none")


def root_port(index: int) -> ET.Element:
    """A PCIe root port: room for one device. `index` counts from 1; libvirt sets slot, chassis and port."""
    return el("controller", type="pci", index=index, model="pcie-root-port")


def hostdev(address: str) -> ET.Element:
    """A PCI device of the host, like 0000:05:00.0. Managed: libvirt takes it from its driver and gives it back."""
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    source = el("address", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{slot}", function=f"0x{function}")
    return el("hostdev", el("driver", name="vfio"), el("source", source), mode="subsystem", type="pci", managed="yes")


def serial(log: str) -> ET.Element:
    """The first serial port, on a pseudo-terminal; all it says is also written to `log`, anew at each start."""
    target = el("target", type="isa-serial", port=0)
    return el("serial", el("log", file=log, append="off"), target, type="pty")


def console() -> ET.Element:
    """The console, which is the first serial port."""
    return el("console", el("target", type="serial", port=0), type="pty")


def channel(name: str) -> ET.Element:
    """A virtio channel; libvirt chooses the host's socket."""
    return el("channel", el("target", type="virtio", name=name), type="unix")


def rng(source: str) -> ET.Element:
    """Randomness for the guest from a device of the host."""
    return el("rng", el("backend", text=source, model="random"), model="virtio")


def balloon(*, stats_period: int) -> ET.Element:
    """The balloon; the guest reports its memory every `stats_period` seconds and hands free pages back."""
    return el("memballoon", el("stats", period=stats_period), model="virtio", freePageReporting="on")


def panic() -> ET.Element:
    """pvpanic: a guest whose kernel panics says so."""
    return el("panic", model="isa")


def no_video() -> ET.Element:
    """No graphics card, and none added by libvirt."""
    return el("video", el("model", type="none"))
