"""From one file to running guests and through their lives: real libvirt, a real Debian, in the order of the tests.

One template and three VMs serve all tests here, because each boot takes its time where KVM does not work. A test that
fails does not hide the next ones: each says what it needs of the ones before.
"""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.kit import Kit, connection, kit

from vmwright.guest.agent import Agent, must
from vmwright.virt.connect import Connection

GIB = 1 << 30


def text(cloud: Kit, *, one: str = "", two: str = "") -> None:
    """The file. `one` and `two` are more keys of the first and second VM; the first's say its address and disk, too."""
    one = one or f"    address: {cloud.subnet}.11\n    disk: 4G\n"
    cloud.write(
        template="  debian: {build: debian, disk: 3G, packages: [lvm2, xfsprogs, btrfs-progs]}\n",
        more=f"""\
defaults:
  network: {cloud.name}-net
  memory: 512M
  timezone: Asia/Shanghai
""",
        vms=f"""\
  {cloud.name}-1:
    template: debian
    write_files: [{{path: /etc/made-by, content: "vmwright: 'yes'\\n", mode: "0640"}}]
    runcmd: [echo ran >> /root/ran]
{one}  {cloud.name}-2:
    template: debian
    address: {cloud.subnet}.12
{two or "    disks: {data: {size: 1G, filesystem: ext4, mount: /srv}}" + chr(10)}  {cloud.name}-3:
    template: debian
    address: {cloud.subnet}.13
    copy: full
""")


def larger(cloud: Kit, size: str, *, disk: str) -> str:
    """The first VM with two CPUs, three data disks, a second NIC and autostart."""
    return (f"    disk: {disk}\n    vcpus: 2\n    autostart: true\n"
            f"    disks: {{lvm: {size}, part: {size}, tree: {size}}}\n"
            f"    nics:\n      - {{network: {cloud.name}-net, address: {cloud.subnet}.11}}\n"
            f"      - {{network: {cloud.name}-net, address: {cloud.subnet}.21}}\n")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """Three VMs, applied once."""
    with kit(tmp_path_factory.mktemp("guests")) as made:
        text(made)
        began = time.monotonic()
        said = made.ok("apply", "-y", timeout=1500)
        print(f"apply from nothing: {time.monotonic() - began:.0f} s")
        print(said.out)
        yield made


@pytest.fixture
def one(cloud: Kit) -> str:
    return f"{cloud.name}-1"


@pytest.fixture
def two(cloud: Kit) -> str:
    return f"{cloud.name}-2"


def ssh(cloud: Kit, vm: str, command: str) -> str:
    """What a command says in a guest, over `vmwright ssh`."""
    said = cloud.run("ssh", vm, command, timeout=180)
    assert said.code == 0, said.all
    return said.out.strip()


def inside(vm: str, script: str) -> str:
    """What a script says in a guest, through its agent, as root."""
    with Connection("qemu:///system", "here") as virt:
        return must(Agent(virt.agent(vm)), ["sh", "-c", script], timeout=240).strip()


def identity(cloud: Kit, vm: str) -> dict[str, str]:
    """What tells one guest from another."""
    rows = ssh(cloud, vm, "hostname; cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub").splitlines()
    return dict(zip(("hostname", "machine-id", "host key"), rows, strict=True))


def nothing_to_do(cloud: Kit) -> None:
    plan = cloud.plan()
    assert (plan["actions"], plan["refused"]) == ([], []), plan


# ---- made ------------------------------------------------------------------------------------------------------------


def test_all_are_ready_and_nothing_is_left_to_do(cloud: Kit) -> None:
    rows = cloud.status()
    assert {(row["state"], row["health"], row["drift"]) for row in rows.values()} == {("running", "ok", "-")}
    assert [row["address"] for row in rows.values()] == [f"{cloud.subnet}.{n}" for n in (11, 12, 13)]
    assert "Nothing to do" in cloud.ok("apply", "-y").out


def test_each_guest_is_its_own(cloud: Kit) -> None:
    names = [f"{cloud.name}-{n}" for n in (1, 2, 3)]
    guests = [identity(cloud, name) for name in names]
    assert [guest["hostname"] for guest in guests] == names
    assert len({guest["machine-id"] for guest in guests}) == 3
    assert len({guest["host key"] for guest in guests}) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", guest["machine-id"]) for guest in guests)


def test_the_guest_is_as_the_file_says(cloud: Kit, one: str) -> None:
    assert ssh(cloud, one, f"getent ahostsv4 {one} | tr -s ' '").startswith(f"{cloud.subnet}.11 ")
    assert ssh(cloud, one, "sudo -n id -u") == "0"
    assert ssh(cloud, one, "cat /etc/timezone; readlink /etc/localtime").endswith("Asia/Shanghai")
    assert ssh(cloud, one, "ip -4 -br address show scope global").split()[2] == f"{cloud.subnet}.11/24"
    assert ssh(cloud, one, "ip route show default").startswith(f"default via {cloud.subnet}.1 ")
    assert ssh(cloud, one, "sudo cat /etc/made-by; sudo stat -c %a /etc/made-by") == "vmwright: 'yes'\n640"
    assert ssh(cloud, one, "sudo cat /root/ran") == "ran"
    assert f"{cloud.subnet}.1" in ssh(cloud, one, "resolvectl dns || cat /etc/resolv.conf")


def test_the_root_disk_was_grown_at_first_boot(cloud: Kit, one: str) -> None:
    assert int(ssh(cloud, one, "df --output=size -B1 / | tail -n1")) > 3.5 * GIB


def test_the_data_disk_is_formatted_and_mounted(cloud: Kit, two: str) -> None:
    assert ssh(cloud, two, "findmnt -no FSTYPE /srv") == "ext4"
    assert ssh(cloud, two, "test -e /dev/disk/by-id/virtio-data && echo there") == "there"


def test_cloud_init_finds_nothing_wrong_in_its_seed(cloud: Kit, one: str) -> None:
    assert "Valid" in inside(one, "cloud-init schema --system 2>&1")


def test_uefi_with_an_nvram_of_its_own(cloud: Kit, one: str, two: str) -> None:
    assert inside(one, "test -d /sys/firmware/efi && echo uefi") == "uefi"
    paths = [ET.fromstring(cloud.domain(vm).XMLDesc(0)).findtext("os/nvram") for vm in (one, two)]
    assert len(set(paths)) == 2
    assert all(path and Path(path).exists() for path in paths)


# ---- changed in place ------------------------------------------------------------------------------------------------


def test_cpus_memory_disk_nic_and_autostart_change_while_it_runs(cloud: Kit, one: str) -> None:
    began = inside(one, "cat /proc/sys/kernel/random/boot_id")
    text(cloud, one=larger(cloud, "1G", disk="4G"))
    changes = {c["key"]: c["when"] for a in cloud.plan()["actions"] for c in a["changes"]}
    assert changes["vcpus"] == "now"
    assert changes["disk lvm"] == "now"
    cloud.ok("apply", "-y")
    assert inside(one, "nproc") == "2"
    assert inside(one, "ls /dev/disk/by-id | grep -c virtio-") >= "4"
    assert inside(one, "ls -d /sys/class/net/[!l]* | wc -l") == "2"
    assert cloud.domain(one).autostart() == 1
    assert inside(one, "cat /proc/sys/kernel/random/boot_id") == began, "it was restarted"
    nothing_to_do(cloud)


def test_disks_grow_online_with_what_is_on_them(cloud: Kit, one: str) -> None:
    """ext4 on the root partition; LVM with ext4, a partition with xfs, and btrfs on the whole disk on data disks."""
    inside(one, """set -e
d=/dev/disk/by-id/virtio
pvcreate -q $d-lvm; vgcreate -q vg $d-lvm; lvcreate -q -l 100%FREE -n lv vg; mkfs.ext4 -q /dev/vg/lv
printf 'label: gpt\\n,64M\\n,\\n' | sfdisk -q $d-part; udevadm settle; mkfs.xfs -q $d-part-part2; mkfs.btrfs -q $d-tree
mkdir -p /m/lvm /m/part /m/tree; mount /dev/vg/lv /m/lvm; mount $d-part-part2 /m/part; mount $d-tree /m/tree
for m in lvm part tree; do echo kept > /m/$m/file; done""")
    sizes = "df --output=size -B1 / /m/lvm /m/part /m/tree | tail -n 4"
    before = [int(size) for size in inside(one, sizes).split()]
    text(cloud, one=larger(cloud, "2G", disk="5G"))
    said = cloud.ok("apply", "-y")
    after = [int(size) for size in inside(one, sizes).split()]
    assert all(new - old > 0.85 * GIB for old, new in zip(before, after, strict=True)), (before, after, said.out)
    assert inside(one, "cat /m/*/file").split() == ["kept"] * 3
    assert "4G -> 5G" in said.out
    nothing_to_do(cloud)


def test_smaller_is_refused(cloud: Kit, one: str) -> None:
    text(cloud, one=larger(cloud, "2G", disk="4G"))
    said = cloud.run("apply", "-y")
    assert said.code == 4
    assert f"vm {one}" in said.err
    assert "5G and cannot become 4G" in said.err


def test_cloud_init_data_counts_from_the_next_start(cloud: Kit, two: str) -> None:
    before = identity(cloud, two)
    one_nic = larger(cloud, "2G", disk="5G").partition("    nics:")[0] + f"    address: {cloud.subnet}.11\n"
    text(cloud, one=one_nic,
         two="    disks: {data: {size: 1G, filesystem: ext4, mount: /srv}}\n    timezone: Europe/Berlin\n"
             "    runcmd: [echo ran >> /root/ran]\n    vcpus: 2\n")
    rows = [a for a in cloud.plan()["actions"] if a["object"] == f"vm {two}"]
    assert any("cloud-init" in c["key"] and c["when"] == "at next start" for a in rows for c in a["changes"]), rows
    # the first VM goes back to one NIC; that cuts something off, and -y alone must not do it
    refused = cloud.run("apply", "-y")
    assert "--allow-cut-off" in refused.err
    cloud.ok("apply", "-y", "--allow-cut-off")
    assert "cloud-init" in cloud.status()[two]["drift"]
    assert ssh(cloud, two, "readlink /etc/localtime").endswith("Asia/Shanghai")
    cloud.ok("apply", "-y", "--restart")
    assert ssh(cloud, two, "readlink /etc/localtime").endswith("Europe/Berlin")
    assert inside(two, "cat /root/ran") == "ran"
    assert identity(cloud, two) == before, "a change in place must not make a new guest"
    nothing_to_do(cloud)


# ---- stopped, started, rebuilt, removed ------------------------------------------------------------------------------


def test_stop_waits_and_a_disk_grown_meanwhile_is_there_at_the_start(cloud: Kit, two: str) -> None:
    cloud.ok("stop", two)
    assert not cloud.domain(two).isActive()
    cloud.ok("set", f"vms.{two}.disks.data.size=2G")
    cloud.ok("apply", "-y")  # grows the volume, and starts it, as the file wants it running
    assert int(inside(two, "df --output=size -B1 /srv | tail -n1")) > 1.8 * GIB
    assert cloud.status()[two]["health"] == "ok"


def test_rebuild_makes_a_new_guest_and_keeps_the_data_disk(cloud: Kit, two: str) -> None:
    before = identity(cloud, two)
    inside(two, "echo precious > /srv/file; touch /root/old; sync")
    said = cloud.run("rebuild", two)  # nobody to ask
    assert said.code != 0
    assert identity(cloud, two) == before
    cloud.ok("rebuild", two, "-y")
    after = identity(cloud, two)
    assert after["hostname"] == before["hostname"]
    assert after["machine-id"] != before["machine-id"]
    assert after["host key"] != before["host key"]
    assert inside(two, "cat /srv/file; ls /root") == "precious\nran"
    nothing_to_do(cloud)


def test_destroy_leaves_nothing(cloud: Kit) -> None:
    names = [f"{cloud.name}-{n}" for n in (1, 2, 3)]
    nvram = {Path(f"/var/lib/libvirt/qemu/nvram/{name}_VARS.fd") for name in names}
    assert any(path.exists() for path in nvram)
    cloud.ok("destroy", *names, "-y")
    assert cloud.domains() == set()
    assert {name for name in cloud.volumes() if ".template-" not in name} == set()
    assert not any(path.exists() for path in nvram)
    assert (cloud.folder / "state" / "vmwright" / cloud.name / "known_hosts").read_text() == ""
    assert [d for d in connection().listAllDomains() if d.name() in names] == []
    assert json.loads(cloud.ok("status", "--json").out)[0]["state"] == "missing"
