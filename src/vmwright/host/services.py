"""argv builders: units of systemd, and questions to a host's own services, asked from the host itself. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_SECONDS = 3  # for an answer

# $1 tcp or udp, $2 address, $3 port, $4 what is said, for printf. What is answered is printed in hexadecimal. bash has
# these devices built in (bash(1), REDIRECTION); Debian and Fedora do not come without it.
_ASK = f"""
exec 3<>"/dev/$1/$2/$3" || exit 1
printf "$4" >&3
timeout {_SECONDS} dd bs=4096 count=1 <&3 2>/dev/null | od -An -v -tx1 | tr -d ' \\n'
"""


_STOP = 'systemctl disable --quiet --now -- "$@" || ! systemctl is-active --quiet -- "$@"'


def reload_units() -> list[str]:
    """Have systemd read its units again."""
    return ["systemctl", "daemon-reload"]


def enable(unit: str) -> list[str]:
    """Have a unit started at boot."""
    return ["systemctl", "enable", "--quiet", "--", unit]


def restart(unit: str) -> list[str]:
    """Start a unit, or stop and start it."""
    return ["systemctl", "restart", "--", unit]


def start_anew(unit: str) -> list[str]:
    """Stop and start a unit that runs; one that does not stays as it is."""
    return ["systemctl", "try-restart", "--", unit]


def stop(units: Sequence[str]) -> list[str]:
    """Stop units, now and at boot. One whose file is gone already is no error, as long as it does not run."""
    return ["sh", "-c", _STOP, "sh", *units]


def log(unit: str) -> list[str]:
    """The last words of a unit."""
    return ["journalctl", "--unit", unit, "--lines", "5", "--no-pager", "--output", "cat"]


def remove_empty(folders: Sequence[str]) -> list[str]:
    """Remove directories that have nothing in them."""
    return ["rmdir", "--ignore-fail-on-non-empty", "--", *folders]


def table(name: str) -> list[str]:
    """Show a table of nftables; code 0 when it is there."""
    return ["nft", "list", "table", "ip", name]


def forwarding() -> list[str]:
    """Show whether the kernel forwards: 1 or 0."""
    return ["cat", "/proc/sys/net/ipv4/ip_forward"]


def listening(port: int) -> list[str]:
    """Show who listens on a UDP port."""
    return ["ss", "-H", "-l", "-n", "-u", f"sport = :{port}"]


def ask(kind: str, address: str, port: int, said: bytes) -> list[str]:
    """Send something over tcp or udp, and print the answer in hexadecimal; nothing when there is none in time."""
    return ["bash", "-c", _ASK, "bash", kind, address, str(port), "".join(f"\\x{byte:02x}" for byte in said)]


ID = 0x7677  # of our question; the answer has the same (RFC 1035, 4.1.1)


def dns_question(name: str) -> bytes:
    """A query for the IPv4 address of a name (RFC 1035): one question, recursion desired."""
    labels = b"".join(struct.pack("B", len(label)) + label.encode() for label in name.split("."))
    return struct.pack(">6H", ID, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def dns_answered(answer: bytes, address: str) -> bool:
    """Whether this is an answer to our query, with that address as a record of it; an empty one: any answer will do."""
    if len(answer) < 12 or struct.unpack(">H", answer[:2])[0] != ID or not answer[2] & 0x80:
        return False
    record = struct.pack(">H4B", 4, *map(int, address.split("."))) if address else b""
    return record in answer[12:]


def ntp_question() -> bytes:
    """A client's packet of NTP version 4 (RFC 5905, figure 8)."""
    return bytes([4 << 3 | 3]) + bytes(47)


def ntp_answered(answer: bytes) -> bool:
    """Whether this is a server's packet, and the server says that it has the time."""
    return len(answer) >= 48 and answer[0] & 7 == 4 and answer[0] >> 6 != 3


def http_question() -> bytes:
    """A request that any server of HTTP answers, with an error if nothing else."""
    return b"GET / HTTP/1.0\r\n\r\n"


def http_answered(answer: bytes) -> bool:
    """Whether this is an answer of HTTP."""
    return answer.startswith(b"HTTP/")
