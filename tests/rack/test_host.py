"""What a host is from boot on: devices set aside before its drivers use them, huge pages; all of it taken off again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.rack import kit
from tests.rack.cloud import RackCloud

from vmwright.names import ASIDE_LIST, HUGE_PAGES
from vmwright.rack import process

POOL = "      images: {dir: /var/lib/libvirt/images}\n"
KEYS = """\
    devices:
      nvme-1: {serial: PM9A1-1}
      nvme-2: {serial: PM9A1-2}
    hugepages: {2M: [64, 0]}
"""
ADMIN = "/etc/default/grub.d/55-admin.cfg"
PAGES = "cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages"
ETC = ("find /etc -type f ! -name .pwd.lock -exec sha256sum {} + | sort -k 2; "
       "find /etc -type l -printf '%p %l\\n' | sort")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """One rack for all of these, in the order in which they stand."""
    made = RackCloud(kit.up("host"), tmp_path_factory.mktemp("cloud"))
    yield made
    process.down("host", force=True, seconds=0, remove=True)


def write(cloud: RackCloud, keys: str) -> None:
    """The file, with these keys for the host."""
    cloud.write(POOL)
    file = cloud.folder / "cloud.yaml"
    file.write_text(file.read_text().replace("    pools:\n", f"{keys}    pools:\n"))


def drivers(cloud: RackCloud) -> dict[str, str]:
    """The driver of each drive that `facts` knows the serial of."""
    (host,) = json.loads(cloud.ok("facts", "--json", "--devices"))["hosts"]
    return {row["serial"]: row["driver"] for row in host["devices"] if (row["serial"] or "").startswith("PM9A1")}


@pytest.fixture(scope="module")
def etc(cloud: RackCloud) -> str:
    """/etc as it was before the first apply."""
    return cloud.sh(ETC)


def test_the_host_is_told_now_and_for_its_next_boot(cloud: RackCloud, etc: str) -> None:
    write(cloud, KEYS)
    objects = {row["object"]: row for row in cloud.plan()["actions"]}
    assert {"devices at boot", "huge pages"} <= objects.keys()
    cloud.ok("apply", "-y")
    assert cloud.sh(PAGES).split() == ["64", "0"]
    assert cloud.plan()["empty"]
    cloud.sh("unmkinitramfs /initrd.img /root/i")
    order = cloud.sh("find /root/i -path '*/init-top/ORDER' -exec grep -o 'init-top/[^ ]*' {} +").split()
    assert order.index("init-top/00-vmwright") < order.index("init-top/udev")
    found = cloud.sh("find /root/i -name 'vfio-pci.ko*' -o -path '*/etc/vmwright/devices'; rm -rf /root/i").splitlines()
    assert len(found) == 2


def test_a_host_that_boots_does_not_touch_its_guests_drives(cloud: RackCloud) -> None:
    """A volume group of a guest's on one: Debian would activate it. The other one is what the host resumes from."""
    one, two = cloud.drive("PM9A1-1"), cloud.drive("PM9A1-2")
    cloud.sh(f"""vgcreate -q guests {one} && lvcreate -q -n data -L 64M guests
        mkswap -q -U 11111111-2222-3333-4444-555555555555 {two}
        echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX resume=UUID=11111111-2222-3333-4444-555555555555"' >{ADMIN}
        update-grub 2>/dev/null""")
    before = kit.boot_id(cloud.rack)
    cloud.sh("systemctl reboot")
    kit.await_reboot(cloud.rack, before)
    assert cloud.sh("vgs --noheadings -o vg_name guests 2>/dev/null || echo none") == "none"
    assert drivers(cloud) == {"PM9A1-1": "vfio-pci", "PM9A1-2": "nvme", "PM9A1-3": "nvme"}
    assert cloud.sh(PAGES).split() == ["64", "0"]
    assert any("nvme-2 was not set aside when it booted: the host starts from it" in warning
               for warning in cloud.plan()["warnings"])


def test_what_leaves_the_file_goes_back_to_its_driver(cloud: RackCloud) -> None:
    write(cloud, KEYS.replace("      nvme-1: {serial: PM9A1-1}\n", ""))
    cloud.ok("apply", "-y")
    assert drivers(cloud)["PM9A1-1"] == "nvme"
    assert "PM9A1-1" not in cloud.sh(f"cat {ASIDE_LIST}")
    assert cloud.sh("vgs --noheadings -o vg_name guests").strip() == "guests", "with all that is on it"


def test_what_was_changed_by_hand_is_shown(cloud: RackCloud) -> None:
    cloud.sh(f"echo '# mine' >>{HUGE_PAGES}")
    (said,) = (what for what in cloud.refused() if HUGE_PAGES in what)
    assert "+# mine" in said
    cloud.sh(f"cp /var/lib/vmwright/files{HUGE_PAGES} {HUGE_PAGES}")
    assert not cloud.refused()


def test_a_host_that_is_released_is_as_it_was(cloud: RackCloud, etc: str) -> None:
    said = cloud.ok("release", "rack", "-y")
    assert "Done: read again, and nothing of vmwright's is left" in said
    cloud.sh(f"rm {ADMIN}; update-grub 2>/dev/null; vgremove -qf guests")
    changed = {line for line in set(etc.splitlines()) ^ set(cloud.sh(ETC).splitlines())
               if "/etc/libvirt/" not in line and "/etc/lvm/" not in line}
    assert not changed
    assert cloud.sh("virsh -q pool-list --name").strip() == "images", "what VMs need stays"
    assert "Nothing to do." in cloud.ok("release", "rack", "-y")
