"""What starts VMs when a host boots, run for real on this machine's libvirt; and what a host without systemd gets."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest
from tests.local.kit import Kit, connection

from vmwright.boot import files
from vmwright.boot.files import Row
from vmwright.facts import boot
from vmwright.names import start_list

ON, PAUSED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED


def vms(cloud: Kit, *names: str, more: str = "") -> str:
    """VMs that are made whole but not started; there is nothing on their disks that could boot."""
    return "".join(
        f"  {cloud.name}-{name}: {{template: blank, firmware: bios, memory: 64M, running: false, pool: "
        f"{cloud.name}-pool, network: {cloud.name}-net, address: {cloud.subnet}.{10 + n}{more}}}\n"
        for n, name in enumerate(names))


def start(folder: Path, *clouds: tuple[str, list[Row]]) -> tuple[int, list[str]]:
    """Run the script on lists in a folder of its own. Its exit code, and what it said."""
    for name, rows in clouds:
        (folder / name).mkdir()
        (folder / name / "autostart").write_text(files.list_text(rows))
    script = folder / "script"
    script.write_text(files.script())
    done = subprocess.run(["sh", str(script), str(folder)], capture_output=True, text=True, timeout=300)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


@contextmanager
def meanwhile(step: Callable[[], bool]) -> Iterator[None]:
    """Try a step again and again, in a thread, until it says that it was done."""
    def work() -> None:
        while not done.is_set() and not step():
            time.sleep(0.2)

    done = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_one_order_after_the_other_and_what_fails_holds_up_nothing_else(cloud: Kit, tmp_path: Path) -> None:
    cloud.write(vms(cloud, "a", "b", "c", "d", "e", "f"))
    cloud.ok("apply", "-y")
    a, b, c, d, e, f = (f"{cloud.name}-{name}" for name in "abcdef")
    (cloud.pool / f"{cloud.name}.{d}.root.qcow2").unlink()
    cloud.domain(b).create()
    cloud.domain(f).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    with meanwhile(lambda: runs(c) and cloud.domain(c).suspend() == 0):
        code, said = start(tmp_path, ("lab", [
            Row("1", a, 3), Row("1", b), Row("1", d), Row("2", c, 600), Row("10", f), Row("-", "no-such-vm"),
            Row("-", e)]))
    assert code == 1
    assert [cloud.domain(name).state()[0] for name in (a, b, c, e, f)] == [ON, ON, PAUSED, ON, PAUSED]
    heads = [line for line in said if ": order " in line or "without an order" in line]
    assert heads == [f"lab: order 1: {a} {b} {d}", f"lab: order 2: {c}", f"lab: order 10: {f}",
                     f"lab: those without an order: no-such-vm {e}"]
    parts = {head: set(rest) for head, *rest in split(said, heads)}
    gone = str(cloud.pool / f"{cloud.name}.{d}.root.qcow2")
    assert parts[heads[0]] == {
        f"lab: {a} is started", f"lab: {b} runs already",
        f"<3>lab: {d} does not start: Failed to start domain '{d}' Cannot access storage file '{gone}' (as uid:64055, "
        f"gid:64055): No such file or directory",
        f"<3>lab: {a} has not answered for 3 s, and the others go on without it: Guest agent is not responding: QEMU "
        "guest agent is not connected"}
    assert parts[heads[1]] == {
        f"lab: {c} is started",
        f"<3>lab: {c} is not waited for any longer, and the others go on without it: paused (user)"}
    assert parts[heads[2]] == {f"<3>lab: {f} is not started: paused (user)"}
    assert parts[heads[3]] == {"<3>lab: no-such-vm is not started: there is no such VM", f"lab: {e} is started"}


def test_a_vm_that_goes_off_is_not_waited_for_and_clouds_do_not_wait_for_each_other(cloud: Kit, tmp_path: Path) -> None:
    cloud.write(vms(cloud, "a", "b", "c"))
    cloud.ok("apply", "-y")
    a, b, c = (f"{cloud.name}-{name}" for name in "abc")
    # It is pulled out when the other cloud is through: were that one to wait, nobody would.
    with meanwhile(lambda: runs(a) and runs(c) and cloud.domain(a).destroy() == 0):
        code, said = start(tmp_path, ("one", [Row("1", a, 600), Row("2", b)]), ("two", [Row("5", c)]))
    assert code == 1
    assert said.index(f"<3>one: {a} is not waited for any longer, and the others go on without it: shut off "
                      "(destroyed)") < said.index(f"one: {b} is started")
    assert [runs(name) for name in (a, b, c)] == [False, True, True]


def test_all_well_is_code_0_also_the_second_time_and_with_many(cloud: Kit, tmp_path: Path) -> None:
    """More than start at once."""
    names = [f"n{n}" for n in range(11)]
    cloud.write(vms(cloud, *names))
    cloud.ok("apply", "-y")
    rows = [Row("1", f"{cloud.name}-{name}") for name in names]
    code, said = start(tmp_path, ("lab", rows))
    assert code == 0 and {*said} == {f"lab: order 1: {' '.join(row.name for row in rows)}",
                                     *(f"lab: {row.name} is started" for row in rows)}
    (tmp_path / "again").mkdir()
    code, said = start(tmp_path / "again", ("lab", rows))
    assert code == 0 and said[1:] and all(line.endswith(" runs already") for line in said[1:])
    (tmp_path / "none").mkdir()
    assert start(tmp_path / "none") == (0, [])


def test_a_line_that_is_none_is_told(cloud: Kit, tmp_path: Path) -> None:
    cloud.write(vms(cloud, "a"))
    cloud.ok("apply", "-y")
    (tmp_path / "lab").mkdir()
    wrong = ["1 a;b - 0", "one a - 0", "1 -a - 0", "1 a ssh 0", "1 a - x", "1 a", "1 a - 0 more", "1 $(id) - 0"]
    (tmp_path / "lab" / "autostart").write_text("\n".join(["# mark", "", *wrong, f"1 {cloud.name}-a - 0"]))
    (tmp_path / "script").write_text(files.script())
    done = subprocess.run(["sh", str(tmp_path / "script"), str(tmp_path)], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and len(lines) == len(wrong) + 2
    assert all("is not understood, and left out: " in line for line in lines[:len(wrong)])
    assert lines[-1] == f"lab: {cloud.name}-a is started"


def runs(name: str) -> bool:
    """A VM that is just being started is active, too, but paused."""
    return bool(connection().lookupByName(name).state()[0] == ON)


def split(lines: list[str], heads: list[str]) -> Iterator[list[str]]:
    """The lines in parts, each beginning with one of the heads."""
    places = [lines.index(head) for head in heads]
    assert places == sorted(places) and places[0] == 0
    for first, end in zip(places, [*places[1:], len(lines)], strict=True):
        yield lines[first:end]


def test_the_probe_finds_the_lists(cloud: Kit) -> None:
    path = Path(start_list(cloud.name))
    path.parent.mkdir(parents=True)
    text = files.list_text([Row("1", "web", 60)])
    path.write_text(text)
    found = boot.parse(said(cloud.name, wanted=False))
    assert found.order == text and cloud.name not in found.others
    assert found.systemd == Path("/run/systemd/system").is_dir()
    assert cloud.name in boot.parse(said("another", wanted=True)).others


def said(cloud: str, *, wanted: bool) -> str:
    (argv,) = boot.commands(cloud, wanted).values()
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here, and would start the VMs")
def test_where_systemd_does_not_run_libvirt_starts_them(cloud: Kit) -> None:
    cloud.write(vms(cloud, "a", "b", more=", autostart: true").replace("autostart: true", "autostart: {order: 1}", 1))
    applied = cloud.ok("apply", "-y")
    assert "host here does not run systemd: the order in which VMs start is kept by `vmwright apply`" in applied.out
    assert [cloud.domain(f"{cloud.name}-{name}").autostart() for name in "ab"] == [1, 1]
    assert cloud.plan()["actions"] == [] and not Path(start_list(cloud.name)).exists()
    assert not Path(files.UNIT_PATH).exists() and not Path(files.SCRIPT_PATH).exists()
