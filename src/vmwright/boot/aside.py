"""The files on a host that set devices aside for VMs when it boots: texts, and the list of the devices. Pure.

The list is read by a script in the initramfs, which knows nothing else: a line for each device with its name, address,
ids, the driver that the host has for it and its serial, "-" for none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from vmwright.names import ASIDE_LIST, DRACUT_FILES, INITRAMFS_BLOCK, INITRAMFS_HOOK, INITRAMFS_SCRIPT
from vmwright.netconfig.common import NewFile

NONE = "-"
_HOOK = "# Written by vmwright: sets devices aside for VMs.\n/sbin/vmwright-aside\n"
_BACK = "# Written by vmwright: gives them back while the root has not appeared.\n/sbin/vmwright-aside back 0\n"


@dataclass(frozen=True)
class Entry:
    """A device in the list. Of a drive (driver nvme) the serial is its own, of others that of PCIe, None: none."""

    name: str
    address: str
    ids: str
    driver: str | None = None
    serial: str | None = None


def list_text(mark: str, entries: Iterable[Entry]) -> str:
    """The list, below a line that says whose it is."""
    rows = (" ".join((row.name, row.address, row.ids, row.driver or NONE, row.serial or NONE)) for row in entries)
    return mark + "".join(f"{row}\n" for row in rows)


def parse_list(text: str) -> tuple[Entry, ...]:
    """The devices of a list; without lines that are none."""
    words = (line.split(maxsplit=4) for line in text.splitlines() if not line.startswith("#"))
    return tuple(Entry(row[0], row[1], row[2], *(None if word == NONE else word for word in row[3:]))
                 for row in words if len(row) == 5)


def files(tool: str, text: str) -> tuple[NewFile, ...]:
    """All files for a list, by the tool that makes the host's initramfs: update-initramfs or dracut."""
    mine = NewFile(ASIDE_LIST, text)
    if tool == "update-initramfs":
        return (mine, NewFile(INITRAMFS_HOOK, _text("initramfs_hook.sh"), 0o755),
                NewFile(INITRAMFS_SCRIPT, _text("aside.sh"), 0o755),
                NewFile(INITRAMFS_BLOCK, _text("initramfs_block.sh"), 0o755))
    setup, script, hook, back = DRACUT_FILES
    return (mine, NewFile(setup, _text("dracut_module.sh"), 0o755), NewFile(script, _text("aside.sh"), 0o755),
            NewFile(hook, _HOOK, 0o755), NewFile(back, _BACK, 0o755))


def make_anew(tool: str) -> tuple[str, ...]:
    """Have the initramfs of every kernel made anew (update-initramfs(8), dracut(8))."""
    return ("update-initramfs", "-u", "-k", "all") if tool == "update-initramfs" else (
        "dracut", "--force", "--regenerate-all")


@cache
def _text(name: str) -> str:
    return (resources.files("vmwright.boot") / name).read_text()
