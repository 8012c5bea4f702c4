"""A host's own services for guests: set up, started, seen to answer, taken away when the file has them no more. Pure.

Each is an action of its own, after what prepares the host and before VMs, which may need it at their first boot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from vmwright.errors import Where
from vmwright.facts.service_model import ServicesFacts
from vmwright.names import (
    CACHER_CONFIG,
    CACHER_DROP_IN,
    DNS_CONFIG,
    DNS_NAMES,
    DNS_SERVICE,
    DNS_UNIT,
    FORWARDING,
    NAT_RULES,
    NAT_SERVICE,
    NAT_UNIT,
    NTP_CONFIG,
    NTP_CONFIG_FEDORA,
    SQUID_CONFIG,
)
from vmwright.netconfig.common import NewFile
from vmwright.plan.action import Change, Sign
from vmwright.plan.actions import AS_ASKED, Kept
from vmwright.plan.host_actions import Answer, SetService
from vmwright.plan.needs import Family, family
from vmwright.plan.own_files import is_anothers, leftover, to_write
from vmwright.plan.service_checks import (
    check_dns,
    check_masquerade,
    check_ntp,
    check_proxy,
    own_addresses,
    tell_firewall,
)
from vmwright.plan.service_files import Name, cacher_files, dns_files, nat_files, ntp_files, squid_files, vm_names
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import DnsSpec, NtpSpec, ProxySpec

_SYSCTL = ("/lib/systemd/systemd-sysctl", "--prefix=/net/ipv4/ip_forward")
_LOOKED_UP = 1  # names that are looked up to see that DNS answers


@dataclass(frozen=True)
class _Wanted:
    """A service as it is to be. `off`: in what it is not, though its files may be."""

    unit: str
    files: tuple[NewFile, ...]
    change: Change
    answers: tuple[Answer, ...]
    tests: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    off: tuple[str, ...] = ()
    where: Where | None = None


@dataclass(frozen=True)
class _Kind:
    """A kind of service: every file that may be of it, the unit that goes with each, and what is wanted of it."""

    name: str
    units: dict[str, str]
    wanted: Callable[[View, ServicesFacts, Draft], _Wanted | None]


def plan_services(view: View, draft: Draft) -> tuple[str, ...]:
    """The services' actions, and the ids of those that VMs stand on."""
    services, facts = view.host.services, view.facts.services
    if view.request.only is not None:
        return ()
    if services.wanted and not view.facts.platform.systemd:
        draft.refuse(f"host {view.host.name}: systemd is not running there, which starts and watches `services:`",
                     "take them out of the file, and set them up by hand", view.host.keys.get("services"))
        return ()
    if services.wanted and facts is None:
        draft.refuse(f"host {view.host.name}: the facts do not tell what its services stand on",
                     "they are from before it had `services:`; record them anew: vmwright facts --json",
                     view.host.keys.get("services"))
        return ()
    found = [action for kind in _KINDS if (action := _plan(view, kind, facts or ServicesFacts(), draft))]
    draft.actions += found
    return tuple(action.id for action in found if action.unit)


def plan_no_services(view: View, draft: Draft) -> None:
    """What takes all of them away again, whatever the file says."""
    draft.actions += [action for kind in _KINDS if (action := _take_away(view, kind, _RELEASED, draft))]


_GONE, _RELEASED = "it is not in the file any more", "the host is released"


def _plan(view: View, kind: _Kind, facts: ServicesFacts, draft: Draft) -> SetService | None:
    refused = len(draft.refused)
    wanted = kind.wanted(view, facts, draft)
    if len(draft.refused) > refused:
        return None
    if wanted is None:
        return _take_away(view, kind, _GONE, draft)
    if any(is_anothers(view, file.path, f"settings for {kind.name}", draft) for file in wanted.files):
        return None
    files = to_write(view, wanted.files, draft)
    if files is None:
        return None
    kept = {file.path for file in wanted.files}
    stale = tuple(path for path in kind.units if path not in kept and leftover(view, path, draft))
    off = (*(["an earlier run was cut off while it set this up"] if kind.name in facts.unfinished else []), *wanted.off)
    if not files and not stale and not off:
        draft.kept.append(Kept(view.host.name, f"service {kind.name}", f"{AS_ASKED}: {wanted.change.new}"))
        return None
    tell_firewall(view, facts, kind.name, wanted.where, draft)
    return SetService(
        host=view.host.name, what=kind.name, files=files, remove=stale, unit=wanted.unit,
        stop=_others(kind, stale, wanted.unit), tests=wanted.tests, after=wanted.after, answers=wanted.answers,
        changes=tuple(_changes(wanted, files, stale)), why=_why(view, wanted, files, stale) or "; ".join(off),
        sign=Sign.ADD if len(files) == len(wanted.files) else Sign.CHANGE)


def _others(kind: _Kind, paths: Sequence[str], unit: str) -> tuple[str, ...]:
    """The units of these files, but for that one."""
    return tuple(dict.fromkeys(kind.units[path] for path in paths if kind.units[path] != unit))


def _why(view: View, wanted: _Wanted, files: Sequence[NewFile], stale: Sequence[str]) -> str:
    """Why files are to be changed; empty when none is."""
    if not files and not stale:
        return ""
    there = any(view.facts.platform.file(file.path).text is not None for file in wanted.files)
    return "the file says otherwise" if there or stale else "the file asks for it"


def _changes(wanted: _Wanted, files: Sequence[NewFile], stale: Sequence[str]) -> Iterator[Change]:
    yield wanted.change
    if files:
        yield Change("files", "", ", ".join(file.path for file in files))
    if stale:
        yield Change("files", ", ".join(stale), "removed")


def _take_away(view: View, kind: _Kind, why: str, draft: Draft) -> SetService | None:
    """What is left of a service that the file has no more. chrony goes on: the host needs its time."""
    stale = tuple(path for path in kind.units if leftover(view, path, draft))
    if not stale:
        return None
    again = kind.name == "ntp"
    units = _others(kind, stale, "")
    what = "goes on for the host alone" if again else "stopped, and not started at boot any more"
    rows = [Change("files", ", ".join(stale), "removed"), *(Change(unit, "", what) for unit in units)]
    if kind.name == "proxy":
        rows.append(Change("packages", "", "stay installed"))
    return SetService(host=view.host.name, what=kind.name, remove=stale, stop=() if again else units,
                      again=units if again else (), changes=tuple(rows), why=why, sign=Sign.REMOVE)


def _off(facts: ServicesFacts, unit: str) -> tuple[str, ...]:
    rows = (("it is not running", unit in facts.active), ("it is not started at boot", unit in facts.enabled))
    return tuple(text for text, fine in rows if not fine)


# -- one after another -------------------------------------------------------------------------------------------------

def _dns(view: View, facts: ServicesFacts, draft: Draft) -> _Wanted | None:
    dns = view.host.services.dns
    if dns is None or not check_dns(view, dns, facts, draft):
        return None
    own = own_addresses(view, dns.bridge)
    names = (Name(own[0].ip, (view.facts.hostname,)), *vm_names(view.cloud, dns.bridge)) if dns.names and own else ()
    return _Wanted(
        DNS_SERVICE, dns_files(view.cloud, dns, names, fedora=_fedora(view)), _dns_change(dns, names),
        tuple(_dns_answers(dns, own, names)), tests=(("dnsmasq", "--test", f"--conf-file={DNS_CONFIG}"),),
        off=_off(facts, DNS_SERVICE), where=dns.where)


def _dns_change(dns: DnsSpec, names: Sequence[Name]) -> Change:
    words = [f"DNS on {dns.bridge}", *([f"{len(names)} names of its own"] if names else [])]
    words += [f"others from {', '.join(dns.upstream)}"] if dns.upstream else []
    words += [f"DHCP {dns.dhcp.first} to {dns.dhcp.last}"] if dns.dhcp else []
    return Change("dnsmasq", "", "; ".join(words))


def _dns_answers(dns: DnsSpec, own: Sequence[IPv4Interface], names: Sequence[Name]) -> Iterator[Answer]:
    for interface in own[:1]:
        known = names[-_LOOKED_UP:]
        yield from (Answer("dns", str(interface.ip), 53, name.names[0], str(name.address)) for name in known)
        if not known:
            yield Answer("dns", str(interface.ip), 53)
    if dns.dhcp:
        yield Answer("dhcp", name=dns.bridge)


def _ntp(view: View, facts: ServicesFacts, draft: Draft) -> _Wanted | None:
    ntp, path = view.host.services.ntp, NTP_CONFIG_FEDORA if _fedora(view) else NTP_CONFIG
    unit = "chronyd.service" if _fedora(view) else "chrony.service"
    if ntp is None or not check_ntp(view, ntp, facts, path, draft):
        return None
    return _Wanted(
        unit, ntp_files(view.cloud, ntp, path), Change("chrony", "", f"serves {', '.join(map(str, ntp.networks))}"),
        tuple(Answer("ntp", str(address), 123) for address in _own_in(view, ntp)[:1]),
        tests=(("chronyd", "-p"),), off=_off(facts, unit), where=ntp.where)


def _proxy(view: View, facts: ServicesFacts, draft: Draft) -> _Wanted | None:
    proxy = view.host.services.proxy
    if proxy is None or not check_proxy(view, proxy, facts, draft, fedora=_fedora(view)):
        return None
    own, unit = _own_in(view, proxy), f"{proxy.kind}.service"
    squid = proxy.kind == "squid"
    files = squid_files(view.cloud, proxy, port_said=_port_said(facts, proxy.port)) if squid else \
        cacher_files(view.cloud, proxy, own)
    served = f"for {', '.join(map(str, proxy.networks))}" if squid else f"at {', '.join(map(str, own)) or '127.0.0.1'}"
    return _Wanted(unit, files, Change(proxy.kind, "", f"port {proxy.port}, {served}"),
                   (Answer("http", "127.0.0.1", proxy.port),), tests=(("squid", "-k", "parse"),) if squid else (),
                   off=_off(facts, unit), where=proxy.where)


def _port_said(facts: ServicesFacts, port: int) -> bool:
    """Whether squid's main file has that port. Where it is not installed yet, it will have the usual one."""
    said = {line.split()[1].rpartition(":")[2] for program, line in facts.reads
            if program == "squid" and line.startswith("http_port ")}
    return str(port) in (said if "squid" in dict(facts.main) else {"3128"})


def _masquerade(view: View, facts: ServicesFacts, draft: Draft) -> _Wanted | None:
    masquerade = view.host.services.masquerade
    if masquerade is None or not check_masquerade(view, masquerade, facts, draft):
        return None
    rows = (("its table is gone", facts.table), ("the kernel does not forward", facts.forwarding))
    return _Wanted(
        NAT_SERVICE, nat_files(view.cloud, masquerade),
        Change("nftables", "", f"{', '.join(map(str, masquerade.networks))} out of {masquerade.out}"),
        (Answer("nat"),), tests=(("nft", "-c", "-f", NAT_RULES),), after=(_SYSCTL,), where=masquerade.where,
        off=(*_off(facts, NAT_SERVICE), *(text for text, fine in rows if not fine)))


_KINDS = (
    _Kind("masquerade", dict.fromkeys((NAT_RULES, NAT_UNIT, FORWARDING), NAT_SERVICE), _masquerade),
    _Kind("dns", dict.fromkeys((DNS_CONFIG, DNS_NAMES, DNS_UNIT), DNS_SERVICE), _dns),
    _Kind("ntp", {NTP_CONFIG: "chrony.service", NTP_CONFIG_FEDORA: "chronyd.service"}, _ntp),
    _Kind("proxy", {SQUID_CONFIG: "squid.service", CACHER_CONFIG: "apt-cacher-ng.service",
                    CACHER_DROP_IN: "apt-cacher-ng.service"}, _proxy),
)


def _fedora(view: View) -> bool:
    return family(view.facts.platform) is Family.FEDORA


def _own_in(view: View, service: NtpSpec | ProxySpec) -> tuple[IPv4Address, ...]:
    """The host's own addresses on bridges in the subnets that are served; those of libvirt's networks come and go."""
    theirs = {network.bridge for network in view.facts.networks}
    bridges = dict.fromkeys((*(bridge.name for bridge in view.host.bridges), *(link.name for link in view.facts.links
                                                                                if link.name not in theirs)))
    found = (interface.ip for name in bridges for interface in own_addresses(view, name))
    return tuple(dict.fromkeys(ip for ip in found if any(ip in subnet for subnet in service.networks)))
