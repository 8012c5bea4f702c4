"""What users would pick instead: virt-clone from Debian; kcli and virt-lightning from PyPI, in a place of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Failed, command

PACKAGES = {"kcli": "kcli", "virt-lightning": "virt-lightning"}
_SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's has Debian's libvirt binding, which is there with virtinst


@dataclass(frozen=True)
class Peer:
    """A program, or why it is not here."""

    name: str
    program: str = ""
    absent: str = ""
    version: str = ""


@contextmanager
def peers() -> Iterator[dict[str, Peer]]:
    """virt-clone, kcli and virt-lightning, by name; what was installed for it is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vmwright-bench-peers-") as folder:
        found = {"virt-clone": _virt_clone()}
        for name, package in PACKAGES.items():
            found[name] = _from_pypi(name, package, Path(folder))
        yield found


def _virt_clone() -> Peer:
    program = shutil.which("virt-clone", path=f"/usr/bin:{os.environ.get('PATH', '')}")
    if not program:
        return Peer("virt-clone", absent="not installed: it is in Debian's package virtinst")
    return Peer("virt-clone", program, version=_said([program, "--version"]))


def _from_pypi(name: str, package: str, folder: Path) -> Peer:
    """Install with what it depends on; where its pins do not allow the libvirt that is here, without them."""
    place = folder / name
    try:
        command([_SYSTEM_PYTHON, "-m", "venv", "--system-site-packages", str(place)], timeout=120)
        pip = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        try:
            command([*pip, package], timeout=300)
        except (Failed, subprocess.TimeoutExpired):
            command([*pip, "PyYAML", "prettytable", "jinja2", "argcomplete"], timeout=300)
            command([*pip, "--no-deps", package], timeout=300)
        program = str(place / "bin" / name)
        command([program, "--help"], timeout=60)
        return Peer(name, program, version=_version(place, package))
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        return Peer(name, absent=f"not installable here: {error}")


def _version(place: Path, package: str) -> str:
    words = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _said([str(place / "bin" / "python"), "-c", words])


def _said(argv: list[str]) -> str:
    try:
        return command(argv, timeout=60).strip()
    except (Failed, subprocess.TimeoutExpired):
        return "version unknown"
