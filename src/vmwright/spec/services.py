"""A host's own services for guests: model -> resolved, and what networks take from them where the file says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from vmwright.spec.cloud import DhcpSpec, DnsSpec, MasqueradeSpec, NetworkSpec, NtpSpec, ProxySpec, ServicesSpec
from vmwright.spec.findings import Findings
from vmwright.spec.hosts import HostView
from vmwright.spec.model import HostIn, Spec
from vmwright.spec.service_model import DnsIn, MasqueradeIn, NtpIn, ProxyIn
from vmwright.spec.values import reserved
from vmwright.spec.yaml import KeyPath
from vmwright.units import GIB

_PORTS = {"squid": 3128, "apt-cacher-ng": 3142}
_CACHE = 10 * GIB
Networks = Mapping[str, NetworkSpec]


def resolve_services(spec: Spec, hosts: Mapping[str, HostView], networks: Networks,
                     findings: Findings) -> dict[str, HostView]:
    """The hosts, with what each does for guests."""
    return {name: replace(view, spec=replace(view.spec, services=_services(name, spec.hosts[name], networks, findings)))
            if name in spec.hosts else view for name, view in hosts.items()}


def _services(name: str, host: HostIn, networks: Networks, findings: Findings) -> ServicesSpec:
    given, path = host.services, ("hosts", name, "services")
    return ServicesSpec(
        _dns((*path, "dns"), given.dns, host, networks, findings) if given.dns else None,
        _ntp((*path, "ntp"), given.ntp, networks, findings) if given.ntp else None,
        _proxy((*path, "proxy"), given.proxy, networks, findings) if given.proxy else None,
        _masquerade((*path, "masquerade"), given.masquerade, networks, findings) if given.masquerade else None)


# -- DNS and DHCP ------------------------------------------------------------------------------------------------------

def _dns(path: KeyPath, given: DnsIn, host: HostIn, networks: Networks, findings: Findings) -> DnsSpec | None:
    bridges = tuple(dict.fromkeys(network.bridge for network in networks.values() if network.bridge))
    if given.bridge is None and len(bridges) != 1:
        if not findings.broken("networks"):
            findings.error(path, "which bridge?", f"write bridge: {' or '.join(bridges) or 'br0'}", key=True)
        return None
    bridge = given.bridge or bridges[0]
    dhcp = _dhcp((*path, "dhcp"), given.dhcp, bridge, host, networks, findings) if given.dhcp else None
    return DnsSpec(bridge, dhcp, given.names, tuple(given.upstream), findings.where(path, key=True))


def _dhcp(path: KeyPath, ends: tuple[IPv4Address, IPv4Address], bridge: str, host: HostIn, networks: Networks,
          findings: Findings) -> DhcpSpec | None:
    known = [network.subnet for network in networks.values() if network.bridge == bridge and network.subnet]
    known += [address.network for address in (host.bridges[bridge].addresses or () if bridge in host.bridges else ())]
    subnet = next((subnet for subnet in known if ends[0] in subnet and ends[1] in subnet), None)
    if subnet is None:
        subnets = ", ".join(dict.fromkeys(map(str, known)))
        if subnets:
            findings.error(path, f"{ends[0]}-{ends[1]} is not within one subnet on {bridge}: {subnets}")
        elif not findings.broken("networks"):
            findings.error(path, f"no network of the file on {bridge} says its subnet", "give the network one: "
                           "{bridge: " + bridge + ", subnet: 192.168.6.0/24}")
        return None
    for end in ends:
        if unusable := reserved(end, subnet):
            findings.error(path, f"{end} is {unusable}")
    return DhcpSpec(*ends, subnet)


def check_ranges(hosts: Mapping[str, HostView], networks: Networks, taken: Mapping[IPv4Address, str],
                 findings: Findings) -> None:
    """Complain where addresses are handed out that somebody has. `taken` are the file's, with who has them."""
    seen: list[tuple[DhcpSpec, KeyPath]] = []
    for name, view in hosts.items():
        dns = view.spec.services.dns
        if dns is None or dns.dhcp is None:
            continue
        path: KeyPath = ("hosts", name, "services", "dns", "dhcp")
        _check_range(path, dns.dhcp, {**dict(_servers(networks, dns)), **taken}, findings)
        for other, where in seen:
            if other.first <= dns.dhcp.last and dns.dhcp.first <= other.last:
                findings.error(path, f"the range overlaps with that at {findings.where(where)}",
                               "hand out other addresses: a guest must not get what another one has")
        seen.append((dns.dhcp, path))


def _servers(networks: Networks, dns: DnsSpec) -> Iterator[tuple[IPv4Address, str]]:
    """Machines that the networks on that bridge name, and that are not VMs."""
    for network in networks.values():
        if network.bridge == dns.bridge:
            for text in (*network.dns, *network.ntp):
                try:
                    yield IPv4Address(text), f"a server of network {network.name}, at {network.where}"
                except ValueError:
                    continue
            if network.gateway:
                yield network.gateway, f"the gateway of network {network.name}, at {network.where}"


def _check_range(path: KeyPath, dhcp: DhcpSpec, taken: Mapping[IPv4Address, str], findings: Findings) -> None:
    inside = sorted(address for address in taken if dhcp.first <= address <= dhcp.last)
    if inside:
        more = f", and {len(inside) - 1} more of the file's addresses" if len(inside) > 1 else ""
        findings.error(path, f"{inside[0]} must not be handed out: it is {taken[inside[0]]}{more}",
                       "choose a range beside the fixed addresses")


# -- the others --------------------------------------------------------------------------------------------------------

def _ntp(path: KeyPath, given: NtpIn, networks: Networks, findings: Findings) -> NtpSpec | None:
    served = _subnets(path, given.networks, networks.values(), findings)
    return NtpSpec(served, tuple(given.upstream), findings.where(path, key=True)) if served else None


def _proxy(path: KeyPath, given: ProxyIn, networks: Networks, findings: Findings) -> ProxySpec | None:
    squid = given.kind == "squid"
    if given.cache is not None and not squid:
        findings.error((*path, "cache"), "goes with squid: apt-cacher-ng removes what no list of packages has any more",
                       "take it out", key=True)
    usual = (network for network in networks.values() if squid or network.bridge)
    served = _subnets(path, given.networks, usual, findings)
    if not served:
        return None
    cache = (_CACHE if given.cache is None else given.cache) if squid else 0
    return ProxySpec(given.kind, given.port or _PORTS[given.kind], served, cache, findings.where(path, key=True))


def _masquerade(path: KeyPath, given: MasqueradeIn, networks: Networks, findings: Findings) -> MasqueradeSpec | None:
    inside = [network for network in networks.values() if network.bridge and network.bridge != given.out]
    served = _subnets(path, given.networks, inside, findings)
    for network in networks.values():
        if network.subnet is None or not _within(network.subnet, served):
            continue
        if network.bridge == given.out:
            findings.error(path, f"guests of network {network.name} ({network.subnet}) are on {given.out} itself, and "
                           "are not behind this host", "name another interface, or other networks")
        elif network.nat:
            findings.warn(path, f"libvirt masquerades for network {network.name} ({network.subnet}) already")
    return MasqueradeSpec(given.out, served, findings.where(path, key=True)) if served else None


def _subnets(path: KeyPath, given: Iterable[IPv4Network] | None, usual: Iterable[NetworkSpec],
             findings: Findings) -> tuple[IPv4Network, ...]:
    """The subnets that are given, or those of the networks that are usual. None at all is an error."""
    found = given if given is not None else (network.subnet for network in usual if network.subnet)
    served = tuple(dict.fromkeys(found))
    if not served and not findings.broken("networks"):
        findings.error(path, "for which networks?", "write networks: [192.168.6.0/24] or the like", key=True)
    return served


def _within(subnet: IPv4Network, served: Iterable[IPv4Network]) -> bool:
    return any(subnet.subnet_of(other) for other in served)


# -- what networks take from them --------------------------------------------------------------------------------------

def serve_networks(spec: Spec, networks: Networks, hosts: Mapping[str, HostView]) -> dict[str, NetworkSpec]:
    """The networks: what the file does not say of them is what the hosts do for them, as far as it tells addresses."""
    return {name: _served(network, spec.networks[name].model_fields_set, hosts) if name in spec.networks else network
            for name, network in networks.items()}


def _served(network: NetworkSpec, said: set[str], hosts: Mapping[str, HostView]) -> NetworkSpec:
    rows = [(view.spec.services, own) for view in hosts.values() if (own := _own_address(network, view, len(hosts)))]
    subnet = network.subnet
    if subnet is None or not rows:
        return network
    found: dict[str, tuple[str, ...]] = {
        "dns": tuple(str(own) for served, own in rows if served.dns and served.dns.bridge == network.bridge),
        "ntp": tuple(str(own) for served, own in rows if served.ntp and _within(subnet, served.ntp.networks)),
        "proxy": tuple(f"http://{own}:{served.proxy.port}" for served, own in rows
                       if served.proxy and _within(subnet, served.proxy.networks))}
    ways = [own for served, own in rows if served.masquerade and _within(subnet, served.masquerade.networks)]
    keeps = {key for key, values in found.items() if not values} | said
    return replace(
        network,
        dns=network.dns if "dns" in keeps else found["dns"],
        ntp=network.ntp if "ntp" in keeps else found["ntp"],
        proxy=network.proxy if "proxy" in keeps else found["proxy"][0],
        gateway=ways[0] if network.bridge and "gateway" not in said and len(ways) == 1 else network.gateway)


def _own_address(network: NetworkSpec, view: HostView, hosts: int) -> IPv4Address | None:
    """A host's own address in a network, as far as the file tells. On NAT it is the gateway; which host's, if several?
    """
    if network.nat:
        return network.gateway if hosts == 1 else None
    return next((address for address in view.addresses if network.subnet and address in network.subnet), None)
