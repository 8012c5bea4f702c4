"""CPUs and NUMA nodes of a host: one grep over sysfs, and a pure parser of what it says.

The files are those of Documentation/ABI/stable/sysfs-devices-system-cpu and -node in the kernel's sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vmwright.facts.model import CpuFacts, HugepageFacts, NodeFacts
from vmwright.units import KIB, parse_cpuset, parse_size

# Of a CPU that is offline the kernel has no topology; a node without CPUs has an empty list.
_FILES = ("cpu/present cpu/online cpu/cpu[0-9]*/topology/physical_package_id cpu/cpu[0-9]*/topology/core_id "
          "cpu/cpu[0-9]*/topology/thread_siblings_list node/node[0-9]*/cpulist node/node[0-9]*/distance "
          "node/node[0-9]*/meminfo node/node[0-9]*/hugepages/*/nr_hugepages node/node[0-9]*/hugepages/*/free_hugepages")
_MOUNTS = "/proc/mounts"
_RECLAIMABLE = ("Active(file)", "Inactive(file)", "SReclaimable")
_LINES = ("^[0-9]", " hugetlbfs ", *(f" {name}:" for name in ("MemTotal", "MemFree", *_RECLAIMABLE)))
_Values = Mapping[str, str]


def command() -> Sequence[str]:
    """The probe's argv. It prints lines of FILE:TEXT, most files below /sys/devices/system."""
    patterns = " ".join(f"-e '{pattern}'" for pattern in _LINES)
    return ["sh", "-c", f"cd /sys/devices/system && exec grep -Hs {patterns} {_FILES} {_MOUNTS}"]


def parse(text: str) -> tuple[tuple[CpuFacts, ...], tuple[NodeFacts, ...]]:
    """CPUs and NUMA nodes by their numbers, from the probe above. Raises ValueError.

    A kernel that knows no NUMA has no nodes to tell of.
    """
    values: dict[str, str] = {}
    memory: dict[str, int] = {}
    mounts: list[str] = []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.endswith("/meminfo"):
            if len(words := value.split()) > 3:  # Node 0 MemFree: 12 kB
                memory[f"{name}:{words[2].rstrip(':')}"] = int(words[3]) * KIB
        elif name == _MOUNTS:
            mounts.append(value)
        else:
            values[name] = value.strip()
    if not values.get("cpu/present"):
        raise ValueError("it has no list of CPUs")
    mounted = frozenset(_mounted(mounts))
    numbers = _numbers(r"node/node(\d+)/.*", (*values, *memory))
    nodes = tuple(_node(number, values, memory, mounted) for number in numbers)
    return tuple(_cpus(values, nodes)), nodes


def _numbers(pattern: str, names: Iterable[str]) -> list[int]:
    return sorted({int(match[1]) for name in names if (match := re.fullmatch(pattern, name))})


def _cpus(values: _Values, nodes: Iterable[NodeFacts]) -> Iterable[CpuFacts]:
    node_of = {cpu: node.number for node in nodes for cpu in node.cpus}
    online = parse_cpuset(values.get("cpu/online") or values["cpu/present"])
    for cpu in parse_cpuset(values["cpu/present"]):
        place = f"cpu/cpu{cpu}/topology"
        siblings = _cpuset(values, f"{place}/thread_siblings_list")
        yield CpuFacts(
            number=cpu,
            node=node_of.get(cpu),
            socket=_number(values, f"{place}/physical_package_id"),
            core=_number(values, f"{place}/core_id"),
            siblings=tuple(other for other in siblings if other != cpu),
            online=cpu in online,
        )


def _mounted(lines: Iterable[str]) -> Iterator[int]:
    """The sizes of the pages of mounted hugetlbfs: hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0."""
    for line in lines:
        words = line.split()
        if len(words) > 3 and words[2] == "hugetlbfs":
            yield from (parse_size(word.partition("=")[2]) for word in words[3].split(",") if word[:9] == "pagesize=")


def _node(number: int, values: _Values, memory: Mapping[str, int], mounted: frozenset[int]) -> NodeFacts:
    place = f"node/node{number}"
    return NodeFacts(
        number=number,
        cpus=_cpuset(values, f"{place}/cpulist"),
        memory=memory.get(f"{place}/meminfo:MemTotal", 0),
        free=memory.get(f"{place}/meminfo:MemFree", 0),
        reclaimable=sum(memory.get(f"{place}/meminfo:{name}", 0) for name in _RECLAIMABLE),
        distances=tuple(int(word) for word in values.get(f"{place}/distance", "").split()),
        hugepages=tuple(_hugepages(place, size, values, mounted) for size in _numbers(
            rf"{place}/hugepages/hugepages-(\d+)kB/nr_hugepages", values)),
    )


def _hugepages(place: str, size: int, values: _Values, mounted: frozenset[int]) -> HugepageFacts:
    folder = f"{place}/hugepages/hugepages-{size}kB"
    return HugepageFacts(size * KIB, int(values[f"{folder}/nr_hugepages"]),
                         int(values.get(f"{folder}/free_hugepages", "0")), size * KIB in mounted)


def _number(values: _Values, name: str) -> int | None:
    """A number; None where there is none, or -1, the kernel's word for unknown."""
    return int(values[name]) if values.get(name, "").isdigit() else None


def _cpuset(values: _Values, name: str) -> tuple[int, ...]:
    return parse_cpuset(values[name]) if values.get(name) else ()
