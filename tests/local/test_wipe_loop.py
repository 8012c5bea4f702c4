"""The commands that wipe a device, on loop devices; and a look at this machine's own PCI devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmwright.errors import HostError
from vmwright.host import pci
from vmwright.host.run import run

SIZE = 40 << 20
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make loop devices")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A disk with a file system on it, and a mark at its end."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    run(["mkfs.ext4", "-q", str(image)])
    with image.open("r+b") as file:
        file.seek(SIZE - 4)
        file.write(b"mark")
    device = run(["losetup", "--find", "--show", str(image)]).text
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


@needs_root
def test_a_disk_is_wiped_and_read(disk: str) -> None:
    found = run(pci.blank(disk, SIZE), check=False)
    assert found.code == 1 and found.text.startswith("at byte 0 it is not all zeros")
    told: list[str] = []
    run(pci.zero(disk), on_line=told.append)
    assert [pci.zeroed(line) for line in told if pci.zeroed(line) is not None] == [SIZE]
    assert run(pci.blank(disk, SIZE)).text == ""
    assert Path(disk).read_bytes().count(0) == SIZE


@needs_root
@pytest.mark.parametrize("place", [0, SIZE // 2 // (1 << 20) * (1 << 20), SIZE - 1])
def test_what_is_left_is_found(disk: str, place: int) -> None:
    """At both ends, and in a sample between; a place that no sample has is not seen, which is why zeros are written."""
    run(pci.zero(disk))
    with open(disk, "r+b") as file:
        file.seek(place)
        file.write(b"x")
    found = run(pci.blank(disk, SIZE), check=False)
    assert found.code == 1 and "it is not all zeros" in found.text


@needs_root
def test_a_disk_in_use_is_not_wiped(disk: str, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    run(["mount", disk, str(place)])
    try:
        with pytest.raises(HostError) as caught:
            run(pci.zero(disk))
        assert "busy" in caught.value.why
        assert (place / "lost+found").is_dir()
    finally:
        run(["umount", str(place)])


def test_samples_are_at_both_ends_and_in_between() -> None:
    places = pci.samples(1 << 40)
    assert places[0] == 0 and places[-1] == (1 << 40) - (1 << 20) and len(places) == 34
    assert all(place % (1 << 20) == 0 for place in places)
    assert pci.samples(1 << 20) == [0]


def test_each_pci_device_of_this_machine() -> None:
    """Its driver and its disks, as sysfs has them; one that is not there is told."""
    folder = Path("/sys/bus/pci/devices")
    carried = {path.name: os.path.realpath(path / "device") for path in Path("/sys/block").iterdir()}
    for device in folder.iterdir():
        found = pci.parse_look(run(pci.look(device.name)).text)
        driver = device / "driver"
        assert found.driver == (driver.resolve().name if driver.exists() else None)
        on = {f"/dev/{name}" for name, path in carried.items()
              if f"/{device.name}/" in f"{path}/" and int((Path("/sys/block") / name / "size").read_text())}
        assert {path for path, _ in found.disks} == on
        assert on <= {row.path for row in found.above}
    assert run(pci.look("ffff:ff:1f.7"), check=False).code == 3
