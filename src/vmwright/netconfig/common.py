"""What netplan's, ifupdown's and NetworkManager's files have in common, and whether a bridge is as it was asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vmwright.facts.model import LinkFacts, RouteFacts
from vmwright.names import before_note
from vmwright.spec.cloud import BridgeSpec

MARK = "# Written by vmwright for bridge {}; changes here are told as drift, and not overwritten."


class Manager(StrEnum):
    """What sets up a host's interfaces."""

    NETPLAN = "netplan"
    NETWORK_MANAGER = "NetworkManager"
    IFUPDOWN = "ifupdown"


class Unfit(Exception):
    """These files do not let a bridge be made; `todo` says what a person can do."""

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what)
        self.what, self.todo = what, todo


@dataclass(frozen=True)
class Uplink:
    """A bridge that is to be made, and its NIC as the host has it now. `gateway` and `dns` are those in use."""

    bridge: BridgeSpec
    mac: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewFile:
    """A file as it is to be. `mode` None: as that of the file that is there."""

    path: str
    text: str
    mode: int | None = None


def moved_note(bridge: str, nic: str, path: str) -> str:
    """The line that a file of the administrator's gets where something was taken out."""
    return f"# vmwright: {nic} is a port of bridge {bridge}, which has its addresses. As it was: {before_note(path)}"


def lacking(bridge: BridgeSpec, links: Collection[LinkFacts], routes: Collection[RouteFacts]) -> tuple[str, ...]:
    """In what a bridge is not as asked, in words; nothing when it is."""
    return tuple(_lacking(bridge, {link.name: link for link in links}, routes))


def _lacking(bridge: BridgeSpec, links: dict[str, LinkFacts], routes: Collection[RouteFacts]) -> Iterator[str]:
    link, port = links.get(bridge.name), links.get(bridge.port)
    if link is None or link.kind != "bridge":
        yield "it is not there" if link is None else f"{bridge.name} is no bridge"
        return
    if port is None or port.master != bridge.name:
        yield f"{bridge.port} is not its port"
    elif port.addresses:
        yield f"{bridge.port} still has {', '.join(port.addresses)}"
    if not link.up:
        yield "it is down"
    for address in bridge.addresses or ():
        if str(address) not in link.addresses:
            yield f"it does not have {address}"
    wanted = {str(address) for address in bridge.addresses or ()}
    if bridge.addresses is not None and (other := [a for a in link.addresses if a not in wanted]):
        yield f"it has {', '.join(other)}, too"
    if link.stp != bridge.stp:
        yield f"STP is {'on' if link.stp else 'off'}"
    elif bridge.stp and link.forward_delay != bridge.forward_delay:
        yield f"its forward delay is {link.forward_delay:g} s"
    if bridge.gateway and RouteFacts(bridge.name, str(bridge.gateway)) not in routes:
        yield f"the default route does not go by {bridge.gateway}"
