"""What is asked of a host's shell: each probe a command and a pure parser; all of them go in one exec."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmwright.errors import HostError
from vmwright.facts import cpu, kvm, platform
from vmwright.facts.model import IntentFacts, LinkFacts, PathFacts, VolumeFacts
from vmwright.names import HOST_STATE

# Programs that some action needs; doctor and the plan name those that are missing.
TOOLS = (
    "qemu-img", "curl", "xz", "gzip", "zstd", "mmdebstrap", "sgdisk", "mke2fs", "mkfs.xfs", "mkfs.btrfs", "mkfs.vfat",
    "mkfs.fat", "mcopy", "mmd", "flock", "setpriv", "setsid", "sha256sum", "sha512sum", "truncate", "dd", "chroot",
    "tar", "losetup", "mount", "umount", "apt-config", "apt-get", "xfs_admin", "tune2fs", "blkid", "prlimit", "timeout",
    "virt-host-validate", "systemctl", "qemu-system-x86_64", "qemu-kvm", "libvirtd", "virtqemud", "virsh",
    "lvm", "lsblk", "wipefs", "blkdiscard", "dmeventd", "thin_check",
    "dnsmasq", "chronyd", "squid", "apt-cacher-ng", "nft",
)
_BEGIN, _END = "--vmwright-begin--", "--vmwright-end--"


@dataclass(frozen=True)
class Output:
    """What one probe printed, and its exit code."""

    text: str
    code: int


def commands(cloud: str, paths: Collection[str], untold: Collection[str] = ()) -> dict[str, Sequence[str]]:
    """Every probe's argv by name.

    `paths` are the directories that the spec's pools want; `untold` those of them whose files libvirt does not tell,
    because it has no active pool there.
    """
    sh = ("sh", "-c")
    return {
        "hostname": ["cat", "/proc/sys/kernel/hostname"],
        "os": ["cat", "/etc/os-release"],
        "kernel": ["uname", "-r"],
        "user": ["id", "-un"],
        "cpus": ["getconf", "_NPROCESSORS_ONLN"],
        "memory": ["cat", "/proc/meminfo"],
        "topology": cpu.command(),
        "links": ["ip", "-json", "-details", "address"],
        "tools": [*sh, 'for t in "$@"; do command -v "$t" >/dev/null && echo "$t"; done; :', "sh", *TOOLS],
        "kvm": [*sh, kvm.script()],
        "kvm-device": ["stat", "-c", "%U:%G %a", "/dev/kvm"],
        "intents": [*sh, 'for f in "$1"/*.json; do [ -e "$f" ] && cat "$f" && echo; done; :', "sh",
                    f"{HOST_STATE}/{cloud}/intents"],
        "work": [*sh, 'for f in "$1"/*; do [ -e "$f" ] && basename "$f"; done; :', "sh", f"{HOST_STATE}/{cloud}/work"],
        "paths": [*sh, _PATHS, "sh", *sorted({*paths, HOST_STATE})],
        "files": [*sh, _FILES, "sh", cloud, *sorted(untold)],
        **platform.commands(),
    }


# For each directory: is it there, how much room has the file system that holds it (or will), of which type is that, and
# which directory on the way, if any, can the user that QEMU runs as not search. Asked of the kernel, as that user, so
# that ACLs count.
# The outermost closed directory is told: those below it cannot be judged before it is open. Where nobody can become
# that user, nothing is called closed. Few processes: this was half of what reading the facts of an idle host takes.
_PATHS = r"""
conf=/etc/libvirt/qemu.conf
user=$(sed -n 's/^[[:space:]]*user[[:space:]]*=[[:space:]]*"+\{0,1\}\([^"]*\)".*/\1/p' "$conf" 2>/dev/null | tail -n1)
user=$(id -un "${user:-libvirt-qemu}" 2>/dev/null || id -un qemu 2>/dev/null)
[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || user=
[ -z "$user" ] || group=$(id -g "$user")
closed='
  found= up=$1
  while :; do test -x "$up" || found=$up; [ "$up" = / ] && break; up=${up%/*}; up=${up:-/}; done
  echo "$found"'
for path in "$@"; do
  near=$path; [ -d "$path" ] && there=1 || there=0
  while [ ! -d "$near" ]; do near=${near%/*}; near=${near:-/}; done
  room=$(df --output=avail,fstype -B1 "$near" | tail -n1); free=${room% *}; type=${room##* }
  blocked=
  [ -z "$user" ] ||
    blocked=$(setpriv --reuid "$user" --regid "$group" --init-groups sh -c "$closed" sh "$near" 2>/dev/null) || blocked=
  printf '%s\t%s\t%s\t%s\t%s\n' "$there" "$((free))" "$type" "$blocked" "$path"
done
"""

# The cloud's own volumes in directories: names of ours begin with the cloud's and a dot. The format is given, not
# looked for: a guest can write what it likes at the beginning of a raw image. A running VM's image is not locked out.
_FILES = """
cloud=$1; shift
for dir in "$@"; do
  for file in "$dir/$cloud".*.qcow2 "$dir/$cloud".*.iso; do
    [ -f "$file" ] || continue
    case $file in *.qcow2) format=qcow2 ;; *) format=raw ;; esac
    qemu-img info -U -f "$format" --output=json "$file" && echo
  done
done
:
"""


def script(argvs: Mapping[str, Sequence[str]]) -> str:
    """One shell script that runs every probe and marks where its output begins and how it ended."""
    lines = []
    for name, argv in argvs.items():
        lines.append(f"printf '\\n{_BEGIN} {name}\\n'; {shlex.join(argv)} 2>/dev/null; printf '\\n{_END} %d\\n' $?")
    return "\n".join(lines)


def split(text: str) -> dict[str, Output]:
    """The outputs of a script's probes by name; without those that were cut off. Pure."""
    outputs: dict[str, Output] = {}
    name, lines = "", list[str]()
    for line in text.split("\n"):
        code = line.removeprefix(_END).strip()
        if line.startswith(_BEGIN):
            name, lines = line.removeprefix(_BEGIN).strip(), []
        elif line.startswith(_END) and name and code.isdigit():
            outputs[name] = Output("\n".join(lines).rstrip("\n"), int(code))
            name = ""
        else:
            lines.append(line)
    return outputs


def parse_os(text: str) -> str:
    """The system's name, from os-release(5)."""
    values = platform.parse_os_release(text)
    return values.get("PRETTY_NAME", values.get("NAME", "unknown"))


def parse_count(text: str) -> int:
    """A number alone on its line. Raises ValueError."""
    return int(text.strip())


def parse_meminfo(text: str) -> tuple[int, int]:
    """Total and available memory, bytes, from /proc/meminfo (its kB are KiB, proc(5)). Raises ValueError."""
    rows = {line.partition(":")[0]: line.partition(":")[2].split() for line in text.splitlines()}
    total, available = ([*rows.get(name, ()), ""][0] for name in ("MemTotal", "MemAvailable"))
    if not total.isdigit():
        raise ValueError("it has no MemTotal")
    return int(total) << 10, int(available if available.isdigit() else total) << 10


def parse_links(text: str) -> tuple[LinkFacts, ...]:
    """Interfaces, from `ip -json -details address`. Raises ValueError."""
    rows: list[dict[str, Any]] = json.loads(text or "[]")
    return tuple(_link(row) for row in rows if "ifname" in row)


def _link(row: dict[str, Any]) -> LinkFacts:
    other = "loopback" if row.get("link_type") == "loopback" else "ethernet"
    addresses = [a for a in row.get("addr_info", ()) if a.get("family") == "inet" and "local" in a]
    info = row.get("linkinfo", {})
    data = info.get("info_data", {})
    return LinkFacts(
        name=row["ifname"],
        kind=info.get("info_kind", other),
        addresses=tuple(f"{a['local']}/{a.get('prefixlen', 32)}" for a in addresses),
        up="UP" in row.get("flags", ()),
        mac=row.get("address", ""),
        master=row.get("master"),
        lower=row.get("link") if info.get("info_kind") == "vlan" else None,
        vlan=data.get("id") if info.get("info_kind") == "vlan" else None,
        dynamic=any(address.get("dynamic") for address in addresses),
        stp=bool(data.get("stp_state")),
        forward_delay=data.get("forward_delay", 0) / 100,
    )


def parse_intents(text: str) -> tuple[IntentFacts, ...]:
    """Notes of what was begun, one JSON object a line. A torn one is none: nothing is done before its note is whole."""
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            volumes, words = row.get("volumes", ()), (row["cloud"], row["object"], row["operation"])
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            continue
        if all(isinstance(word, str) for word in words) and isinstance(volumes, list | tuple):
            found.append(IntentFacts(*words, tuple(map(str, volumes)), str(row.get("instance", ""))))
    return tuple(found)


def parse_work(text: str) -> tuple[IntentFacts, ...]:
    """Work directories of templates that a run began to make: each a note of operation "template"."""
    return tuple(IntentFacts("", name, "template") for name in text.split())


def parse_paths(text: str) -> tuple[PathFacts, ...]:
    """Directories, from the script above."""
    rows = (line.split("\t") for line in text.splitlines() if line.count("\t") == 4)
    return tuple(PathFacts(path, there == "1", int(free) if free.isdigit() else 0, blocked or None, type)
                 for there, free, type, blocked, path in rows)


def parse_files(text: str, pools: Mapping[str, str]) -> tuple[VolumeFacts, ...]:
    """Volumes that libvirt does not tell of, from `qemu-img info`. `pools` are the names of pools by directory."""
    rows = (row for row in _objects(text) if isinstance(row.get("filename"), str))
    return tuple(_volume(row, pools) for row in rows if posixpath.dirname(row["filename"]) in pools)


def _volume(row: dict[str, Any], pools: Mapping[str, str]) -> VolumeFacts:
    folder, name = posixpath.split(row["filename"])
    return VolumeFacts(
        pool=pools[folder], name=name, path=row["filename"], format=row.get("format", "raw"),
        capacity=row.get("virtual-size", 0), allocation=row.get("actual-size", 0),
        backing=row.get("full-backing-filename", row.get("backing-filename")),
    )


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects one after another; what comes after something that is none is left out."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        try:
            row, end = decoder.raw_decode(rest)
        except json.JSONDecodeError:
            return
        if isinstance(row, dict):
            yield row
        rest = rest[end:].lstrip()


def demand(outputs: Mapping[str, Output], host: str, more: Iterable[str] = ()) -> None:
    """Raise HostError unless every probe has answered; `more` are those that were asked besides `commands`."""
    answered(outputs, host, (*commands("any", ()), *more))


def answered(outputs: Mapping[str, Output], host: str, asked: Iterable[str]) -> None:
    """Raise HostError unless all of these probes have answered."""
    missing = [name for name in asked if name not in outputs]
    if missing:
        raise HostError(f"host {host} did not answer the probe {missing[0]}", why="its shell ended too early",
                        todo="is the login shell there a POSIX shell, and does it print nothing by itself?")
