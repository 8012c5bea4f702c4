"""The reference shape with the ready image: what the host in it sees, and what hosts live through."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.rack import kit
from tests.rack.kit import sh

from vmwright.errors import UsageError
from vmwright.host.ssh import SshHost
from vmwright.rack import boot, process, record
from vmwright.rack.record import Record
from vmwright.rack.shape import REFERENCE

GROUPS = 'for g in /sys/kernel/iommu_groups/*; do echo $(for d in $g/devices/*; do basename $d; done); done'


def test_two_sockets_with_threads_and_two_nodes(rack: Record) -> None:
    topology = sh(rack, "lscpu -p=CPU,CORE,SOCKET,NODE | grep -v '#'").splitlines()
    rows = [[int(part) for part in line.split(",")] for line in topology]
    assert [(cpu, socket, node) for cpu, _, socket, node in rows] == [(n, n // 4, n // 4) for n in range(8)]
    assert [core for _, core, _, _ in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    memory = sh(rack, "cat /sys/devices/system/node/node*/meminfo | grep MemTotal | awk '{print $4}'").split()
    assert all(3.7 < int(kib) / 2**20 <= 4.0 for kib in memory) and len(memory) == 2
    assert sh(rack, "cat /sys/devices/system/node/node0/distance") == "10 21"


def test_drives_with_their_serials_on_their_nodes(rack: Record) -> None:
    seen = sh(rack, 'for n in /sys/class/nvme/nvme*; do echo $(cat $n/serial) $(cat $n/numa_node); done').splitlines()
    assert sorted(seen) == ["PM9A1-1 0", "PM9A1-2 0", "PM9A1-3 1"]
    sizes = sh(rack, "lsblk --nodeps --bytes --noheadings --output SERIAL,SIZE /dev/nvme*n1 /dev/sda").splitlines()
    assert sorted(line.split() for line in sizes) == [
        *([f"PM9A1-{n}", str(2 << 30)] for n in (1, 2, 3)), ["SSD-1", str(20 << 30)]]


def test_each_drive_is_alone_in_its_group_and_the_card_shares_one(rack: Record) -> None:
    groups = [group.split() for group in sh(rack, GROUPS).splitlines()]
    drives = sh(rack, "for n in /sys/class/nvme/nvme*; do basename $(readlink -f $n/device); done").split()
    assert len(drives) == 3
    assert all([drive] in groups for drive in drives)
    card = sh(rack, "for n in 0 1 2 3; do basename $(readlink -f /sys/class/net/ens1f$n/device); done").split()
    assert [function[-2:] for function in card] == [".0", ".1", ".2", ".3"]
    assert sorted(card) in [sorted(group) for group in groups]
    assert "intel_iommu=on" in sh(rack, "cat /proc/cmdline").split()


def test_a_drive_can_be_handed_to_vfio_and_back(rack: Record) -> None:
    said = sh(rack, """
        dev=$(basename $(readlink -f /sys/class/nvme/nvme0/device)); bus=/sys/bus/pci
        modprobe vfio-pci
        echo vfio-pci > $bus/devices/$dev/driver_override
        echo $dev > $bus/devices/$dev/driver/unbind; echo $dev > $bus/drivers_probe
        basename $(readlink $bus/devices/$dev/driver)
        ls /dev/vfio | grep -c "^$(basename $(readlink $bus/devices/$dev/iommu_group))$"
        echo > $bus/devices/$dev/driver_override
        echo $dev > $bus/devices/$dev/driver/unbind; echo $dev > $bus/drivers_probe
        basename $(readlink $bus/devices/$dev/driver)""")
    assert said.split() == ["vfio-pci", "1", "nvme"]


def test_its_own_disk_boots_by_uefi_and_grub_and_has_a_free_partition(rack: Record) -> None:
    assert sh(rack, "ls -d /sys/firmware/efi; cut -d' ' -f1 /proc/cmdline; findmnt -no SOURCE /").split()[::2] == [
        "/sys/firmware/efi", "/dev/sda2"]
    assert sh(rack, "cat /proc/cmdline").startswith("BOOT_IMAGE=/boot/vmlinuz-")
    parts = sh(rack, "lsblk --noheadings --list --output NAME,PARTLABEL,FSTYPE /dev/sda | tail -n +2").splitlines()
    assert [line.split() for line in parts] == [["sda1", "ESP", "vfat"], ["sda2", "root", "ext4"],
                                                ["sda3", "swap", "swap"], ["sda4", "lvm"]]
    sh(rack, "test -z \"$(wipefs --noheadings /dev/sda4)\"; ls /boot/efi/EFI/debian/grub.cfg; grub-install --no-nvram")


def test_networks(rack: Record) -> None:
    assert sh(rack, "cat /sys/class/net/eno1/address") == "94:57:a5:5a:d9:c0"
    assert "10.0.2.15/24" in sh(rack, "ip -br -4 address show eno1")
    assert "192.168.6.200/24" in sh(rack, "ip -br -4 address show br0")
    assert sh(rack, "readlink /sys/class/net/eno2/master").endswith("/br0")


def test_libvirt_and_lvm_are_ready(rack: Record) -> None:
    assert sh(rack, "virsh -q -c qemu:///system list --all; pvs; echo fine") == "fine"
    assert sh(rack, "systemctl --failed --no-legend") == ""


def test_it_is_a_host_for_a_cloud_file(rack: Record) -> None:
    host = SshHost("lab", f"ssh://root@127.0.0.1:{rack.port}", config=str(rack.folder / "ssh_config"))
    try:
        assert host.run(["id", "-un"]).text == "root"
    finally:
        host.close()


def test_an_unknown_host_key_is_not_accepted(rack: Record, tmp_path: Path) -> None:
    text = (rack.folder / "ssh_config").read_text()
    (tmp_path / "ssh_config").write_text(text.replace(str(rack.folder / "known_hosts"), str(tmp_path / "none")))
    argv = ["ssh", "-F", str(tmp_path / "ssh_config"), *process.ssh_argv(rack, ["true"])[3:]]
    done = kit.subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 255 and "Host key verification failed" in done.stderr


def test_the_command_line(rack: Record) -> None:
    ran = kit.cli("ssh", "lab", "exit 7")
    assert ran.returncode == 7, ran.stderr
    assert kit.cli("ssh", "lab", "hostname").stdout == "lab\n"
    again = kit.cli("up", "lab")
    assert (again.returncode, again.stderr.splitlines()[0]) == (64, "error: rack lab is up already")
    status = kit.cli("status", "lab")
    assert status.stdout.startswith("rack lab: up\n") and f"ssh://root@127.0.0.1:{rack.port}" in status.stdout


def test_another_shape_is_refused_while_it_has_disks(rack: Record) -> None:
    process.down("lab", seconds=300, tell=kit.say)
    assert process.status(record.known("lab")).state == "off"
    with pytest.raises(UsageError) as caught:
        process.up("lab", process.Wish(image=process.Image.BARE))
    assert str(caught.value) == (
        "rack lab has another image already\n  why: it is ready\n"
        "  do:  throw its disks away first: vmwright rack reset lab\n       or take another name for this one")
    assert kit.cli("ssh", "lab").returncode == 64
    kit.up("lab")


def test_after_a_power_cut_it_comes_up_with_what_was_written(rack: Record) -> None:
    sh(rack, """echo kept > /root/kept; sync /root/kept; echo kept | dd of=/dev/nvme1n1 conv=fsync 2>/dev/null
                (while :; do dd if=/dev/zero of=/root/busy bs=1M count=8; rm /root/busy; done) > /dev/null 2>&1 &""")
    running = record.known("lab")
    process.pull_plug(running)
    assert process.status(running).state == "off"
    kit.up("lab")
    assert sh(rack, "cat /root/kept; head -c 4 /dev/nvme1n1") == "kept\nkept"
    assert "sda2): recovery complete" in sh(rack, "dmesg")


def test_reset_is_the_fresh_image(rack: Record) -> None:
    fresh = process.reset("lab", tell=kit.say)
    assert (fresh.port, process.status(fresh).state) == (rack.port, "up")
    assert fresh.disks and fresh.disks.shape == REFERENCE
    assert sh(rack, "test ! -e /root/kept; cat /proc/sys/vm/nr_hugepages") == "0"
    assert sh(rack, "for n in /dev/nvme?n1; do head -c 1M $n | tr -d '\\0' | wc -c; done").split() == ["0", "0", "0"]


def test_down_is_a_clean_end(rack: Record) -> None:
    assert process.down("lab", seconds=300, tell=kit.say)
    assert not process.down("lab")
    assert "reboot: Power down" in (rack.folder / "console.log").read_text(errors="replace")
    assert not boot.answers(rack.port)
