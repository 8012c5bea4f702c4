"""The reference cloud on an emulated server, step by step: `./dev demo rack`, and what tests/long/test_demo.py checks.

    python -m demo.rack up FOLDER      # brings all of it, or goes on where an earlier run has stopped
    python -m demo.rack bare FOLDER    # the same from a plain installation, whose IOMMU is off; longer
    python -m demo.rack down FOLDER    # removes all of it, but for a cloud.yaml that was changed

XDG_STATE_HOME is FOLDER/state, so that nothing meets the user's own racks and clouds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmwright.errors import VmwrightError
from vmwright.guest.agent import Agent, must
from vmwright.host.local import LocalHost
from vmwright.image import micro
from vmwright.image.micro_report import BEGIN, END, Report, reports
from vmwright.rack import process, record
from vmwright.rack.contents import Image
from vmwright.rack.record import Record
from vmwright.session import Session, Sessions
from vmwright.spec.cloud import Cloud, VmSpec
from vmwright.spec.load import load

NAME = "demo"
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "rack.yaml"
REBUILT = "z-b-data-1"
MARK = "left by the first z-b-data-1"
_ONE_BY_ONE = ("--parallel", "1")  # measured: three guests that boot at once there take longer than one after another
_PLACE = "bs=1M count=1 {}=1"  # on the drive, for dd


class Failed(Exception):
    """A step did not do what it should."""


@dataclass(frozen=True)
class Outside:
    """What the host says of a VM: the CPUs of each vCPU, its memory's nodes and their mode, drivers and serials of its
    devices by their addresses, and its logical volumes."""

    vcpus: tuple[str, ...]
    nodes: str
    mode: str
    drivers: dict[str, str]
    volumes: tuple[str, ...]


# ---- the parts ----


def bare_file() -> str:
    """The example's file for a plain server: vmwright makes the bridge, and sets the drives aside from boot on."""
    text = EXAMPLE.read_text()
    early = next(line for line in text.splitlines(keepends=True) if "devices_at_boot" in line)
    made = "    bridges:\n      br0: {nic: eno2, addresses: [192.168.6.200/24]}\n"
    return text.replace(early, "").replace("    pools:\n", f"{made}    pools:\n")


def lay_out(folder: Path, rack: Record, text: str = "") -> None:
    """The cloud's file with what it names, in a folder; a file that is there stays, and may have been changed.

    `text` is the file's, where it is not the example.
    """
    if not (folder / "cloud.yaml").exists():
        (folder / "cloud.yaml").write_text(text or EXAMPLE.read_text())
    if not (folder / "id_ed25519.pub").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vmwright demo", "-f",
                        str(folder / "id_ed25519")], check=True)
    (folder / "ssh_config").unlink(missing_ok=True)
    (folder / "ssh_config").symlink_to(rack.folder / "ssh_config")


def make_image(folder: Path) -> None:
    """The micro guest's image; an earlier one of this version is kept by vmwright, and only copied."""
    micro.build(LocalHost("this machine"), str(folder / "micro.qcow2"), str(folder / "work"),
                progress=lambda sentence, share: None)


def vmwright(folder: Path, *words: str) -> None:
    """Run vmwright on the cloud; what it says goes where ours goes. Raises Failed."""
    argv = [sys.executable, "-m", "vmwright.cli.main", words[0], "-f", str(folder / "cloud.yaml"), *words[1:]]
    print(f"$ vmwright {' '.join(words)}", flush=True)
    code = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        raise Failed(f"vmwright {words[0]} ended with code {code}")


def nothing_to_do(folder: Path) -> bool:
    """Whether everything is as the file says."""
    argv = [sys.executable, "-m", "vmwright.cli.main", "plan", "-f", str(folder / "cloud.yaml"), "--json"]
    plan = json.loads(subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)
    return not plan["actions"] and not plan["refused"]


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Cloud, Session]]:
    """The cloud, and its host."""
    cloud = load(folder / "cloud.yaml")
    with Sessions(cloud.hosts) as sessions:
        yield cloud, sessions[cloud.hosts[0].name]


def read(session: Session, vm: str, path: str) -> str:
    """A file of a guest, by its agent."""
    return Agent(session.virt.agent(vm)).read_file(path).decode()


def inside(session: Session, vm: str) -> Report:
    """What a guest has found in itself when it booted, from its agent."""
    text = read(session, vm, "/run/micro/report.json")
    found = reports(f"{BEGIN}\n{text}\n{END}")
    if not found:
        raise Failed(f"the report of {vm} is none: {text!r}")
    return found[0]


def outside(session: Session, vm: VmSpec, group: str) -> Outside:
    """What libvirt, sysfs and LVM on the host say of a VM that runs."""
    xml = ET.fromstring(session.host.run(["virsh", "dumpxml", vm.name]).stdout)
    pins = session.host.run(["virsh", "-q", "vcpupin", vm.name]).text.splitlines()
    rows = (row.partition(":") for row in session.host.run(["virsh", "-q", "numatune", vm.name]).text.splitlines())
    tune = {key.strip(): value.strip() for key, _, value in rows}
    drivers = {}
    for source in xml.iterfind("devices/hostdev/source/address"):
        numbers = {part: int(value, 16) for part, value in source.items()}
        address = "{domain:04x}:{bus:02x}:{slot:02x}.{function:x}".format(**numbers)
        link = session.host.run(["readlink", f"/sys/bus/pci/devices/{address}/driver"]).text
        drivers[address] = link.rpartition("/")[2]
    volumes = session.host.run(["lvs", "--noheadings", "-o", "lv_name", group]).text.split()
    return Outside(tuple(row.split()[1] for row in pins), tune["numa_nodeset"], tune["numa_mode"],
                   drivers, tuple(name for name in volumes if name.startswith(f"vmwright-rack.{vm.name}.")))


def write_mark(session: Session, vm: str) -> None:
    """Leave something on the guest's own drive, from inside."""
    must(Agent(session.virt.agent(vm)), [
        "sh", "-c", f"printf '%s' '{MARK}' | dd of=/dev/nvme0n1 {_PLACE.format('seek')} conv=notrunc,fsync"])


def marked(session: Session, vm: str) -> bool:
    """Whether that is on the drive, as the guest sees it."""
    found = must(Agent(session.virt.agent(vm)), [
        "sh", "-c", f"dd if=/dev/nvme0n1 {_PLACE.format('skip')} 2> /dev/null | head -c {len(MARK)} | tr '\\0' 0"])
    return found == MARK


# ---- all of it ----


class Steps:
    """Says what is done, and how long each step took."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self._say, self._began = say, time.monotonic()
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step."""
        began = time.monotonic()
        self._say(f"\n== {name}")
        yield
        self.taken.append((name, time.monotonic() - began))
        self._say(f"== {name}: {_spent(self.taken[-1][1])}, {_spent(time.monotonic() - self._began)} in all")

    def table(self) -> str:
        """All steps with their times."""
        width = max(len(name) for name, _ in self.taken)
        rows = [*self.taken, ("in all", time.monotonic() - self._began)]
        return "\n".join(f"  {name:{width}}  {_spent(seconds):>10}" for name, seconds in rows)


def _spent(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:2} s"


def without_iommu(rack: Record) -> None:
    """Have the server boot as one does on which nobody has switched the IOMMU on: Debian's kernel does so by itself."""
    before = _on(rack, _BOOT)
    _on(rack, f"echo '{_OFF}' >{_ADMIN}; update-grub 2>/dev/null; systemctl reboot")
    for _ in range(_BOOT_TRIES):
        time.sleep(2)
        if _on(rack, _BOOT) not in ("", before):
            return
    raise Failed("the server did not come back from its reboot")


_ADMIN = "/etc/default/grub.d/55-admin.cfg"
_OFF = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX intel_iommu=off"'
_BOOT, _BOOT_TRIES = "cat /proc/sys/kernel/random/boot_id", 300


def _on(rack: Record, script: str) -> str:
    """What a script says there. It goes by standard input: ssh would have its words split by another shell."""
    done = subprocess.run(process.ssh_argv(rack, ["sh", "-eu"]), input=script.encode(), capture_output=True,
                          check=False)
    return done.stdout.decode(errors="replace").strip()


def prepared(folder: Path, steps: Steps, *, bare: bool) -> None:
    """The rack, up, with the cloud's file and the guests' image."""
    folder.mkdir(parents=True, exist_ok=True)
    with steps.step("rack up"):
        before = record.read(NAME)
        wish = process.Wish(image=Image.BARE if bare else Image.READY)
        rack = before if before and process.is_up(before) else process.up(NAME, wish, tell=_tell)
        if bare and not before:
            without_iommu(rack)
        lay_out(folder, rack, bare_file() if bare else "")
    with steps.step("the micro guest's image"):
        make_image(folder)


def bare(folder: Path) -> None:
    """From a plain installation to VMs, by one command."""
    steps = Steps()
    prepared(folder, steps, bare=True)
    with steps.step("apply: packages, kernel, reboot, bridge, LVM, template, VMs"):
        vmwright(folder, "apply", "-y", "--reboot", "--allow-cut-off", *_ONE_BY_ONE)
    with steps.step("from inside the guests, and from outside"):
        show(folder)
    with steps.step("apply again"):
        vmwright(folder, "apply", "-y")
        if not nothing_to_do(folder):
            raise Failed("the second apply has left something to do")
    print(f"\n{steps.table()}\n")


def up(folder: Path) -> None:
    """Everything, from the rack to the second apply that has nothing to do."""
    steps = Steps()
    prepared(folder, steps, bare=False)
    with steps.step("apply"):
        vmwright(folder, "apply", "-y", *_ONE_BY_ONE)
    with steps.step("status"):
        vmwright(folder, "status")
    with steps.step("from inside the guests, and from outside"):
        show(folder)
    _rebuilds(folder, steps)
    with steps.step("apply again"):
        vmwright(folder, "apply", "-y")
        if not nothing_to_do(folder):
            raise Failed("the second apply has left something to do")
    print(f"\n{steps.table()}\n")


def _rebuilds(folder: Path, steps: Steps) -> None:
    with steps.step(f"rebuild {REBUILT}: what is on its drive is kept"):
        with opened(folder) as (_, session):
            write_mark(session, REBUILT)
        vmwright(folder, "rebuild", "-y", REBUILT)
        _expect(folder, kept=True)
    with steps.step(f"rebuild {REBUILT}: its drive is wiped"):
        vmwright(folder, "rebuild", "-y", "--wipe", "nvme-1", REBUILT)
        _expect(folder, kept=False)


def _expect(folder: Path, *, kept: bool) -> None:
    with opened(folder) as (_, session):
        if marked(session, REBUILT) is not kept:
            raise Failed(f"what the guest had written to its drive is {'gone' if kept else 'still there'}")
    print(f"in the new guest: what the old one had written to its drive is {'still there' if kept else 'gone'}")


def show(folder: Path) -> None:
    """A few lines for each VM."""
    with opened(folder) as (cloud, session):
        for vm in cloud.vms:
            seen, host = inside(session, vm.name), outside(session, vm, "vg-libvirt")
            own = ", ".join(address for nic in seen.nics for address in nic.addresses)
            drives = "".join(f", drive {drive.serial} of {drive.size >> 30} GiB" for drive in seen.nvme)
            given = "".join(f", {address} by {driver}" for address, driver in host.drivers.items())
            placed = f"vCPUs on CPUs {' and '.join(host.vcpus)}, memory {host.mode} on node {host.nodes}"
            print(f"{vm.name}\n  inside   {seen.host}, {seen.cpus} CPUs, {seen.memory >> 20} MiB, {own}{drives}\n"
                  f"  outside  {placed}{given}\n           {', '.join(host.volumes)}")


def down(folder: Path) -> None:
    """The rack with all that is in it, and the folder, but for a file that was changed."""
    if record.read(NAME):
        process.down(NAME, force=True, seconds=5, remove=True, tell=_tell)
    file = folder / "cloud.yaml"
    if file.exists() and file.read_text() not in (EXAMPLE.read_text(), bare_file()):
        for path in folder.iterdir():
            if path.name not in ("cloud.yaml", "id_ed25519", "id_ed25519.pub"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        print(f"you changed {file}: it and its key are kept for the next demo")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print("the demo is gone: the rack with its VMs; images that can be used again are kept")


def _tell(text: str, share: float | None) -> None:
    if share is None:
        print(text, flush=True)


def main(words: list[str]) -> int:
    """The command line; what a user can cause is one sentence."""
    try:
        {"up": up, "bare": bare, "down": down}[words[0]](Path(words[1]))
    except (Failed, VmwrightError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
