"""The micro guest: command lines, what is read from lists of modules and libraries, its report; without a host."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from vmwright.image import debian_guest as guest
from vmwright.image import micro
from vmwright.image.micro_report import BEGIN, END, reports
from vmwright.units import MIB

IDENTITY = guest.Identity("74350a7d-9fdf-493d-920d-5a622ffe34e0", "ff650b7b-59e6-496f-9539-284cdb862207")
SCRIPTS = Path(micro.__file__).parent / "micro_guest"

# Lines of modules.dep, as depmod of Debian 12 writes it.
MODULES = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
"""  # noqa: E501

# Printed by micro._LIST in an unpacked tree of Debian 12.
LISTED = """\
program /usr/bin/qemu-ga
\tlinux-vdso.so.1 (0x00007ffe5b9f4000)
\tlibudev.so.1 => /lib/x86_64-linux-gnu/libudev.so.1 (0x00007f2a0e9d1000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2a0e7f0000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2a0ea3b000)
program /sbin/blkid
\tlibblkid.so.1 => /lib/x86_64-linux-gnu/libblkid.so.1 (0x00007f5b1f5a2000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f5b1f3c1000)
"""

SAID = {
    "host": "z-1", "instance": "i-1", "cpus": 2, "memory": 120811520,
    "nics": [{"name": "net0", "mac": "52:54:00:00:00:01", "addresses": ["10.0.0.5/24"]}],
    "disks": [{"name": "vda", "serial": "root", "size": 1 << 30}, {"name": "nvme0n1", "serial": "PM9A1-1", "size": 8}],
}  # fmt: skip


def test_modules_are_loaded_after_what_they_need() -> None:
    order = micro.load_order(micro.parse_dependencies(MODULES), ["virtio_pci", "virtio_blk", "virtio_rng", "ext4"])
    names = [path.rpartition("/")[2] for path in order]
    assert sorted(names) == ["virtio-rng.ko", "virtio.ko", "virtio_blk.ko", "virtio_pci.ko", "virtio_pci_modern_dev.ko",
                             "virtio_ring.ko"]
    needs = micro.parse_dependencies(MODULES)
    assert all(order.index(need) < order.index(path) for path in order for need in needs[path])


def test_programs_come_with_their_libraries_once() -> None:
    assert micro.parse_libraries(LISTED) == [
        "/usr/bin/qemu-ga", "/sbin/blkid", "/lib/x86_64-linux-gnu/libudev.so.1", "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libblkid.so.1"]


def test_packages_are_read_from_what_is_unpacked() -> None:
    line = ("/usr/bin/dpkg --unpack /w/tree/var/cache/apt/archives/libattr1_1%3a2.5.1-4_amd64.deb "
            "/w/tree/var/cache/apt/archives/linux-base_4.12.1~deb12u1_all.deb\n")
    assert micro.parse_packages(line) == {"libattr1": "1:2.5.1-4", "linux-base": "4.12.1~deb12u1"}


def test_the_root_is_the_last_partition_and_fits() -> None:
    plan = micro.layout()
    assert plan.esp_start + plan.esp_size == plan.root_start
    assert plan.root_start + plan.root_size == plan.size - MIB
    assert plan.esp_size >= 32 * MIB, "FAT16 with clusters of 4 KiB: not below 16 MiB; a kernel takes 17"


def test_commands_write_at_the_partitions() -> None:
    plan = micro.layout()
    argvs = micro.esp_argvs("/w/tree", "/w", plan, "6.1.0-56-cloud-amd64")
    assert argvs[0][-3:] == [f"--offset={plan.esp_start // 512}", "/w/disk.raw", str(plan.esp_size // 1024)]
    assert all(argv[2] == f"/w/disk.raw@@{plan.esp_start}" for argv in argvs[1:])
    assert ["/w/tree/boot/vmlinuz-6.1.0-56-cloud-amd64", "::/linux"] in [argv[3:] for argv in argvs]
    argv = micro.root_argv("/w", plan, IDENTITY.root)
    assert argv[-3:] == [f"offset={plan.root_start}", "/w/disk.raw", f"{plan.root_size // 1024}k"]


def test_it_boots_by_bios_from_the_same_partition() -> None:
    attribute, install, code = micro.bios_argvs("/w/tree", "/w", micro.layout())
    assert attribute == ["sgdisk", "--attributes=1:set:2", "/w/disk.raw"]
    assert install[-4:] == ["--install", "--offset", str(micro.layout().esp_start), "/w/disk.raw"]
    assert "bs=440" in code and "conv=notrunc" in code, "the partition table begins behind it"


def test_packages_are_only_unpacked() -> None:
    argv = micro.mmdebstrap_argv("/w")
    assert "--variant=extract" in argv
    assert argv[-3:] == ["bookworm", "/w/tree", "/w/debian.sources"]


def test_the_kernel_finds_its_root_by_uuid() -> None:
    """By a variable: what the kernel does not know of its command line is in its first program's environment."""
    assert f"disk=UUID={IDENTITY.root} " in micro.command_line(IDENTITY)
    assert '"$disk"' in micro.initramfs_init()


def test_the_version_follows_what_is_in_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = micro.version()
    assert micro.version() == before
    changed = {**micro.files(), "etc/hosts": (0o644, "127.0.0.1\tlocalhost\n")}
    monkeypatch.setattr(micro, "files", lambda: changed)
    assert micro.version() != before


def test_every_script_is_packed_and_is_a_shell_script() -> None:
    packed = {path.rpartition("/")[2] for path in micro.files()} | {"init.sh"}
    assert {path.name for path in SCRIPTS.iterdir()} <= packed
    for path in SCRIPTS.glob("*.sh"):
        done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path.name


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
def test_the_scripts_pass_shellcheck() -> None:
    scripts = sorted(str(path) for path in SCRIPTS.glob("*.sh"))
    done = subprocess.run(["shellcheck", "-x", "-P", str(SCRIPTS), *scripts], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


def test_a_report_is_found_among_what_a_console_says() -> None:
    noise = "BdsDxe: starting\r\n\x1b[2JPlease press Enter to activate this console. \r\n"
    console = f"{noise}{BEGIN}\r\n{json.dumps(SAID)}\r\n{END}\r\n{noise}"
    first, second = reports(console + console.replace("z-1", "z-2"))
    assert (first.host, second.host, first.cpus, first.memory) == ("z-1", "z-2", 2, 120811520)
    assert first.nics[0].addresses == ("10.0.0.5/24",)
    assert [(drive.serial, drive.size) for drive in first.nvme] == [("PM9A1-1", 8)]


@pytest.mark.parametrize("text", [
    f"{BEGIN}\n{json.dumps(SAID)[:-20]}", f"{BEGIN}\n{json.dumps(SAID)[:-20]}\n{END}", f"{BEGIN}\n{{}}\n{END}", ""])
def test_a_report_that_is_cut_short_is_none(text: str) -> None:
    assert reports(text) == ()
