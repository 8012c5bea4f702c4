"""Pools that are volume groups, on a host that has LVM: what is taken, what is refused, and what a clone can read."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from tests.rack import kit
from tests.rack.cloud import RackCloud

from vmwright.rack import process
from vmwright.rack.process import Wish
from vmwright.rack.record import Record

MIB = 1 << 20
MARK = "whose-bytes-are-these"
THICK = "      thick: {lvm: vg-libvirt, disks: [/dev/sda4]}\n"
THIN = "      thin: {lvm: vg-thin, thin: true}\n"
VM = "  {name}: {{template: blank, pool: {pool}, firmware: bios, memory: 64M, running: false, {more}}}\n"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """One rack for all of these, in the order in which they stand."""
    made: Record = kit.up("groups", Wish())
    yield RackCloud(made, tmp_path_factory.mktemp("cloud"))
    process.down("groups", force=True, seconds=0, remove=True)


def listed(cloud: RackCloud, pool: str) -> set[str]:
    """The volumes that libvirt says are in a pool."""
    return {line.split()[0] for line in cloud.sh(f"virsh -q vol-list {pool}").splitlines()}


def vm(name: str, pool: str, more: str = "address: 192.168.6.50") -> str:
    return VM.format(name=name, pool=pool, more=more)


def test_disks_that_are_not_blank_or_in_use_are_refused(cloud: RackCloud) -> None:
    """Each with what was found; the file's word is needed to take one, and no word takes one in use."""
    one, two, three = (cloud.drive(f"PM9A1-{n}") for n in (1, 2, 3))
    cloud.sh(f"""mkfs.ext4 -q {two}; mkdir -p /mnt/x; mount {two} /mnt/x; mkswap -q {three}; swapon {three}
        sgdisk -n 1:0:0 {one} >/dev/null; pvcreate -q /dev/sda4; vgcreate -q theirs /dev/sda4""")
    root = cloud.sh("findmnt -no SOURCE /")
    disks = ", ".join([one, two, three, "/dev/sda4", root, "/dev/sdz"])
    cloud.write(f"      p: {{lvm: vg0, disks: [{disks}], wipe: [PM9A1-2, PM9A1-3, 2G]}}\n")
    refused = cloud.refused()
    assert f"pool p: {two} is in use: it is mounted at /mnt/x" in refused
    assert f"pool p: {three} is in use: it is swap space in use" in refused
    assert "pool p: /dev/sda4 is in use: it is a physical volume of volume group theirs" in refused
    assert f"pool p: {root} is in use: it is mounted at /" in refused
    assert "pool p: host rack has no disk /dev/sdz" in refused
    assert not any(one in what for what in refused), "its size is named under wipe"

    cloud.sh(f"umount /mnt/x; swapoff {three}; vgremove -q theirs; pvremove -q /dev/sda4")
    cloud.write(f"      p: {{lvm: vg0, disks: [{one}, {two}, {three}], wipe: PM9A1-2}}\n")
    assert set(cloud.refused()) == {f"pool p: {one} is not blank: a gpt partition table with 1 partition",
                                    f"pool p: {three} is not blank: swap"}
    assert cloud.sh(f"wipefs -n {two} | grep -c ext4") == "1"


def test_groups_are_made_and_the_second_apply_has_nothing_to_do(cloud: RackCloud) -> None:
    drive = cloud.drive("PM9A1-1")
    cloud.write(THICK + THIN.replace("thin: true", f"disks: [{drive}], thin: {{metadata: 32M}}, wipe: PM9A1-1"),
                vm("one", "thick"))
    plan = cloud.plan()
    taken = next(row for row in plan["actions"] if row["object"] == "pool thin")
    assert "takes data" in taken["effects"]
    said = cloud.run("apply", "-y")
    assert said.returncode == 64 and said.stderr == (
        f"error: pool thin: it was not confirmed to take {drive} with all that is on it; nothing was changed\n"
        "  do:  type its name when asked, or say --confirm thin\n")
    assert "vg-thin" not in cloud.sh("vgs")
    cloud.ok("apply", "-y", "--confirm", "thin")
    assert "Nothing to do" in cloud.ok("apply", "-y")
    assert listed(cloud, "thick") == set(cloud.volumes("vg-libvirt")), "libvirt's own list is as it is now"
    assert cloud.sh("virsh -q pool-list --name --autostart").split() == ["thick", "thin"]
    assert cloud.sh("lvs --noheadings -o seg_monitor vg-thin/thin").strip() == "monitored"
    assert cloud.sh("lvs --noheadings --units m --nosuffix -o lv_metadata_size vg-thin/thin").strip() == "32.00"
    xml = cloud.sh("virsh dumpxml one")
    for part in ("<iothreads>1</iothreads>", "cache='none'", "io='native'", "iothread='1'", "discard='unmap'",
                 "dev='/dev/vg-libvirt/lab.one.root'"):
        assert part in xml


def test_a_new_clone_cannot_read_what_was_there_before(cloud: RackCloud) -> None:
    """The group is filled with a marker and given back; then a clone larger than its template and a data disk."""
    cloud.sh(f"""lvcreate -q -y -l 100%FREE -n old vg-libvirt; yes {MARK} | tr -d '\\n' | dd of=/dev/vg-libvirt/old \\
        bs=1M iflag=fullblock oflag=direct status=none count=1024 || :; lvremove -q -y vg-libvirt/old""")
    # Room that was marked: a volume that is only made still has it.
    cloud.sh("lvcreate -q -y -L 256M -n look vg-libvirt")
    assert int(cloud.sh(f"grep -a -o -m 1 {MARK} /dev/vg-libvirt/look | head -n 1 | wc -l")) == 1
    cloud.sh("lvremove -q -y vg-libvirt/look")
    cloud.write(THICK, vm("one", "thick") + vm("two", "thick", "disk: 128M, disks: {data: 64M}"))
    cloud.ok("apply", "-y")
    for role in ("root", "disk-data", "seed"):
        found = cloud.sh(f"grep -a -c {MARK} /dev/vg-libvirt/lab.two.{role} || :")
        assert found == "0", f"{role} has bytes of an earlier owner"
    sizes = cloud.volumes("vg-libvirt")
    assert (sizes["lab.two.root"], sizes["lab.two.disk-data"], sizes["lab.two.seed"]) == (128 * MIB, 64 * MIB, 4 * MIB)


def test_a_thin_clone_does_not_need_its_template(cloud: RackCloud) -> None:
    cloud.write(THICK + THIN, vm("three", "thin", "disk: 96M"))
    cloud.ok("apply", "-y")
    row = cloud.sh("lvs --noheadings -o pool_lv,lv_size,origin --units m --nosuffix vg-thin/lab.three.root").split()
    assert row[:2] == ["thin", "96.00"] and row[2].startswith("lab.blank.template-")
    before = cloud.sh("sha256sum </dev/vg-thin/lab.three.root")
    cloud.sh(f"lvremove -q -y vg-thin/{row[2]}")
    assert cloud.sh("sha256sum </dev/vg-thin/lab.three.root") == before


def test_disks_grow_and_never_shrink(cloud: RackCloud) -> None:
    # What comes next in the group has bytes of somebody's: a volume that only grew would have them at its end.
    cloud.sh("lvcreate -q -y -Zn -Wn -L 4M -n look vg-libvirt")
    assert cloud.sh(f"grep -a -c {MARK} /dev/vg-libvirt/look") != "0"
    cloud.sh("lvremove -q -y vg-libvirt/look")
    before = cloud.sh("head -c 128M /dev/vg-libvirt/lab.two.root | sha256sum")
    cloud.write(THICK + THIN, vm("two", "thick", "disk: 130M, disks: {data: 64M}") + vm("three", "thin", "disk: 128M"))
    cloud.ok("apply", "-y")
    assert cloud.volumes("vg-libvirt")["lab.two.root"] == 132 * MIB, "whole extents"
    assert cloud.sh(f"grep -a -c {MARK} /dev/vg-libvirt/lab.two.root || :") == "0"
    assert cloud.sh("head -c 128M /dev/vg-libvirt/lab.two.root | sha256sum") == before
    assert cloud.volumes("vg-thin")["lab.three.root"] == 128 * MIB
    assert [row["verb"] for row in cloud.plan()["actions"]] == []
    cloud.write(THICK + THIN, vm("two", "thick", "disk: 64M, disks: {data: 64M}"))
    assert any("cannot become 64M" in what for what in cloud.refused())


def test_a_growth_that_was_cut_off_is_tidied(cloud: RackCloud) -> None:
    cloud.sh("lvcreate -q -y -L 8M -n .lab.two.root.partial vg-libvirt")
    assert [(row["object"], row["verb"]) for row in cloud.plan()["actions"]] == [("leftover lab.two.root", "tidy")]
    cloud.write(THICK + THIN, vm("two", "thick", "disk: 140M, disks: {data: 64M}") + vm("three", "thin", "disk: 128M"))
    assert [row["verb"] for row in cloud.plan()["actions"]] == ["grow"]
    cloud.ok("apply", "-y")
    assert cloud.volumes("vg-libvirt")["lab.two.root"] == 140 * MIB
    assert ".lab.two.root.partial" not in cloud.volumes("vg-libvirt")
    assert listed(cloud, "thick") == set(cloud.volumes("vg-libvirt"))


def test_what_a_host_reboot_leaves_inactive_is_woken(cloud: RackCloud) -> None:
    """Thick volumes and our thin snapshots are there after it; one that LVM is told to skip, when its VM starts.

    Nothing is on these disks that could ever be ready: the VMs run, and that is all.
    """
    off = vm("two", "thick", "disk: 140M, disks: {data: 64M}") + vm("three", "thin", "disk: 128M")
    cloud.write(THICK + THIN, off.replace("running: false", "ready_timeout: 3"))
    cloud.sh("lvchange -q -an vg-libvirt/lab.two.disk-data; lvchange -q --setactivationskip y vg-thin/lab.three.seed")
    before = kit.boot_id(cloud.rack)
    cloud.sh("systemctl reboot || :")
    kit.await_reboot(cloud.rack, before)
    rows = cloud.sh("lvs --noheadings -o lv_name,lv_active -S 'lv_name=~\"^lab[.](two|three)[.]\"'").splitlines()
    assert {tuple(row.split()) for row in rows} == {
        ("lab.two.root", "active"), ("lab.two.disk-data", "active"), ("lab.two.seed", "active"),
        ("lab.three.root", "active"), ("lab.three.seed",)}
    cloud.sh("lvchange -q -an vg-libvirt/lab.two.disk-data")
    woken = {change["key"] for row in cloud.plan()["actions"] for change in row["changes"]} - {"state"}
    assert woken == {"volume lab.two.disk-data", "volume lab.three.seed"}
    for words in (("start", "two"), ("apply", "-y")):
        said = cloud.run(*words)
        assert said.returncode == 8 and "was not ready within" in said.stderr, said.stdout + said.stderr
    assert set(cloud.sh("virsh -q list --name").split()) == {"two", "three"}
    cloud.sh("virsh -q destroy two; virsh -q destroy three")
    cloud.write(THICK + THIN, off)
    cloud.ok("apply", "-y")


def test_volumes_in_use_and_names_that_are_taken_are_refused(cloud: RackCloud) -> None:
    disk = "/dev/vg-libvirt/lab.two.disk-data"
    cloud.sh(f"mkfs.ext4 -q {disk}; mkdir -p /mnt/y; mount {disk} /mnt/y")
    for words in (("destroy", "-y", "two"), ("start", "two")):
        said = cloud.run(*words)
        assert said.returncode == 4, said.stdout + said.stderr
        assert f"vm two: {disk} of host rack is in use: it is mounted at /mnt/y" in said.stderr
    cloud.sh(f"umount /mnt/y; (setsid sleep 600 <{disk} >/dev/null 2>&1 & echo $! >/run/holder)")
    said = cloud.run("rebuild", "-y", "two")
    assert f"vm two: {disk} of host rack is in use: a process there has it open" in said.stderr
    cloud.sh("kill $(cat /run/holder)")
    cloud.sh("lvcreate -q -y -L 8M -n lab.four.root vg-libvirt")
    cloud.write(THICK + THIN, vm("two", "thick", "disk: 140M, disks: {data: 64M}") + vm("four", "thick", "disk: 64M")
                + vm("three", "thin", "disk: 128M"))
    assert cloud.refused() == [
        "vm four: there is no such VM, but a volume of that name: /dev/vg-libvirt/lab.four.root"]
    cloud.sh("lvremove -q -y vg-libvirt/lab.four.root")


def test_no_room_and_too_much_promised_are_refused(cloud: RackCloud) -> None:
    cloud.write(THICK + THIN.replace("thin: true", "thin: {overcommit: 1.5}"),
                vm("large", "thick", "disk: 1T") + vm("wide", "thin", "disk: 3G"))
    refused = cloud.refused()
    assert any(what.startswith("pool thick of host rack: what is to be made takes 1048580M, and ") for what in refused)
    assert any("times what it has; the file allows 1.5" in what for what in refused)


def test_destroy_removes_the_volumes_and_leaves_the_others(cloud: RackCloud) -> None:
    cloud.sh("lvcreate -q -y -L 8M -n theirs vg-libvirt")
    cloud.write(THICK + THIN)
    cloud.ok("destroy", "-y", "one", "two", "three")
    assert set(cloud.volumes("vg-libvirt")) - {"theirs"} == {
        name for name in cloud.volumes("vg-libvirt") if ".template-" in name}
    assert [name for name in cloud.volumes("vg-thin") if name.startswith("lab.three")] == []
    assert cloud.sh("virsh -q list --all --name") == ""
    assert listed(cloud, "thick") == set(cloud.volumes("vg-libvirt"))


def marks(cloud: RackCloud, serial: str) -> int:
    """In how many lines of a whole drive the mark is, as the file on this machine that is the drive has it."""
    file = cloud.rack.folder / f"nvme-{serial}.img"
    done = subprocess.run(["grep", "-a", "-c", MARK, str(file)], capture_output=True, text=True,
                          env={"LC_ALL": "C", "PATH": os.environ["PATH"]})
    return int(done.stdout)


def marked(cloud: RackCloud, path: str) -> None:
    """Write the mark all over a volume."""
    cloud.sh(f"yes {MARK} | dd of={path} bs=1M count=32 iflag=fullblock oflag=direct status=none")


ERASED = {"thin": ("PM9A1-1", "{lvm: vg-thin, thin: true, on_remove: discard}"),
          "dropped": ("PM9A1-2", "{lvm: vg-dropped, on_remove: discard}"),
          "zeroed": ("PM9A1-3", "{lvm: vg-zeroed, on_remove: zero}")}


def test_what_becomes_of_the_bytes_of_removed_volumes(cloud: RackCloud) -> None:
    """Looked for on whole drives. These read as zeros where they were discarded; not every drive does."""
    for pool, (serial, _) in ERASED.items():
        drive = cloud.drive(serial)
        cloud.sh(f"vgs vg-{pool} >/dev/null 2>&1 || {{ wipefs -q -a {drive}; vgcreate -q -y vg-{pool} {drive}; }}")
    cloud.write("".join(f"      {pool}: {said}\n" for pool, (_, said) in ERASED.items()),
                "".join(vm(f"gone-{pool}", pool, f"address: 192.168.6.{60 + place}, disks: {{data: 32M}}")
                        for place, pool in enumerate(ERASED)))
    cloud.ok("apply", "-y")
    templates = {pool: next(volume for volume in cloud.volumes(f"vg-{pool}") if ".template-" in volume)
                 for pool in ERASED}
    sums = "".join(f"sha256sum </dev/vg-{pool}/{volume}\n" for pool, volume in templates.items())
    before = cloud.sh(sums)
    for pool, (serial, _) in ERASED.items():
        for role in ("root", "disk-data"):
            marked(cloud, f"/dev/vg-{pool}/lab.gone-{pool}.{role}")
        assert marks(cloud, serial) > 0
    cloud.ok("destroy", "-y", *(f"gone-{pool}" for pool in ERASED))
    assert [volume for pool in ERASED for volume in cloud.volumes(f"vg-{pool}") if ".gone-" in volume] == []
    assert {pool: marks(cloud, serial) for pool, (serial, _) in ERASED.items()} == dict.fromkeys(ERASED, 0)
    assert cloud.sh(sums) == before


def test_zeroing_can_be_stopped_and_goes_on(cloud: RackCloud) -> None:
    """Between two steps; the volume stays until it is done, and the next apply sees to that."""
    cloud.write(THICK.replace("}", ", on_remove: zero}"), vm("large", "thick", "disks: {data: 1G}"))
    cloud.ok("apply", "-y")
    with subprocess.Popen(cloud.argv("destroy", "-y", "large"), cwd=cloud.folder, env=cloud.environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        for _ in range(600):
            if cloud.sh("pgrep -f 'zero /dev/vg-libvirt/lab.large.disk-data' || :"):
                break
        else:
            pytest.fail("it never began to write zeros")
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=300)
    assert run.returncode == 130, said
    assert cloud.sh("pgrep blkdiscard || :") == ""
    assert "lab.large.disk-data" in cloud.volumes("vg-libvirt")
    cloud.write(THICK.replace("}", ", on_remove: zero}"))
    plan = cloud.plan()
    assert [(row["object"], row["verb"]) for row in plan["actions"]] == [("vm large", "destroy")]
    assert {row["new"] for row in plan["actions"][0]["changes"]} == {"overwritten with zeros and removed"}
    cloud.ok("apply", "-y")
    assert not any(".large." in name for name in cloud.volumes("vg-libvirt"))
