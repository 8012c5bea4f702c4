"""The host images in the cache: which rack stands on which, and the removal of old ones that none stands on.

Racks may have their state in other places than this run's ($XDG_STATE_HOME), and share the cache: so it is the cache
that keeps a note of each rack. A note counts for as long as the rack's folder is there.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vmwright.errors import HostError
from vmwright.rack.contents import Image
from vmwright.units import content_hash

_NOTES = "racks"
_NAME = re.compile(rf"({'|'.join(Image)})-[0-9a-f]+\.qcow2")


def take(image: Path, rack: Path) -> bool:
    """Note that the rack with that folder stands on an image of the cache. False when the image is not there.

    Raises HostError when it cannot be noted.
    """
    if not image.parent.is_dir():
        return False
    with _alone(image.parent) as notes:
        if not image.exists():
            return False
        note = notes / content_hash(str(rack))
        temporary = note.with_suffix(".new")
        temporary.write_text(f"{image.name}\n{rack}\n")
        temporary.replace(note)
        return True


def prune(cache: Path, used: Collection[str] = ()) -> list[tuple[str, int]]:
    """Remove the images on which no rack stands, but the newest of each kind: names, and bytes that they took.

    `used` are paths of images that are to stay whatever the notes say.
    """
    removed = []
    with _alone(cache) as notes:
        stay = {Path(path).name for path in used} | set(_noted(notes))
        for image in _old(cache):
            if image.name not in stay:
                removed.append((image.name, image.stat().st_blocks * 512))
                image.unlink()
                image.with_suffix(".sources").unlink(missing_ok=True)
    return removed


def _noted(notes: Path) -> Iterator[str]:
    """The names of the images that racks stand on; notes of racks that are gone are removed."""
    for note in notes.iterdir():
        image, _, rack = note.read_text().rstrip("\n").partition("\n")
        if note.suffix or not Path(rack).is_dir():
            note.unlink()
        else:
            yield image


def _old(cache: Path) -> Iterator[Path]:
    """All images but the newest of each kind."""
    kinds: dict[str, list[Path]] = {}
    for path in cache.iterdir():
        if found := _NAME.fullmatch(path.name):
            kinds.setdefault(found[1], []).append(path)
    for images in kinds.values():
        yield from sorted(images, key=lambda path: path.stat().st_mtime)[:-1]


@contextmanager
def _alone(cache: Path) -> Iterator[Path]:
    """The folder of the notes, for one process at a time: what is taken meanwhile is not removed, and vice versa."""
    notes = cache / _NOTES
    try:
        notes.mkdir(exist_ok=True)
        with _locked(notes):
            yield notes
    except OSError as error:
        raise HostError(f"cannot write {notes}", why=error.strerror or str(error),
                        todo="make room, or set XDG_CACHE_HOME to a directory that you can write to") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
