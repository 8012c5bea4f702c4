"""What a user can get wrong with a rack: words and exit code, never a traceback; and nothing is left behind."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vmwright.cli.main import main
from vmwright.host.daemon import Process
from vmwright.rack import accel, firmware, image, process, record
from vmwright.rack.contents import Image
from vmwright.rack.record import Disks
from vmwright.rack.shape import load

Ran = Callable[..., tuple[object, str, str]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def rack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run `vmwright rack WORDS`: exit code, output, errors."""

    def run(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["vmwright", "rack", *words])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and "a bug in vmwright" not in err
        return code, out, err

    return run


@pytest.mark.parametrize("command", ["ssh", "status", "reset", "down"])
def test_a_rack_that_is_not_there(rack: Ran, command: str) -> None:
    assert rack(command, "lab") == (64, "", "error: there is no rack lab\n  do:  make it: vmwright rack up lab\n")


@pytest.mark.parametrize("command", ["up", "ssh", "status", "reset", "down"])
def test_a_name_that_cannot_be(rack: Ran, command: str) -> None:
    code, _, err = rack(command, "../lab")
    assert code == 64 and err.startswith("error: '../lab' cannot be the name of a rack\n")


def test_no_rack_at_all(rack: Ran) -> None:
    assert rack("status") == (0, "There is no rack yet: vmwright rack up\n", "")
    assert rack("status", "--json") == (0, "[]\n", "")


def test_a_rack_that_is_off(rack: Ran) -> None:
    record.enroll("lab", 22555)
    assert rack("ssh", "lab", "true") == (
        64, "", "error: rack lab is off\n  do:  bring it up: vmwright rack up lab\n")
    code, out, _ = rack("status", "lab")
    assert code == 0 and out.startswith("rack lab: off\n")
    assert "connect: ssh://root@127.0.0.1:22555, ssh_config: " in out
    assert rack("down", "lab") == (0, "rack lab: off already\n", "")
    assert rack("down", "lab", "--remove", "-y")[1] == "rack lab: removed\n"
    assert record.everyone() == []


@pytest.mark.parametrize("words", [("reset", "lab"), ("down", "lab", "--remove")])
def test_nobody_can_be_asked(rack: Ran, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    made = record.enroll("lab", None)
    (made.folder / "nvme-A.img").write_text("data")
    with open("/dev/null") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert rack(*words) == (
            64, "", "error: there is nobody to ask\n  do:  say -y to do it without a question\n")
    assert (made.folder / "nvme-A.img").read_text() == "data"


def test_a_mistake_in_the_shape_file(rack: Ran) -> None:
    Path("small.yaml").write_text("sockets: 1\nmemorry: 1G\n")
    assert rack("up", "--shape", "small.yaml") == (
        3, "", "error: small.yaml:2:1: memorry: unknown key\n    did you mean memory?\n1 problem in the file\n")
    assert rack("up", "--shape", "none.yaml")[0] == 64
    assert record.everyone() == []


def test_too_little_memory(rack: Ran) -> None:
    Path("big.yaml").write_text("memory: 8T\n")
    code, _, err = rack("up", "--shape", "big.yaml", "--accelerator", "qemu")
    assert code == 5
    assert re.match(r"error: there is too little memory for the rack: it takes 16\.0T, and [\d.]+[MG] are available\n"
                    r"  why: 8T \+ 8T for its nodes, 1\.5G for QEMU\n"
                    r"  do:  give it less with a shape file \(memory: 1G\), or stop something else\n", err), err
    assert record.everyone() == []


def test_no_qemu(rack: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rack("up") == (5, "", (
        "error: this machine cannot run a rack: qemu-system-x86_64, qemu-img, ssh, ssh-keygen missing\n"
        "  do:  apt-get install qemu-system-x86 qemu-utils openssh-client\n"))


def test_no_firmware(rack: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "folders", lambda: (tmp_path,))
    code, _, err = rack("up")
    assert code == 5 and err.startswith("error: there is no UEFI firmware (OVMF) for the rack here\n")


def test_no_kvm(rack: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "probe", lambda: (accel.Kvm.ABSENT, "there is no /dev/kvm"))
    code, _, err = rack("up", "--accelerator", "kvm")
    assert code == 5 and err.startswith("error: KVM does not work on this machine\n  why: there is no /dev/kvm\n")


@pytest.fixture
def small() -> str:
    """A shape that fits everywhere."""
    Path("small.yaml").write_text("sockets: 1\nmemory: 512M\nnvme: []\n")
    return "small.yaml"


def test_a_port_that_is_taken(rack: Ran, small: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = rack("up", "lab", "--shape", small, "--accelerator", "qemu", "--port", str(port))
    assert code == 64
    assert err.splitlines()[-3:] == [
        f"error: port {port} of this machine, which rack lab has for ssh, is taken",
        "  why: another program listens on it", "  do:  name another: vmwright rack up lab --port N"]


def test_a_rack_that_is_up_already(rack: Ran) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        stat = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        record.write(replace(record.enroll("lab", None), process=Process(other.pid, int(stat[19]), boot)))
        assert rack("up", "lab") == (64, "", (
            f"error: rack lab is up already\n  why: its QEMU is process {other.pid}\n"
            "  do:  log in: vmwright rack ssh lab\n       start anew: vmwright rack reset lab\n"))
        other.kill()


def test_an_image_that_is_gone(rack: Ran, small: str, tmp_path: Path) -> None:
    made = record.enroll("lab", None)
    record.write(replace(made, disks=Disks(Image.BARE, str(tmp_path / "gone.qcow2"), load(small))))
    code, _, err = rack("up", "lab", "--accelerator", "qemu")
    assert (code, err.splitlines()[-2:]) == (5, [
        f"error: the image that rack lab stands on is gone: {tmp_path}/gone.qcow2",
        "  do:  start with fresh disks: vmwright rack reset lab"])


def test_a_build_that_fails_leaves_no_disks(rack: Ran, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    code, _, err = rack("up", "lab", "--shape", small, "--accelerator", "qemu")
    assert code == 5 and "only root can build it" in err
    made = record.read("lab")
    assert made is not None and made.disks is None and not process.is_up(made)
    assert not image.place(Image.READY).exists()
