"""Doctor: bridges and NAT networks of the file, what may filter them, and whether the host forwards."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface

from vmwright.doctor.check import Area, Case, Check, Verdict
from vmwright.facts.model import LinkFacts, NetworkFacts
from vmwright.plan.networks import plan_networks
from vmwright.spec.cloud import NetworkSpec

_AREA = Area.NETWORK
_FORWARD = ("sysctl -w net.ipv4.ip_forward=1, and for each boot: echo net.ipv4.ip_forward=1 > "
            "/etc/sysctl.d/90-forward.conf")
_FILTERS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


def network(case: Case) -> Iterator[Check]:
    """Networks that VMs of the file use here; without a file, those of libvirt."""
    for spec in case.view.networks:
        yield from _bridge(case, spec) if spec.bridge else _nat(case, spec)
    if not case.wanted:
        yield from (_state(found) for found in case.view.facts.networks if found.active)
    yield from _filter(case)
    yield from _unconfirmed(case)


# -- bridges ----------------------------------------------------------------------------------------------------------

def _bridge(case: Case, spec: NetworkSpec) -> Iterator[Check]:
    view, name = case.view, spec.bridge or ""
    link = view.links.get(name)
    used = f"VMs of network {spec.name} are on it"
    if link is None and any(bridge.name == name for bridge in view.host.bridges):
        yield Check(Verdict.WARN, _AREA, f"bridge {name} is not there", used, "vmwright apply makes it")
    elif link is None or link.kind != "bridge":
        found = "is not there" if link is None else f"is a {link.kind} interface, not a bridge"
        there = ", ".join(one.name for one in view.facts.links if one.kind == "bridge") or "none"
        yield Check(Verdict.FAIL, _AREA, f"bridge {name} {found}", used,
                    f"have it made by `bridges:` of the host, or name another one; bridges there: {there}", spec.where,
                    case.refusals(plan_networks, spec.where))
    else:
        yield from _there(case, spec, link)
    yield from _gateway(case, spec)


def _there(case: Case, spec: NetworkSpec, link: LinkFacts) -> Iterator[Check]:
    ports = [one.name for one in case.view.facts.links if one.master == link.name and one.kind in ("ethernet", "vlan",
                                                                                                   "bond", "team")]
    used = f"VMs of network {spec.name} are on it"
    if not link.up:
        yield Check(Verdict.FAIL, _AREA, f"bridge {link.name} is down", used, f"ip link set {link.name} up")
    elif ports:
        yield Check(Verdict.OK, _AREA, f"bridge {link.name} is up, over {', '.join(ports)}")
    else:
        yield Check(Verdict.OK, _AREA, f"bridge {link.name} is up, over no interface: for VMs and the host alone")


def _gateway(case: Case, spec: NetworkSpec) -> Iterator[Check]:
    """A host that is the gateway of a bridged network has to forward what guests send to it."""
    if spec.gateway is None or spec.gateway not in _own(case):
        return
    if case.health.forwarding is False:
        masked = case.view.host.services.masquerade
        todo = "vmwright apply sees to it: `masquerade:`" if masked and spec.subnet in masked.networks else _FORWARD
        yield Check(Verdict.WARN, _AREA, f"the host does not forward, and is the gateway of network {spec.name} "
                    f"({spec.gateway})", "guests reach nothing beyond it, but by a proxy", todo, spec.where)
    elif case.health.forwarding:
        yield Check(Verdict.OK, _AREA, f"the host forwards, as the gateway of network {spec.name} has to")


def _own(case: Case) -> set[IPv4Address]:
    """The host's addresses: those that it has, and those that the file gives it."""
    there = (IPv4Interface(address).ip for link in case.view.facts.links for address in link.addresses)
    coming = (one.ip for bridge in case.view.host.bridges for one in bridge.addresses or ())
    return {*there, *coming}


# -- NAT --------------------------------------------------------------------------------------------------------------

def _nat(case: Case, spec: NetworkSpec) -> Iterator[Check]:
    there = next((one for one in case.view.facts.networks if one.name == spec.name), None) or next(
        (one for one in case.view.facts.networks if spec.subnet and one.subnet
         and IPv4Interface(one.subnet).network == spec.subnet), None)
    if there is None:
        if case.view.facts.libvirt:
            yield Check(Verdict.OK, _AREA, f"network {spec.name} (NAT {spec.subnet}) will be made")
        return
    yield _state(there)
    if there.active and case.health.forwarding is False:
        yield Check(Verdict.FAIL, _AREA, "the host does not forward, though libvirt switches that on for NAT networks",
                    f"guests of network {spec.name} reach nothing beyond the host",
                    f"something has switched it off again (see /etc/sysctl.conf, /etc/sysctl.d): {_FORWARD}")


def _state(found: NetworkFacts) -> Check:
    if found.active:
        return Check(Verdict.OK, _AREA, f"network {found.name} is active ({found.forward or 'isolated'} "
                     f"{found.subnet or found.bridge or ''})".replace(" )", ")"))
    return Check(Verdict.WARN, _AREA, f"network {found.name} is not active", "VMs on it do not start",
                 f"virsh net-start {found.name}, or vmwright apply")


# -- what comes between -----------------------------------------------------------------------------------------------

def _filter(case: Case) -> Iterator[Check]:
    bridged = [spec.name for spec in case.view.networks if spec.bridge]
    on = [name for name, value in case.health.filter if value and name in _FILTERS]
    if not bridged or case.view.host.filter_bridged:
        return
    if not on:
        yield Check(Verdict.OK, _AREA, "the host's firewall does not filter what goes over bridges")
        return
    yield Check(Verdict.WARN, _AREA, f"the host's firewall filters what goes over bridges ({', '.join(on)})",
                f"rules for the host, like Docker's, may keep VMs of {', '.join(bridged)} from each other",
                "vmwright apply sets it off where the host has `bridges:`; by hand: sysctl -w "
                + " ".join(f"net.bridge.{name}=0" for name in on) + "; or say `filter_bridged: true`, if it is meant")


def _unconfirmed(case: Case) -> Iterator[Check]:
    wiring = case.view.facts.wiring
    if wiring and wiring.pending:
        yield Check(Verdict.WARN, _AREA, f"bridges that were made are not confirmed yet: {wiring.pending}",
                    "the host goes back to what was before by itself", "see how that ends, then: vmwright apply")
