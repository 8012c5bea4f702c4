"""Reading values that stand in libvirt's XML in more than one way: sizes with a unit, how a domain boots."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmwright.spec.cloud import Firmware

# libvirt's units: k and KiB are 1024 bytes, KB is 1000. Source: formatdomain.html, memory.
_POWERS = "kmgtpe"
_UEFI_IMAGES = ("ovmf", "edk2", "uefi", "aavmf")


def scaled(text: str | None, unit: str | None) -> int:
    """Bytes of a number with one of libvirt's units; 0 without a number. Raises ValueError for an unknown unit."""
    if not text or not text.strip():
        return 0
    return int(text) * _scale((unit or "b").lower())


def _scale(unit: str) -> int:
    if unit in ("b", "byte", "bytes"):
        return 1
    power, rest = _POWERS.find(unit[0]) + 1, unit[1:]
    if not power or rest not in ("", "b", "ib"):
        raise ValueError(f"{unit!r} is not a unit that libvirt knows")
    return int((1000 if rest == "b" else 1024) ** power)


def pci_address(address: ET.Element | None) -> str | None:
    """The place of a PCI device in the kernel's form, like 0000:05:00.0; None where it is something else."""
    if address is None or address.get("type", "pci") != "pci":
        return None
    domain, bus, slot, function = (int(address.get(key, "0"), 0) for key in ("domain", "bus", "slot", "function"))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def firmware(os: ET.Element | None) -> Firmware:
    """How a domain boots, from its <os>: libvirt's own choice of firmware, or a loader that somebody named."""
    if os is None:
        return Firmware.BIOS
    loader = os.find("loader")
    if os.get("firmware") == "efi" or os.find("nvram") is not None:
        return Firmware.UEFI
    if loader is None:
        return Firmware.BIOS
    path = (loader.text or "").lower()
    flash = loader.get("type") == "pflash" or any(name in path for name in _UEFI_IMAGES)
    return Firmware.UEFI if flash else Firmware.BIOS
