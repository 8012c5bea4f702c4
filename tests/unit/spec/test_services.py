"""A host's own services for guests: what they mean, what networks take from them, and what is wrong with them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from tests.unit.spec.conftest import Desk, public_key

from vmwright.spec.cloud import Cloud, DhcpSpec, DnsSpec, MasqueradeSpec, NtpSpec, ProxySpec, ServicesSpec
from vmwright.units import GIB

HOST = "connect: ssh://root@192.168.6.200, bridges: {br0: {nic: eno1, addresses: [192.168.6.200/24]}}"
LAN_ONLY = "lan: {bridge: br0, subnet: 192.168.6.0/24}"
LAN = IPv4Network("192.168.6.0/24")
INSIDE = IPv4Network("10.20.0.0/24")
WEB = "vms: {web: {template: base, network: lan, address: 192.168.6.101}}\n"


def text(services: str, networks: str = LAN_ONLY, vms: str = "", host: str = HOST) -> str:
    return (f"cloud: test\nhosts:\n  h: {{{host}, pools: {{images: {{dir: /srv/images}}}},\n"
            f"    services: {{{services}}}}}\nnetworks: {{{networks}}}\n"
            f"users: {{admin: {{ssh_keys: [{public_key()}]}}}}\n"
            f"templates: {{base: {{build: debian, disk: 4G}}}}\n{vms}")


def services(cloud: Cloud) -> ServicesSpec:
    return cloud.hosts[0].services


def test_a_word_is_enough(desk: Desk) -> None:
    found = services(desk.load(text("dns: true, ntp: true, proxy: true")))
    assert found == ServicesSpec(DnsSpec("br0"), NtpSpec((LAN,)), ProxySpec("squid", 3128, (LAN,), 10 * GIB))
    assert str(found.dns and found.dns.where).endswith("cloud.yaml:4:16")


def test_no_word_is_nothing(desk: Desk) -> None:
    assert not services(desk.load(text("dns: false, ntp: false, proxy: false"))).wanted


def test_everything_can_be_said(desk: Desk) -> None:
    found = services(desk.load(text(
        "dns: {bridge: br1, dhcp: 10.20.0.100 - 10.20.0.199, names: false, upstream: 9.9.9.9}, "
        "ntp: {networks: 10.20.0.0/24, upstream: [ntp.example.org]}, "
        "proxy: {kind: apt-cacher-ng, port: 8000}, masquerade: {out: br0, networks: [10.20.0.0/24]}",
        "lan: {bridge: br0, subnet: 192.168.6.0/24}, inside: {bridge: br1, subnet: 10.20.0.0/24}")))
    assert found == ServicesSpec(
        DnsSpec("br1", DhcpSpec(IPv4Address("10.20.0.100"), IPv4Address("10.20.0.199"), INSIDE), False, ("9.9.9.9",)),
        NtpSpec((INSIDE,), ("ntp.example.org",)), ProxySpec("apt-cacher-ng", 8000, (LAN, INSIDE)),
        MasqueradeSpec("br0", (INSIDE,)))


def test_masquerading_is_for_what_is_not_on_the_way_out(desk: Desk) -> None:
    found = services(desk.load(text(
        "masquerade: br0", "lan: {bridge: br0, subnet: 192.168.6.0/24}, inside: {bridge: br1, subnet: 10.20.0.0/24}, "
        "nat: {nat: 10.30.0.0/24}")))
    assert found.masquerade == MasqueradeSpec("br0", (INSIDE,))


# ---- what networks take from them ----

def test_a_network_takes_what_its_host_does_for_it(desk: Desk) -> None:
    cloud = desk.load(text("dns: true, ntp: true, proxy: true, masquerade: eno2", vms=WEB))
    (lan,) = cloud.networks
    assert (lan.dns, lan.ntp, lan.proxy) == (("192.168.6.200",), ("192.168.6.200",), "http://192.168.6.200:3128")
    assert lan.gateway == IPv4Address("192.168.6.200")
    (web,) = cloud.vms
    assert (web.nics[0].gateway, web.nics[0].dns, web.guest.ntp) == (lan.gateway, lan.dns, lan.ntp)
    assert web.guest.proxy == "http://192.168.6.200:3128"
    assert not cloud.warnings


def test_what_a_network_says_itself_stays(desk: Desk) -> None:
    (lan,) = desk.load(text(
        "dns: true, ntp: true, proxy: true, masquerade: eno2",
        "lan: {bridge: br0, subnet: 192.168.6.0/24, gateway: 192.168.6.1, dns: 9.9.9.9, ntp: [t.example], "
        "proxy: none}")).networks
    assert (lan.dns, lan.ntp, lan.proxy) == (("9.9.9.9",), ("t.example",), None)
    assert lan.gateway == IPv4Address("192.168.6.1")


def test_guests_behind_nat_reach_the_host_at_their_gateway(desk: Desk) -> None:
    (nat,) = desk.load(text("ntp: true, proxy: true", "nat: {nat: 10.30.0.0/24}")).networks
    assert (nat.dns, nat.ntp, nat.proxy) == (("10.30.0.1",), ("10.30.0.1",), "http://10.30.0.1:3128")


def test_of_a_bridge_whose_addresses_the_file_does_not_say_nothing_is_taken(desk: Desk) -> None:
    (lan,) = desk.load(text("dns: true, ntp: true", host="connect: ssh://root@h")).networks
    assert (lan.dns, lan.ntp) == ((), ())


# ---- what is wrong ----

TWO = "lan: {bridge: br0, subnet: 192.168.6.0/24}, inside: {bridge: br1, subnet: 10.20.0.0/24}"


@pytest.mark.parametrize(("given", "networks", "said"), [
    ("dns: true", TWO, "4:16: hosts.h.services.dns: which bridge?\n    write bridge: br0 or br1"),
    ("dns: {bridge: a/b}", TWO, "4:30: hosts.h.services.dns.bridge: 'a/b' is not a network interface's name"),
    ("dns: {dhcp: 192.168.6.1}", TWO, "4:28: hosts.h.services.dns.dhcp: '192.168.6.1' is not a range of addresses\n    "
     "write 192.168.6.100-192.168.6.199"),
    ("dns: {dhcp: 192.168.6.9-192.168.6.5}", TWO, "4:28: hosts.h.services.dns.dhcp: '192.168.6.9-192.168.6.5' ends "
     "before it begins\n    write 192.168.6.5-192.168.6.9"),
    ("dns: {bridge: br0, dhcp: 192.168.6.9-192.168.7.5}", TWO, "4:41: hosts.h.services.dns.dhcp: "
     "192.168.6.9-192.168.7.5 is not within one subnet on br0: 192.168.6.0/24"),
    ("dns: {bridge: br9, dhcp: 192.168.6.9-192.168.6.15}", TWO, "4:41: hosts.h.services.dns.dhcp: no network of the "
     "file on br9 says its subnet\n    give the network one: {bridge: br9, subnet: 192.168.6.0/24}"),
    ("dns: {bridge: br0, dhcp: 192.168.6.240-192.168.6.255}", TWO, "4:41: hosts.h.services.dns.dhcp: 192.168.6.255 is "
     "the broadcast address of 192.168.6.0/24"),
    ("dns: {bridge: br0, dhcp: 192.168.6.190-192.168.6.210}", TWO, "4:41: hosts.h.services.dns.dhcp: 192.168.6.200 "
     "must not be handed out: it is host h's own, on br0 at cloud.yaml:3:"),
    ("dns: {bridge: br0, dhcp: 192.168.6.100-192.168.6.110}", TWO, "4:41: hosts.h.services.dns.dhcp: 192.168.6.101 "
     "must not be handed out: it is web's, at cloud.yaml:8:52\n    choose a range beside the fixed addresses"),
    ("dns: {bridge: br0, dhcp: 192.168.6.1-192.168.6.9}", "lan: {bridge: br0, subnet: 192.168.6.0/24, gateway: "
     "192.168.6.1, dns: [192.168.6.5]}", "4:41: hosts.h.services.dns.dhcp: 192.168.6.1 must not be handed out: it is "
     "the gateway of network lan, at cloud.yaml:5:12, and 1 more of the file's addresses"),
    ("proxy: {kind: apt}", TWO, "4:30: hosts.h.services.proxy.kind: 'apt' is not one of squid, apt-cacher-ng"),
    ("proxy: {kind: apt-cacher-ng, cache: 5G}", TWO, "4:45: hosts.h.services.proxy.cache: goes with squid: "),
    ("proxy: {port: 70000}", TWO, "4:30: hosts.h.services.proxy.port: 70000 is out of range: it must be at most 65535"),
    ("masquerade: {networks: [10.20.0.0/24]}", TWO, "4:16: hosts.h.services.masquerade: out is missing\n    add out: "),
    ("masquerade: {out: br1, networks: [10.20.0.0/24]}", TWO, "4:28: hosts.h.services.masquerade: guests of network "
     "inside (10.20.0.0/24) are on br1 itself, and are not behind this host"),
    ("masquerade: br0", "lan: {bridge: br0, subnet: 192.168.6.0/24}", "4:16: hosts.h.services.masquerade: for which "
     "networks?"),
    ("dhcp: true", TWO, "4:16: hosts.h.services.dhcp: unknown key\n    keys here: dns, masquerade, ntp, proxy"),
])  # fmt: skip
def test_a_mistake_is_told_with_its_place(desk: Desk, given: str, networks: str, said: str) -> None:
    (found,) = desk.problems(text(given, networks, WEB))
    assert found.startswith(f"cloud.yaml:{said}"), found


def test_networks_without_a_subnet_do_not_tell_who_is_served(desk: Desk) -> None:
    assert desk.problems(text("ntp: true", "lan: {bridge: br0}")) == [
        "cloud.yaml:4:16: hosts.h.services.ntp: for which networks?\n    write networks: [192.168.6.0/24] or the like"]


def test_one_that_is_wrong_does_not_hide_the_others(desk: Desk) -> None:
    found = desk.problems(text("dns: {bridge: a/b}, ntp: {networks: [1.2.3.4/24]}, proxy: 3"))
    assert [line.split(": ")[1] for line in found] == [
        "hosts.h.services.dns.bridge", "hosts.h.services.ntp.networks.0", "hosts.h.services.proxy"]


def test_two_hosts_that_hand_out_the_same(desk: Desk) -> None:
    dhcp = "services: {dns: {dhcp: 192.168.6.%s}}"
    (found,) = desk.problems(
        f"cloud: test\nhosts:\n  a: {{connect: ssh://root@a, {dhcp % '100-192.168.6.120'}}}\n"
        f"  b: {{connect: ssh://root@b, {dhcp % '120-192.168.6.130'}}}\n"
        "networks: {lan: {bridge: br0, subnet: 192.168.6.0/24}}\n")
    assert found.startswith("cloud.yaml:4:53: hosts.b.services.dns.dhcp: the range overlaps with that at "
                            "cloud.yaml:3:53\n")


def test_masquerading_what_libvirt_does_already_is_told(desk: Desk) -> None:
    cloud = desk.load(text("masquerade: {out: eno1, networks: [10.30.0.0/24]}", "nat: {nat: 10.30.0.0/24}"))
    assert [line.split(": ", 1)[1] for line in cloud.warnings] == [
        "hosts.h.services.masquerade: libvirt masquerades for network nat (10.30.0.0/24) already"]
