"""Handlers: bridges of the host.

The host does the change by itself, and goes back by itself: we only lay everything in place, start it, and confirm it
over a new connection. Whatever happens to us or to the line between, it is reachable again within the time limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from vmwright.apply.context import Context
from vmwright.errors import ApplyError, Cancelled, HostError
from vmwright.facts import network as facts
from vmwright.facts.model import RouteFacts
from vmwright.facts.probes import parse_links, script, split
from vmwright.guest.wait import pauses
from vmwright.host import network
from vmwright.host.run import Host
from vmwright.names import NETWORK_STATE
from vmwright.netconfig.common import Manager, lacking
from vmwright.plan.host_actions import MakeBridges, TakeBridgesBack
from vmwright.session import open_host

_SHORT = 30.0  # seconds for a command on a host that is reached
_BACK = 180.0  # seconds, beyond the time limit, that going back may take
_UNDER_WAY = {"unconfirmed", "undoing"}


def make_bridges(action: MakeBridges, context: Context) -> None:
    """Change the host's network, and keep that only when the host is reached anew and has the bridges as asked."""
    with _host(context) as host:
        _stage(action, context, host)
        _start(action, context, host)
    said = _see(action, context)
    if said is None:
        return
    _await_back(context, time.monotonic() + action.timeout + _BACK, action.object, said)
    if context.cancel.is_set():
        raise Cancelled(f"{action.object}: stopped, and taken back")
    raise ApplyError(f"{action.object}: the host was not as asked, or not reached, within {action.timeout} s of the "
                     "change; it has gone back to what it was", why=said,
                     todo="correct the bridge in the file; if the host was only slow, give it a longer `timeout:`")


def take_bridges_back(action: TakeBridgesBack, context: Context) -> None:
    """See the end of a change that was not confirmed: taken back now, or already."""
    with _host(context) as host:
        if not _UNDER_WAY & set(host.run(network.state(), timeout=_SHORT).text.split()):
            return
        _ask_back(host)
    _await_back(context, time.monotonic() + _BACK, action.object, "")


@contextmanager
def _host(context: Context) -> Iterator[Host]:
    """A connection of our own: the session's may have ended, with the host's last boot, or with its last network."""
    with closing(open_host(context.session.spec)) as host:
        yield host


# -- the way there ----------------------------------------------------------------------------------------------------

def _stage(action: MakeBridges, context: Context, host: Host) -> None:
    """Lay everything in place. Nothing is changed by that."""
    context.say("laying the change in place", None)
    context.check()
    if _UNDER_WAY & set(host.run(network.state(), timeout=_SHORT).text.split()):
        raise ApplyError(f"{action.object}: a change of the network of host {action.host} is under way",
                         todo="apply again: it is taken back first")
    host.run(network.clear())
    parts = _parts(action)
    nics = [nic for part in parts for nic in part.nics]
    made = [name for bridge in action.bridges
            for name in ([bridge.name, bridge.port] if bridge.vlan else [bridge.name])]
    forth, back = network.steps(parts, action.profiles)
    texts = {
        network.SCRIPT: network.GUARD, network.FORTH: forth.script(), network.BACK: back.script(),
        f"{NETWORK_STATE}/boot.service": network.unit(), network.LINKS: _lines(made),
        network.PORTS: _lines([*nics, *made]), network.LIST: _lines([file.path for file in action.files])}
    for path, text in texts.items():
        host.write(path, text.encode(), mode=0o600)
    for file in action.files:
        host.write(f"{network.NEW}{file.path}", file.text.encode(), mode=file.mode or 0o600)
        if file.mode is None:
            host.write(f"{network.NEW}{file.path}.as-before", b"")
    if Manager.NETPLAN in action.managers:
        _check(action, host)


def _parts(action: MakeBridges) -> list[network.Managed]:
    """The bridges of each manager."""
    parts = []
    for manager in dict.fromkeys(action.managers):
        bridges = [bridge for bridge, one in zip(action.bridges, action.managers, strict=True) if one == manager]
        parts.append(network.Managed(manager, tuple(bridge.name for bridge in bridges),
                                     tuple(bridge.nic for bridge in bridges if bridge.vlan is None)))
    return parts


def _lines(words: list[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def _check(action: MakeBridges, host: Host) -> None:
    done = host.run(network.check(), check=False, timeout=_SHORT * 4)
    if done.code:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-6:]
        raise ApplyError(f"{action.object}: netplan on host {action.host} does not take it; nothing was changed",
                         why="\n".join(said), todo="see whether the other files in /etc/netplan fit, and apply again")


def _start(action: MakeBridges, context: Context, host: Host) -> None:
    context.check()
    context.say("changing the network", None)
    names = ", ".join(bridge.name for bridge in action.bridges)
    try:
        done = host.run(network.start(action.timeout, names), check=False, timeout=_SHORT * 2)
    except HostError as error:  # it may have begun, and cut us off: what comes of it is seen over a new connection
        context.journal.write("lost", action=context.action, error=str(error))
        return
    if done.code:
        raise ApplyError(f"{action.object}: the change was not begun on host {action.host}; nothing was changed",
                         why=done.stderr.decode(errors="replace").strip(), todo="mend that, then apply again")


# -- the look from outside --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Seen:
    """What a new connection shows. `lacking`: in what the bridges are not as asked."""

    marks: frozenset[str]
    lacking: tuple[str, ...]


def _see(action: MakeBridges, context: Context) -> str | None:
    """Confirm the change as soon as it shows itself over a new connection. None: confirmed; else why it was not."""
    until, began, said = time.monotonic() + action.timeout, time.monotonic(), "no new connection came about"
    for pause in pauses(0.5, 3.0):
        if context.cancel.wait(pause):
            _try_back(context)
            return said
        if time.monotonic() > until:
            return said
        waited = time.monotonic() - began
        context.say(f"waiting for the host to answer over it  {waited:.0f} of {action.timeout} s", None)
        try:
            with _host(context) as host:
                seen = _look(action, context, host)
                if "failed" in seen.marks or not _UNDER_WAY & seen.marks:
                    said = host.run(network.log(), check=False, timeout=_SHORT).text or "it was taken back"
                    _ask_back(host)
                    return said
                if not seen.lacking and "applied" in seen.marks and host.run(network.confirm(), check=False,
                                                                            timeout=_SHORT).code == 0:
                    return None
                said = "; ".join(seen.lacking) or said
        except HostError as error:
            said = error.why or error.what
    return said


def _look(action: MakeBridges, context: Context, host: Host) -> _Seen:
    argvs = {"links": ["ip", "-json", "-details", "address"], "state": network.state(),
             "routes": ["ip", "-json", "-4", "route", "show", "default"]}
    done = host.run(["sh", "-s"], input=script(argvs).encode(), timeout=_SHORT)
    outputs = split(done.text)
    if argvs.keys() - outputs.keys():
        raise HostError("its shell ended too early")
    links, routes = parse_links(outputs["links"].text), facts.parse_routes(outputs["routes"].text)
    missing = [text for bridge in action.bridges for text in lacking(bridge, links, routes)]
    there = {address for link in links for address in link.addresses}
    missing += [f"{address} is gone" for address in action.keep if address not in there]
    if not missing:
        missing += [f"its gateway {gateway} does not answer" for gateway in _gateways(action, context, routes)
                    if host.run(network.answers(gateway), check=False, timeout=_SHORT).code]
    return _Seen(frozenset(outputs["state"].text.split()), tuple(missing))


def _gateways(action: MakeBridges, context: Context, routes: Iterable[RouteFacts]) -> Iterator[str]:
    """Gateways that must answer: those that the file says; on this machine, which no line leads to, all of them."""
    for bridge in action.bridges:
        if bridge.gateway:
            yield str(bridge.gateway)
        elif context.session.spec.connect == "local":
            yield from (route.gateway for route in routes if route.link == bridge.name and route.gateway)


# -- the way back -----------------------------------------------------------------------------------------------------

def _try_back(context: Context) -> None:
    """Have it taken back now if the host is reached; else its clock does it."""
    with suppress(HostError), _host(context) as host:
        _ask_back(host)


def _ask_back(host: Host) -> None:
    if host.run(network.go_back(), check=False, timeout=_SHORT).code:
        host.run(network.go_back_detached(), check=False, timeout=_SHORT)


def _await_back(context: Context, until: float, what: str, said: str) -> None:
    """Wait until the host is reached and nothing is under way there. Raises ApplyError when that does not come."""
    for pause in pauses(0.5, 3.0):
        context.say("waiting for the host to go back to what it was", None)
        with suppress(HostError), _host(context) as host:
            if not _UNDER_WAY & set(host.run(network.state(), timeout=_SHORT).text.split()):
                return
        if time.monotonic() > until:
            break
        time.sleep(pause)
    raise ApplyError(f"{what}: the host is not reached, and it is not known whether it has gone back", why=said,
                     todo=f"look at its console: sh {network.SCRIPT} back takes the change back; what was done is in "
                          f"{NETWORK_STATE}/log")
