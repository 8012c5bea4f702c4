"""Two racks beside each other, plain servers of a small shape: they reach each other, and a larger disk is used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.rack import kit
from tests.rack.kit import sh

from vmwright.rack import process, record, shape
from vmwright.rack.contents import Image
from vmwright.rack.record import Record

SMALL = b"""\
sockets: 1
cores: 2
threads: 1
memory: 1G
nvme: []
disks: [40G, 1G]
nics: [{name: eno1, network: outside}, {name: eno2, network: private}]
iommu: false
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Record, Record]]:
    """Both are up."""
    wish = process.Wish(shape.read("small.yaml", SMALL), Image.BARE)
    yield kit.up("one", wish), kit.up("two", wish)
    for name in ("one", "two"):
        process.down(name, force=True, seconds=0, remove=True)


def test_they_reach_each_other_over_their_private_network(pair: tuple[Record, Record]) -> None:
    one, two = pair
    assert len({one.port, two.port}) == len({one.address, two.address}) == 2
    for here, there in (pair, pair[::-1]):
        target = there.address.partition("/")[0]
        assert "3 received" in sh(here, f"ping -c 3 -W 20 -I eno2 {target}")
        assert f"{target} dev eno2 lladdr" in sh(here, "ip -4 neigh show dev eno2 | sed 's/ lladdr/ dev eno2 lladdr/'")


def test_the_shape_is_the_files(pair: tuple[Record, Record]) -> None:
    assert sh(pair[0], "nproc; ls -d /sys/devices/system/node/node? | wc -l").split() == ["2", "1"]
    said = sh(pair[0], "lsblk --bytes --list --noheadings --output TYPE,SIZE,PARTLABEL /dev/sda /dev/sdb").splitlines()
    disks = [int(line.split()[1]) for line in said if line.startswith("disk ")]
    assert sorted(disks) == [1 << 30, 40 << 30], "which of them is sda is the kernel's choice at each boot"
    (rest,) = (int(line.split()[1]) for line in said if line.endswith(" lvm"))
    assert rest > 31 << 30


def test_the_bare_image_is_a_plain_server(pair: tuple[Record, Record]) -> None:
    assert sh(pair[0], "command -v virsh qemu-system-x86_64 lvm || echo none") == "none"
    assert "intel_iommu" not in sh(pair[0], "cat /proc/cmdline")
    assert sh(pair[0], "ls /sys/kernel/iommu_groups | wc -l") == "0"
    assert sh(pair[0], "python3 -c 'print(1)'; sudo -n id -u; ip -br link show type bridge | wc -l").split() == [
        "1", "0", "0"]


def test_one_is_looked_for_by_name(pair: tuple[Record, Record]) -> None:
    said = kit.cli("ssh", "on")
    assert (said.returncode, said.stderr) == (
        64, "error: there is no rack on\n  do:  did you mean one?\n       make it: vmwright rack up on\n")
    assert [rack.name for rack in record.everyone() if process.is_up(rack)] == ["one", "two"]
