"""Bridges of the host itself: what its own network files must say, and what stands in the way.

All bridges of a host are made in one step: the host's network is cut once, and goes back as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from vmwright.facts.model import LinkFacts, WiringFacts
from vmwright.names import written_note
from vmwright.netconfig import ifupdown, netplan, networkmanager
from vmwright.netconfig.common import Manager, NewFile, Unfit, Uplink, lacking
from vmwright.plan.action import Action, Change, Effect
from vmwright.plan.actions import Kept
from vmwright.plan.host_actions import MakeBridges, Prepare, TakeBridgesBack
from vmwright.plan.view import Draft, View, diff
from vmwright.spec.cloud import BridgeSpec
from vmwright.spec.findings import nearest

_OURS = re.compile(r"/(?:99-)?vmwright-(?P<name>[^/]+?)(?:\.yaml|\.nmconnection)?$")
_AS_ASKED = "is as the file says"
_NICS = ("ethernet", "bond", "team", "vlan", "veth", "dummy")  # kinds of links that can be a port


def plan_bridges(view: View, draft: Draft) -> None:
    """What makes the bridges of the host's entry in the file; nothing for those that are as it says."""
    wiring = view.facts.wiring
    if not view.host.bridges:
        return
    if wiring is None and not any(lacking(bridge, view.facts.links, ()) for bridge in view.host.bridges):
        draft.kept += [Kept(view.host.name, f"bridge {bridge.name}", _AS_ASKED) for bridge in view.host.bridges]
        return
    if wiring is None:
        draft.refuse(f"host {view.host.name}: the facts do not tell how its network is set up",
                     "they are from before it had `bridges:`; record them anew: vmwright facts --json", view.host.where)
        return
    _check_name(view, wiring, draft)
    _tell_unlisted(view, wiring, draft)
    if wiring.pending:
        draft.actions.append(TakeBridgesBack(
            host=view.host.name, what=wiring.pending, needs=_before(view, draft), effects=frozenset({Effect.CUTS_OFF}),
            why="an earlier run has changed it, and did not live to see that the host is reached over it"))
        return
    work = [one for bridge in view.host.bridges if (one := _look(view, wiring, bridge, draft))]
    _plan_work(view, wiring, work, draft)


def _tell_unlisted(view: View, wiring: WiringFacts, draft: Draft) -> None:
    """Bridges that we have made, and that are no longer in the file: a network is not taken from under its users."""
    listed = {path for bridge in view.host.bridges for manager in Manager for path in _paths(manager, bridge)}
    listed |= {file.path for file in wiring.files if file.path.endswith("-port.nmconnection")}
    for file in wiring.files:
        if file.text and file.path not in listed and (found := _OURS.search(file.path)):
            draft.unlisted.append(Kept(view.host.name, f"bridge {found['name']}",
                                       f"is not in the file, and stays: {file.path}"))


@dataclass(frozen=True)
class _Work:
    """A bridge of ours, or one to be made: in what it is not as asked now, and what sets up its NIC."""

    uplink: Uplink
    manager: Manager
    state: tuple[str, ...]
    paths: tuple[str, ...]  # of our own files for it


def _look(view: View, wiring: WiringFacts, bridge: BridgeSpec, draft: Draft) -> _Work | None:
    """One bridge: to be made, changed or looked at; None when it is to be left alone, or cannot be."""
    state = lacking(bridge, view.facts.links, wiring.routes)
    paths = {manager: tuple(_paths(manager, bridge)) for manager in Manager}
    ours = next((manager for manager in Manager if any(wiring.file(path).text for path in paths[manager])), None)
    if not state and ours is None:
        draft.kept.append(Kept(view.host.name, f"bridge {bridge.name}", f"{_AS_ASKED}; made by others"))
        return None
    if ours is None and (there := view.links.get(bridge.name)):
        kind = "bridge" if there.kind == "bridge" else "interface"
        draft.refuse(f"host {view.host.name}: {bridge.name} is there, and vmwright did not make it, but {state[0]}",
                     f"change the {kind} by hand or the file, so that they agree, or choose another name", bridge.where)
        return None
    refused = len(draft.refused)
    _check_nic(view, wiring, bridge, draft)
    if len(draft.refused) == refused and state:
        _check_addresses(view, wiring, bridge, draft)
    manager = ours or (_manager(view, wiring, bridge, draft) if len(draft.refused) == refused else None)
    if manager is None or len(draft.refused) > refused:
        return None
    return _Work(_uplink(view, wiring, bridge), manager, state, paths[manager])


def _paths(manager: Manager, bridge: BridgeSpec) -> Iterator[str]:
    if manager is Manager.NETPLAN:
        yield netplan.own_path(bridge.name)
    elif manager is Manager.IFUPDOWN:
        yield ifupdown.own_path(bridge.name)
    else:
        yield from (networkmanager.own_path(name) for name in networkmanager.own_names(bridge))


def _uplink(view: View, wiring: WiringFacts, bridge: BridgeSpec) -> Uplink:
    """The NIC as it is. Its gateway and DNS servers are the host's where the default route goes by it."""
    gateway = next((route.gateway for route in wiring.routes if route.link == bridge.nic), None)
    return Uplink(bridge, view.links[bridge.nic].mac, gateway, wiring.dns if gateway else ())


# -- what stands in the way -------------------------------------------------------------------------------------------

def _check_nic(view: View, wiring: WiringFacts, bridge: BridgeSpec, draft: Draft) -> None:
    host, name = view.host.name, bridge.nic
    link = view.links.get(name)
    if link is None:
        draft.refuse(f"host {host}: bridge {bridge.name} wants the interface {name}, which is not there",
                     nearest(name, [other.name for other in view.facts.links if other.kind in _NICS]), bridge.where)
        return
    if name in wiring.wireless:
        draft.refuse(f"host {host}: {name} is wireless, and cannot be a port of a bridge",
                     "name a wired interface, or use a `nat:` network for the VMs", bridge.where)
    elif link.kind not in _NICS:
        draft.refuse(f"host {host}: {name} is a {link.kind} interface, which cannot be a port of bridge {bridge.name}",
                     "name a NIC, a bond or a VLAN interface", bridge.where)
    elif bridge.vlan is None and link.master not in (None, bridge.name):
        draft.refuse(f"host {host}: {name} is a port of {link.master} already",
                     f"take it out there, or use {link.master}", bridge.where)
    if bridge.vlan is not None:
        _check_vlan(view, bridge, draft)


def _check_vlan(view: View, bridge: BridgeSpec, draft: Draft) -> None:
    """A VLAN of the NIC that somebody else has made is a NIC of its own to us."""
    made = bridge.name in view.links and view.links[bridge.name].kind == "bridge"
    for link in view.facts.links:
        same = (link.lower, link.vlan) == (bridge.nic, bridge.vlan)
        if (same and link.name != bridge.port) or (link.name == bridge.port and not made):
            draft.refuse(f"host {view.host.name}: VLAN {bridge.vlan} of {bridge.nic} is there already, as {link.name}"
                         if same else f"host {view.host.name}: {link.name} is there already, as something else",
                         f"write `nic: {link.name}` without `vlan:`" if same else "rename or remove it", bridge.where)


def _check_addresses(view: View, wiring: WiringFacts, bridge: BridgeSpec, draft: Draft) -> None:
    host = view.host.name
    own = {link.mac.lower() for link in view.facts.links}
    for address in bridge.addresses or ():
        other = next((link for link in view.facts.links if link.name not in (bridge.nic, bridge.name, bridge.port)
                      and any(IPv4Interface(text).ip == address.ip for text in link.addresses)), None)
        if other:
            draft.refuse(f"host {host}: {address.ip} is to be on bridge {bridge.name}, but {other.name} has it",
                         f"name the right `nic:`, or take it from {other.name} first", bridge.where)
        for answer, mac in wiring.answered:
            if answer == str(address.ip) and mac.lower() not in own:
                draft.refuse(f"host {host}: {answer} is to be its own, on bridge {bridge.name}, but another machine "
                             f"answers for it: {mac}", "correct the address, or take it from that machine",
                             bridge.where)
    _check_session(view, wiring, bridge, draft)
    _check_route(view, wiring, bridge, draft)
    link = view.links[bridge.nic]
    if bridge.addresses is None and link.dynamic:
        draft.warnings.append(f"host {host}: {bridge.name} asks DHCP for its address with the MAC of {bridge.nic}, but "
                              f"under another name: it may get another one than {', '.join(link.addresses)}; if the "
                              "host is not reached then, it goes back")


def _check_session(view: View, wiring: WiringFacts, bridge: BridgeSpec, draft: Draft) -> None:
    """The address by which we are here must be one of the bridge's afterwards."""
    link = _session_link(view, wiring)
    if link is None or link.name not in (bridge.nic, bridge.name) or bridge.addresses is None:
        return
    if bridge.vlan is None and wiring.session not in [str(address.ip) for address in bridge.addresses]:
        there = next((text for text in link.addresses if text.startswith(f"{wiring.session}/")), wiring.session)
        draft.refuse(f"host {view.host.name}: you come in by {link.name} at {wiring.session}, which bridge "
                     f"{bridge.name} would not have: it would cut you off for good",
                     f"add {there} to its `addresses:`, or connect by another interface", bridge.where)


def _session_link(view: View, wiring: WiringFacts) -> LinkFacts | None:
    """The interface that has the address which the session came to."""
    return next((link for link in view.facts.links for text in link.addresses
                 if wiring.session and text.split("/")[0] == wiring.session), None)


def _check_route(view: View, wiring: WiringFacts, bridge: BridgeSpec, draft: Draft) -> None:
    """A default gateway that stays must be reached from the new addresses."""
    if bridge.addresses is None or bridge.gateway or bridge.vlan is not None:
        return
    for route in wiring.routes:
        if route.link == bridge.nic and route.gateway and not any(
                IPv4Address(route.gateway) in address.network for address in bridge.addresses):
            draft.refuse(f"host {view.host.name}: its default gateway {route.gateway} is reached by {bridge.nic}, and "
                         f"is in no subnet of the addresses of bridge {bridge.name}",
                         "say `gateway:`, or correct the addresses and their prefixes", bridge.where)


def _manager(view: View, wiring: WiringFacts, bridge: BridgeSpec, draft: Draft) -> Manager | None:
    """What sets up the NIC; of one that nothing sets up, what is at work on the host."""
    link = view.links[bridge.nic]
    running = Manager.NETWORK_MANAGER in wiring.active and "nmcli" in wiring.tools
    if running and networkmanager.has(wiring, bridge.nic):
        return Manager.NETWORK_MANAGER
    if "netplan" in wiring.tools and netplan.has(wiring, bridge.nic, link.mac):
        return Manager.NETPLAN
    if "ifup" in wiring.tools and ifupdown.has(wiring, bridge.nic):
        return Manager.IFUPDOWN
    if link.addresses and bridge.vlan is None:
        draft.refuse(f"host {view.host.name}: {bridge.nic} has {', '.join(link.addresses)}, and neither netplan nor "
                     "NetworkManager nor ifupdown has given it that",
                     f"make bridge {bridge.name} by what sets {bridge.nic} up; a bridge that is as the file says is "
                     "left alone", bridge.where)
        return None
    paths = [file.path for file in wiring.files if file.text]
    for manager, fits in ((Manager.NETPLAN, "netplan" in wiring.tools and any("/netplan/" in path for path in paths)),
                          (Manager.NETWORK_MANAGER, running),
                          (Manager.IFUPDOWN, "ifup" in wiring.tools and ifupdown.MAIN in paths)):
        if fits:
            return manager
    draft.refuse(f"host {view.host.name}: neither netplan nor NetworkManager nor ifupdown is at work there",
                 f"make bridge {bridge.name} by what sets up its network; a bridge that is as the file says is left "
                 "alone", bridge.where)
    return None


# -- the action -------------------------------------------------------------------------------------------------------

def _plan_work(view: View, wiring: WiringFacts, work: Sequence[_Work], draft: Draft) -> None:
    try:
        wanted = [file for manager in Manager for file in _files(view, wiring, manager, work)]
    except Unfit as unfit:
        draft.refuse(f"host {view.host.name}: {unfit.what}", unfit.todo, view.host.where)
        return
    files = tuple(file for file in wanted if wiring.file(file.path).text != file.text)
    own = {path for one in work for path in one.paths}
    if _changed_by_hand(view, wiring, [file for file in files if file.path in own], draft):
        return
    changed = {file.path for file in files}
    todo = [one for one in work if one.state or changed & set(one.paths)]
    draft.kept += [Kept(view.host.name, f"bridge {one.uplink.bridge.name}", _AS_ASKED)
                   for one in work if one not in todo]
    if todo and not view.facts.platform.systemd:
        draft.refuse(f"host {view.host.name}: systemd is not running there, and the clock by which it goes back is "
                     "systemd's", "make its bridges by hand; one that is as the file says is left alone",
                     view.host.where)
    elif todo:
        draft.actions.append(_action(view, wiring, todo, files, draft))


def _files(view: View, wiring: WiringFacts, manager: Manager, work: Sequence[_Work]) -> tuple[NewFile, ...]:
    uplinks = [one.uplink for one in work if one.manager is manager]
    if not uplinks:
        return ()
    if manager is Manager.NETPLAN:
        return netplan.make(wiring, uplinks)
    if manager is Manager.IFUPDOWN:
        return ifupdown.make(wiring, uplinks)
    return networkmanager.make(wiring, uplinks, view.links)


def _changed_by_hand(view: View, wiring: WiringFacts, files: Sequence[NewFile], draft: Draft) -> bool:
    """Refuse to write over what somebody else has written to a file of ours, and show it."""
    refused = len(draft.refused)
    for file in files:
        there = wiring.file(file.path)
        if there.text not in (None, there.ours):
            draft.refuse(f"host {view.host.name}: {file.path} was changed by hand:\n"
                         + diff(there.ours or file.text, there.text or ""),
                         f"say it in the cloud's file, if it can; back to what vmwright wrote: cp "
                         f"{written_note(file.path)} {file.path}", view.host.where)
    return len(draft.refused) > refused


def _action(view: View, wiring: WiringFacts, todo: Sequence[_Work], files: tuple[NewFile, ...],
            draft: Draft) -> MakeBridges:
    bridges = tuple(one.uplink.bridge for one in todo)
    nics = {bridge.nic for bridge in bridges if bridge.vlan is None}
    timeout = max(bridge.timeout + (2 * bridge.forward_delay if bridge.stp else 0) for bridge in bridges)
    keep = [text for bridge in bridges if bridge.addresses is None and not view.links[bridge.nic].dynamic
            for text in view.links[bridge.nic].addresses]
    return MakeBridges(
        host=view.host.name, bridges=bridges, files=files, managers=tuple(str(one.manager) for one in todo),
        timeout=timeout, keep=tuple(keep), new=any(bridge.name not in view.links for bridge in bridges),
        profiles=tuple(profile.uuid for profile in wiring.profiles if profile.link in nics),
        why=_why(view, todo), needs=_before(view, draft), effects=_effects(view, wiring, bridges),
        changes=tuple(_changes(bridges, files, timeout)))


def _why(view: View, todo: Sequence[_Work]) -> str:
    if len(todo) == 1:
        return todo[0].state[0] if todo[0].state else "its settings are others"
    return "; ".join(f"{one.uplink.bridge.name}: {one.state[0] if one.state else 'its settings are others'}"
                     for one in todo)


def _before(view: View, draft: Draft) -> tuple[str, ...]:
    """All else that prepares the host: the network stays as it is meanwhile."""
    def other(action: Action) -> bool:
        return isinstance(action, Prepare) and action.host == view.host.name

    return tuple(action.id for action in draft.actions if other(action))


def _effects(view: View, wiring: WiringFacts, bridges: Sequence[BridgeSpec]) -> frozenset[Effect]:
    """Whether the session's way is touched. Of a session that is not known, it may be."""
    link = _session_link(view, wiring)
    if link is None:
        unknown = wiring.session or view.host.connect != "local"
        return frozenset({Effect.CUTS_OFF}) if unknown else frozenset()
    names = {name for bridge in bridges for name in (bridge.nic, bridge.name, bridge.port)}
    return frozenset({Effect.CUTS_OFF} if names & {link.name, link.lower} else ())


def _changes(bridges: Sequence[BridgeSpec], files: Sequence[NewFile], timeout: int) -> Iterator[Change]:
    for bridge in bridges:
        words = [f"over {bridge.nic}" if bridge.vlan is None else f"over VLAN {bridge.vlan} of {bridge.nic}"]
        words.append(", ".join(map(str, bridge.addresses)) or "no address" if bridge.addresses is not None
                     else f"with what {bridge.nic} has")
        words += [f"gateway {bridge.gateway}"] if bridge.gateway else []
        words += [f"DNS {', '.join(bridge.dns)}"] if bridge.dns else []
        words += [f"STP, forward delay {bridge.forward_delay} s"] if bridge.stp else []
        yield Change(bridge.name, "", ", ".join(words))
    if files:
        yield Change("files", "", ", ".join(file.path for file in files))
    yield Change("goes back", "", f"by itself, unless the host is reached anew within {timeout} s")


# -- the host's own name ---------------------------------------------------------------------------------------------

def _check_name(view: View, wiring: WiringFacts, draft: Draft) -> None:
    """A host that does not know its own name is slow at each sudo."""
    own = {text.split("/")[0] for link in view.facts.links for text in link.addresses}
    own |= {str(address.ip) for bridge in view.host.bridges for address in bridge.addresses or ()}
    if any(address in own or address.startswith("127.") for address in wiring.resolved):
        return
    address = next((str(address.ip) for bridge in view.host.bridges for address in bridge.addresses or ()), "ADDRESS")
    name, there = view.facts.hostname, ", ".join(wiring.resolved)
    found = f"resolves to {there}, which it does not have" if there else "does not resolve"
    draft.warnings.append(f"host {view.host.name}: its own name {name} {found}: sudo and others wait for DNS; put the "
                          f"line `{address} {name}` into its /etc/hosts")
