"""Debian's ifupdown: a file of our own for each bridge, and the NIC's stanzas taken out of the file that has them.

interfaces(5): all stanzas of one interface count together, whichever file they are in, so what is said of a NIC cannot
be taken back elsewhere. Bridges are made by ip(8), which every host has; the package bridge-utils is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vmwright.facts.model import WiringFacts
from vmwright.netconfig.common import MARK, NewFile, Unfit, Uplink, moved_note

MAIN = "/etc/network/interfaces"
FOLDER = "/etc/network/interfaces.d"
_HEADS = re.compile(r"(iface|mapping|auto|allow-\S+|source|source-directory|no-auto-down|no-scripts|rename|template)\b")
_LISTS = re.compile(r"auto|allow-.*|no-auto-down|no-scripts")
_ADDRESS = ("address", "netmask", "broadcast", "network", "pointopoint")
_OF_THE_WIRE = ("hwaddress", "link-speed", "link-duplex", "ethernet-wol", "pre-up")  # stays with the NIC
_OF_BOTH = ("mtu",)
_OF_DHCP = ("hostname", "client", "leasehours", "leasetime", "vendor", "metric")
_HOOKS = ("pre-up", "up", "post-up", "down", "pre-down", "post-down")
_INDENT = "    "
Options = list[tuple[str, str]]


@dataclass(frozen=True)
class Stanza:
    """One part of a file: its first line's words, and all its lines as they stand. Of comments: no words."""

    words: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Names and values."""
        rows = (_joined(self.lines[1:]) if self.words else ())
        pairs = (line.split(None, 1) for line in rows if line and not line.startswith("#"))
        return tuple((pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs)


def own_path(bridge: str) -> str:
    """Our file for a bridge. source-directory reads names of letters, digits, _ and - only."""
    return f"{FOLDER}/vmwright-{re.sub('[^A-Za-z0-9_-]', '_', bridge)}"


def has(wiring: WiringFacts, nic: str) -> bool:
    """Whether ifupdown's files say anything of a NIC."""
    return any(stanza.words[:2] == ("iface", nic) for _, text in _files(wiring) for stanza in parse(text))


def make(wiring: WiringFacts, uplinks: Sequence[Uplink]) -> tuple[NewFile, ...]:
    """The files as they are to be: our own, and those that lose something. Raises Unfit."""
    texts = dict(_files(wiring))
    made, changed = list[NewFile](), dict[str, str]()
    for uplink in uplinks:
        own, nic = own_path(uplink.bridge.name), uplink.bridge.nic
        before = _before(texts, uplink)
        made.append(NewFile(own, _own(uplink, before), 0o644))
        if uplink.bridge.vlan is not None:
            continue
        for path in [path for path in texts if not path.startswith(f"{FOLDER}/vmwright-")]:
            text = changed.get(path, texts[path])
            if any(_is_of(stanza, nic) for stanza in parse(text)):
                changed[path] = _without(path, text, uplink, wiring)
    main = changed.get(MAIN, texts.get(MAIN, ""))
    if sourced := _sourced(main, made):
        changed[MAIN] = sourced
    return (*made, *(NewFile(path, text) for path, text in changed.items()))


def parse(text: str) -> tuple[Stanza, ...]:
    """The parts of a file. Together their lines are the file."""
    found: list[list[str]] = [[]]
    continued = False
    for line in text.splitlines():
        if not continued and _HEADS.match(line.strip()):
            found.append([])
        found[-1].append(line)
        continued = line.endswith("\\") and not line.lstrip().startswith("#")
    return tuple(Stanza(tuple(next(_joined(lines), "").split()) if number else (), tuple(lines))
                 for number, lines in enumerate(found) if lines)


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """Lines without what parts them."""
    pending = ""
    for line in lines:
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            pending += line[:-1].strip() + " "
        else:
            yield (pending + line.strip()).strip()
            pending = ""


def _files(wiring: WiringFacts) -> Iterator[tuple[str, str]]:
    for file in wiring.files:
        if file.text is not None and (file.path == MAIN or file.path.startswith(f"{FOLDER}/")):
            yield file.path, file.text


def _is_of(stanza: Stanza, nic: str) -> bool:
    """Whether it is a stanza of the NIC that gives it more than nothing, or of an alias of it (eno1:0)."""
    if stanza.words[:1] != ("iface",) or len(stanza.words) < 2:
        return False
    name, _, alias = stanza.words[1].partition(":")
    return name == nic and (bool(alias) or stanza.words[3:4] != ("manual",))


# -- our own file -----------------------------------------------------------------------------------------------------

def _before(texts: dict[str, str], uplink: Uplink) -> list[Stanza]:
    """What the bridge was told, or else its NIC."""
    own = texts.get(own_path(uplink.bridge.name))
    if own is not None:
        return [stanza for stanza in parse(own) if _is_of(stanza, uplink.bridge.name)
                or stanza.words[:2] == ("iface", uplink.bridge.nic)]
    if uplink.bridge.vlan is not None:
        return []
    return [stanza for text in texts.values() for stanza in parse(text) if _is_of(stanza, uplink.bridge.nic)]


def _own(uplink: Uplink, before: Sequence[Stanza]) -> str:
    bridge = uplink.bridge
    lines = [MARK.format(bridge.name)]
    if bridge.vlan is None:
        lines += [f"auto {bridge.nic}", f"iface {bridge.nic} inet manual", *_written(_of_the_wire(before)), ""]
    lines += [f"auto {bridge.name}", f"iface {bridge.name} inet manual", *_making(uplink)]
    for family, method, options in _settings(uplink, before):
        lines += ["", f"iface {bridge.name} {family} {method}", *_written(options)]
    lines += _written(_ending(uplink))  # of the last stanza: the others need the bridge to go down
    return "\n".join(lines) + "\n"


def _written(options: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"{_INDENT}{name} {value}".rstrip() for name, value in options)


def _of_the_wire(before: Sequence[Stanza]) -> Options:
    return list(dict.fromkeys(option for stanza in before for option in stanza.options
                              if option[0] in (*_OF_THE_WIRE, *_OF_BOTH)))


def _making(uplink: Uplink) -> Iterator[str]:
    """How the bridge comes and goes. ip(8) takes hundredths of a second."""
    bridge = uplink.bridge
    if bridge.vlan is not None:
        yield (f"{_INDENT}pre-up ip link show dev {bridge.port} >/dev/null 2>&1 || "
               f"ip link add link {bridge.nic} name {bridge.port} type vlan id {bridge.vlan}")
        yield f"{_INDENT}pre-up ip link set dev {bridge.nic} up"
    yield (f"{_INDENT}pre-up ip link show dev {bridge.name} >/dev/null 2>&1 || "
           f"ip link add name {bridge.name} type bridge")
    yield (f"{_INDENT}pre-up ip link set dev {bridge.name} address {uplink.mac} type bridge "
           f"stp_state {int(bridge.stp)} forward_delay {bridge.forward_delay * 100}")
    yield f"{_INDENT}pre-up ip link set dev {bridge.port} master {bridge.name} up"
    yield f"{_INDENT}up ip link set dev {bridge.name} up"


def _ending(uplink: Uplink) -> Options:
    """How it is removed."""
    bridge = uplink.bridge
    names = [bridge.name, *([bridge.port] if bridge.vlan is not None else [])]
    return [("post-down", f"ip link delete dev {name}") for name in names]


def _settings(uplink: Uplink, before: Sequence[Stanza]) -> Iterator[tuple[str, str, Options]]:
    """Family, method and options of each further stanza of the bridge."""
    bridge = uplink.bridge
    found = [(stanza.words[2], stanza.words[3], _moved(stanza, uplink)) for stanza in before
             if len(stanza.words) > 3 and stanza.words[3] != "manual"]
    four = [one for one in found if one[0] == "inet"]
    rest = [one for one in found if one[0] != "inet"]
    lent = any(method == "dhcp" for _, method, _ in four)
    if bridge.addresses is not None:
        general = [option for _, _, options in four for option in options
                   if option[0] not in (*_ADDRESS, *_OF_DHCP)]
        if lent and uplink.gateway:
            general.append(("gateway", uplink.gateway))
        if lent and uplink.dns:
            general.append(("dns-nameservers", " ".join(uplink.dns)))
        four = [("inet", "static", [("address", str(address)), *(general if number == 0 else [])])
                for number, address in enumerate(bridge.addresses)]
    if four:
        family, method, options = four[0]
        four[0] = (family, method, _with_wishes(uplink, options))
    yield from (*four, *rest)


def _moved(stanza: Stanza, uplink: Uplink) -> Options:
    """The options of a stanza of the NIC as those of the bridge."""
    nic, name = re.escape(uplink.bridge.nic), uplink.bridge.name
    return [(key, re.sub(rf"\bdev {nic}\b", f"dev {name}", value) if key in _HOOKS else value)
            for key, value in stanza.options if key not in _OF_THE_WIRE and (key, value) not in _ending(uplink)]


def _with_wishes(uplink: Uplink, options: Options) -> Options:
    """With the gateway and the DNS servers that the cloud's file says."""
    bridge, found = uplink.bridge, options
    if bridge.gateway:
        found = [*(option for option in found if option[0] != "gateway"), ("gateway", str(bridge.gateway))]
    if bridge.dns is not None:
        found = [option for option in found if option[0] not in ("dns-nameservers", "dns-nameserver")]
        found += [("dns-nameservers", " ".join(bridge.dns))] if bridge.dns else []
    return sorted(dict.fromkeys(found), key=lambda option: option[0] in _HOOKS)


# -- the administrator's files ----------------------------------------------------------------------------------------

def _without(path: str, text: str, uplink: Uplink, wiring: WiringFacts) -> str:
    """The text of a file without the NIC's stanzas. Raises Unfit."""
    nic = uplink.bridge.nic
    if path in wiring.secret:
        raise Unfit(f"{path} sets addresses on {nic}, and holds a secret, which vmwright does not handle",
                    f"move what is said of {nic} to a file of its own in {FOLDER}; then plan again")
    lines, told = list[str](), False
    for stanza in parse(text):
        if not _is_of(stanza, nic):
            lines += _unlisted(stanza, nic)
            continue
        if not told:
            lines.append(moved_note(uplink.bridge.name, nic, path))
        told = True
        lines += _comments_behind(stanza)
    return "\n".join(lines) + "\n"


def _unlisted(stanza: Stanza, nic: str) -> Sequence[str]:
    """A stanza without the NIC, where it is a list of interfaces."""
    if not stanza.words or not _LISTS.fullmatch(stanza.words[0]) or not any(
            word.partition(":")[0] == nic for word in stanza.words[1:]):
        return stanza.lines
    left = [word for word in stanza.words[1:] if word.partition(":")[0] != nic]
    return [*([f"{stanza.words[0]} {' '.join(left)}"] if left else []), *stanza.lines[1:]]


def _comments_behind(stanza: Stanza) -> Sequence[str]:
    """Comments and empty lines at the end of a stanza: they belong to what comes next."""
    lines = list(stanza.lines)
    while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return stanza.lines[len(lines):]


def _sourced(main: str, made: Sequence[NewFile]) -> str | None:
    """The main file with lines that have our files read, where it lacks them."""
    known = [stanza.words[1] for stanza in parse(main)
             if stanza.words[:1] in (("source",), ("source-directory",)) and len(stanza.words) > 1]
    missing = [file.path for file in made if not any(
        fnmatchcase(file.path, place if "*" in place or place == file.path else f"{place.rstrip('/')}/*")
        for place in (place if place.startswith("/") else f"/etc/network/{place}" for place in known))]
    if not missing:
        return None
    return main + ("" if main.endswith("\n") or not main else "\n") + "".join(f"source {path}\n" for path in missing)

