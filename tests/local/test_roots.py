"""A Debian template whose root is XFS, on real libvirt: built, booted by UEFI, grown at the first boot and again later.

ext4, which most templates have, is in test_guests.py. One guest serves both tests, because each boot takes its time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.local.kit import Kit, kit

from vmwright.guest.agent import Agent, must
from vmwright.virt.connect import Connection

GIB = 1 << 30


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """One VM, whose disk is larger than its template's."""
    with kit(tmp_path_factory.mktemp("roots")) as made:
        made.write(template="  debian: {build: debian, filesystem: xfs, disk: 2G}\n",
                   vms=f"  {made.name}: {{template: debian, memory: 512M, disk: 4G, address: {made.subnet}.11}}\n")
        print(made.ok("apply", "-y", timeout=1500).out)
        yield made


def inside(vm: str, script: str) -> list[str]:
    """The words that a script says in a guest, through its agent, as root."""
    with Connection("qemu:///system", "here") as virt:
        return must(Agent(virt.agent(vm)), ["sh", "-c", script], timeout=240).split()


def test_an_xfs_root_boots_by_uefi_and_has_grown_with_its_disk(cloud: Kit) -> None:
    row = cloud.status()[cloud.name]
    assert (row["state"], row["health"], row["drift"]) == ("running", "ok", "-")
    script = "findmnt -no FSTYPE /; ls -d /sys/firmware/efi; df --output=size -B1 / | tail -1"
    filesystem, firmware, size = inside(cloud.name, script)
    assert (filesystem, firmware) == ("xfs", "/sys/firmware/efi")
    assert int(size) > 3.5 * GIB


def test_an_xfs_root_grows_online(cloud: Kit) -> None:
    look = "cat /proc/sys/kernel/random/boot_id; df --output=size -B1 / | tail -1"
    boot, before = inside(cloud.name, look)
    said = cloud.ok("set", f"vms.{cloud.name}.disk=5G", "--apply", "-y")
    assert "growing xfs on /" in said.out
    again, after = inside(cloud.name, look)
    assert again == boot, "it was restarted"
    assert int(after) - int(before) > 0.9 * GIB, said.out
