"""The micro guest for real: built from Debian's packages, two VMs of it through their lives, in the order of the tests.

vmwright knows nothing of this guest: what is proved here is that it keeps to the contract of any other image.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.kit import Kit, connection, kit
from tests.local.test_boot import start as start_in_order

from vmwright.boot.files import Row
from vmwright.guest.agent import Agent, must
from vmwright.host.local import LocalHost
from vmwright.image import micro
from vmwright.image.micro_report import Report, reports
from vmwright.virt.connect import Connection
from vmwright.virt.design import serial_log

MIB, GIB = 1 << 20, 1 << 30


def text(cloud: Kit, *, disk: str = "1G") -> None:
    """The file: one VM with a data disk and commands; a second one, by BIOS, with less memory, and DHCP, too."""
    cloud.write(
        template="  micro: {image: ./micro.qcow2, disk: 512M}\n"
                 "  bios: {image: ./micro.qcow2, disk: 512M, firmware: bios}\n",
        more=f"defaults: {{network: {cloud.name}-net, memory: 160M}}\n",
        vms=f"""\
  {cloud.name}-1:
    template: micro
    disk: {disk}
    memory: 192M
    nics:
      - {{network: {cloud.name}-net, address: {cloud.subnet}.11}}
      - {{network: {cloud.name}-net, address: {cloud.subnet}.21}}
    disks: {{data: {{size: 128M, filesystem: ext4, mount: /srv}}}}
    write_files: [{{path: /etc/made-by, content: "vmwright: 'yes' \\"no\\"\\n", mode: "0640"}}]
    runcmd: [echo ran >> /root/ran]
  {cloud.name}-2:
    template: bios
    nics:
      - {{network: {cloud.name}-net, address: {cloud.subnet}.12}}
      - {{network: {cloud.name}-net}}
    running: true
""")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """Two VMs, applied once."""
    folder = tmp_path_factory.mktemp("micro")
    began = time.monotonic()
    built = micro.build(LocalHost("here"), str(folder / "micro.qcow2"), str(folder / "work"),
                        progress=lambda sentence, share: None, kept=str(folder / "kept"))
    print(f"built in {time.monotonic() - began:.0f} s, {Path(built.path).stat().st_size / MIB:.1f} MiB")
    with kit(folder) as made:
        text(made)
        began = time.monotonic()
        said = made.ok("apply", "-y")
        print(f"apply from nothing: {time.monotonic() - began:.0f} s\n{said.out}")
        yield made


@pytest.fixture
def one(cloud: Kit) -> str:
    return f"{cloud.name}-1"


@pytest.fixture
def two(cloud: Kit) -> str:
    return f"{cloud.name}-2"


def inside(vm: str, script: str) -> str:
    """What a script says in a guest, through its agent."""
    with Connection("qemu:///system", "here") as virt:
        return must(Agent(virt.agent(vm)), ["sh", "-c", script]).strip()


def told(vm: str) -> Report:
    """The last report on a guest's console."""
    return reports(Path(serial_log(vm)).read_text(errors="replace"))[-1]


def nothing_to_do(cloud: Kit) -> None:
    plan = cloud.plan()
    assert (plan["actions"], plan["refused"]) == ([], []), plan


def test_the_image_is_small_and_kept(cloud: Kit, tmp_path: Path) -> None:
    """A second call takes what the first has made."""
    image = cloud.folder / "micro.qcow2"
    assert image.stat().st_size < 80 * MIB
    again = micro.build(LocalHost("here"), str(tmp_path / "micro.qcow2"), str(tmp_path / "work"),
                        progress=lambda sentence, share: None, kept=str(cloud.folder / "kept"))
    assert Path(again.path).read_bytes() == image.read_bytes()
    assert again.manifest.keys() >= {"qemu-guest-agent", "busybox-static", "syslinux"}
    assert not (tmp_path / "work").exists()
    assert not (cloud.folder / "work").exists()


def test_both_are_ready_and_nothing_is_left_to_do(cloud: Kit) -> None:
    rows = cloud.status()
    assert {(row["state"], row["health"], row["drift"]) for row in rows.values()} == {("running", "ok", "-")}
    addresses = [row["address"].split(", ") for row in rows.values()]
    assert (addresses[0], addresses[1][0]) == ([f"{cloud.subnet}.11", f"{cloud.subnet}.21"], f"{cloud.subnet}.12")
    assert "Nothing to do" in cloud.ok("apply", "-y").out


def test_what_the_guest_says_by_its_agent(cloud: Kit, one: str, two: str) -> None:
    assert [inside(vm, "hostname; nproc") for vm in (one, two)] == [f"{one}\n1", f"{two}\n1"]
    assert inside(one, "ip -4 -o address show scope global | awk '{ print $2, $4 }'").splitlines() == [
        f"net0 {cloud.subnet}.11/24", f"net1 {cloud.subnet}.21/24"]
    told_by_dhcp = inside(two, "ip -4 -o address show dev net1 | awk '{ print $4 }'")
    assert told_by_dhcp.startswith(f"{cloud.subnet}.")
    assert inside(two, "ip route | grep default").split() == ["default", "via", f"{cloud.subnet}.1", "dev", "net0"]
    assert inside(two, f"ping -c 1 -W 10 {cloud.subnet}.11 > /dev/null && echo there") == "there"
    assert inside(one, f"getent hosts {one}").startswith(f"{cloud.subnet}.11 ")
    memory = int(inside(one, "awk '$1 == \"MemTotal:\" { print $2 }' /proc/meminfo")) * 1024
    assert 130 * MIB < memory < 192 * MIB


def test_the_report_on_the_console(cloud: Kit, one: str, two: str) -> None:
    report = told(one)
    assert (report.host, report.cpus) == (one, 1)
    assert report.instance == inside(one, "cat /var/lib/cloud/data/instance-id")
    assert 130 * MIB < report.memory < 192 * MIB
    assert [nic.addresses for nic in report.nics] == [(f"{cloud.subnet}.11/24",), (f"{cloud.subnet}.21/24",)]
    sizes = {disk.serial: disk.size for disk in report.disks}
    assert sizes["root"] == GIB
    assert sizes["data"] == 128 * MIB
    assert told(two).host == two


def test_what_the_seed_says_is_done(one: str) -> None:
    assert inside(one, "cat /etc/made-by; stat -c %a /etc/made-by; cat /root/ran") == "vmwright: 'yes' \"no\"\n640\nran"
    assert inside(one, "awk '$2 == \"/srv\" { print $3 }' /proc/mounts") == "ext4"
    assert inside(one, "readlink -f /dev/disk/by-id/virtio-data") == "/dev/vdb"
    assert int(inside(one, "stat -f -c '%S %b' / | awk '{ print $1 * $2 }'")) > 0.85 * GIB


def test_ssh_knows_the_guest_by_its_key(cloud: Kit, one: str) -> None:
    said = cloud.run("ssh", one, "hostname; sudo -n id -u")
    assert said.out.split() == [one, "0"], said.all


def test_each_guest_is_its_own(one: str, two: str) -> None:
    ids = [inside(vm, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub") for vm in (one, two)]
    assert ids[0].split()[0] != ids[1].split()[0]
    assert ids[0].split()[2] != ids[1].split()[2]
    assert re.fullmatch("[0-9a-f]{32}", ids[0].split()[0])


def test_the_root_grows_while_it_runs(cloud: Kit, one: str) -> None:
    began = inside(one, "cat /proc/sys/kernel/random/boot_id")
    said = cloud.ok("set", f"vms.{one}.disk=2G", "--apply", "-y")
    assert "1G -> 2G" in said.out
    assert int(inside(one, "stat -f -c '%S %b' / | awk '{ print $1 * $2 }'")) > 1.85 * GIB
    assert inside(one, "cat /proc/sys/kernel/random/boot_id") == began
    nothing_to_do(cloud)


def test_a_cpu_and_a_disk_come_while_it_runs(cloud: Kit, one: str) -> None:
    began = inside(one, "cat /proc/sys/kernel/random/boot_id")
    file = cloud.file.read_text()
    cloud.file.write_text(file.replace("disks: {data:", "vcpus: 2\n    disks: {more: 64M, data:"))
    cloud.ok("apply", "-y")
    assert inside(one, "nproc") == "2"
    link = "/dev/disk/by-id/virtio-more"  # a PCI slot takes its time
    block = f"/sys/block/$(basename $(readlink {link}))"
    size = inside(one, f"until [ -e {link} ]; do usleep 100000; done; cat {block}/size")
    assert int(size) == 64 * MIB // 512
    assert inside(one, "cat /proc/sys/kernel/random/boot_id") == began
    nothing_to_do(cloud)


def test_stop_by_the_power_button_and_start(cloud: Kit, two: str) -> None:
    before = inside(two, "cat /etc/machine-id; touch /root/kept; cat /proc/sys/kernel/random/boot_id").split()
    cloud.ok("stop", two)
    assert not cloud.domain(two).isActive()
    cloud.ok("start", two)
    after = inside(two, "cat /etc/machine-id; ls /root/kept; cat /proc/sys/kernel/random/boot_id").split()
    assert (after[0], after[1]) == (before[0], "/root/kept")
    assert after[2] != before[1]
    nothing_to_do(cloud)


def test_the_agent_can_reboot_it(cloud: Kit, two: str) -> None:
    began = inside(two, "cat /proc/sys/kernel/random/boot_id")
    cloud.domain(two).reboot(2)  # VIR_DOMAIN_REBOOT_GUEST_AGENT
    until = time.monotonic() + 240
    while time.monotonic() < until:
        time.sleep(1)
        if cloud.status()[two]["health"] == "ok" and inside(two, "cat /proc/sys/kernel/random/boot_id") != began:
            break
    assert inside(two, "cat /proc/sys/kernel/random/boot_id") != began
    assert len(reports(Path(serial_log(two)).read_text(errors="replace"))) >= 2


def test_rebuild_makes_a_new_guest_and_keeps_the_data_disk(cloud: Kit, one: str) -> None:
    look = "cat /etc/machine-id /var/lib/cloud/data/instance-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"
    before = inside(one, look).split()
    inside(one, "echo precious > /srv/file; touch /root/old; sync")
    cloud.ok("rebuild", one, "-y")
    after = inside(one, look).split()
    assert not set(before) & set(after)
    assert inside(one, "cat /srv/file; ls /root") == "precious\nran"
    assert cloud.run("ssh", one, "--", "hostname").out.strip() == one
    nothing_to_do(cloud)


def test_the_next_order_starts_when_it_answers(cloud: Kit, one: str, two: str, tmp_path: Path) -> None:
    """What starts VMs when their host boots waits for the agent of a real guest, and no longer."""
    cloud.ok("stop", one)
    code, said = start_in_order(tmp_path, ("lab", [Row("1", one, 900), Row("2", two)]))
    assert code == 0, said
    assert said[:2] == [f"lab: order 1: {one}", f"lab: {one} is started"]
    assert re.fullmatch(f"lab: {one} answers after [0-9]+ s", said[2])
    assert said[3:] == [f"lab: order 2: {two}", f"lab: {two} runs already"]
    assert inside(one, "hostname") == one


def test_what_it_cannot_do_is_told(cloud: Kit, two: str) -> None:
    file = cloud.file.read_text()
    cloud.file.write_text(file.replace("    running: true\n", "    timezone: Europe/Berlin\n"))
    said = cloud.ok("apply", "-y", "--restart")
    assert "the micro guest does nothing for timezone" in said.out
    nothing_to_do(cloud)


def test_it_says_why_a_command_failed(cloud: Kit, two: str) -> None:
    file = cloud.file.read_text()
    cloud.file.write_text(file.replace("    timezone: Europe/Berlin\n", "    runcmd: [no-such-command --here]\n"))
    said = cloud.run("apply", "-y", "--restart")
    assert said.code != 0
    assert "runcmd ended with code 127" in said.err
    assert "no-such-command: not found" in said.err
    assert connection().lookupByName(two).isActive()
