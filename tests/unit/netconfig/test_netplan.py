"""Netplan: what the NIC has becomes the bridge's, by a file of ours; the administrator's files lose only that."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.unit.netconfig.hosts import MAC, after, bridge, uplink, wiring

from vmwright.netconfig import netplan
from vmwright.netconfig.common import Unfit, Uplink

OWN = "/etc/netplan/99-vmwright-br0.yaml"
STATIC = """\
# The installer's, and mine
network:
    version: 2
    renderer: networkd
    ethernets:
        eno1:   # the rack switch, port 7
            addresses:
              - 192.168.6.200/24
              - "fd00::2/64"
            gateway4: 192.168.6.1
            nameservers: {addresses: [192.168.6.11], search: [lab.example]}
            mtu: 1400
        # the other
        eno2: {dhcp4: true}
"""
LENT = "network: {version: 2, ethernets: {eno1: {dhcp4: true}}}\n"


def read(text: str) -> Any:
    return YAML(typ="safe").load(text)


def files_of(files: dict[str, str], *uplinks: Uplink) -> dict[str, str]:
    """The host's files with bridges. A second look finds nothing to change."""
    uplinks = uplinks or (uplink(),)
    made = after(files, netplan.make(wiring(files), uplinks))
    assert after(made, netplan.make(wiring(made), uplinks)) == made
    return made


def own(files: dict[str, str], *uplinks: Uplink) -> Any:
    return read(files_of(files, *uplinks)[OWN])["network"]


def test_what_the_nic_has_becomes_the_bridges() -> None:
    made = files_of({"/etc/netplan/01-it.yaml": STATIC})
    network = read(made[OWN])["network"]
    assert network["ethernets"] == {"eno1": {"dhcp4": False, "dhcp6": False, "link-local": []}}
    assert network["bridges"] == {"br0": {
        "interfaces": ["eno1"], "macaddress": MAC, "mtu": 1400, "addresses": ["192.168.6.200/24", "fd00::2/64"],
        "routes": [{"to": "0.0.0.0/0", "via": "192.168.6.1"}],
        "nameservers": {"addresses": ["192.168.6.11"], "search": ["lab.example"]},
        "parameters": {"stp": False, "forward-delay": 0}}}
    assert made[OWN].startswith("# Written by vmwright for bridge br0; changes here are told as drift")


def test_the_administrators_file_loses_that_and_keeps_all_else_comments_too() -> None:
    made = files_of({"/etc/netplan/01-it.yaml": STATIC})
    assert made["/etc/netplan/01-it.yaml"] == """\
# vmwright: eno1 is a port of bridge br0, which has its addresses. As it was: /var/lib/vmwright/before/etc/netplan/01-it.yaml
# The installer's, and mine
network:
    version: 2
    renderer: networkd
    ethernets:
        eno1:   # the rack switch, port 7
            mtu: 1400
        # the other
        eno2: {dhcp4: true}
"""  # noqa: E501


def test_what_a_later_file_overrides_is_left_where_it_stands() -> None:
    """Of a single value the last counts: our file switches DHCP off, and no other is touched."""
    files = {"/etc/netplan/01-it.yaml": LENT}
    made = files_of(files)
    assert made["/etc/netplan/01-it.yaml"] == LENT
    assert read(made[OWN])["network"]["bridges"]["br0"]["dhcp4"] is True


def test_addresses_of_the_clouds_file_take_the_place_of_dhcp_with_the_gateway_and_dns_that_it_gave() -> None:
    made = own({"/etc/netplan/01-it.yaml": LENT},
               uplink(bridge(addresses=["10.0.0.5/24", "10.0.1.5/24"]), "10.0.0.1", ("10.0.0.53",)))
    assert made["bridges"]["br0"] == {
        "interfaces": ["eno1"], "macaddress": MAC, "dhcp4": False, "addresses": ["10.0.0.5/24", "10.0.1.5/24"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}], "nameservers": {"addresses": ["10.0.0.53"]},
        "parameters": {"stp": False, "forward-delay": 0}}


def test_what_the_clouds_file_says_counts() -> None:
    made = own({"/etc/netplan/01-it.yaml": STATIC}, uplink(bridge(
        addresses=["192.168.6.201/24"], gateway="192.168.6.2", dns=("9.9.9.9",), stp=True, forward_delay=4)))
    found = made["bridges"]["br0"]
    assert found["addresses"] == ["192.168.6.201/24", "fd00::2/64"], "IPv6 is not in the cloud's file: it stays"
    assert found["routes"] == [{"to": "0.0.0.0/0", "via": "192.168.6.2"}]
    assert found["nameservers"] == {"addresses": ["9.9.9.9"], "search": ["lab.example"]}
    assert found["parameters"] == {"stp": True, "forward-delay": 4}


def test_no_addresses_is_a_bridge_for_guests_alone() -> None:
    found = own({"/etc/netplan/01-it.yaml": LENT}, uplink(bridge(addresses=[])))["bridges"]["br0"]
    assert found == {"interfaces": ["eno1"], "macaddress": MAC, "dhcp4": False,
                     "parameters": {"stp": False, "forward-delay": 0}}


def test_a_vlan_leaves_the_nic_as_it_is() -> None:
    files = {"/etc/netplan/01-it.yaml": STATIC}
    made = files_of(files, uplink(bridge(vlan=20, addresses=["10.20.0.5/24"])))
    assert made["/etc/netplan/01-it.yaml"] == STATIC
    network = read(made[OWN])["network"]
    assert "ethernets" not in network
    assert network["vlans"] == {"eno1.20": {"id": 20, "link": "eno1", "dhcp4": False, "dhcp6": False, "link-local": []}}
    assert network["bridges"]["br0"]["interfaces"] == ["eno1.20"]
    assert network["bridges"]["br0"]["addresses"] == ["10.20.0.5/24"]


def test_a_vlan_of_a_nic_that_nobody_set_up() -> None:
    network = own({"/etc/netplan/01-it.yaml": LENT}, uplink(bridge(nic="eno2", vlan=7, addresses=[])))
    assert network["ethernets"] == {"eno2": {"dhcp4": False, "dhcp6": False, "link-local": []}}


def test_two_bridges_at_once_one_over_the_nic_and_one_over_a_vlan_of_it() -> None:
    made = files_of({"/etc/netplan/01-it.yaml": STATIC}, uplink(),
                    uplink(bridge("br20", vlan=20, addresses=[])))
    assert sorted(made) == ["/etc/netplan/01-it.yaml", OWN, "/etc/netplan/99-vmwright-br20.yaml"]


@pytest.mark.parametrize("match", [f"match: {{macaddress: '{MAC.upper()}'}}, set-name: lan0",
                                   "match: {name: 'en*', driver: tg3}, set-name: eno1", "match: {name: eno1}"])
def test_a_nic_under_another_name_in_netplan(match: str) -> None:
    made = own({"/etc/netplan/01-it.yaml": f"network: {{version: 2, ethernets: {{main: {{{match}, dhcp4: true}}}}}}\n"})
    assert made["bridges"]["br0"]["interfaces"] == ["main"]
    assert made["ethernets"] == {"main": {"dhcp4": False, "dhcp6": False, "link-local": []}}


@pytest.mark.parametrize("match", ["{name: 'en*'}", "{driver: tg3}"])
def test_a_definition_for_several_nics_is_not_taken_for_one(match: str) -> None:
    files = {"/etc/netplan/01-it.yaml": f"network: {{ethernets: {{all: {{match: {match}, dhcp4: true}}}}}}\n"}
    with pytest.raises(Unfit, match="netplan's `all` is for eno1 and for others that match") as refused:
        netplan.make(wiring(files), [uplink()])
    assert refused.value.todo.startswith("give eno1 a definition of its own in /etc/netplan")


def test_a_bond_is_a_port_like_a_nic() -> None:
    bond = ("network: {version: 2, ethernets: {eno1: {}, eno2: {}}, bonds: {bond0: {interfaces: [eno1, eno2], "
            "addresses: [10.0.0.5/24], parameters: {mode: active-backup}}}}\n")
    made = files_of({"/etc/netplan/01-it.yaml": bond}, uplink(bridge(nic="bond0")))
    network = read(made[OWN])["network"]
    assert network["bonds"] == {"bond0": {"dhcp4": False, "dhcp6": False, "link-local": []}}
    assert read(made["/etc/netplan/01-it.yaml"])["network"]["bonds"]["bond0"] == {
        "interfaces": ["eno1", "eno2"], "parameters": {"mode": "active-backup"}}


def test_files_in_json_and_of_several_authors() -> None:
    """Both set addresses on the NIC; netplan joins lists, so both lose theirs. /etc comes before /lib."""
    one = '{"network": {"version": 2, "ethernets": {"eno1": {"addresses": ["10.0.0.5/24"]}, "eno2": {}}}}\n'
    two = "network:\n  ethernets:\n    eno1:\n      addresses: [10.0.1.5/24]\n      routes: []\n"
    files = {"/etc/netplan/10-a.yaml": one, "/etc/netplan/20-b.yaml": two, "/lib/netplan/10-a.yaml": "network: 7\n"}
    made = files_of(files)
    assert read(made[OWN])["network"]["bridges"]["br0"]["addresses"] == ["10.0.0.5/24", "10.0.1.5/24"]
    assert read(made["/etc/netplan/10-a.yaml"]) == {"network": {"version": 2, "ethernets": {"eno1": {}, "eno2": {}}}}
    assert read(made["/etc/netplan/20-b.yaml"]) == {"network": {"ethernets": {"eno1": {}}}}


def test_the_renderer_of_a_nic_is_the_bridges_too() -> None:
    made = own({"/etc/netplan/01-it.yaml": LENT.replace("dhcp4", "renderer: NetworkManager, dhcp4")})
    assert made["bridges"]["br0"]["renderer"] == "NetworkManager"


def test_cloud_init_does_not_write_its_file_again() -> None:
    made = files_of({"/etc/netplan/50-cloud-init.yaml": STATIC})
    assert made[netplan.CLOUD_INIT_OFF].endswith("network: {config: disabled}\n")
    assert netplan.CLOUD_INIT_OFF not in files_of({"/etc/netplan/50-cloud-init.yaml": LENT}), "it is not touched"


@pytest.mark.parametrize("path", ["/run/netplan/boot.yaml", "/lib/netplan/vendor.yaml"])
def test_a_file_that_is_not_the_administrators_is_not_rewritten(path: str) -> None:
    with pytest.raises(Unfit, match=f"{path} sets addresses on eno1, and it is not the administrator's"):
        netplan.make(wiring({path: STATIC}), [uplink()])


def test_a_file_with_a_secret_is_not_rewritten() -> None:
    files = {"/etc/netplan/01-it.yaml": STATIC}
    with pytest.raises(Unfit, match="holds a secret, which vmwright does not handle"):
        netplan.make(wiring(files, secret=("/etc/netplan/01-it.yaml",)), [uplink()])


def test_a_file_that_is_not_understood_is_refused_with_its_place() -> None:
    with pytest.raises(Unfit, match=r"/etc/netplan/01-it.yaml is not understood: .* line 1"):
        netplan.make(wiring({"/etc/netplan/01-it.yaml": "network: {a: [}\n"}), [uplink()])


@pytest.mark.parametrize("other", ["eno2: *base", "eno2:\n      <<: *base\n      optional: true"])
def test_anchors_that_the_cut_would_break_are_refused(other: str) -> None:
    text = f"network:\n  ethernets:\n    eno1: &base\n      addresses: [10.0.0.5/24]\n    {other}\n"
    with pytest.raises(Unfit, match="is written so that nothing can be taken out of it safely"):
        netplan.make(wiring({"/etc/netplan/01-it.yaml": text}), [uplink()])


def test_a_bridge_that_the_administrator_has_begun_is_not_mixed_with_ours() -> None:
    files = {"/etc/netplan/01-it.yaml": "network: {bridges: {br0: {interfaces: [eno1]}}}\n"}
    with pytest.raises(Unfit, match="a file in /etc/netplan defines br0 already"):
        netplan.make(wiring(files), [uplink()])
