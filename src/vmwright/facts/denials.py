"""What AppArmor or SELinux has denied libvirt and QEMU within a day: where it is looked for, and a pure parser.

The kernel tells it to auditd where that runs, else it is in the kernel's own log; systemd's journal has both, as far as
it is set up so. All of them are asked, and what is told twice counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DAY = 24 * 3600
_LINES = 200  # of each log, the last ones
_SECONDS = 8  # for each log


@dataclass(frozen=True)
class Denial:
    """One thing that was denied. `by` is AppArmor or SELinux; `last` is seconds since 1970.

    `label` is what the program runs as: AppArmor's profile (libvirt-UUID for a VM), or SELinux's type. `allowed`: it
    was told of, but not kept from it (complain, permissive).
    """

    by: str
    program: str
    label: str
    what: str
    on: str
    times: int
    last: int
    allowed: bool = False


# ausearch would read the script from its standard input, if it were not told where the log is. Its "yesterday" begins
# at midnight, which is more than a day: the parser takes what is older out.
SCRIPT = r"""
exec </dev/null
pick() { grep -a -e 'apparmor="DENIED"' -e 'apparmor="ALLOWED"' -e 'avc:  denied' | tail -n @LINES@ | cut -c 1-600; }
limit() { timeout -k 1 @SECONDS@ "$@"; }
printf 'now\t%s\n' "$(date +%s)"
if [ -d /run/systemd/journal ]; then
  limit journalctl --quiet --no-pager --output=short-unix --since=-1day _TRANSPORT=kernel _TRANSPORT=audit | pick
else
  limit dmesg | pick
fi
! command -v ausearch >/dev/null || limit ausearch --input-logs --raw --message AVC --start yesterday | pick
printf 'end\n'
""".replace("@LINES@", str(_LINES)).replace("@SECONDS@", str(_SECONDS))

_OURS = re.compile(r"virt|qemu|swtpm")
_AUDIT = re.compile(r"audit\((\d+)\.\d+:\d+\)")
_UNIX = re.compile(r"(\d{9,})\.\d+ ")
_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')
_PERMISSIONS = re.compile(r"avc:  denied  \{ ([^}]*) \}")
_HEX = re.compile(r"(?:[0-9A-F]{2})+")


def parse(text: str) -> tuple[Denial, ...]:
    """Denials of the last day that have to do with libvirt or QEMU, the latest first. Raises ValueError."""
    lines = text.splitlines()
    first, _, now = (lines or [""])[0].partition("\t")
    if first != "now" or not now.isdigit() or lines[-1] != "end":
        raise ValueError("it ended too early")
    found = {one: at for line in lines[1:-1] if (one := _denial(line)) and (at := one.last) > int(now) - DAY}
    return tuple(sorted(_summed(found), key=lambda one: (-one.last, one.program, one.on)))


def _summed(found: Iterable[Denial]) -> Iterator[Denial]:
    """The same thing at several times as one."""
    times: dict[tuple[str, str, str, str, str, bool], list[int]] = {}
    for one in found:
        times.setdefault((one.by, one.program, one.label, one.what, one.on, one.allowed), []).append(one.last)
    for (by, program, label, what, on, allowed), when in times.items():
        yield Denial(by, program, label, what, on, len(when), max(when), allowed)


def _denial(line: str) -> Denial | None:
    """The denial in a line; None where there is none of libvirt's or QEMU's."""
    when = _AUDIT.search(line) or _UNIX.match(line)
    if when is None:
        return None
    fields = {key: quoted or _plain(bare) for key, quoted, bare in _FIELD.findall(line)}
    one = _selinux(line, fields, int(when[1])) if "avc:  denied" in line else _apparmor(fields, int(when[1]))
    return one if _OURS.search(f"{one.program} {one.label} {fields.get('tcontext', '')}") else None


def _apparmor(fields: dict[str, str], when: int) -> Denial:
    what = " ".join(filter(None, (fields.get("operation"), fields.get("denied_mask"))))
    on = fields.get("name") or fields.get("capname") or fields.get("family") or fields.get("peer", "")
    return Denial("AppArmor", fields.get("comm", ""), fields.get("profile", ""), what, on, 1, when,
                  fields.get("apparmor") == "ALLOWED")


def _selinux(line: str, fields: dict[str, str], when: int) -> Denial:
    permissions = _PERMISSIONS.search(line)
    what = f"{permissions[1] if permissions else ''} {fields.get('tclass', '')}".strip()
    on = fields.get("path") or fields.get("name") or fields.get("dest") or _type(fields.get("tcontext", ""))
    kind = _type(fields.get("tcontext", ""))
    on = f"{on} ({kind})" if kind and on != kind else on
    return Denial("SELinux", fields.get("comm", ""), _type(fields.get("scontext", "")), what, on, 1, when,
                  fields.get("permissive") == "1")


def _type(context: str) -> str:
    """The type in a context like system_u:system_r:svirt_t:s0:c1,c2."""
    parts = context.split(":")
    return parts[2] if len(parts) > 2 else context


def _plain(word: str) -> str:
    """A name with spaces or odd characters is told in hexadecimal (audit's "untrusted strings"); numbers stay."""
    if _HEX.fullmatch(word) and not word.isdigit():
        return bytes.fromhex(word).split(b"\0")[0].decode(errors="replace")
    return word
