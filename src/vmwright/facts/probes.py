"""What is asked of a host's shell: each probe a command and a pure parser; all of them go in one exec."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmwright.facts import kvm
from vmwright.facts.model import IntentFacts, LinkFacts, PathFacts
from vmwright.names import HOST_STATE

# Programs that some action needs; doctor and the plan name those that are missing.
TOOLS = (
    "qemu-img", "curl", "xz", "gzip", "zstd", "mmdebstrap", "sgdisk", "mke2fs", "mkfs.xfs", "mkfs.btrfs", "mkfs.vfat",
    "mkfs.fat", "mcopy", "mmd", "flock", "setpriv", "setsid", "sha256sum", "sha512sum", "truncate", "dd", "chroot", "tar",
    "losetup", "mount", "umount", "apt-config", "apt-get", "xfs_admin", "tune2fs", "blkid", "prlimit", "timeout",
    "virt-host-validate", "systemctl",
)
_BEGIN, _END = "--vmwright-begin--", "--vmwright-end--"


@dataclass(frozen=True)
class Output:
    """What one probe printed, and its exit code."""

    text: str
    code: int


def commands(cloud: str, paths: Collection[str]) -> dict[str, Sequence[str]]:
    """Every probe's argv by name. `paths` are the directories that the spec's pools want."""
    sh = ("sh", "-c")
    return {
        "hostname": ["cat", "/proc/sys/kernel/hostname"],
        "os": ["cat", "/etc/os-release"],
        "kernel": ["uname", "-r"],
        "user": ["id", "-un"],
        "cpus": ["getconf", "_NPROCESSORS_ONLN"],
        "memory": ["cat", "/proc/meminfo"],
        "links": ["ip", "-json", "-details", "address"],
        "tools": [*sh, 'for t in "$@"; do command -v "$t" >/dev/null && echo "$t"; done; :', "sh", *TOOLS],
        "kvm": [*sh, kvm.script()],
        "kvm-device": ["stat", "-c", "%U:%G %a", "/dev/kvm"],
        "intents": [*sh, 'for f in "$1"/*.json; do [ -e "$f" ] && cat "$f" && echo; done; :', "sh",
                    f"{HOST_STATE}/{cloud}/intents"],
        "work": [*sh, 'for f in "$1"/*; do [ -e "$f" ] && basename "$f"; done; :', "sh", f"{HOST_STATE}/{cloud}/work"],
        "paths": [*sh, _PATHS, "sh", *sorted(paths)],
    }


# For each directory: does it exist, how much room has the file system that holds it (or will), and which directory on the
# way, if any, can the user that QEMU runs as not search. Asked of the kernel, as that user, so that ACLs count.
_PATHS = """
user=$(id -un libvirt-qemu 2>/dev/null || id -un qemu 2>/dev/null)
for path in "$@"; do
  near=$path; [ -d "$path" ] && there=1 || there=0
  while [ ! -d "$near" ]; do near=$(dirname "$near"); done
  free=$(df --output=avail -B1 "$near" | tail -n1)
  blocked=
  if [ -n "$user" ] && [ "$(id -u)" = 0 ]; then
    up=$near
    while :; do
      setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups test -x "$up" 2>/dev/null || blocked=$up
      [ "$up" = / ] && break
      up=$(dirname "$up")
    done
  fi
  printf '%s\\t%s\\t%s\\t%s\\n' "$there" "$((free))" "$blocked" "$path"
done
"""


def script(argvs: Mapping[str, Sequence[str]]) -> str:
    """One shell script that runs every probe and marks where its output begins and how it ended."""
    lines = []
    for name, argv in argvs.items():
        lines.append(f"printf '\\n{_BEGIN} {name}\\n'; {shlex.join(argv)} 2>/dev/null; printf '\\n{_END} %d\\n' $?")
    return "\n".join(lines)


def split(text: str) -> dict[str, Output]:
    """The outputs of a script's probes by name. Pure."""
    outputs: dict[str, Output] = {}
    name, lines = "", list[str]()
    for line in text.split("\n"):
        if line.startswith(_BEGIN):
            name, lines = line.removeprefix(_BEGIN).strip(), []
        elif line.startswith(_END) and name:
            outputs[name] = Output("\n".join(lines).rstrip("\n"), int(line.removeprefix(_END)))
        else:
            lines.append(line)
    return outputs


def parse_os(text: str) -> str:
    """The system's name, from os-release(5)."""
    values = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    return values.get("PRETTY_NAME", values.get("NAME", "unknown")).strip("\"'")


def parse_meminfo(text: str) -> tuple[int, int]:
    """Total and available memory, bytes, from /proc/meminfo (its kB are KiB, proc(5))."""
    rows = {line.split(":")[0]: int(line.split()[1]) << 10 for line in text.splitlines() if len(line.split()) >= 2}
    total = rows.get("MemTotal", 0)
    return total, rows.get("MemAvailable", total)


def parse_links(text: str) -> tuple[LinkFacts, ...]:
    """Interfaces, from `ip -json -details address`."""
    rows: list[dict[str, Any]] = json.loads(text or "[]")
    return tuple(
        LinkFacts(
            name=row["ifname"],
            kind=row.get("linkinfo", {}).get("info_kind", "loopback" if row.get("link_type") == "loopback" else "ethernet"),
            addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in row.get("addr_info", []) if a.get("family") == "inet"),
            up="UP" in row.get("flags", []),
        )
        for row in rows
        if "ifname" in row
    )


def parse_intents(text: str) -> tuple[IntentFacts, ...]:
    """Notes of what was begun; one JSON object a line. A torn line is not a note: it was written before anything was done."""
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found.append(IntentFacts(row["cloud"], row["object"], row["operation"], tuple(row.get("volumes", ())),
                                     row.get("instance", "")))
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return tuple(found)


def parse_paths(text: str) -> tuple[PathFacts, ...]:
    """Directories, from the script above."""
    rows = (line.split("\t") for line in text.splitlines() if line.count("\t") == 3)
    return tuple(PathFacts(path, there == "1", int(free), blocked or None) for there, free, blocked, path in rows)




def parse_work(text: str) -> tuple[IntentFacts, ...]:
    """Work directories of templates that a run began to make: each a note of operation "template"."""
    return tuple(IntentFacts("", name, "template") for name in text.split())
