"""NICs and addresses: every VM's own, counted up in groups, inside their subnets, none given twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vmwright.spec.cloud import NetworkSpec, Nic
from vmwright.spec.findings import Findings, dotted
from vmwright.spec.groups import Member
from vmwright.spec.model import VmIn
from vmwright.spec.values import reserved
from vmwright.spec.yaml import KeyPath
from vmwright.units import derive_mac

_LAST = 2**32 - 1


@dataclass(frozen=True)
class _Wish:
    """One NIC as the file says it; `path` is what holds its keys."""

    path: KeyPath
    network: str | None
    address: IPv4Address | IPv4Interface | None
    mac: str | None


@dataclass
class Registry:
    """The addresses and MACs given so far, over all VMs, and who has them."""

    cloud: str
    networks: Mapping[str, NetworkSpec]
    taken: dict[IPv4Address, str] = field(default_factory=dict)  # address -> what has it, and where
    macs: dict[str, str] = field(default_factory=dict)
    full: set[KeyPath] = field(default_factory=set)  # groups whose addresses left the subnet: told once


def resolve_nics(name: str, vm: VmIn, member: Member, registry: Registry, findings: Findings) -> tuple[Nic, ...]:
    """The NICs of a VM. The first that leads to a gateway (or asks DHCP) carries the default route and DNS."""
    wishes = _wishes(("vms", name), vm, member, findings)
    found = [(wish, network) for wish in wishes if (network := _network(wish, registry, findings))]
    nics = []
    for position, (wish, network) in enumerate(found):
        address = _address(name, wish, network, member, registry, findings)
        mac = _mac(name, position, wish, member, registry, findings)
        nics.append(Nic(network.name, mac, address))
    return _with_route(nics, vm, registry)


def _wishes(path: KeyPath, vm: VmIn, member: Member, findings: Findings) -> list[_Wish]:
    if vm.nics is None:
        return [_Wish(path, vm.network, vm.address, vm.mac)]
    for key in ("network", "address", "mac"):
        if key in member.own:
            findings.error(
                (*path, key), "is for a VM with one NIC, and this one has nics", "move it into the list", key=True
            )
    return [_Wish((*path, "nics", n), nic.network or vm.network, nic.address, nic.mac) for n, nic in enumerate(vm.nics)]


def _network(wish: _Wish, registry: Registry, findings: Findings) -> NetworkSpec | None:
    networks = registry.networks
    if wish.network is not None:
        right = findings.refers((*wish.path, "network"), "network", wish.network, networks, "networks")
        return networks[wish.network] if right else None
    if len(networks) == 1:
        return next(iter(networks.values()))
    if not findings.broken(*map(str, wish.path[:2]), "network") and not findings.broken("networks"):
        findings.error(
            wish.path, "which network?", f"write network: {' or '.join(networks)}, here or in defaults", key=True
        )
    return None


def _address(
    name: str, wish: _Wish, network: NetworkSpec, member: Member, registry: Registry, findings: Findings
) -> IPv4Interface | None:
    if wish.address is None or findings.broken("networks", network.name):
        return None
    path: KeyPath = (*wish.path, "address")
    subnet = _subnet(path, wish.address, network, findings)
    if subnet is None:
        return None
    first = wish.address.ip if isinstance(wish.address, IPv4Interface) else wish.address
    counted = member.count is not None and path[2:] not in member.dealt
    number = int(first) + (member.index if counted else 0)
    address = IPv4Address(min(number, _LAST))
    why = _unfit(address, subnet, network)
    if why or number > _LAST:
        group = findings.groups.source(path)
        if group not in registry.full:
            registry.full.add(group)
            _tell_unfit(name, path, (first, address), why or "has no address behind it", subnet, findings)
        return None
    _take(name, path, address, registry, findings)
    return IPv4Interface(f"{address}/{subnet.prefixlen}")


def _subnet(
    path: KeyPath, address: IPv4Address | IPv4Interface, network: NetworkSpec, findings: Findings
) -> IPv4Network | None:
    """The subnet of the address: the network's, which the prefix must fit, or what the prefix says. None: refused."""
    said = address.network if isinstance(address, IPv4Interface) else None
    if network.subnet is None:
        if said is None:
            todo = f"write {address}/24 or the like, or give network {network.name} its subnet"
            findings.error(path, f"{address} needs a prefix: network {network.name} says no subnet", todo)
        return said
    if said and said.prefixlen != network.subnet.prefixlen:
        what = f"/{said.prefixlen} is not the prefix of network {network.name}, {network.subnet}"
        findings.error(path, what, "leave the prefix out")
        return None
    return network.subnet


def _unfit(address: IPv4Address, subnet: IPv4Network, network: NetworkSpec) -> str:
    """Why no VM can have the address in that network; empty when one can."""
    if address not in subnet:
        return f"is outside the subnet {subnet} of network {network.name}"
    if unusable := reserved(address, subnet):
        return f"is {unusable}"
    return f"is the gateway of network {network.name}" if address == network.gateway else ""


def _tell_unfit(
    name: str, path: KeyPath, of: tuple[IPv4Address, IPv4Address], why: str, subnet: IPv4Network, findings: Findings
) -> None:
    first, address = of
    if address == first:
        findings.error(path, f"{address} {why}")
        return
    room = int(subnet.broadcast_address) - int(first)
    todo = f"start lower: from {first} on there is room for {room}; or give a list of addresses"
    findings.error(path, f"{address} (for {name}, counted up from {first}) {why}", todo if "gateway" not in why else "")


def _take(name: str, path: KeyPath, address: IPv4Address, registry: Registry, findings: Findings) -> None:
    if other := registry.taken.get(address):
        findings.error(path, f"{address} (for {name}) is used twice: it is {other}")
        return
    registry.taken[address] = f"{name}'s, at {findings.where(path)}"


def _mac(name: str, position: int, wish: _Wish, member: Member, registry: Registry, findings: Findings) -> str:
    path: KeyPath = (*wish.path, "mac")
    shared = wish.mac is not None and (member.count or 1) > 1 and path[2:] not in member.dealt
    if shared:
        findings.error(
            path, f"one MAC address for {member.count} VMs", f"give a list of {member.count}, or leave it out"
        )
    mac = wish.mac or derive_mac(registry.cloud, name, position)
    if not shared and (other := registry.macs.get(mac)):
        todo = "write another mac:" if wish.mac else "it is derived from the names: write a mac: of your own"
        findings.error(path, f"the MAC address {mac} (for {name}) is used twice: it is {other}", todo)
    where = findings.where(path)
    registry.macs.setdefault(mac, f"that of {dotted(('vms', name, *wish.path[2:]))}, at {where}")
    return mac


def _with_route(nics: list[Nic], vm: VmIn, registry: Registry) -> tuple[Nic, ...]:
    """The NICs, with gateway, DNS and search domains on the one that carries the default route."""
    if not nics:
        return ()
    leads = (n for n, nic in enumerate(nics) if nic.address is None or registry.networks[nic.network].gateway)
    carrier = next(leads, 0)
    nic = nics[carrier]
    network = registry.networks[nic.network]
    nics[carrier] = Nic(
        nic.network,
        nic.mac,
        nic.address,
        gateway=network.gateway if nic.address else None,
        dns=tuple(network.dns if vm.dns is None else vm.dns),
        search=tuple(network.search if vm.search is None else vm.search),
    )
    return tuple(nics)
