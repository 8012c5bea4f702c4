"""<network>: a virtual network with NAT, DHCP and DNS from libvirt. Source: formatnetwork.html."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from vmwright.virt.xml.tree import el


def nat_network(name: str, ip: ET.Element, dns: ET.Element | None = None) -> ET.Element:
    """A network behind the host's own addresses. libvirt names the bridge (virbr0, virbr1, ...)."""
    # delay 0: a port forwards at once, so that a guest's first DHCP request is not lost
    return el("network", el("name", text=name), el("forward", mode="nat"), el("bridge", stp="on", delay=0), dns, ip)


def ip(address: str, prefix: int, dhcp: ET.Element | None = None) -> ET.Element:
    """The host's own address on the network."""
    return el("ip", dhcp, address=address, prefix=prefix)


def dhcp(first: str, last: str, hosts: Iterable[ET.Element] = ()) -> ET.Element:
    """DHCP from `first` to `last`, and fixed leases."""
    return el("dhcp", el("range", start=first, end=last), *hosts)


def dhcp_host(mac: str, name: str, address: str) -> ET.Element:
    """A fixed lease."""
    return el("host", mac=mac, name=name, ip=address)


def dns(hosts: Iterable[ET.Element]) -> ET.Element:
    """Names that the network's DNS server knows, besides those of leases."""
    return el("dns", *hosts)


def dns_host(address: str, name: str) -> ET.Element:
    """The name of an address."""
    return el("host", el("hostname", text=name), ip=address)
