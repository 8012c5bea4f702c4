"""Netplan: a file of our own for each bridge, and the files that set addresses on its NIC without them.

Netplan merges its files in the order of their names: of a single value the last counts, and mappings are joined, but
lists are joined, too, so that no later file can take an address away (netplan(5); tried with netplan 0.106). What
cannot be overridden so is taken out of the file that says it; the rest of that file stays as it was, comments too.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_interface
from posixpath import basename, dirname
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.util import load_yaml_guess_indent

from vmwright.facts.model import WiringFacts
from vmwright.netconfig.common import MARK, NewFile, Unfit, Uplink, moved_note

FOLDER = "/etc/netplan"
_FOLDERS = ("/lib/netplan", FOLDER, "/run/netplan")  # of two files with the same name the later counts
_SECTIONS = ("ethernets", "bonds", "vlans")
_STAY = ("addresses", "gateway4", "gateway6", "routes", "routing-policy", "nameservers")  # no later file undoes these
_MOVED = (*_STAY, "dhcp4", "dhcp6", "dhcp4-overrides", "dhcp6-overrides", "dhcp-identifier", "accept-ra",
          "ipv6-privacy", "ipv6-address-generation", "ipv6-address-token")
_DEFAULT = "0.0.0.0/0"  # the word `default` is not known to netplan before 0.103
_CLOUD_INIT = "50-cloud-init.yaml"
CLOUD_INIT_OFF = "/etc/cloud/cloud.cfg.d/99-vmwright-network.cfg"
_CLOUD_INIT_OFF = ("# Written by vmwright, which has made a bridge: cloud-init is not to write network files anew.\n"
                   "network: {config: disabled}\n")
_BARE = {"dhcp4": False, "dhcp6": False, "link-local": []}  # a port has no addresses of its own


@dataclass(frozen=True)
class _Document:
    """One file: its path and text, and its content, with comments; `definitions` are below `network:`."""

    path: str
    text: str
    root: Any

    def section(self, name: str) -> MutableMapping[str, Any]:
        """A section below `network:`; empty when it is not there."""
        network = self.root.get("network") if isinstance(self.root, Mapping) else None
        found = network.get(name) if isinstance(network, Mapping) else None
        return found if isinstance(found, MutableMapping) else {}


def own_path(bridge: str) -> str:
    """Our file for a bridge, almost the last in order: of single values, what it says counts. "": how all begin."""
    return f"{FOLDER}/99-vmwright-{bridge}" + (".yaml" if bridge else "")


def has(wiring: WiringFacts, nic: str, mac: str) -> bool:
    """Whether netplan's files say anything of a NIC."""
    try:
        return _definition(_merged(_documents(wiring)), nic, mac) is not None
    except Unfit:
        return True


def make(wiring: WiringFacts, uplinks: Sequence[Uplink]) -> tuple[NewFile, ...]:
    """The files as they are to be: our own, and those that lose something. Raises Unfit."""
    documents = _documents(wiring)
    others = [document for document in documents if not document.path.startswith(own_path(""))]
    merged = _merged(others)
    made, lost = list[NewFile](), dict[str, str]()
    for uplink in uplinks:
        if uplink.bridge.name in (merged.get("bridges") or {}):
            raise Unfit(f"a file in {FOLDER} defines {uplink.bridge.name} already, and vmwright did not write it",
                        "apply that (netplan apply), or remove it, or choose another name for the bridge")
        made.append(NewFile(own_path(uplink.bridge.name), _own(uplink, merged, documents), 0o600))
        found = _definition(merged, uplink.bridge.nic, uplink.mac)
        if found is None or uplink.bridge.vlan is not None:
            continue
        for document in others:
            if any(key in _at(document, *found) for key in _STAY):
                text = lost.get(document.path, document.text)
                lost[document.path] = _without(_Document(document.path, text, _parse(document.path, text)), found,
                                               uplink, wiring)
    if any(basename(path) == _CLOUD_INIT for path in lost):
        made.append(NewFile(CLOUD_INIT_OFF, _CLOUD_INIT_OFF, 0o644))
    return (*made, *(NewFile(path, text) for path, text in lost.items()))


# -- reading ----------------------------------------------------------------------------------------------------------

def _documents(wiring: WiringFacts) -> list[_Document]:
    """The files that count, in the order in which netplan reads them. Raises Unfit."""
    counted: dict[str, tuple[str, str]] = {}
    for folder in _FOLDERS:
        for file in wiring.files:
            if dirname(file.path) == folder and file.text is not None:
                counted[basename(file.path)] = (file.path, file.text)
    return [_Document(path, text, _parse(path, text)) for _, (path, text) in sorted(counted.items())]


def _parse(path: str, text: str) -> Any:
    try:
        return _yaml().load(text) or CommentedMap()
    except (YAMLError, ValueError) as error:
        raise Unfit(f"{path} is not understood: {' '.join(str(error).split())}",
                    "see what is wrong with it: netplan generate") from error


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096  # lines stay whole
    return yaml


def _merged(documents: Iterable[_Document]) -> dict[str, Any]:
    """All that netplan knows, below `network:`."""
    found: dict[str, Any] = {}
    for document in documents:
        network = document.root.get("network") if isinstance(document.root, Mapping) else None
        if isinstance(network, Mapping):
            found = _join(found, _plain(network))
    return found


def _join(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _join(old[key], new[key]) if key in old and key in new else {**old, **new}[key]
                for key in dict.fromkeys([*old, *new])}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(item for item in new if item not in old)]
    return new


def _plain(data: Any) -> Any:
    """Without what only matters for how it is written."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_plain(item) for item in data]
    return str(data) if isinstance(data, str) else data


def _definition(merged: Mapping[str, Any], nic: str, mac: str) -> tuple[str, str] | None:
    """Where netplan has a NIC: section and id. Raises Unfit when that is for other NICs, too."""
    for section in _SECTIONS:
        for name, definition in (merged.get(section) or {}).items():
            match = definition.get("match") if isinstance(definition, Mapping) else None
            if _is_for(name, definition or {}, match, nic, mac):
                return section, name
    return None


def _is_for(name: str, definition: Mapping[str, Any], match: Any, nic: str, mac: str) -> bool:
    if not isinstance(match, Mapping):
        return bool(name == nic)
    if str(match.get("macaddress", "")).lower() == mac.lower():
        return True
    if nic in (definition.get("set-name"), match.get("name")):
        return True
    patterns = match.get("name", "*")  # with `driver` alone, any name
    if "macaddress" not in match and any(fnmatchcase(nic, str(pattern)) for pattern in
                                         (patterns if isinstance(patterns, list) else [patterns])):
        raise Unfit(f"netplan's `{name}` is for {nic} and for others that match {dict(match)}",
                    f"give {nic} a definition of its own in {FOLDER}, with its name or MAC address; then plan again")
    return False


def _at(document: _Document, section: str, name: str) -> MutableMapping[str, Any]:
    found = document.section(section).get(name)
    return found if isinstance(found, MutableMapping) else {}


# -- our own file -----------------------------------------------------------------------------------------------------

def _own(uplink: Uplink, merged: Mapping[str, Any], documents: Iterable[_Document]) -> str:
    bridge = uplink.bridge
    place = _definition(merged, bridge.nic, uplink.mac) or ("ethernets", bridge.nic)
    nic = (merged.get(place[0]) or {}).get(place[1]) or {}
    own = next((d for d in documents if d.path == own_path(bridge.name)), None)
    before = _at(own, "bridges", bridge.name) if own else {} if bridge.vlan is not None else nic
    look = {key: nic[key] for key in ("renderer",) if key in nic}
    network: dict[str, Any] = {"version": 2}
    if bridge.vlan is None:
        network[place[0]] = {place[1]: dict(_BARE)}
        port = place[1]
    else:
        if not nic:
            network[place[0]] = {place[1]: dict(_BARE)}
        network.setdefault("vlans", {})[bridge.port] = {"id": bridge.vlan, "link": place[1], **look, **_BARE}
        port = bridge.port
    mtu = {"mtu": nic["mtu"]} if "mtu" in nic else {}
    network["bridges"] = {bridge.name: {
        "interfaces": [port], "macaddress": uplink.mac, **look, **mtu, **_settings(uplink, _plain(before)),
        "parameters": {"stp": bridge.stp, "forward-delay": bridge.forward_delay}}}
    out = io.StringIO()
    _yaml().dump({"network": network}, out)
    return f"{MARK.format(bridge.name)}\n{out.getvalue()}"


def _settings(uplink: Uplink, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the bridge is told: what its NIC was told, or the bridge itself, but for what the cloud's file says."""
    bridge, found = uplink.bridge, {key: before[key] for key in _MOVED if key in before}
    routes = _routes(found)
    lent = str(found.get("dhcp4", "")).lower() in ("true", "yes", "on", "y")
    if bridge.addresses is not None:
        kept = [address for address in found.get("addresses") or () if _is_six(address)]
        found["addresses"] = [*map(str, bridge.addresses), *kept]
        found["dhcp4"] = False
        found.pop("dhcp4-overrides", None)
        if lent and uplink.gateway and not bridge.gateway:
            routes.append({"to": _DEFAULT, "via": uplink.gateway})
    if bridge.gateway:
        routes = [route for route in routes if not _is_default(route)]
        routes.append({"to": _DEFAULT, "via": str(bridge.gateway)})
    servers = dict(found.get("nameservers") or {})
    if bridge.dns is not None:
        servers["addresses"] = list(bridge.dns)
    elif bridge.addresses is not None and lent and uplink.dns and not servers.get("addresses"):
        servers["addresses"] = list(uplink.dns)
    found |= {"routes": routes, "nameservers": servers}
    return {key: found[key] for key in _MOVED if found.get(key) not in (None, [], {})}


def _routes(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The routes, with the gateways that netplan has given up (gateway4, gateway6) as what they are."""
    routes = [dict(route) for route in found.pop("routes", None) or ()]
    for key, everywhere in (("gateway4", _DEFAULT), ("gateway6", "::/0")):
        if key in found:
            routes.append({"to": everywhere, "via": found.pop(key)})
    return routes


def _is_default(route: Mapping[str, Any]) -> bool:
    return route.get("to") in ("default", _DEFAULT, "0/0") and "table" not in route and ":" not in str(route.get("via"))


def _is_six(address: Any) -> bool:
    text = next(iter(address)) if isinstance(address, Mapping) else address
    try:
        return ip_interface(text).version == 6
    except ValueError:
        return False


# -- the administrator's files ----------------------------------------------------------------------------------------

def _without(document: _Document, place: tuple[str, str], uplink: Uplink, wiring: WiringFacts) -> str:
    """The text of a file without what the NIC was told there. Raises Unfit."""
    path, nic = document.path, uplink.bridge.nic
    if dirname(path) != FOLDER:
        raise Unfit(f"{path} sets addresses on {nic}, and it is not the administrator's",
                    f"see what writes it; a file of that name in {FOLDER} takes its place"
                    if path.startswith("/lib/") else "see what writes it at each boot, and have that leave it")
    if path in wiring.secret:
        raise Unfit(f"{path} sets addresses on {nic}, and holds a secret, which vmwright does not handle",
                    f"move what is said of {nic} to a file of its own in {FOLDER}; then plan again")
    wanted = _plain(document.root)
    yaml, out = _yaml(), io.StringIO()
    data, indent, dash = load_yaml_guess_indent(document.text, yaml=yaml)
    for key in _MOVED:
        wanted["network"][place[0]][place[1]].pop(key, None)
        with suppress(KeyError):  # also of a key that is there, but only by an anchor
            data["network"][place[0]][place[1]].pop(key, None)
    if indent:
        yaml.indent(mapping=indent, sequence=max(indent, (dash or 0) + 2), offset=dash or 0)
    yaml.dump(data, out)
    text = f"{moved_note(uplink.bridge.name, nic, path)}\n{out.getvalue()}"
    if _plain(_parse(path, text)) != wanted:
        raise Unfit(f"{path} is written so that nothing can be taken out of it safely",
                    f"take what it sets on {nic} out by hand, or move it to a file of its own; then plan again")
    return text

