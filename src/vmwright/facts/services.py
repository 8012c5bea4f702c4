"""What bears on a host's own services for guests: units, sockets, firewall, what main configuration files include.

Asked only of hosts that are to have such services. A command and a pure parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vmwright.facts.service_model import ServicesFacts, SocketFacts
from vmwright.names import DNS_SERVICE, NAT_SERVICE, NAT_TABLE, service_mark
from vmwright.spec.cloud import ServicesSpec

UNITS = (DNS_SERVICE, NAT_SERVICE, "chrony.service", "chronyd.service", "squid.service", "apt-cacher-ng.service",
         "firewalld.service")
_PORTS = (53, 67, 123)

# $1 our table of nftables, $2 a filter for ss, $3 how marks of what is unfinished begin, then units. A socket's program
# is told with its unit: of two that are called dnsmasq, one may be libvirt's, and one ours. What ss tells of a socket
# has no tabs in it.
_SERVICES = r"""
exec </dev/null
table=$1 filter=$2 marks=$3
shift 3
for unit in "$@"; do
  printf 'unit\t%s\t%s\t%s\n' "$unit" "$(systemctl is-active "$unit")" "$(systemctl is-enabled "$unit")"
done
ss -H -l -n -t -u -p "$filter" | while read -r kind _ _ _ local _ users; do
  pid=${users#*pid=}; pid=${pid%%,*}
  unit=$(sed -n 's|.*/\([^/]*\.service\)$|\1|p' "/proc/$pid/cgroup" | head -n 1)
  printf 'socket\t%s\t%s\t%s\t%s\n' "$kind" "$local" "$users" "$unit"
done
for file in /etc/chrony/chrony.conf /etc/chrony.conf; do
  [ ! -r "$file" ] || sed -n 's/^[[:space:]]*\(confdir\|include\)[[:space:]]/reads\tchrony\t\1 /p' "$file"
  [ ! -r "$file" ] || printf 'main\tchrony\t%s\n' "$file"
done
file=/etc/squid/squid.conf
[ ! -r "$file" ] || sed -n 's/^[[:space:]]*\(http_port\|include\)[[:space:]]/reads\tsquid\t\1 /p' "$file"
[ ! -r "$file" ] || printf 'main\tsquid\t%s\n' "$file"
for mark in "$marks"*; do
  [ ! -e "$mark" ] || printf 'unfinished\t%s\n' "${mark#"$marks"}"
done
read -r value </proc/sys/net/ipv4/ip_forward || :
printf 'forwarding\t%s\n' "$value"
if command -v nft >/dev/null; then
  nft --json list chains | while read -r line; do printf 'chains\t%s\n' "$line"; done
  ! nft list table ip "$table" >/dev/null || printf 'table\tyes\n'
fi
printf 'end\n'
"""

_ENDPOINT = re.compile(r"\[?(?P<address>[0-9a-fA-F.:*]+?)\]?(?:%(?P<link>[^:]+))?:(?P<port>\d+)")
_PROGRAM = re.compile(r'\(\("([^"]*)"')


def commands(services: ServicesSpec) -> dict[str, Sequence[str]]:
    """The probe's argv by name; none where the host is to have no services."""
    if not services.wanted:
        return {}
    ports = (*_PORTS, *([services.proxy.port] if services.proxy else ()))
    wanted = " or ".join(f"sport = :{port}" for port in ports)
    return {"services": ["sh", "-c", _SERVICES, "sh", NAT_TABLE, wanted, service_mark(""), *UNITS]}


def parse(text: str) -> ServicesFacts:
    """What the probe said. Raises ValueError."""
    rows = [line.split("\t") for line in text.splitlines()]
    if ["end"] not in rows:
        raise ValueError("it ended too early")
    units = [row[1:] for row in rows if row[0] == "unit" and len(row) == 4]
    return ServicesFacts(
        active=tuple(name for name, active, _ in units if active == "active"),
        enabled=tuple(name for name, _, enabled in units if enabled == "enabled"),
        sockets=tuple(socket for row in rows if row[0] == "socket" and (socket := _socket(row[1:]))),
        main=tuple((row[1], row[2]) for row in rows if row[0] == "main" and len(row) == 3),
        reads=tuple((row[1], row[2].strip()) for row in rows if row[0] == "reads" and len(row) == 3),
        forwarding=["forwarding", "1"] in rows,
        table=["table", "yes"] in rows,
        unfinished=tuple(row[1] for row in rows if row[0] == "unfinished" and len(row) == 2),
        drops=tuple(drop for row in rows if row[0] == "chains" for drop in _drops("\t".join(row[1:]))))


def _socket(row: list[str]) -> SocketFacts | None:
    kind, local, users, unit = (*row, "", "", "", "")[:4]
    found = _ENDPOINT.fullmatch(local)
    if found is None:
        return None
    program = _PROGRAM.search(users)
    return SocketFacts(kind, found["address"], int(found["port"]), found["link"] or "", program[1] if program else "",
                       unit)


def _drops(text: str) -> Iterator[tuple[str, str]]:
    """Chains that drop what no rule lets through: the hook, and the chain in words. `text` is nft's JSON."""
    rows: list[dict[str, Any]] = json.loads(text).get("nftables", []) if text else []
    for row in rows:
        chain = row.get("chain", {})
        if chain.get("policy") == "drop" and chain.get("hook") in ("input", "forward") \
                and chain.get("family") in ("ip", "inet"):
            yield chain["hook"], f"table {chain['family']} {chain['table']}, chain {chain['name']}"
