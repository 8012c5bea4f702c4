"""The shape of a rack: what a file may say, and each mistake with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmwright.errors import SpecError, UsageError
from vmwright.rack.shape import REFERENCE, Cable, Disk, Drive, Nic, from_data, load, read, to_data
from vmwright.units import GIB


def complaints(text: str) -> list[str]:
    """What is wrong with a file, as a person reads it."""
    with pytest.raises(SpecError) as caught:
        read("shape.yaml", text.encode())
    return [str(problem) for problem in caught.value.problems]


def test_the_reference_shape() -> None:
    assert (REFERENCE.sockets, REFERENCE.cores, REFERENCE.threads, REFERENCE.cpus) == (2, 2, 2, 8)
    assert REFERENCE.memory == (4 * GIB, 4 * GIB)
    assert [(drive.serial, drive.node) for drive in REFERENCE.nvme] == [("PM9A1-1", 0), ("PM9A1-2", 0), ("PM9A1-3", 1)]
    assert {drive.size for drive in REFERENCE.nvme} == {2 * GIB}
    assert [(nic.name, nic.network.value, nic.functions) for nic in REFERENCE.nics] == [
        ("eno1", "outside", 1), ("eno2", "private", 1), ("ens1", "none", 4)]
    assert REFERENCE.describe() == "2 x 2 cores x 2 threads, 4G+4G memory, 3 NVMe, 1 SATA, 3 NICs"


@pytest.mark.parametrize("text", ["", "# nothing\n", "sockets: 2\n"])
def test_what_a_file_leaves_out_is_the_reference(text: str) -> None:
    assert read("shape.yaml", text.encode()) == REFERENCE


def test_a_file_changes_the_shape() -> None:
    made = read("shape.yaml", b"""\
sockets: 4
cores: 1
threads: 1
memory: [1G, 2G, 1G, 512M]
nvme: [{serial: A, size: 1G, node: 3}, B, 907202]
disks: [40G, {size: 8G, serial: OLD}]
nics: [{name: eth0, network: outside}, {name: ens2, functions: 2, node: 1, mac: 52:54:00:00:00:01}]
iommu: false
""")
    assert REFERENCE.iommu and not made.iommu
    assert (made.cpus, [size // (GIB // 2) for size in made.memory]) == (4, [2, 4, 2, 1])
    assert made.nvme == (Drive("A", GIB, 3), Drive("B", 2 * GIB, 0), Drive("907202", 2 * GIB, 0))
    assert made.disks == (Disk("SSD-1", 40 * GIB), Disk("OLD", 8 * GIB))
    assert made.nics == (Nic("eth0", Cable.OUTSIDE), Nic("ens2", Cable.NONE, "52:54:00:00:00:01", 2, 1))


def test_one_size_is_for_every_node_and_drives_stay_on_nodes_that_there_are() -> None:
    made = read("shape.yaml", b"sockets: 1\nmemory: 1G\n")
    assert made.memory == (GIB,)
    assert {drive.node for drive in made.nvme} == {0}


@pytest.mark.parametrize(("text", "said"), [
    ("socket: 2\n", "shape.yaml:1:1: socket: unknown key\n    did you mean sockets?"),
    ("sockets: two\n", "shape.yaml:1:10: sockets: a whole number is needed, not the text 'two'"),
    ("sockets: 0\n", "shape.yaml:1:10: sockets: 0 is out of range: it must be at least 1"),
    ("cores: 2\nmemory: 4GB\n", "shape.yaml:2:9: memory: 4GB has two meanings\n    write 4G for 4GiB (2^30); decimal "
                                "units (10^9) are not used here"),
    ("memory: [1G, 1G, 1G]\n", "shape.yaml:1:9: memory: 3 sizes for 2 sockets\n"
                               "    give one size for each socket, or one for all"),
    ("memory: 100M\n", "shape.yaml:1:9: memory: 100M is too little for a node\n    give it 512M or more"),
    ("nvme: [{size: 1G}]\n", "shape.yaml:1:8: nvme.0: serial is missing\n    add serial: to it"),
    ("nvme: [{serial: a, nodes: 1}]\n", "shape.yaml:1:20: nvme.0.nodes: unknown key\n    did you mean node?"),
    ("nvme: ['a b']\n", "shape.yaml:1:8: nvme.0: 'a b' has characters that are not allowed here"),
    ("nvme: [{serial: a, node: 2}]\n", "shape.yaml:1:26: nvme.0.node: there is no node 2\n"
                                       "    the nodes are 0 to 1: one per socket"),
    ("nvme: [a, a]\n", "shape.yaml:1:7: nvme: serial number a is given twice\n    give each drive its own"),
    ("disks: [10G]\n", "shape.yaml:1:9: disks.0: 10G is too small for the system\n    give the first disk 20G or more"),
    ("disks: []\n", "shape.yaml:1:8: disks: 0 SATA disks: a rack has 1 to 6"),
    ("nics: []\n", "shape.yaml:1:7: nics: 0 NICs are plugged in outside: exactly one must be\n"
                   "    write network: outside with the NIC that ssh comes in by"),
    ("nics: [{name: eno1, network: inside}]\n",
     "shape.yaml:1:30: nics.0.network: 'inside' is not one of outside, private, none\n    did you mean outside?"),
    ("nics: [{name: a, network: outside}, {name: b, network: private, functions: 2}]\n",
     "shape.yaml:1:56: nics.1.network: a card with several functions is not plugged in anywhere\n"
     "    leave network: out"),
    ("nics: [{name: a, network: outside}, {name: a}]\n",
     "shape.yaml:1:7: nics: name a is given twice\n    give each NIC its own"),
    ("sockets: 8\ncores: 32\n", "shape.yaml:1:1: 512 CPUs are too many for a rack\n"
                                "    take 64 at most: sockets x cores x threads"),
    ("- 1\n", "shape.yaml:1:1: the file is a list, not keys and values\n    write KEY: VALUE, like sockets: 1"),
    ("a: [\n", "shape.yaml:2:1: not valid YAML: the file ends inside a bracket\n    close it with ] or }"),
])  # fmt: skip
def test_mistakes_have_their_place(text: str, said: str) -> None:
    assert complaints(text) == [said]


def test_all_mistakes_are_told_in_file_order() -> None:
    assert [line.partition(": ")[0] for line in complaints("cores: x\nsockets: 0\nthreads: 3\n")] == [
        "shape.yaml:1:8", "shape.yaml:2:10", "shape.yaml:3:10"]


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError) as caught:
        load("nowhere.yaml")
    assert str(caught.value) == (
        "cannot read nowhere.yaml: No such file or directory\n  do:  name the rack's shape file: --shape FILE")


def test_a_shape_is_kept_as_json(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("nics: [{name: e, network: outside}]\nnvme: [X]\n")
    for shape in (REFERENCE, load(file)):
        assert from_data(json.loads(json.dumps(to_data(shape)))) == shape
