"""Bridges of a host: model -> resolved, with what can be said of their addresses without a look at the host."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vmwright.spec.cloud import BridgeSpec
from vmwright.spec.findings import Findings
from vmwright.spec.model import BridgeIn, HostIn, Spec
from vmwright.spec.values import reserved
from vmwright.spec.yaml import KeyPath

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def resolve_bridges(path: KeyPath, host: HostIn, findings: Findings) -> tuple[BridgeSpec, ...]:
    """The bridges of the host at that path, in the order of the file."""
    seen: dict[tuple[str, int | None], KeyPath] = {}
    for name, bridge in host.bridges.items():
        here = (*path, "bridges", name)
        _check(here, name, bridge, host, findings)
        nic = (bridge.nic, bridge.vlan)
        if nic in seen:
            findings.error((*here, "nic"), f"{bridge.nic} is given twice: also at {findings.where(seen[nic])}",
                           "these are the same interface: keep one, or give each a `vlan:` of its own")
        seen.setdefault(nic, (*here, "nic"))
    _one_gateway(path, host, findings)
    return tuple(_resolved((*path, "bridges", name), name, bridge, findings) for name, bridge in host.bridges.items())


def check_addresses(spec: Spec, findings: Findings) -> None:
    """Complain where two bridges have the same address, on whichever hosts."""
    seen: dict[str, KeyPath] = {}
    for host_name, host in spec.hosts.items():
        for name, bridge in host.bridges.items():
            for position, address in enumerate(bridge.addresses or ()):
                path: KeyPath = ("hosts", host_name, "bridges", name, "addresses", position)
                if first := seen.get(str(address.ip)):
                    findings.error(path, f"{address.ip} is given twice: also at {findings.where(first)}",
                                   "an address belongs to one bridge of one host")
                seen.setdefault(str(address.ip), path)


def _resolved(path: KeyPath, name: str, bridge: BridgeIn, findings: Findings) -> BridgeSpec:
    addresses = [] if bridge.addresses is None and bridge.vlan is not None else bridge.addresses
    return BridgeSpec(
        name=name, nic=bridge.nic, vlan=bridge.vlan,
        addresses=None if addresses is None else tuple(addresses),
        gateway=bridge.gateway, dns=None if bridge.dns is None else tuple(bridge.dns), stp=bridge.stp,
        forward_delay=bridge.forward_delay, timeout=bridge.timeout, where=findings.where(path, key=True))


def _check(path: KeyPath, name: str, bridge: BridgeIn, host: HostIn, findings: Findings) -> None:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        findings.error(path, f"{name!r} is not a valid bridge name: at most 15 letters, digits, . _ -", key=True)
    if bridge.nic in host.bridges:
        findings.error((*path, "nic"), f"{bridge.nic} is a bridge itself", "name the NIC, bond or VLAN below it")
    if bridge.stp and bridge.forward_delay < 2:
        findings.error((*path, "stp"), "with stp the forward_delay is at least 2", "add forward_delay: 4")
    for position, address in enumerate(bridge.addresses or ()):
        if unusable := reserved(address.ip, address.network):
            findings.error((*path, "addresses", position), f"{address.ip} is {unusable}")
    if bridge.gateway:
        _check_gateway((*path, "gateway"), bridge, findings)


def _check_gateway(path: KeyPath, bridge: BridgeIn, findings: Findings) -> None:
    if bridge.addresses is None:
        if bridge.vlan is not None:
            findings.error(path, "a gateway needs an address of the host in its subnet", "add addresses: to the bridge")
        return
    if any(bridge.gateway == address.ip for address in bridge.addresses):
        findings.error(path, f"{bridge.gateway} is the host itself", "name another machine, or leave it out")
    elif not any(bridge.gateway in address.network for address in bridge.addresses):
        findings.error(path, f"{bridge.gateway} is in no subnet of the bridge's addresses: "
                             f"{_subnets(str(a.network) for a in bridge.addresses)}",
                       "correct it, or the prefix of the address")


def _subnets(subnets: Iterable[str]) -> str:
    return ", ".join(subnets) or "there are none"


def _one_gateway(path: KeyPath, host: HostIn, findings: Findings) -> None:
    first = ""
    for name, bridge in host.bridges.items():
        if bridge.gateway and first:
            findings.error((*path, "bridges", name, "gateway"), f"bridge {first} has a default gateway already",
                           "a host has one: keep one of them")
        first = first or (name if bridge.gateway else "")
