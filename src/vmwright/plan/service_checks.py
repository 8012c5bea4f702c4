"""What stands in the way of a host's own services for guests: ports that are taken, bridges, files nobody reads. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from ipaddress import IPv4Interface
from posixpath import dirname

from vmwright.errors import Where
from vmwright.facts.service_model import ServicesFacts, SocketFacts
from vmwright.names import DNS_SERVICE, SQUID_CONFIG
from vmwright.plan.needs import Family, family, there
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import DnsSpec, MasqueradeSpec, NtpSpec, ProxySpec
from vmwright.spec.findings import nearest

_EVERYWHERE = ("0.0.0.0", "*", "::")


def own_addresses(view: View, link: str) -> tuple[IPv4Interface, ...]:
    """The host's addresses on an interface, as they are, or as they will be on a bridge that is to be made."""
    bridge = next((bridge for bridge in view.host.bridges if bridge.name == link), None)
    if bridge and bridge.addresses is not None:
        return bridge.addresses
    found = view.links.get(link) or (view.links.get(bridge.nic) if bridge else None)
    return tuple(IPv4Interface(text) for text in found.addresses) if found else ()


def check_dns(view: View, dns: DnsSpec, facts: ServicesFacts, draft: Draft) -> bool:
    """Whether DNS can be served on its bridge."""
    refused, host = len(draft.refused), view.host.name
    _check_link(view, dns.bridge, "service dns", "bridge", dns.where, draft)
    theirs = next((network for network in view.facts.networks if network.bridge == dns.bridge), None)
    if theirs:
        draft.refuse(f"host {host}: {dns.bridge} is libvirt's, of its network {theirs.name}: libvirt serves DNS there",
                     "name a bridge of the host's own", dns.where)
    own = own_addresses(view, dns.bridge)
    if len(draft.refused) == refused and not own:
        draft.refuse(f"host {host}: it has no address on {dns.bridge}, where guests could reach its DNS",
                     f"give it one: bridges: {{{dns.bridge}: {{addresses: [...]}}}}", dns.where)
    for interface in own:
        if interface.ip.is_global:
            draft.refuse(f"host {host}: {interface.ip} on {dns.bridge} is a public address, and DNS would be served to "
                         "everybody who reaches it", "serve guests on a bridge that has private addresses alone",
                         dns.where)
    _check_dhcp(view, dns, own, draft)
    addresses = {str(interface.ip) for interface in own}

    def in_the_way(socket: SocketFacts) -> bool:
        here = socket.link in ("", dns.bridge) and socket.address in _EVERYWHERE
        return (here or socket.address in addresses) and socket.unit != DNS_SERVICE

    ports = [("udp", 53), ("tcp", 53), *([("udp", 67)] if dns.dhcp else [])]
    _check_ports(view, facts, ports, in_the_way, dns.where, draft)
    return len(draft.refused) == refused


def _check_dhcp(view: View, dns: DnsSpec, own: tuple[IPv4Interface, ...], draft: Draft) -> None:
    dhcp = dns.dhcp
    if dhcp is None or not own:
        return
    if not any(interface.ip in dhcp.subnet for interface in own):
        draft.refuse(f"host {view.host.name}: it has no address in {dhcp.subnet} on {dns.bridge}, and dnsmasq hands "
                     "out addresses of its own subnets only",
                     f"its addresses there: {', '.join(map(str, own))}", dns.where)
    for interface in own:
        if dhcp.first <= interface.ip <= dhcp.last:
            draft.refuse(f"host {view.host.name}: {interface.ip}, which is to be handed out, is its own on "
                         f"{dns.bridge}", "choose a range beside it", dns.where)


def check_ntp(view: View, ntp: NtpSpec, facts: ServicesFacts, path: str, draft: Draft) -> bool:
    """Whether chrony can serve."""
    refused = len(draft.refused)
    _check_ports(view, facts, [("udp", 123)], lambda socket: socket.program != "chronyd", ntp.where, draft)
    _check_read(view, facts, "chrony", f"confdir {dirname(path)}", path, ntp.where, draft)
    if not there("chronyd", view.facts) and family(view.facts.platform) is Family.DEBIAN:
        draft.warnings.append(f"host {view.host.name}: chrony takes the place of what sets its clock now "
                              "(systemd-timesyncd, ntpd): Debian removes that when it installs chrony")
    return len(draft.refused) == refused


def check_proxy(view: View, proxy: ProxySpec, facts: ServicesFacts, draft: Draft, *, fedora: bool) -> bool:
    """Whether the proxy can listen, and is there at all for this distribution."""
    refused = len(draft.refused)
    if proxy.kind == "apt-cacher-ng" and fedora:
        draft.refuse(f"host {view.host.name}: {view.facts.os} has no apt-cacher-ng", "say kind: squid", proxy.where)
    # A program's name is told with 15 characters at most (PR_SET_NAME of prctl(2)); both are shorter.
    _check_ports(view, facts, [("tcp", proxy.port)], lambda socket: socket.program != proxy.kind, proxy.where, draft)
    if proxy.kind == "squid":
        _check_read(view, facts, "squid", f"include {dirname(SQUID_CONFIG)}/*.conf", SQUID_CONFIG, proxy.where, draft)
    return len(draft.refused) == refused


def check_masquerade(view: View, masquerade: MasqueradeSpec, facts: ServicesFacts, draft: Draft) -> bool:
    """Whether guests can be let out by that interface."""
    refused, host, out = len(draft.refused), view.host.name, masquerade.out
    _check_link(view, out, "service masquerade", "interface", masquerade.where, draft)
    link = view.links.get(out)
    bridge = next((bridge.name for bridge in view.host.bridges if bridge.port == out), link.master if link else None)
    if bridge:
        draft.refuse(f"host {host}: service masquerade goes out by {out}, which is a port of {bridge}: what is routed "
                     f"leaves by {bridge} itself", f"say `masquerade: {bridge}`", masquerade.where)
    if _firewalld(facts):
        draft.refuse(f"host {host}: firewalld is running, and lets nothing through that is not in its own rules",
                     f"let it do this itself: firewall-cmd --permanent --zone=external --change-interface={out}; "
                     "firewall-cmd --reload; and take `masquerade:` out of the file", masquerade.where)
    return len(draft.refused) == refused


def tell_firewall(view: View, facts: ServicesFacts, name: str, where: Where | None, draft: Draft) -> None:
    """What keeps guests from a service that is being set up, and is the administrator's to change."""
    place = f"{where}: " if where else ""
    ports = _PORTS.get(name, "")
    if name == "masquerade":
        for chain in _drops(facts, "forward"):
            draft.warnings.append(f"{place}host {view.host.name}: its firewall ({chain}) drops what it would forward, "
                                  "unless a rule lets it through: see that guests are let through")
    elif _firewalld(facts):
        draft.warnings.append(f"{place}host {view.host.name}: firewalld is running: let guests in to {ports}, in the "
                              f"zone of their bridge: firewall-cmd --permanent --zone=ZONE {_OPENED.get(name, '')}")
    else:
        for chain in _drops(facts, "input"):
            draft.warnings.append(f"{place}host {view.host.name}: its firewall ({chain}) drops what no rule lets in: "
                                  f"let guests in to {ports}")


_PORTS = {"dns": "UDP and TCP 53 (with DHCP: UDP 67)", "ntp": "UDP 123", "proxy": "the proxy's port"}
_OPENED = {"dns": "--add-service=dns --add-service=dhcp", "ntp": "--add-service=ntp", "proxy": "--add-port=PORT/tcp"}


def _drops(facts: ServicesFacts, hook: str) -> Iterator[str]:
    return (chain for at, chain in facts.drops if at == hook)


def _firewalld(facts: ServicesFacts) -> bool:
    return "firewalld.service" in facts.active


def _check_link(view: View, name: str, what: str, kind: str, where: Where | None, draft: Draft) -> None:
    """Whether there is such an interface, or will be."""
    coming = {word for bridge in view.host.bridges for word in (bridge.name, bridge.port)}
    link = view.links.get(name)
    if link is None and name not in coming:
        known = [*coming, *(link.name for link in view.facts.links if kind != "bridge" or link.kind == "bridge")]
        draft.refuse(f"host {view.host.name}: {what} wants the {kind} {name}, which is neither there nor in the file",
                     nearest(name, known) or "have it made: bridges:", where)
    elif kind == "bridge" and link and link.kind != "bridge":
        draft.refuse(f"host {view.host.name}: {what} wants the bridge {name}, which is no bridge, but {link.kind}",
                     "name a bridge", where)


def _check_ports(view: View, facts: ServicesFacts, ports: list[tuple[str, int]],
                 in_the_way: Callable[[SocketFacts], bool], where: Where | None, draft: Draft) -> None:
    found: dict[str, list[str]] = {}
    for socket in facts.sockets:
        if (socket.kind, socket.port) in ports and in_the_way(socket):
            whose = f"{socket.program or 'another program'}{f' ({socket.unit})' if socket.unit else ''}"
            found.setdefault(whose, []).append(f"{socket.kind.upper()} {socket.port}")
    for whose, taken in found.items():
        unit = whose.partition("(")[2].rstrip(")")
        stop = f"if it is not needed: systemctl disable --now {unit}; " if unit else "stop it; "
        draft.refuse(f"host {view.host.name}: {' and '.join(dict.fromkeys(taken))} there is taken by {whose}",
                     f"{stop}or have it listen at other addresses; or leave this service to it, and take it out of "
                     "the file", where)


def _check_read(view: View, facts: ServicesFacts, program: str, line: str, path: str, where: Where | None,
                draft: Draft) -> None:
    """Whether the main file of a program that is installed takes ours in."""
    main = dict(facts.main).get(program)
    if main is None:
        return
    for name, text in facts.reads:
        word, *words = text.split()
        if name == program and ((word == "confdir" and dirname(path) in words)
                                or (word == "include" and any(fnmatchcase(path, pattern) for pattern in words))):
            return
    draft.refuse(f"host {view.host.name}: {main} does not read {path}, where vmwright says what {program} is to do",
                 f"add this line to it{', above http_access deny all' if program == 'squid' else ''}: {line}", where)
