"""Hosts on which somebody has been at work beside us: nothing is lost, and nothing of theirs is touched."""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path

import pytest
from tests.local.kit import Kit, connection, remove


def vms(cloud: Kit, *names: str, disks: str = "{data: 8M}") -> str:
    """VMs that are made whole but not started."""
    return "".join(
        f"  {cloud.name}-{name}: {{template: blank, firmware: bios, memory: 64M, running: false, disks: {disks},"
        f" pool: {cloud.name}-pool, network: {cloud.name}-net, address: {cloud.subnet}.{10 + n}}}\n"
        for n, name in enumerate(names))


def planned(cloud: Kit, *words: str) -> list[str]:
    """The actions of the plan in short."""
    return [f"{action['sign']} {action['object']}: {action['verb']}" for action in cloud.plan(*words)["actions"]]


def files(cloud: Kit) -> dict[str, int]:
    """The inode of each file in the pool: what is made anew has another."""
    return {path.name: path.stat().st_ino for path in cloud.pool.iterdir()}


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_pool_that_is_off_or_forgotten_is_not_taken_for_empty(cloud: Kit, forgotten: bool) -> None:
    """Its template would be made again, under the disks that stand on it."""
    cloud.write(vms(cloud, "a"))
    cloud.ok("apply", "-y")
    before = files(cloud)
    pool = connection().storagePoolLookupByName(f"{cloud.name}-pool")
    pool.destroy()
    if forgotten:
        pool.undefine()
    assert planned(cloud) == [f"+ pool {cloud.name}-pool: {'create' if forgotten else 'start'}"]
    cloud.ok("apply", "-y")
    assert files(cloud) == before
    assert planned(cloud) == []


def test_a_copy_of_our_vm_is_not_ours(cloud: Kit) -> None:
    """virt-clone and `virsh dumpxml` take our mark along."""
    cloud.write(vms(cloud, "a"))
    cloud.ok("apply", "-y")
    xml = cloud.domain(f"{cloud.name}-a").XMLDesc()
    copy = re.sub(r"<uuid>.*?</uuid>", f"<uuid>{uuid.uuid4()}</uuid>", xml.replace(
        f"<name>{cloud.name}-a</name>", f"<name>{cloud.name}-copy</name>"))
    connection().defineXML(copy)
    plan = cloud.plan("--prune")
    assert plan["actions"] == [] and plan["unlisted"] == []
    cloud.write(vms(cloud, "copy"))
    said = cloud.run("plan")
    assert f"vm {cloud.name}-copy: host here has a VM of that name already, which is a copy of this cloud's " \
           f"{cloud.name}-a, or that one renamed" in said.all


def test_volumes_of_a_vm_that_somebody_undefined_are_shown_and_pruned(cloud: Kit) -> None:
    cloud.write(vms(cloud, "a", "b"))
    cloud.ok("apply", "-y")
    cloud.domain(f"{cloud.name}-a").undefine()
    said = cloud.run("plan")
    assert f"vm {cloud.name}-a: there is no such VM, but a volume of that name: " in said.all
    cloud.write(vms(cloud, "b"))
    assert "there is no such VM any more, but 3 volumes" in cloud.ok("plan").out
    assert cloud.run("apply", "-y", "--prune").code != 0  # it takes data, and nobody has confirmed that
    assert any(f"{cloud.name}-a." in name for name in cloud.volumes())
    cloud.ok("apply", "-y", "--prune", "--confirm", f"{cloud.name}-a")
    assert not [name for name in cloud.volumes() if f"{cloud.name}-a." in name]
    assert planned(cloud, "--prune") == []


def test_a_detached_disk_is_shown_and_comes_back_with_its_data(cloud: Kit) -> None:
    cloud.write(vms(cloud, "a"))
    cloud.ok("apply", "-y")
    disk = cloud.pool / f"{cloud.name}.{cloud.name}-a.disk-data.qcow2"
    inode = disk.stat().st_ino
    cloud.write(vms(cloud, "a", disks="{}"))
    cloud.ok("apply", "-y")
    said = cloud.ok("plan").out
    assert f"disk data of vm {cloud.name}-a" in said and "its volume stays" in said
    cloud.write(vms(cloud, "a", disks="{data: 16M}"))
    assert "with the data it has" in cloud.ok("plan").out
    cloud.ok("apply", "-y")
    assert disk.stat().st_ino == inode
    assert planned(cloud) == []


def test_facts_of_a_real_host_are_saved_and_planned_against(cloud: Kit) -> None:
    cloud.write(vms(cloud, "a"))
    cloud.ok("apply", "-y")
    recording = cloud.folder / "facts.json"
    recording.write_text(cloud.ok("facts", "--json").out)
    assert cloud.ok("plan", "--facts", str(recording), "--json").out == cloud.ok("plan", "--json").out
    recording.write_text(recording.read_text().replace('"memory_available"', '"memory_left"', 1))
    assert "facts.json: hosts[0].memory_available: Field required" in cloud.run("plan", "--facts", str(recording)).all
    assert Path(recording).exists()


def test_a_pool_on_btrfs(cloud: Kit) -> None:
    """O_DIRECT breaks its checksums, so the host's cache is used there; full copies share their blocks."""
    image = cloud.folder / "btrfs.img"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    cloud.pool.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(cloud.pool)], check=True)
    try:
        row = "  {}-{}: {{template: blank, firmware: bios, memory: 64M, {}}}\n"
        cloud.write(row.format(cloud.name, "a", "running: false") + row.format(cloud.name, "b",
                                                                               "running: false, copy: full"))
        cloud.ok("apply", "-y")
        for name in ("a", "b"):
            domain = cloud.domain(f"{cloud.name}-{name}")
            assert domain.XMLDesc(0).count("cache='writeback'") == 1
            domain.create()
        shared = subprocess.run(["btrfs", "filesystem", "du", "-s", str(cloud.pool)], check=True, capture_output=True,
                                text=True).stdout
        assert shared.split()[-2] != "0.00B", shared
        for name in ("a", "b"):
            cloud.ok("destroy", f"{cloud.name}-{name}", "-y")
    finally:
        remove(cloud)
        subprocess.run(["umount", str(cloud.pool)], check=True)
