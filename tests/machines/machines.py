"""Recorded hosts: what their probes printed and their libvirt told, and the facts that come of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from vmwright.facts import storage
from vmwright.facts.gather import assemble
from vmwright.facts.model import HostFacts
from vmwright.facts.probes import Output, split
from vmwright.spec.cloud import LvmSpec, Pool, ThinSpec
from vmwright.virt.connect import Inventory

FOLDER = Path(__file__).parent

# Which recordings make a whole machine. What the later ones tell counts.
MACHINES = {
    "zcloud": ("ubuntu2004", "lvm-zcloud", "pci-zcloud"),
    "rack": ("rack",),
}


def outputs(*recordings: str) -> dict[str, Output]:
    """The probes' outputs of these recordings together."""
    return {name: output for recording in recordings
            for name, output in split((FOLDER / f"{recording}.txt").read_text()).items()}


def inventory(machine: str) -> Inventory:
    """What a machine's libvirt told."""
    return TypeAdapter(Inventory).validate_json((FOLDER / f"libvirt-{machine}.json").read_text())


def pool(name: str, group: str, *, thin: str = "") -> Pool:
    """A pool of the spec that is a volume group."""
    return Pool(name, "here", f"/dev/{group}", LvmSpec(group, thin=ThinSpec(thin) if thin else None))


def facts(machine: str, *pools: Pool, name: str = "") -> HostFacts:
    """The facts of a machine, whole, with these LVM pools wanted; `name` is what the spec calls the host."""
    return assemble(name or machine, outputs(*MACHINES[machine]), inventory(machine), {},
                    storage.wanted(pools, disks=True), devices=True)
