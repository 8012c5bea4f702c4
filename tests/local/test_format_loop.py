"""Making file systems on data disks, for real: the guest's script on loop disks of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.test_grow_loop import LoopDisk, mkfs, sh

from vmwright.guest import scripts

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
                                reason="needs root and loop devices")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    with LoopDisk(tmp_path / "disk") as made:
        yield made


def run(device: str, fstype: str) -> str:
    done = subprocess.run(["sh", "-c", scripts.FORMAT, "vmwright", device, fstype], capture_output=True, text=True,
                          check=True)
    return done.stderr


def content(device: str) -> str:
    argv = ["blkid", "-p", "-o", "value", "-s", "TYPE", device]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_an_empty_disk_gets_its_file_system_once(disk: LoopDisk, tmp_path: Path, fstype: str) -> None:
    assert run(disk.device, fstype) == ""
    assert content(disk.device) == fstype
    at = disk.mount(disk.device, tmp_path / "m")
    uuid = sh("blkid", "-p", "-o", "value", "-s", "UUID", disk.device)
    assert run(disk.device, fstype) == ""
    assert sh("blkid", "-p", "-o", "value", "-s", "UUID", disk.device) == uuid
    assert (at / "data").exists()


def test_another_file_system_stays(disk: LoopDisk) -> None:
    mkfs("btrfs", disk.device)
    run(disk.device, "ext4")
    assert content(disk.device) == "btrfs"


def test_a_partition_table_stays(disk: LoopDisk) -> None:
    disk.table("gpt", "size=+")
    table = sh("sfdisk", "--dump", disk.device)
    run(disk.device, "ext4")
    assert sh("sfdisk", "--dump", disk.device) == table


def test_raw_data_without_any_signature_stays_and_is_told(disk: LoopDisk) -> None:
    with open(disk.device, "r+b") as device:
        device.seek(700_000)
        device.write(b"data of a database that needs no file system")
    assert run(disk.device, "ext4") == f"vmwright: {disk.device} holds data: no file system made\n"
    assert content(disk.device) == ""


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    assert run("/dev/disk/by-id/virtio-none", "ext4") == "vmwright: /dev/disk/by-id/virtio-none is not there\n"
