"""What is grown, by which commands, and what is refused. tests/local/test_grow_loop.py runs the commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vmwright.errors import GuestError
from vmwright.guest.agent import Ran
from vmwright.guest.blocks import SECTOR, TOOLS, Block, Layout, parse
from vmwright.guest.grow import check, choose, grow, steps
from vmwright.units import GIB, MIB, TIB

ALL = frozenset(TOOLS)


def recorded(name: str) -> str:
    return (Path(__file__).parent / "layouts" / f"{name}.txt").read_text()


def argvs(layout: Layout, serial: str) -> list[str]:
    return [" ".join(step.argv) for step in steps(choose(layout.find(serial)), layout)]


def part(number: int, size: int, fstype: str = "", *mounts: str, start: int = 0, children: tuple[Block, ...] = (),
         disk: str = "vda") -> Block:
    name = f"{disk}{number}"
    return Block(name, f"/dev/{name}", "part", size, fstype, mounts=mounts, start=(start or number * 100_000),
                 number=number, children=children)


def disk(*parts: Block, table: str = "gpt", size: int = 20 * GIB, fstype: str = "") -> Block:
    return Block("vda", "/dev/vda", "disk", size, fstype, table if parts else "", "root", children=parts)


def lv(name: str, fstype: str, *mounts: str, children: tuple[Block, ...] = ()) -> Block:
    return Block("dm-0", f"/dev/mapper/{name}", "lvm", GIB, fstype, mounts=mounts, children=children)


class TestRecorded:
    @pytest.mark.parametrize(("name", "serial", "partition", "fstype", "mount", "commands"), [
        ("ubuntu-24.04", "z-dev-root", "/dev/vda1", "ext4", "/", ["growpart /dev/vda 1", "resize2fs /dev/vda1"]),
        ("ubuntu-24.04", "z-dev-disk-logs-longer-than-virtio-keeps", None, "xfs", "/srv/my logs",
         ["xfs_growfs /srv/my logs"]),
        ("el8", "z-el8-root", "/dev/vda4", "xfs", "/", ["growpart /dev/vda 4", "xfs_growfs /"]),
        ("fedora-40", "z-fedora-root", "/dev/vda4", "btrfs", "/",
         ["growpart /dev/vda 4", "btrfs filesystem resize 1:max /"]),
        ("lvm", "z-lvm-root", "/dev/nvme0n1p3", "xfs", "/",
         ["growpart /dev/nvme0n1 3", "pvresize /dev/nvme0n1p3", "lvextend -l +100%FREE /dev/mapper/rhel_z--lvm-root",
          "xfs_growfs /"]),
    ])
    def test_what_grows_and_how(self, name: str, serial: str, partition: str | None, fstype: str, mount: str,
                                commands: list[str]) -> None:
        layout = parse(recorded(name))
        target = choose(layout.find(serial))
        assert (target.partition.path if target.partition else None, target.fstype, target.mount) == (
            partition, fstype, mount)
        assert argvs(layout, serial) == commands

    def test_partitions_in_the_order_in_which_they_lie(self) -> None:
        parts = parse(recorded("ubuntu-24.04")).find("z-dev-root").partitions
        assert [(one.number, one.start) for one in parts] == [(14, 2048), (15, 10240), (16, 227328), (1, 2099200)]

    def test_all_mounts_of_an_old_lsblk_come_from_proc(self) -> None:
        text = recorded("fedora-40").replace('"/var",\n                   "/home",\n                   "/"', '"/var"')
        assert parse(text).find("z-fedora-root").children[3].mounts == ("/var", "/", "/home")

    def test_what_udev_does_not_know_comes_from_blkid(self) -> None:
        text = recorded("ubuntu-24.04").replace('"fstype": "ext4"', '"fstype": null').replace('"gpt"', "null")
        found = parse(text).find("z-dev-root")
        assert (found.table, found.children[0].fstype) == ("gpt", "ext4")

    def test_a_cd_is_no_disk(self) -> None:
        assert [one.path for one in parse(recorded("ubuntu-24.04")).disks] == ["/dev/vda", "/dev/vdb"]


class TestFind:
    def test_a_serial_that_is_not_there(self) -> None:
        with pytest.raises(GuestError) as caught:
            parse(recorded("fedora-40")).find("other")
        assert str(caught.value) == ("the guest has no disk with the serial other\n"
                                     "  why: it sees /dev/zram0 (no serial), /dev/vda (z-fedora-root)\n"
                                     "  do:  restart the VM, if the disk was added while it ran")

    def test_a_serial_that_only_udev_knows(self) -> None:
        text = recorded("fedora-40").replace('"serial": "z-fedora-root"', '"serial": null')
        assert parse(text).find("z-fedora-root").path == "/dev/vda"

    def test_a_path_that_is_not_there(self) -> None:
        with pytest.raises(GuestError, match="the guest has no disk /dev/vdz"):
            parse(recorded("el8")).at("/dev/vdz")

    @pytest.mark.parametrize("text", ["", "==lsblk==\nlsblk: unknown option -- J\n==sys==\n", "==lsblk==\n{}\n"])
    def test_a_guest_whose_lsblk_is_too_old(self, text: str) -> None:
        with pytest.raises(GuestError, match=r"the guest's disks cannot be read[\s\S]*lsblk with -J"):
            parse(text)


class TestWithoutGrowpart:
    def layout(self, *tools: str, table: str = "gpt") -> Layout:
        one = disk(part(1, GIB, "vfat"), part(2, GIB, "ext4", "/"), table=table)
        return Layout((one,), tools=frozenset({"resize2fs", "partx", *tools}))

    def test_sfdisk_and_the_end_of_a_gpt_by_sgdisk(self) -> None:
        assert argvs(self.layout("sfdisk", "sgdisk"), "root") == [
            "sgdisk -e /dev/vda", "sfdisk --no-reread -N 2 /dev/vda", "partx -u -n 2 /dev/vda", "resize2fs /dev/vda2"]

    def test_no_sgdisk_for_a_dos_table(self) -> None:
        assert argvs(self.layout("sfdisk", "sgdisk", table="dos"), "root")[0] == "sfdisk --no-reread -N 2 /dev/vda"

    def test_what_sfdisk_is_told(self) -> None:
        layout = self.layout("sfdisk")
        assert [step.input for step in steps(choose(layout.disks[0]), layout)] == [b", +\n", None, None]

    def test_neither(self) -> None:
        with pytest.raises(GuestError) as caught:
            argvs(self.layout(), "root")
        assert str(caught.value).startswith("growpart is not in the guest\n  do:  install it there: cloud-guest-utils")

    @pytest.mark.parametrize(("fstype", "tool", "package"), [
        ("xfs", "xfs_growfs", "xfsprogs"), ("btrfs", "btrfs", "btrfs-progs"), ("ext4", "resize2fs", "e2fsprogs")])
    def test_a_missing_tool_is_named_before_anything_changes(self, fstype: str, tool: str, package: str) -> None:
        layout = Layout((disk(part(1, GIB, fstype, "/")),), tools=ALL - {tool})
        with pytest.raises(GuestError, match=f"{tool} is not in the guest\n  do:  install it there: {package}"):
            argvs(layout, "root")


class TestLvm:
    def test_a_whole_disk_with_one_volume(self) -> None:
        volume = lv("vg-data", "ext4", "/srv")
        one = Block("vdb", "/dev/vdb", "disk", GIB, "LVM2_member", serial="data", children=(volume,))
        assert argvs(Layout((one,), tools=ALL), "data") == [
            "pvresize /dev/vdb", "lvextend -l +100%FREE /dev/mapper/vg-data", "resize2fs /dev/mapper/vg-data"]

    def test_a_volume_that_is_as_large_as_it_can_be_is_no_error(self) -> None:
        one = disk(part(1, GIB, "LVM2_member", children=(lv("vg-a", "xfs", "/"),)))
        extend = steps(choose(one), Layout((one,), tools=ALL))[2]
        assert extend.idle == (5, "matches existing size")

    def refused(self, *volumes: Block) -> str:
        with pytest.raises(GuestError) as caught:
            choose(disk(part(1, GIB, "LVM2_member", children=volumes)))
        return str(caught.value)

    def test_several_volumes_and_none_is_root(self) -> None:
        text = self.refused(lv("vg-a", "ext4", "/srv/a"), lv("vg-b", "xfs", "/srv/b"))
        assert "of 2 logical volumes none is /: /dev/mapper/vg-a (ext4, 1G), /dev/mapper/vg-b (xfs, 1G)" in text
        assert "`pvresize` and `lvextend -r`" in text

    def test_none(self) -> None:
        assert "no logical volume is in use on it" in self.refused()

    def test_a_thin_pool(self) -> None:
        thin = lv("vg-pool_tdata", "", children=(lv("vg-pool-tpool", "", children=(lv("vg-root", "ext4", "/"),)),))
        assert "/ is not on a plain logical volume: a thin pool, a snapshot or" in self.refused(thin)

    def test_encryption_on_a_volume(self) -> None:
        assert "it is encrypted (LUKS)" in self.refused(lv("vg-a", "crypto_LUKS"))


class TestRefused:
    def text(self, of: Block) -> str:
        with pytest.raises(GuestError) as caught:
            choose(of)
        return str(caught.value)

    def test_a_partition_behind_root_is_named(self) -> None:
        assert self.text(disk(part(1, 8 * GIB, "ext4", "/"), part(2, GIB, "swap", "[SWAP]"))) == (
            "partition 1 of /dev/vda, which holds /, cannot grow\n"
            "  why: partition 2 (swap, 1G) lies behind it, and is the last on the disk\n"
            "  do:  use a template whose root partition is the last, or remove partition 2 in the guest")

    def test_root_in_lvm_that_is_not_last(self) -> None:
        physical = part(1, GIB, "LVM2_member", children=(lv("vg-root", "ext4", "/"),))
        assert "partition 2 (ext4, 1G) lies behind it" in self.text(disk(physical, part(2, GIB, "ext4", "/srv")))

    @pytest.mark.parametrize(("fstype", "why"), [
        ("swap", "it is swap space: remove it"), ("crypto_LUKS", "it is encrypted (LUKS): open it and use `cryptsetup"),
        ("linux_raid_member", "RAID array"), ("zfs_member", "zpool online -e"),
        ("ntfs", "it holds ntfs, which vmwright cannot grow"), ("", "it holds no file system")])
    def test_what_cannot_be_grown(self, fstype: str, why: str) -> None:
        text = self.text(disk(part(1, GIB, "ext4", "/srv"), part(2, GIB, fstype)))
        assert text.startswith("/dev/vda2 cannot be grown\n  why: ")
        assert why in text

    def test_a_whole_disk_of_that_kind(self) -> None:
        assert "/dev/vda cannot be grown\n  why: it is swap space" in self.text(disk(fstype="swap"))

    def test_a_logical_partition(self) -> None:
        text = self.text(disk(part(1, GIB, "ext4", "/boot"), part(5, GIB, "ext4", "/"), table="dos"))
        assert "/dev/vda5 cannot be grown\n  why: it is a logical partition" in text

    def test_five_partitions_of_a_gpt_are_fine(self) -> None:
        assert choose(disk(part(1, GIB, "ext4", "/boot"), part(5, GIB, "ext4", "/"))).mount == "/"


class Guest:
    """Answers what growing asks: the layouts one after another, sizes of the disk, and codes of the commands."""

    def __init__(self, *layouts: str, sizes: Sequence[int] = (20 * GIB,), ran: dict[str, Ran] | None = None) -> None:
        self.layouts, self.sizes, self.ran = list(layouts), list(sizes), ran or {}
        self.commands: list[str] = []
        self.slept: list[float] = []

    def exec(self, argv: Sequence[str], *, input: bytes | None = None, timeout: float = 60.0,
             on_poll: Callable[[], None] | None = None) -> Ran:
        if "lsblk" in argv[-1]:
            return Ran(0, self.layouts.pop(0) if len(self.layouts) > 1 else self.layouts[0], "")
        if argv[0] == "sh":
            return Ran(0, str((self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]) // SECTOR), "")
        if argv[0] == "stat":
            return Ran(0, f"4096 {1000 + len(self.commands)} 400\n", "")
        self.commands.append(" ".join(argv))
        return self.ran.get(argv[0], Ran(0, "", ""))

    def grow(self, serial: str, size: int | None = None, **how: int) -> tuple[object, list[str]]:
        told: list[str] = []
        grown = grow(self, serial, size=size, progress=told.append, clock=lambda: sum(self.slept),
                     sleep=self.slept.append, **how)
        return grown, told


UBUNTU = recorded("ubuntu-24.04")
UBUNTU_GROWN = UBUNTU.replace("10737418240", str(20 * GIB)).replace("2579496448", str(20 * GIB - 2099200 * SECTOR))


class TestRunner:
    def test_the_report_is_in_the_guests_own_numbers(self) -> None:
        guest = Guest(UBUNTU, UBUNTU, UBUNTU_GROWN)
        grown, told = guest.grow("z-dev-root", 20 * GIB, disk_before=10 * GIB)
        assert guest.commands == ["growpart /dev/vda 1", "resize2fs /dev/vda1"]
        assert told == ["growing partition 1 of /dev/vda", "growing ext4 on /"]
        assert vars(grown) == {
            "disk": "/dev/vda", "disk_before": 10 * GIB, "disk_after": 20 * GIB, "partition": "/dev/vda1",
            "fstype": "ext4", "mount": "/", "size_before": 4096 * 1000, "used_before": 4096 * 600,
            "size_after": 4096 * 1002, "used_after": 4096 * 602, "notes": ()}

    def test_it_waits_until_the_guest_sees_the_size(self) -> None:
        guest = Guest(UBUNTU_GROWN, sizes=[10 * GIB, 10 * GIB, 20 * GIB])
        _, told = guest.grow("z-dev-root", 20 * GIB)
        assert told[0] == "waiting for the guest to see 20G"
        assert guest.slept == [0.1, 0.2]

    def test_a_partition_that_has_grown_before_is_no_error(self) -> None:
        said = "NOCHANGE: partition 1 is size 39843807. it cannot be grown"
        guest = Guest(UBUNTU_GROWN, ran={"growpart": Ran(1, said, "")})
        guest.grow("z-dev-root")
        assert guest.commands[-1] == "resize2fs /dev/vda1"

    def test_another_failure_of_the_same_code_is(self) -> None:
        guest = Guest(UBUNTU, ran={"growpart": Ran(1, "", "FAILED: disk is busy")})
        with pytest.raises(GuestError) as caught:
            guest.grow("z-dev-root")
        assert str(caught.value) == (
            "growing partition 1 of /dev/vda failed: growpart in the guest failed with code 1\n"
            "  why: command: growpart /dev/vda 1\n       FAILED: disk is busy\n"
            "  do:  nothing is lost: set it right inside the guest, then apply again")
        assert guest.commands == ["growpart /dev/vda 1"]

    def test_room_that_is_left_is_told(self) -> None:
        left = UBUNTU.replace("10737418240", str(20 * GIB))
        grown, _ = Guest(left).grow("z-dev-root")
        assert getattr(grown, "notes", None) == ("16.6G of /dev/vda stay unused behind partition 1",)

    def test_a_dos_table_ends_at_two_tebibytes(self) -> None:
        large = UBUNTU.replace("10737418240", str(3 * TIB)).replace("gpt", "dos")
        large = large.replace("2579496448", str(2 * TIB - 2099200 * SECTOR)).replace('"vda14"', '"vda3"')
        grown, _ = Guest(large).grow("z-dev-root")
        assert getattr(grown, "notes", None) == (
            "1T of /dev/vda stay unused behind partition 1: a dos partition table ends at 2T",)

    def test_checking_changes_nothing(self) -> None:
        guest = Guest(UBUNTU)
        assert check(guest, "z-dev-root").fstype == "ext4"
        assert guest.commands == []

    def test_checking_finds_a_missing_tool(self) -> None:
        with pytest.raises(GuestError, match="resize2fs is not in the guest"):
            check(Guest(UBUNTU.replace("/usr/sbin/resize2fs\n", "")), "z-dev-root")

    def test_less_than_an_alignment_is_not_worth_a_note(self) -> None:
        assert choose(disk(size=16 * MIB)).notes == ("/dev/vda holds no file system: nothing to grow inside the guest",)
