"""What makes a rack itself: files of its first boot, and those that let a client in."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from vmwright.rack import record, seed
from vmwright.rack.contents import GROW, Image
from vmwright.rack.record import Disks, Record
from vmwright.rack.shape import REFERENCE, Cable, Nic
from vmwright.units import GIB

LAB = Record("lab", 2, 22023)
READY = Disks(Image.READY, "/cache/ready.qcow2", REFERENCE)


def test_the_ready_image_has_a_bridge_for_guests() -> None:
    network = seed.netplan(LAB, READY)["network"]
    assert sorted(network["ethernets"]) == ["eno1", "eno2"]
    assert network["ethernets"]["eno1"]["addresses"] == ["10.0.2.15/24"]
    assert "addresses" not in network["ethernets"]["eno2"]
    assert (network["bridges"]["br0"]["interfaces"], network["bridges"]["br0"]["addresses"]) == (
        ["eno2"], ["192.168.6.199/24"])


def test_a_plain_server_has_no_bridge() -> None:
    network = seed.netplan(LAB, replace(READY, image=Image.BARE))["network"]
    assert "bridges" not in network
    assert network["ethernets"]["eno2"]["addresses"] == ["192.168.6.199/24"]


def test_without_a_private_nic_the_bridge_has_no_port() -> None:
    shape = replace(REFERENCE, nics=(Nic("eth0", Cable.OUTSIDE),))
    network = seed.netplan(LAB, replace(READY, shape=shape))["network"]
    assert network["bridges"]["br0"]["interfaces"] == [] and sorted(network["ethernets"]) == ["eth0"]


def test_each_port_is_named_by_its_address() -> None:
    files = seed.files(LAB, READY)
    links = sorted(path.rpartition("/")[2] for path in files if path.endswith(".link"))
    assert links == [f"10-{name}.link" for name in ("eno1", "eno2", "ens1f0", "ens1f1", "ens1f2", "ens1f3")]
    assert files["etc/systemd/network/10-eno1.link"][1] == (
        "[Match]\nMACAddress=94:57:a5:5a:d9:c0\nType=ether\n\n[Link]\nName=eno1\n")
    assert json.loads(files["etc/netplan/10-rack.yaml"][1]) == seed.netplan(LAB, READY)
    assert files["etc/netplan/10-rack.yaml"][0] == 0o600


@pytest.mark.parametrize(("size", "grows"), [(20 * GIB, False), (21 * GIB, True)])
def test_a_larger_disk_is_told_to_the_first_boot(size: int, grows: bool) -> None:
    shape = replace(REFERENCE, disks=(replace(REFERENCE.disks[0], size=size),))
    assert (GROW.lstrip("/") in seed.files(LAB, replace(READY, shape=shape))) == grows


def test_keys_are_made_once_and_openssh_reads_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a path with spaces"))
    rack = record.enroll("lab", 22023)
    seed.make_keys(rack.folder, "lab")
    keys = [(rack.folder / name).read_text() for name in (seed.KEY, seed.HOST_KEY)]
    seed.make_keys(rack.folder, "lab")
    assert keys == [(rack.folder / name).read_text() for name in (seed.KEY, seed.HOST_KEY)]
    seed.write_client(rack)
    for host in ("lab", "127.0.0.1"):
        asked = ["ssh", "-G", "-F", str(rack.folder / "ssh_config"), host]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        assert {f"identityfile {rack.folder}/id_ed25519", f"userknownhostsfile {rack.folder}/known_hosts",
                "stricthostkeychecking true", "user root"} <= set(said)
        assert ("port 22023" in said) == (host == "lab")  # the cloud's file gives the port itself
    found = subprocess.run(["ssh-keygen", "-F", "[127.0.0.1]:22023", "-f", str(rack.folder / "known_hosts")],
                           capture_output=True, text=True, check=True).stdout
    assert (rack.folder / "host_key.pub").read_text().split()[1] in found
    with tarfile.open(fileobj=io.BytesIO(seed.archive(rack, READY, "Types: deb\n"))) as archive:
        modes = {entry.name: entry.mode for entry in archive}
    assert modes["etc/ssh/ssh_host_ed25519_key"] == modes["root/.ssh/authorized_keys"] == 0o600
