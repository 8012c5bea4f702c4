"""Networks: NAT networks are made; bridges are there, or made before (bridges.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from vmwright.facts.model import NetworkFacts
from vmwright.plan.action import Change
from vmwright.plan.actions import CreateNetwork, Kept
from vmwright.plan.host_actions import MakeBridges, TakeBridgesBack
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import NetworkSpec


@dataclass(frozen=True)
class Link:
    """How a NIC gets to a network: `type` and `source` as in libvirt's XML; `action` is what must be done before."""

    type: str
    source: str
    action: str | None = None


def plan_networks(view: View, draft: Draft) -> dict[str, Link]:
    """Networks to make or start, and how each network of the spec is reached on this host, by its name."""
    links: dict[str, Link] = {}
    for network in view.networks:
        link = _plan_bridge(view, network, draft) if network.bridge else _plan_nat(view, network, draft)
        if link:
            links[network.name] = link
    return links


def _plan_bridge(view: View, network: NetworkSpec, draft: Draft) -> Link | None:
    link = view.links.get(network.bridge or "")
    if link is None and (coming := _coming(view, network.bridge or "", draft)):
        return coming
    if link is None and any(bridge.name == network.bridge for bridge in view.host.bridges):
        return None  # that it cannot be made is refused already
    if link is None or link.kind != "bridge":
        found = "is not there" if link is None else f"is not a bridge, but {_article(link.kind)}"
        bridges = [link.name for link in view.facts.links if link.kind == "bridge"]
        draft.refuse(f"network {network.name}: bridge {network.bridge} {found} on host {view.host.name}",
                     f"{'have it made by `bridges:` of the host' if link is None else 'name another one'}; bridges "
                     f"there: {', '.join(bridges) or 'none'}",
                     network.where)
        return None
    if not link.up:
        draft.warnings.append(f"network {network.name}: bridge {network.bridge} is down on host {view.host.name}")
    draft.kept.append(Kept(view.host.name, f"network {network.name}", f"bridge {network.bridge} is there"))
    return Link("bridge", link.name)


def _coming(view: View, name: str, draft: Draft) -> Link | None:
    """A bridge that is not there yet, but is made before."""
    action = next((a for a in draft.actions if isinstance(a, MakeBridges | TakeBridgesBack) and a.host == view.host.name
                   and any(bridge.name == name for bridge in view.host.bridges)), None)
    return Link("bridge", name, action.id) if action else None


def _article(kind: str) -> str:
    if kind == "openvswitch":
        return "Open vSwitch, which is not yet supported"
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind} interface"


def _plan_nat(view: View, network: NetworkSpec, draft: Draft) -> Link | None:
    named = next((n for n in view.facts.networks if n.name == network.name), None)
    there = named or next((n for n in view.facts.networks if _same_subnet(n, network)), None)
    if there is None:
        return _new_nat(view, network, draft)
    if not _same_subnet(there, network) or there.forward != "nat":
        draft.refuse(f"network {network.name}: libvirt on host {view.host.name} has {_described(there)}, not NAT "
                     f"{network.subnet}", "choose another name and subnet, or those that are there", network.where)
        return None
    if not there.active and (other := next(_overlaps(view, network, there.bridge), None)):
        _refuse_overlap(view, network, other, draft)
        return None
    _check_dhcp(view, network, there, draft)
    _check_host_address(view, network, there, draft)
    known = f", as libvirt's {there.name}" if there.name != network.name else ""
    if there.active and there.autostart:
        draft.kept.append(Kept(view.host.name, f"network {network.name}", f"is there{known}"))
        return Link("network", there.name)
    missing = [word for word, fine in (("running", there.active), ("started at boot", there.autostart)) if not fine]
    action = CreateNetwork(host=view.host.name, network=network, libvirt_name=there.name, exists=True,
                           why=f"it is there{known}, but not {' or '.join(missing)}",
                           changes=tuple(Change(word, "no", "yes") for word in missing))
    draft.actions.append(action)
    return Link("network", there.name, action.id)


def _described(there: NetworkFacts) -> str:
    known = {None: "an isolated network", "nat": "a NAT network"}
    kind = known.get(there.forward, f"a network of kind {there.forward}")
    return f"{kind} {there.name}{' with ' + there.subnet if there.subnet else ''}"


def _new_nat(view: View, network: NetworkSpec, draft: Draft) -> Link | None:
    other = next(_overlaps(view, network, None), None)
    if other:
        _refuse_overlap(view, network, other, draft)
        return None
    nics = [nic for vm in view.cloud.vms for nic in vm.nics if nic.network == network.name]
    action = CreateNetwork(
        host=view.host.name, network=network, libvirt_name=network.name,
        why="libvirt has no network of that name or subnet",
        reserved=tuple(nic.address.ip for nic in nics if nic.address), dhcp=any(nic.address is None for nic in nics),
        changes=(Change("NAT", "", str(network.subnet)),))
    draft.actions.append(action)
    return Link("network", network.name, action.id)


def _overlaps(view: View, network: NetworkSpec, own_bridge: str | None) -> Iterator[str]:
    """What on this host has addresses of the network's subnet, in words."""
    taken = [(f"{address}, which {link.name} has", address) for link in view.facts.links if link.name != own_bridge
             for address in link.addresses]
    taken += [(f"{other.subnet} of libvirt's network {other.name}", other.subnet) for other in view.facts.networks
              if other.subnet and not _same_subnet(other, network)]
    for words, address in taken:
        if network.subnet and IPv4Interface(address).network.overlaps(network.subnet):
            yield words


def _refuse_overlap(view: View, network: NetworkSpec, other: str, draft: Draft) -> None:
    draft.refuse(f"network {network.name}: {network.subnet} overlaps with {other} on host {view.host.name}",
                 "choose a subnet that nothing else uses", network.where)


def _check_dhcp(view: View, network: NetworkSpec, there: NetworkFacts, draft: Draft) -> None:
    nics = [(vm, nic) for vm in view.vms for nic in vm.nics if nic.network == network.name]
    wants = [vm for vm, nic in nics if nic.address is None]
    if not there.dhcp:
        for vm in wants:
            draft.refuse(f"vm {vm.name} has no address, and libvirt's network {there.name} hands none out",
                         "give it an `address:`", vm.where)
    for vm, nic in nics:
        held = next((row for row in there.dhcp_ranges if nic.address and _within(nic.address.ip, row)), None)
        if held and nic.address and str(nic.address.ip) not in there.dhcp_hosts:
            row = f"<host mac='{nic.mac}' ip='{nic.address.ip}'/>"
            draft.warnings.append(
                f"vm {vm.name}: DHCP of libvirt's network {there.name} may hand its address {nic.address.ip} to "
                f"others, as it has {held[0]} to {held[1]}; take one outside, or reserve it: virsh net-update "
                f"{there.name} add-last ip-dhcp-host \"{row}\" --live --config")


def _within(address: IPv4Address, ends: tuple[str, str]) -> bool:
    try:
        return IPv4Address(ends[0]) <= address <= IPv4Address(ends[1])
    except ValueError:
        return False


def _check_host_address(view: View, network: NetworkSpec, there: NetworkFacts, draft: Draft) -> None:
    """On a network that others made, the host need not have the first address, as on one that we make."""
    own = IPv4Interface(there.subnet or "0.0.0.0").ip
    for vm in view.vms:
        if any(nic.network == network.name and nic.address and nic.address.ip == own for nic in vm.nics):
            draft.refuse(f"vm {vm.name}: {own} is the host's own address on libvirt's network {there.name}",
                         "give it another `address:`", vm.where)
    if network.gateway not in (own, None):
        draft.warnings.append(f"network {network.name}: guests are told the gateway {network.gateway}, but on "
                              f"libvirt's network {there.name} the host is {own}: `gateway: {own}` may be meant")


def _same_subnet(facts: NetworkFacts, network: NetworkSpec) -> bool:
    return facts.subnet is not None and IPv4Interface(facts.subnet).network == network.subnet
