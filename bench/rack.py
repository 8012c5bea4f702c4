"""Five clones of a template with 1 GiB of data on LVM, thin and thick, beside virt-clone; on an emulated server.

A host of its own, because the machine that one works at seldom has a volume group to spare. vmwright runs on this
machine, over ssh, and virt-clone on the host itself, so seconds and CPU time of the two cannot be compared with
those of a real server: what is done to the disks is the same, and what else the host does is slow for both.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rack import kit
from tests.rack.cloud import RackCloud

from bench.measure import Failed, Series, Spent, Table, Target, command, named, rounds, spend
from bench.peers import Peer
from bench.scratch import plain, vmwright
from vmwright.rack import process

NAME = "bench"
CLONES = 5
FILLED = 1 << 30  # bytes of data in the template that nothing can compress
THICK, THIN = "vmwright apply (thick volumes)", "vmwright apply (thin snapshots)"
VIRT_CLONE = "virt-clone --auto-clone (thick)"
POOLS = "      thick: {{lvm: vg-libvirt, disks: [/dev/sda4]}}\n      thin: {{lvm: vg-thin, disks: [{}], thin: true}}\n"
TEMPLATE = "  filled: {image: ./filled.raw, disk: 1G, firmware: bios}\n"
SOURCE = "source"
_INSTALL = """
export DEBIAN_FRONTEND=noninteractive
{ apt-get -q update && apt-get -q -y --no-install-recommends install virtinst; } > /root/apt.log 2>&1 || {
    tail -n 5 /root/apt.log >&2; exit 1
}
virt-clone --version
"""
_CLONE = """
for n in $(seq {count}); do
    virt-clone --connect qemu:///system --quiet --original {source} --name peer-$n --auto-clone
done
"""
_UNDO = """
for n in $(seq {count}); do virsh -q undefine peer-$n; done
lvs --noheadings -o lv_name vg-libvirt | tr -d ' ' | grep -vxF '{kept}' | while read -r name; do
    lvremove -q -y "vg-libvirt/$name"
done
virsh -q pool-refresh thick > /dev/null
"""


def tables(runs: int, peers: dict[str, Peer]) -> Iterator[Table]:
    """The benchmark. The peers of this machine are no part of it."""
    with _bed() as cloud:
        version, absent = _virtinst(cloud)
        contenders: dict[str, Callable[[], Spent]] = {
            THIN: lambda: _apply(cloud, "thin"), THICK: lambda: _apply(cloud, "thick")}
        if not absent:
            contenders[VIRT_CLONE] = lambda: _virt_clone(cloud)
        series = rounds(runs, contenders)
    series += (Series(VIRT_CLONE, absent=absent),) if absent else ()
    title = f"{CLONES} clones of a template with 1 GiB of data on LVM, on an emulated server, defined, not started"
    yield Table(title, series, tuple(_targets(series)), notes=(
        "vmwright: the whole command on this machine, over ssh, with facts, plan, lock, journal, seeds, check",
        f"virt-clone {version}: on the server itself, which is emulated; it makes no seeds",
        "CPU: of this machine's own processes; what the server spends is not in it"))


def _targets(series: tuple[Series, ...]) -> Iterator[Target]:
    thin, thick, clone = (named(series, name) for name in (THIN, THICK, VIRT_CLONE))
    if thin and clone:
        yield Target("thin: times faster than virt-clone", clone.wall / thin.wall, 10, at_least=True)
    if thick and clone:
        yield Target("thick: times faster than virt-clone", clone.wall / thick.wall, 1, at_least=True)


@contextmanager
def _bed() -> Iterator[RackCloud]:
    """A rack with both kinds of pools, the template in each, and a thick VM to clone; nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="vmwright-bench-") as folder:
        before = os.environ.get("XDG_STATE_HOME")
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        try:
            cloud = RackCloud(kit.up(NAME), Path(folder), NAME)
            _fill(Path(folder) / "filled.raw")
            _write(cloud, {SOURCE: "thick", "first": "thin"})
            _vmwright(cloud, "apply", "-y")
            yield cloud
        finally:
            kit.remove_all()
            os.environ.pop("XDG_STATE_HOME")
            if before is not None:
                os.environ["XDG_STATE_HOME"] = before


def _fill(file: Path) -> None:
    """An image full of noise."""
    with open("/dev/urandom", "rb") as noise, file.open("wb") as image:
        for _ in range(FILLED >> 20):
            image.write(noise.read(1 << 20))


def _write(cloud: RackCloud, vms: dict[str, str]) -> None:
    """The cloud's file with VMs that are not started: name -> pool."""
    rows = (f"  {name}: {{template: filled, pool: {pool}, firmware: bios, memory: 64M, running: false, "
            f"address: 192.168.6.{50 + n}}}\n" for n, (name, pool) in enumerate(vms.items()))
    cloud.write(POOLS.format(cloud.drive("PM9A1-1")), "".join(rows), TEMPLATE)


def _vmwright(cloud: RackCloud, *words: str) -> Spent:
    """Time one vmwright command on the cloud's file."""
    argv = [*vmwright(), words[0], "-f", "cloud.yaml", *words[1:]]
    _quiet(cloud)
    return spend(lambda: command(argv, env=plain(), folder=cloud.folder, timeout=3600))


def _quiet(cloud: RackCloud) -> None:
    """What was written before is on the disks."""
    command(process.ssh_argv(cloud.rack, ["sync"]), timeout=600)


def _virtinst(cloud: RackCloud) -> tuple[str, str]:
    """virt-clone's version, installed from the server's own package sources; or why it is not there."""
    try:
        return _on_server(cloud, _INSTALL, 1800).strip().splitlines()[-1], ""
    except Failed as error:
        return "", f"could not be installed: {error}"


def _on_server(cloud: RackCloud, script: str, seconds: float) -> str:
    return command([*process.ssh_argv(cloud.rack, ["sh", "-eu", "-s"])], timeout=seconds, given=script)


# -- contenders: each makes the clones (timed) and takes them away (not timed) ----------------------------------------


def _apply(cloud: RackCloud, pool: str) -> Spent:
    names = [f"clone-{n}" for n in range(CLONES)]
    _write(cloud, {SOURCE: "thick", "first": "thin", **dict.fromkeys(names, pool)})
    spent = _vmwright(cloud, "apply", "-y")
    _vmwright(cloud, "destroy", *names, "-y")
    return spent


def _virt_clone(cloud: RackCloud) -> Spent:
    kept = "\n".join(cloud.volumes("vg-libvirt"))
    _quiet(cloud)
    try:
        return spend(lambda: _on_server(cloud, _CLONE.format(count=CLONES, source=SOURCE), 3600))
    finally:
        _on_server(cloud, _UNDO.format(count=CLONES, kept=kept), 600)
