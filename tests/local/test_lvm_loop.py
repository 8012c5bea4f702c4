"""Real LVM on loop devices: what is on a disk, whose it is, and that only a blank one is taken.

Volumes need device-mapper, which this machine's kernel may not have: they are tried on the rack.
"""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.local.test_probes import shell

from vmwright.errors import Cancelled, HostError
from vmwright.facts import probes, storage
from vmwright.facts.model import BlockFacts
from vmwright.facts.storage import ELSEWHERE
from vmwright.host import lvm
from vmwright.host.local import LocalHost
from vmwright.host.run import run
from vmwright.spec.cloud import LvmSpec, Pool

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make loop devices")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A blank disk of 64 MiB."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    device = run(["losetup", "--find", "--show", "--partscan", str(image)]).text
    try:
        yield device
    finally:
        run(["wipefs", "--all", "--quiet", "--", device])
        run(["losetup", "--detach", device])


def read(*disks: str, group: str = "none") -> tuple[storage.Lvm, dict[str, BlockFacts]]:
    """What the probes say of these disks."""
    wanted = storage.wanted([Pool("images", "here", f"/dev/{group}", LvmSpec(group, disks))])
    told = probes.split(shell(probes.script(storage.commands(wanted))))
    found = storage.parse_lvm(told["lvm"].text, told["lvm"].code, wanted.pools)
    known = storage.Known(storage.parse_disks(told["disks"].text),
                          storage.parse_mounts(told["mounts"].text, told["swaps"].text),
                          storage.parse_signatures(told["signatures"].text), found.members)
    return found, {block.path: block for block in storage.parse_blocks(told["blocks"].text, known)}


CONTENT = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "swap": ["mkswap", "-q"],
           "gpt": ["sgdisk", "--clear"]}


@pytest.mark.parametrize("kind", CONTENT)
def test_a_disk_with_something_on_it_is_told_and_not_taken(disk: str, kind: str) -> None:
    if kind == "xfs":
        with open(run(["losetup", "--noheadings", "--output", "BACK-FILE", disk]).text, "ab") as file:
            file.truncate(400 << 20)  # xfs has a least size
        run(["losetup", "--set-capacity", disk])
    run([*CONTENT[kind], disk], check=kind != "gpt")  # sgdisk cannot make every kernel read the table again
    block = read(disk)[1][disk]
    assert (block.table or block.signatures[0]) == kind
    with pytest.raises(HostError, match=f"{kind} signature|device is partitioned"):
        run(lvm.pvcreate(disk))
    assert read(disk)[1][disk] == block


def test_a_disk_that_may_be_wiped_becomes_a_group(disk: str) -> None:
    run(["mkfs.ext4", "-q", "-F", disk])
    group = f"vmwright-{uuid4().hex[:8]}"
    run(lvm.wipe(disk))
    assert (read(disk)[1][disk].signatures, read(disk)[1][disk].vg) == ((), None)
    run(lvm.pvcreate(disk))
    run(lvm.vgcreate(group, [disk]))
    found, blocks = read(disk, group=group)
    facts = next(row for row in found.groups if row.name == group)
    assert (facts.size, facts.free, facts.extent, facts.disks) == (60 << 20, 60 << 20, 4 << 20, (disk,))
    assert (blocks[disk].vg, blocks[disk].signatures, blocks[disk].size) == (group, ("LVM2_member",), 64 << 20)
    for wipe in (False, True):
        with pytest.raises(HostError, match=f"of volume group \"{group}\" without -ff"):
            run(lvm.pvcreate(disk, wipe=wipe))
    assert [run(lvm.exists(name, "a"), check=False).code for name in (group, "not-there")] == [1, 2]


def test_a_mounted_disk_is_told_and_cannot_be_wiped(disk: str, tmp_path: Path) -> None:
    run(["mkfs.ext4", "-q", "-F", disk])
    place = tmp_path / "a place"
    place.mkdir()
    subprocess.run(["mount", disk, place], check=True)
    try:
        assert read(disk)[1][disk].mounts == (str(place),)
        for argv in (lvm.wipe(disk), lvm.pvcreate(disk, wipe=True), lvm.zero(disk, 0)):
            with pytest.raises(HostError, match=r"busy|exclusively"):
                run(argv)
    finally:
        subprocess.run(["umount", place], check=True)
    assert read(disk)[1][disk].signatures == ("ext4",)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[str]]:
    """Two blank disks of 128 MiB."""
    found: list[str] = []
    try:
        for name in "ab":
            with (tmp_path / f"{name}.img").open("wb") as file:
                file.truncate(128 << 20)
            found.append(run(["losetup", "--find", "--show", str(tmp_path / f"{name}.img")]).text)
        yield found
    finally:
        for device in found:
            run(["losetup", "--detach", device])


@pytest.mark.parametrize("named", ["its path", "a link", "a node", "a node that is gone"])
def test_a_mounted_btrfs_is_told_of_all_its_devices(disks: list[str], tmp_path: Path, named: str) -> None:
    """Whatever mount was given: kernels before 6.12 tell a link as it was given, all of them any other node."""
    run(["mkfs.btrfs", "--quiet", "--force", "--metadata", "raid1", "--data", "single", *disks])
    place, name = tmp_path / "a place", tmp_path / "50% odd\\name"
    place.mkdir()
    if named == "a link":
        name.symlink_to(disks[0])
    elif named != "its path":
        os.mknod(name, 0o600 | stat.S_IFBLK, os.stat(disks[0]).st_rdev)
    given = disks[0] if named == "its path" else str(name)
    run(["mount", "--no-canonicalize", "--types", "btrfs", "--", given, str(place)])
    try:
        if named == "a node that is gone":
            name.unlink()
        told = read(*disks)[1]
        where = ELSEWHERE if named == "a node that is gone" else str(place)
        assert [told[disk].mounts for disk in disks] == [(where,), (where,)]
    finally:
        run(["umount", str(place)])
    assert [read(*disks)[1][disk].mounts for disk in disks] == [(), ()]


def test_a_disk_is_found_by_a_link_to_it(disk: str, tmp_path: Path) -> None:
    link = tmp_path / "by id"
    link.symlink_to(disk)
    assert read(str(link), "/dev/not-there")[1][disk].names == (str(link),)


def test_zeros_and_what_is_filled_in(disk: str) -> None:
    Path(disk).write_bytes(b"marker!\n" * (8 << 17))
    run(lvm.zero(disk, 1 << 20))
    with open(disk, "rb") as file:
        assert file.read() == b"marker!\n" * (1 << 17) + bytes(63 << 20)
    run(lvm.fill(disk), input=b"seed")
    with open(disk, "rb") as file:
        assert file.read() == b"seed" + bytes((64 << 20) - 4)


def test_how_far_it_is_and_that_it_can_be_stopped(disk: str) -> None:
    """Between two steps; what was not reached is as it was."""
    Path(disk).write_bytes(b"marker!\n" * (8 << 20))
    run(["losetup", "--set-capacity", disk])
    host, told, cancel = LocalHost("here"), list[tuple[int, int]](), threading.Event()
    step = 4 << 10  # 16,384 of them, a process each: it cannot be done before it is stopped

    def tell(line: str) -> None:
        told.extend(done for done in [lvm.cleared(line)] if done)
        cancel.set()

    with (Path("/sys/class/block") / Path(disk).name / "size").open() as file:
        size = int(file.read()) * 512
    with pytest.raises(Cancelled):
        host.run([*lvm.zero(disk)[:6], str(step), "--zeroout"], on_line=tell, cancel=cancel)
    assert told[0] == (step, size) and told[-1][0] < size
    with open(disk, "rb") as block:
        assert block.read(step) == bytes(step)
        block.seek(-8, os.SEEK_END)
        assert block.read() == b"marker!\n"
    run(lvm.discard(disk), on_line=tell)
    assert told[-1] == (size, size)
    with open(disk, "rb") as block:
        assert not any(block.read()), "a loop device's file gets a hole"


def test_a_disk_without_discard_says_so(tmp_path: Path) -> None:
    """As a loop device is whose file cannot have holes."""
    run(["mount", "-t", "ramfs", "ramfs", str(tmp_path)])
    try:
        (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
        device = run(["losetup", "--find", "--show", str(tmp_path / "disk.img")]).text
        try:
            with pytest.raises(HostError) as caught:
                run(lvm.discard(device))
        finally:
            run(["losetup", "--detach", device])
    finally:
        run(["umount", str(tmp_path)])
    assert lvm.UNSUPPORTED in caught.value.why


def test_a_copy_leaves_nothing_of_what_was_there(disk: str, tmp_path: Path) -> None:
    Path(disk).write_bytes(b"marker!\n" * (8 << 20))
    image = tmp_path / "a.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "32M"])
    run(["qemu-io", "-c", "write -P 7 3M 1M", "-c", "write -P 0 8M 1M", str(image)])
    told: list[float] = []
    run(lvm.copy(str(image), "qcow2", disk, zero=False),
        on_line=lambda line: told.extend(share for share in [lvm.progress(line)] if share is not None))
    run(lvm.zero(disk, 32 << 20))
    with open(disk, "rb") as file:
        assert file.read() == bytes(3 << 20) + bytes([7]) * (1 << 20) + bytes(60 << 20)
    assert told == sorted(told) and told[-1] == 1.0
