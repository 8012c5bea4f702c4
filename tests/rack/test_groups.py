"""Pools that are volume groups, on a host that has LVM: what is taken, what is refused, and what a clone can read."""

from __future__ import annotations

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
    process.down("groups", force=True, remove=True)


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
    cloud.write(THICK + THIN, vm("two", "thick", "disk: 130M, disks: {data: 64M}") + vm("three", "thin", "disk: 128M"))
    cloud.ok("apply", "-y")
    assert cloud.volumes("vg-libvirt")["lab.two.root"] == 132 * MIB, "whole extents"
    assert cloud.volumes("vg-thin")["lab.three.root"] == 128 * MIB
    assert [row["verb"] for row in cloud.plan()["actions"]] == []
    cloud.write(THICK + THIN, vm("two", "thick", "disk: 64M, disks: {data: 64M}"))
    assert any("cannot become 64M" in what for what in cloud.refused())


def test_no_room_and_too_much_promised_are_refused(cloud: RackCloud) -> None:
    cloud.write(THICK + THIN.replace("thin: true", "thin: {overcommit: 1.5}"),
                vm("large", "thick", "disk: 1T") + vm("wide", "thin", "disk: 3G"))
    refused = cloud.refused()
    assert any(what.startswith("pool thick of host rack: what is to be made takes 1T, and ") for what in refused)
    assert any("times what it has; the file allows 1.5" in what for what in refused)


def test_destroy_removes_the_volumes_and_leaves_the_others(cloud: RackCloud) -> None:
    cloud.sh("lvcreate -q -y -L 8M -n theirs vg-libvirt")
    cloud.write(THICK + THIN)
    cloud.ok("destroy", "-y", "one", "two", "three")
    assert set(cloud.volumes("vg-libvirt")) - {"theirs"} == {
        name for name in cloud.volumes("vg-libvirt") if ".template-" in name}
    assert [name for name in cloud.volumes("vg-thin") if name.startswith("lab.three")] == []
    assert cloud.sh("virsh -q list --all --name") == ""
