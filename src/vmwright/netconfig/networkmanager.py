"""NetworkManager: connections of our own, which it prefers to the NIC's own one; no file of anybody else's is touched.

The files are nm-settings-keyfile(5). Connections of ours have a higher autoconnect-priority, so at boot the NIC becomes
the bridge's port; the connection that it has now stays as it is, and is what the host goes back to.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from configparser import ConfigParser, Error

from vmwright.facts.model import LinkFacts, ProfileFacts, WiringFacts
from vmwright.names import METADATA_URI
from vmwright.netconfig.common import MARK, NewFile, Unfit, Uplink
from vmwright.spec.cloud import BridgeSpec

FOLDER = "/etc/NetworkManager/system-connections"
_PRIORITY = "100"  # the default is 0, and nmcli makes connections with it
_NUMBERED = re.compile(r"(address|route)\d+")
_AS_THEY_ARE = ("method", "gateway", "dns-search", "dns-options", "route-metric", "dhcp-client-id", "dhcp-hostname",
                "addr-gen-mode", "dhcp-duid", "token")
_YES_OR_NO = ("never-default", "may-fail", "ignore-auto-dns", "ignore-auto-routes", "dhcp-send-hostname")
_UNSAID = ("-1", "default", "0", "")
# A route as nmcli tells it: 10.7.0.0/16 10.0.0.9 5 ATTRIBUTES; or { ip = 10.7.0.0/16, nh = 10.0.0.9, mt = 5 }.
_ROUTE = re.compile(r"(?:ip\s*=\s*)?([0-9a-fA-F.:]+/\d+)(?:(?:,\s*nh\s*=|[ ])\s*([0-9a-fA-F.:]+)(?=[\s,;}]|$))?"
                    r"(?:(?:,\s*mt\s*=|[ ])\s*(\d+)(?=[\s,;}]|$))?")
Section = dict[str, str]


def own_names(bridge: BridgeSpec) -> tuple[str, str]:
    """What our connections of a bridge are called: the bridge's and its port's."""
    return f"vmwright-{bridge.name}", f"vmwright-{bridge.name}-port"


def own_path(name: str) -> str:
    """The file of a connection of ours."""
    return f"{FOLDER}/{name}.nmconnection"


def has(wiring: WiringFacts, nic: str) -> ProfileFacts | None:
    """The active connection of a NIC; not those that netplan has given NetworkManager."""
    found = next((profile for profile in wiring.profiles if profile.link == nic), None)
    return None if found and found.name.startswith("netplan-") else found


def make(wiring: WiringFacts, uplinks: Sequence[Uplink], links: Mapping[str, LinkFacts]) -> tuple[NewFile, ...]:
    """Our connections as they are to be. Raises Unfit."""
    return tuple(file for uplink in uplinks for file in _make(wiring, uplink, links))


def _make(wiring: WiringFacts, uplink: Uplink, links: Mapping[str, LinkFacts]) -> tuple[NewFile, NewFile]:
    bridge = uplink.bridge
    kind = links[bridge.nic].kind if bridge.nic in links else "ethernet"
    if kind in ("bond", "team", "vlan") and bridge.vlan is None:
        raise Unfit(f"{bridge.nic} is a {kind}, and NetworkManager's connections for it are not moved yet",
                    f"make it a port of {bridge.name} by nmcli; a bridge that is as the file says is left alone")
    name, port = own_names(bridge)
    profile = has(wiring, bridge.nic)
    four, six, ethernet = _before(wiring, uplink, profile)
    sections: dict[str, Section] = {
        "connection": {"id": name, "uuid": _uuid(uplink, name), "type": "bridge", "interface-name": bridge.name,
                       "autoconnect": "true", "autoconnect-priority": _PRIORITY, "autoconnect-slaves": "1"},
        "ethernet": ethernet,
        "bridge": {"mac-address": uplink.mac.upper(), "stp": str(bridge.stp).lower(),
                   "forward-delay": str(bridge.forward_delay)},
        "ipv4": _four(uplink, four), "ipv6": six}
    return (NewFile(own_path(name), _text(uplink, sections), 0o600),
            NewFile(own_path(port), _text(uplink, _port(uplink, port, name, ethernet)), 0o600))


def _port(uplink: Uplink, port: str, master: str, ethernet: Section) -> dict[str, Section]:
    bridge = uplink.bridge
    connection = {"id": port, "uuid": _uuid(uplink, port), "type": "ethernet", "interface-name": bridge.port,
                  "autoconnect": "true", "autoconnect-priority": _PRIORITY, "master": _uuid(uplink, master),
                  "slave-type": "bridge"}
    if bridge.vlan is None:
        return {"connection": connection, "ethernet": ethernet, "bridge-port": {}}
    return {"connection": connection | {"type": "vlan"}, "ethernet": {},
            "vlan": {"parent": bridge.nic, "id": str(bridge.vlan), "flags": "1"}, "bridge-port": {}}


def _uuid(uplink: Uplink, name: str) -> str:
    """The same at every run; another one on another NIC."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{METADATA_URI}/{uplink.mac}/{name}"))


def _text(uplink: Uplink, sections: Mapping[str, Section]) -> str:
    parts = (f"\n[{name}]\n" + "".join(f"{key}={value}\n" for key, value in section.items())
             for name, section in sections.items() if section or name == "bridge-port")
    return f"{MARK.format(uplink.bridge.name)}\n" + "".join(parts)


# -- what was there ---------------------------------------------------------------------------------------------------

def _before(wiring: WiringFacts, uplink: Uplink, profile: ProfileFacts | None) -> tuple[Section, Section, Section]:
    """The settings for IPv4, IPv6 and Ethernet that our own connection has, or those of the NIC's."""
    path = own_path(own_names(uplink.bridge)[0])
    text = wiring.file(path).text
    if text is not None:
        parser = ConfigParser(interpolation=None, strict=False, delimiters=("=",), comment_prefixes=("#",))
        try:
            parser.read_string(text)
        except Error as error:
            raise Unfit(f"{path} is not understood: {' '.join(str(error).split())}",
                        "see what is wrong with it, or remove it") from error
        four, six, ethernet = (dict(parser[name]) if parser.has_section(name) else {} for name in
                               ("ipv4", "ipv6", "ethernet"))
        return four, six, ethernet
    if profile is None or uplink.bridge.vlan is not None:
        return {"method": "disabled"}, {"method": "ignore" if uplink.bridge.vlan is None else "disabled"}, {}
    mtu = profile.get("802-3-ethernet.mtu")
    return (_from_profile(profile, "ipv4"), _from_profile(profile, "ipv6"),
            {"mtu": mtu} if mtu.isdigit() and mtu != "0" else {})


def _from_profile(profile: ProfileFacts, family: str) -> Section:
    """A section of a keyfile, from what nmcli tells of a connection."""
    def said(key: str) -> str:
        return profile.get(f"{family}.{key}").removesuffix(" (default)")

    found = {key: said(key) for key in _AS_THEY_ARE if said(key) not in _UNSAID}
    found |= {key: "true" if said(key) == "yes" else "false" for key in _YES_OR_NO if said(key) in ("yes", "no")}
    found.setdefault("method", "auto")
    if "dns-search" in found:
        found["dns-search"] = _listed(found["dns-search"])
    if servers := said("dns"):
        found["dns"] = _listed(servers)
    for number, address in enumerate(filter(None, re.split(r"[,;\s]+", said("addresses"))), 1):
        found[f"address{number}"] = address
    for number, match in enumerate(_ROUTE.finditer(said("routes")), 1):
        target, gateway, metric = match.groups()
        found[f"route{number}"] = ",".join([target, gateway or ("0.0.0.0" if family == "ipv4" else "::"),
                                            *([metric] if metric else [])])
    return found


def _listed(text: str) -> str:
    return "".join(f"{word};" for word in re.split(r"[,;\s]+", text) if word)


def _four(uplink: Uplink, before: Section) -> Section:
    """IPv4: as it was, but for what the cloud's file says."""
    bridge, found = uplink.bridge, dict(before)
    lent = found.get("method") == "auto"
    if bridge.addresses is not None:
        found = {key: value for key, value in found.items() if not _NUMBERED.fullmatch(key) or key.startswith("route")}
        found["method"] = "manual" if bridge.addresses else "disabled"
        found |= {f"address{number}": str(address) for number, address in enumerate(bridge.addresses, 1)}
        if lent and bridge.addresses and uplink.gateway:
            found.setdefault("gateway", uplink.gateway)
        if lent and bridge.addresses and uplink.dns:
            found.setdefault("dns", "".join(f"{server};" for server in uplink.dns if ":" not in server))
    if bridge.gateway:
        found["gateway"] = str(bridge.gateway)
    if bridge.dns is not None:
        found["dns"] = "".join(f"{server};" for server in bridge.dns if ":" not in server)
    if found.get("method") == "disabled":
        return {"method": "disabled"}
    return {key: found[key] for key in sorted(found, key=lambda key: (key != "method", key)) if found[key]}
