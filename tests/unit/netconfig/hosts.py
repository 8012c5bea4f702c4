"""Hosts for the tests of network files: their files as text, and what makes of them a host with a bridge."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from vmwright.facts.model import FileFacts, WiringFacts
from vmwright.netconfig.common import NewFile, Uplink
from vmwright.spec.cloud import BridgeSpec

MAC = "94:18:82:00:00:01"


def bridge(name: str = "br0", nic: str = "eno1", **given: Any) -> BridgeSpec:
    """A bridge, with addresses and gateway as text."""
    if given.get("addresses") is not None:
        given["addresses"] = tuple(IPv4Interface(text) for text in given["addresses"])
    if "gateway" in given:
        given["gateway"] = IPv4Address(given["gateway"])
    return BridgeSpec(name, nic, **given)


def uplink(spec: BridgeSpec | None = None, gateway: str | None = None, dns: tuple[str, ...] = ()) -> Uplink:
    """A bridge over the NIC with that MAC."""
    return Uplink(spec or bridge(), MAC, gateway, dns)


def wiring(files: dict[str, str], **given: Any) -> WiringFacts:
    """A host with these files."""
    return WiringFacts(files=tuple(FileFacts(path, text) for path, text in files.items()), **given)


def after(files: dict[str, str], made: tuple[NewFile, ...]) -> dict[str, str]:
    """The files of the host when those have been written."""
    return files | {file.path: file.text for file in made}
