"""Pools and templates: made, started, kept, refused; old versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.plan.build import WEB, changes, cloud, facts, made, only, plan, refused, told, vm
from tests.unit.plan.simulate import Image, Machine, all_facts, carry_out

from vmwright.facts.model import PathFacts, PoolFacts, VolumeFacts
from vmwright.names import HOST_STATE, template_volume
from vmwright.plan.actions import CreatePool, MakeTemplate, RemoveTemplate
from vmwright.plan.diff import make_plan, make_rebuild_plan
from vmwright.plan.host_actions import InstallPackages
from vmwright.units import GIB, MIB

EMPTY = "vms: {}\n"
IMAGES = PoolFacts("images", "dir", "/srv/images", True, True, 100 * GIB, 50 * GIB)
KEPT_OBJECTS = ("pool images", "network lan", "template base", "vm web")


def test_a_pool_that_is_not_there_is_made() -> None:
    wanted = cloud(EMPTY)
    action = plan(wanted, Machine()).actions[0]
    assert isinstance(action, CreatePool)
    assert (action.sign, action.object, action.verb, action.exists) == ("+", "pool images", "create", False)
    assert action.why == "libvirt has no pool of that name"
    assert changes(action) == ["directory: /srv/images"]


def test_a_directory_that_is_there_is_told() -> None:
    wanted, machine = cloud(EMPTY), Machine()
    there = facts(wanted, machine, paths=(PathFacts("/srv/images", True, 50 * GIB),))
    assert changes(make_plan(wanted, there).actions[0]) == ["directory: /srv/images, which is there"]


@pytest.mark.parametrize(("active", "autostart", "why", "rows"), [
    (False, True, "it is there, but not running", ["running: no -> yes"]),
    (True, False, "it is there, but not started at boot", ["started at boot: no -> yes"]),
    (False, False, "it is there, but not running or started at boot",
     ["running: no -> yes", "started at boot: no -> yes"]),
])
def test_a_pool_that_is_there_is_started(active: bool, autostart: bool, why: str, rows: list[str]) -> None:
    wanted, machine = cloud(), made(cloud())
    machine.pools["images"].active, machine.pools["images"].autostart = active, autostart
    action = only(plan(wanted, machine))
    assert isinstance(action, CreatePool) and action.exists
    assert (action.verb, action.why, changes(action)) == ("start", why, rows)


def test_a_pool_that_is_as_it_should_be_is_left_alone_and_says_why() -> None:
    kept = plan(cloud(), made(cloud())).kept
    assert [one.object for one in kept] == list(KEPT_OBJECTS)
    assert kept[0].why == "is there, 500G free"


@pytest.mark.parametrize(("pool", "said"), [
    (replace(IMAGES, type="logical", target="/dev/vg"),
     "pool images is there already, but as a logical pool at /dev/vg, not a directory at /srv/images\n"
     "    choose another name"),
    (replace(IMAGES, target="/data"),
     "pool images is there already, but as a dir pool at /data, not a directory at /srv/images\n"
     "    say `dir: /data` or choose another name"),
    (replace(IMAGES, type="rbd", target=""),
     "pool images is there already, but as a rbd pool at no path, not a directory at /srv/images\n"
     "    choose another name"),
    (replace(IMAGES, name="default"),
     "pool images: libvirt's pool default already uses /srv/images\n"
     "    name it default in the file, or choose another directory"),
])
def test_a_pool_of_another_kind_is_refused(pool: PoolFacts, said: str) -> None:
    wanted = cloud(EMPTY)
    assert refused(make_plan(wanted, facts(wanted, Machine(), pools=(pool,)))) == [said]


def test_a_pool_that_qemu_cannot_reach_is_refused() -> None:
    wanted = cloud(EMPTY)
    blocked = facts(wanted, Machine(), paths=(PathFacts("/srv/images", False, 50 * GIB, "/srv"),))
    assert refused(make_plan(wanted, blocked))[0] == (
        "pool images: the user that QEMU runs as cannot reach /srv/images: /srv is closed to it\n"
        "    open the way: chmod o+x /srv; or choose a directory under /var/lib")


def test_what_is_in_a_stopped_pool_is_known_all_the_same() -> None:
    """Else its templates would be made again, under the disks that stand on them."""
    machine = made(cloud())
    machine.pools["images"].active = False
    assert told(plan(cloud(), machine)) == ["+ pool images: start"]
    del machine.pools["images"]
    assert told(plan(cloud(), machine)) == ["+ pool images: create"]


def test_a_template_is_made_before_what_stands_on_it() -> None:
    found = plan(cloud(), Machine())
    assert told(found) == ["+ pool images: create", "+ network lan: create", "+ template base: make",
                           "+ vm web: create"]
    pool, _, template, web = found.actions
    assert isinstance(template, MakeTemplate)
    assert template.why == "it has not been made yet"
    assert changes(template) == [f"version: {template.template.version}", "from: debian bookworm packages, ext4 root"]
    assert template.needs == (pool.id,)
    assert set(web.needs) == {action.id for action in found.actions[:3]}


def test_a_template_asked_for_otherwise_is_a_new_version() -> None:
    machine = made(cloud())
    wanted = cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n" + WEB)
    found = plan(wanted, machine)
    action = only(found)
    old, new = cloud().templates[0].version, wanted.templates[0].version
    assert action.why == "the file asks for something else than the version that is there"
    assert changes(action)[0] == f"version: {old} -> {new}"
    assert found.warnings == (f"vm web: from base@{old}, while the file's template is now base@{new}; "
                              "`vmwright rebuild` takes it",)


@pytest.mark.parametrize(("template", "program", "package"), [
    ("{build: debian}", "mmdebstrap", "mmdebstrap"), ("{build: debian}", "sgdisk", "gdisk"),
    ("{build: debian}", "mke2fs", "e2fsprogs"), ("{build: debian, filesystem: xfs}", "mkfs.xfs", "xfsprogs"),
    ("{build: debian}", "mkfs.vfat", "dosfstools"), ("{build: debian}", "mcopy", "mtools"),
    ("{image: 'https://example.org/a.qcow2', sha256: " + "0" * 64 + "}", "curl", "curl"),
    ("{image: 'https://example.org/a.raw.xz', sha256: " + "0" * 64 + "}", "xz", "xz-utils"),
    ("{image: 'https://example.org/a.raw.zst', sha256: " + "0" * 64 + "}", "zstd", "zstd"),
])
def test_a_missing_program_is_installed_with_its_package(template: str, program: str, package: str) -> None:
    wanted, machine = cloud(f"templates: {{base: {template}}}\n" + WEB), Machine()
    machine.tools = tuple(tool for tool in machine.tools if tool != program)
    found = plan(wanted, machine)
    (install,) = found.first
    assert isinstance(install, InstallPackages)
    assert (install.tool, install.packages, install.services) == ("apt-get", (package,), ())
    assert install.why == f"not installed: {program}"


DOWNLOAD = "image: 'https://example.org/a.qcow2', sha256: " + "0" * 64
FILE = "image: /srv/a.qcow2, sha256: " + "0" * 64


def no_room(template: str, work: int, pool: int) -> list[str]:
    """What is refused when so many bytes are free: in vmwright's own directory, and where the pool is to be."""
    wanted, machine = cloud(f"templates: {{base: {{{template}}}}}\n" + WEB), Machine()
    paths = (PathFacts("/srv/images", True, pool), PathFacts(HOST_STATE, True, work))
    found = refused(make_plan(wanted, facts(wanted, machine, paths=paths)))
    return [text for text in found if text.startswith("template ")]


def test_room_to_make_a_template_is_asked_for_with_figures() -> None:
    assert no_room("build: debian", GIB, 100 * GIB) == [
        f"template base: making it needs about 2G, and {HOST_STATE} of host here has 1G free\n"
        "    make room there, or use a larger file system"]
    assert no_room("build: debian", 9 * GIB, GIB // 2) == [
        "template base: making it needs about 1G, and pool images of host here has 512M free\n"
        "    make room there, or use a larger file system"]


@pytest.mark.parametrize(("template", "work", "pool"), [
    ("build: debian", 2 * GIB, GIB), ("build: debian, filesystem: xfs", 2 * GIB, GIB),
    (DOWNLOAD, 3 * GIB // 2, GIB), ("os: debian12", 3 * GIB // 2, GIB), (FILE, 256 * MIB, 256 * MIB),
    (f"{FILE}, disk: 64M", 64 * MIB, 64 * MIB), (f"{DOWNLOAD}, disk: 64M", 96 * MIB, 64 * MIB),
])
def test_no_more_room_is_asked_for_than_the_source_takes(template: str, work: int, pool: int) -> None:
    assert no_room(template, work, pool) == []
    assert len(no_room(template, work - 1, pool)) == 1
    assert len(no_room(template, work, pool - 1)) == 1


def test_a_lost_template_is_not_built_anew_under_its_disks() -> None:
    """Two builds are never the same to the byte: overlays on another base are garbage."""
    machine, wanted = made(cloud()), cloud()
    name = template_volume("lab", "base", wanted.templates[0].version)
    del machine.files[f"/srv/images/{name}"]
    assert refused(plan(wanted, machine)) == [
        f"template base@{wanted.templates[0].version} is lost, but disks stand on it: web\n"
        f"    put /srv/images/{name} back from a backup, or give these VMs up: vmwright rebuild web"]
    rebuild = make_rebuild_plan(wanted, all_facts(wanted, machine), ["web"])
    assert not rebuild.refused
    assert told(rebuild) == ["+ template base: make", "! vm web: rebuild"]


def test_an_image_with_a_sum_is_fetched_again_under_its_disks() -> None:
    """Its content is the same to the byte."""
    head = f"templates: {{base: {{image: 'https://example.org/a.qcow2', sha256: {'0' * 64}}}}}\n"
    wanted = cloud(head + WEB)
    machine = made(wanted)
    del machine.files[f"/srv/images/{template_volume('lab', 'base', wanted.templates[0].version)}"]
    assert told(plan(wanted, machine)) == ["+ template base: make"]


def two_versions() -> tuple[Machine, str, str]:
    """A machine with a VM on the first version of a template, and the second version beside it."""
    machine, later = made(cloud()), cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n" + WEB)
    carry_out(plan(later, machine), later, machine)
    return machine, cloud().templates[0].version, later.templates[0].version


def test_an_old_version_is_kept_while_a_disk_stands_on_it() -> None:
    machine, old, _ = two_versions()
    wanted = cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n" + WEB)
    for prune in (False, True):
        found = plan(wanted, machine, prune=prune)
        assert not found.actions
        kept = {one.object: one.why for one in found.kept}
        assert kept[f"template base@{old}"] == "an older version that a disk stands on"


def test_an_old_version_nobody_uses_is_told_and_pruned() -> None:
    machine, old, new = two_versions()
    wanted = cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n" + WEB)
    rebuild = make_rebuild_plan(wanted, all_facts(wanted, machine), ["web"])
    carry_out(rebuild, wanted, machine)
    found = plan(wanted, machine)
    assert not found.actions
    assert [(one.object, one.why) for one in found.unlisted] == [
        (f"template base@{old}", "no VM uses it (64M); `vmwright apply --prune` removes it")]
    action = only(plan(wanted, machine, prune=True))
    assert isinstance(action, RemoveTemplate)
    assert (action.sign, action.object, action.verb, action.why) == (
        "-", f"template base@{old}", "remove", "no VM uses this version")
    assert changes(action) == [f"lab.base.template-{old}.qcow2: 64M -> removed"]
    carry_out(plan(wanted, machine, prune=True), wanted, machine)
    assert [path for path in machine.images() if ".template-" in path] == [
        f"/srv/images/lab.base.template-{new}.qcow2"]


def test_pruning_a_vm_and_its_old_version_takes_one_run() -> None:
    machine, old, _ = two_versions()
    wanted = cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\nvms: {new: {template: base, "
                   "address: 10.0.0.20}}\n")
    found = plan(wanted, machine, prune=True)
    assert told(found) == ["+ vm new: create", "- vm web: destroy", f"- template base@{old}: remove"]
    assert found.actions[2].needs == (found.actions[1].id,)


def test_what_an_unseen_disk_stands_on_is_not_pruned() -> None:
    """A VM whose root disk is in no pool we see may stand on any version: on the one its mark names."""
    machine, old, _ = two_versions()
    wanted = cloud("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n" + WEB)
    host = machine.facts(wanted)
    volumes = tuple(volume for volume in host.volumes if "root" not in volume.name)
    found = make_plan(wanted, facts(wanted, machine, volumes=volumes), None)
    assert {one.object: one.why for one in found.kept}[f"template base@{old}"] == (
        "an older version that a disk stands on")


def test_volumes_that_only_look_like_ours_are_left_alone() -> None:
    machine = made(cloud())
    for name in ("other.base.template-1.qcow2", "lab.base.template-.qcow2", "lab.x.y.template-1.qcow2", "lab.qcow2"):
        machine.files[f"/srv/images/{name}"] = Image(GIB)
    found = plan(cloud(), machine, prune=True)
    assert not found.actions and not found.unlisted


def test_one_template_in_two_pools_is_made_twice_one_after_the_other() -> None:
    """In the same directory; and each action has an id of its own."""
    wanted = cloud("""
        hosts: {here: {pools: {images: {dir: /srv/images}, big: {dir: /srv/big}}}}
        vms:
          a: {template: base, pool: images, address: 10.0.0.10}
          b: {template: base, pool: big, address: 10.0.0.11}
        """)
    found = plan(wanted, Machine())
    first, second = (action for action in found.actions if isinstance(action, MakeTemplate))
    assert first.id != second.id
    assert first.id in second.needs
    assert not plan(wanted, made(wanted)).actions


def test_overlays_larger_than_the_image_or_not_at_all() -> None:
    """An image may turn out larger than its template's disk was said to be."""
    wanted, machine = cloud(vm(disk="4G")), made(cloud("vms: {}"))
    name = template_volume("lab", "base", wanted.templates[0].version)
    found = machine.facts(wanted)
    carry_out(plan(cloud("vms: {other: {template: base, address: 10.0.0.9}}"), machine),
              cloud("vms: {other: {template: base, address: 10.0.0.9}}"), machine)
    found = machine.facts(wanted)
    volumes = tuple(replace(v, capacity=5 * GIB) if v.name == name else v for v in found.volumes)
    said = refused(make_plan(wanted, facts(wanted, machine, volumes=volumes)))
    assert said == ["vm web: its disk of 4G is smaller than its template's, 5G\n    say `disk: 5G` or more"]


def test_volumes_of_other_pools_do_not_count() -> None:
    wanted, machine = cloud(), made(cloud())
    strange = VolumeFacts("elsewhere", "lab.web.root.qcow2", "/else/lab.web.root.qcow2", "qcow2", GIB, GIB)
    found = make_plan(wanted, facts(wanted, machine, volumes=(*machine.facts(wanted).volumes, strange)))
    assert not found.actions and not found.refused
