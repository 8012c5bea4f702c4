"""Debian's ifupdown: the NIC's stanzas become the bridge's, in a file of ours; the main file loses only those."""

from __future__ import annotations

import pytest
from tests.unit.netconfig.hosts import MAC, after, bridge, uplink, wiring

from vmwright.netconfig import ifupdown
from vmwright.netconfig.common import Unfit, Uplink

OWN = "/etc/network/interfaces.d/vmwright-br0"
STATIC = """\
# This file describes the network interfaces available on your system
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

# The primary network interface
allow-hotplug eno1 eno2
iface eno1 inet static
\taddress 192.168.6.200
\tnetmask 255.255.255.0
\tgateway 192.168.6.1
\t# of the campus
\tdns-nameservers 192.168.6.11
\tup ip route add 10.7.0.0/16 \\
\t   via 192.168.6.9 dev eno1
\thwaddress 94:18:82:00:00:01
iface eno1 inet6 static
    address fd00::2/64

# the other
iface eno2 inet dhcp
"""
LENT = "auto eno1\niface eno1 inet dhcp\n    hostname zcloud\n"
MAKING = f"""\
auto br0
iface br0 inet manual
    pre-up ip link show dev br0 >/dev/null 2>&1 || ip link add name br0 type bridge
    pre-up ip link set dev br0 address {MAC} type bridge stp_state 0 forward_delay 0
    pre-up ip link set dev eno1 master br0 up
    up ip link set dev br0 up
"""


def files_of(files: dict[str, str], *uplinks: Uplink) -> dict[str, str]:
    """The host's files with bridges. A second look finds nothing to change."""
    uplinks = uplinks or (uplink(),)
    made = after(files, ifupdown.make(wiring(files), uplinks))
    assert after(made, ifupdown.make(wiring(made), uplinks)) == made
    return made


def test_what_the_nic_has_becomes_the_bridges() -> None:
    assert files_of({ifupdown.MAIN: STATIC})[OWN] == f"""\
# Written by vmwright for bridge br0; changes here are told as drift, and not overwritten.
auto eno1
iface eno1 inet manual
    hwaddress 94:18:82:00:00:01

{MAKING}
iface br0 inet static
    address 192.168.6.200
    netmask 255.255.255.0
    gateway 192.168.6.1
    dns-nameservers 192.168.6.11
    up ip route add 10.7.0.0/16 via 192.168.6.9 dev br0

iface br0 inet6 static
    address fd00::2/64
    post-down ip link delete dev br0
"""


def test_the_administrators_file_loses_that_and_keeps_all_else_comments_too() -> None:
    assert files_of({ifupdown.MAIN: STATIC})[ifupdown.MAIN] == """\
# This file describes the network interfaces available on your system
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

# The primary network interface
allow-hotplug eno2
# vmwright: eno1 is a port of bridge br0, which has its addresses. As it was: /var/lib/vmwright/before/etc/network/interfaces

# the other
iface eno2 inet dhcp
"""  # noqa: E501


def test_dhcp_is_the_bridges_then_and_our_file_is_read() -> None:
    made = files_of({ifupdown.MAIN: LENT})
    assert made[ifupdown.MAIN].splitlines() == [
        "# vmwright: eno1 is a port of bridge br0, which has its addresses. As it was: "
        "/var/lib/vmwright/before/etc/network/interfaces",
        "source /etc/network/interfaces.d/vmwright-br0"]
    assert made[OWN].endswith("\niface br0 inet dhcp\n    hostname zcloud\n    post-down ip link delete dev br0\n")


def test_several_addresses_and_what_dhcp_had_given() -> None:
    spec = bridge(addresses=["10.0.0.5/24", "10.0.1.5/24"], stp=True, forward_delay=4)
    made = files_of({ifupdown.MAIN: LENT}, uplink(spec, "10.0.0.1", ("10.0.0.53", "10.0.0.54")))[OWN]
    assert made.endswith("""
iface br0 inet static
    address 10.0.0.5/24
    gateway 10.0.0.1
    dns-nameservers 10.0.0.53 10.0.0.54

iface br0 inet static
    address 10.0.1.5/24
    post-down ip link delete dev br0
""")
    assert "stp_state 1 forward_delay 400" in made, "ip(8) takes hundredths of a second"


def test_what_the_clouds_file_says_counts() -> None:
    made = files_of({ifupdown.MAIN: STATIC}, uplink(bridge(
        addresses=["192.168.6.201/24"], gateway="192.168.6.2", dns=("9.9.9.9",))))[OWN]
    assert """
iface br0 inet static
    address 192.168.6.201/24
    gateway 192.168.6.2
    dns-nameservers 9.9.9.9
    up ip route add 10.7.0.0/16 via 192.168.6.9 dev br0
""" in made


def test_no_addresses_is_a_bridge_for_guests_alone() -> None:
    made = files_of({ifupdown.MAIN: LENT}, uplink(bridge(addresses=[])))[OWN]
    assert made.endswith("    up ip link set dev br0 up\n    post-down ip link delete dev br0\n")


def test_a_vlan_leaves_the_nic_as_it_is() -> None:
    made = files_of({ifupdown.MAIN: STATIC}, uplink(bridge(vlan=20, addresses=["10.20.0.5/24"])))
    assert made[ifupdown.MAIN] == STATIC
    assert made[OWN] == f"""\
# Written by vmwright for bridge br0; changes here are told as drift, and not overwritten.
auto br0
iface br0 inet manual
    pre-up ip link show dev eno1.20 >/dev/null 2>&1 || ip link add link eno1 name eno1.20 type vlan id 20
    pre-up ip link set dev eno1 up
    pre-up ip link show dev br0 >/dev/null 2>&1 || ip link add name br0 type bridge
    pre-up ip link set dev br0 address {MAC} type bridge stp_state 0 forward_delay 0
    pre-up ip link set dev eno1.20 master br0 up
    up ip link set dev br0 up

iface br0 inet static
    address 10.20.0.5/24
    post-down ip link delete dev br0
    post-down ip link delete dev eno1.20
"""


def test_aliases_of_the_nic_go_along_and_files_of_others_are_found() -> None:
    other = "auto eno1:0\niface eno1:0 inet static\n  address 10.9.0.2/24\n"
    files = {ifupdown.MAIN: STATIC, "/etc/network/interfaces.d/more": other}
    made = files_of(files)
    assert "\niface br0 inet static\n    address 10.9.0.2/24\n" in made[OWN]
    assert made["/etc/network/interfaces.d/more"].count("\n") == 1, "only the remark is left"


def test_an_mtu_counts_for_both() -> None:
    made = files_of({ifupdown.MAIN: LENT + "    mtu 9000\n"})[OWN]
    assert "iface eno1 inet manual\n    mtu 9000\n" in made
    assert "iface br0 inet dhcp\n    hostname zcloud\n    mtu 9000\n" in made


def test_a_name_that_source_directory_would_not_read() -> None:
    assert ifupdown.own_path("br0.7") == "/etc/network/interfaces.d/vmwright-br0_7"


@pytest.mark.parametrize("line", [
    "source /etc/network/interfaces.d/*", "source interfaces.d/*", "source-directory /etc/network/interfaces.d",
    "source-directory interfaces.d/", "source /etc/network/interfaces.d/vmwright-br0"])
def test_a_line_that_has_our_file_read_is_not_said_twice(line: str) -> None:
    made = files_of({ifupdown.MAIN: f"{line}\n"}, uplink(bridge(nic="eno9", addresses=[])))
    assert made[ifupdown.MAIN] == f"{line}\n"


def test_a_file_with_a_secret_is_not_rewritten() -> None:
    with pytest.raises(Unfit, match="/etc/network/interfaces sets addresses on eno1, and holds a secret"):
        ifupdown.make(wiring({ifupdown.MAIN: STATIC}, secret=(ifupdown.MAIN,)), [uplink()])


def test_the_parts_of_a_file_are_the_file() -> None:
    lines = [line for stanza in ifupdown.parse(STATIC) for line in stanza.lines]
    assert "\n".join(lines) + "\n" == STATIC
