"""The parts of <domain> that are not devices: firmware, vCPUs, memory, CPU, clock, power. Source: formatdomain.html."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from vmwright.virt.xml.tree import el


def domain(type: str, *parts: ET.Element | None) -> ET.Element:
    """The whole. `type` is kvm or qemu."""
    return el("domain", *parts, type=type)


def names(name: str, uuid: str | None, title: str) -> list[ET.Element]:
    """What it is called: name, uuid (libvirt makes one when None), title."""
    parts = [("name", name), ("uuid", uuid), ("title", title)]
    return [el(tag, text=text) for tag, text in parts if text is not None]


def memory(size: int) -> list[ET.Element]:
    """Memory at start, in bytes, all of it given to the guest. libvirt keeps KiB, rounded up."""
    kib = str(-(-size // 1024))
    return [el("memory", text=kib, unit="KiB"), el("currentMemory", text=kib, unit="KiB")]


def iothreads(count: int) -> ET.Element:
    """How many I/O threads there are, numbered from 1; a disk names the one that serves it."""
    return el("iothreads", text=str(count))


def vcpu(count: int, ceiling: int) -> ET.Element:
    """`count` vCPUs at start, up to `ceiling` while running."""
    return el("vcpu", text=str(ceiling), placement="static", current=count if count != ceiling else None)


def os_uefi(machine: str) -> ET.Element:
    """UEFI without Secure Boot; libvirt finds the loader and makes an NVRAM file of the VM's own."""
    features = [el("feature", enabled="no", name=name) for name in ("enrolled-keys", "secure-boot")]
    return el("os", _os_type(machine), el("firmware", *features), firmware="efi")


def os_bios(machine: str) -> ET.Element:
    """BIOS (SeaBIOS), its own messages on the serial console."""
    return el("os", _os_type(machine), bios_on_serial())


def bios_on_serial() -> ET.Element:
    """<bios>: without it, "No bootable device" would be said to nobody."""
    return el("bios", useserial="yes")


def _os_type(machine: str) -> ET.Element:
    return el("type", text="hvm", arch="x86_64", machine=machine)


def features(*names: str, off: Iterable[str] = ()) -> ET.Element:
    """Features that are on by being there, and those switched off."""
    return el("features", *(el(name) for name in names), *(el(name, state="off") for name in off))


def cpu_mode(mode: str, *children: ET.Element) -> ET.Element:
    """A CPU by mode: host-passthrough, host-model or maximum."""
    if mode == "host-model":
        return el("cpu", *children, mode=mode, check="partial")
    return el("cpu", *children, mode=mode, check="none", migratable="on")


def cpu_model(model: str, check: str, *children: ET.Element) -> ET.Element:
    """A named CPU. `check` says whether features that the host lacks stop the start: partial (yes) or none (no)."""
    return el("cpu", el("model", text=model, fallback="forbid"), *children, mode="custom", match="exact", check=check)


def topology(cores: int, *, sockets: int = 1, threads: int = 1) -> ET.Element:
    """Sockets of that many cores, each with that many hyper-threads. The product must be the number of vCPUs."""
    return el("topology", sockets=sockets, dies=1, cores=cores, threads=threads)


def feature(name: str) -> ET.Element:
    """A feature that the CPU must have."""
    return el("feature", policy="require", name=name)


def clock(*timers: ET.Element) -> ET.Element:
    """The guest's clock starts in UTC."""
    return el("clock", *timers, offset="utc")


def timer(name: str, *, present: bool | None = None, tickpolicy: str | None = None) -> ET.Element:
    """One timer of the clock."""
    return el("timer", name=name, present=None if present is None else _yes_no(present), tickpolicy=tickpolicy)


def lifecycle(*, poweroff: str, reboot: str, crash: str) -> list[ET.Element]:
    """What libvirt does when the guest powers off, reboots or panics: destroy, restart or preserve."""
    return [el("on_poweroff", text=poweroff), el("on_reboot", text=reboot), el("on_crash", text=crash)]


def power_management(*, suspend_to_memory: bool, suspend_to_disk: bool) -> ET.Element:
    """ACPI S3 and S4 as the guest sees them."""
    return el("pm", el("suspend-to-mem", enabled=_yes_no(suspend_to_memory)),
              el("suspend-to-disk", enabled=_yes_no(suspend_to_disk)))


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
