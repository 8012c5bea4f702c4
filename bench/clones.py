"""Ten clones of a filled template, defined, with seeds: vmwright against virt-clone, others, and the bare floor."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from xml.etree import ElementTree

from libvirt import virDomain
from tests.local.kit import URI, Kit, connection

from bench.measure import Failed, Series, Spent, Table, Target, command, named, rounds, spend
from bench.peers import Peer
from bench.scratch import act, quiet, scratch, write

CLONES = 10
FILLED = 2 << 30  # bytes of data in the template that nothing can compress


@dataclass(frozen=True)
class Bed:
    """What all contenders work on: one cloud's pool and network, the template's file, and a VM to clone that is off."""

    cloud: Kit
    template: Path
    source: str


def tables(runs: int, peers: dict[str, Peer]) -> Iterator[Table]:
    """The benchmark."""
    with _bed() as bed:
        contenders = {
            "vmwright apply (overlays)": lambda: _apply(bed, "overlay"),
            "qemu-img create + virsh define (floor)": lambda: _undone(bed, lambda: _floor(bed)),
            "vmwright apply (full copies)": lambda: _apply(bed, "full"),
            "virt-clone --auto-clone": lambda: _undone(bed, lambda: _virt_clone(bed)),
        }
        kcli = peers["kcli"]
        if kcli.program:
            contenders["kcli create vm"] = lambda: _undone(bed, lambda: _kcli(bed, kcli.program))
        series = rounds(runs, contenders)
    series += (Series("virt-lightning", absent="not measured: it has no way to make a VM without booting it"),)
    if not kcli.program:
        series += (Series("kcli create vm", absent=kcli.absent),)
    title = f"{CLONES} clones of a template with 2 GiB of data, defined, not started"
    yield Table(title, series, tuple(_targets(series)), notes=(
        "vmwright: the whole command, with facts, plan, lock, journal, seeds and the check afterwards",
        "virt-clone and the floor make no seeds"))


def _targets(series: tuple[Series, ...]) -> Iterator[Target]:
    overlay, full, clone, floor = (named(series, name) for name in (
        "vmwright apply (overlays)", "vmwright apply (full copies)", "virt-clone --auto-clone",
        "qemu-img create + virsh define (floor)"))
    if overlay and clone:
        yield Target("overlays: times faster than virt-clone", clone.wall / overlay.wall, 20, at_least=True)
    if overlay and floor:
        yield Target("overlays: times the floor", overlay.wall / floor.wall, 3)
    if full and clone:
        yield Target("full copies: times faster than virt-clone", clone.wall / full.wall, 1, at_least=True)


# -- the bed ----------------------------------------------------------------------------------------------------------


@contextmanager
def _bed() -> Iterator[Bed]:
    with scratch() as cloud:
        _fill(cloud.folder)
        source = f"{cloud.name}-source"
        _write(cloud, {source: "full"})
        act(cloud, "apply", "-y")
        template = next(path for path in cloud.pool.iterdir() if ".template-" in path.name)
        yield Bed(cloud, template, source)


def _fill(folder: Path) -> None:
    """A disk image full of noise."""
    raw = folder / "filled.raw"
    with open("/dev/urandom", "rb") as noise, raw.open("wb") as file:
        for _ in range(FILLED >> 20):
            file.write(noise.read(1 << 20))
    command(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(folder / "filled.qcow2")])
    raw.unlink()


def _write(cloud: Kit, vms: dict[str, str]) -> None:
    write(cloud, vms, image=cloud.folder / "filled.qcow2")


# -- contenders: each makes the clones (timed) and takes them away (not timed) ----------------------------------------


def _names(bed: Bed) -> list[str]:
    return [f"{bed.cloud.name}-clone-{n}" for n in range(CLONES)]


def _apply(bed: Bed, copy: str) -> Spent:
    names = _names(bed)
    _write(bed.cloud, {bed.source: "full", **dict.fromkeys(names, copy)})
    spent = act(bed.cloud, "apply", "-y")
    act(bed.cloud, "destroy", *names, "-y")
    return spent


def _undone(bed: Bed, make: Callable[[], object]) -> Spent:
    """Time this, then remove the domains and the files that it made."""
    files = set(bed.cloud.pool.iterdir())
    quiet()
    try:
        return spend(make)
    finally:
        for domain in _made(bed):
            domain.undefine()
        for path in set(bed.cloud.pool.iterdir()) - files:
            path.unlink()
        connection().storagePoolLookupByName(f"{bed.cloud.name}-pool").refresh()


def _virt_clone(bed: Bed) -> None:
    for name in _names(bed):
        command(["virt-clone", "--connect", URI, "--quiet", "--original", bed.source, "--name", name, "--auto-clone"])


def _kcli(bed: Bed, program: str) -> None:
    """Overlays and seeds, by kcli; a home of its own, so that it meets nobody's settings."""
    home = bed.cloud.folder / "home"
    keys = home / ".ssh"
    keys.mkdir(parents=True, exist_ok=True)
    for name in ("key", "key.pub"):
        copyfile(bed.cloud.folder / name, keys / name.replace("key", "id_ed25519"))
    values = ("memory=64", "numcpus=1", "start=False", f"pool={bed.cloud.name}-pool", f"nets=[{bed.cloud.name}-net]")
    argv = [program, "create", "vm", "--image", bed.template.name, "--count", str(CLONES)]
    argv += [word for value in values for word in ("-P", value)]
    command([*argv, f"{bed.cloud.name}-clone"], env={**os.environ, "HOME": str(home)})
    if len(_made(bed)) != CLONES:
        raise Failed(f"kcli made {len(_made(bed))} VMs")


def _made(bed: Bed) -> list[virDomain]:
    return [domain for domain in connection().listAllDomains() if domain.name().startswith(f"{bed.cloud.name}-clone-")]


def _floor(bed: Bed) -> None:
    """The least that a linked clone needs: an overlay and a definition each, the definition written beforehand."""
    described = connection().lookupByName(bed.source).XMLDesc()
    for name in _names(bed):
        disk = bed.cloud.pool / f"{name}.qcow2"
        command(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(bed.template), str(disk)])
        definition = bed.cloud.folder / f"{name}.xml"
        definition.write_text(_like(described, name, disk), encoding="utf-8")
        command(["virsh", "--quiet", "--connect", URI, "define", str(definition)])


def _like(described: str, name: str, disk: Path) -> str:
    """A domain like the described one, with a name, identity and disk of its own."""
    root = ElementTree.fromstring(described)
    for key, value in (("name", name), ("uuid", str(uuid.uuid4()))):
        found = root.find(key)
        assert found is not None
        found.text = value
    for source in root.iterfind("devices/disk[@device='disk']/source"):
        source.set("file", str(disk))
    for nic in root.iterfind("devices/interface"):
        for mac in nic.findall("mac"):
            nic.remove(mac)
    return ElementTree.tostring(root, encoding="unicode")
