"""Puts a disk image in its place on a host: argv builders."""

from __future__ import annotations

# Shared blocks where the file system can. Else past the page cache: it takes a fifth of the CPU, and neither throws
# out what the host has cached nor leaves gigabytes to be written later; blocks of zeros become holes. Where the file
# system cannot do that either (some network ones), the plain way, whose words are also those of a failure.
_COPY = """
cp --reflink=always -- "$1" "$2" 2>/dev/null && exit
dd if="$1" of="$2" bs=4M oflag=direct conv=sparse status=none 2>/dev/null && exit
exec cp --sparse=always -- "$1" "$2"
"""


# mv -n says nothing when the name is taken; that its source is still there does. The directory is synced last: after a
# power cut the name is there with all of the file, or not at all.
_PUBLISH = """
mv -nT -- "$1" "$2" && [ ! -e "$1" ] && sync -- "${2%/*}"
"""


def claim(path: str) -> list[str]:
    """Make an empty file, readable by its owner only. Fails when there is something of that name."""
    return ["sh", "-c", 'umask 077; set -C; : >"$1"', "claim", path]


def copy(source: str, target: str) -> list[str]:
    """Make `target`, which is there (`claim`), a copy of `source`."""
    return ["sh", "-c", _COPY, "copy", source, target]


def publish(partial: str, path: str) -> list[str]:
    """Give a file its final name, in one step and for good. Fails when there is something of that name."""
    return ["sh", "-c", _PUBLISH, "publish", partial, path]
