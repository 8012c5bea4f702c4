"""A host's own services for guests: the real dnsmasq and nftables, in network namespaces of their own.

The host has a bridge br0 with a guest on it, and an interface out with somebody who knows no way back to the guest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.unit.plan.build import cloud

from vmwright.facts import probes
from vmwright.facts import services as facts
from vmwright.facts.service_model import ServicesFacts
from vmwright.host import services
from vmwright.names import DNS_CONFIG, NAT_RULES, NAT_SERVICE, NAT_TABLE
from vmwright.netconfig.common import NewFile
from vmwright.plan.service_files import Name, dns_files, nat_files, vm_names
from vmwright.spec.cloud import Cloud, DnsSpec, MasqueradeSpec, ServicesSpec

HOST, GUEST, OUT = (f"vmw{name}{os.getpid()}" for name in ("h", "g", "o"))
OWN, STRANGER = "10.77.0.1", "192.0.2.9"
DHCP = Path(__file__).parents[1] / "dhcp.py"
FILE = """\
hosts:
  here:
    connect: ssh://root@10.77.0.1
    pools: {images: {dir: /srv/images}}
    services: {dns: {dhcp: 10.77.0.100-10.77.0.109, upstream: 192.0.2.9}, ntp: true, proxy: true, masquerade: out}
networks: {lan: {bridge: br0, subnet: 10.77.0.0/24, search: lab.example}}
vms: {db: {template: base, address: 10.77.0.9}}
"""


def run(*argv: str, code: int = 0) -> str:
    """What a command prints."""
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def inside(name: str, *argv: str) -> list[str]:
    """The command, in a namespace."""
    return ["ip", "netns", "exec", name, *argv]


def on(name: str, *argv: str) -> str:
    return run(*inside(name, *argv))


@pytest.fixture(scope="module")
def island() -> Iterator[None]:
    """The three namespaces, wired."""
    try:
        for name in (HOST, GUEST, OUT):
            run("ip", "netns", "add", name)
            on(name, "ip", "link", "set", "lo", "up")
        on(HOST, "ip", "link", "add", "br0", "type", "bridge")
        for link, other, place in (("port", "eth0", GUEST), ("out", "eth0", OUT)):
            on(HOST, "ip", "link", "add", link, "type", "veth", "peer", "name", other, "netns", place)
            on(HOST, "ip", "link", "set", link, "up")
            on(place, "ip", "link", "set", other, "up")
        on(HOST, "ip", "link", "set", "port", "master", "br0")
        on(HOST, "ip", "link", "set", "br0", "up")
        on(HOST, "ip", "address", "add", f"{OWN}/24", "dev", "br0")
        on(HOST, "ip", "address", "add", "192.0.2.5/24", "dev", "out")
        on(OUT, "ip", "address", "add", f"{STRANGER}/24", "dev", "eth0")
        yield
    finally:
        for name in (HOST, GUEST, OUT):
            subprocess.run(["ip", "netns", "del", name], check=False)


@dataclass(frozen=True)
class Lab:
    """A cloud's file, and a directory in place of the host's /."""

    cloud: Cloud
    root: Path

    @property
    def services(self) -> ServicesSpec:
        return self.cloud.hosts[0].services

    def write(self, *files: NewFile) -> None:
        """The files, which know of each other by their places here."""
        for file in files:
            path = self.at(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text.replace("=/", f"={self.root}/"))
            (self.root / "var/lib/misc").mkdir(parents=True, exist_ok=True)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")


@pytest.fixture
def lab(island: None) -> Iterator[Lab]:
    """dnsmasq opens its list of names when it is root no more: the directory is not pytest's, which is closed."""
    root = Path(run("mktemp", "--directory").strip())
    root.chmod(0o755)
    yield Lab(cloud(FILE), root)
    shutil.rmtree(root)


def dns(lab: Lab) -> DnsSpec:
    assert lab.services.dns
    return lab.services.dns


@contextmanager
def dnsmasq(lab: Lab) -> Iterator[None]:
    """Our dnsmasq, as its unit starts it, until it answers."""
    names = (Name(IPv4Address(OWN), ("here",)), *vm_names(lab.cloud, "br0"))
    lab.write(*dns_files(lab.cloud, dns(lab), names, fedora=False))
    config = f"--conf-file={lab.at(DNS_CONFIG)}"
    assert subprocess.run(["dnsmasq", "--test", config], capture_output=True).stderr == b"dnsmasq: syntax check OK.\n"
    with subprocess.Popen(inside(HOST, "dnsmasq", "--keep-in-foreground", config)) as running:
        try:
            while not ask(HOST, "here"):
                assert running.poll() is None
                time.sleep(0.1)
            yield
        finally:
            running.terminate()


def ask(where: str, name: str) -> bytes:
    """The answer of our DNS; nothing when there is none."""
    argv = services.ask("udp", OWN, 53, services.dns_question(name))
    done = subprocess.run(inside(where, *argv), capture_output=True, text=True)
    return bytes.fromhex(done.stdout)


def seen(lab: Lab) -> ServicesFacts:
    """What the real probe tells of the host."""
    script = probes.script(facts.commands(lab.services))
    done = subprocess.run(inside(HOST, "sh", "-s"), input=script, capture_output=True, text=True, check=True)
    return facts.parse(probes.split(done.stdout)["services"].text)


def test_vms_are_known_by_name_and_addresses_are_lent(lab: Lab) -> None:
    with dnsmasq(lab):
        for name in ("db", "db.lab.example"):
            assert services.dns_answered(ask(HOST, name), "10.77.0.9")
        assert services.dns_answered(ask(HOST, "here"), OWN)
        lent = on(GUEST, sys.executable, str(DHCP), "eth0").split("\n")
        assert lent[1:] == [f"dns {OWN}", f"ntp {OWN}", f"router {OWN}", ""]
        address = lent[0].removeprefix("address ")
        assert address in {f"10.77.0.{last}" for last in range(100, 110)}
        assert services.dns_answered(ask(HOST, "stranger"), address), "by the name that it gave itself"
        assert f" {address} stranger " in (lab.root / "var/lib/misc/dnsmasq.vmwright.leases").read_text()
        listening = services.listening(67)
        assert "0.0.0.0%br0:67" in on(HOST, *listening).split()


def test_dns_is_for_that_bridge_alone(lab: Lab) -> None:
    with dnsmasq(lab):
        sockets = {(socket.address, socket.link) for socket in seen(lab).sockets if socket.address[:2] != "fe"}
        assert sockets == {(OWN, ""), ("0.0.0.0", "br0")}
        assert {socket.program for socket in seen(lab).sockets} == {"dnsmasq"}


SERVER = """
import socket
server = socket.create_server(("", 7000))
print("ready", flush=True)
line, peer = server.accept()
line.sendall(peer[0].encode())
"""
CLIENT = f"import socket; print(socket.create_connection(({STRANGER!r}, 7000), 10).recv(99).decode())"


def test_guests_get_out_with_the_hosts_address(lab: Lab) -> None:
    assert lab.services.masquerade
    on(GUEST, "ip", "address", "add", "10.77.0.9/24", "dev", "eth0")
    on(GUEST, "ip", "route", "add", "default", "via", OWN)
    on(HOST, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    lab.write(*nat_files(lab.cloud, lab.services.masquerade))
    rules = str(lab.at(NAT_RULES))
    on(HOST, "nft", "-c", "-f", rules)
    assert not seen(lab).table, "that was a look alone"
    for _ in range(2):
        on(HOST, "nft", "-f", rules)
    table = on(HOST, *services.table(NAT_TABLE))
    assert table.count("masquerade") == 1, "made anew, not twice"
    with subprocess.Popen(inside(OUT, sys.executable, "-c", SERVER), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stdout.readline() == "ready\n"
        assert on(GUEST, sys.executable, "-c", CLIENT) == "192.0.2.5\n"
    assert (seen(lab).table, seen(lab).forwarding, seen(lab).drops) == (True, True, ())
    on(HOST, "nft", "delete", "table", "ip", NAT_TABLE)


def test_a_firewall_that_drops_is_seen(lab: Lab) -> None:
    on(HOST, "nft", "add", "table", "inet", "admin")
    on(HOST, "nft", "add chain inet admin out { type filter hook forward priority 0; policy drop; }")
    assert seen(lab).drops == (("forward", "table inet admin, chain out"),)
    on(HOST, "nft", "delete", "table", "inet", "admin")


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    made = cloud(FILE)
    files = (*dns_files(made, DnsSpec("br0"), (), fedora=False), *nat_files(made, MasqueradeSpec("out", ())))
    units = [file for file in files if file.path.endswith(".service")]
    assert len(units) == 2 and units[1].path.endswith(NAT_SERVICE)
    for file in units:
        path = tmp_path / file.path.rpartition("/")[2]
        path.write_text(file.text)
        assert run("systemd-analyze", "verify", str(path)) == ""
