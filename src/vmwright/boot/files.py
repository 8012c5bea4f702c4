"""The files on a host that start its VMs in order: where they are, what is in them, and whose they are. Pure.

Each has a mark near its beginning, which says that it is ours, and has the sum of the rest: so what somebody changed by
hand is told from what another version of vmwright wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import inf

from vmwright.names import start_list
from vmwright.spec.cloud import VmSpec
from vmwright.units import content_hash

UNIT = "vmwright-autostart.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
LINK_PATH = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"  # that it is enabled
SCRIPT_PATH = "/usr/local/libexec/vmwright-autostart"
LISTS = start_list("*")
NO_ORDER = "-"

_MARK = re.compile(r"^# Written by vmwright \(([0-9a-f]+)\): what is changed here is lost at its next apply\.\n", re.M)
_SHEBANG = "#!/bin/sh\n"

# After, and not Requires or Wants: which of libvirt's daemons a host has is its own matter, and each has a socket that
# wakes it. After libvirt-guests, so that at shutdown this is ended first, and starts nothing any more while
# libvirt-guests powers VMs off; that one is not to start VMs itself (ON_BOOT=ignore, Debian's default).
# A list may wait for a VM for minutes: there is no time limit but those in the lists.
_UNIT = f"""\
[Unit]
Description=Start VMs in the order of vmwright's files
After=libvirtd.service libvirtd.socket virtqemud.service virtqemud.socket
After=virtnetworkd.service virtnetworkd.socket virtstoraged.service virtstoraged.socket
After=libvirt-guests.service network-online.target remote-fs.target
ConditionPathExistsGlob={LISTS}

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=infinity
ExecStart=/bin/sh {SCRIPT_PATH}
SyslogIdentifier=vmwright-autostart

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Row:
    """A VM in a list: its order as written ("-": none), and for how many seconds its agent is waited for (0: not)."""

    order: str
    name: str
    seconds: int = 0


def unit() -> str:
    """The text of the unit."""
    return marked(_UNIT)


@cache
def script() -> str:
    """The text of the script, which is a file beside this one."""
    text = (resources.files("vmwright.boot") / "autostart.sh").read_text()
    return _SHEBANG + marked(text.removeprefix(_SHEBANG))


def rows(vms: Iterable[VmSpec]) -> tuple[Row, ...]:
    """The VMs that start with their host, in the order in which they do."""
    found = sorted((vm for vm in vms if vm.autostart),
                   key=lambda vm: inf if vm.start_order.order is None else vm.start_order.order)
    return tuple(Row(NO_ORDER if vm.start_order.order is None else str(vm.start_order.order), vm.name,
                     vm.start_order.timeout if vm.start_order.healthy else 0) for vm in found)


def list_text(rows: Iterable[Row]) -> str:
    """The list of a cloud: order, name, what is waited for, and for how many seconds."""
    return marked("".join(f"{row.order} {row.name} {'agent' if row.seconds else '-'} {row.seconds}\n" for row in rows))


def parse_list(text: str) -> tuple[Row, ...]:
    """The VMs of a list; without lines that are none."""
    words = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return tuple(Row(line[0], line[1], int(line[3]) if line[2] == "agent" else 0) for line in words
                 if len(line) == 4 and line[3].isdecimal())


def is_ours(text: str) -> bool:
    """Whether a file was written by vmwright, by whatever version."""
    return _MARK.match(text.removeprefix(_SHEBANG)) is not None


def is_intact(text: str) -> bool:
    """Whether a file is as some vmwright wrote it."""
    found = _MARK.match(text.removeprefix(_SHEBANG))
    return found is not None and text.removeprefix(_SHEBANG) == marked(text.removeprefix(_SHEBANG)[found.end():])


def marked(text: str) -> str:
    """A text of ours with its mark."""
    return f"# Written by vmwright ({content_hash(text)}): what is changed here is lost at its next apply.\n{text}"
