"""The order in which VMs start when their host boots: written, kept through a reboot, mended, removed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.rack import kit
from tests.rack.cloud import RackCloud

from vmwright.boot.files import LINK_PATH, SCRIPT_PATH, UNIT, UNIT_PATH
from vmwright.names import start_list
from vmwright.rack import process

POOL = "      images: {dir: /var/lib/libvirt/images}\n"
FILES = f"{UNIT_PATH} {LINK_PATH} {SCRIPT_PATH} {start_list('lab')}"
# Nothing on its disk can boot, so its agent never answers. All are off until the host starts them.
VM = ("  {name}: {{template: blank, firmware: bios, memory: 64M, running: false, address: 192.168.6.{last}, "
      "autostart: {start}}}\n")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """One rack for all of these, in the order in which they stand."""
    made = kit.up("order")
    yield RackCloud(made, tmp_path_factory.mktemp("cloud"))
    process.down("order", force=True, seconds=0, remove=True)


def write(cloud: RackCloud, **starts: str) -> None:
    """The file, with these VMs."""
    vms = "".join(VM.format(name=name, last=50 + number, start=start) for number, (name, start) in
                  enumerate(starts.items()))
    cloud.write(POOL, vms)


def autostarted(cloud: RackCloud) -> set[str]:
    """The VMs that libvirt itself starts."""
    return {*cloud.sh("virsh -q list --all --autostart --name").split()}


def test_the_host_is_told_and_the_second_apply_has_nothing_to_do(cloud: RackCloud) -> None:
    write(cloud, last="true", two="{order: 2}", one="{order: 1, healthy: agent, timeout: 4}")
    said = cloud.ok("apply", "-y")
    assert ("order 1 one (until its agent answers, 4 s), order 2 two, then last" in said
            or "order 1 one (until its agent answers, 4 s); order 2 two; then last" in said), said
    assert "Nothing to do" in cloud.ok("apply", "-y")
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


def test_the_host_boots_and_starts_them_in_order(cloud: RackCloud) -> None:
    """The first one never answers: it is given up, with a line that says so, and the others start."""
    before = kit.boot_id(cloud.rack)
    assert cloud.sh("virsh -q list --name") == ""
    kit.sh(cloud.rack, "systemctl reboot", check=False)
    kit.await_reboot(cloud.rack, before)
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


def test_what_was_changed_by_hand_is_shown_and_written_again(cloud: RackCloud) -> None:
    cloud.sh(f"echo '# mine' >>{UNIT_PATH}; systemctl disable -q {UNIT}; sed -i s/two/three/ {start_list('lab')}")
    (action,) = cloud.plan()["actions"]
    assert [(change["key"], change["old"], change["new"]) for change in action["changes"]] == [
        ("order 2", "three", "two"), ("unit", "changed on the host", "as this version writes it"),
        ("at boot", "off", "on")]
    cloud.ok("apply", "-y")
    assert cloud.sh(f"systemctl is-enabled {UNIT}; grep -c mine {UNIT_PATH} || :") == "enabled\n0"


def test_without_an_order_libvirt_starts_them_again(cloud: RackCloud) -> None:
    write(cloud, last="true", two="true", one="false")
    assert "- start order" in cloud.ok("plan")
    cloud.ok("apply", "-y")
    assert autostarted(cloud) == {"last", "two"}
    assert cloud.sh(f"ls {FILES} 2>/dev/null || :") == ""
    assert cloud.sh(f"systemctl is-active {UNIT} || :; systemctl is-failed {UNIT} || :") == "inactive\ninactive"
    assert {*cloud.sh("virsh -q list --name").split()} == {"one", "two", "last"}, "what runs runs on"
    assert "Nothing to do" in cloud.ok("apply", "-y")
