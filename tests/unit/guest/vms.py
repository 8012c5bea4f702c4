"""VMs for the tests of this directory."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from vmwright.spec.cloud import GuestSpec, Nic, VmSpec

LAN = Nic("lan", "52:00:00:00:00:01", IPv4Interface("192.168.6.253/24"), IPv4Address("192.168.6.200"),
          ("192.168.6.200", "192.168.6.11"), ("example.com",))
NAT = Nic("nat", "52:00:00:00:00:02", None)


def vm(**given: Any) -> VmSpec:
    """A VM like z-dev of the reference cloud, with other values where given."""
    plain: dict[str, Any] = dict(name="z-dev", host="zcloud", template="z-debian", pool="images", vcpus=2,
                                 memory=4 << 30, disk=None, nics=(LAN,), guest=GuestSpec())
    return VmSpec(**plain | given)
