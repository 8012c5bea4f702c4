"""What a host is from boot on: the order in which VMs start, devices that its drivers do not touch, huge pages.

Written, kept through a reboot, mended, removed; at the end the host is released, and is as it was before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from tests.rack import kit
from tests.rack.cloud import RackCloud

from vmwright.boot.files import LINK_PATH, SCRIPT_PATH, UNIT, UNIT_PATH
from vmwright.names import HUGE_PAGES, start_list
from vmwright.rack import process

POOL = "      images: {dir: /var/lib/libvirt/images}\n"
KEYS = """\
    devices:
      nvme-1: {serial: PM9A1-1}
      nvme-2: {serial: PM9A1-2}
    hugepages: {2M: [64, 0]}
"""
FILES = f"{UNIT_PATH} {LINK_PATH} {SCRIPT_PATH} {start_list('lab')}"
# Nothing on its disk can boot, so its agent never answers. All are off until the host starts them.
VM = ("  {name}: {{template: blank, firmware: bios, memory: 64M, running: false, address: 192.168.6.{last}, "
      "autostart: {start}}}\n")
ORDER = {"last": "true", "two": "{order: 2}", "one": "{order: 1, healthy: agent, timeout: 4}"}
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


def write(cloud: RackCloud, keys: str, **starts: str) -> None:
    """The file, with these keys for the host, and these VMs."""
    cloud.write(POOL, "".join(VM.format(name=name, last=50 + number, start=start) for number, (name, start) in
                              enumerate(starts.items())))
    file = cloud.folder / "cloud.yaml"
    file.write_text(file.read_text().replace("    pools:\n", f"{keys}    pools:\n"))


def drivers(cloud: RackCloud) -> dict[str, str]:
    """The driver of each drive that `facts` knows the serial of."""
    (host,) = json.loads(cloud.ok("facts", "--json", "--devices"))["hosts"]
    return {row["serial"]: row["driver"] for row in host["devices"] if (row["serial"] or "").startswith("PM9A1")}


def autostarted(cloud: RackCloud) -> set[str]:
    """The VMs that libvirt itself starts."""
    return {*cloud.sh("virsh -q list --all --autostart --name").split()}


@pytest.fixture(scope="module")
def etc(cloud: RackCloud) -> str:
    """/etc as it was before the first apply."""
    return cloud.sh(ETC)


def test_the_host_is_told_now_and_for_its_next_boot(cloud: RackCloud, etc: str) -> None:
    write(cloud, KEYS, **ORDER)
    assert {"devices at boot", "huge pages", "start order"} <= {row["object"] for row in cloud.plan()["actions"]}
    said = cloud.ok("apply", "-y")
    assert ("order 1 one (until its agent answers, 4 s), order 2 two, then last" in said
            or "order 1 one (until its agent answers, 4 s); order 2 two; then last" in said), said
    assert cloud.sh(PAGES).split() == ["64", "0"]
    assert cloud.plan()["empty"]
    assert cloud.sh(f"systemctl is-enabled {UNIT}") == "enabled"
    assert cloud.sh(f"systemd-analyze verify {UNIT_PATH} 2>&1") == ""
    assert cloud.sh(f"stat -c '%U %a' {UNIT_PATH} {SCRIPT_PATH} {start_list('lab')}").splitlines() == [
        "root 644", "root 755", "root 644"]
    assert autostarted(cloud) == set()


def test_libvirt_guests_that_starts_vms_is_warned_of(cloud: RackCloud) -> None:
    """Debian's does not."""
    plain = cloud.plan()["warnings"]
    assert not any("libvirt-guests" in warning for warning in plain)
    cloud.sh("echo 'ON_BOOT=start' >>/etc/default/libvirt-guests")
    (warning,) = [warning for warning in cloud.plan()["warnings"] if warning not in plain]
    assert warning.startswith("host rack: libvirt-guests starts the VMs that ran when the host went down")
    cloud.sh("sed -i '$d' /etc/default/libvirt-guests")
    assert cloud.plan()["warnings"] == plain


def test_a_host_that_boots_does_not_touch_its_guests_drives(cloud: RackCloud) -> None:
    """A volume group of a guest's on one: Debian would activate it. The other one is what the host resumes from."""
    one, two = cloud.drive("PM9A1-1"), cloud.drive("PM9A1-2")
    cloud.sh(f"""vgcreate -q guests {one} && lvcreate -q -n data -L 64M guests
        mkswap -q -U 11111111-2222-3333-4444-555555555555 {two}
        echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX resume=UUID=11111111-2222-3333-4444-555555555555"' >{ADMIN}
        update-grub 2>/dev/null""")
    before = kit.boot_id(cloud.rack)
    kit.sh(cloud.rack, "systemctl reboot", check=False)
    kit.await_reboot(cloud.rack, before)
    assert " resume=UUID=11111111" in cloud.sh("cat /proc/cmdline")
    assert cloud.sh("vgs --noheadings -o vg_name guests 2>/dev/null || echo none") == "none"
    assert drivers(cloud) == {"PM9A1-1": "vfio-pci", "PM9A1-2": "nvme", "PM9A1-3": "nvme"}
    assert cloud.sh(PAGES).split() == ["64", "0"]
    assert any("nvme-2 was not set aside when it booted: the host starts from it" in warning
               for warning in cloud.plan()["warnings"])


def test_it_starts_them_in_order(cloud: RackCloud) -> None:
    """The first one never answers: it is given up, with a line that says so, and the others start."""
    assert settled(cloud) == "failed"
    assert cloud.sh(f"journalctl -b -u {UNIT} -o cat -t vmwright-autostart").splitlines() == [
        "lab: order 1: one", "lab: one is started",
        "lab: one has not answered for 4 s, and the others go on without it: Guest agent is not responding: QEMU guest "
        "agent is not connected",
        "lab: order 2: two", "lab: two is started", "lab: those without an order: last", "lab: last is started"]
    errors = cloud.sh(f"journalctl -b -u {UNIT} -o cat -t vmwright-autostart -p err").splitlines()
    assert [line.partition(" for ")[0] for line in errors] == ["lab: one has not answered"]
    assert {*cloud.sh("virsh -q list --name").split()} == {"one", "two", "last"}
    assert "Nothing to do" in cloud.ok("apply", "-y")
    assert "order 1, agent" in cloud.ok("status")


def settled(cloud: RackCloud) -> str:
    """The unit's state when it has done what it does at boot."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        state = cloud.sh(f"systemctl is-active {UNIT} || :")
        if state not in ("activating", "inactive"):
            return state
        time.sleep(2)
    raise AssertionError(cloud.sh(f"systemctl status {UNIT} || :"))


def test_an_order_that_was_changed_by_hand_is_shown_and_written_again(cloud: RackCloud) -> None:
    cloud.sh(f"echo '# mine' >>{UNIT_PATH}; systemctl disable -q {UNIT}; sed -i s/two/three/ {start_list('lab')}")
    (action,) = cloud.plan()["actions"]
    assert [(change["key"], change["old"], change["new"]) for change in action["changes"]] == [
        ("order 2", "three", "two"), ("unit", "changed on the host", "as this version writes it"),
        ("at boot", "off", "on")]
    cloud.ok("apply", "-y")
    assert cloud.sh(f"systemctl is-enabled {UNIT}; grep -c mine {UNIT_PATH} || :") == "enabled\n0"


def test_without_an_order_libvirt_starts_them_again(cloud: RackCloud) -> None:
    write(cloud, KEYS, last="true", two="true", one="false")
    assert "- start order" in cloud.ok("plan")
    cloud.ok("apply", "-y")
    assert autostarted(cloud) == {"last", "two"}
    assert cloud.sh(f"ls {FILES} 2>/dev/null || :") == ""
    assert cloud.sh(f"systemctl is-active {UNIT} || :; systemctl is-failed {UNIT} || :") == "inactive\ninactive"
    assert {*cloud.sh("virsh -q list --name").split()} == {"one", "two", "last"}, "what runs runs on"
    assert "Nothing to do" in cloud.ok("apply", "-y")


def test_what_was_changed_by_hand_is_shown(cloud: RackCloud) -> None:
    cloud.sh(f"echo '# mine' >>{HUGE_PAGES}")
    (said,) = (what for what in cloud.refused() if HUGE_PAGES in what)
    assert "+# mine" in said
    cloud.sh(f"cp /var/lib/vmwright/files{HUGE_PAGES} {HUGE_PAGES}")
    assert not cloud.refused()


def test_a_host_that_is_released_is_as_it_was(cloud: RackCloud, etc: str) -> None:
    said = cloud.ok("release", "rack", "-y")
    assert "Done: read again, and nothing of vmwright's is left" in said
    assert drivers(cloud)["PM9A1-1"] == "nvme", "no VM has it"
    assert cloud.sh("vgs --noheadings -o vg_name guests").strip() == "guests", "with all that is on it"
    cloud.sh(f"rm {ADMIN}; update-grub 2>/dev/null; vgremove -qf guests")
    changed = {line for line in set(etc.splitlines()) ^ set(cloud.sh(ETC).splitlines())
               if "/etc/libvirt/" not in line and "/etc/lvm/" not in line}
    assert not changed
    assert cloud.sh("virsh -q pool-list --name").strip() == "images", "what VMs need stays"
    assert "Nothing to do." in cloud.ok("release", "rack", "-y")
