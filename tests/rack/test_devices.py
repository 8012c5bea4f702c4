"""Pass-through on a host that has drives, an IOMMU and a card of several ports: refused, given, taken back, wiped.

One rack for all of these, in the order in which they stand. Guests have nothing to boot, but for one: emulated, that
takes minutes, and is done while the others are at work.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.rack import kit
from tests.rack.cloud import BLANK, RackCloud

from vmwright.guest.agent import Agent, must
from vmwright.guest.ready import wait_ready
from vmwright.host.local import LocalHost
from vmwright.image import micro
from vmwright.rack import process
from vmwright.rack.record import Record
from vmwright.rack.shape import REFERENCE
from vmwright.session import Sessions
from vmwright.spec.cloud import HostSpec

ONE, TWO, THREE = (drive.serial for drive in REFERENCE.nvme)
MARK = "whose-bytes-are-these"
PLACES = "0 262144 524287"  # blocks of 4 KiB on a drive of 2 GiB
VM = ("  {name}: {{template: blank, firmware: bios, memory: 64M, running: false, devices: {devices}, "
      "address: {address}}}\n")
ADDRESSES = {"a": "192.168.6.50", "b": "192.168.6.51"}


class Lab(RackCloud):
    """A cloud with the rack's drives set aside."""

    def file(self, more: str = "", templates: str = BLANK, **devices: str) -> None:
        """VMs with these devices, in YAML; `more` devices of the host, and VMs behind a line with ---."""
        extra, _, vms = more.partition("---\n")
        rows = "".join(VM.format(name=name, devices=given, address=ADDRESSES[name]) for name, given in devices.items())
        drives = "".join(f"      {name}: {{serial: {serial}}}\n" for name, serial in
                         (("n1", ONE), ("n2", TWO), ("n3", THREE)))
        self.write("      images: {dir: /var/lib/libvirt/images}\n    devices_at_boot: false\n"
                   f"    devices:\n{drives}{extra}", rows + vms, templates)

    def address(self, serial: str) -> str:
        """Where a drive is, from the host's own mouth, when its own driver has it."""
        return self.sh(f"for d in /sys/class/nvme/*; do grep -q '^{serial} *$' $d/serial && basename $(readlink -f "
                       "$d/device); done; :")

    def driver(self, address: str) -> str:
        """The driver that has a device; empty for none."""
        return self.sh(f"basename $(readlink -f /sys/bus/pci/devices/{address}/driver) | grep -v '^driver$' || :")

    def note(self, address: str) -> dict[str, Any]:
        """Our note about a device."""
        return dict(json.loads(self.sh(f"cat /var/lib/vmwright/devices/{address}.json")))

    def mark(self, serial: str) -> None:
        """Write a mark on a drive: at its begin, in its middle, and at its end."""
        self.sh(f"for at in {PLACES}; do printf {MARK} | dd of={self.drive(serial)} bs=4096 seek=$at oflag=direct "
                "conv=notrunc,sync,fsync iflag=fullblock status=none; done")

    def marks(self, serial: str) -> int:
        """How many of the marks are on a drive."""
        found = self.sh(f"for at in {PLACES}; do dd if={self.drive(serial)} bs=4096 skip=$at count=1 iflag=direct "
                        "status=none | tr -d '\\0'; done")
        return found.count(MARK)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made: Record = kit.up("devices")
    yield Lab(made, tmp_path_factory.mktemp("cloud"))
    process.down("devices", force=True, seconds=0, remove=True)


@pytest.fixture(scope="module")
def at(lab: Lab) -> dict[str, str]:
    """The drives' addresses, by serial."""
    return {serial: lab.address(serial) for serial in (ONE, TWO, THREE)}


def test_what_cannot_be_given_is_refused(lab: Lab, at: dict[str, str]) -> None:
    """Drives that are mounted, in a volume group, swap; a port of a card; the way in; what is not there."""
    one, two, three = (lab.drive(serial) for serial in (ONE, TWO, THREE))
    lab.sh(f"""mkfs.ext4 -q {one}; mkdir -p /mnt/x; mount {one} /mnt/x; mkswap -q {three}; swapon {three}
        pvcreate -q {two}; vgcreate -q theirs {two}""")
    port, way_in = (lab.sh(f"basename $(readlink -f /sys/class/net/{nic})")
                    for nic in ("ens1f1/device", "eno1/device/.."))
    lab.file(f'      port: {{address: "{port}"}}\n      eno1: {{address: "{way_in}"}}\n      lost: {{serial: S9}}\n'
             f'      wrong: {{serial: S0, address: "{at[TWO]}"}}\n      same: {{address: "{at[ONE]}"}}\n',
             a="[n1, n2, n3, port, eno1]", b="[lost, wrong, same]")
    refused = lab.refused()
    short = {serial: address.removeprefix("0000:") for serial, address in at.items()}
    others = [f"{port.removeprefix('0000:')[:-1]}{n} (e1000e)" for n in (0, 2, 3)]
    group = lab.sh(f"basename $(readlink -f /sys/bus/pci/devices/{port}/iommu_group)")
    assert set(refused) >= {
        f"vm a: device n1 ({short[ONE]}) is in use by the host: {one} is mounted at /mnt/x",
        f"vm a: device n2 ({short[TWO]}) is in use by the host: {two} is a physical volume of LVM",
        f"vm a: device n3 ({short[THREE]}) is in use by the host: {three} is swap space in use",
        f"vm a: device port ({port.removeprefix('0000:')}) shares IOMMU group {group} with {', '.join(others)}, which "
        "would stay with the host",
        f"vm a: device eno1 ({way_in.removeprefix('0000:')}) is in use by the host: the default route goes by eno1",
        f"vm a: device eno1 ({way_in.removeprefix('0000:')}) is in use by the host: the ssh session of vmwright comes "
        "in by eno1",
        "device lost: host rack has no device with the serial S9",
        f"device wrong ({short[TWO]}): its serial is {TWO}, and the file says S0",
        f"vm b: device same ({short[ONE]}) is given twice: it is device n1 of vm a",
    }
    lab.sh(f"umount /mnt/x; swapoff {three}; vgremove -q theirs; pvremove -q {two}; wipefs -qa {one} {two} {three}")


MICRO = ("  m: {{template: micro, memory: 192M, address: 192.168.6.60, ready_timeout: 1800, running: false, "
         "devices: [{}]}}\n")
TEMPLATE = "  micro: {image: ./micro.qcow2, disk: 256M}\n"


@pytest.fixture(scope="module")
def card(lab: Lab) -> list[str]:
    """The addresses of the card's ports."""
    return [lab.sh(f"basename $(readlink -f /sys/class/net/ens1f{n}/device)") for n in range(4)]


def with_card(lab: Lab, card: list[str], devices: str) -> None:
    """The file with the guest that boots."""
    ports = "".join(f'      p{n}: {{address: "{address}"}}\n' for n, address in enumerate(card))
    lab.file(f"{ports}---\n{MICRO.format(devices)}", TEMPLATE)


def test_a_guest_gets_a_drive_and_a_whole_card(lab: Lab, at: dict[str, str], card: list[str]) -> None:
    micro.build(LocalHost("here"), str(lab.folder / "micro.qcow2"), str(lab.folder / "work"),
                progress=lambda sentence, share: None)
    with_card(lab, card, "n3, p0, p1, p2, p3")
    lab.ok("apply", "-y")
    lab.sh("virsh -q start m")
    assert [lab.driver(address) for address in (at[THREE], *card)] == ["vfio-pci"] * 5


def test_a_drive_is_given_kept_and_given_back(lab: Lab, at: dict[str, str]) -> None:
    lab.mark(ONE)
    lab.file(a="n1")
    lab.ok("apply", "-y")
    assert "Nothing to do" in lab.ok("apply", "-y")
    xml = lab.sh("virsh dumpxml --inactive a")
    assert "<hostdev mode='subsystem' type='pci' managed='yes'>" in xml and "<driver name='vfio'/>" in xml
    note = lab.note(at[ONE])
    assert (note["serial"], note["vm"], note["state"], note["driver"]) == (ONE, "a", "given", "nvme")
    assert lab.driver(at[ONE]) == "nvme", "it is not running"
    lab.sh("virsh -q start a")
    assert lab.driver(at[ONE]) == "vfio-pci"
    assert lab.plan()["actions"] == [] and lab.refused() == [], "its serial is known from the note"
    lab.ok("stop", "--force", "--timeout", "1", "a")
    assert lab.driver(at[ONE]) == "nvme" and lab.marks(ONE) == 3


def test_one_more_while_it_runs_and_one_less(lab: Lab, at: dict[str, str]) -> None:
    """Plugged in at once. Taken away: a drive waits for the next start, as the guest may have mounted it."""
    lab.sh("virsh -q start a")
    lab.file(a="[n1, n2]")
    change = next(row for row in lab.plan()["actions"] if row["verb"] == "change")["changes"][0]
    assert (change["key"], change["when"]) == ("device n2", "now")
    lab.ok("apply", "-y")
    assert lab.driver(at[TWO]) == "vfio-pci" and "Nothing to do" in lab.ok("apply", "-y")
    lab.file(a="n1")
    said = lab.ok("apply", "-y")
    assert "given back to the host" in said and "at next start" in said
    sources = lab.sh("virsh dumpxml --inactive a | grep '<address domain'")
    assert lab.driver(at[TWO]) == "vfio-pci" and f"bus='0x{at[TWO][5:7]}'" not in sources
    lab.file(a="n1", b="{n2: keep}")
    assert lab.refused() == [f"vm b: device n2 ({at[TWO].removeprefix('0000:')}) is vm a's until its next start"]
    lab.ok("stop", "--force", "--timeout", "1", "a")
    assert lab.driver(at[TWO]) == "nvme"


def test_a_rebuild_keeps_what_is_on_it_or_wipes_it(lab: Lab, at: dict[str, str]) -> None:
    """Wiped on demand, also where the guest had volumes of its own, which the host has made active meanwhile."""
    lab.file(a="n1")
    lab.ok("rebuild", "-y", "a")
    assert lab.marks(ONE) == 3
    drive = lab.drive(ONE)
    lab.sh(f"pvcreate -qq -y {drive}; vgcreate -qq guests {drive}; lvcreate -qq -y -L 64M -n data guests")
    said = lab.run("rebuild", "--wipe", "n1", "a")
    assert said.returncode == 64 and "it was not confirmed to throw away its root disk and wipe n1" in said.stderr
    said = lab.ok("rebuild", "-y", "--wipe", "n1", "a")
    assert "the data it has (2G, LVM2_member)" in said
    assert "the host has found the guest's own volumes and made them active (/dev/mapper/guests-data)" in said
    assert lab.marks(ONE) == 0 and lab.sh(f"wipefs -n {drive}; lvs --noheadings") == ""
    assert lab.note(at[ONE])["state"] == "given"


def test_what_was_anothers_is_handed_over_by_word_alone(lab: Lab, at: dict[str, str]) -> None:
    lab.mark(ONE)
    lab.file(a="[]", b="n1")
    short = at[ONE].removeprefix("0000:")
    assert lab.refused() == [f"vm b: device n1 ({short}) was vm a's last, and what that one has left is still on it"]
    lab.file(a="[]", b="{n1: keep}")
    rows = lab.plan()["actions"]
    assert [(row["object"], row["verb"]) for row in rows] == [("vm a", "change"), ("vm b", "create")]
    assert rows[0]["id"] in rows[1]["needs"]
    lab.ok("apply", "-y")
    assert lab.marks(ONE) == 3 and lab.note(at[ONE])["vm"] == "b"
    lab.file(a="{n1: wipe}", b="[]")
    said = lab.run("apply", "-y")
    assert said.returncode == 64 and "vm a: it was not confirmed to wipe n1" in said.stderr and lab.marks(ONE) == 3
    lab.ok("apply", "-y", "--confirm", "a")
    assert lab.marks(ONE) == 0 and lab.note(at[ONE])["vm"] == "a"


def test_a_wipe_that_was_cut_off_is_seen_to_its_end(lab: Lab, at: dict[str, str]) -> None:
    """Killed in its middle; told in the next plan, and done without being asked for once more. Nobody gets half."""
    lab.mark(ONE)
    tool = "/usr/sbin/blkdiscard"
    lab.sh(f"mv {tool} {tool}.real; printf '#!/bin/sh\\nsleep 3; exec {tool}.real \"$@\"\\n' >{tool}; chmod +x {tool}")
    argv = [sys.executable, "-m", "vmwright.cli.main", "rebuild", "-f", "cloud.yaml", "-y", "a"]
    run = subprocess.Popen(argv, cwd=lab.folder, env={**os.environ, "PYTHONPATH": str(kit.SOURCES)},
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The second of its eight chunks is written: what is at the begin is gone.
    lab.sh("until [ $(pgrep -c -f '[b]lkdiscard --zeroout --offset 268435456') -gt 0 ]; do sleep 1; done")
    run.send_signal(signal.SIGKILL)
    run.wait()
    lab.sh(f"while pgrep -f '[b]lkdiscard --zeroout' >/dev/null; do sleep 1; done; mv {tool}.real {tool}")
    assert 0 < lab.marks(ONE) < 3, "it was cut off in its middle"
    assert "hostdev" not in lab.sh("virsh dumpxml --inactive a"), "whoever starts it does not give half a drive to it"
    rows = [row for row in lab.plan()["actions"] if row["object"] == "vm a"]
    (change,) = (row for row in rows[0]["changes"] if row["key"] == "device n1")
    assert change["old"].endswith("wiped in part, by a run that was cut off") and change["new"] == "wiped to its end"
    lab.ok("apply", "-y")
    assert lab.marks(ONE) == 0 and lab.note(at[ONE])["state"] == "given" and "Nothing to do" in lab.ok("apply", "-y")


def test_a_vm_whose_memory_is_saved_gets_no_device(lab: Lab) -> None:
    lab.file(a="n1", b="[]")
    lab.sh("virsh -q start b; virsh -q managedsave b")
    lab.file(a="n1", b="{n2: keep}")
    assert lab.refused() == ["vm b: its memory is saved in a file, and it would go on from there without its devices"]
    lab.sh("virsh -q managedsave-remove b")
    assert lab.refused() == []


def test_a_device_of_a_vm_of_others_is_left_alone(lab: Lab, at: dict[str, str]) -> None:
    domain, bus, slot, function = (at[TWO].replace(".", ":")).split(":")
    lab.sh(f"""virsh -q define /dev/stdin <<END
        <domain type='qemu'><name>other</name><memory>65536</memory><os><type machine='q35'>hvm</type></os><devices>
        <hostdev mode='subsystem' type='pci' managed='yes'><source>
        <address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source></hostdev>
        </devices></domain>\nEND""")
    short = at[TWO].removeprefix("0000:")
    assert lab.refused() == [f"vm b: device n2 ({short}) is given to vm other, which cloud lab did not make"]
    lab.sh("virsh -q undefine other")


def test_destroy_gives_it_back_and_forgets_nothing(lab: Lab, at: dict[str, str]) -> None:
    lab.file(a="n1", b="[]")
    lab.sh("virsh -q start a")
    lab.ok("destroy", "-y", "a")
    assert lab.driver(at[ONE]) == "nvme" and lab.note(at[ONE])["vm"] == "a"
    lab.file(a="[]", b="n1")
    assert "was vm a's last" in lab.refused()[0]
    lab.file(a="n1", b="[]")
    assert lab.refused() == [], "it was its own"
    lab.file()
    lab.ok("destroy", "-y", "b")


def test_a_guest_sees_its_drives_and_lets_go_of_a_card(lab: Lab, at: dict[str, str], card: list[str]) -> None:
    """From inside: the drive's serial; one that is plugged in while it runs; a card of four ports that goes back."""
    host = HostSpec("rack", f"ssh://root@127.0.0.1:{lab.rack.port}", ssh_config=str(lab.rack.folder / "ssh_config"))
    with Sessions((host,)) as sessions:
        def inside(script: str) -> str:
            return must(Agent(sessions["rack"].virt.agent("m")), ["sh", "-c", script]).strip()

        wait_ready(Agent(sessions["rack"].virt.agent("m")), timeout=1800, domain_alive=lambda: True)
        assert inside("cat /sys/class/nvme/*/serial").split() == [THREE]
        with_card(lab, card, "n3, {n1: keep}")
        lab.ok("apply", "-y", "--allow-cut-off")
        assert [lab.driver(address) for address in (at[ONE], *card)] == ["vfio-pci", *["e1000e"] * 4]
        assert set(inside("cat /sys/class/nvme/*/serial").split()) == {ONE, THREE}
    lab.ok("destroy", "-y", "m")
    assert [lab.driver(at[serial]) for serial in (ONE, THREE)] == ["nvme", "nvme"]
