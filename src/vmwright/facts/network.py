"""How a host's own network is set up: netplan, ifupdown or NetworkManager, its files and routes, and who else is there.

Asked only of hosts that are to have bridges. Each probe is a command and a pure parser.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from vmwright.facts.model import FileFacts, ProfileFacts, RouteFacts, WiringFacts
from vmwright.facts.pci import SESSION, session_address
from vmwright.names import HOST_STATE, NETWORK_STATE
from vmwright.spec.cloud import BridgeSpec

# Netplan reads /lib, /etc and /run; of files with one name the last of these counts (netplan(5)).
_WIRING = r"""
for tool in netplan ifup ifdown nmcli resolvconf; do
  ! command -v "$tool" >/dev/null || printf 'tool\t%s\n' "$tool"
done
for unit in NetworkManager systemd-networkd; do
  ! systemctl is-active --quiet "$unit" || printf 'active\t%s\n' "$unit"
done
for dir in /sys/class/net/*; do
  { [ ! -e "$dir/wireless" ] && [ ! -e "$dir/phy80211" ]; } || printf 'wireless\t%s\n' "${dir##*/}"
done
conf=/run/systemd/resolve/resolv.conf
[ -r "$conf" ] || conf=/etc/resolv.conf
while read -r key value _; do [ "$key" != nameserver ] || printf 'dns\t%s\n' "$value"; done <"$conf"
for file in /proc/sys/net/bridge/bridge-nf-call-*; do
  [ ! -r "$file" ] || { read -r value <"$file"; printf 'filter\t%s\t%s\n' "${file##*/}" "$value"; }
done
for file in "$1/unconfirmed" "$1/undoing"; do
  [ ! -e "$file" ] || { read -r line <"$file"; printf 'pending\t%s\n' "${line:-?}"; }
done
name=$(cat /proc/sys/kernel/hostname)
timeout 3 getent ahostsv4 "$name" | while read -r address _; do printf 'resolved\t%s\n' "$address"; done
""" + SESSION

_FILES = r"""
for path in /lib/netplan/*.yaml /etc/netplan/*.yaml /run/netplan/*.yaml /etc/network/interfaces \
  /etc/network/interfaces.d/* /etc/NetworkManager/system-connections/vmwright-* \
  /etc/cloud/cloud.cfg.d/99-vmwright-*; do
  [ ! -f "$path" ] || printf 'there\t%s\t%s\n' "$path" "$(base64 -w 0 <"$path")"
  [ ! -f "$1/files$path" ] || printf 'ours\t%s\t%s\n' "$path" "$(base64 -w 0 <"$1/files$path")"
done
cd "$1/files" 2>/dev/null && find etc/netplan etc/network etc/NetworkManager etc/cloud -type f 2>/dev/null |
while read -r path; do
  [ -f "/$path" ] || printf 'ours\t/%s\t%s\n' "$path" "$(base64 -w 0 <"$path")"
done
:
"""

_PROFILES = r"""
command -v nmcli >/dev/null || exit 0
nmcli -t -f UUID,DEVICE connection show --active | while IFS=: read -r uuid link; do
  [ -n "$link" ] || continue
  printf '\nprofile:%s\n' "$link"
  nmcli -t connection show uuid "$uuid"
done
:
"""

# Whether another machine has an address that this one is to have: who has it answers to ARP, if not to ping. It is
# asked by the interface itself, which needs no address in that subnet for it.
_ANSWERS = r"""
while [ $# -gt 1 ]; do
  link=$1 address=$2
  shift 2
  [ -d "/sys/class/net/$link" ] && [ -z "$(ip -o -4 address show to "$address/32")" ] || continue
  [ ! -e "/sys/class/net/$link/master" ] || { cd -P "/sys/class/net/$link/master" && link=${PWD##*/}; }
  ping -n -q -c 2 -i 0.5 -W 1 -I "$link" "$address" >/dev/null 2>&1
  ip neigh show to "$address" dev "$link" | while read -r _ key mac _; do
    [ "$key" != lladdr ] || printf '%s\t%s\n' "$address" "$mac"
  done
done
:
"""

# Keys of netplan, ifupdown and NetworkManager that hold secrets.
_SECRET = re.compile(r"""
    (?P<key>(?<![\w-]) (?:[\w-]*pass(?:word|phrase)?|psk|keys?|private|[\w-]*private-key|preshared[\w-]*|shared|secret)
            ['"]?[ \t]*[:=][ \t]*
          | ^[ \t]*(?:wpa-[\w-]+|wireless-key\d?)[ \t]+)
    (?:"[^"\n]*"|'[^'\n]*'|[^\s{}][^}\n]*)""", re.IGNORECASE | re.VERBOSE | re.MULTILINE)
_KEPT = ("connection.", "ipv4.", "ipv6.", "802-3-ethernet.mtu", "802-3-ethernet.cloned-mac-address")


def commands(bridges: Sequence[BridgeSpec]) -> dict[str, Sequence[str]]:
    """Every probe's argv by name; none where the host is to have no bridges."""
    if not bridges:
        return {}
    sh = ("sh", "-c")
    wanted = [word for bridge in bridges for address in bridge.addresses or () for word in
              (bridge.port, str(address.ip))]
    return {
        "wiring": [*sh, _WIRING, "sh", NETWORK_STATE],
        "network-files": [*sh, _FILES, "sh", HOST_STATE],
        "profiles": [*sh, _PROFILES],
        "routes": ["ip", "-json", "-4", "route", "show", "default"],
        "answers": [*sh, _ANSWERS, "sh", *wanted],
    }


def parse(texts: Mapping[str, str]) -> WiringFacts:
    """What the probes above tell, by their names. Raises ValueError."""
    rows: dict[str, list[list[str]]] = {}
    for line in texts["wiring"].splitlines():
        kind, *values = line.split("\t")
        rows.setdefault(kind, []).append(values)
    if "session" not in rows:
        raise ValueError("it ended too early")
    files, secret = parse_files(texts["network-files"])

    def words(kind: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row[0] for row in rows.get(kind, ())))

    return WiringFacts(
        tools=words("tool"), active=words("active"), files=files, secret=secret,
        profiles=parse_profiles(texts["profiles"]), wireless=words("wireless"), routes=parse_routes(texts["routes"]),
        dns=tuple(server for server in words("dns") if not server.startswith("127.")),
        session=session_address(" ".join(rows["session"][0])),
        answered=tuple((address, mac) for address, _, mac in
                       (line.partition("\t") for line in texts["answers"].splitlines()) if mac),
        pending=next(iter(words("pending")), ""),
        filter=tuple((name, int(value)) for name, value in rows.get("filter", ())),
        resolved=words("resolved"))


def parse_routes(text: str) -> tuple[RouteFacts, ...]:
    """Default routes, the preferred one first, from `ip -json route show default`. Raises ValueError."""
    rows = sorted(json.loads(text or "[]"), key=lambda row: row.get("metric", 0))
    return tuple(RouteFacts(row["dev"], row.get("gateway")) for row in rows if "dev" in row)


def parse_profiles(text: str) -> tuple[ProfileFacts, ...]:
    """Active connections, from nmcli's terse output: a line for each setting, colons and backslashes escaped."""
    found: list[ProfileFacts] = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        value = re.sub(r"\\(.)", r"\1", value)
        if key == "profile":
            found.append(ProfileFacts(value, "", ""))
        elif found and colon and key == "connection.id":
            found[-1] = replace(found[-1], name=value)
        elif found and colon and key == "connection.uuid":
            found[-1] = replace(found[-1], uuid=value)
        elif found and key.startswith(_KEPT) and value not in ("", "--"):
            found[-1] = replace(found[-1], settings=(*found[-1].settings, (key, value)))
    return tuple(found)


def parse_files(text: str) -> tuple[tuple[FileFacts, ...], tuple[str, ...]]:
    """Files, in the order of their paths, and the paths of those in whose text something secret was left out."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.count("\t") == 2:
            key, path, data = line.split("\t")
            found.setdefault(path, {})[key] = base64.b64decode(data).decode(errors="replace")
    plain = {path: {key: hide(value) for key, value in row.items()} for path, row in sorted(found.items())}
    files = (FileFacts(path, row.get("there"), row.get("ours")) for path, row in plain.items())
    return tuple(files), tuple(_changed(found, plain))


def _changed(found: Mapping[str, dict[str, str]], plain: Mapping[str, dict[str, str]]) -> Iterable[str]:
    return (path for path, row in plain.items() if row.get("there") != found[path].get("there"))


def hide(text: str) -> str:
    """The text without the values of keys that are secret."""
    return _SECRET.sub(lambda match: f"{match['key']}(secret)", text)
