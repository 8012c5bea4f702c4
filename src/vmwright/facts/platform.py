"""What it takes to prepare a host: its distribution, this boot, the kernel's command line, and files of ours."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence

from vmwright.facts.model import FileFacts, PlatformFacts
from vmwright.names import OUR_FILES, written_note

_SYSTEM = r"""
for tool in apt-get dnf update-grub grubby update-initramfs dracut; do
  ! command -v "$tool" >/dev/null || printf 'tool\t%s\n' "$tool"
done
[ ! -d /run/systemd/system ] || printf 'systemd\t\n'
read -r line </proc/cmdline; printf 'cmdline\t%s\n' "$line"
read -r line </proc/sys/kernel/random/boot_id; printf 'boot\t%s\n' "$line"
"""

# A path, and where the copy of what we wrote there is.
_FILES = r"""
while [ $# -gt 1 ]; do
  [ ! -f "$1" ] || printf 'there\t%s\t%s\n' "$1" "$(base64 -w 0 <"$1")"
  [ ! -f "$2" ] || printf 'ours\t%s\t%s\n' "$1" "$(base64 -w 0 <"$2")"
  shift 2
done
:
"""


def commands() -> dict[str, Sequence[str]]:
    """Every probe's argv by name."""
    pairs = [word for path in OUR_FILES for word in (path, written_note(path))]
    return {"platform": ["sh", "-c", _SYSTEM], "own-files": ["sh", "-c", _FILES, "sh", *pairs]}


def parse(system: str, files: str, os_release: str) -> PlatformFacts:
    """What the probes above and /etc/os-release tell. Raises ValueError."""
    rows: dict[str, list[str]] = {}
    for line in system.splitlines():
        key, _, value = line.partition("\t")
        rows.setdefault(key, []).append(value)
    if "boot" not in rows:
        raise ValueError("it ended too early")
    release = parse_os_release(os_release)
    return PlatformFacts(
        id=release.get("ID", "linux"),
        like=tuple(release.get("ID_LIKE", "").split()),
        boot=rows["boot"][0],
        cmdline="".join(rows.get("cmdline", ())),
        systemd="systemd" in rows,
        tools=tuple(rows.get("tool", ())),
        files=tuple(_files(files)),
    )


def parse_os_release(text: str) -> dict[str, str]:
    """The values of os-release(5): a shell's assignments, without any expansion."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            words = shlex.split(value)
            found[key.strip()] = words[0] if words else ""
    return found


def _files(text: str) -> list[FileFacts]:
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.count("\t") == 2:
            key, path, data = line.split("\t")
            found.setdefault(path, {})[key] = base64.b64decode(data).decode(errors="replace")
    return [FileFacts(path, row.get("there"), row.get("ours")) for path, row in _known(found).items()]


def _known(found: Mapping[str, dict[str, str]]) -> Mapping[str, dict[str, str]]:
    return {path: found[path] for path in OUR_FILES if path in found}
