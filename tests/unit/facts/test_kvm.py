"""The KVM probe: its firmware is what its source says, and what it prints is understood."""

from __future__ import annotations

import base64
import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from vmwright.facts import kvm
from vmwright.facts.model import Kvm

SOURCE = Path(kvm.__file__).with_name("kvm_probe.S")


def firmware() -> bytes:
    """The last bytes of the firmware, as they are embedded."""
    return gzip.decompress(base64.b64decode(kvm.FIRMWARE_TAIL))


def test_the_firmware_has_its_size_and_a_reset_vector() -> None:
    """The CPU begins 16 bytes below 4 GiB, where the image ends: with a near jump to the start of this piece."""
    tail = firmware()
    assert len(tail) == kvm.FIRMWARE_TAIL_SIZE
    jump, offset = tail[-16], int.from_bytes(tail[-15:-13], "little", signed=True)
    assert jump == 0xE9
    assert (len(tail) - 16 + 3 + offset) % len(tail) == 0


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objcopy")), reason="gcc and objcopy are not installed")
def test_the_firmware_is_its_source_assembled(tmp_path: Path) -> None:
    object, image = tmp_path / "probe.o", tmp_path / "probe.bin"
    done = subprocess.run(["gcc", "-m32", "-c", str(SOURCE), "-o", str(object)], capture_output=True, check=False)
    if done.returncode and b"-m32" in done.stderr:
        pytest.skip("this gcc makes no code for x86")
    assert done.returncode == 0, done.stderr.decode()
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(object), str(image)], check=True)
    assert image.read_bytes() == firmware()


def test_nothing_is_left_to_fill_in() -> None:
    assert "@" not in kvm.script().replace("$@", "")


@pytest.mark.parametrize(("text", "verdict"), [
    ("works\n", (Kvm.WORKS, "")),
    ("absent there is no /dev/kvm", (Kvm.ABSENT, "there is no /dev/kvm")),
    ("broken qemu: failed to set MSR 0x10a to 0x69\n", (Kvm.BROKEN, "qemu: failed to set MSR 0x10a to 0x69")),
    ("broken", (Kvm.BROKEN, "")),
    ("", (Kvm.BROKEN, "the probe did not run: it said nothing")),
    ("mktemp: failed", (Kvm.BROKEN, "the probe did not run: mktemp: failed")),
    ("x" * 500, (Kvm.BROKEN, "the probe did not run: " + "x" * 200)),
])
def test_what_it_prints_is_understood(text: str, verdict: tuple[Kvm, str]) -> None:
    assert kvm.parse(text) == verdict
