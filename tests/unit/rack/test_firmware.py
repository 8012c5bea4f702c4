"""Which UEFI firmware a rack gets, from QEMU's descriptors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmwright.errors import HostError
from vmwright.rack.firmware import Firmware, find, parse


def descriptor(folder: Path, name: str, **changed: Any) -> Path:
    """A descriptor of firmware that fits, but for what is changed; its flash images are there."""
    stem = name.partition(".")[0]
    for part in ("code", "vars"):
        (folder / f"{stem}-{part}.fd").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}-{part}.fd").write_bytes(b"")
    mapping = {"device": "flash", "executable": {"filename": f"{folder}/{stem}-code.fd", "format": "raw"},
               "nvram-template": {"filename": f"{folder}/{stem}-vars.fd", "format": "raw"}}
    data = {"interface-types": ["uefi"], "mapping": mapping, "features": ["acpi-s3", "verbose-dynamic"],
            "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}]}
    (folder / name).write_text(json.dumps(data | changed))
    return folder / name


def test_the_first_that_fits_by_name(tmp_path: Path) -> None:
    descriptor(tmp_path, "60-plain.json")
    descriptor(tmp_path, "70-later.json")
    descriptor(tmp_path, "40-secure.json", features=["secure-boot", "requires-smm"])
    assert find([tmp_path]) == Firmware(f"{tmp_path}/60-plain-code.fd", "raw", f"{tmp_path}/60-plain-vars.fd", "raw")


@pytest.mark.parametrize("changed", [
    {"interface-types": ["bios"]}, {"features": ["enrolled-keys"]}, {"features": ["requires-smm"]},
    {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
    {"targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*"]}]},
    {"mapping": {"device": "memory", "filename": "/x"}}, {"mapping": []}])
def test_others_do_not_fit(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert parse(descriptor(tmp_path, "a.json").read_text()) is not None
    assert parse(descriptor(tmp_path, "b.json", **changed).read_text()) is None


def test_without_separate_variables_it_does_not_fit(tmp_path: Path) -> None:
    data = json.loads(descriptor(tmp_path, "a.json").read_text())
    data["mapping"]["mode"] = "combined"
    assert parse(json.dumps(data)) is None


def test_an_earlier_directory_hides_the_same_name(tmp_path: Path) -> None:
    descriptor(tmp_path / "own", "60.json")
    descriptor(tmp_path / "system", "60.json")
    assert find([tmp_path / "own", tmp_path / "system"]).code == f"{tmp_path}/own/60-code.fd"
    (tmp_path / "own" / "60.json").write_text("")
    with pytest.raises(HostError):
        find([tmp_path / "own", tmp_path / "system"])


def test_firmware_whose_files_are_gone_is_passed_over(tmp_path: Path) -> None:
    descriptor(tmp_path, "60.json")
    descriptor(tmp_path, "70.json")
    (tmp_path / "60-code.fd").unlink()
    assert find([tmp_path]).code == f"{tmp_path}/70-code.fd"


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        find([tmp_path / "none", tmp_path])
    assert str(caught.value) == (
        "there is no UEFI firmware (OVMF) for the rack here\n"
        f"  why: no descriptor of one for x86-64 q35 without Secure Boot is in {tmp_path}/none, {tmp_path}\n"
        "  do:  apt-get install ovmf (Fedora: dnf install edk2-ovmf)")
