"""UEFI firmware for the rack: found by QEMU's own descriptors, which each distribution installs with its firmware.

The descriptors' format is QEMU's docs/interop/firmware.json. A file in a directory that comes earlier hides those of
the same name in later ones, also when it is empty. The first that fits, by file name, is taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmwright.errors import HostError

_UNWANTED = {"secure-boot", "enrolled-keys", "requires-smm", "amd-sev-snp", "intel-tdx"}


@dataclass(frozen=True)
class Firmware:
    """A flash image with the code, and the template of the one with the variables; each with its format."""

    code: str
    code_format: str
    variables: str
    variables_format: str


def folders() -> tuple[Path, ...]:
    """Where descriptors are, the first counting most."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    own = Path(config) if config.startswith("/") else Path.home() / ".config"
    return own / "qemu" / "firmware", Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware")


def find(where: Sequence[Path] | None = None) -> Firmware:
    """The firmware for a q35 machine without Secure Boot. Raises HostError when there is none."""
    chosen = where if where is not None else folders()
    found = next((firmware for firmware in _all(chosen) if Path(firmware.code).exists()
                  and Path(firmware.variables).exists()), None)
    if found is None:
        raise HostError("there is no UEFI firmware (OVMF) for the rack here",
                        why="no descriptor of one for x86-64 q35 without Secure Boot is in "
                            f"{', '.join(str(folder) for folder in chosen)}",
                        todo="apt-get install ovmf (Fedora: dnf install edk2-ovmf)")
    return found


def _all(where: Iterable[Path]) -> list[Firmware]:
    files: dict[str, Path] = {}
    for folder in where:
        for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            files.setdefault(file.name, file)
    parsed = (parse(files[name].read_text(errors="replace")) for name in sorted(files))
    return [firmware for firmware in parsed if firmware is not None]


def parse(text: str) -> Firmware | None:
    """The firmware that a descriptor is about, when it is what the rack needs."""
    try:
        data: Mapping[str, Any] = json.loads(text)
        mapping = data["mapping"]
        targets = [(target["architecture"], machine) for target in data["targets"] for machine in target["machines"]]
        if "uefi" not in data["interface-types"] or _UNWANTED & set(data["features"]):
            return None
        if mapping["device"] != "flash" or mapping.get("mode", "split") != "split":
            return None
        if not any(arch == "x86_64" and machine.startswith(("pc-q35-", "q35")) for arch, machine in targets):
            return None
        code, variables = mapping["executable"], mapping["nvram-template"]
        return Firmware(code["filename"], code["format"], variables["filename"], variables["format"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # empty, which hides others, or not a descriptor
