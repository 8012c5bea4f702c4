"""What a rack is made of: sockets, memory of each node, drives, disks and NICs; and the YAML file that says so.

The default is the reference shape: two sockets with hyper-threads, two NUMA nodes (one per socket), two NVMe drives on
node 0 and one on node 1, a SATA disk, a NIC to the outside, one to other racks, and a card with four ports that share
an IOMMU group. A file that says nothing of something gets the reference's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vmwright.errors import Problem, SpecError, UsageError, Where
from vmwright.rack.contents import DISK_SIZE
from vmwright.spec import values as v
from vmwright.spec.explain import path_in, sentence, unknown_key
from vmwright.spec.findings import dotted
from vmwright.spec.yaml import Document, KeyPath, Mark, parse
from vmwright.units import GIB, MIB, format_size

MOST_CPUS = 64
_LEAST_MEMORY = 512 * MIB
_SERIAL = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,19}$"  # NVMe and SATA have 20 characters for it


class Cable(StrEnum):
    """Where a NIC is plugged in."""

    OUTSIDE = "outside"  # NAT: this machine's network; ssh comes in here
    PRIVATE = "private"  # a network that this machine's racks share, and nobody else
    NONE = "none"


@dataclass(frozen=True)
class Drive:
    """An NVMe drive on a NUMA node, alone in its IOMMU group."""

    serial: str
    size: int = 2 * GIB
    node: int = 0


@dataclass(frozen=True)
class Disk:
    """A SATA disk. The first one is the system's."""

    serial: str
    size: int


@dataclass(frozen=True)
class Nic:
    """A NIC. With several functions it is one card with as many ports, all in one IOMMU group: NAMEf0, NAMEf1, ..."""

    name: str
    network: Cable = Cable.NONE
    mac: str | None = None  # None: derived from the rack's name
    functions: int = 1
    node: int = 0


@dataclass(frozen=True)
class Shape:
    """A rack's hardware. One NUMA node per socket; `memory` has the bytes of each node. `iommu`: whether it has one."""

    sockets: int
    cores: int
    threads: int
    memory: tuple[int, ...]
    nvme: tuple[Drive, ...]
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    iommu: bool = True

    @property
    def cpus(self) -> int:
        """CPUs in all."""
        return self.sockets * self.cores * self.threads

    def describe(self) -> str:
        """The shape in one line."""
        memory = "+".join(format_size(size) for size in self.memory)
        return (f"{self.sockets} x {self.cores} cores x {self.threads} threads, {memory} memory, "
                f"{len(self.nvme)} NVMe, {len(self.disks)} SATA, {len(self.nics)} NICs")


REFERENCE = Shape(
    sockets=2, cores=2, threads=2, memory=(4 * GIB, 4 * GIB),
    nvme=(Drive("PM9A1-1"), Drive("PM9A1-2"), Drive("PM9A1-3", node=1)),
    disks=(Disk("SSD-1", DISK_SIZE),),
    nics=(Nic("eno1", Cable.OUTSIDE, "94:57:a5:5a:d9:c0"), Nic("eno2", Cable.PRIVATE), Nic("ens1", functions=4)),
)  # fmt: skip


# ---- the file ----


def _serial_only(value: object) -> object:
    return {"serial": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


def _size_only(value: object) -> object:
    return {"size": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, defer_build=True)


_Node = Annotated[v.Int, Field(ge=0)]
_Serial = Annotated[str, Field(pattern=_SERIAL)]


class DriveIn(_Base):
    """An NVMe drive."""

    serial: _Serial = Field(description="Its serial number, at most 20 letters, digits, . _ -")
    size: v.Size = Field(default=2 * GIB, description="Its size. Default: 2G.")
    node: _Node = Field(default=0, description="The NUMA node that it is on. Default: 0.")


class DiskIn(_Base):
    """A SATA disk. The first one is the system's, of at least 20G: what is beyond is in its LVM partition."""

    size: v.Size = Field(default=DISK_SIZE, description="Its size. Default: 20G.")
    serial: _Serial | None = Field(default=None, description="Its serial number. Default: SSD-1, SSD-2, ...")


class NicIn(_Base):
    """A NIC, or a card with several ports."""

    name: v.Device = Field(description="Its name in the rack, like eno1. With functions: NAMEf0, NAMEf1, ...")
    network: Cable = Field(default=Cable.NONE, description=(
        "outside (ssh comes in here, and the rack gets out; exactly one NIC), private (shared with your other racks on "
        "this machine) or none. Default: none."))
    mac: v.Mac | None = Field(default=None, description="Its MAC address. Default: derived from the rack's name.")
    functions: Annotated[v.Int, Field(ge=1, le=8)] = Field(
        default=1, description="Ports of the card; all are in one IOMMU group. Default: 1.")
    node: _Node = Field(default=0, description="The NUMA node of a card with several ports. Default: 0.")


class ShapeIn(_Base):
    """The shape of a rack. A key that is left out is the reference's."""

    sockets: Annotated[v.Int, Field(ge=1, le=8)] = Field(
        default=REFERENCE.sockets, description="Sockets; each is a NUMA node. Default: 2.")
    cores: Annotated[v.Int, Field(ge=1, le=32)] = Field(
        default=REFERENCE.cores, description="Cores of each socket. Default: 2.")
    threads: Annotated[v.Int, Field(ge=1, le=2)] = Field(
        default=REFERENCE.threads, description="Threads of each core. Default: 2.")
    memory: Annotated[list[v.Size], BeforeValidator(_listed)] = Field(
        default=[4 * GIB], description="Memory of each node; or a list, one size for each. Default: 4G.")
    nvme: list[Annotated[DriveIn, BeforeValidator(_serial_only)]] | None = Field(
        default=None, description="NVMe drives, each {serial, size, node} or a serial number. Default: PM9A1-1 and "
                                  "PM9A1-2 on node 0, PM9A1-3 on the last node.")
    disks: list[Annotated[DiskIn, BeforeValidator(_size_only)]] | None = Field(
        default=None, description="SATA disks, each {size, serial} or a size. Default: one of 20G.")
    nics: list[NicIn] | None = Field(
        default=None, description="NICs. Default: eno1 outside, eno2 private, and the card ens1 with 4 functions.")
    iommu: v.Bool = Field(
        default=True, description="Whether it has an IOMMU; false is a server whose firmware has it switched off. "
                                  "Default: true.")


def load(file: str | Path) -> Shape:
    """The shape in a file. Raises SpecError with every problem in it, UsageError when it cannot be read."""
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}",
                         todo="name the rack's shape file: --shape FILE") from None
    return read(str(file), content)


def read(file: str, content: bytes) -> Shape:
    """The shape in the text of a file; `file` is how errors name it. Raises SpecError."""
    document = parse(file, content)
    if document.root is None and document.problems[0].what == "the file is empty":
        return REFERENCE
    problems = [_own_words(problem) for problem in document.problems]
    if not problems:
        try:
            given = ShapeIn.model_validate(document.data)
        except ValidationError as error:
            problems = [_problem(document, detail) for detail in error.errors(include_url=False)]
        else:
            made = _resolve(given)
            problems = [_at(document, path, what, todo) for path, what, todo in _check(made)]
            if not problems:
                return made
    raise SpecError(sorted(dict.fromkeys(problems), key=lambda problem: (problem.where is not None, problem.where)))


def _own_words(problem: Problem) -> Problem:
    if "cloud:" not in problem.todo:
        return problem
    return Problem(problem.what, "write KEY: VALUE, like sockets: 1", problem.where)


def _problem(document: Document, detail: Any) -> Problem:
    loc = detail["loc"]
    path = path_in(document.data, loc)
    if detail["type"] == "missing":
        return _at(document, path, f"{loc[-1]} is missing", f"add {loc[-1]}: to it")
    if detail["type"] == "extra_forbidden":
        return _at(document, path, *unknown_key(loc, ShapeIn), key=True)
    return _at(document, path, *sentence(detail))


def _at(document: Document, path: KeyPath, what: str, todo: str, *, key: bool = False) -> Problem:
    """A problem at the nearest place that the file has."""
    start = Where(document.file, 1, 1)
    marks = (document.marks.get(path[:length]) for length in range(len(path), 0, -1))
    mark = next((found for found in marks if found), Mark(start, start))
    subject = f"{dotted(path)}: " if path else ""
    return Problem(f"{subject}{what}", todo, mark.key if key or path not in document.marks else mark.value)


def _resolve(given: ShapeIn) -> Shape:
    memory = tuple(given.memory) * (given.sockets if len(given.memory) == 1 else 1)
    last = given.sockets - 1
    nvme = REFERENCE.nvme if given.nvme is None else tuple(Drive(d.serial, d.size, d.node) for d in given.nvme)
    if given.nvme is None:
        nvme = tuple(Drive(d.serial, d.size, min(d.node, last)) for d in nvme)
    disks = REFERENCE.disks if given.disks is None else tuple(
        Disk(d.serial or f"SSD-{number}", d.size) for number, d in enumerate(given.disks, 1))
    nics = REFERENCE.nics if given.nics is None else tuple(
        Nic(n.name, n.network, n.mac, n.functions, n.node) for n in given.nics)
    return Shape(given.sockets, given.cores, given.threads, memory, nvme, disks, nics, given.iommu)


_Found = list[tuple[KeyPath, str, str]]


def _check(shape: Shape) -> _Found:
    """What several keys say together and that cannot be: path, what, what to do."""
    found: _Found = []
    if shape.cpus > MOST_CPUS:
        found.append(((), f"{shape.cpus} CPUs are too many for a rack",
                      f"take {MOST_CPUS} at most: sockets x cores x threads"))
    if len(shape.memory) != shape.sockets:
        found.append((("memory",), f"{len(shape.memory)} sizes for {shape.sockets} sockets",
                      "give one size for each socket, or one for all"))
    least = f"give it {format_size(_LEAST_MEMORY)} or more"
    found += [(("memory",), f"{format_size(size)} is too little for a node", least)
              for size in shape.memory if size < _LEAST_MEMORY]
    return found + _check_disks(shape) + _check_nics(shape)


def _check_disks(shape: Shape) -> _Found:
    found: _Found = []
    if not 1 <= len(shape.disks) <= 6:
        found.append((("disks",), f"{len(shape.disks)} SATA disks: a rack has 1 to 6", ""))
    elif shape.disks[0].size < DISK_SIZE:
        found.append((("disks", 0), f"{format_size(shape.disks[0].size)} is too small for the system",
                      f"give the first disk {format_size(DISK_SIZE)} or more"))
    serials = Counter([*(d.serial for d in shape.nvme), *(d.serial for d in shape.disks)])
    found += [(("nvme",), f"serial number {serial} is given twice", "give each drive its own")
              for serial, times in serials.items() if times > 1]
    found += [(("nvme", n, "node"), *_no_node(drive.node, shape)) for n, drive in enumerate(shape.nvme)
              if drive.node >= shape.sockets]
    per_node = Counter(drive.node for drive in shape.nvme)
    found += [(("nvme",), f"{count} drives on node {node} are too many", "put 10 at most on a node")
              for node, count in per_node.items() if count > 10]
    return found


def _check_nics(shape: Shape) -> _Found:
    found: _Found = []
    outside = [nic.name for nic in shape.nics if nic.network is Cable.OUTSIDE]
    if len(outside) != 1:
        found.append((("nics",), f"{len(outside)} NICs are plugged in outside: exactly one must be",
                      "write network: outside with the NIC that ssh comes in by"))
    if len(shape.nics) > 8:
        found.append((("nics",), f"{len(shape.nics)} NICs are too many for a rack", "take 8 at most"))
    for n, nic in enumerate(shape.nics):
        if nic.functions > 1 and nic.network is not Cable.NONE:
            found.append((("nics", n, "network"), "a card with several functions is not plugged in anywhere",
                          "leave network: out"))
        if nic.node >= shape.sockets:
            found.append((("nics", n, "node"), *_no_node(nic.node, shape)))
    for key, values in (("name", [nic.name for nic in shape.nics]), ("mac", [nic.mac for nic in shape.nics])):
        found += [(("nics",), f"{key} {value} is given twice", "give each NIC its own")
                  for value, times in Counter(values).items() if value and times > 1]
    return found


def _no_node(node: int, shape: Shape) -> tuple[str, str]:
    many = f"the nodes are 0 to {shape.sockets - 1}: one per socket"
    return f"there is no node {node}", many if shape.sockets > 1 else "with one socket there is node 0 only"


# ---- kept with a rack ----


def to_data(shape: Shape) -> dict[str, Any]:
    """The shape as JSON holds it."""
    return asdict(shape)


def from_data(data: dict[str, Any]) -> Shape:
    """The shape that `to_data` gave."""
    nics = tuple(Nic(**(nic | {"network": Cable(nic["network"])})) for nic in data["nics"])
    return Shape(data["sockets"], data["cores"], data["threads"], tuple(data["memory"]),
                 tuple(Drive(**drive) for drive in data["nvme"]), tuple(Disk(**disk) for disk in data["disks"]), nics,
                 data.get("iommu", True))
