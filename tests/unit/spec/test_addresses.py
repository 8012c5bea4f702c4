"""Addresses and MACs: inside their subnets, nobody else's, none given twice; the default route on one NIC."""
# ruff: noqa: E501 (a row of a table is one line, with the whole message)

from __future__ import annotations

import tempfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmwright.errors import SpecError
from vmwright.spec.load import load
from vmwright.units import derive_mac

from .conftest import Desk

NET = """\
cloud: test
hosts:
  h: {connect: ssh://root@10.0.0.5, bridges: {br0: {nic: eno1, addresses: [10.0.0.6/24]}}}
networks: {lan: {bridge: br0, subnet: 10.0.0.0/24, gateway: 10.0.0.1, dns: 10.0.0.2, ntp: t.example}, nat: {nat: 10.1.0.0/24}, open: {bridge: br1}}
templates: {base: {build: debian}}
defaults: {template: base, network: lan}
users: {amy: {ssh_keys: ./key}}
"""


@pytest.mark.parametrize(
    ("vm", "message"),
    [
        ("address: 10.0.1.4", "8:20: vms.a.address: 10.0.1.4 is outside the subnet 10.0.0.0/24 of network lan"),
        ("address: 10.0.0.0", "8:20: vms.a.address: 10.0.0.0 is the address of the subnet 10.0.0.0/24 itself"),
        ("address: 10.0.0.255", "8:20: vms.a.address: 10.0.0.255 is the broadcast address of 10.0.0.0/24"),
        ("address: 10.0.0.1", "8:20: vms.a.address: 10.0.0.1 is the gateway of network lan"),
        ("address: 10.0.0.5", "8:20: vms.a.address: 10.0.0.5 (for a) is used twice: it is host h's own, at cloud.yaml:3:16"),
        ("address: 10.0.0.6", "8:20: vms.a.address: 10.0.0.6 (for a) is used twice: it is host h's own, on br0 at cloud.yaml:3:76"),
        ("address: 10.0.0.9/16", "8:20: vms.a.address: /16 is not the prefix of network lan, 10.0.0.0/24\n    leave the prefix out"),
        ("address: 10.1.0.1, network: nat", "8:20: vms.a.address: 10.1.0.1 is the gateway of network nat"),
        ("address: 10.2.0.1, network: open", "8:20: vms.a.address: 10.2.0.1 needs a prefix: network open says no subnet\n    write 10.2.0.1/24 or the like, or give network open its subnet"),
        ("nics: [{address: 10.0.0.9}, {address: 10.0.0.9}]", "8:49: vms.a.nics.1.address: 10.0.0.9 (for a) is used twice: it is a's, at cloud.yaml:8:28"),
        ("count: 4, address: 10.0.0.253", "8:30: vms.a.address: 10.0.0.255 (for a-3, counted up from 10.0.0.253) is the broadcast address of 10.0.0.0/24\n    start lower: from 10.0.0.253 on there is room for 2; or give a list of addresses"),
        ("count: 3, address: 255.255.255.254/24, network: open", "8:30: vms.a.address: 255.255.255.255 (for a-2, counted up from 255.255.255.254) is the broadcast address of 255.255.255.0/24\n    start lower: from 255.255.255.254 on there is room for 1; or give"),
        ("count: 2, address: 255.255.255.255/32, network: open", "8:30: vms.a.address: 255.255.255.255 has no address behind it"),
        ("count: 3, address: 10.0.9.254/24, network: open", "8:30: vms.a.address: 10.0.9.255 (for a-2, counted up from 10.0.9.254) is the broadcast"),
        ("count: 3, address: 10.0.0.4", "8:30: vms.a.address: 10.0.0.5 (for a-2) is used twice: it is host h's own, at cloud.yaml:3:16"),
        ("count: 2, address: [10.0.0.9, 10.0.0.9]", "8:41: vms.a.address.1: 10.0.0.9 (for a-2) is used twice: it is a-1's, at cloud.yaml:8:31"),
        ("nics: [{mac: 52:00:00:00:00:01}, {mac: 52:00:00:00:00:01}]", "8:50: vms.a.nics.1.mac: the MAC address 52:00:00:00:00:01 (for a) is used twice: it is that of vms.a.nics.0, at cloud.yaml:8:24\n    write another mac:"),
    ],
)  # fmt: skip
def test_wrong_address(desk: Desk, vm: str, message: str) -> None:
    desk.write("ssh-rsa nothing", "none")
    problems = desk.problems(f"{NET.replace('./key', './missing')}vms: {{a: {{{vm}}}}}\n")
    assert problems[0].startswith(f"cloud.yaml:{message}")


def test_an_address_of_two_vms_names_both_places(desk: Desk) -> None:
    assert desk.problems(f"{NET}vms: {{a: {{address: 10.0.0.9}}, g: {{count: 3, address: 10.0.0.8}}}}\n") == [
        "cloud.yaml:8:54: vms.g.address: 10.0.0.9 (for g-2) is used twice: it is a's, at cloud.yaml:8:20"
    ]


def test_a_derived_mac_that_is_taken(desk: Desk) -> None:
    taken = derive_mac("test", "b", 0)
    assert desk.problems(f"{NET}vms: {{a: {{mac: '{taken}'}}, b: {{}}}}\n") == [
        f"cloud.yaml:8:38: vms.b.mac: the MAC address {taken} (for b) is used twice: it is that of vms.a, at "
        "cloud.yaml:8:16\n"
        "    it is derived from the names: write a mac: of your own"
    ]


def test_routes_and_servers(desk: Desk) -> None:
    cloud = desk.load(f"""{NET}
vms:
  one: {{address: 10.0.0.10}}
  natted: {{network: nat, address: 10.1.0.9}}
  asks: {{network: nat}}
  both: {{nics: [{{network: open, address: 10.9.0.4/16}}, {{network: nat, address: 10.1.0.10}}, {{network: lan, address: 10.0.0.11}}]}}
  lonely: {{network: open, address: 10.9.0.5/16, dns: 1.1.1.1, search: [a.example]}}
  none: {{nics: []}}
  dealt: {{count: 2, network: [lan, nat], address: [10.0.0.12, 10.1.0.12]}}
""")
    nics = {vm.name: vm.nics for vm in cloud.vms}
    route = {name: [(str(nic.gateway) if nic.gateway else None, nic.dns) for nic in of] for name, of in nics.items()}
    assert route["one"] == [("10.0.0.1", ("10.0.0.2",))]
    assert route["natted"] == [("10.1.0.1", ("10.1.0.1",))]
    assert route["asks"] == [(None, ("10.1.0.1",))]
    assert route["both"] == [(None, ()), ("10.1.0.1", ("10.1.0.1",)), (None, ())]
    assert route["lonely"] == [(None, ("1.1.1.1",))]
    assert nics["lonely"][0].search == ("a.example",)
    assert nics["none"] == ()
    assert [str(nics[f"dealt-{n}"][0].address) for n in (1, 2)] == ["10.0.0.12/24", "10.1.0.12/24"]
    assert str(nics["both"][0].address) == "10.9.0.4/16"
    assert {vm.name: vm.guest.ntp for vm in cloud.vms}["one"] == ("t.example",)
    assert {vm.name: vm.guest.ntp for vm in cloud.vms}["both"] == ()


@pytest.mark.parametrize(
    ("said", "proxy"), [("", "http://p:1"), (", proxy: none", None), (", proxy: https://q", "https://q")]
)
def test_proxy(desk: Desk, said: str, proxy: str | None) -> None:
    text = NET.replace("subnet: 10.0.0.0/24,", "subnet: 10.0.0.0/24, proxy: http://p:1,")
    cloud = desk.load(f"{text}vms: {{a: {{address: 10.0.0.9{said}}}}}\n")
    assert cloud.vms[0].guest.proxy == proxy


def test_a_network_without_dns_is_warned_of_once(desk: Desk) -> None:
    text = NET.replace(" dns: 10.0.0.2,", "").replace("{ssh_keys: ./key}", "{password_hash_file: ./none}")
    cloud = desk.load(f"{text}vms: {{a: {{address: 10.0.0.9}}, b: {{address: 10.0.0.10}}, c: {{}}}}\n")
    assert cloud.warnings == (
        f"{desk.root}/cloud.yaml:4:17: networks.lan: VMs with fixed addresses there get no DNS server: add dns: to the network",
    )


@settings(max_examples=60)
@given(
    prefix=st.integers(24, 28),
    starts=st.lists(st.tuples(st.integers(0, 255), st.integers(1, 12)), min_size=1, max_size=6),
    gateway=st.integers(1, 14),
)
def test_no_address_twice_and_none_outside(prefix: int, starts: list[tuple[int, int]], gateway: int) -> None:
    """Whatever groups a file asks for: it is refused, or every VM has an address of its own that it can have."""
    subnet = IPv4Network(f"10.0.0.0/{prefix}")
    groups = "\n".join(
        f"  g{n}: {{count: {count}, address: 10.0.0.{start}}}" for n, (start, count) in enumerate(starts)
    )
    text = f"cloud: t\nnetworks: {{lan: {{bridge: b, subnet: {subnet}, gateway: 10.0.0.{gateway}}}}}\n"
    text += f"templates: {{base: {{build: debian}}}}\ndefaults: {{template: base}}\nvms:\n{groups}\n"
    wanted = [IPv4Address("10.0.0.0") + start + n for start, count in starts for n in range(count)]
    usable = set(subnet.hosts()) - {IPv4Address(f"10.0.0.{gateway}")}
    right = len(set(wanted)) == len(wanted) and set(wanted) <= usable
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f.yaml"
        path.write_text(text)
        if not right:
            with pytest.raises(SpecError, match=r"is used twice|is outside|is the (gateway|broadcast|address)"):
                load(path)
            return
        cloud = load(path)
    assert [nic.address.ip for vm in cloud.vms for nic in vm.nics if nic.address] == wanted
    assert len({nic.mac for vm in cloud.vms for nic in vm.nics}) == len(wanted)
