"""What a host does not choose: a volume group that fills up while volumes are copied, a thin pool that is full, a power
cut. Each in the middle of an apply: nothing of what was there is lost, and the next apply does the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.rack import kit
from tests.rack.cloud import RackCloud

from vmwright.rack import process, record

MIB = 1 << 20
MARK = "whose-bytes-are-these"
THICK = "      thick: {lvm: vg-libvirt, disks: [/dev/sda4]}\n"
THIN = "      thin: {{lvm: vg-thin, disks: [{}], thin: {{size: 256M, metadata: 32M}}}}\n"
VM = ("  {}: {{template: blank, pool: {}, firmware: bios, memory: 64M, running: false, disk: {}, disks: {{data: {}}}, "
      "address: 192.168.6.{}}}\n")
NAME = "accidents"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """One rack for all of these, in the order in which they stand."""
    yield RackCloud(kit.up(NAME), tmp_path_factory.mktemp("cloud"))
    process.down(NAME, force=True, seconds=5, remove=True)


def vm(number: int, pool: str, disk: str = "256M", data: str = "256M") -> str:
    return VM.format(f"{pool}{number}", pool, disk, data, 50 + number)


@contextmanager
def begun(cloud: RackCloud, *words: str) -> Iterator[subprocess.Popen[str]]:
    """vmwright at work on the cloud."""
    argv = [sys.executable, "-m", "vmwright.cli.main", words[0], "-f", "cloud.yaml", *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(kit.SOURCES), "COLUMNS": "200"}
    with subprocess.Popen(argv, cwd=cloud.folder, env=environment, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            yield run
        finally:
            run.kill()


def mark(cloud: RackCloud, volume: str) -> None:
    """Write something to a volume, as its guest would have."""
    cloud.sh(f"printf {MARK} | dd of=/dev/{volume} bs=4096 conv=notrunc,sync,fsync oflag=direct status=none")


def marked(cloud: RackCloud, volume: str) -> bool:
    return cloud.sh(f"dd if=/dev/{volume} bs=4096 count=1 iflag=direct status=none | head -c {len(MARK)}") == MARK


def settled(cloud: RackCloud) -> None:
    plan = cloud.plan()
    assert (plan["actions"], plan["refused"]) == ([], [])


def ours(cloud: RackCloud, group: str) -> set[str]:
    """The volumes of VMs in a group."""
    return {name for name in cloud.volumes(group) if name.startswith("lab.") and ".template-" not in name}


def volumes(*vms: str) -> set[str]:
    """Those that these VMs have when they are whole."""
    return {f"lab.{vm}.{role}" for vm in vms for role in ("root", "disk-data", "seed")}


def test_a_group_fills_up_while_a_volume_is_copied(cloud: RackCloud) -> None:
    """Something else takes all that is free between two volumes of a VM. It is told, and what was begun is removed."""
    cloud.write(THICK, vm(1, "thick"))
    cloud.ok("apply", "-y")
    mark(cloud, "vg-libvirt/lab.thick1.root")
    cloud.write(THICK, vm(1, "thick") + vm(2, "thick", "1G"))
    with begun(cloud, "apply", "-y") as run:
        cloud.sh("until [ -e /dev/vg-libvirt/lab.thick2.root ]; do sleep 0.2; done; "
                 "lvcreate -q -y -W n -l 100%FREE -n hog vg-libvirt")
        said, problem = run.communicate(timeout=900)
    assert run.returncode == 1, said + problem
    assert "vm thick2" in problem and "insufficient free space" in problem, problem
    assert ours(cloud, "vg-libvirt") == volumes("thick1") and cloud.sh("virsh -q list --all --name") == "thick1"
    assert marked(cloud, "vg-libvirt/lab.thick1.root")
    (refused,) = cloud.refused()
    assert refused.startswith("pool thick of host rack: what is to be made takes "), "now the plan sees it"
    cloud.sh("lvremove -q -y vg-libvirt/hog")
    cloud.ok("apply", "-y")
    settled(cloud)
    assert ours(cloud, "vg-libvirt") == volumes("thick1", "thick2") and marked(cloud, "vg-libvirt/lab.thick1.root")


def test_a_thin_pool_that_is_full(cloud: RackCloud) -> None:
    """A guest writes until nothing is left: all that was written before stays; a new VM is not left in half."""
    pools = THICK + THIN.format(cloud.drive("PM9A1-1"))
    kept = vm(1, "thick") + vm(2, "thick", "1G")
    cloud.write(pools, kept + vm(3, "thin") + vm(4, "thin"))
    cloud.ok("apply", "-y")
    mark(cloud, "vg-thin/lab.thin3.root")
    mark(cloud, "vg-thin/lab.thin4.root")
    cloud.sh("""echo 5 > /sys/module/dm_thin_pool/parameters/no_space_timeout
        for name in root disk-data; do
            dd if=/dev/urandom of=/dev/vg-thin/lab.thin4.$name bs=1M seek=1 conv=fsync oflag=direct 2>/dev/null || :
        done""")
    plan = cloud.plan()
    assert any("thin pool thin has used 100% of its data" in text for text in plan["warnings"]), plan["warnings"]
    assert marked(cloud, "vg-thin/lab.thin3.root") and marked(cloud, "vg-thin/lab.thin4.root")

    cloud.write(pools, kept + vm(3, "thin") + vm(4, "thin") + vm(5, "thin"))
    done = cloud.run("apply", "-y")
    assert done.returncode != 0 and "vm thin5" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert ours(cloud, "vg-thin") == volumes("thin3", "thin4")
    assert "thin5" not in cloud.sh("virsh -q list --all --name").split()
    assert marked(cloud, "vg-thin/lab.thin3.root") and marked(cloud, "vg-thin/lab.thin4.root")

    cloud.sh("lvextend -q -L +512M vg-thin/thin")
    cloud.ok("apply", "-y")
    settled(cloud)
    assert ours(cloud, "vg-thin") == volumes("thin3", "thin4", "thin5")
    assert marked(cloud, "vg-thin/lab.thin3.root") and marked(cloud, "vg-thin/lab.thin4.root")


def test_a_power_cut_in_the_middle_of_an_apply(cloud: RackCloud) -> None:
    """The host is gone while volumes are copied. When it is back, the next apply makes all whole; what was there is."""
    pools = THICK + THIN.format(cloud.drive("PM9A1-1"))
    before = vm(1, "thick") + vm(2, "thick", "1G") + vm(3, "thin")
    cloud.write(pools, before + vm(6, "thick", "1G") + vm(7, "thick", "1G") + vm(8, "thin"))
    with begun(cloud, "apply", "-y") as run:
        cloud.sh("cd /dev/vg-libvirt; until [ -e lab.thick6.root ] || [ -e lab.thick7.root ]; do sleep 0.2; done")
        process.pull_plug(record.known(NAME))
        said, problem = run.communicate(timeout=900)
    assert run.returncode not in (0, -9) and "Traceback" not in problem, said + problem
    kit.up(NAME)
    begun_then = ours(cloud, "vg-libvirt") - volumes("thick1", "thick2")
    assert begun_then and not begun_then >= volumes("thick6", "thick7"), "it was cut off in its middle"
    cloud.ok("apply", "-y")
    settled(cloud)
    assert ours(cloud, "vg-libvirt") == volumes("thick1", "thick2", "thick6", "thick7")
    assert not [name for name in cloud.volumes("vg-libvirt") if name.endswith(".partial")]
    assert marked(cloud, "vg-libvirt/lab.thick1.root") and marked(cloud, "vg-thin/lab.thin3.root")
    for name in ("thick6", "thick7"):
        assert cloud.sh(f"tr -d '\\0' < /dev/vg-libvirt/lab.{name}.root | head -c 1 | wc -c") == "0", "blank as made"
