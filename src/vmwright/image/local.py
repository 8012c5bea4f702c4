"""The sums of image files on this machine: computed once, remembered for as long as the file is the same."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vmwright.errors import HostError
from vmwright.image import sums
from vmwright.units import content_hash

_RACY_SECONDS = 2.0  # a file changed so shortly before it was read may change again within one tick of its clock


@dataclass(frozen=True)
class _Seen:
    """A file as it was when its sum was computed."""

    path: str
    size: int
    mtime_ns: int
    inode: int


def local_sha256(path: str, cache_dir: str) -> str:
    """The sha256 of a file of this machine, remembered in `cache_dir` while path, size, time and inode are the same.

    Raises HostError when the file cannot be read, or changes while it is.
    """
    try:
        before = _seen(path)
        note = Path(cache_dir) / f"{content_hash(before.path, length=32)}.json"
        if digest := _recall(note, before):
            return digest
        digest = digest_of(path)
        if _seen(path) != before:
            raise HostError(f"the image {path} is being written to", todo="wait until it is whole, then try again")
    except OSError as error:
        raise unreadable(path, error) from error
    if time.time() - before.mtime_ns / 1e9 > _RACY_SECONDS:
        with suppress(OSError):  # a cache that cannot be written costs time, not truth
            _note(note, json.dumps({**asdict(before), "sha256": digest}))
    return digest


def _seen(path: str) -> _Seen:
    found = os.stat(path)
    return _Seen(os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ino)


def _recall(note: Path, seen: _Seen) -> str | None:
    try:
        known = json.loads(note.read_text())
        digest = known.pop("sha256")
        return sums.given(digest).digest if known == asdict(seen) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _note(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=note.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(temporary, note)
    except OSError:
        os.unlink(temporary)
        raise


def digest_of(path: str) -> str:
    """The sha256 of a file of this machine, computed now. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreadable(path: str, error: OSError) -> HostError:
    """The error for an image file that cannot be read."""
    return HostError(f"cannot read the image {path}", why=error.strerror or str(error),
                     todo="check image: in the file; a path is one of the machine that vmwright runs on")
