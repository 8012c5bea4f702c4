"""The starter file: right as it stands, on every host, and it can be planned there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.unit.facts.test_gather import inventory
from tests.unit.facts.test_probes import recorded
from tests.unit.plan.build import public_key

from vmwright.cli.starter import cloud_name, free_name, free_subnet, render, ssh_key
from vmwright.facts.gather import assemble
from vmwright.facts.model import Facts, HostFacts, Kvm, LinkFacts, NetworkFacts, PathFacts, PoolFacts
from vmwright.facts.probes import TOOLS
from vmwright.names import HOST_STATE
from vmwright.plan.diff import make_plan
from vmwright.spec.cloud import Cloud
from vmwright.spec.load import load
from vmwright.units import GIB, MIB

POOL = "/var/lib/libvirt/vms"


def host(recording: str, **changed: object) -> HostFacts:
    """A recorded host that can make templates."""
    facts = assemble("local", recorded(recording), inventory(domains=(), pools=(), networks=()))
    paths = (PathFacts(POOL, False, 100 * GIB), PathFacts(HOST_STATE, True, 100 * GIB))
    plain = {"tools": TOOLS, "paths": paths, "intents": ()}
    return replace(facts, **(plain | changed))  # type: ignore[arg-type]


def read(text: str, folder: Path) -> Cloud:
    """The cloud of a starter file, with a key beside it."""
    (folder / "id.pub").write_text(public_key())
    file = folder / "cloud.yaml"
    file.write_text(text)
    return load(file)


@pytest.mark.parametrize("recording", ["debian12", "ubuntu2004"])
@pytest.mark.parametrize("connect", ["local", "ssh://root@192.168.6.200"])
def test_it_is_right_and_can_be_planned(recording: str, connect: str, tmp_path: Path) -> None:
    facts = host(recording, hostname="kvm1.example.org")
    cloud = read(render("", connect, facts, "./id.pub", key_there=True), tmp_path)
    assert not (cloud.warnings or cloud.missing or cloud.not_yet)
    assert cloud.name == "kvm1-cloud"
    assert [vm.name for vm in cloud.vms] == ["web-1", "web-2", "db"]
    plan = make_plan(cloud, Facts((facts,)))
    assert not plan.refused, [str(problem) for problem in plan.refused]
    assert len(plan.actions) == 6


@pytest.mark.parametrize(("available", "memory"), [(2 * GIB, 512 * MIB), (6 * GIB, GIB), (64 * GIB, 2 * GIB)])
def test_its_vms_fit_into_the_memory(available: int, memory: int, tmp_path: Path) -> None:
    facts = host("debian12", memory_available=available)
    cloud = read(render("lab", "local", facts, "./id.pub", key_there=True), tmp_path)
    assert {vm.memory for vm in cloud.vms} == {memory}
    assert not make_plan(cloud, Facts((facts,))).refused


def test_names_that_the_host_has_already_are_not_taken(tmp_path: Path) -> None:
    facts = host("debian12", pools=(PoolFacts("vms", "dir", "/else", True, True, GIB, 9 * GIB),),
                 networks=(NetworkFacts("lan", True, True, "nat", "virbr9", "10.9.9.1/24"),))
    other = assemble("local", recorded("debian12"), inventory()).domains[0]
    facts = replace(facts, domains=(replace(other, name="web-1"), replace(other, name="db")))
    cloud = read(render("lab", "local", facts, "./id.pub", key_there=True), tmp_path)
    assert [pool.name for pool in cloud.pools] == ["vms2"]
    assert [network.name for network in cloud.networks] == ["lan2"]
    assert [vm.name for vm in cloud.vms] == ["web2-1", "web2-2", "db2"]
    assert not make_plan(cloud, Facts((facts,))).refused


def test_a_pool_that_is_there_keeps_its_name(tmp_path: Path) -> None:
    facts = host("debian12", pools=(PoolFacts("mine", "dir", POOL, True, True, 99 * GIB, 99 * GIB),))
    cloud = read(render("lab", "local", facts, "./id.pub", key_there=True), tmp_path)
    assert [pool.name for pool in cloud.pools] == ["mine"]


def test_the_hosts_own_bridge_is_offered() -> None:
    text = render("lab", "local", host("ubuntu2004"), "./id.pub", key_there=True)
    assert "    # bridge: br0               # an existing bridge of the host\n    # subnet: 192.168.6.0/24\n" in text
    assert "    # bridge: br0               # an existing bridge of the host\n    # subnet: 192.168.1.0/24\n" in render(
        "lab", "local", host("debian12", links=()), "./id.pub", key_there=True)


def test_it_says_how_guests_will_run() -> None:
    facts = host("debian12", kvm=Kvm.BROKEN, kvm_reason="it\nbroke  down")
    slow = "guests run by emulation, which is slow (KVM is broken: it broke down)\n"
    assert slow in render("", "local", facts, "./k", key_there=True)
    assert "guests run by KVM\n" in render("", "local", replace(facts, kvm=Kvm.WORKS), "./k", key_there=True)


@pytest.mark.parametrize(("addresses", "subnet"), [
    ((), "192.168.130.0/24"), (("192.168.130.7/24",), "192.168.131.0/24"), (("192.168.0.1/16",), "172.28.130.0/24"),
    (("192.168.128.1/18", "192.168.200.1/21"), "192.168.192.0/24"),
    (("0.0.0.0/0",), "10.213.77.0/24")])  # nothing is free: the plan says what is in the way
def test_a_subnet_that_nobody_has(addresses: tuple[str, ...], subnet: str) -> None:
    facts = host("debian12", links=(LinkFacts("eth0", "ethernet", addresses),))
    assert free_subnet(facts) == IPv4Network(subnet)


def test_networks_that_are_off_count_too() -> None:
    facts = host("debian12", links=(), networks=(NetworkFacts("x", False, True, "nat", None, "192.168.130.1/24"),))
    assert free_subnet(facts) == IPv4Network("192.168.131.0/24")


@pytest.mark.parametrize(("hostname", "name"), [
    ("kvm1", "kvm1-cloud"), ("KVM_1.example.org", "kvm-1-cloud"), ("", "my-cloud"), ("---", "my-cloud"),
    ("x" * 63, "x" * 40 + "-cloud"), ("äö", "my-cloud"), ("a" * 39 + "-b", "a" * 39 + "-cloud")])
def test_the_clouds_name_is_a_host_name(hostname: str, name: str) -> None:
    assert cloud_name(host("debian12", hostname=hostname)) == name


def test_free_names() -> None:
    assert [free_name("web", taken) for taken in ((), ("web",), ("web", "web2"))] == ["web", "web2", "web3"]


def test_how_to_make_a_key_is_said_only_when_there_is_none() -> None:
    there, lacking = (render("lab", "local", host("debian12"), "~/.ssh/id_ed25519.pub", key_there=there)
                      for there in (True, False))
    line = "  admin: {ssh_keys: [~/.ssh/id_ed25519.pub], sudo: nopasswd}"
    assert f"{line}\n" in there and "ssh-keygen" not in there
    assert f"{line}    # not there yet: ssh-keygen -t ed25519\n" in lacking


def test_the_users_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ssh_key() == "~/.ssh/id_ed25519.pub"
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_rsa.pub").write_text(public_key())
    assert ssh_key() == "~/.ssh/id_rsa.pub"
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(public_key())
    assert ssh_key() == "~/.ssh/id_ed25519.pub"
