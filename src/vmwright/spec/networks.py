"""Networks: model -> resolved, with the gateway and DNS of a NAT network worked out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from vmwright.spec.cloud import NetworkSpec
from vmwright.spec.findings import Findings
from vmwright.spec.hosts import valid_identifier
from vmwright.spec.model import NetworkIn, Spec
from vmwright.spec.values import reserved
from vmwright.spec.yaml import KeyPath

DEFAULT_NAME = "default"
DEFAULT_NAT = "192.168.122.0/24"  # as libvirt packages ship it
_SMALLEST_NAT = 29


def resolve_networks(spec: Spec, findings: Findings) -> dict[str, NetworkSpec]:
    """The networks by name. A file without networks means libvirt's usual NAT network."""
    networks = spec.networks
    if not networks and not findings.broken("networks"):
        networks = {DEFAULT_NAME: NetworkIn.model_validate({"nat": DEFAULT_NAT})}
    resolved = {name: _network(("networks", name), name, network, findings) for name, network in networks.items()}
    for one, other in combinations(resolved.values(), 2):
        if (one.nat or other.nat) and one.subnet and other.subnet and one.subnet.overlaps(other.subnet):
            key = "nat" if other.nat else "subnet"
            what = f"{other.subnet} overlaps with {one.subnet} of network {one.name} at {one.where}"
            findings.error(("networks", other.name, key), what, "choose a subnet that nothing else uses")
    return resolved


def _network(path: KeyPath, name: str, network: NetworkIn, findings: Findings) -> NetworkSpec:
    valid_identifier(findings, path, name, "network name")
    if (network.bridge is None) == (network.nat is None) and not findings.broken("networks", name):
        what = "both bridge and nat are given" if network.bridge else "neither bridge nor nat is given"
        findings.error(path, what, "give exactly one: bridge: br0, or nat: 192.168.122.0/24", key=True)
    subnet = network.nat or network.subnet
    gateway = network.gateway
    if network.nat:
        _check_nat(path, network, network.nat, findings)
        gateway = gateway or network.nat.network_address + 1
    if network.gateway:
        _check_gateway((*path, "gateway"), network.gateway, subnet, findings)
    dns = network.dns if network.dns is not None else [str(gateway)] if network.nat else []
    return NetworkSpec(
        name=name,
        bridge=network.bridge,
        nat=network.nat is not None,
        subnet=subnet,
        gateway=gateway,
        dns=tuple(dns),
        search=tuple(network.search),
        ntp=tuple(network.ntp),
        proxy=None if network.proxy == "none" else network.proxy,
        where=findings.where(path, key=True),
    )


def _check_nat(path: KeyPath, network: NetworkIn, nat: IPv4Network, findings: Findings) -> None:
    if nat.prefixlen > _SMALLEST_NAT:
        findings.error(
            (*path, "nat"), f"{nat} is too small for VMs", f"use a /{_SMALLEST_NAT} or larger, like 192.168.122.0/24"
        )
    if network.subnet and network.subnet != nat:
        findings.error(
            (*path, "subnet"), f"{network.subnet} is not the nat subnet {nat}", "leave subnet out: nat says it"
        )


def _check_gateway(path: KeyPath, gateway: IPv4Address, subnet: IPv4Network | None, findings: Findings) -> None:
    if subnet is None:
        if not findings.broken(*map(str, path[:2])):
            findings.error(path, "a gateway needs the subnet it is in", "add subnet: 192.168.6.0/24 or the like")
    elif gateway not in subnet:
        findings.error(path, f"{gateway} is outside the subnet {subnet}")
    elif unusable := reserved(gateway, subnet):
        findings.error(path, f"{gateway} is {unusable}")
