"""The probes on this machine: its shell, its QEMU, its qemu-img."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from vmwright.facts import health, kvm, probes
from vmwright.facts.model import Kvm, PathFacts, VolumeFacts
from vmwright.session import Sessions
from vmwright.spec.cloud import HostSpec

QEMU = shutil.which("qemu-system-x86_64") or ""


def shell(text: str) -> str:
    """What /bin/sh prints."""
    return subprocess.run(["sh", "-s"], input=text.encode(), capture_output=True, check=True).stdout.decode()


def run(folder: Path, **options: str) -> tuple[Kvm, str]:
    """The KVM probe's verdict. /dev/null stands for /dev/kvm: it is there on every machine."""
    options = {"qemu": QEMU, "options": "-accel tcg -cpu max", "run": str(folder), "device": "/dev/null"} | options
    return kvm.parse(shell(kvm.script(**options)))


def test_the_firmware_runs_in_a_real_qemu(tmp_path: Path) -> None:
    assert run(tmp_path) == (Kvm.WORKS, "")
    assert (tmp_path / "kvm").read_text().splitlines()[1:] == ["works"]


def test_a_guest_without_sse_is_not_one_that_works(tmp_path: Path) -> None:
    """The firmware does touch the unit: a CPU of 1989 has none, and the guest resets."""
    assert run(tmp_path, options="-accel tcg -cpu 486") == (Kvm.BROKEN, "QEMU ended with code 0")


def test_a_guest_that_hangs_is_ended(tmp_path: Path) -> None:
    """Stopped before its first instruction (-S), the guest never reports."""
    assert run(tmp_path, options="-accel tcg -cpu max -S") == (
        Kvm.BROKEN, "a guest started under KVM did not get through its first instructions in 5 s")


def test_a_qemu_that_refuses_is_quoted(tmp_path: Path) -> None:
    verdict, reason = run(tmp_path, options="-accel tcg -cpu nonsense")
    assert verdict is Kvm.BROKEN
    assert "nonsense" in reason


def test_no_kvm_and_no_qemu(tmp_path: Path) -> None:
    assert run(tmp_path, device="/dev/not-there") == (Kvm.ABSENT, "there is no /dev/not-there")
    assert run(tmp_path, qemu="/not/there") == (Kvm.ABSENT, "QEMU is not installed") or os.path.exists(
        "/usr/libexec/qemu-kvm")


def test_the_result_is_kept_until_something_changes(tmp_path: Path) -> None:
    run(tmp_path)
    kept = tmp_path / "kvm"
    key = kept.read_text().splitlines()[0]
    kept.write_text(f"{key}\nbroken as was said before\n")
    assert run(tmp_path) == (Kvm.BROKEN, "as was said before")
    kept.write_text(f"another QEMU\nbroken as was said before\n{key}\n")
    assert run(tmp_path) == (Kvm.WORKS, "")
    kept.write_text(f"{key}\n")
    assert run(tmp_path) == (Kvm.WORKS, "")


def test_a_guest_that_hung_on_a_busy_host_is_tried_again(tmp_path: Path) -> None:
    run(tmp_path)
    kept = tmp_path / "kvm"
    key = kept.read_text().splitlines()[0]
    kept.write_text(f"{key}\nbroken did not get through its first instructions in 5 s\n")
    assert run(tmp_path)[0] is Kvm.BROKEN
    os.utime(kept, (0, 0))
    assert run(tmp_path) == (Kvm.WORKS, "")


def test_every_probe_answers_here() -> None:
    outputs = probes.split(shell(probes.script(probes.commands("none", {"/var/lib"}))))
    probes.demand(outputs, "here")
    assert probes.parse_count(outputs["cpus"].text) == os.cpu_count()
    assert probes.parse_meminfo(outputs["memory"].text)[0] > 0
    assert "lo" in {link.name for link in probes.parse_links(outputs["links"].text)}
    assert "qemu-img" in outputs["tools"].text.split()
    assert kvm.parse(outputs["kvm"].text)[0] in Kvm


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look as another user")
def test_which_directory_is_closed_to_qemu(tmp_path: Path) -> None:
    """pytest's own directories are closed to everybody else."""
    try:
        pwd.getpwnam("libvirt-qemu")
    except KeyError:
        pytest.skip("there is no user libvirt-qemu here")
    inner = tmp_path / "a b" / "c"
    found = {path.path: path for path in paths(str(inner), "/", "/usr/not/there", str(tmp_path))}
    closed = found[str(inner)].blocked_by
    assert closed and str(inner).startswith(closed) and found[str(tmp_path)].blocked_by == closed
    assert not found[str(inner)].exists and found[str(tmp_path)].exists
    assert (found["/"].blocked_by, found["/usr/not/there"].blocked_by) == (None, None)
    assert all(path.available > 0 for path in found.values())
    mounted = {row.split()[1]: row.split()[2] for row in Path("/proc/mounts").read_text().splitlines()}
    assert found["/"].filesystem == mounted["/"]


def paths(*wanted: str) -> tuple[PathFacts, ...]:
    """What is known of these directories."""
    text = shell(probes.script({"paths": probes.commands("none", wanted)["paths"]}))
    return probes.parse_paths(probes.split(text)["paths"].text)


def test_volumes_are_read_from_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "odd name's pool"
    folder.mkdir()
    base, root = folder / "lab.base.template-1.qcow2", folder / "lab.web.root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "64M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(root), "128M"],
                   check=True)
    (folder / "lab.web.seed.iso").write_bytes(bytes(4096))
    (folder / "lab.torn.root.qcow2").write_text("not an image")
    (folder / "theirs.web.root.qcow2").write_text("not ours")
    text = shell(probes.script({"files": probes.commands("lab", (), [str(folder), "/not/there"])["files"]}))
    found = {v.name: v for v in probes.parse_files(probes.split(text)["files"].text, {str(folder): "vms"})}
    assert found.keys() == {base.name, root.name, "lab.web.seed.iso"}
    assert found[root.name] == VolumeFacts("vms", root.name, str(root), "qcow2", 128 << 20, found[root.name].allocation,
                                           str(base))
    assert (found["lab.web.seed.iso"].format, found["lab.web.seed.iso"].capacity) == ("raw", 4096)


def test_an_image_in_use_is_read_all_the_same(tmp_path: Path) -> None:
    """A running VM holds QEMU's lock on its image."""
    image = tmp_path / "lab.web.root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"], check=True)
    argv = [QEMU, "-accel", "tcg", "-M", "q35", "-m", "64", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio",
            "-drive", f"file={image},format=qcow2,if=none,id=d", "-device", "virtio-blk,drive=d"]
    guest = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert guest.stdout is not None and b"QMP" in guest.stdout.readline()  # it has opened its disk by then
        text = shell(probes.script({"files": probes.commands("lab", (), [str(tmp_path)])["files"]}))
        found = probes.parse_files(probes.split(text)["files"].text, {str(tmp_path): "vms"})
        assert [volume.capacity for volume in found] == [64 << 20]
    finally:
        guest.kill()
        guest.communicate()


def test_what_doctor_asks_of_this_machine() -> None:
    """Both probes, whole, by the way that doctor goes: what /proc and /sys have is what is told."""
    with Sessions((HostSpec("here", "local"),)) as sessions:
        found, clock = health.read_health(sessions["here"]), health.read_clock(sessions["here"])
    flags = Path("/proc/cpuinfo").read_text().split()
    assert found.virtualisation == next((flag for flag in flags if flag in ("vmx", "svm")), "")
    assert found.guest == ("hypervisor" in flags)
    assert found.forwarding == (Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1")
    assert dict(found.filter) == {path.name: int(path.read_text())
                                  for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*")}
    user = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    assert found.login in (user, pwd.getpwuid(os.getuid()).pw_name) and found.groups
    assert found.denials is not None
    assert abs(clock.ahead) <= clock.within + 0.001, "it is the same clock"


def test_vfio_is_where_the_kernel_says() -> None:
    release = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    listed = Path(f"/lib/modules/{release}/modules.dep")
    with Sessions((HostSpec("here", "local"),)) as sessions:
        found = health.read_health(sessions["here"]).vfio
    if Path("/sys/bus/pci/drivers/vfio-pci").is_dir():
        assert found == "loaded"
    else:
        assert found == ("module" if listed.exists() and "/vfio-pci.ko" in listed.read_text() else "")
