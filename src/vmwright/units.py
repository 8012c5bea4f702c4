"""Values with a unit: sizes in bytes, CPU sets, PCI and MAC addresses. One meaning each, printed one way."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_BINARY = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?\s*([KMGT]?)(iB)?", re.IGNORECASE)
_DECIMAL = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])B", re.IGNORECASE)
_LARGEST = 1 << 60  # libvirt and QEMU count sizes in 64 bits, some of them signed
_LAST_CPU = 8191  # the most CPUs that Linux can have is 8192 (CONFIG_NR_CPUS)
_PCI = re.compile(r"(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size. 16G and 16GiB are 16 * 2**30; 16GB is refused, because it has two meanings.

    Raises ValueError with a sentence for the user.
    """
    text = text.strip()
    if decimal := _DECIMAL.fullmatch(text):
        number, unit = decimal.groups()
        unit = unit.upper()
        raise ValueError(
            f"{text} has two meanings: write {number}{unit} for {number}{unit}iB (2^{10 * ('KMGT'.index(unit) + 1)}); "
            f"decimal units (10^{3 * ('KMGT'.index(unit) + 1)}) are not used here"
        )
    match = _SIZE.fullmatch(text)
    if not match or (match[4] and not match[3]):
        raise ValueError(f"{text!r} is not a size: write a number with K, M, G or T (powers of 1024), like 16G")
    if not match[3]:
        raise ValueError(f"{text!r} has no unit: write K, M, G or T (powers of 1024), like {text}G or {text}M")
    whole, fraction = match[1], match[2] or ""
    size, rest = divmod(int(whole + fraction) * _BINARY[match[3].upper()], int("1" + "0" * len(fraction)))
    if rest or not size:
        raise ValueError(f"{text!r} is not a whole, positive number of bytes")
    if size > _LARGEST:
        raise ValueError(f"{text!r} is more than any host has: at most {_LARGEST // TIB}T")
    return size


def format_size(size: int) -> str:
    """A size as a person writes it: 16G, 1.5G, 1537M, 512B. Exact where four digits do, else rounded: 258.1G."""
    largest = next((unit for unit in "TGMK" if abs(size) >= _BINARY[unit]), None)
    if largest is None:
        return f"{size}B"
    if size % _BINARY[largest] == 0:
        return f"{size // _BINARY[largest]}{largest}"
    if size * 10 % _BINARY[largest] == 0:
        return f"{size / _BINARY[largest]:.1f}{largest}"
    smaller = "KMGT"["KMGT".index(largest) - 1] if largest != "K" else largest
    if size % _BINARY[smaller] == 0 and abs(size) // _BINARY[smaller] < 10_000:
        return f"{size // _BINARY[smaller]}{smaller}"
    return f"{size / _BINARY[largest]:.1f}{largest}"


def parse_cpuset(text: str) -> tuple[int, ...]:
    """CPU numbers of a Linux CPU list ("0-3,8"), sorted, each once. Raises ValueError."""
    cpus: set[int] = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"{text!r} is not a CPU list: write numbers and ranges, like 0-3,8")
        first, last = int(match[1]), int(match[2] or match[1])
        if last > _LAST_CPU:
            raise ValueError(f"{text!r}: there is no CPU {last}; Linux numbers them from 0 to {_LAST_CPU} at most")
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def format_cpuset(cpus: Iterable[int]) -> str:
    """CPU numbers as a Linux CPU list: 0-3,8."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1][1:] = [cpu]
        else:
            runs.append([cpu])
    return ",".join("-".join(map(str, run)) for run in runs)


def parse_pci(text: str) -> str:
    """A PCI address in the kernel's form, 0000:05:00.0. Raises ValueError."""
    match = _PCI.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a PCI address: write bus:slot.function, like 05:00.0")
    domain, bus, slot, function = match.groups()
    if int(slot, 16) > 0x1F:
        raise ValueError(f"{text!r} is not a PCI address: slots go from 00 to 1f")
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(slot, 16):02x}.{function}"


def parse_mac(text: str) -> str:
    """A unicast MAC address, lower case. Raises ValueError."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address: write six pairs, like 52:54:00:12:34:56")
    if int(text[:2], 16) & 1:
        raise ValueError(f"{text} is a multicast address: the first byte must be even")
    return text.lower()


def derive_mac(cloud: str, vm: str, nic: int) -> str:
    """The MAC of a VM's n-th NIC: locally administered, the same at every run, from the names alone.

    0x52 has the "locally administered" bit set and the multicast bit clear (IEEE 802, section 8.4). The other 40 bits
    come from a hash: two of 10,000 NICs collide with a chance of 1 in 20,000, and the spec check finds it.
    """
    digest = hashlib.sha256(f"{cloud}/{vm}/{nic}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x52, *digest[:5]))


def content_hash(*parts: str, length: int = 12) -> str:
    """A short name for some content: hexadecimal, `length` digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def parse_version(text: str | None) -> tuple[int, ...]:
    """The first two numbers of a version, to compare: (7, 2) of "7.2.19"; nothing of None."""
    return tuple(int(part) for part in (text or "").split(".")[:2] if part.isdigit())


def some(items: Sequence[str], shown: int) -> str:
    """The first few of many, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
