"""The rack's host image: what its hash holds, and a disk really made, from a tree of a few files."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from vmwright.errors import Cancelled, HostError
from vmwright.host.local import LocalHost
from vmwright.rack import contents, image
from vmwright.rack.contents import Identity, Image
from vmwright.units import MIB

OWN = Identity("5a1f5f0e-0000-4000-8000-000000000001", "5a1f5f0e-0000-4000-8000-000000000002",
               "5a1f5f0e-0000-4000-8000-000000000003")


def said(*argv: str) -> str:
    """What a command prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_images_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = image.place(Image.READY)
    assert before.parent == tmp_path / "vmwright" / "rack"
    assert before != image.place(Image.BARE)
    monkeypatch.setattr(contents, "_FINISH", contents._FINISH + "true\n")
    assert image.place(Image.READY) != before


def test_one_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image.place(Image.BARE).parent.mkdir(parents=True)
    image.place(Image.BARE).write_text("")
    assert image.ready(Image.BARE, tmp_path, progress=lambda *_: None) == image.place(Image.BARE)


def test_who_comes_second_waits_and_may_stop(tmp_path: Path) -> None:
    told: list[str] = []
    cancel = threading.Event()

    def tell(text: str, _share: float | None) -> None:
        told.append(text)
        cancel.set()

    with image._alone(tmp_path, tell, threading.Event()), pytest.raises(Cancelled), \
            image._alone(tmp_path, tell, cancel):
        pass
    assert told == ["another vmwright is building an image: waiting"]


def test_tools_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("sh", "uname", "rm", "setsid", "sleep", "kill"):
        (tmp_path / tool).symlink_to(said("which", tool).strip() if tool != "kill" else "/bin/kill")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(HostError) as caught:
        image.ready(Image.BARE, tmp_path, progress=lambda *_: None)
    assert caught.value.what.startswith("the rack's image cannot be built here: mmdebstrap, apt-get, unshare")
    assert caught.value.todo == \
        "apt-get install mmdebstrap apt util-linux gdisk dosfstools mtools e2fsprogs qemu-utils"


def test_only_root_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError) as caught:
        image.ready(Image.BARE, tmp_path, progress=lambda *_: None)
    assert str(caught.value) == (
        "the rack's image bare is not there, and only root can build it\n"
        f"  why: it belongs at {image.place(Image.BARE)}\n  do:  sudo vmwright rack up")


def test_the_server_is_plain_without_the_virtualisation_packages() -> None:
    extra = set(contents.packages(Image.READY)) - set(contents.packages(Image.BARE))
    assert {"libvirt-daemon-system", "qemu-system-x86", "ovmf", "lvm2", "thin-provisioning-tools"} <= extra
    for kind, wanted in ((Image.BARE, False), (Image.READY, True)):
        files = contents.files(kind, OWN)
        assert any("intel_iommu=on" in text for _, text in files.values()) == wanted
        assert all("/etc/default/grub" not in path for path in files)  # drop-ins only: the file is the server's own


def test_a_disk_is_made_without_a_mount(tmp_path: Path) -> None:
    loader = tmp_path / "root" / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    loader.parent.mkdir(parents=True)
    loader.write_bytes(b"MZ loader")
    (tmp_path / "grub.cfg").write_text(contents.grub_stub(OWN))
    for argv in image.disk_argvs(str(tmp_path), OWN):
        LocalHost("here").run(argv, env={"MTOOLS_SKIP_CHECK": "1"})
    disk = tmp_path / "disk.raw"
    assert "No problems found" in said("sgdisk", "--verify", str(disk))
    table = [line.split() for line in said("sgdisk", "--print", str(disk)).splitlines() if line.startswith("   ")]
    assert [(row[0], row[-2], row[-1]) for row in table] == [
        ("1", "EF00", "ESP"), ("2", "8300", "root"), ("3", "8200", "swap"), ("4", "8E00", "lvm")]
    esp, root, swap, free = image.layout()
    at = f"{disk}@@{esp.start}"
    for name in ("EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi"):
        assert said("mtype", "-i", at, f"::/{name}") == "MZ loader"
    assert said("mtype", "-i", at, "::/EFI/debian/grub.cfg") == (
        f"search.fs_uuid {OWN.root} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n")
    assert OWN.root in said("blkid", "--probe", "--offset", str(root.start), str(disk))
    assert OWN.swap in said("blkid", "--probe", "--offset", str(swap.start), str(disk))
    with disk.open("rb") as opened:
        opened.seek(free.start)
        assert not any(opened.read(MIB))
    assert disk.stat().st_blocks * 512 < 512 * MIB
