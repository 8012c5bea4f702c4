"""What goes wrong, and what vmwright says and leaves behind then: real libvirt, VMs that need no operating system."""

from __future__ import annotations

import getpass
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.local.kit import BUSY, Kit, Said, connection

from vmwright.guest.seed import AGENT_FAILED

CONSOLE = "this guest only says so\r\n"


def vm(cloud: Kit, name: str = "a", more: str = "running: false") -> str:
    return (f"  {cloud.name}-{name}: {{template: blank, firmware: bios, memory: 64M, disks: {{data: 16M}},"
            f" pool: {cloud.name}-pool, network: {cloud.name}-net, {more}}}\n")


def until(true: Callable[[], object]) -> None:
    """Wait until something becomes so."""
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("waited a minute in vain")


def left(cloud: Kit) -> set[str]:
    """Everything of the cloud on the host but its template."""
    state = Path("/var/lib/vmwright") / cloud.name
    notes = {path.name for kind in ("intents", "work") for path in (state / kind).glob("*")}
    return cloud.domains() | notes | {name for name in cloud.volumes() if ".template-" not in name}


def converges(cloud: Kit, *names: str) -> None:
    """The next apply makes all of it, and leaves nothing else."""
    assert "everything is as the file says" in cloud.ok("apply", "-y").out
    assert cloud.domains() == {f"{cloud.name}-{name}" for name in names}
    assert left(cloud) == cloud.domains() | {f"{cloud.name}.{cloud.name}-{name}.{role}" for name in names
                                             for role in ("root.qcow2", "seed.iso", "disk-data.qcow2")}


# -- two at once, and being stopped -----------------------------------------------------------------------------------

@pytest.fixture
def slow_copy(cloud: Kit, monkeypatch: pytest.MonkeyPatch) -> Path:
    """vmwright finds a `cp` that writes a little and then takes for ever; a file with its process number."""
    mark, programs = cloud.folder / "copying", cloud.folder / "bin"
    programs.mkdir()
    (programs / "cp").write_text(f'#!/bin/sh\nfor target; do :; done\nhead -c 65536 /dev/zero > "$target"\n'
                                 f'echo $$ > {mark}.new\nmv {mark}.new {mark}\nexec sleep 600\n')
    (programs / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return mark


def ended(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=120)
    return Said(process.returncode, out, err)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_two_applies_at_once(cloud: Kit, slow_copy: Path) -> None:
    """The second is refused, and names the first."""
    cloud.write(vm(cloud))
    cloud.ok("apply", "-y")  # everything but the VM that is copied
    cloud.write(vm(cloud) + vm(cloud, "b", "running: false, copy: full"))
    with cloud.started("apply", "-y") as first:
        until(slow_copy.exists)
        second = cloud.run("apply", "-y", patience=0)
        assert second.code == BUSY, second.all
        assert second.err.startswith("error: another vmwright is at work on host here\n  why: ")
        assert f", process {first.pid}, since " in second.err
        assert second.err.endswith(
            "  do:  wait until it is done (--wait SECONDS does), then run the same again; no lock has to be removed by "
            "hand\n")
        assert "vm" in cloud.ok("plan").out, "looking is always allowed"
        first.send_signal(signal.SIGINT)
        assert ended(first).code == 130


def test_who_finds_the_host_at_work_may_wait(cloud: Kit, slow_copy: Path) -> None:
    """Not longer than asked, and Ctrl-C ends it. What `set` has changed in the file is said to be in it."""
    name = f"{cloud.name}-a"
    cloud.write(vm(cloud))
    cloud.ok("apply", "-y")
    cloud.write(vm(cloud) + vm(cloud, "b", "running: false, copy: full"))
    with cloud.started("apply", "-y") as first:
        until(slow_copy.exists)
        cloud.write(vm(cloud))
        said = cloud.run("set", f"vms.{name}.memory=96M", "--apply", "-y", "--wait", "0.5", patience=0)
        assert said.code == BUSY, said.all
        assert said.err.startswith(f"another vmwright is at work on host here ({getpass.getuser()}@")
        assert said.err.endswith(f"\nnote: {cloud.file} has the new value, and what it asks for is not done, or not "
                                 f"all of it: apply it with `vmwright apply -f {cloud.file}`, or set the old value "
                                 "again\n")
        assert "memory: 96M" in cloud.file.read_text()
        with cloud.started("apply", "-y", "--wait", "600") as stopped, \
                cloud.started("apply", "-y", "--wait", "600") as second:
            for process in (stopped, second):
                assert process.stderr is not None
                assert process.stderr.readline().endswith("): waiting\n")
            stopped.send_signal(signal.SIGINT)
            assert ended(stopped).code == 130
            assert second.poll() is None
            first.send_signal(signal.SIGINT)
            assert ended(first).code == 130
            assert ended(second).code == 0
    assert connection().lookupByName(name).maxMemory() == 96 << 10


def test_ctrl_c_while_copying(cloud: Kit, slow_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is ended on the host, and what it had made is taken back."""
    cloud.write(vm(cloud))
    cloud.ok("apply", "-y")
    before = left(cloud)
    cloud.write(vm(cloud) + vm(cloud, "b", "running: false, copy: full"))
    with cloud.started("apply", "-y") as process:
        until(slow_copy.exists)
        assert f"{cloud.name}.{cloud.name}-b.root.qcow2" in cloud.volumes()
        process.send_signal(signal.SIGINT)
        said = ended(process)
    assert said.code == 130, said.all
    assert "stopping: what is under way is finished or undone first" in said.out
    assert said.err == ("error: stopped: 0 actions done, 1 action not; what was under way has been finished or undone\n"
                        "  do:  apply again picks up from there\n")
    until(lambda: gone(int(slow_copy.read_text())))
    assert left(cloud) == before
    assert "undo" in cloud.ok("log").out
    monkeypatch.undo()
    converges(cloud, "a", "b")


def test_ctrl_c_while_waiting_for_a_guest(cloud: Kit, talking: str) -> None:
    """The VM stays as it is; the next apply waits for it again, and does not make it again."""
    cloud.write(vm(cloud, more="running: true"), template=talking)
    name = f"{cloud.name}-a"
    with cloud.started("apply", "-y") as process:
        until(lambda: name in cloud.domains() and cloud.domain(name).isActive())
        process.send_signal(signal.SIGINT)
        said = ended(process)
    assert said.code == 130, said.all
    assert cloud.domain(name).isActive()
    assert [action["verb"] for action in cloud.plan()["actions"]] == ["wait until ready"]
    cloud.ok("destroy", name, "-y")
    assert left(cloud) == set()


# -- guests that do not come up ---------------------------------------------------------------------------------------

@pytest.fixture
def talking(cloud: Kit) -> str:
    """A template whose boot sector writes a line to the serial port and halts: a guest that is never ready."""
    return _says(cloud, CONSOLE)


def _says(cloud: Kit, text: str) -> str:
    code = bytes.fromhex("fc 31c0 8ed8 be167c ac 84c0 7406 baf803 ee ebf5 f4 ebfd".replace(" ", ""))
    raw, image = cloud.folder / "talking.raw", cloud.folder / "talking.qcow2"
    raw.write_bytes((code + text.encode()).ljust(510, b"\0") + b"\x55\xaa" + bytes((16 << 20) - 512))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)], check=True)
    return f"  blank: {{image: {image}, disk: 64M, firmware: bios}}\n"


def test_a_guest_that_is_never_ready(cloud: Kit, talking: str) -> None:
    """How far it got and what its console said; the VM is left for a look, and waited for again."""
    cloud.write(vm(cloud, more="ready_timeout: 15"), template=talking)
    name = f"{cloud.name}-a"
    said = cloud.run("apply", "-y")
    assert said.code == 8, said.all
    assert f"First: vm {name} (create): vm {name}: the guest was not ready within 15 s" in said.err
    assert "why: it got this far: " in said.err
    assert "       last lines of its console:\n" in said.err
    assert f"look inside: vmwright console {name}; then apply again, or vmwright rebuild {name}" in said.err
    assert cloud.domain(name).isActive()
    assert [(a["object"], a["verb"]) for a in cloud.plan()["actions"]] == [(f"vm {name}", "wait until ready")]
    until(lambda: CONSOLE.strip() in Path(f"/var/log/libvirt/qemu/{name}.serial.log").read_text(errors="replace"))
    again = cloud.run("apply", "-y")
    assert again.code == 8, again.all
    assert "wait until ready" in again.out
    shown = again.err.partition("       last lines of its console:\n")[2]
    assert "Booting from Hard Disk" in shown and CONSOLE.strip() in shown, again.err
    assert "\x1b" not in again.err
    cloud.ok("destroy", name, "-y")
    assert left(cloud) == set()
    assert not Path(f"/var/log/libvirt/qemu/{name}.serial.log").exists()


def test_an_agent_that_cannot_be_installed_is_told_long_before_the_time_is_up(cloud: Kit) -> None:
    """By the line that the seed has the guest say on its console then, and what the package manager said."""
    cloud.write(vm(cloud, more="ready_timeout: 900"),
                template=_says(cloud, f"{AGENT_FAILED}\r\nE: Unable to locate package qemu-guest-agent\r\n"))
    name = f"{cloud.name}-a"
    said = cloud.run("apply", "-y", timeout=600)
    assert said.code == 8, said.all
    assert f"vm {name}: the guest agent could not be installed in the guest\n  why: its console says so\n" in said.err
    assert "E: Unable to locate package qemu-guest-agent\n" in said.err
    assert "do:  the image needs qemu-guest-agent, or a network from which its package can be installed" in said.err
    assert cloud.domain(name).isActive()


# -- images and room --------------------------------------------------------------------------------------------------

def test_an_image_that_is_noise(cloud: Kit) -> None:
    image = cloud.folder / "noise.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\x09" + os.urandom(1 << 20))
    _refuses(cloud, image, "noise.qcow2 is not a usable qcow2 image: its version is 9; 2 and 3 are known")


def test_an_image_that_was_cut_off(cloud: Kit) -> None:
    """A truncated qcow2 would turn into zeros silently."""
    whole, image = cloud.folder / "whole.raw", cloud.folder / "cut.qcow2"
    whole.write_bytes(os.urandom(8 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(whole), str(image)], check=True)
    os.truncate(image, 4 << 20)
    _refuses(cloud, image, "cut.qcow2 is damaged: qemu-img finds errors in it")


def _refuses(cloud: Kit, image: Path, what: str) -> None:
    cloud.write(vm(cloud), template=f"  blank: {{image: {image}, disk: 64M, firmware: bios}}\n")
    said = cloud.run("apply", "-y")
    assert said.code == 6, said.all
    assert f"First: template blank (make): {what}" in said.err
    assert "1 action failed, 2 actions done, 1 action not begun" in said.err
    assert "  do:  get the image again" in said.err
    assert left(cloud) == set()
    assert cloud.volumes() == set()
    cloud.write(vm(cloud))
    converges(cloud, "a")


@pytest.fixture
def small(cloud: Kit) -> Iterator[Path]:
    """The pool's directory is a file system of its own, of 4 GiB; where it is mounted."""
    image = cloud.folder / "small.img"
    with image.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    cloud.pool.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(cloud.pool)], check=True)
    (cloud.pool / "lost+found").rmdir()
    try:
        yield cloud.pool
    finally:
        until(lambda: subprocess.run(["umount", str(cloud.pool)], check=False).returncode == 0)


def test_an_image_that_uefi_cannot_boot(cloud: Kit) -> None:
    """The VM would stop in the firmware's shell, and never be ready."""
    cloud.write(vm(cloud).replace("firmware: bios, ", ""), template=f"  blank: {{image: {cloud.blank}, disk: 64M}}\n")
    said = cloud.run("apply", "-y")
    assert said.code == 6, said.all
    assert f"{cloud.blank} cannot be booted by UEFI: it has no EFI system partition" in said.err
    assert f"these VMs have firmware: uefi, and would stop in it: {cloud.name}-a" in said.err
    assert "write firmware: bios for the template, or give an image that is made for UEFI" in said.err
    assert (cloud.domains(), cloud.volumes()) == (set(), set())


def test_no_room_is_seen_in_the_plan(cloud: Kit, small: Path) -> None:
    """With figures, before anything is done."""
    cloud.write(vm(cloud, more="running: false, disk: 20G"))
    said = cloud.run("apply", "-y")
    assert said.code == 4, said.all
    assert f"pool {cloud.name}-pool of host here: the root disk of {cloud.name}-a wants 20G, and " in said.err
    assert "M are free" in said.err
    assert "ask for less, use another pool, or make room" in said.err
    assert "refused: nothing was changed" in said.err
    assert left(cloud) == set()


def test_room_that_goes_between_plan_and_apply(cloud: Kit, small: Path) -> None:
    """A clear error, everything taken back; with room again, the next apply does it all."""
    cloud.write(vm(cloud))
    filler = small / "filler"
    cloud.ok("apply", "-y")
    cloud.ok("destroy", f"{cloud.name}-a", "-y")
    said = cloud.run("apply", "-y", driver="tests.local.killer:fill", FILL=str(filler))
    assert said.code in (5, 6), said.all
    assert "No space left on device" in said.err
    assert "make room" in said.err
    assert "bug" not in said.err
    assert left(cloud) == {"filler"}
    filler.unlink()
    converges(cloud, "a")


# -- what is protected, what is not ours ------------------------------------------------------------------------------

def test_protect(cloud: Kit) -> None:
    """Neither rebuild nor destroy nor prune takes a protected VM, whatever is confirmed."""
    name = f"{cloud.name}-a"
    cloud.write(vm(cloud, more="running: false, protect: true"))
    cloud.ok("apply", "-y")
    disk = cloud.pool / f"{cloud.name}.{name}.root.qcow2"
    mark = disk.stat().st_ino
    rebuild = cloud.run("rebuild", name, "-y")
    assert rebuild.code == 4, rebuild.all
    assert f"vm {name} is protected: rebuild would throw its root disk away" in rebuild.err
    destroy = cloud.run("destroy", name, "-y")
    assert destroy.code == 4, destroy.all
    assert f"vm {name} is protected, and not destroyed" in destroy.err
    cloud.write(vm(cloud, "b"))
    prune = cloud.run("apply", "--prune", "-y", "--confirm", name)
    assert prune.code == 4, prune.all
    assert f"vm {name} is protected, and not destroyed" in prune.err
    assert "put it back into the file with `protect: false`" in prune.err
    assert cloud.domains() == {name}
    assert disk.stat().st_ino == mark
    cloud.write(vm(cloud))
    cloud.ok("apply", "-y")
    cloud.ok("destroy", name, "-y")
    assert left(cloud) == set()


def typed(cloud: Kit, *words: str, keys: str) -> Said:
    """vmwright with a terminal to ask at, and the answers typed; waits while another vmwright is at work."""
    for _ in range(150):
        said = _typed(cloud, *words, keys=keys)
        if said.code != BUSY:
            break
        time.sleep(2)
    return said


def _typed(cloud: Kit, *words: str, keys: str) -> Said:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, keys.encode())
        done = subprocess.run([sys.executable, "-m", "vmwright.cli.main", words[0], "-f", str(cloud.file), *words[1:]],
                              stdin=theirs, capture_output=True, text=True, cwd=cloud.folder, env=cloud.environment,
                              timeout=300, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    return Said(done.returncode, done.stdout, done.stderr)


def test_prune_asks_for_the_name(cloud: Kit) -> None:
    """A VM that is no longer in the file stays until its name is typed, or given."""
    cloud.write(vm(cloud) + vm(cloud, "b") + vm(cloud, "c"))
    cloud.ok("apply", "-y")
    cloud.write(vm(cloud))
    gone_b, gone_c = f"{cloud.name}-b", f"{cloud.name}-c"
    plain = cloud.ok("apply", "-y")
    assert f"vm {gone_b}" in plain.out
    assert "is no longer in the file; `vmwright apply --prune` removes it, with its disks" in plain.out
    for said in (cloud.run("apply", "--prune", "-y"), cloud.run("apply", "--prune", "-y", "--confirm", gone_b),
                 typed(cloud, "apply", "--prune", keys=f"{gone_b}\nno\n"),
                 typed(cloud, "apply", "--prune", keys=f"{gone_c}\n{gone_c}\n")):
        assert said.code == 64, said.all
        assert "it was not confirmed to " in said.err and "; nothing was changed" in said.err
        assert "type its name when asked, or say --confirm " in said.err
        assert cloud.domains() == {f"{cloud.name}-{name}" for name in "abc"}
    said = typed(cloud, "apply", "--prune", keys=f"{gone_b}\n{gone_c}\n")
    assert said.code == 0, said.all
    converges(cloud, "a")


def test_a_strange_vm_of_the_same_name(cloud: Kit) -> None:
    """It is refused, never touched, and never listed as ours."""
    name, other = f"{cloud.name}-a", f"{cloud.name}-other"
    for strange in (name, other):
        connection().defineXML(f"<domain type='qemu'><name>{strange}</name><memory unit='MiB'>32</memory>"
                               "<os><type arch='x86_64'>hvm</type></os></domain>")
    before = [cloud.domain(strange).XMLDesc() for strange in (name, other)]
    cloud.write(vm(cloud))
    said = cloud.run("apply", "-y")
    assert said.code == 4, said.all
    assert f"vm {name}: host here has a VM of that name already, which was not made by vmwright" in said.err
    assert "choose another name, or rename the other one (virsh domrename)" in said.err
    for strange in (name, other):
        destroy = cloud.run("destroy", strange, "-y")
        assert destroy.code == 4, destroy.all
        assert f"vm {strange} was not made by cloud {cloud.name}, and is not touched" in destroy.err
    cloud.write(vm(cloud, "b"))
    assert other not in cloud.ok("apply", "--prune", "-y").out
    assert other not in cloud.ok("status").out
    assert other not in cloud.ok("plan", "--prune", "-v").out
    assert [cloud.domain(strange).XMLDesc() for strange in (name, other)] == before


def test_a_name_that_nothing_has(cloud: Kit) -> None:
    """Neither the file nor a host: an error, whatever else is named; one that only the file has is just not there."""
    name = f"{cloud.name}-a"
    cloud.write(vm(cloud))
    for names in ([f"{name}b"], [name, f"{name}b"]):
        said = cloud.run("destroy", *names, "-y")
        assert (said.code, said.out) == (64, ""), said.all
        assert said.err == (f"error: there is no vm {name}b in the file, and no host has anything of it\n"
                            f"  do:  did you mean {name}?\n       see them: vmwright status\n")
    said = cloud.run("destroy", name, "-y")
    assert said.code == 0, said.all
    assert said.out.endswith(f"  vm {name}  is not there\n\nNothing to do.\n")


def test_a_second_apply_writes_nothing(cloud: Kit) -> None:
    """Definitions, volumes and the host's own files are the very same ones, and the journal has no new run."""
    cloud.write(vm(cloud) + vm(cloud, "b", "running: false, copy: full"))
    cloud.ok("apply", "-y")
    before = _everything(cloud)
    for _ in range(2):
        assert cloud.ok("apply", "-y").out.endswith("Nothing to do: everything is as the file says.\n")
    assert _everything(cloud) == before


def _everything(cloud: Kit) -> dict[str, object]:
    virt = connection()
    found: dict[str, object] = {name: cloud.domain(name).XMLDesc(2) for name in cloud.domains()}
    found["pool"] = virt.storagePoolLookupByName(f"{cloud.name}-pool").XMLDesc().partition("<target>")[2]
    networks = [network for network in virt.listAllNetworks() if network.name().startswith(cloud.name)]
    found |= {f"network {network.name()}": network.XMLDesc() for network in networks}
    files = [*cloud.pool.iterdir(), *Path(f"/var/lib/vmwright/{cloud.name}").rglob("*"),
             *Path("/etc/libvirt").rglob(f"{cloud.name}*"), *(cloud.folder / "state").rglob("*.jsonl")]
    found |= {str(file): (file.stat().st_ino, file.stat().st_mtime_ns, file.stat().st_size) for file in files}
    return found
