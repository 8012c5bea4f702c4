"""Racks brought up, down and back to the fresh image. Each is an ordinary process of this user; libvirt is not needed.

    from vmwright.rack import process
    rack = process.up("lab", tell=print_progress)      # Record: .port, .folder, .address
    run(process.ssh_argv(rack, ["uname", "-r"]))
    process.down("lab", remove=True)
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vmwright.errors import Cancelled, HostError, UsageError, VmwrightError
from vmwright.facts import kvm
from vmwright.facts.model import Kvm
from vmwright.host import daemon
from vmwright.host.local import LocalHost
from vmwright.host.run import run
from vmwright.rack import accel, boot, firmware, image, machine, private, qmp, record, seed, shelf
from vmwright.rack.boot import ssh_argv as ssh_argv
from vmwright.rack.contents import Image
from vmwright.rack.record import DEFAULT_NAME, Disks, Record
from vmwright.rack.shape import REFERENCE, Cable, Shape
from vmwright.units import MIB, format_size

Progress = Callable[[str, float | None], None]

_NEEDED = {machine.QEMU: "qemu-system-x86", "qemu-img": "qemu-utils", "ssh": "openssh-client",
           "ssh-keygen": "openssh-client"}
_PRESS_EVERY = 15.0  # seconds: a power button that is pressed before anybody listens is pressed again
DOWN_SECONDS = 180.0


def _quiet(_text: str, _share: float | None) -> None:
    """Progress that nobody wants."""


@dataclass(frozen=True)
class Wish:
    """What `up` is asked for; None leaves it to what the rack is already, or to the default."""

    shape: Shape | None = None
    image: Image | None = None
    accelerator: str = "auto"
    port: int | None = None
    mirror: str | None = None


def up(name: str = DEFAULT_NAME, wish: Wish | None = None, *, tell: Progress = _quiet,
       cancel: threading.Event | None = None) -> Record:
    """Bring a rack up, until one can log in; its disks and the host image are made when they are not there.

    `tell` gets a sentence and a share from 0 to 1, or None. Raises UsageError (up already, another shape), HostError,
    Busy, Cancelled.
    """
    with record.alone(name):
        return _up(name, wish or Wish(), tell, cancel or threading.Event())


def _up(name: str, wish: Wish, tell: Progress, cancel: threading.Event) -> Record:
    before = record.read(name)
    if before and is_up(before):
        raise UsageError(f"rack {name} is up already", why=f"its QEMU is process {before.process.pid}"
                         if before.process else "", todo=f"log in: vmwright rack ssh {name}\n"
                         f"start anew: vmwright rack reset {name}")
    _check_same(name, before, wish)
    _check_tools()
    found = firmware.find()
    chosen = accel.choose(wish.accelerator)
    disks = before.disks if before and before.disks else None
    shape = disks.shape if disks else wish.shape or REFERENCE
    _check_memory(shape, chosen)
    tell(chosen.words, None)
    rack = record.enroll(name, wish.port)
    if not record.port_is_free(rack.port):
        raise UsageError(f"port {rack.port} of this machine, which rack {name} has for ssh, is taken",
                         why="another program listens on it", todo=f"name another: vmwright rack up {name} --port N")
    rack = _with_disks(rack, shape, wish, found, tell, cancel)
    if any(nic.network is Cable.PRIVATE for nic in shape.nics):
        private.ensure()
    return _start(rack, found, chosen, tell, cancel)


def _check_same(name: str, before: Record | None, wish: Wish) -> None:
    """A rack's shape and image are fixed while it has disks: another shape has other drives."""
    if before is None or before.disks is None:
        return
    for what, wanted, has in (("shape", wish.shape, before.disks.shape), ("image", wish.image, before.disks.image)):
        if wanted is not None and wanted != has:
            said = has.describe() if isinstance(has, Shape) else str(has)
            raise UsageError(f"rack {name} has another {what} already", why=f"it is {said}",
                             todo=f"throw its disks away first: vmwright rack reset {name}\n"
                                  "or take another name for this one")


def _check_tools() -> None:
    missing = {tool: package for tool, package in _NEEDED.items() if shutil.which(tool) is None}
    if missing:
        raise HostError(f"this machine cannot run a rack: {', '.join(missing)} missing",
                        todo=f"apt-get install {' '.join(dict.fromkeys(missing.values()))}")


def _check_memory(shape: Shape, chosen: accel.Accelerator) -> None:
    accel.check_memory(shape, 0 if chosen.kvm else machine.TCG_CACHE, Path("/proc/meminfo").read_text())


# ---- disks ----


def _with_disks(rack: Record, shape: Shape, wish: Wish, found: firmware.Firmware, tell: Progress,
                cancel: threading.Event) -> Record:
    """The rack with disks; those it has stay. The record is written last: what was half made before does not count."""
    seed.make_keys(rack.folder, rack.name)
    seed.write_client(rack)
    if rack.disks:
        if not shelf.take(Path(rack.disks.base), rack.folder):
            raise HostError(f"the image that rack {rack.name} stands on is gone: {rack.disks.base}",
                            todo=f"start with fresh disks: vmwright rack reset {rack.name}")
        return rack
    kind = wish.image or Image.READY
    base = image.ready(kind, rack.folder, mirror_url=wish.mirror, progress=tell, cancel=cancel)
    disks = Disks(kind, str(base), shape)
    _make_disks(rack, disks, found)
    return record.write(replace(rack, disks=disks))


def _make_disks(rack: Record, disks: Disks, found: firmware.Firmware) -> None:
    _remove_disks(rack)
    host, where = LocalHost("this machine"), rack.folder
    (where / machine.SEED).write_bytes(seed.archive(rack, disks, Path(disks.base).with_suffix(".sources").read_text()))
    (where / machine.SEED).chmod(0o600)
    shutil.copyfile(found.variables, where / machine.VARIABLES)
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disks.base, "-F", "qcow2",
              str(where / machine.SYSTEM), str(disks.shape.disks[0].size)])
    empty = {machine.disk_file(n): disk.size for n, disk in enumerate(disks.shape.disks) if n}
    empty |= {machine.drive_file(drive.serial): drive.size for drive in disks.shape.nvme}
    for file, size in empty.items():
        host.run(["truncate", f"--size={size}", "--", str(where / file)])


def _remove_disks(rack: Record) -> None:
    names = (machine.SYSTEM, machine.VARIABLES, machine.SEED, "nvme-*.img", "sata-*.img")
    for pattern in names:
        for path in rack.folder.glob(pattern):
            path.unlink()


# ---- up ----


def _start(rack: Record, found: firmware.Firmware, chosen: accel.Accelerator, tell: Progress,
           cancel: threading.Event) -> Record:
    """Boot. Under KVM a guest is started in the rack, too: where that fails, the rack is emulated after all."""
    running = boot.boot(rack, _machine(rack, found, kvm=chosen.kvm), tell, cancel)
    if not (chosen.kvm and rack.disks and rack.disks.image is Image.READY):
        return running
    verdict, reason = guests_kvm(running)
    if verdict is Kvm.WORKS:
        return running
    tell(f"a guest in the rack does not start under KVM ({reason}): the rack runs under emulation, which is slow", None)
    boot.note(running, f"KVM in the rack is {verdict}: {reason}")
    off = _power_off(running, force=True, seconds=DOWN_SECONDS, tell=tell, cancel=cancel)
    return boot.boot(off, _machine(off, found, kvm=False), tell, cancel)


def _machine(rack: Record, found: firmware.Firmware, *, kvm: bool) -> machine.Machine:
    shape = rack.disks.shape if rack.disks else REFERENCE
    own = str(uuid.uuid5(uuid.NAMESPACE_URL, f"vmwright rack {rack.name}"))
    return machine.Machine(rack.name, own, shape, found, kvm, rack.port)


def guests_kvm(rack: Record) -> tuple[Kvm, str]:
    """Whether guests in a running rack start under KVM, and why not."""
    done = run(ssh_argv(rack, ["sh"]), input=kvm.script().encode(), check=False, timeout=120)
    return kvm.parse(done.text)


def is_up(rack: Record) -> bool:
    """Whether its QEMU runs."""
    return rack.process is not None and daemon.alive(rack.process)


# ---- down, reset ----


def down(name: str = DEFAULT_NAME, *, force: bool = False, seconds: float = DOWN_SECONDS, remove: bool = False,
         tell: Progress = _quiet, cancel: threading.Event | None = None) -> bool:
    """Power a rack off as its power button does, and wait; False when it was off already.

    `force` pulls the plug when it is not off in so many seconds. `remove` removes all its files, too. Raises HostError
    when it stays on, UsageError when there is no such rack.
    """
    with record.alone(name):
        rack = record.known(name)
        was_up = is_up(rack)
        if was_up:
            _power_off(rack, force=force, seconds=seconds, tell=tell, cancel=cancel or threading.Event())
        if remove:
            shutil.rmtree(rack.folder)
    if not any(is_up(other) for other in record.everyone()):
        private.end()
    return was_up


def reset(name: str = DEFAULT_NAME, *, accelerator: str = "auto", tell: Progress = _quiet,
          cancel: threading.Event | None = None) -> Record:
    """Back to the fresh image, the drives empty. A rack that was up comes up again, of the same shape and image.

    One that was off stays off, and its next `up` may have another shape. Its keys, port and address stay.
    """
    with record.alone(name):
        rack = record.known(name)
        was_up = is_up(rack)
        if rack.process:
            pull_plug(rack)
        _remove_disks(rack)
        boot.note(rack, "disks thrown away")
        fresh = record.write(replace(rack, disks=None, process=None, boot_seconds=None))
        if not (was_up and rack.disks):
            return fresh
        wish = Wish(rack.disks.shape, rack.disks.image, accelerator)
        return _up(name, wish, tell, cancel or threading.Event())


def pull_plug(rack: Record) -> None:
    """End its QEMU at once, as a power cut would; nothing that runs in it is asked."""
    if rack.process:
        daemon.kill(rack.process)
        if not daemon.wait(rack.process, 30.0):
            raise HostError(f"rack {rack.name} does not end: process {rack.process.pid}",
                            todo="see whether its disk hangs, then run the same again")
        boot.note(rack, "plug pulled")


def _power_off(rack: Record, *, force: bool, seconds: float, tell: Progress, cancel: threading.Event) -> Record:
    if rack.process is None:
        return rack
    off = _press_and_wait(rack, rack.process, seconds, tell, cancel)
    if not off and not force:
        raise HostError(f"rack {rack.name} is not off after {seconds:.0f} s",
                        why=f"it was asked by its power button; its console: {rack.folder / machine.CONSOLE}",
                        todo=f"wait and see, or pull the plug: vmwright rack down {rack.name} --force")
    if not off:
        tell("pulling the plug", None)
        pull_plug(rack)
    boot.note(rack, "off")
    return record.write(replace(rack, process=None, boot_seconds=None))


def _press_and_wait(rack: Record, process: daemon.Process, seconds: float, tell: Progress,
                    cancel: threading.Event) -> bool:
    """Press the power button, now and then again; whether it is off in time."""
    began = time.monotonic()
    pressed = -_PRESS_EVERY
    while (spent := time.monotonic() - began) < seconds:
        if spent - pressed >= _PRESS_EVERY:
            pressed = spent
            try:
                qmp.ask(rack.folder / machine.QMP, "system_powerdown")
            except VmwrightError as error:
                boot.note(rack, str(error))
        tell(f"powering off  {spent:.0f} s", None)
        if daemon.wait(process, 1.0):
            return True
        if cancel.is_set():
            raise Cancelled(f"stopped: rack {rack.name} was asked to power off, and may still do so")
    return not daemon.alive(process)


# ---- status ----


@dataclass(frozen=True)
class Status:
    """How a rack is. `state`: up (one can log in), starting, silent (it runs, but ssh does not answer) or off."""

    rack: Record
    state: str
    memory: int | None  # bytes that its QEMU holds; None when it is off
    disk: int  # bytes that its files take on this machine


def status(rack: Record) -> Status:
    """Look at a rack now."""
    if rack.process is None or not is_up(rack):
        state, memory = "off", None
    else:
        greets = boot.answers(rack.port, 5.0)
        state = "up" if greets and rack.boot_seconds else "starting" if rack.boot_seconds is None else "silent"
        memory = _resident(rack.process.pid)
    disk = sum(path.stat().st_blocks * 512 for path in rack.folder.iterdir() if path.is_file())
    return Status(rack, state, memory, disk)


def _resident(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)


def lines(found: Status) -> list[str]:
    """A rack's status for a person, with what a cloud's file says to use it as a host."""
    rack = found.rack
    shown = [f"rack {rack.name}: {found.state}"]
    if found.state != "off":
        how = "KVM" if rack.kvm else "emulation"
        boots = f", logged in after {rack.boot_seconds:.0f} s" if rack.boot_seconds else ""
        held = f", {format_size(found.memory // MIB * MIB)} held" if found.memory else ""
        shown.append(f"  runs      {how}, process {rack.process.pid if rack.process else '?'}{boots}{held}")
    if rack.disks:
        shown += [f"  shape     {rack.disks.shape.describe()}", f"  image     {rack.disks.image}"]
    shown += [f"  address   {rack.address.partition('/')[0]} on the network that racks share",
              f"  files     {rack.folder} ({format_size(found.disk // MIB * MIB)})",
              f"  console   {rack.folder / machine.CONSOLE}",
              "  as a host in a cloud's file:",
              f"    hosts: {{{rack.name}: {{connect: ssh://root@127.0.0.1:{rack.port}, "
              f"ssh_config: {rack.folder / seed.SSH_CONFIG}}}}}"]
    return shown
