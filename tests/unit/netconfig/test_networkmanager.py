"""NetworkManager: connections of our own with what the NIC's has; nobody else's file is touched."""

from __future__ import annotations

import pytest
from tests.unit.netconfig.hosts import MAC, after, bridge, uplink, wiring

from vmwright.facts.model import LinkFacts, ProfileFacts, WiringFacts
from vmwright.facts.network import parse_profiles
from vmwright.netconfig import networkmanager
from vmwright.netconfig.common import Unfit, Uplink

OWN, PORT = (f"/etc/NetworkManager/system-connections/vmwright-br0{part}.nmconnection" for part in ("", "-port"))
STATIC = """
profile:eno1
connection.id:Wired connection 1
connection.uuid:41b8f1a6-3ec8-3f77-9c1c-41e1b2a0d001
connection.type:802-3-ethernet
802-3-ethernet.mtu:1400
ipv4.method:manual
ipv4.dns:192.168.6.11,9.9.9.9
ipv4.dns-search:lab.example
ipv4.addresses:192.168.6.200/24, 192.168.7.200/24
ipv4.gateway:192.168.6.1
ipv4.routes:10.7.0.0/16 192.168.6.9 5, 10.8.0.0/16 192.168.6.9
ipv4.route-metric:-1
ipv4.never-default:no
ipv4.may-fail:yes
ipv4.dhcp-client-id:
ipv6.method:auto
ipv6.addresses:
ipv6.addr-gen-mode:stable-privacy
"""
LENT = """
profile:eno1
connection.id:eno1
connection.uuid:u-1
802-3-ethernet.mtu:auto
ipv4.method:auto
ipv6.method:auto
"""


def host(text: str, files: dict[str, str] | None = None) -> WiringFacts:
    found = wiring(files or {})
    return WiringFacts(files=found.files, profiles=parse_profiles(text))


def made(text: str, one: Uplink | None = None) -> dict[str, str]:
    """Our connections. A second look, when ours are active and the NIC's own is not, finds nothing to change."""
    one = one or uplink()
    first = after({}, networkmanager.make(host(text), [one], {}))
    assert after({}, networkmanager.make(host("", first), [one], {})) == first
    return first


def section(text: str, name: str) -> dict[str, str]:
    body = text.partition(f"[{name}]\n")[2].partition("\n[")[0]
    return dict(line.split("=", 1) for line in body.splitlines() if line)


def test_what_the_nics_connection_has_becomes_the_bridges() -> None:
    found = made(STATIC)
    assert section(found[OWN], "ipv4") == {
        "method": "manual", "address1": "192.168.6.200/24", "address2": "192.168.7.200/24", "gateway": "192.168.6.1",
        "dns": "192.168.6.11;9.9.9.9;", "dns-search": "lab.example;", "may-fail": "true", "never-default": "false",
        "route1": "10.7.0.0/16,192.168.6.9,5", "route2": "10.8.0.0/16,192.168.6.9"}
    assert section(found[OWN], "ipv6") == {"method": "auto", "addr-gen-mode": "stable-privacy"}
    assert section(found[OWN], "bridge") == {"mac-address": MAC, "stp": "false", "forward-delay": "0"}
    assert section(found[OWN], "ethernet") == section(found[PORT], "ethernet") == {"mtu": "1400"}


@pytest.mark.parametrize(("said", "routes"), [
    ("10.41.0.0/24 10.40.0.9", ["10.41.0.0/24,10.40.0.9"]),
    ("10.41.0.0/24 10.40.0.9 7, 10.42.0.0/16 10.40.0.8", ["10.41.0.0/24,10.40.0.9,7", "10.42.0.0/16,10.40.0.8"]),
    ("10.41.0.0/24, 10.42.0.0/16", ["10.41.0.0/24,0.0.0.0", "10.42.0.0/16,0.0.0.0"]),
    ("10.41.0.0/24 10.40.0.9 7 mtu=1400", ["10.41.0.0/24,10.40.0.9,7"]),
    ("{ ip = 10.7.0.0/16 }; { ip = 10.8.0.0/16, nh = 10.0.0.9, mt = 5 }", ["10.7.0.0/16,0.0.0.0",
                                                                           "10.8.0.0/16,10.0.0.9,5"]),
])
def test_routes_as_old_and_new_nmcli_tell_them(said: str, routes: list[str]) -> None:
    four = section(made(f"{LENT}ipv4.routes:{said}\n")[OWN], "ipv4")
    assert [value for key, value in sorted(four.items()) if key.startswith("route")] == routes


def test_the_port_belongs_to_the_bridge_and_both_win_over_the_connection_that_is_there() -> None:
    found = made(STATIC)
    ours, port = (section(found[path], "connection") for path in (OWN, PORT))
    assert (ours["type"], ours["interface-name"], ours["autoconnect-slaves"]) == ("bridge", "br0", "1")
    assert (port["type"], port["interface-name"], port["slave-type"]) == ("ethernet", "eno1", "bridge")
    assert port["master"] == ours["uuid"] != port["uuid"]
    assert ours["autoconnect-priority"] == port["autoconnect-priority"] == "100"


def test_addresses_of_the_clouds_file_take_the_place_of_dhcp_with_the_gateway_and_dns_that_it_gave() -> None:
    found = made(LENT, uplink(bridge(addresses=["10.0.0.5/24"]), "10.0.0.1", ("10.0.0.53", "fd00::53")))
    assert section(found[OWN], "ipv4") == {"method": "manual", "address1": "10.0.0.5/24", "gateway": "10.0.0.1",
                                           "dns": "10.0.0.53;"}


def test_what_the_clouds_file_says_counts() -> None:
    found = made(STATIC, uplink(bridge(addresses=["192.168.6.201/24"], gateway="192.168.6.2", dns=("1.1.1.1",),
                                       stp=True, forward_delay=4)))
    four = section(found[OWN], "ipv4")
    assert (four["address1"], four["gateway"], four["dns"]) == ("192.168.6.201/24", "192.168.6.2", "1.1.1.1;")
    assert "address2" not in four and four["route1"] == "10.7.0.0/16,192.168.6.9,5"
    assert section(found[OWN], "bridge")["forward-delay"] == "4"


def test_dhcp_stays_dhcp() -> None:
    assert section(made(LENT)[OWN], "ipv4") == {"method": "auto"}


def test_no_addresses_is_a_bridge_for_guests_alone() -> None:
    assert section(made(LENT, uplink(bridge(addresses=[])))[OWN], "ipv4") == {"method": "disabled"}


def test_a_nic_that_nothing_set_up() -> None:
    assert section(made("")[OWN], "ipv4") == {"method": "disabled"}


def test_a_vlan_leaves_the_nic_as_it_is() -> None:
    found = made(STATIC, uplink(bridge(vlan=20, addresses=["10.20.0.5/24"])))
    assert section(found[PORT], "connection")["type"] == "vlan"
    assert section(found[PORT], "vlan") == {"parent": "eno1", "id": "20", "flags": "1"}
    assert section(found[PORT], "connection")["interface-name"] == "eno1.20"
    assert section(found[OWN], "ipv4") == {"method": "manual", "address1": "10.20.0.5/24"}
    assert "[ethernet]" not in found[OWN]


def test_a_bond_is_not_moved() -> None:
    with pytest.raises(Unfit, match="bond0 is a bond, and NetworkManager's connections for it are not moved yet"):
        networkmanager.make(host(LENT), [uplink(bridge(nic="bond0"))], {"bond0": LinkFacts("bond0", "bond")})


def test_our_own_connection_that_is_broken_is_told() -> None:
    with pytest.raises(Unfit, match="is not understood"):
        networkmanager.make(host("", {OWN: "no section\n"}), [uplink()], {})


def test_a_connection_of_netplans_is_not_networkmanagers_own() -> None:
    profile = ProfileFacts("eno1", "netplan-eno1", "u-1")
    assert networkmanager.has(WiringFacts(profiles=(profile,)), "eno1") is None
    assert networkmanager.has(WiringFacts(profiles=(ProfileFacts("eno1", "eno1", "u-1"),)), "eno1") is not None
