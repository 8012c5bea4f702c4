"""PCI devices of a host and its IOMMU: what is asked of its shell, and pure parsers of the answers.

All of it is in sysfs. Names are those that udev has looked up when the devices appeared, which cost nothing; where
there is no udev, they are looked up in pci.ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vmwright.facts.model import DeviceFacts, Held, HeldFacts, IommuFacts
from vmwright.names import ASIDE_RECORD, DEVICE_NOTES

_DSN = 0x0003  # the extended capability with a Device Serial Number: PCI Express Base Specification, 7.9.3
_EXTENDED = 0x100  # where extended capabilities begin
_HEAD = re.compile(rb"(?:^|\n)==> /sys/bus/pci/devices/([0-9a-f:.]+)/config <==\n")
_PATH_PART = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ARGUMENT = re.compile(r"iommu|vfio|^pcie_acs_override")
_NVME = "0108"
_Rows = Mapping[str, Sequence[Sequence[str]]]  # by their first word


def commands(wanted: bool) -> dict[str, Sequence[str]]:
    """Every probe's argv by name; none when nothing is wanted."""
    if not wanted:
        return {}
    sh = ("sh", "-c")
    return {
        "pci": [*sh, _DEVICES],
        "pci-config": [*sh, _CONFIG],
        "pci-names": [*sh, _NAMES],
        "disk-links": ["find", "/dev/disk", "-type", "l", "-printf", r"%p\t%l\n"],
        "held": [*sh, 'for f in "$1"/*.json; do [ -e "$f" ] && cat "$f" && echo; done; :', "sh",
                 DEVICE_NOTES],
    }


# The session is that of the nearest process above that knows one: sudo and our own choice of environment take it out.
SESSION = r"""
session=$SSH_CONNECTION
if [ -z "$session" ]; then
  up=$PPID
  set --
  while [ "${up:-0}" -gt 1 ]; do
    set -- "$@" "/proc/$up/environ"
    next=
    while read -r key value; do [ "$key" != PPid: ] || next=$value; done <"/proc/$up/status"
    up=$next
  done
  session=$(grep -ahsz '^SSH_CONNECTION=' "$@" | tr '\0\n' '\n ' | head -n 1)
fi
printf 'session\t%s\n' "${session#SSH_CONNECTION=}"
"""

# Almost only words of the shell itself, so few processes whatever the number of devices. Where a link in sysfs leads is
# where one is after `cd -P`. A disk or an interface is on the last PCI device of its path. An NVMe drive that could
# have several paths is below none: there its controllers are told. The session is that of the nearest process above
# that knows one: sudo and our own choice of environment take it out.
_DEVICES = r"""
for dir in /sys/bus/pci/devices/*; do
  vendor= device= class= node= driver= group= serial=
  read -r vendor <"$dir/vendor" && read -r device <"$dir/device" && read -r class <"$dir/class" || continue
  [ ! -r "$dir/numa_node" ] || read -r node <"$dir/numa_node"
  cd -P "$dir/driver" && driver=${PWD##*/}
  cd -P "$dir/iommu_group" && group=${PWD##*/}
  for file in "$dir"/nvme/*/serial; do [ ! -r "$file" ] || read -r serial <"$file"; done
  printf 'device\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${dir##*/}" "$vendor" "$device" "$class" "$driver" "$node" \
    "$group" "$serial"
done
for dir in /sys/block/*; do
  [ -e "$dir/dev" ] && cd -P "$dir/device" || continue
  printf 'block\t%s\t%s\n' "${dir##*/}" "$PWD"
  for path in "$PWD"/nvme*; do
    [ ! -L "$path" ] || { cd -P "$path" && printf 'block\t%s\t%s\n' "${dir##*/}" "$PWD"; }
  done
done
for link in /sys/fs/btrfs/*/devices/*; do [ ! -L "$link" ] || printf 'btrfs\t%s\n' "${link##*/}"; done
for dir in /sys/class/net/*; do
  path= lower=
  cd -P "$dir/device" && path=$PWD
  for link in "$dir"/lower_*; do [ ! -L "$link" ] || lower="$lower ${link##*/lower_}"; done
  printf 'net\t%s\t%s\t%s\n' "${dir##*/}" "$path" "$lower"
done
[ ! -d /sys/kernel/iommu_groups/0 ] || printf 'groups\n'
for table in DMAR IVRS; do [ ! -e "/sys/firmware/acpi/tables/$table" ] || printf 'table\t%s\n' "$table"; done
read -r line </proc/cmdline; printf 'cmdline\t%s\n' "$line"
while read -r line; do printf 'route\t%s\n' "$line"; done </proc/net/route
while read -r line; do printf 'route6\t%s\n' "$line"; done </proc/net/ipv6_route
findmnt --fstab --evaluate --noheadings --raw --output SOURCE,TARGET,OPTIONS 2>/dev/null |
  while read -r source target options; do printf 'fstab\t%s\t%s\t%s\n' "$source" "$target" "$options"; done
if [ -r ASIDE ]; then while read -r line; do printf 'aside\t%s\n' "$line"; done <ASIDE; fi
""".replace("ASIDE", ASIDE_RECORD) + SESSION

# The whole configuration space of everything but bridges, system devices and performance counters: only root is given
# more than the first 64 bytes. Most of it is zeros, and od leaves out the lines that are like the one before.
_CONFIG = r"""
set --
for dir in /sys/bus/pci/devices/*; do
  read -r class <"$dir/class" || continue
  case $class in 0x06* | 0x08* | 0x1101*) ;; *) set -- "$@" "$dir/config" ;; esac
done
[ $# = 0 ] || head -v -c 4096 "$@" | od -A x -t x1
"""

_NAMES = r"""
grep -Hs '^E:ID_\(VENDOR\|MODEL\)_FROM_DATABASE=' /run/udev/data/+pci:* && exit
wanted=
for dir in /sys/bus/pci/devices/*; do
  read -r vendor <"$dir/vendor" && read -r device <"$dir/device" && wanted="$wanted ${vendor#0x}:${device#0x} "
done
for file in /usr/share/misc/pci.ids /usr/share/hwdata/pci.ids; do
  [ ! -r "$file" ] || exec awk -v wanted="$wanted" '
    /^[0-9a-f]/ { vendor = $1; if (index(wanted, " " vendor ":")) print }
    /^\t[0-9a-f]/ { if (index(wanted, " " vendor ":" $1 " ")) print }' "$file"
done
:
"""


@dataclass(frozen=True)
class Seen:
    """What the first of the probes tells. Disks and interfaces by the PCI device that they are on."""

    devices: tuple[DeviceFacts, ...]
    iommu: IommuFacts
    lower: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # interfaces that one stands on, by its name
    routes: tuple[str, ...] = ()  # interfaces that a default route goes by
    btrfs: tuple[str, ...] = ()  # paths of the devices of mounted btrfs
    session: str | None = None  # the host's address that the ssh session came to
    fstab: tuple[tuple[str, str], ...] = ()  # devices that the boot waits for, and where they are to be mounted
    not_aside: tuple[tuple[str, str], ...] = ()  # names of devices that were not set aside at boot, and why


def parse(text: str, serials: Mapping[str, str], names: str = "") -> Seen:
    """Devices in the order of their addresses, from the first of the probes above. Raises ValueError.

    `serials` are those of PCIe by address, `names` what the probe of the names has said.
    """
    rows: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        kind, *values = line.split("\t")
        rows.setdefault(kind, []).append(values)
    if "session" not in rows:
        raise ValueError("it ended too early")
    return Seen(
        devices=tuple(_devices(rows, parse_names(names), serials)),
        iommu=_iommu(rows),
        lower={name: tuple(lower.split()) for name, _, lower in rows.get("net", ())},
        routes=tuple(dict.fromkeys(_default_routes(rows))),
        btrfs=tuple(_path(row[0]) for row in rows.get("btrfs", ())),
        session=session_address(" ".join(rows["session"][0])),
        fstab=tuple((row[0], row[1]) for row in rows.get("fstab", ()) if len(row) == 3
                    and not {"nofail", "noauto"} & set(row[2].split(","))),
        not_aside=tuple((words[1], words[2]) for row in rows.get("aside", ())
                        if len(words := row[0].split(maxsplit=2)) == 3 and words[0] == "not"),
    )


def session_address(text: str) -> str | None:
    """The host's address in the value of SSH_CONNECTION (ssh(1)); None for any other text."""
    words = text.split()
    return words[2].partition("%")[0] if len(words) == 4 else None


def _path(name: str) -> str:
    """The path of a block device by its name in sysfs, where ! stands for a slash."""
    return f"/dev/{name.replace('!', '/')}"


def _iommu(rows: _Rows) -> IommuFacts:
    arguments = (word for row in rows.get("cmdline", ()) for word in " ".join(row).split())
    return IommuFacts("groups" in rows, next((row[0] for row in rows.get("table", ())), None),
                      tuple(word for word in arguments if _ARGUMENT.search(word)))


def _devices(rows: _Rows, names: Mapping[str, str], serials: Mapping[str, str]) -> Iterator[DeviceFacts]:
    blocks = _carried((_path(name), path) for name, path in rows.get("block", ()))
    links = _carried((name, path) for name, path, _ in rows.get("net", ()))
    aside = {words[1]: words[2:] for row in rows.get("aside", ())
             if len(words := row[0].split(maxsplit=3)) == 4 and words[0] == "aside"}
    groups: dict[int | None, list[str]] = {}
    found = sorted((_device(row, names) for row in rows.get("device", ())), key=lambda device: _order(device.address))
    for device in found:
        if device.group is not None:
            groups.setdefault(device.group, []).append(device.address)
    for device in found:
        pcie = serials.get(device.address)
        yield replace(
            device,
            peers=tuple(other for other in groups.get(device.group, ()) if other != device.address),
            # An NVMe drive's serial is its own: the one of PCIe is another number, and often none.
            serial=device.serial or (_read_at_boot(device, aside) if device.kind.startswith(_NVME) else pcie),
            pcie_serial=pcie,
            blocks=blocks.get(device.address, ()),
            links=links.get(device.address, ()),
            former=_former(device, aside),
        )


def _read_at_boot(device: DeviceFacts, aside: Mapping[str, Sequence[str]]) -> str | None:
    """The serial that a drive's own driver told before the drive was set aside for VMs."""
    return aside[device.address][1] if device.driver == "vfio-pci" and device.address in aside else None


def _former(device: DeviceFacts, aside: Mapping[str, Sequence[str]]) -> str | None:
    driver = aside.get(device.address, ("-",))[0]
    return None if driver == "-" else driver


def _order(address: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in re.split(r"[:.]", address))


def _device(row: Sequence[str], names: Mapping[str, str]) -> DeviceFacts:
    address, vendor, device, kind, driver, node, group, serial = row
    ids = f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}"
    return DeviceFacts(
        address=address,
        ids=ids,
        kind=kind.removeprefix("0x"),
        name=names.get(address, names.get(ids, "")),
        driver=driver or None,
        numa_node=int(node) if node.isdigit() else None,  # -1: the firmware does not say
        group=int(group) if group else None,
        serial=serial.strip() or None,
    )


def _carried(paths: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Names by the PCI device that their path in sysfs is below."""
    found: dict[str, dict[str, None]] = {}
    for name, path in paths:
        above = [part for part in path.split("/") if _PATH_PART.fullmatch(part)]
        if above:
            found.setdefault(above[-1], {})[name] = None
    return {address: tuple(names) for address, names in found.items()}


def _default_routes(rows: _Rows) -> Iterator[str]:
    """Interfaces of default routes, from /proc/net/route (destination 1, mask 7) and ipv6_route (0, length 1, name 9).

    Of IPv6 the kernel also tells a default route that rejects, on lo.
    """
    for row in rows.get("route", ()):
        words = " ".join(row).split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            yield words[0]
    for row in rows.get("route6", ()):
        words = " ".join(row).split()
        if len(words) > 9 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
            yield words[9]


# -- names and serials ------------------------------------------------------------------------------------------------

def parse_names(text: str) -> dict[str, str]:
    """Names by address (udev's) or by ids (those of pci.ids)."""
    found: dict[str, list[str]] = {}
    vendor, vendor_name = "", ""
    for line in text.splitlines():
        if line.startswith("/"):
            head, _, name = line.partition("=")
            found.setdefault(head.partition("+pci:")[2].partition(":E:")[0], ["", ""])["VENDOR" not in head] = name
        elif line.startswith("\t"):
            device, _, name = line.strip().partition("  ")
            found[f"{vendor}:{device}"] = [vendor_name, name]
        else:
            vendor, _, vendor_name = line.partition("  ")
    return {key: " ".join(filter(None, words)) for key, words in found.items()}


def parse_serials(text: str) -> dict[str, str]:
    """Serial numbers of PCIe devices by address, from the configuration spaces as od shows them; as lspci writes them.

    Raises ValueError.
    """
    parts = _HEAD.split(_undumped(text))[1:]
    found = ((address.decode(), pcie_serial(space)) for address, space in zip(parts[::2], parts[1::2], strict=True))
    return {address: serial for address, serial in found if serial}


def _undumped(text: str) -> bytes:
    """The bytes that od -A x -t x1 shows; a line with * stands for as many like the one before as fit."""
    made, last, repeat = bytearray(), b"", False
    for line in text.splitlines():
        if line == "*":
            repeat = True
        elif words := line.split():
            missing = int(words[0], 16) - len(made)
            if repeat and last:
                made += last * (missing // len(last))
            last, repeat = bytes.fromhex("".join(words[1:])), False
            made += last
    return bytes(made)


def pcie_serial(space: bytes) -> str | None:
    """The Device Serial Number in a configuration space, like 90-e2-ba-ff-ff-01-02-03.

    None where there is none, where it is all zeros or ones as with many drives, and where only the first part of the
    space could be read.
    """
    place, seen = _EXTENDED, set[int]()
    while _EXTENDED <= place <= len(space) - 4 and place not in seen:
        seen.add(place)
        header = int.from_bytes(space[place:place + 4], "little")
        if header & 0xFFFF == _DSN and place + 12 <= len(space):
            number = space[place + 4:place + 12]
            return None if set(number) in ({0}, {0xFF}) else number[::-1].hex("-")
        place = header >> 20 & 0xFFC
    return None


# -- our notes --------------------------------------------------------------------------------------------------------

def parse_notes(text: str) -> tuple[HeldFacts, ...]:
    """Notes about devices, one JSON object a line. One that is torn or strange is none."""
    rows = (_note(line) for line in text.splitlines() if line.strip())
    return tuple(row for row in rows if row)


def _note(line: str) -> HeldFacts | None:
    try:
        row = json.loads(line)
        words, state = (row["address"], row["serial"], row["cloud"], row["vm"]), Held(row["state"])
        driver = row.get("driver")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    address, serial, cloud, vm = words
    if not all(isinstance(word, str) for word in (address, cloud, vm)):
        return None
    return HeldFacts(address, serial if isinstance(serial, str) else None, cloud, vm, state,
                     driver if isinstance(driver, str) else None)
