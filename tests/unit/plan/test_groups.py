"""Volume groups as pools: which disks are taken, what is refused, and how much of a thin pool is promised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import changes, cloud, facts, refused, vm
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import BlockFacts, GroupFacts, PoolFacts, ThinFacts, VolumeFacts
from vmwright.plan.action import Effect
from vmwright.plan.actions import CreateGroup, CreateVm, GrowDisk, Plan
from vmwright.plan.diff import make_plan
from vmwright.plan.host_actions import InstallPackages
from vmwright.units import GIB, MIB

DISK = BlockFacts("/dev/sda4", 100 * GIB, "part", ("/dev/sda",))
NVME = BlockFacts("/dev/nvme0n1", 10 * GIB, "disk", serial="S1", names=("/dev/disk/by-id/nvme-S1",))
GROUP = GroupFacts("vg0", 100 * GIB, 80 * GIB, 4 * MIB, ("/dev/sda4",))
POOL = PoolFacts("images", "logical", "/dev/vg0", True, True, 100 * GIB, 80 * GIB)
THIN = ThinFacts("thin", 40 * GIB, 64 * MIB, 25.0, 5.0, monitored=True)
PLAIN = "{lvm: vg0, disks: [/dev/sda4]}"


def pools(text: str, more: str = "vms: {}\n") -> str:
    return f"hosts: {{here: {{pools: {{images: {text}}}}}}}\n{more}"


def on(text: str, more: str = "vms: {}\n", **changed: Any) -> Plan:
    """The plan on a fresh machine with those block devices, groups and the like."""
    wanted = cloud(pools(text, more))
    return make_plan(wanted, facts(wanted, Machine(), **changed))


def group(found: Plan) -> CreateGroup:
    action = next(action for action in found.actions if isinstance(action, CreateGroup))
    assert not found.refused
    return action


def test_a_group_is_made_of_a_blank_disk() -> None:
    action = group(on(PLAIN, blocks=(DISK,)))
    assert (action.verb, action.make, action.exists, action.effects) == ("create", True, False, frozenset())
    assert changes(action) == ["volume group: vg0", "disk /dev/sda4: 100G",
                               "libvirt pool: defined, started, started at boot"]


def test_a_group_that_is_there_is_taken_as_it_is() -> None:
    member = replace(DISK, vg="vg0", signatures=("LVM2_member",))
    action = group(on(PLAIN, blocks=(member,), groups=(GROUP,)))
    assert (action.verb, action.disks, changes(action)) == (
        "change", (), ["libvirt pool: defined, started, started at boot"])
    found = on(PLAIN, blocks=(member,), groups=(GROUP,), pools=(POOL,))
    assert [action.object for action in found.actions] == ["network lan"]
    assert [kept.why for kept in found.kept if kept.object == "pool images"] == ["is there, 80G of 100G free"]
    off = on(PLAIN, blocks=(member,), groups=(GROUP,), pools=(replace(POOL, autostart=False),))
    assert changes(group(off)) == ["started at boot: no -> yes"]


def test_a_further_disk_is_added_by_whatever_path_it_is_named() -> None:
    member = replace(DISK, vg="vg0", signatures=("LVM2_member",))
    action = group(on("{lvm: vg0, disks: [/dev/sda4, /dev/disk/by-id/nvme-S1]}", blocks=(member, NVME),
                      groups=(GROUP,), pools=(POOL,)))
    assert [disk.path for disk in action.disks] == ["/dev/nvme0n1"]
    assert not action.make


@pytest.mark.parametrize(("changed", "above", "what"), [
    ({"mounts": ("/srv",)}, (), "is in use: it is mounted at /srv"),
    ({"mounts": ("[SWAP]",)}, (), "is in use: it is swap space in use"),
    ({"vg": "theirs", "signatures": ("LVM2_member",)}, (),
     "is in use: it is a physical volume of volume group theirs"),
    ({"readonly": True}, (), "is in use: it is read-only"),
    ({}, (BlockFacts("/dev/md0", GIB, "raid1", ("/dev/nvme0n1",)),), "is in use: /dev/md0 (raid1) stands on it"),
    ({"table": "gpt"}, (BlockFacts("/dev/nvme0n1p1", GIB, "part", ("/dev/nvme0n1",), mounts=("/boot",)),),
     "is in use: /dev/nvme0n1p1 is mounted at /boot"),
])
def test_a_disk_in_use_is_refused_whatever_the_file_says(
        changed: dict[str, Any], above: tuple[BlockFacts, ...], what: str) -> None:
    found = on("{lvm: vg0, disks: [/dev/nvme0n1], wipe: S1}", blocks=(replace(NVME, **changed), *above))
    assert refused(found) == [
        f"pool images: /dev/nvme0n1 {what}\n    name another disk, or end that use first"]


def test_a_disk_that_is_not_blank_is_only_wiped_when_it_is_named() -> None:
    parts = BlockFacts("/dev/nvme0n1p1", GIB, "part", ("/dev/nvme0n1",), signatures=("ext4",))
    blocks = (replace(NVME, table="gpt", signatures=("zfs_member",)), parts)
    what = "a gpt partition table with 1 partition; zfs_member; ext4 on /dev/nvme0n1p1"
    for wipe in ("", ", wipe: S2", ", wipe: 11G", ", wipe: /dev/nvme0n1"):
        assert refused(on(f"{{lvm: vg0, disks: [/dev/nvme0n1]{wipe}}}", blocks=blocks)) == [
            f"pool images: /dev/nvme0n1 is not blank: {what}\n"
            "    name another disk; or, if all of it may be lost: wipe: [S1]"]
    for wipe in ("S1", "10G", "[other, S1]"):
        action = group(on(f"{{lvm: vg0, disks: [/dev/nvme0n1], wipe: {wipe}}}", blocks=blocks))
        assert [(disk.wipe, disk.found) for disk in action.disks] == [(True, what)]
        assert action.effects == {Effect.TAKES_DATA}
        assert f"disk /dev/nvme0n1: {what} -> wiped and taken" in changes(action)


def test_a_partition_has_no_serial_of_its_own() -> None:
    """That of its disk would name the partitions beside it, too."""
    blocks = (BlockFacts("/dev/sda", 500 * GIB, "disk", serial="S9"), replace(DISK, signatures=("xfs",)))
    assert refused(on("{lvm: vg0, disks: [/dev/sda4], wipe: S9}", blocks=blocks)) == [
        "pool images: /dev/sda4 is not blank: xfs\n    name another disk; or, if all of it may be lost: wipe: [100G]"]


def test_what_is_not_there_is_told() -> None:
    assert refused(on(PLAIN, blocks=(NVME,))) == [
        "pool images: host here has no disk /dev/sda4\n    disks and partitions there: /dev/nvme0n1"]
    assert refused(on("{lvm: vg0}"))[0].startswith("pool images: host here has no volume group vg0, and no disks are")
    broken = replace(GROUP, missing=1, disks=("/dev/sda4", "[unknown]"))
    assert refused(on("{lvm: vg0}", groups=(broken,), pools=(POOL,)))[0].startswith(
        "pool images: 1 of the 2 disks of volume group vg0 are missing")
    tools = tuple(tool for tool in Machine().tools if tool != "lvm")
    wanted = cloud(pools(PLAIN))
    (install,) = make_plan(wanted, facts(wanted, Machine(tools=tools), blocks=(DISK,))).first
    assert isinstance(install, InstallPackages)
    assert install.packages == ("lvm2",)


def test_a_pool_of_libvirts_that_is_something_else() -> None:
    other = replace(POOL, type="dir", target="/srv/images")
    assert refused(on(PLAIN, blocks=(DISK,), pools=(other,)))[0].startswith(
        "pool images is there already, but as a dir pool at /srv/images, not the volume group at /dev/vg0")
    named = replace(POOL, name="old")
    assert refused(on("{lvm: vg0}", groups=(GROUP,), pools=(named,)))[0].startswith(
        "pool images: libvirt's pool old already uses /dev/vg0")


def test_a_thin_pool_is_made_with_sizes_that_the_plan_tells() -> None:
    action = group(on("{lvm: vg0, disks: [/dev/sda4], thin: true}", blocks=(DISK,)))
    assert action.thin is not None and action.thin.size and action.thin.metadata
    assert action.thin.size % (4 * MIB) == action.thin.metadata % (4 * MIB) == 0
    assert action.thin.size + 2 * action.thin.metadata <= 95 * GIB
    given = group(on("{lvm: vg0, disks: [/dev/sda4], thin: {name: t, size: 50G, metadata: 1G}}", blocks=(DISK,)))
    assert "thin pool: t, 50G, metadata 1G" in changes(given)
    assert refused(on("{lvm: vg0, disks: [/dev/sda4], thin: {size: 99G, metadata: 1G}}", blocks=(DISK,)))[0].startswith(
        "pool images: a thin pool of 99G with twice 1G of metadata does not fit into volume group vg0")


def thin(text: str, more: str = "vms: {}\n", volumes: tuple[VolumeFacts, ...] = (), **changed: Any) -> Plan:
    """The plan where the thin pool is there."""
    return on(f"{{lvm: vg0, thin: {text}}}", more, groups=(replace(GROUP, thin=(replace(THIN, **changed),)),),
              pools=(POOL,), volumes=volumes)


def test_a_thin_pool_that_fills_is_warned_of() -> None:
    assert not thin("true").warnings
    full = thin("true", data_percent=91.2, metadata_percent=85.0, monitored=False).warnings
    assert [text.partition(": ")[2].partition(";")[0] for text in full] == [
        "thin pool thin has used 91% of its data", "thin pool thin has used 85% of its metadata",
        "nothing watches how full thin pool thin is: lvchange --monitor y (it takes dmeventd)"]
    assert refused(thin("true", zero=False))[0].startswith(
        "pool images: thin pool thin does not zero new blocks: guests could read what others have written there")


@pytest.mark.parametrize(("version", "old"), [("4.2.1", True), ("5.0.0", False), ("10.1.0", False)])
def test_an_old_qemu_that_copies_no_holes_is_told_of(version: str, old: bool) -> None:
    """And then a template takes all of its size at once."""
    wanted = cloud(pools("{lvm: vg0, thin: true}", vm(running="false", disk="4G")))
    there = replace(GROUP, thin=(replace(THIN, data_percent=95.0),))
    found = make_plan(wanted, facts(wanted, Machine(), groups=(there,), pools=(POOL,), emulator=version))
    words = ("pool images of host here: QEMU 4.2.1 writes out the zeros of what it copies into a thin pool: templates, "
             "and disks with `copy: full`, take all of their size there; QEMU 5.0 and newer leave them out")
    assert (words in found.warnings) is old
    thick = on("{lvm: vg0}", groups=(GROUP,), emulator="4.2")
    assert not any("writes out the zeros" in text for text in thick.warnings)
    assert any("what is to be made takes 4G" in text for text in refused(found)) is old


def test_what_is_promised_is_warned_of_and_refused_over_the_files_limit() -> None:
    large = VolumeFacts("images", "lab.old.root", "/dev/vg0/lab.old.root", "raw", 38 * GIB, GIB, thin="thin")
    more = vm(disk="20G", running="false")
    assert "1.55 times what it has: watch it as they fill" in " ".join(thin("true", more, (large,)).warnings)
    assert not refused(thin("{overcommit: 2}", more, (large,)))
    assert refused(thin("{overcommit: 1.2}", more, (large,))) == [
        "pool images of host here: its disks may come to take 62G of a thin pool of 40G, 1.55 times what it has; the "
        "file allows 1.2\n    ask for less, make the thin pool larger, or raise `overcommit:`"]


def test_a_thick_disk_takes_all_of_its_size() -> None:
    found = on("{lvm: vg0}", vm(disk="81G", running="false"), groups=(GROUP,), pools=(POOL,))
    assert refused(found)[0].startswith("pool images of host here: what is to be made takes 8")
    assert refused(found)[0].endswith("add a disk to its volume group")


def test_extents_are_no_reason_to_change_anything() -> None:
    """A disk of 130M has 132M in a group, and stays as it is."""
    wanted = cloud(pools("{lvm: vg0}", vm(disk="4098M", running="false")))
    plan = make_plan(wanted, facts(wanted, Machine(), groups=(GROUP,), pools=(POOL,)))
    made = next(action for action in plan.actions if isinstance(action, CreateVm))
    assert made.vm.disk == 4098 * MIB
    template = wanted.templates[0]
    volumes = tuple(VolumeFacts("images", name, f"/dev/vg0/{name}", "raw", size, size) for name, size in (
        ("lab.web.root", 4100 * MIB), (f"lab.base.template-{template.version}", 4 * GIB)))
    again = make_plan(wanted, facts(wanted, Machine(), groups=(GROUP,), pools=(POOL,), volumes=volumes))
    assert not [action for action in again.actions if isinstance(action, GrowDisk)]


def test_an_image_cannot_lie_over_a_logical_volume() -> None:
    text = ("hosts: {here: {pools: {images: {dir: /srv/images}, vols: {lvm: vg0}}}}\n"
            "templates: {base: {build: debian, disk: 4G, pool: vols}}\n" + vm(pool="images", running="false"))
    wanted = cloud(text)
    found = make_plan(wanted, facts(wanted, Machine(), groups=(GROUP,), pools=(replace(POOL, name="vols"),)))
    assert refused(found)[0].startswith(
        "vm web: its disk is to be in the directory pool images, and its template is kept in the volume group of pool")


def test_names_that_lvm_does_not_take() -> None:
    long, disk = "a-" * 29 + "a", "d-" * 9 + "d"  # device-mapper doubles each hyphen
    found = on("{lvm: vg0}", f"vms: {{{long}: {{template: base, running: false, disks: {{{disk}: 1G}}}}}}\n",
               groups=(GROUP,), pools=(POOL,))
    assert f"lab.{long}.disk-{disk}: that is longer than LVM allows" in " ".join(refused(found))
