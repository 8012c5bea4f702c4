"""How a host's network is set up: parsers of what its shell says, and the shell's own words on this machine."""

from __future__ import annotations

import base64
import subprocess
from ipaddress import IPv4Interface

import pytest

from vmwright.facts import network, probes
from vmwright.facts.model import FileFacts, ProfileFacts, RouteFacts
from vmwright.facts.pci import session_address
from vmwright.spec.cloud import BridgeSpec

BRIDGES = (BridgeSpec("br0", "eno1", addresses=(IPv4Interface("10.0.0.5/24"),)), BridgeSpec("br1", "eno2"))
WIRING = """\
tool\tnetplan
tool\tifup
active\tsystemd-networkd
wireless\twlan0
dns\t127.0.0.53
dns\t10.0.0.53
filter\tbridge-nf-call-iptables\t1
pending\tbr0, br1
resolved\t10.0.0.5
resolved\t10.0.0.5
session\t192.0.2.7 50000 10.0.0.5 22
"""
ROUTES = """[{"dst":"default","gateway":"10.0.0.9","dev":"eno2","metric":200,"flags":[]},
{"dst":"default","gateway":"10.0.0.1","dev":"eno1","flags":[]},{"dst":"default","dev":"tun0","metric":50}]"""
# What nmcli 1.42 tells of a connection in terse form.
PROFILES = r"""
profile:eno1
connection.id:the \\ first\: eno1
connection.uuid:41b8f1a6-3ec8-3f77-9c1c-41e1b2a0d001
connection.interface-name:eno1
802-3-ethernet.mtu:auto
802-1x.password:<hidden>
ipv4.method:manual
ipv4.addresses:10.0.0.5/24
ipv4.dns-search:--
ipv6.addresses:fd00\:\:5/64
GENERAL.NAME:eno1
"""


def files(*rows: tuple[str, str, str]) -> str:
    return "".join(f"{key}\t{path}\t{base64.b64encode(text.encode()).decode()}\n" for key, path, text in rows)


def texts(**changed: str) -> dict[str, str]:
    return {"wiring": WIRING, "network-files": "", "profiles": "", "routes": ROUTES, "answers": ""} | changed


def test_a_host_without_bridges_is_asked_nothing() -> None:
    assert network.commands(()) == {}


def test_only_addresses_of_the_file_are_asked_of_the_others() -> None:
    assert network.commands(BRIDGES)["answers"][-2:] == ["eno1", "10.0.0.5"]


def test_how_a_host_is_wired() -> None:
    found = network.parse(texts(answers="10.0.0.5\t52:54:00:00:00:01\n"))
    assert (found.tools, found.active, found.wireless) == (("netplan", "ifup"), ("systemd-networkd",), ("wlan0",))
    assert found.dns == ("10.0.0.53",), "the resolver on the host itself asks others"
    assert (found.filter, found.pending, found.session) == ((("bridge-nf-call-iptables", 1),), "br0, br1", "10.0.0.5")
    assert found.resolved == ("10.0.0.5",)
    assert found.answered == (("10.0.0.5", "52:54:00:00:00:01"),)


def test_the_preferred_default_route_is_the_first() -> None:
    assert network.parse_routes(ROUTES) == (RouteFacts("eno1", "10.0.0.1"), RouteFacts("tun0"),
                                            RouteFacts("eno2", "10.0.0.9"))


def test_connections_of_networkmanager() -> None:
    (found,) = network.parse_profiles(PROFILES)
    assert found == ProfileFacts("eno1", r"the \ first: eno1", "41b8f1a6-3ec8-3f77-9c1c-41e1b2a0d001", (
        ("connection.interface-name", "eno1"), ("802-3-ethernet.mtu", "auto"), ("ipv4.method", "manual"),
        ("ipv4.addresses", "10.0.0.5/24"), ("ipv6.addresses", "fd00::5/64")))
    assert (found.get("ipv4.method"), found.get("ipv4.gateway")) == ("manual", "")


def test_files_with_what_we_wrote_there_last() -> None:
    found, secret = network.parse_files(files(
        ("there", "/etc/netplan/b.yaml", "b"), ("ours", "/etc/netplan/a.yaml", "a"),
        ("ours", "/etc/netplan/b.yaml", "c")))
    assert found == (FileFacts("/etc/netplan/a.yaml", None, "a"), FileFacts("/etc/netplan/b.yaml", "b", "c"))
    assert secret == ()


@pytest.mark.parametrize(("text", "shown"), [
    ('access-points: {x: {password: "s3,cr et", mode: ap}}', 'access-points: {x: {password: (secret), mode: ap}}'),
    ("        password: plain, with a comma\n", "        password: (secret)\n"),
    ("auth: {method: tls, client-key-password: x}", "auth: {method: tls, client-key-password: (secret)}"),
    ("keys: {private: 4GgaQCy68nzNsUE5aJ9fuLzHhB65tAlwbmA72MWnOm8=}", "keys: {private: (secret)}"),
    ("    wpa-psk 0123abcd\n", "    wpa-psk (secret)\n"),
    ("    wireless-key1 s:abc\n", "    wireless-key1 (secret)\n"),
    ("addresses: [10.0.0.5/24]\nmonkey: no\nroutes:\n  - to: default\n", None),
])
def test_secrets_stay_on_the_host(text: str, shown: str | None) -> None:
    (found,), secret = network.parse_files(files(("there", "/etc/netplan/x.yaml", text)))
    assert found.text == (shown or text)
    assert secret == (("/etc/netplan/x.yaml",) if shown else ())


def test_an_answer_that_ends_early_is_refused() -> None:
    with pytest.raises(ValueError, match="it ended too early"):
        network.parse(texts(wiring=WIRING.partition("session")[0]))


@pytest.mark.parametrize(("text", "address"), [
    ("192.0.2.7 50000 10.0.0.5 22", "10.0.0.5"), ("fe80::1%eno1 5 fe80::2%eno1 22", "fe80::2"), ("", None),
    ("a b", None)])
def test_the_address_that_a_session_came_to(text: str, address: str | None) -> None:
    assert session_address(text) == address


def test_the_probes_are_words_of_a_shell() -> None:
    """On this machine, whatever its network is like: each of them ends well, and is understood."""
    done = subprocess.run(["sh", "-s"], input=probes.script(network.commands(BRIDGES[1:])), capture_output=True,
                          text=True)
    outputs = probes.split(done.stdout)
    assert outputs.keys() == network.commands(BRIDGES).keys()
    found = network.parse({name: output.text for name, output in outputs.items()})
    assert not found.pending and not found.answered
