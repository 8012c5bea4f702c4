"""Kill -9 at every step of an apply, then apply again: it converges, and nothing is orphaned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.local.kit import Kit, Said


def vms(cloud: Kit, *, names: str = "a", disks: str = "{data: 1G}") -> str:
    """VMs that are made whole but not started: every step but the boot."""
    return "".join(
        f"  {cloud.name}-{name}: {{template: blank, firmware: bios, memory: 64M, running: false, disks: {disks},"
        f" pool: {cloud.name}-pool, network: {cloud.name}-net, address: {cloud.subnet}.{10 + n}}}\n"
        for n, name in enumerate(names))


def killed(cloud: Kit, after: int, *words: str) -> Said:
    """Run vmwright until its N-th step."""
    return cloud.run(*words, driver="tests.local.killer:kill", KILL_AFTER=str(after))


def converge(cloud: Kit) -> None:
    """Apply: it ends well, and what it read afterwards (or before, with nothing to do) is as the file says."""
    assert "everything is as the file says" in cloud.ok("apply", "-y").out


def expected(cloud: Kit, names: str, *, disk: bool = True) -> set[str]:
    """The volumes that VMs of these names and their template have."""
    found = {f"{cloud.name}.{cloud.name}-{name}.{role}" for name in names
             for role in ("root.qcow2", "seed.iso", *(["disk-data.qcow2"] if disk else []))}
    return found | {name for name in cloud.volumes() if ".template-" in name}


def whole(cloud: Kit, names: str) -> None:
    """Everything is there once, and nothing else is."""
    assert cloud.domains() == {f"{cloud.name}-{name}" for name in names}
    assert cloud.volumes() == expected(cloud, names)
    assert len([name for name in cloud.volumes() if ".template-" in name]) == 1
    assert left_on_host(cloud) == set()


def left_on_host(cloud: Kit) -> set[str]:
    """Notes and work directories under the host's state directory."""
    state = Path("/var/lib/vmwright") / cloud.name
    return {str(p.relative_to(state)) for kind in ("intents", "work") for p in (state / kind).glob("*")}


def test_create_converges_wherever_it_is_killed(cloud: Kit) -> None:
    """Pool, network, template, VM: killed after 1, 2, 3, ... steps, each time carried on from where that left it."""
    cloud.write(vms(cloud))
    survived = 0
    for after in range(1, 80):
        said = killed(cloud, after, "apply", "-y")
        if said.code == 0:
            break
        assert said.code == -9, said.all
        survived += 1
    else:
        pytest.fail("never came to an end")
    assert survived >= 5
    whole(cloud, "a")
    assert cloud.plan()["actions"] == []


@pytest.mark.parametrize("copy", ["overlay", "full"])
def test_one_kill_then_apply(cloud: Kit, copy: str) -> None:
    """From nothing to one kill after step N to one whole apply, for every N that there is."""
    cloud.write(vms(cloud).replace("running: false", f"running: false, copy: {copy}"))
    cloud.ok("apply", "-y")  # pool, network and template stay; the VM goes and comes
    reached = 0
    for after in range(1, 80):
        cloud.ok("destroy", f"{cloud.name}-a", "-y")
        said = killed(cloud, after, "apply", "-y")
        if said.code == 0:
            break
        assert said.code == -9, said.all
        converge(cloud)
        whole(cloud, "a")
        reached = after
    assert reached >= 6, "the kills did not reach into the making of the VM"


def test_destroy_converges(cloud: Kit) -> None:
    """A removal that was begun is finished, and not asked for again."""
    cloud.write(vms(cloud))
    reached = 0
    for after in range(1, 80):
        cloud.write(vms(cloud))
        cloud.ok("apply", "-y")
        said = killed(cloud, after, "destroy", f"{cloud.name}-a", "-y")
        if said.code == 0:
            break
        assert said.code == -9, said.all
        cloud.write("  {}\n")
        cloud.file.write_text(cloud.file.read_text().replace("vms:\n  {}\n", "vms: {}\n"))
        converge(cloud)
        if f"{cloud.name}-a" in cloud.domains():  # killed before the note was written: nothing had been begun
            assert "no longer in the file" in cloud.run("plan").out
            cloud.ok("destroy", f"{cloud.name}-a", "-y")
        assert cloud.domains() == set()
        assert cloud.volumes() == expected(cloud, "")
        assert left_on_host(cloud) == set()
        reached = after
    assert reached >= 4


def test_rebuild_keeps_the_data_disk_wherever_it_is_killed(cloud: Kit) -> None:
    """The root disk is new, the data disk is the same one, after every kill and the apply that follows."""
    cloud.write(vms(cloud))
    cloud.ok("apply", "-y")
    data = cloud.pool / f"{cloud.name}.{cloud.name}-a.disk-data.qcow2"
    mark = data.stat().st_ino
    reached = 0
    for after in range(1, 80):
        said = killed(cloud, after, "rebuild", f"{cloud.name}-a", "-y")
        if said.code == 0:
            break
        assert said.code == -9, said.all
        converge(cloud)
        whole(cloud, "a")
        assert data.stat().st_ino == mark, f"killed after step {after}: the data disk is another one"
        reached = after
    assert reached >= 6


def test_change_converges(cloud: Kit) -> None:
    """In-place changes: killed at each step, the next apply makes the definition what the file says.

    The data disk grows a little every time, since it cannot shrink; the rest goes back and forth.
    """
    reached, name = 0, f"{cloud.name}-a"
    for after in range(1, 80):
        cloud.write(vms(cloud, disks=f"{{data: {1000 + after}M}}"))
        converge(cloud)
        more = f"{{data: {1001 + after}M, more: 1G}}"
        cloud.write(vms(cloud, disks=more).replace("memory: 64M", "memory: 128M, vcpus: 2"))
        said = killed(cloud, after, "apply", "-y")
        if said.code == 0:
            break
        assert said.code == -9, said.all
        converge(cloud)
        assert left_on_host(cloud) == set()
        assert (cloud.domain(name).maxMemory(), cloud.domain(name).XMLDesc().count("<disk ")) == (128 << 10, 4)
        reached = after
    assert reached >= 3


def test_a_kill_leaves_a_journal_that_says_so(cloud: Kit) -> None:
    """`vmwright log` shows a run that has no end as cut off."""
    cloud.write(vms(cloud))
    assert killed(cloud, 3, "apply", "-y").code == -9
    said = cloud.ok("log")
    assert "cut off: it has no end" in said.out
    assert json.loads(next((cloud.folder / "state").rglob("*.jsonl")).read_text().splitlines()[0])["event"] == "begin"
