"""Growing for real: the steps run on loop disks of this machine, through a real guest agent."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.local.local_agent import find_qemu_ga, qemu_ga

from vmwright.errors import GuestError
from vmwright.guest.agent import Agent, Ran, Runs
from vmwright.guest.grow import grow_at, look
from vmwright.units import MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
                                reason="needs root and loop devices")
# The kernel lets only CAP_SYS_RESOURCE (bit 24) grow a mounted ext4; in some containers root has all but that.
STATUS = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
NO_EXT4 = pytest.mark.skipif(not int(STATUS["CapEff"], 16) >> 24 & 1,
                             reason="no CAP_SYS_RESOURCE here: a mounted ext4 cannot grow")
FILESYSTEMS = [pytest.param("ext4", marks=NO_EXT4), "xfs", "btrfs"]
SMALL, LARGE = 400 * MIB, 700 * MIB
DATA = os.urandom(MIB)


def sh(*argv: str, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr or done.stdout}"
    return done.stdout.strip()


@dataclass
class LoopDisk:
    """A loop device over a sparse file; what it leaves in /dev and in the mount table is removed with it."""

    file: Path
    size: int = SMALL
    device: str = ""
    mounts: list[Path] = field(default_factory=list)
    nodes: list[Path] = field(default_factory=list)

    def __enter__(self) -> LoopDisk:
        self.file.touch()
        os.truncate(self.file, self.size)
        self.device = sh("losetup", "--find", "--show", "--partscan", str(self.file))
        return self

    def __exit__(self, *_: object) -> None:
        for mount in reversed(self.mounts):
            sh("umount", str(mount))
        sh("losetup", "--detach", self.device)
        for node in self.nodes:
            node.unlink(missing_ok=True)

    def table(self, label: str, *lines: str) -> None:
        sh("sfdisk", "--no-tell-kernel", self.device, input="\n".join([f"label: {label}", *lines, ""]))
        sh("partx", "-a", self.device)
        for entry in Path("/sys/class/block", Path(self.device).name).glob("loop*p*/dev"):
            node = Path("/dev", entry.parent.name)  # no udev here makes it
            if not node.exists():
                os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(*map(int, entry.read_text().split(":"))))
                self.nodes.append(node)

    def mount(self, device: str, at: Path) -> Path:
        at.mkdir()
        sh("mount", device, str(at))
        self.mounts.append(at)
        (at / "data").write_bytes(DATA)
        return at

    def enlarge(self, size: int = LARGE) -> None:
        os.truncate(self.file, size)
        sh("losetup", "--set-capacity", self.device)


class Without:
    """The agent of a guest that lacks some tools."""

    def __init__(self, agent: Runs, *tools: str) -> None:
        self._agent, self._tools = agent, tools

    def exec(self, argv: Sequence[str], *, input: bytes | None = None, timeout: float = 60.0,
             on_poll: Callable[[], None] | None = None) -> Ran:
        assert argv[0] not in self._tools
        ran = self._agent.exec(argv, input=input, timeout=timeout, on_poll=on_poll)
        head, mark, tools = ran.stdout.partition("==tools==\n")
        kept = [line for line in tools.splitlines() if line.rsplit("/", 1)[-1] not in self._tools]
        return ran._replace(stdout=head + mark + "\n".join(kept))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    program = find_qemu_ga(tmp_path_factory.mktemp("qga"))
    with qemu_ga(program, tmp_path_factory.mktemp("agent")) as channel:
        yield Agent(channel)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    with LoopDisk(tmp_path / "disk") as made:
        yield made


def statvfs_size(mount: Path) -> int:
    told = os.statvfs(mount)
    return told.f_frsize * told.f_blocks


def mkfs(fstype: str, *devices: str) -> None:
    sh(f"mkfs.{fstype}", "-q", *devices)


CLOUD_IMAGE = ("14: start=2048, size=8192", "15: start=10240, size=40960", "1: start=51200")
FOUR = ("size=8192", "size=40960", "size=40960", "size=+")


@pytest.mark.parametrize("fstype", FILESYSTEMS)
@pytest.mark.parametrize(("label", "lines", "number"),
                         [("gpt", CLOUD_IMAGE, 1), ("gpt", FOUR, 4), ("dos", FOUR[1:], 3)],
                         ids=["number-1-lies-last", "number-4", "dos"])
def test_last_partition_and_its_file_system_grow_online(agent: Agent, disk: LoopDisk, tmp_path: Path, fstype: str,
                                                        label: str, lines: tuple[str, ...], number: int) -> None:
    disk.table(label, *lines)
    mkfs(fstype, f"{disk.device}p{number}")
    at = disk.mount(f"{disk.device}p{number}", tmp_path / "m")
    before = statvfs_size(at)
    disk.enlarge()
    told: list[str] = []
    grown = grow_at(agent, disk.device, size=LARGE, disk_before=SMALL, progress=told.append)
    assert told == [f"growing partition {number} of {disk.device}", f"growing {fstype} on {at}"]
    assert (grown.disk_before, grown.disk_after) == (SMALL, LARGE)
    assert (grown.partition, grown.fstype, grown.mount) == (f"{disk.device}p{number}", fstype, str(at))
    assert (grown.size_before, grown.size_after) == (before, statvfs_size(at))
    assert grown.size_after is not None and grown.size_after - before > 280 * MIB
    assert grown.used_before is not None and grown.used_before >= len(DATA)
    assert grown.notes == ()
    assert (at / "data").read_bytes() == DATA
    table = sh("sfdisk", "--dump", disk.device)

    again = grow_at(agent, disk.device, size=LARGE)
    assert (again.size_before, again.size_after) == (grown.size_after, grown.size_after)
    assert sh("sfdisk", "--dump", disk.device) == table


@pytest.mark.parametrize("missing", [("growpart",), ("growpart", "sgdisk")], ids=["sgdisk-and-sfdisk", "sfdisk-alone"])
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_without_growpart_sfdisk_does_it(agent: Agent, disk: LoopDisk, tmp_path: Path, label: str,
                                         missing: tuple[str, ...]) -> None:
    disk.table(label, *FOUR[1:])
    mkfs("xfs", f"{disk.device}p3")
    at = disk.mount(f"{disk.device}p3", tmp_path / "m")
    disk.enlarge()
    grown = grow_at(Without(agent, *missing), disk.device, size=LARGE)
    assert grown.size_after is not None and grown.size_before is not None
    assert grown.size_after == statvfs_size(at) > grown.size_before + 280 * MIB
    assert grown.notes == ()
    assert (at / "data").read_bytes() == DATA
    sh("sfdisk", "--verify", disk.device)
    again = grow_at(Without(agent, *missing), disk.device, size=LARGE)
    assert again.size_after == grown.size_after


@pytest.mark.parametrize("fstype", FILESYSTEMS)
def test_a_file_system_over_the_whole_disk(agent: Agent, disk: LoopDisk, tmp_path: Path, fstype: str) -> None:
    mkfs(fstype, disk.device)
    at = disk.mount(disk.device, tmp_path / "m with a space")
    disk.enlarge()
    grown = grow_at(agent, disk.device, size=LARGE)
    assert grown.partition is None
    assert grown.size_before is not None
    assert grown.size_after == statvfs_size(at) > grown.size_before + 280 * MIB
    assert (at / "data").read_bytes() == DATA


def test_the_right_device_of_a_btrfs_of_two_grows(agent: Agent, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(LoopDisk(tmp_path / "first"))
        second = stack.enter_context(LoopDisk(tmp_path / "second"))
        mkfs("btrfs", first.device, second.device)
        at = first.mount(first.device, tmp_path / "m")
        stack.callback(lambda: (sh("umount", str(first.mounts.pop()))))
        second.enlarge()
        grow_at(agent, second.device, size=LARGE)
        assert statvfs_size(at) == SMALL + LARGE


def test_a_partition_behind_the_wanted_one_is_named_and_nothing_changes(agent: Agent, disk: LoopDisk) -> None:
    disk.table("gpt", "size=200MiB", "size=+")
    mkfs("ext4", f"{disk.device}p1")
    sh("mkswap", f"{disk.device}p2")
    disk.enlarge()
    table = sh("sfdisk", "--dump", disk.device)
    with pytest.raises(GuestError, match=rf"{disk.device}p2 cannot be grown\n  why: it is swap space: remove it"):
        grow_at(agent, disk.device, size=LARGE)
    assert sh("sfdisk", "--dump", disk.device) == table


def test_an_unmounted_file_system_waits_and_is_named(agent: Agent, disk: LoopDisk) -> None:
    mkfs("ext4", disk.device)
    disk.enlarge()
    grown = grow_at(agent, disk.device, size=LARGE)
    assert grown.notes == (f"ext4 on {disk.device} is not mounted, so it did not grow: mount it, then apply again",)
    assert (grown.size_before, grown.size_after) == (None, None)


def test_an_empty_disk_has_nothing_to_grow(agent: Agent, disk: LoopDisk) -> None:
    disk.enlarge()
    grown = grow_at(agent, disk.device, size=LARGE)
    assert grown.notes == (f"{disk.device} holds no file system: nothing to grow inside the guest",)


def test_a_size_the_guest_never_sees(agent: Agent, disk: LoopDisk) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(GuestError, match=rf"the guest still sees 400M of {disk.device}\n  why: the host gave it 700M"):
        grow_at(agent, disk.device, size=LARGE, clock=lambda: now[0], sleep=sleep)
    assert now[0] == pytest.approx(30)


def test_a_failed_command_shows_its_words(agent: Agent, disk: LoopDisk, tmp_path: Path) -> None:
    mkfs("xfs", disk.device)
    at = disk.mount(disk.device, tmp_path / "m")
    disk.enlarge()
    sh("mount", "-o", "remount,ro", str(at))
    with pytest.raises(GuestError) as caught:
        grow_at(agent, disk.device, size=LARGE)
    text = str(caught.value)
    assert f"growing xfs on {at} failed: xfs_growfs in the guest failed with code 1" in text
    assert f"command: xfs_growfs {at}" in text
    assert "Read-only file system" in text


def test_looking_changes_nothing_and_sees_the_disk(agent: Agent, disk: LoopDisk) -> None:
    disk.table("gpt", *CLOUD_IMAGE)
    seen = look(agent).at(disk.device)
    assert (seen.type, seen.size, seen.table) == ("loop", SMALL, "gpt")
    assert [part.number for part in seen.partitions] == [14, 15, 1]
    assert [part.start for part in seen.partitions] == [2048, 10240, 51200]
