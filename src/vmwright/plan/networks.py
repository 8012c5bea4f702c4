"""Networks: NAT networks are made, bridges must be there."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface

from vmwright.facts.model import NetworkFacts
from vmwright.plan.actions import Change, CreateNetwork, Kept
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
    link = next((link for link in view.facts.links if link.name == network.bridge), None)
    if link is None or link.kind not in ("bridge", "openvswitch"):
        found = "is not there" if link is None else f"is not a bridge but {link.kind}"
        bridges = [link.name for link in view.facts.links if link.kind == "bridge"]
        draft.refuse(f"network {network.name}: bridge {network.bridge} {found} on host {view.host.name}",
                     f"make it with the host's own network set-up; bridges there: {', '.join(bridges) or 'none'}",
                     network.where)
        return None
    if not link.up:
        draft.warnings.append(f"network {network.name}: bridge {network.bridge} is down on host {view.host.name}")
    draft.kept.append(Kept(view.host.name, f"network {network.name}", f"bridge {network.bridge} is there"))
    return Link("bridge", link.name)


def _plan_nat(view: View, network: NetworkSpec, draft: Draft) -> Link | None:
    named = next((n for n in view.facts.networks if n.name == network.name), None)
    same = named or next((n for n in view.facts.networks if _same_subnet(n, network)), None)
    if same is None:
        return _new_nat(view, network, draft)
    if not _same_subnet(same, network) or same.forward != "nat":
        draft.refuse(f"network {network.name} is there already as {same.forward or 'isolated'} {same.subnet or ''}, not as NAT "
                     f"{network.subnet}", "choose another name, or the subnet that is there", network.where)
        return None
    _warn_dhcp(view, network, same, draft)
    if same.active and same.autostart:
        other = f", as libvirt's {same.name}" if same.name != network.name else ""
        draft.kept.append(Kept(view.host.name, f"network {network.name}", f"is there{other}"))
        return Link("network", same.name)
    missing = [word for word, there in (("running", same.active), ("started at boot", same.autostart)) if not there]
    action = CreateNetwork(host=view.host.name, network=network, libvirt_name=same.name, exists=True,
                           why=f"it is there, but not {' or '.join(missing)}",
                           changes=tuple(Change(word, "no", "yes") for word in missing))
    draft.actions.append(action)
    return Link("network", same.name, action.id)


def _new_nat(view: View, network: NetworkSpec, draft: Draft) -> Link | None:
    for link in view.facts.links:
        for address in link.addresses:
            if network.subnet and IPv4Interface(address).network.overlaps(network.subnet):
                draft.refuse(f"network {network.name}: {network.subnet} overlaps with {address}, which {link.name} of host "
                             f"{view.host.name} has", "choose a subnet that nothing else uses", network.where)
                return None
    nics = [nic for vm in view.cloud.vms for nic in vm.nics if nic.network == network.name]
    action = CreateNetwork(
        host=view.host.name, network=network, libvirt_name=network.name, why="libvirt has no network of that name or subnet",
        reserved=tuple(nic.address.ip for nic in nics if nic.address), dhcp=any(nic.address is None for nic in nics),
        changes=(Change("NAT", "", str(network.subnet)),))
    draft.actions.append(action)
    return Link("network", network.name, action.id)


def _warn_dhcp(view: View, network: NetworkSpec, facts: NetworkFacts, draft: Draft) -> None:
    nics = [(vm, nic) for vm in view.vms for nic in vm.nics if nic.network == network.name]
    wants = [vm for vm, nic in nics if nic.address is None]
    if wants and not facts.dhcp:
        draft.refuse(f"vm {wants[0].name} has no address, and libvirt's network {facts.name} hands none out",
                     "give it an `address:`", wants[0].where)
    if facts.dhcp and facts.name != network.name and len(wants) < len(nics):
        draft.warnings.append(f"network {network.name} is libvirt's {facts.name}, whose DHCP may hand out the fixed addresses of "
                              "the file to others; a network of its own avoids that")


def _same_subnet(facts: NetworkFacts, network: NetworkSpec) -> bool:
    return facts.subnet is not None and IPv4Interface(facts.subnet).network == network.subnet
