"""What a look at a device says; and the lines of a wipe."""

from __future__ import annotations

import json

import pytest

from vmwright.host import pci
from vmwright.host.pci import Look, Standing

DISK = {"path": "/dev/nvme0n1", "type": "disk", "fstype": None, "mountpoint": None}


def told(*children: dict[str, object]) -> Look:
    """A drive on which these stand."""
    tree = json.dumps({"blockdevices": [{**DISK, "children": list(children)}]}, indent=3)
    return pci.parse_look(f"device\tnvme\tS1  \ndisk\t/dev/nvme0n1\t2147483648\n{tree}\n")


def test_a_drive_with_nothing_on_it() -> None:
    assert told() == Look("nvme", "S1", (("/dev/nvme0n1", 2 << 30),), (Standing("/dev/nvme0n1", "disk"),))
    assert (told().uses, told().members) == ((), ())


def test_a_device_that_no_driver_has() -> None:
    assert pci.parse_look("device\t\t\n") == Look()


def test_what_keeps_a_drive_from_being_given() -> None:
    part = {"path": "/dev/nvme0n1p1", "type": "part", "fstype": "ext4", "mountpoint": "/mnt"}
    swap = {"path": "/dev/nvme0n1p2", "type": "part", "fstype": "swap", "mountpoint": "[SWAP]"}
    raid = {"path": "/dev/md0", "type": "raid1", "fstype": None, "mountpoint": None}
    assert told(part, swap, raid).uses == ("/dev/nvme0n1p1 is mounted at /mnt", "/dev/nvme0n1p2 is swap space in use",
                                           "/dev/md0 (raid1) stands on it")


def test_volumes_that_are_active() -> None:
    """Only then do their physical volumes matter; one that is mounted is a use."""
    volume = {"path": "/dev/mapper/g-v", "type": "lvm", "fstype": None, "mountpoint": None}
    part = {"path": "/dev/nvme0n1p1", "type": "part", "fstype": "LVM2_member", "mountpoint": None}
    assert told(part).members == ()
    active = told({**part, "children": [volume]})
    assert (active.members, active.uses) == (("/dev/nvme0n1p1",), ())
    assert told({**part, "children": [{**volume, "mountpoint": "/x"}]}).uses == ("/dev/mapper/g-v is mounted at /x",)


@pytest.mark.parametrize("text", ["", "disk\t/dev/sda\t1\n", "device\tnvme\n", "device\tnvme\tS\n{\"blockdevices\":"])
def test_a_torn_answer_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        pci.parse_look(text)


@pytest.mark.parametrize(("line", "expected"), [
    ("zeroed 268435456 of 2147483648", 268435456), ("zeroed x of y", None), ("blkdiscard: failed", None), ("", None)])
def test_how_far_a_wipe_is(line: str, expected: int | None) -> None:
    assert pci.zeroed(line) == expected
