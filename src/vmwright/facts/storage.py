"""Block devices and LVM of a host: what is asked of its shell, and pure parsers of the answers.

udev's record of what is on a disk may be old, and a container has none. So the disks that a pool is to take are looked
at themselves, with wipefs; all others are told as udev knows them, which costs next to nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmwright.facts.model import BlockFacts, GroupFacts, ThinFacts, VolumeFacts
from vmwright.spec.cloud import Pool

SWAP = "[SWAP]"  # in place of a mount point
ELSEWHERE = "[elsewhere]"  # so, too: mounted where this process does not see it, as in a container
UNREADABLE = "unreadable"  # in place of a signature: what is on the device could not be read, so it may be anything

# Kinds of partition tables as libblkid calls them. A protective MBR alone is what is left of a GPT.
_TABLES = ("gpt", "dos", "mac", "bsd", "sun", "sgi", "solaris_x86", "ultrix", "unixware", "atari", "PMBR")
_MARK, _END = "@disk", "@end"


@dataclass(frozen=True)
class Wanted:
    """What is to be read of a host: the LVM pools that the spec has there, and whether block devices at all."""

    pools: tuple[Pool, ...] = ()
    disks: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The disks that the pools are to be made of, as the spec names them."""
        return tuple(sorted({disk for pool in self.pools if pool.lvm for disk in pool.lvm.disks}))


def wanted(pools: Iterable[Pool], *, disks: bool = False) -> Wanted:
    """What to read for these pools of one host. With `disks`, the block devices even if none of the pools is LVM's."""
    lvm = tuple(pool for pool in pools if pool.lvm)
    return Wanted(lvm, disks or bool(lvm))


def commands(wanted: Wanted) -> dict[str, Sequence[str]]:
    """Every probe's argv by name; none when nothing is wanted."""
    if not wanted.disks:
        return {}
    sh = ("sh", "-c")
    made: dict[str, Sequence[str]] = {
        "blocks": ["lsblk", "--json", "--bytes", "--output", "NAME,KNAME,PATH,TYPE,SIZE,RO,SERIAL,MODEL,FSTYPE,PTTYPE,"
                                                             "MAJ:MIN"],
        "disks": [*sh, _DISKS],
        "mounts": [*sh, _MOUNTS],
        "swaps": ["cat", "/proc/swaps"],
    }
    if wanted.pools:
        made["signatures"] = [*sh, _SIGNATURES, "sh", *wanted.paths]
        made["lvm"] = [*sh, _LVM, "sh", *_REPORT]
    return made


# For each disk: its NUMA node, which the nearest bus device above it knows; and, where there is no udev to tell it, its
# serial: of NVMe, virtio and MMC a file, of SCSI and SATA the VPD page 0x80 behind its header of four bytes.
_DISKS = r"""
for dir in /sys/block/*; do
  cd -P "$dir/device" 2>/dev/null || continue
  node= serial=
  while [ ! -r numa_node ] && [ "$PWD" != / ]; do cd ..; done
  [ -r numa_node ] && read -r node <numa_node
  if [ ! -d /run/udev/data ]; then
    for file in "$dir/device/serial" "$dir/serial"; do
      [ -n "$serial" ] || [ ! -r "$file" ] || read -r serial <"$file"
    done
    [ -n "$serial" ] || [ ! -r "$dir/device/vpd_pg80" ] || serial=$(tail -c +5 "$dir/device/vpd_pg80" | tr -d '\0')
  fi
  printf '%s\t%s\t%s\n' "${dir##*/}" "$node" "$serial"
done
:
"""

# btrfs mounts under a number of its own, and tells a path of one of its devices: the one that was given to mount, which
# may be a link or a node of any name, and gone by now. So the number behind each path is told (in hexadecimal), and
# which devices belong together and are in use, whoever has mounted them.
_MOUNTS = r"""
cat /proc/self/mountinfo
while read -r line; do
  case $line in *" - btrfs /"*) ;; *) continue ;; esac
  source=${line#* - * }
  source=${source%% *}
  path=$(printf "$(printf '%s' "$source" | sed 's/%/%%/g')")
  [ ! -b "$path" ] || printf '@source\t%s\t%s\n' "$source" "$(stat -L -c '%t:%T' -- "$path")"
done </proc/self/mountinfo
for file in /sys/fs/btrfs/*/devices/*/dev; do
  [ -r "$file" ] && read -r number <"$file" && printf '@btrfs\t%s\t%s\n' "${file%%/devices/*}" "$number"
done
:
"""

# A disk may be named by a link, which is followed. wipefs leaves off at the first device that it cannot read, and then
# has said nothing of the others: its code is told, too.
_SIGNATURES = r"""
for path in "$@"; do
  real=$(readlink -f -- "$path") && [ -b "$real" ] || continue
  devices=$real
  for part in /sys/class/block/"${real##*/}"/*/partition; do
    [ -e "$part" ] && part=${part%/partition} && devices="$devices /dev/${part##*/}"
  done
  printf '\n@disk\t%s\t%s\n' "$devices" "$path"
  wipefs --json --no-act -- $devices
  printf '\n@end\t%d\n' $?
done
:
"""

# udev looks at each device that somebody has written to: for that moment it is open.
_LVM = """
command -v lvm >/dev/null || exit 0
udevadm settle --timeout=5 2>/dev/null
exec lvm "$@"
"""

# One process for all of LVM: each of its commands scans the disks anew, which is what takes its time. Columns of the
# reports are in lvs(8), vgs(8), pvs(8). Whether dmeventd monitors and new blocks are zeroed is in those of segments.
_REPORT = (
    "fullreport", "--all", "--reportformat", "json", "--units", "b", "--nosuffix",
    "--configreport", "vg", "--options", "vg_name,vg_size,vg_free,vg_extent_size,vg_missing_pv_count",
    "--configreport", "pv", "--options", "pv_name,pv_missing",
    "--configreport", "lv", "--options", "lv_uuid,lv_name,lv_path,lv_size,lv_metadata_size,lv_role,lv_layout,pool_lv,"
                                         "data_percent,metadata_percent,lv_active,lv_device_open",
    "--configreport", "pvseg", "--options", "pv_uuid",
    "--configreport", "seg", "--options", "lv_uuid,seg_monitor,zero",
)  # fmt: skip


# -- LVM --------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Lvm:
    """What LVM has: its groups, the volumes of wanted pools, and the group of each physical volume by its path."""

    groups: tuple[GroupFacts, ...] = ()
    volumes: tuple[VolumeFacts, ...] = ()
    members: Mapping[str, str] = field(default_factory=dict)


def parse_lvm(text: str, code: int, pools: Iterable[Pool]) -> Lvm:
    """LVM's own report. Empty where it is not installed. Raises ValueError when it has failed."""
    if not text.strip():
        if code:
            raise ValueError(f"lvm fullreport ended with code {code} and said nothing")
        return Lvm()
    reports = [report for report in json.loads(text)["report"] if report.get("vg")]
    wanted = list(pools)
    volumes = (volume for report in reports for volume in _volumes(report, wanted))
    members = {row["pv_name"]: report["vg"][0]["vg_name"] for report in reports for row in report.get("pv", ())
               if not row.get("pv_missing")}
    return Lvm(tuple(_group(report) for report in reports), tuple(volumes), members)


def _group(report: Mapping[str, Any]) -> GroupFacts:
    row = report["vg"][0]
    segments = {seg["lv_uuid"]: seg for seg in report.get("seg", ())}
    return GroupFacts(
        name=row["vg_name"],
        size=int(row["vg_size"]),
        free=int(row["vg_free"]),
        extent=int(row["vg_extent_size"]),
        disks=tuple(row["pv_name"] for row in report.get("pv", ())),  # of one that is missing: [unknown]
        missing=int(row.get("vg_missing_pv_count") or 0),
        thin=tuple(_thin(lv, segments.get(lv["lv_uuid"], {})) for lv in report.get("lv", ())
                   if {"thin", "pool"} <= set(lv["lv_layout"].split(","))),
    )


def _thin(row: Mapping[str, Any], segment: Mapping[str, Any]) -> ThinFacts:
    return ThinFacts(_plain(row["lv_name"]), int(row["lv_size"]), int(row["lv_metadata_size"] or 0),
                     float(row["data_percent"] or 0), float(row["metadata_percent"] or 0),
                     monitored=segment.get("seg_monitor") == "monitored", zero=segment.get("zero") == "zero")


def _volumes(report: Mapping[str, Any], pools: Sequence[Pool]) -> Iterator[VolumeFacts]:
    """The volumes of a group that are there for somebody: what LVM keeps for itself has no path."""
    group = report["vg"][0]["vg_name"]
    ours = [pool for pool in pools if pool.lvm and pool.lvm.group == group]
    for row in report.get("lv", ()) if ours else ():
        if row["lv_path"]:
            yield _volume(group, row, ours)


def _volume(group: str, row: Mapping[str, Any], pools: Sequence[Pool]) -> VolumeFacts:
    name, size, thin = row["lv_name"], int(row["lv_size"]), _plain(row["pool_lv"]) or None
    # LVM knows how much of a thin volume is used only while it is active.
    used = round(size * float(row["data_percent"] or 0) / 100) if thin else size
    return VolumeFacts(pool=_pool(pools, thin), name=name, path=f"/dev/{group}/{name}", format="raw", capacity=size,
                       allocation=used, thin=thin, active=row["lv_active"] != "", open=row["lv_device_open"] == "open")


def _pool(pools: Sequence[Pool], thin: str | None) -> str:
    """Which of the pools in one group a volume belongs to: the one with that thin pool, or the one without any."""
    fitting = (pool.name for pool in pools if pool.lvm and (pool.lvm.thin.name if pool.lvm.thin else None) == thin)
    return next(fitting, pools[0].name)


def _plain(name: str) -> str:
    """The name of a logical volume; hidden ones are told in brackets."""
    return name.strip("[]")


# -- block devices ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Looked:
    """What was found on disks that were looked at: types by the devices' kernel names, and the paths that led there."""

    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def parse_signatures(text: str) -> Looked:
    """Signatures, from the script above. A device that could not be read has UNREADABLE. Raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    names: dict[str, tuple[str, ...]] = {}
    for part in re.split(rf"^{_MARK}\t", text, flags=re.MULTILINE)[1:]:
        head, _, rest = part.partition("\n")
        devices, _, path = head.partition("\t")
        said, _, code = rest.partition(f"{_END}\t")
        knames = [device.rpartition("/")[2] for device in devices.split(" ")]
        found |= _signatures(said, knames) if code.strip() == "0" else dict.fromkeys(knames, (UNREADABLE,))
        names[knames[0]] = (*names.get(knames[0], ()), path)
    return Looked(found, names)


def _signatures(text: str, knames: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Types by device; wipefs prints nothing at all when it finds nothing."""
    rows = json.loads(text)["signatures"] if text.strip() else []
    return {kname: tuple(dict.fromkeys(row["type"] for row in rows if row["device"] == kname)) for kname in knames}


def parse_disks(text: str) -> dict[str, tuple[int | None, str | None]]:
    """NUMA node and serial of each disk by its kernel name, from the script above."""
    rows = (line.split("\t") for line in text.splitlines() if line.count("\t") == 2)
    return {kname: (int(node) if node.isdigit() else None, serial.strip() or None) for kname, node, serial in rows}


def parse_mounts(text: str, swaps: str) -> dict[str, tuple[str, ...]]:
    """Where devices are in use, by "MAJOR:MINOR" and, where the kernel tells no number, by path; from the script above.

    Lines of proc_pid_mountinfo(5) and of /proc/swaps.
    """
    used: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        fields, _, source = line.partition(" - ")
        words, source_words = fields.split(), source.split()
        if len(words) > 4 and len(source_words) > 1:
            for key in (words[2], _unescaped(source_words[1])):
                used.setdefault(key, {})[_unescaped(words[4])] = None
    for line in swaps.splitlines()[1:]:
        if words := line.split():
            used.setdefault(_unescaped(words[0]), {})[SWAP] = None
    _add_btrfs(used, text)
    return {key: tuple(places) for key, places in used.items()}


def _add_btrfs(used: dict[str, dict[str, None]], text: str) -> None:
    """All devices of a mounted btrfs are in use where the one is that the kernel tells."""
    together: dict[str, list[str]] = {}
    for line in text.splitlines():
        kind, *values = line.split("\t")
        if kind == "@source" and len(values) == 2:
            number = ":".join(str(int(part, 16)) for part in values[1].split(":"))
            used.setdefault(number, {}).update(used.get(_unescaped(values[0]), {}))
        elif kind == "@btrfs" and len(values) == 2:
            together.setdefault(values[0], []).append(values[1])
    for numbers in together.values():
        places = {place: None for number in numbers for place in used.get(number, ())} or {ELSEWHERE: None}
        for number in numbers:
            used.setdefault(number, {}).update(places)


def _unescaped(word: str) -> str:
    """A word of a file in /proc, where blanks and backslashes are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


@dataclass(frozen=True)
class Known:
    """What other probes know of block devices."""

    disks: Mapping[str, tuple[int | None, str | None]]
    mounts: Mapping[str, tuple[str, ...]]
    looked: Looked
    members: Mapping[str, str]


def parse_blocks(text: str, known: Known) -> tuple[BlockFacts, ...]:
    """Block devices, from lsblk's tree, in its order; what stands on several is there once. Raises ValueError."""
    rows: dict[str, Mapping[str, Any]] = {}
    parents: dict[str, dict[str, None]] = {}
    nodes: dict[str, int | None] = {}

    def visit(row: Mapping[str, Any], parent: str | None, node: int | None) -> None:
        path = row["path"]
        node = known.disks.get(row["kname"], (node, None))[0]
        rows.setdefault(path, row)
        nodes.setdefault(path, node)
        parents.setdefault(path, {}).update({parent: None} if parent else {})
        for child in row.get("children", ()):
            visit(child, path, node)

    for row in json.loads(text)["blockdevices"]:
        visit(row, None, None)
    return tuple(_block(row, tuple(parents[path]), nodes[path], known) for path, row in rows.items())


def _block(row: Mapping[str, Any], parents: tuple[str, ...], node: int | None, known: Known) -> BlockFacts:
    path, kname = row["path"], row["kname"]
    table, signatures = _content(row, known.looked.found.get(kname))
    places = (known.mounts.get(key, ()) for key in (row.get("maj:min", ""), path, f"/dev/{kname}"))
    return BlockFacts(
        path=path,
        size=int(row["size"] or 0),
        kind=row["type"],
        parents=parents,
        serial=(row.get("serial") or "").strip() or known.disks.get(kname, (None, None))[1],
        model=(row.get("model") or "").strip() or None,
        table=table,
        signatures=signatures,
        mounts=tuple(dict.fromkeys(place for found in places for place in found)),
        vg=known.members.get(path) or known.members.get(f"/dev/{kname}"),
        readonly=row.get("ro") in (True, "1", 1),
        numa_node=node,
        names=tuple(name for name in known.looked.names.get(kname, ()) if name != path),
    )


def _content(row: Mapping[str, Any], looked: tuple[str, ...] | None) -> tuple[str | None, tuple[str, ...]]:
    """The partition table of a device, and the other signatures. udev's word counts where nobody has looked.

    udev says of a partition in which kind of table it is listed: that is none of its own.
    """
    if looked is None:
        table = row.get("pttype") if row["type"] != "part" else None
        return table or None, (row["fstype"],) if row.get("fstype") else ()
    tables = sorted((kind for kind in looked if kind in _TABLES), key=_TABLES.index)
    return next(iter(tables), None), tuple(kind for kind in looked if kind not in _TABLES)
