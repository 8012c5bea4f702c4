"""Publishers' lists of check sums: read them, and find the one of an image. Pure.

Three shapes are in use, alone or inside a PGP clear-signed text (RFC 4880, section 7):
    HEX  NAME      HEX *NAME      coreutils (Debian, Ubuntu, AlmaLinux, openSUSE)
    SHA256 (NAME) = HEX           BSD (Fedora, CentOS Stream, Rocky)
    HEX                           a file beside the image that holds nothing else
A PGP signature is not checked: the list is trusted because it was fetched over https from the publisher.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from posixpath import basename
from urllib.parse import unquote, urlsplit

DIGITS = {"sha256": 64, "sha512": 128}  # hexadecimal digits of a sum, for each algorithm that is understood
_PLAIN = re.compile(r"([0-9a-fA-F]{32,128})(?:[ \t]+\*?(\S.*))?")
_TAGGED = re.compile(r"(SHA\d+) ?\((.+)\) ?= ?([0-9a-fA-F]{32,128})", re.IGNORECASE)


@dataclass(frozen=True)
class Sum:
    """A check sum: `digest` is lower-case hexadecimal; `name` is what the list says it belongs to, "" when nothing."""

    algorithm: str
    digest: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest}"


def given(sha256: str) -> Sum:
    """A sum that a user wrote. Raises ValueError with a sentence for the user."""
    digest = sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"{sha256!r} is not a sha256: it has 64 digits, 0 to 9 and a to f")
    return Sum("sha256", digest)


def parse(text: str) -> tuple[Sum, ...]:
    """Every sum in a list, in its order; other lines are passed over. Of a signed text, what the signature covers."""
    return tuple(found for line in _covered(text) if (found := _line(line.strip())))


def choose(text: str, location: str, listed_at: str, algorithm: str) -> Sum:
    """The sum of the image at URL `location` in the list that was fetched from URL `listed_at`.

    A list that holds one sum and is named after the image (IMAGE.sha256) is about that image, whatever name it has
    inside: openSUSE may write the name of the build there, not of the link to it. Raises ValueError with a sentence for
    the user.
    """
    name = _file_name(location)
    entries = tuple(entry for entry in parse(text) if entry.algorithm == algorithm)
    if not entries:
        raise ValueError(_nothing(parse(text), algorithm))
    found = _named(entries, name)
    if not found and len({entry.digest for entry in entries}) == 1 and _file_name(listed_at).startswith(f"{name}."):
        found = entries[:1]
    digests = sorted({entry.digest for entry in found})
    if len(digests) > 1:
        raise ValueError(f"it gives {name} {len(digests)} different sums: {', '.join(digests)}")
    if not digests:
        raise ValueError(f"it does not name {name}{_nearest(name, entries)}")
    return Sum(algorithm, digests[0], name)


def _named(entries: Iterable[Sum], name: str) -> tuple[Sum, ...]:
    """The entries of exactly that name; else those of that name in some directory."""
    entries = tuple(entries)
    exact = tuple(entry for entry in entries if entry.name == name)
    return exact or tuple(entry for entry in entries if basename(entry.name) == name)


def _line(line: str) -> Sum | None:
    if tagged := _TAGGED.fullmatch(line):
        return _sum(tagged[3], tagged[2], tagged[1].lower())
    if plain := _PLAIN.fullmatch(line):
        return _sum(plain[1], plain[2] or "")
    return None


def _sum(digest: str, name: str, algorithm: str | None = None) -> Sum | None:
    """None for an algorithm we do not use, and for a digest whose length is not that of its algorithm."""
    of_length = next((known for known, digits in DIGITS.items() if digits == len(digest)), None)
    if of_length is None or algorithm not in (None, of_length):
        return None
    return Sum(of_length, digest.lower(), name.strip().removeprefix("./"))


def _covered(text: str) -> Iterator[str]:
    """The lines of a list. Of a clear-signed text: between its headers and its signature, dash escapes undone."""
    lines = text.removeprefix("\ufeff").splitlines()
    if "-----BEGIN PGP SIGNED MESSAGE-----" not in (line.strip() for line in lines):
        yield from lines
        return
    inside = headers = False
    for line in lines:
        match line.strip():
            case "-----BEGIN PGP SIGNED MESSAGE-----":
                inside, headers = False, True
            case "-----BEGIN PGP SIGNATURE-----":
                inside = headers = False
            case "" if headers:
                inside, headers = True, False
            case _ if inside:
                yield line.removeprefix("- ")


def _file_name(url: str) -> str:
    return unquote(basename(urlsplit(url).path))


def _nothing(entries: tuple[Sum, ...], algorithm: str) -> str:
    others = sorted({entry.algorithm for entry in entries})
    return f"it holds no {algorithm} sum" + (f", but {' and '.join(others)}: set sums_algorithm" if others else "")


def _nearest(name: str, entries: Iterable[Sum]) -> str:
    near = difflib.get_close_matches(name, [basename(entry.name) for entry in entries], n=3, cutoff=0.6)
    return f"; the nearest names in it: {', '.join(near)}" if near else ""
