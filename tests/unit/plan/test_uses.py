"""Volumes that somebody else uses are left alone, before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import changes, cloud, facts, made, refused, told, vm
from tests.unit.plan.simulate import Machine
from tests.unit.plan.test_groups import GROUP, POOL, pools

from vmwright.facts.model import BlockFacts, DiskFacts, DomainFacts, DomainState, Facts, IntentFacts, VolumeFacts
from vmwright.names import mapped_path, partial_volume
from vmwright.plan.actions import GrowDisk, Plan, Tidy
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.plan.power import make_start_plan
from vmwright.plan.view import Request
from vmwright.spec.cloud import Cloud
from vmwright.units import GIB, MIB

DISKS = "{data: 1G}"
ROOT, DATA = "/dev/vg0/lab.web.root", "/dev/vg0/lab.web.disk-data"


def lvm(more: str = "", **given: Any) -> Cloud:
    """The cloud with its pool in a volume group."""
    return cloud(pools(f"{{lvm: vg0{more}}}", vm(**{"disks": DISKS, "running": "false", **given})))


def moved(path: str) -> str:
    """Where a volume of the directory is in the group."""
    return path.replace("/srv/images/", "/dev/vg0/").removesuffix(".qcow2").removesuffix(".iso")


def in_group(found: Facts, **changed: Any) -> Facts:
    """The same facts, with all volumes in the group; `changed`: of the host."""
    host = found.hosts[0]

    def domain(one: DomainFacts) -> DomainFacts:
        configs = {key: replace(config, disks=tuple(replace(d, path=moved(d.path or "")) for d in config.disks))
                   for key in ("persistent", "live") if (config := getattr(one, key))}
        return replace(one, **configs)

    volumes = tuple(replace(v, name=moved(f"/srv/images/{v.name}")[9:], path=moved(v.path), format="raw", backing=None)
                    for v in host.volumes)
    plain = {"volumes": volumes, "domains": tuple(map(domain, host.domains)), "pools": (POOL,), "groups": (GROUP,)}
    return replace(found, hosts=(replace(host, **{**plain, **changed}),))


def there(running: bool = False, **changed: Any) -> Facts:
    """What is there when web has been made in the group, off or running."""
    wanted = cloud(vm(disks=DISKS, running=str(running).lower()))
    return in_group(facts(wanted, made(wanted)), **changed)


def volume(found: Facts, path: str, **changed: Any) -> Facts:
    """The same facts with something else about one volume."""
    host = found.hosts[0]
    volumes = tuple(replace(v, **changed) if v.path == path else v for v in host.volumes)
    return replace(found, hosts=(replace(host, volumes=volumes),))


def another(path: str, *, live: bool = False) -> DomainFacts:
    """Somebody's VM that has a path as a disk."""
    one = there(running=True).hosts[0].domains[0]
    config = replace(one.persistent, disks=(DiskFacts("vda", path, None),), owner=None)
    return replace(one, name="theirs", persistent=config, live=config if live else None,
                   state=DomainState.RUNNING if live else DomainState.SHUTOFF)


def plans(found: Facts, *which: str) -> list[Plan]:
    """The plans that remove web, make it anew, start it, and have it run, or those of them that are asked for."""
    wanted, on = lvm(), lvm(running="true")
    every = {"destroy": lambda: make_destroy_plan(wanted, found, ["web"]),
             "rebuild": lambda: make_rebuild_plan(wanted, found, ["web"]),
             "start": lambda: make_start_plan(on, found, ["web"]), "apply": lambda: make_plan(on, found)}
    return [every[name]() for name in which or every]


def test_what_nobody_else_has_is_free() -> None:
    assert [refused(plan) for plan in plans(there())] == [[], [], [], []]
    assert [refused(plan) for plan in plans(volume(there(running=True), ROOT, open=True))] == [[], [], [], []]


@pytest.mark.parametrize(("block", "what"), [
    ({"mounts": ("/mnt/x", "/mnt/y")}, "it is mounted at /mnt/x; it is mounted at /mnt/y"),
    ({"mounts": ("[SWAP]",)}, "it is swap space"),
    ({}, "/dev/mapper/vg0-part1 stands on it")])
def test_a_volume_that_the_host_uses(block: dict[str, Any], what: str) -> None:
    path = mapped_path(DATA)
    blocks = (BlockFacts(path, GIB, "lvm", ("/dev/sda4",), **block),
              *([] if block else [BlockFacts("/dev/mapper/vg0-part1", GIB, "part", (path,))]))
    found = volume(there(blocks=blocks), DATA, open=True)
    for plan in plans(found):
        assert [row.partition(": ")[2] for row in refused(plan)] == [
            f"{DATA} of host here is in use: {what}\n    end that use first"]


def test_a_volume_that_some_process_has_open() -> None:
    for plan in plans(volume(there(), ROOT, open=True)):
        assert refused(plan) == [
            f"vm web: {ROOT} of host here is in use: a process there has it open\n    end that use first"]


@pytest.mark.parametrize("path", [DATA, mapped_path(DATA)])
def test_a_volume_that_another_vm_has(path: str) -> None:
    """What that VM would lose is not removed, even if it is off; to start ours, it has only not to run."""
    off = there()
    found = replace(off, hosts=(replace(off.hosts[0], domains=(*off.hosts[0].domains, another(path))),))
    said = f"vm web: {DATA} of host here is in use: VM theirs has it as a disk\n    end that use first"
    assert [refused(plan) for plan in plans(found)] == [[said], [said], [], []]
    found = replace(off, hosts=(replace(off.hosts[0], domains=(*off.hosts[0].domains, another(path, live=True))),))
    assert [refused(plan) for plan in plans(found)] == [[said], [said], [said], [said]]


def test_a_volume_in_a_directory_that_another_vm_has() -> None:
    wanted = cloud(vm(running="false"))
    plain = facts(wanted, made(wanted))
    theirs = another("/srv/images/lab.web.root.qcow2")
    found = replace(plain, hosts=(replace(plain.hosts[0], domains=(*plain.hosts[0].domains, theirs)),))
    assert refused(make_destroy_plan(wanted, found, ["web"])) == [
        "vm web: /srv/images/lab.web.root.qcow2 of host here is in use: VM theirs has it as a disk\n"
        "    end that use first"]


def test_a_disk_that_is_attached_again_and_an_old_template() -> None:
    without = cloud(pools("{lvm: vg0}", vm(running="false")))
    wanted = cloud(vm(running="false"))
    detached = in_group(facts(wanted, made(wanted)))
    host = detached.hosts[0]
    left = VolumeFacts("images", "lab.web.disk-data", DATA, "raw", GIB, GIB, open=True)
    found = replace(detached, hosts=(replace(host, volumes=(*host.volumes, left)),))
    assert refused(make_plan(without, found)) == []
    assert refused(make_plan(lvm(), found)) == [
        f"vm web: {DATA} of host here is in use: a process there has it open\n    end that use first"]
    old = "/dev/vg0/lab.base.template-0123456789ab"
    stale = replace(left, name=old.rpartition("/")[2], path=old)
    found = replace(detached, hosts=(replace(host, volumes=(*host.volumes, stale)),))
    assert refused(make_plan(without, found, Request(prune=True))) == [
        f"template base@0123456789ab: {old} of host here is in use: a process there has it open\n"
        "    end that use first"]


# -- names that are taken, and what was left --------------------------------------------------------------------------

def test_a_name_that_is_taken() -> None:
    """By whatever: what is in it is nobody's but its owner's to judge."""
    taken = VolumeFacts("images", "lab.web.root", ROOT, "raw", GIB, GIB)
    wanted = lvm(disks="{}")
    found = make_plan(wanted, in_group(facts(wanted, Machine()), volumes=(taken,)))
    assert refused(found) == [
        f"vm web: there is no such VM, but a volume of that name: {ROOT}\n"
        "    if it holds nothing of worth: vmwright destroy web; else rename or move it away"]
    assert not any(action.object == "vm web" for action in found.actions)


def test_what_a_growth_left_goes_unless_it_grows_again() -> None:
    name = partial_volume("lab.web.root")
    left = VolumeFacts("images", name, f"/dev/vg0/{name}", "raw", 60 * GIB, 60 * GIB)
    plain = there()
    found = replace(plain, hosts=(replace(plain.hosts[0], volumes=(*plain.hosts[0].volumes, left)),))
    plan = make_plan(lvm(), found)
    assert told(plan) == ["~ leftover lab.web.root: tidy"]
    assert [action.paths for action in plan.actions if isinstance(action, Tidy)] == [(f"/dev/vg0/{name}",)]
    again = make_plan(lvm(disk="124G"), found)  # 80G are free, and those 60G
    assert (refused(again), [type(action) for action in again.actions]) == ([], [GrowDisk])


# -- volumes that are to be activated, and what becomes of their bytes ------------------------------------------------

def test_what_is_inactive_is_told_where_it_is_to_start() -> None:
    _, _, start, apply = plans(volume(there(), ROOT, active=False))
    for plan in (start, apply):
        assert changes(plan.actions[-1]) == ["volume lab.web.root: inactive -> active", "state: shut off -> running"]


@pytest.mark.parametrize(("key", "words"), [
    ("", "removed"), (", on_remove: discard", "discarded and removed"),
    (", on_remove: zero", "overwritten with zeros and removed")])
def test_what_becomes_of_the_bytes_is_told(key: str, words: str) -> None:
    found = there()
    destroyed = make_destroy_plan(lvm(key), found, ["web"])
    assert {change.new for change in destroyed.actions[0].changes} == {words}
    notes = IntentFacts("lab", "web", "create", (ROOT, DATA))
    begun = make_plan(lvm(key), replace(found, hosts=(replace(found.hosts[0], domains=(), intents=(notes,)),)))
    assert {change.new for change in begun.actions[-1].changes if "leftover" in change.key} == {words}


def test_seeds_and_extents_are_counted() -> None:
    """80G are free: a disk of 5M less has room there beside its seed, one of 3M less takes all the extents."""
    for size, fits in ((80 * GIB - 5 * MIB, True), (80 * GIB - 3 * MIB, False)):
        wanted = lvm(disk=f"{size // MIB}M", disks="{}")
        template = VolumeFacts("images", f"lab.base.template-{wanted.templates[0].version}", "/dev/vg0/t", "raw",
                               4 * GIB, 4 * GIB)
        found = make_plan(wanted, in_group(facts(wanted, Machine()), volumes=(template,)))
        assert (refused(found) == []) is fits
