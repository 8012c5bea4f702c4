"""Asks for an address on an interface by DHCP (RFC 2131), and prints what it is given, one thing a line.

Run as a program, on any machine with Python: the argument is the interface. It sets nothing up.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

ID, COOKIE = 0x766D7701, b"\x63\x82\x53\x63"
DISCOVER, REQUEST = 1, 3
NAMES = {3: "router", 6: "dns", 42: "ntp"}


def packet(mac: bytes, kind: int, *options: tuple[int, bytes]) -> bytes:
    """A client's message; the answer is to be sent to all (flag 0x8000), for it has no address yet."""
    rows = [(53, bytes([kind])), (55, bytes([1, *NAMES, 119])), *options]
    return struct.pack(">4BIHH16x16s192x", 1, 1, 6, 0, ID, 0, 0x8000, mac) + COOKIE + b"".join(
        bytes([code, len(value)]) + value for code, value in rows) + b"\xff"


def options(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """Those of a message."""
    rest = answer[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        yield rest[0], rest[2:2 + rest[1]]
        rest = rest[2 + rest[1]:]


def main(link: str) -> None:
    """Discover, request, and print what was acknowledged."""
    mac = bytes.fromhex(Path(f"/sys/class/net/{link}/address").read_text().strip().replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        line.bind(("", 68))
        line.settimeout(20)

        def ask(message: bytes) -> bytes:
            line.sendto(message, ("255.255.255.255", 67))
            while True:
                answer = line.recv(4096)
                if answer[4:8] == struct.pack(">I", ID):
                    return answer

        offer = ask(packet(mac, DISCOVER))
        server = dict(options(offer))[54]
        given = ask(packet(mac, REQUEST, (50, offer[16:20]), (54, server), (12, b"stranger")))
    print("address", socket.inet_ntoa(given[16:20]))
    told = [f"{NAMES[code]} {socket.inet_ntoa(value[:4])}" for code, value in options(given) if code in NAMES]
    print("\n".join(sorted(told)))


if __name__ == "__main__":
    main(sys.argv[1])
