"""What is known of a host's own services for guests, and of what stands in their way. Frozen; a part of the facts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SocketFacts:
    """Something that listens: `kind` is tcp or udp; `address` 0.0.0.0, * or :: for all; `link` if bound to one."""

    kind: str
    address: str
    port: int
    link: str = ""
    program: str = ""
    unit: str = ""  # systemd's, that the program belongs to


@dataclass(frozen=True)
class ServicesFacts:
    """What bears on a host's own services for guests.

    `main` are main configuration files that are there, `reads` lines of theirs (chrony's confdir and include, squid's
    http_port and include); both by the program's name. `drops` are hooks of the firewall (input, forward) where what
    no rule lets through is dropped, with the chain that does it.
    """

    active: tuple[str, ...] = ()  # units
    enabled: tuple[str, ...] = ()
    sockets: tuple[SocketFacts, ...] = ()  # on the ports of these services
    main: tuple[tuple[str, str], ...] = ()
    reads: tuple[tuple[str, str], ...] = ()
    forwarding: bool = False
    table: bool = False  # our table of nftables is there
    drops: tuple[tuple[str, str], ...] = ()
    unfinished: tuple[str, ...] = ()  # services that a run was setting up, and did not live to see answer
