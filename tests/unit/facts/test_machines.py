"""Every parser on every recorded host, whole; and plans on them, as `vmwright plan --facts` makes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.machines import machines

import vmwright
from vmwright.facts import pci, probes, storage
from vmwright.facts.model import Facts, HostFacts
from vmwright.facts.store import dumps, loads
from vmwright.names import parse_path
from vmwright.report.facts import facts_lines
from vmwright.units import GIB, parse_cpuset

POOLS = {
    "zcloud": (machines.pool("images_lvm", "vg-libvirt"),),
    "rack": (machines.pool("thick", "vg-libvirt"), machines.pool("thin", "vg-thin", thin="thin")),
}


@pytest.fixture(params=machines.MACHINES)
def machine(request: pytest.FixtureRequest) -> HostFacts:
    """Each of the recorded hosts, with its LVM pools wanted."""
    return machines.facts(request.param, *POOLS[request.param])


@pytest.mark.parametrize("name", machines.MACHINES)
def test_a_machine_has_every_probe_that_is_asked(name: str) -> None:
    asked = {**probes.commands("lab", ()), **storage.commands(storage.wanted(POOLS[name], disks=True)),
             **pci.commands(True)}
    outputs = machines.outputs(*machines.MACHINES[name])
    assert set(asked) <= set(outputs)
    assert {probe for probe in asked if outputs[probe].code} <= {"kvm-device"}  # there is none under emulation


def test_all_of_a_machine_hangs_together(machine: HostFacts) -> None:
    """What one probe names, another tells."""
    numbers = {cpu.number for cpu in machine.cpu_list}
    assert len(numbers) == machine.cpus and {cpu for node in machine.nodes for cpu in node.cpus} == numbers
    assert sum(node.memory for node in machine.nodes) == pytest.approx(machine.memory, rel=0.01)
    paths = {block.path for block in machine.blocks}
    assert {parent for block in machine.blocks for parent in block.parents} <= paths
    assert {path for device in machine.devices for path in device.blocks} <= paths
    assert {name for device in machine.devices for name in device.links} <= {link.name for link in machine.links}
    assert {device.numa_node for device in machine.devices} - {None} <= {node.number for node in machine.nodes}
    assert {disk for group in machine.groups for disk in group.disks} <= paths
    assert {volume.pool for volume in machine.volumes} <= {pool.name for pool in machine.pools}
    used = {disk.path for domain in machine.domains for disk in domain.persistent.disks}
    assert used <= {volume.path for volume in machine.volumes}
    assert machine.iommu is not None and machine.iommu.on and machine.uefi


def test_a_machine_is_saved_and_loaded_and_shown(machine: HostFacts) -> None:
    found = Facts((machine,))
    assert loads(dumps(found), "facts.json") == found
    shown = "\n".join(str(line) for line in facts_lines(found))
    for name in (machine.hostname, *(pool.name for pool in machine.pools), *(group.name for group in machine.groups)):
        assert name in shown


def test_the_reference_server() -> None:
    host = machines.facts("zcloud", *POOLS["zcloud"])
    assert (host.os, host.emulator, host.cpus) == ("Ubuntu 20.04.6 LTS", "4.2.1", 48)
    assert [node.cpus for node in host.nodes] == [parse_cpuset("0-11,24-35"), parse_cpuset("12-23,36-47")]
    assert [(group.name, group.free // GIB) for group in host.groups] == [("vg-libvirt", 196)]


def test_the_rack() -> None:
    host = machines.facts("rack", *POOLS["rack"])
    assert (host.cpus, len(host.nodes)) == (8, 2)
    assert {volume.thin for volume in host.volumes} == {None, "thin"}
    assert {volume.name for volume in host.volumes if volume.open} == {
        "lab.web.root", "lab.web.disk-data", "lab.web.seed"}, "web runs"
    ours = {parsed.object for volume in host.volumes if (parsed := parse_path(volume.path))}
    assert {domain.name for domain in host.domains if domain.persistent.owner} <= ours
    assert [device.serial for device in host.devices if device.kind == "010802"] == ["PM9A1-1", "PM9A1-2", "PM9A1-3"]


# -- plans ------------------------------------------------------------------------------------------------------------

ZCLOUD = """\
cloud: zcloud
hosts:
  zcloud:
    connect: ssh://root@192.168.6.200
    pools:
      images_lvm: {lvm: vg-libvirt, disks: [/dev/sda4]}
networks:
  lan:
    bridge: br0
    subnet: 192.168.6.0/24
    gateway: 192.168.6.200
    dns: [192.168.6.200, 192.168.6.11]
    proxy: http://192.168.6.200:3128
users:
  admin: {ssh_keys: [./key.pub], sudo: nopasswd}
defaults: {pool: images_lvm, network: lan, firmware: uefi, cpu: host-passthrough, timezone: Asia/Shanghai}
templates:
  z-ubuntu: {os: ubuntu20.04, disk: 6G}
  z-fedora: {os: fedora35, disk: 6G}
vms:
  z-b-data: {count: 3, template: z-ubuntu, vcpus: 4, memory: 8G, address: 192.168.6.204}
  z-dev: {template: z-fedora, vcpus: 2, memory: 4G, address: 192.168.6.253, disk: 32G}
"""


def plan(folder: Path, file: str, host: HostFacts) -> tuple[int, dict[str, object]]:
    """What `vmwright plan --facts` says of a recorded host: exit code and plan."""
    (folder / "cloud.yaml").write_text(file)
    (folder / "facts.json").write_text(dumps(Facts((host,))))
    if not (folder / "key").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(vmwright.__file__).parents[1]), "XDG_STATE_HOME": str(folder)}
    done = subprocess.run([sys.executable, "-m", "vmwright.cli.main", "plan", "--json", "--facts", "facts.json"],
                          cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


def test_the_reference_cloud_on_the_reference_server(tmp_path: Path) -> None:
    """Without what this file of the reference cloud leaves out, it would be made there as it is."""
    code, made = plan(tmp_path, ZCLOUD, machines.facts("zcloud", *POOLS["zcloud"]))
    assert (code, made["refused"]) == (0, [])
    done = [(row["object"], row["verb"]) for row in made["actions"]]  # type: ignore[attr-defined]
    assert done == [("template z-ubuntu", "make"), ("template z-fedora", "make"),
                    *((f"vm z-b-data-{n}", "create") for n in (1, 2, 3)), ("vm z-dev", "create")]


@pytest.mark.parametrize(("old", "new", "what"), [
    ("disk: 32G", "disk: 200G",
     "pool images_lvm of host zcloud: what is to be made takes 235536M, and 200784M are free"),
    ("memory: 8G", "memory: 16G", "host zcloud: the VMs to start want 52G of memory (z-b-data-1 16G, z-b-data-2 16G, "
                                  "z-b-data-3 16G, z-dev 4G); 40704M of 62.8G are free for them"),
    ("/dev/sda4", "/dev/sda4, /dev/sda3", "pool images_lvm: /dev/sda3 is in use: it is swap space in use"),
    ("lvm: vg-libvirt", "lvm: vg-new", "pool images_lvm is there already, but as a logical pool at /dev/vg-libvirt"),
    ("bridge: br0", "bridge: br1", "network lan: bridge br1 is not there on host zcloud"),
    ("  z-dev:", "  z-fedora35:", "vm z-fedora35: host zcloud has a VM of that name already, which was not made by"),
])
def test_what_does_not_fit_the_reference_server(tmp_path: Path, old: str, new: str, what: str) -> None:
    code, made = plan(tmp_path, ZCLOUD.replace(old, new), machines.facts("zcloud", *POOLS["zcloud"]))
    assert code == 4
    said = [row["what"] for row in made["refused"]]  # type: ignore[attr-defined]
    assert any(text.startswith(what) for text in said), said


RACK = """\
cloud: lab
hosts:
  rack:
    connect: ssh://root@127.0.0.1:22022
    pools:
      thick: {lvm: vg-libvirt, disks: [/dev/sda4]}
      thin: {lvm: vg-thin, thin: {overcommit: 2}}
networks: {lan: {bridge: br0, subnet: 192.168.6.0/24}}
users: {admin: {ssh_keys: [./key.pub], sudo: nopasswd}}
templates: {base: {os: debian12, disk: 3G}}
vms:
  one: {template: base, pool: thick, vcpus: 2, memory: 512M, address: 192.168.6.60}
"""


def test_a_plan_on_the_rack(tmp_path: Path) -> None:
    """Its VMs are of this cloud, and the file does not have them: they stay."""
    host = machines.facts("rack", *POOLS["rack"])
    code, made = plan(tmp_path, RACK, host)
    assert (code, made["refused"]) == (0, [])
    rows: list[dict[str, str]] = made["actions"]  # type: ignore[assignment]
    assert [row["object"] for row in rows] == ["template base", "vm one"]
    left: list[dict[str, str]] = made["unlisted"]  # type: ignore[assignment]
    assert {row["object"] for row in left} >= {"vm web", "vm db"}
    code, made = plan(tmp_path, RACK.replace("pool: thick", "pool: thin").replace("disk: 3G", "disk: 4G"), host)
    said = [row["what"] for row in made["refused"]]  # type: ignore[attr-defined]
    assert code == 4 and any("times what it has; the file allows 2" in what for what in said), said
