"""What a micro guest says of itself on its console: a line of JSON between two lines that nothing else prints. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

BEGIN, END = "=== micro guest report ===", "=== end of report ==="
_BLOCK = re.compile(rf"{BEGIN}\s*(\{{.*?\}})\s*{END}", re.DOTALL)


@dataclass(frozen=True)
class NicSeen:
    """A NIC; addresses are CIDR text."""

    name: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class DiskSeen:
    """A disk, virtio, SCSI or NVMe (by its name); `size` is bytes, `serial` empty where the guest sees none."""

    name: str
    serial: str
    size: int


@dataclass(frozen=True)
class Report:
    """A boot of a micro guest, at its end. `memory` is bytes, as its kernel counts them."""

    host: str
    instance: str
    cpus: int
    memory: int
    nics: tuple[NicSeen, ...]
    disks: tuple[DiskSeen, ...]

    @property
    def nvme(self) -> tuple[DiskSeen, ...]:
        """The NVMe drives among the disks."""
        return tuple(disk for disk in self.disks if disk.name.startswith("nvme"))


def reports(console: str) -> tuple[Report, ...]:
    """The reports in what a console said, the oldest first; one that was cut short is left out."""
    found = (_report(match[1]) for match in _BLOCK.finditer(console))
    return tuple(report for report in found if report)


def _report(text: str) -> Report | None:
    try:
        said: dict[str, Any] = json.loads(text)
        nics = tuple(NicSeen(nic["name"], nic["mac"], tuple(nic["addresses"])) for nic in said["nics"])
        disks = tuple(DiskSeen(disk["name"], disk["serial"], int(disk["size"])) for disk in said["disks"])
        return Report(said["host"], said["instance"], int(said["cpus"]), int(said["memory"]), nics, disks)
    except (ValueError, KeyError, TypeError):
        return None
