"""Block devices and LVM: a recorded server, the reference server, and answers that are odd, torn or not there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.facts.test_gather import inventory
from tests.unit.facts.test_probes import recorded

from vmwright.errors import HostError
from vmwright.facts import storage
from vmwright.facts.gather import assemble, untold
from vmwright.facts.model import BlockFacts, GroupFacts, HostFacts, PoolFacts, ThinFacts, VolumeFacts
from vmwright.facts.probes import Output, demand, script
from vmwright.facts.storage import ELSEWHERE, SWAP, UNREADABLE, Known, Looked, Wanted
from vmwright.spec.cloud import LvmSpec, Pool, ThinSpec
from vmwright.virt.connect import RawPool

NVME = "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_PM9A1-1"
PROBES = ("blocks", "disks", "mounts", "swaps", "signatures", "lvm")


def pool(name: str = "images_lvm", group: str = "vg-libvirt", *disks: str, thin: str = "") -> Pool:
    """A pool of the spec that is a volume group."""
    return Pool(name, "here", f"/dev/{group}", LvmSpec(group, disks, ThinSpec(thin) if thin else None))


def read(recording: str, *pools: Pool, **changed: Output) -> HostFacts:
    """The facts of a recorded host with these pools wanted."""
    outputs = {**recorded("debian12"), **recorded(recording), **changed}
    return assemble("here", outputs, inventory(pools=()), {}, storage.wanted(pools or (pool(),)))


def blocks(recording: str, *pools: Pool, **changed: Output) -> dict[str, BlockFacts]:
    """Its block devices by path."""
    return {block.path: block for block in read(recording, *pools, **changed).blocks}


def test_nothing_is_run_where_no_pool_wants_it() -> None:
    assert storage.commands(storage.wanted([Pool("vms", "here", "/srv/images")])) == {}
    assert not assemble("here", recorded("debian12"), inventory()).blocks


def test_what_is_run() -> None:
    assert tuple(storage.commands(Wanted(disks=True))) == PROBES[:4]
    assert tuple(storage.commands(storage.wanted([pool()]))) == PROBES
    assert tuple(recorded("lvm-debian12")) == tuple(recorded("lvm-zcloud")) == PROBES


def test_paths_are_words_and_not_shell() -> None:
    odd = "/dev/disk/by-id/a b$(touch x)'\"`"
    argv = storage.commands(storage.wanted([pool("a", "vg", odd), pool("b", "vg", odd, "/dev/sda4")]))["signatures"]
    assert argv[3:] == ["sh", *sorted({odd, "/dev/sda4"})]
    assert "'\"'\"'" in script({"signatures": argv})


def test_the_groups_of_a_recorded_server() -> None:
    assert read("lvm-debian12").groups == (
        GroupFacts("vg-libvirt", 12478054400, 11232346112, 4 << 20, ("/dev/sda4",),
                   thin=(ThinFacts("thin", 1 << 30, 32 << 20, 4.88, 10.18, monitored=True, zero=True),)),
        GroupFacts("data", 3212836864, 3137339392, 4 << 20, ("/dev/nvme0n1", "[unknown]"), missing=1))


def test_its_volumes_without_those_that_lvm_keeps_for_itself() -> None:
    """A thin volume takes what is written of it; of one that is not active LVM does not know how much that is."""
    rows = {row.name: row for row in read("lvm-debian12").volumes}
    assert {name: (row.capacity, row.allocation, row.thin) for name, row in rows.items()} == {
        "lab.base.template-0a1b2c": (500 << 20, 50 << 20, "thin"), "lab.web.root": (500 << 20, 50 << 20, "thin"),
        "lab.old.root": (500 << 20, 0, "thin"), "lab.web.disk-a": (100 << 20, 100 << 20, None)}
    name = "lab.web.disk-a"
    assert rows[name] == VolumeFacts("images_lvm", name, f"/dev/vg-libvirt/{name}", "raw", 100 << 20, 100 << 20,
                                     open=True)
    assert [name for name, row in rows.items() if not row.active] == ["lab.old.root"]


def test_volumes_of_groups_that_nobody_wants_are_left_out() -> None:
    assert [row.name for row in read("lvm-debian12", pool("m", "data")).volumes] == ["mirror"]
    assert not read("lvm-debian12", pool("x", "another")).volumes


def test_two_pools_in_one_group_share_its_volumes() -> None:
    pools = pool("thick"), pool("snapshots", thin="thin")
    assert {row.name: row.pool for row in read("lvm-debian12", *pools).volumes} == {
        "lab.base.template-0a1b2c": "snapshots", "lab.web.root": "snapshots", "lab.old.root": "snapshots",
        "lab.web.disk-a": "thick"}
    only = pool("other", thin="another")
    assert {row.pool for row in read("lvm-debian12", only).volumes} == {"other"}


def test_the_disks_of_a_recorded_server() -> None:
    rows = blocks("lvm-debian12", pool())
    disk = BlockFacts("/dev/sda", 20 << 30, "disk", (), "SYS-1", "QEMU HARDDISK", "gpt")
    assert rows["/dev/sda"] == disk
    assert rows["/dev/sda2"] == BlockFacts("/dev/sda2", 8 << 30, "part", ("/dev/sda",), signatures=("ext4",),
                                           mounts=("/",))
    assert rows["/dev/sda3"].mounts == (SWAP,)
    assert (rows["/dev/sda4"].vg, rows["/dev/sda4"].signatures) == ("vg-libvirt", ("LVM2_member",))
    assert rows["/dev/nvme0n1"].names == (NVME,)
    assert (rows["/dev/nvme0n1"].serial, rows["/dev/nvme0n1"].vg) == ("PM9A1-1", "data")


def test_what_stands_on_several_devices_is_there_once() -> None:
    rows = read("lvm-debian12").blocks
    stem = "/dev/mapper/vg--libvirt-"
    below = (f"{stem}thin_tmeta", f"{stem}thin_tdata")
    assert [row.parents for row in rows if row.path == f"{stem}thin-tpool"] == [below]
    data = next(row for row in rows if row.path == f"{stem}lab.web.disk--a")
    assert (data.parents, data.kind, data.mounts) == (("/dev/sda4",), "lvm", ("/mnt/a b",))


def test_the_reference_server() -> None:
    host = read("lvm-zcloud")
    rows = {block.path: block for block in host.blocks}
    part = rows["/dev/sda4"]
    assert (part.size, part.vg, part.numa_node) == (541231104 * 512, "vg-libvirt", 0)
    assert [(row.serial, row.numa_node, row.signatures) for row in host.blocks if row.path.startswith("/dev/nvme")] == [
        ("S676NF0R908202", 0, ()), ("S676NF0R908203", 0, ()), ("S676NF0R908204", 0, ())]
    assert rows["/dev/mapper/vg--libvirt-z--dev"].parents == ("/dev/sda4",)
    assert rows["/dev/sda1"].mounts == ("/boot/efi",)
    group = host.groups[0]
    assert (group.name, group.size - group.free, group.thin) == ("vg-libvirt", 62 << 30, ())
    assert {row.name: row.allocation >> 30 for row in host.volumes} == {
        "z-b-data-1": 6, "z-b-data-2": 6, "z-b-data-3": 6, "z-dev": 32, "z-fedora35": 6, "z-ubuntu20": 6}


def looked(*types: str, device: str = "sda", code: int = 0, path: str = "/dev/sda") -> str:
    """What the script says of one disk."""
    found = [{"device": device, "offset": "0x0", "type": kind, "uuid": None, "label": None} for kind in types]
    text = json.dumps({"signatures": found}) if types else ""
    return f"\n@disk\t/dev/{device}\t{path}\n{text}\n\n@end\t{code}\n"


def block(row: dict[str, Any], **known: Any) -> BlockFacts:
    """One device, as lsblk tells it with some of it changed."""
    plain = {"name": "sda", "kname": "sda", "path": "/dev/sda", "type": "disk", "size": 1, "ro": False, "serial": None,
             "model": None, "fstype": None, "pttype": None, "maj:min": "8:0"}
    knows = Known(**{"disks": {}, "mounts": {}, "looked": Looked(), "members": {}, **known})
    return storage.parse_blocks(json.dumps({"blockdevices": [{**plain, **row}]}), knows)[0]


@pytest.mark.parametrize(("types", "table", "signatures"), [
    ((), None, ()), (("gpt", "gpt", "PMBR"), "gpt", ()), (("PMBR",), "PMBR", ()), (("dos",), "dos", ()),
    (("vfat", "vfat", "vfat"), None, ("vfat",)), (("ext4", "dos"), "dos", ("ext4",)),
    (("zfs_member", "gpt", "PMBR", "crypto_LUKS"), "gpt", ("zfs_member", "crypto_LUKS"))])
def test_tables_and_other_signatures_are_told_apart(types: tuple[str, ...], table: str | None,
                                                    signatures: tuple[str, ...]) -> None:
    """What was found counts, and not what udev remembers."""
    found = block({"fstype": "ext3", "pttype": "dos"}, looked=storage.parse_signatures(looked(*types)))
    assert (found.table, found.signatures) == (table, signatures)


def test_what_cannot_be_read_is_not_taken_for_blank() -> None:
    """wipefs fails on the disk, or on one of its partitions, or is not installed, or its words are cut off."""
    text = "\n@disk\t/dev/sda /dev/sda1\t/dev/sda\nwipefs: error\n\n@end\t1\n"
    assert storage.parse_signatures(text).found == {"sda": (UNREADABLE,), "sda1": (UNREADABLE,)}
    assert block({}, looked=storage.parse_signatures(looked(code=127))).signatures == (UNREADABLE,)
    assert storage.parse_signatures(looked("ext4").partition("@end")[0]).found == {"sda": (UNREADABLE,)}


def test_a_disk_with_two_names_has_both() -> None:
    both = storage.parse_signatures(looked(path="/dev/disk/by-id/a") + looked("swap", path="/dev/disk/by-id/b"))
    found = block({}, looked=both)
    assert (found.names, found.signatures) == (("/dev/disk/by-id/a", "/dev/disk/by-id/b"), ("swap",))
    assert block({}, looked=storage.parse_signatures(looked())).names == ()


def test_without_a_look_udev_is_believed() -> None:
    assert (block({"fstype": "xfs"}).signatures, block({"pttype": "gpt"}).table) == (("xfs",), "gpt")
    assert block({"type": "part", "pttype": "gpt"}).table is None  # it is that of the disk


@pytest.mark.parametrize(("row", "serial"), [({"serial": " X1 "}, "X1"), ({}, "S9"), ({"serial": ""}, "S9")])
def test_the_serial_of_sysfs_stands_in_for_udevs(row: dict[str, Any], serial: str) -> None:
    found = block(row, disks=storage.parse_disks("nvme0n1\t-1\tPM9A1-1\nsda\t1\tS9               \ntorn\t1"))
    assert (found.serial, found.numa_node) == (serial, 1)
    assert storage.parse_disks("nvme0n1\t-1\tPM9A1-1\n") == {"nvme0n1": (None, "PM9A1-1")}
    assert storage.parse_disks("loop0\t\t\n") == {"loop0": (None, None)}


def test_older_lsblk_has_words_for_numbers() -> None:
    found = block({"size": "1024", "ro": "1"})
    assert (found.size, found.readonly) == (1024, True)
    assert (block({"ro": "0"}).readonly, block({"size": None}).size) == (False, 0)


def test_uses_are_found_by_number_and_by_path() -> None:
    """btrfs mounts under a number of its own; swap has only a path, and that of device-mapper is its kernel name."""
    mounts = storage.parse_mounts(
        "30 1 0:44 /@ / rw - btrfs /dev/sda rw\n31 1 8:0 / /mnt/a\\040b rw shared:1 - ext4 /dev/root rw\n"
        "32 1 8:0 /sub /mnt/a\\040b rw - ext4 /dev/root rw\ntorn line", "Filename Type\n/dev/dm-0 partition 1 0 -2")
    assert block({}, mounts=mounts).mounts == ("/mnt/a b", "/")
    volume = {"kname": "dm-0", "path": "/dev/mapper/vg-swap", "type": "lvm", "maj:min": "253:0"}
    assert block(volume, mounts=mounts).mounts == (SWAP,)


BTRFS = r"""
30 1 0:44 / /srv\040a rw,relatime shared:7 - btrfs /dev/disk/by-id/wwn-0x5000c500a1b2 rw,ssd,subvolid=5,subvol=/
31 1 0:44 /home /home rw,relatime shared:8 - btrfs /dev/disk/by-id/wwn-0x5000c500a1b2 rw,ssd,subvolid=256,subvol=/home
@source	/dev/disk/by-id/wwn-0x5000c500a1b2	8:10
@btrfs	/sys/fs/btrfs/52ac7ddd-5a19-4c4f-94ab-d5e5cbbc2f97	8:16
@btrfs	/sys/fs/btrfs/52ac7ddd-5a19-4c4f-94ab-d5e5cbbc2f97	259:0
@btrfs	/sys/fs/btrfs/9f0b9f4c-0000-4c4f-94ab-d5e5cbbc2f97	8:32
"""


def test_a_btrfs_that_was_mounted_by_another_name() -> None:
    """A link in /dev/disk, as Debian 12's kernel tells it; the other device of it; one mounted in a container."""
    mounts = storage.parse_mounts(BTRFS, "")
    told = [block({"maj:min": number}, mounts=mounts).mounts for number in ("8:16", "259:0", "8:32", "8:48")]
    assert told == [("/srv a", "/home"), ("/srv a", "/home"), (ELSEWHERE,), ()]


def test_lvm_that_is_not_installed_has_nothing() -> None:
    host = read("lvm-debian12", lvm=Output("", 0))
    assert (host.groups, host.volumes) == ((), ())
    assert blocks("lvm-debian12", lvm=Output("", 0))["/dev/sda4"].signatures == ("LVM2_member",)


def test_lvm_without_any_group() -> None:
    text = '{"report": [{"pv": [{"pv_name":"/dev/sdb", "pv_missing":""}], "pvseg": [{"pv_uuid":"x"}]}]}'
    host = read("lvm-debian12", lvm=Output(text, 0))
    assert not host.groups and not any(row.vg for row in host.blocks)


@pytest.mark.parametrize(("probe", "output", "why", "command"), [
    ("lvm", Output("", 5), "lvm fullreport ended with code 5 and said nothing", "lvm fullreport"),
    ("lvm", Output('{"report": [', 0), "Expecting value: line 1 column 13 (char 12)", "lvm fullreport"),
    ("lvm", Output('{"report": [{"vg": [{"vg_name": "a"}]}]}', 0), "'vg_size'", "lvm fullreport"),
    ("blocks", Output("", 127), "Expecting value: line 1 column 1 (char 0)",
     "lsblk --json --bytes --output NAME,KNAME,PATH,TYPE,SIZE,RO,SERIAL,MODEL,FSTYPE,PTTYPE,MAJ:MIN"),
    ("signatures", Output(looked().replace("\n\n@end", "{\n@end"), 0),
     "Expecting property name enclosed in double quotes: line 2 column 1 (char 2)", "vmwright doctor"),
])
def test_what_is_not_understood_is_told_with_the_command(probe: str, output: Output, why: str, command: str) -> None:
    with pytest.raises(HostError) as caught:
        read("lvm-debian12", **{probe: output})
    assert str(caught.value) == (f"host here: the probe {probe} was not understood\n  why: {why}\n"
                                 f"  do:  see what it prints there: {command}")


@pytest.mark.parametrize("probe", PROBES)
def test_each_missing_probe_is_named(probe: str) -> None:
    outputs = {**recorded("debian12"), **recorded("lvm-zcloud")}
    del outputs[probe]
    with pytest.raises(HostError, match=f"host here did not answer the probe {probe}"):
        assemble("here", outputs, inventory(), {}, storage.wanted([pool()]))
    demand(outputs, "here")  # nobody asked for it


def test_a_volume_group_of_libvirts_has_lvms_figures_and_volumes() -> None:
    """libvirt's own are those of when it last looked."""
    xml = ("<pool type='logical'><name>images_lvm</name><capacity unit='bytes'>1</capacity><target>"
           "<path>/dev/vg-libvirt</path></target></pool>")
    volume = "<volume><name>z-dev</name><target><path>/dev/vg-libvirt/z-dev</path></target></volume>"
    outputs = {**recorded("debian12"), **recorded("lvm-zcloud")}
    there = inventory(pools=(RawPool(xml, True, True, (volume,)),))
    host = assemble("here", outputs, there, {}, storage.wanted([pool()]))
    assert host.pools == (PoolFacts("images_lvm", "logical", "/dev/vg-libvirt", True, True, host.groups[0].size,
                                    host.groups[0].free),)
    assert [row.pool for row in host.volumes if row.name == "z-dev"] == ["images_lvm"]
    assert not assemble("here", recorded("debian12"), there).volumes


def test_a_volume_group_has_no_directory_to_look_into() -> None:
    assert untold([pool(), replace(pool("b"), lvm=None, path="/b")], ()) == {"/b": "b"}
