"""The kinds of values a spec holds: each reads text, means one thing, and refuses the rest with a sentence.

Used as types of the model's fields. The parsers raise ValueError with a sentence for the user.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError, ip_address
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, Strict

from vmwright import units
from vmwright.spec.cloud import ANY_PAGES

T = TypeVar("T")

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # of a host name (RFC 1123), in lower case
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST_NAME = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?"
)
_CONNECT = re.compile(r"ssh://(?P<user>[A-Za-z_][\w.-]*)@(?P<host>[A-Za-z0-9][\w.-]*)(:(?P<port>\d{1,5}))?")
_TIMEZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_LOCALE = re.compile(r"([a-z]{2,3}(_[A-Z]{2})?|C|POSIX)(\.[A-Za-z0-9-]+)?(@[a-z]+)?")
_MODE = re.compile(r"(?:0o?)?([0-7]{3,4})")
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_PAGES = {"2M": 2 * units.MIB, "1G": units.GIB}  # the sizes of huge pages that x86_64 has


def kind(value: object) -> str:
    """What a value is, for messages."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()} (a yes-or-no value)"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int():
            return f"the number {value}"
        case _:
            text = str(value)
            return f"the text {text if len(text) <= 60 else text[:57] + '...'!r}"


def from_text(parse: Callable[[str], T]) -> Callable[[object], T]:
    """A validator that takes text (or a number, as its text) and nothing else."""

    def validate(value: object) -> T:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"one value is needed, not {kind(value)}")
        return parse(str(value))

    return validate


def _schema(pattern: str) -> Any:
    """For editors: text of this form."""
    return Annotated[str, Field(pattern=pattern)]


def _matching(pattern: re.Pattern[str], hint: str) -> Callable[[object], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text!r} is not {hint}")
        return text

    return from_text(parse)


def parse_address(text: str) -> IPv4Address:
    """An IPv4 address."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        if ":" in text:
            raise ValueError(f"{text!r}: only IPv4 addresses are understood yet") from None
        raise ValueError(
            f"{text!r} is not an IPv4 address: write four numbers from 0 to 255, like 192.168.6.204"
        ) from None


def parse_interface(text: str) -> IPv4Interface:
    """An IPv4 address with its prefix, like 192.168.6.200/24."""
    address, slash, prefix = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} lacks the prefix of its subnet: write {text}/24 or the like")
    parse_address(address)
    try:
        return IPv4Interface(text)
    except NetmaskValueError:
        raise ValueError(f"{text!r}: {prefix!r} is not a prefix: write a number from 0 to 32") from None


def parse_vm_address(text: str) -> IPv4Address | IPv4Interface:
    """An address of a VM: with its prefix, or without (then it has the prefix of its network's subnet)."""
    return parse_interface(text) if "/" in text else parse_address(text)


def parse_subnet(text: str) -> IPv4Network:
    """A subnet, like 192.168.6.0/24."""
    interface = parse_interface(text)
    if interface.ip != interface.network.network_address:
        raise ValueError(f"{text!r} is an address in a subnet: the subnet itself is {interface.network}")
    return interface.network


def parse_range(text: str) -> tuple[IPv4Address, IPv4Address]:
    """Addresses from one to another, both included: 192.168.6.100-192.168.6.199."""
    ends = [part.strip() for part in text.split("-")]
    if len(ends) != 2:
        raise ValueError(f"{text!r} is not a range of addresses: write 192.168.6.100-192.168.6.199")
    first, last = parse_address(ends[0]), parse_address(ends[1])
    if last < first:
        raise ValueError(f"{text!r} ends before it begins: write {last}-{first}")
    return first, last


def reserved(address: IPv4Address, subnet: IPv4Network) -> str:
    """Why no machine can have this address of the subnet; empty when one can."""
    if subnet.prefixlen >= 31:
        return ""
    if address == subnet.network_address:
        return f"the address of the subnet {subnet} itself"
    if address == subnet.broadcast_address:
        return f"the broadcast address of {subnet}"
    return ""


def parse_server(text: str) -> str:
    """A host name or an IP address (IPv4 or IPv6)."""
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(text) or len(text) > 253 or re.fullmatch(r"[\d.]+", text):
        raise ValueError(f"{text!r} is neither a host name nor an IP address")
    return text


def parse_ip(text: str) -> str:
    """An IP address (IPv4 or IPv6), as text."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def parse_domain(text: str) -> str:
    """A DNS domain."""
    if not _HOST_NAME.fullmatch(text) or len(text) > 253:
        raise ValueError(f"{text!r} is not a DNS domain")
    return text


def parse_url(text: str) -> str:
    """An http or https URL without a password in it."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not a URL: its host or port is wrong") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the URL holds a user name or password: they would be readable in plans and logs; leave them out"
        )
    if parts.scheme not in ("http", "https") or not host or any(character.isspace() for character in text):
        raise ValueError(f"{text!r} is not a URL: write http://HOST or https://HOST, with a port or path as needed")
    return text


def parse_proxy(text: str) -> str:
    """The URL of a proxy; "none" for no proxy."""
    return text if text == "none" else parse_url(text)


def parse_connect(text: str) -> str:
    """How to reach a host: local, or ssh://USER@HOST[:PORT]."""
    match = _CONNECT.fullmatch(text)
    if text == "local" or (match and 0 < int(match["port"] or 22) < 65536):
        return text
    raise ValueError(f"{text!r} does not say how to reach the host: write local or ssh://USER@HOST[:PORT]")


def connect_host(connect: str) -> str | None:
    """The host name or address in an ssh:// URL; None for local."""
    match = _CONNECT.fullmatch(connect)
    return match["host"] if match else None


def parse_pin(text: str) -> str:
    """A CPU list in Linux' form, or auto."""
    if text != "auto":
        units.parse_cpuset(text)
    return text


def pages(value: object) -> int:
    """Whether a VM's memory is made of huge pages, or of which: bytes of one, 0 for none, ANY_PAGES for any."""
    if isinstance(value, bool):
        return ANY_PAGES if value else 0
    if value in _PAGES:
        return _PAGES[str(value)]
    raise ValueError(f"true, false, {' or '.join(_PAGES)} is needed, not {kind(value)}")


def parse_mode(text: str) -> str:
    """File permissions in octal, four digits: "0644"."""
    match = _MODE.fullmatch(text)
    if not match:
        raise ValueError(f'{text!r} is not a file mode: write octal digits, like "0644"')
    return match[1].zfill(4)


def parse_absolute(text: str) -> str:
    """An absolute path without . and .. in it; a slash at its end is dropped."""
    parts = text.split("/")[1:]
    if not text.startswith("/") or "." in parts or ".." in parts or "\0" in text or "\n" in text:
        raise ValueError(f"{text!r} is not an absolute path (from /, without . and ..)")
    return "/" + "/".join(part for part in parts if part)


def parse_sha256(text: str) -> str:
    """A SHA-256 sum in hexadecimal, lower case."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(
            f"{text!r} is not a SHA-256 sum: 64 hexadecimal digits are needed, this has {len(text)} characters"
        )
    return text.lower()


def _whole_mib(text: str) -> int:
    size = units.parse_size(text)
    if size % units.MIB:
        raise ValueError(f"{text!r} is not a whole number of MiB")
    return size


_SIZE_PATTERN = r"^\d+(\.\d+)?\s*[KMGTkmgt](i[Bb])?$"
_IPV4_PATTERN = r"^\d{1,3}(\.\d{1,3}){3}$"
_CIDR_PATTERN = r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$"
_RANGE_PATTERN = r"^\d{1,3}(\.\d{1,3}){3} *- *\d{1,3}(\.\d{1,3}){3}$"

Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Size = Annotated[int, BeforeValidator(from_text(_whole_mib), json_schema_input_type=_schema(_SIZE_PATTERN))]
Address = Annotated[
    IPv4Address, BeforeValidator(from_text(parse_address), json_schema_input_type=_schema(_IPV4_PATTERN))
]
Interface = Annotated[
    IPv4Interface, BeforeValidator(from_text(parse_interface), json_schema_input_type=_schema(_CIDR_PATTERN))
]
VmAddress = Annotated[
    IPv4Address | IPv4Interface,
    BeforeValidator(
        from_text(parse_vm_address), json_schema_input_type=_schema(_CIDR_PATTERN.replace(r"/\d{1,2}", r"(/\d{1,2})?"))
    ),
]
Subnet = Annotated[IPv4Network, BeforeValidator(from_text(parse_subnet), json_schema_input_type=_schema(_CIDR_PATTERN))]
Range = Annotated[
    tuple[IPv4Address, IPv4Address],
    BeforeValidator(from_text(parse_range), json_schema_input_type=_schema(_RANGE_PATTERN)),
]
Server = Annotated[str, BeforeValidator(from_text(parse_server), json_schema_input_type=str)]
Ip = Annotated[str, BeforeValidator(from_text(parse_ip), json_schema_input_type=str)]
Domain = Annotated[str, BeforeValidator(from_text(parse_domain), json_schema_input_type=str)]
Url = Annotated[str, BeforeValidator(from_text(parse_url), json_schema_input_type=_schema("^https?://"))]
Proxy = Annotated[str, BeforeValidator(from_text(parse_proxy), json_schema_input_type=_schema("^(https?://.*|none)$"))]
Connect = Annotated[
    str, BeforeValidator(from_text(parse_connect), json_schema_input_type=_schema("^(local|ssh://.+@.+)$"))
]
Mac = Annotated[
    str,
    BeforeValidator(from_text(units.parse_mac), json_schema_input_type=_schema("^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$")),
]
Pci = Annotated[str, BeforeValidator(from_text(units.parse_pci), json_schema_input_type=str)]
Pin = Annotated[str, BeforeValidator(from_text(parse_pin), json_schema_input_type=str | int)]
CpuList = Annotated[
    tuple[int, ...], BeforeValidator(from_text(units.parse_cpuset), json_schema_input_type=str | int)
]
HugePages = Annotated[int, BeforeValidator(pages, json_schema_input_type=bool | Literal["2M", "1G"])]
Mode = Annotated[str, BeforeValidator(from_text(parse_mode), json_schema_input_type=str | int)]
AbsolutePath = Annotated[str, BeforeValidator(from_text(parse_absolute), json_schema_input_type=_schema("^/"))]
Sha256 = Annotated[str, BeforeValidator(from_text(parse_sha256), json_schema_input_type=_schema("^[0-9a-fA-F]{64}$"))]
Timezone = Annotated[
    str,
    BeforeValidator(
        _matching(_TIMEZONE, "a timezone: write AREA/CITY, like Asia/Shanghai, or UTC"), json_schema_input_type=str
    ),
]
Locale = Annotated[
    str,
    BeforeValidator(_matching(_LOCALE, "a locale: write one like en_US.UTF-8 or C.UTF-8"), json_schema_input_type=str),
]
Device = Annotated[
    str,
    BeforeValidator(
        _matching(_INTERFACE, "a network interface's name (at most 15 letters, digits, . _ -)"),
        json_schema_input_type=str,
    ),
]
