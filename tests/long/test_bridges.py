"""Bridges made over the very NIC that the session comes in by: the good way, and every accident that could cut it off.

Each accident ends with a host that is reached as before, by itself, with the files that it had.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.rack import kit
from tests.rack.kit import SOURCES, sh

from vmwright.apply.bridges import make_bridges
from vmwright.apply.context import Context
from vmwright.apply.journal import Journal
from vmwright.errors import ApplyError
from vmwright.facts.gather import gather
from vmwright.names import FILTER_SETTINGS, NETWORK_STATE, before_note
from vmwright.plan.diff import make_plan
from vmwright.plan.host_actions import MakeBridges
from vmwright.rack import boot, process, qmp, shape
from vmwright.rack.contents import Image
from vmwright.rack.machine import QMP
from vmwright.rack.record import Record
from vmwright.session import Sessions
from vmwright.spec.load import load
from vmwright.state import State

SMALL = b"""\
sockets: 1
cores: 2
threads: 1
memory: 1G
nvme: []
nics:
  - {name: eno1, network: outside}
  - {name: eno2, network: private}
  - {name: eno3, network: private}
  - {name: eno4, network: private}
iommu: false
"""
MINE = "/etc/netplan/10-rack.yaml"
OWN = "/etc/netplan/99-vmwright-br0.yaml"
LIMIT = 40  # seconds; netplan alone takes some ten of them on emulated CPUs
AT_HOME = "10.0.2.15/24"
BR0 = f"br0: {{nic: eno1, addresses: [{AT_HOME}], timeout: {LIMIT}}}"
BR20 = "br20: {nic: eno2, vlan: 20, addresses: [10.20.0.5/24, 10.21.0.5/24], stp: true, forward_delay: 4}"
SLACK = 120  # seconds beyond the limit for a busy machine to boot nothing and answer again


@pytest.fixture(scope="module")
def bare() -> Iterator[Record]:
    """A plain server with netplan, whose one way in is eno1."""
    yield kit.up("bridge", process.Wish(shape.read("small.yaml", SMALL), Image.BARE))
    process.down("bridge", force=True, remove=True)


class Desk:
    """A cloud's file whose host is the rack, and vmwright at work on it."""

    def __init__(self, rack: Record, folder: Path) -> None:
        self.rack, self.folder = rack, folder

    def write(self, bridges: str) -> None:
        (self.folder / "cloud.yaml").write_text(
            f"cloud: lab\nhosts:\n  rack:\n    connect: ssh://root@127.0.0.1:{self.rack.port}\n"
            f"    ssh_config: {self.rack.folder / 'ssh_config'}\n    bridges: {{{bridges}}}\n"
            "networks:\n  lan: {bridge: br0, subnet: 10.0.2.0/24}\n")

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run vmwright on the file, in a session of its own."""
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), "COLUMNS": "200"}
        return subprocess.Popen([sys.executable, "-m", "vmwright.cli.main", words[0], "-f", "cloud.yaml", *words[1:]],
                                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self, *words: str) -> tuple[int, str]:
        """Run it to its end: its exit code, and all it said."""
        running = self.start(*words)
        out, err = running.communicate(timeout=900)
        return running.returncode, out + err

    def apply(self) -> None:
        code, said = self.run("apply", "-y", "--allow-cut-off")
        assert code == 0, said

    def plan(self) -> str:
        return self.run("plan")[1]


@pytest.fixture
def desk(bare: Record, tmp_path: Path) -> Desk:
    return Desk(bare, tmp_path)


def links(rack: Record) -> list[str]:
    """Interfaces with their IPv4 addresses."""
    rows = (row.split() for row in sh(rack, "ip -4 -br address").splitlines())
    return [" ".join([words[0].partition("@")[0], *words[2:]]) for words in rows if words[0] != "lo"]


def files(rack: Record) -> str:
    """All that netplan reads, and that starts at boot."""
    return sh(rack, "tail -n +1 /etc/netplan/*; ls /etc/systemd/system /etc/systemd/system/sysinit.target.wants")


def begun(rack: Record) -> threading.Event:
    """Set as soon as the host begins to change its network: it tells over a connection that it is about to cut."""
    event = threading.Event()
    argv = process.ssh_argv(rack, [f"rm -f {NETWORK_STATE}/begun; until [ -e {NETWORK_STATE}/begun ]; do sleep 0.1; "
                                   "done; echo begun"])
    watcher = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def watch() -> None:
        with watcher:
            if watcher.stdout and watcher.stdout.readline():
                event.set()
            watcher.kill()

    threading.Thread(target=watch, daemon=True).start()
    return event


def await_home(rack: Record, seconds: float) -> None:
    """Wait until one can log in, and no change of the network is under way any more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if boot.answers(rack.port) and sh(rack, f"ls {NETWORK_STATE} | grep -xE 'unconfirmed|undoing' || echo none",
                                          check=False) == "none":
            return
        time.sleep(1)
    raise AssertionError((rack.folder / "console.log").read_bytes()[-2000:].decode(errors="replace"))


@contextmanager
def as_it_was(rack: Record) -> Iterator[None]:
    """Whatever is done within, the host has the files and addresses afterwards that it had before."""
    before = files(rack), links(rack)
    yield
    await_home(rack, LIMIT + SLACK)
    assert (files(rack), links(rack)) == before


def test_what_would_cut_the_host_off_for_good_is_refused(desk: Desk) -> None:
    with as_it_was(desk.rack):
        for bridges, said in (
                ("br0: {nic: eno1, addresses: [10.0.2.99/24]}", "you come in by eno1 at 10.0.2.15, which bridge br0"),
                ("br0: {nic: eno9}", "bridge br0 wants the interface eno9, which is not there"),
                (f"br0: {{nic: eno2, addresses: [{AT_HOME}]}}", "10.0.2.15 is to be on bridge br0, but eno1 has it"),
                (f"br0: {{nic: eno1, addresses: [{AT_HOME}, 10.0.2.2/24]}}",
                 "10.0.2.2 is to be its own, on bridge br0, but another machine answers for it: ")):
            desk.write(bridges)
            code, told = desk.run("apply", "-y", "--allow-cut-off")
            assert code == 4 and said in told, told
        desk.write(BR0)
        code, told = desk.run("apply", "-y")
        assert code == 64 and "this cuts the network of the host itself, for a moment; nothing was changed" in told


def accident(desk: Desk, change: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, bridges: str = BR0,
             path: str = OWN) -> str:
    """Carry out the plan of the right file with a text of it changed, past all checks of the plan; what is said of it.
    """
    desk.write(bridges)
    cloud = load(str(desk.folder / "cloud.yaml"))
    with Sessions(cloud.hosts) as sessions:
        facts = gather(cloud, sessions)
        (action,) = (one for one in make_plan(cloud, facts).actions if isinstance(one, MakeBridges))
        wrong = replace(action, files=tuple(replace(file, text=change(file.text)) if file.path == path else file
                                            for file in action.files))
        assert wrong != action
        with monkeypatch.context() as patch:  # the rack itself is looked up in the other one
            patch.setenv("XDG_STATE_HOME", str(desk.folder / "state"))
            state = State.of(cloud.name)
        with Journal(state.journals, "apply") as journal, pytest.raises(ApplyError) as raised:
            make_bridges(wrong, Context(cloud, sessions["rack"], facts.host("rack"), state, journal, threading.Event(),
                                        lambda text, share: None, wrong.id))
    return str(raised.value)


def test_a_wrong_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_it_was(desk.rack):
        said = accident(desk, lambda text: text.replace("10.0.2.15", "10.0.2.99"), monkeypatch)
    assert said.startswith(f"bridge br0: the host was not as asked, or not reached, within {LIMIT} s of the change; it "
                           "has gone back to what it was"), said


def test_a_wrong_nic(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_it_was(desk.rack):
        said = accident(desk, lambda text: text.replace("eno1", "eno2"), monkeypatch)
    assert "it has gone back to what it was" in said


def test_what_netplan_does_not_take_is_not_begun(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_it_was(desk.rack):
        said = accident(desk, lambda text: text.replace("stp: false", "stp: perhaps"), monkeypatch)
    assert "netplan on host rack does not take it; nothing was changed" in said


def set_link(rack: Record, *, up: bool) -> None:
    """Pull or plug the cable of eno1."""
    qmp.ask(rack.folder / QMP, "set_link", {"name": "net0", "up": up})


def test_a_lost_link(desk: Desk) -> None:
    with as_it_was(desk.rack):
        desk.write(BR0)
        cue = begun(desk.rack)
        running = desk.start("apply", "-y", "--allow-cut-off")
        assert cue.wait(300), running.communicate()
        set_link(desk.rack, up=False)
        try:
            time.sleep(LIMIT + 15)  # the host has gone back in the dark
        finally:
            set_link(desk.rack, up=True)
        await_home(desk.rack, SLACK)
        out, err = running.communicate(timeout=600)
        assert running.returncode == 6 and "it has gone back to what it was" in err, out + err


def kill_in_the_middle(desk: Desk) -> None:
    """Apply, and be killed as soon as the host has begun."""
    cue = begun(desk.rack)
    running = desk.start("apply", "-y", "--allow-cut-off")
    assert cue.wait(300), running.communicate()
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def test_the_controller_is_killed_in_the_middle(desk: Desk) -> None:
    with as_it_was(desk.rack):
        desk.write(BR0)
        kill_in_the_middle(desk)
    assert "bridge br0  make  it is not there" in " ".join(desk.plan().split(" ")), "the next apply does it anew"


def test_the_good_way(desk: Desk) -> None:
    rack = desk.rack
    sh(rack, "modprobe br_netfilter")
    assert sh(rack, "cat /proc/sys/net/bridge/bridge-nf-call-iptables") == "1"
    before = sh(rack, f"cat {MINE}")
    desk.write(f"{BR0.replace(str(LIMIT), '180')}, {BR20}")
    desk.apply()
    assert sorted(links(rack)) == ["br0 10.0.2.15/24", "br20 10.20.0.5/24 10.21.0.5/24", "eno2 192.168.6.200/24"]
    assert sh(rack, "ip -4 route show default").startswith("default via 10.0.2.2 dev br0")
    assert "nameserver" in sh(rack, "grep -r DNS=10.0.2.3 /run/systemd/network | wc -l && echo nameserver")
    assert sh(rack, "cat /sys/class/net/br0/address /sys/class/net/eno1/address | uniq | wc -l") == "1"
    assert sh(rack, "cd /sys/class/net/br20; cat bridge/stp_state bridge/forward_delay; ls brif").split() == [
        "1", "400", "eno2.20"]
    assert sh(rack, f"cat {before_note(MINE)}") == before
    assert f"addresses are in {OWN}" not in sh(rack, f"cat {MINE}") and AT_HOME not in sh(rack, f"cat {MINE}")
    assert sh(rack, f"stat -c '%a %U' {OWN} {MINE}").splitlines() == ["600 root", "600 root"]
    assert sh(rack, "systemctl list-timers --all | grep vmwright || echo none") == "none"
    assert sh(rack, "ls /etc/systemd/system | grep vmwright || echo none") == "none"
    assert "Nothing to do: everything is as the file says." in desk.plan()


def test_the_next_apply_takes_back_what_a_killed_one_left_and_does_it_anew(desk: Desk) -> None:
    rack = desk.rack
    desk.write(f"br0: {{nic: eno1, addresses: [{AT_HOME}, 10.0.9.9/24], timeout: 3600}}, {BR20}")
    kill_in_the_middle(desk)
    sh(rack, f"until [ -e {NETWORK_STATE}/applied ]; do sleep 0.2; done")
    assert "take back" in desk.plan()
    desk.apply()
    assert "br0 10.0.2.15/24 10.0.9.9/24" in links(rack)
    desk.write(f"{BR0.replace(str(LIMIT), '180')}, {BR20}")
    desk.apply()
    assert "br0 10.0.2.15/24" in links(rack)


def test_br_netfilter_is_kept_out_whenever_it_loads(desk: Desk) -> None:
    """The settings are the module's own: they are gone with it, and come anew."""
    reads = "udevadm settle; cat /proc/sys/net/bridge/bridge-nf-call-iptables"
    assert sh(desk.rack, reads) == "0"
    assert sh(desk.rack, f"modprobe -r br_netfilter; modprobe br_netfilter; sleep 1; {reads}") == "0"
    assert "-net.bridge.bridge-nf-call-iptables = 0" in sh(desk.rack, f"cat {FILTER_SETTINGS}")


def test_a_file_changed_by_hand_is_shown_and_kept(desk: Desk) -> None:
    desk.write(f"{BR0.replace(str(LIMIT), '180')}, {BR20.replace('4}', '5}')}")
    own = OWN.replace("br0", "br20")
    sh(desk.rack, f"sed -i 's/forward-delay: 4/forward-delay: 9/' {own}")
    code, said = desk.run("plan")
    assert code == 4
    assert f"{own} was changed by hand:" in said and "+        forward-delay: 9" in said
    assert "forward-delay: 9" in sh(desk.rack, f"cat {own}")
    sh(desk.rack, f"cp /var/lib/vmwright/files{own} {own}")


def test_a_power_cut_before_it_is_confirmed(desk: Desk) -> None:
    """What was confirmed is there after it; what was not is taken back before the network comes up."""
    rack = desk.rack
    desk.write(f"br0: {{nic: eno1, addresses: [{AT_HOME}, 10.0.9.9/24], timeout: 3600}}, {BR20}")
    before = files(rack), sorted(links(rack))
    kill_in_the_middle(desk)
    sh(rack, f"until grep -q 10.0.9.9 {OWN}; do sleep 0.2; done; sync")
    process.pull_plug(rack)
    kit.up("bridge")
    await_home(rack, SLACK)
    assert (files(rack), sorted(links(rack))) == before
    assert "bridge br0  change  it does not have 10.0.9.9/24" in desk.plan()


# ---- the other two that set up a host's network ----

IFUPDOWN = "/etc/network/interfaces.d/vmwright-br3"
PORT = "/etc/NetworkManager/system-connections/vmwright-br4-port.nmconnection"
NETPLANS = f"br0: {{nic: eno1, addresses: [{AT_HOME}], timeout: 180}}, {BR20}"
BR3, BR4 = "br3: {nic: eno3, timeout: 180}", "br4: {nic: eno4, timeout: 180}"


@pytest.fixture(scope="module")
def both(bare: Record) -> Record:
    """The same host, where ifupdown has eno3, and NetworkManager eno4."""
    sh(bare, r"""
        netplan set --origin-hint 10-rack ethernets.eno3=null
        netplan set --origin-hint 10-rack ethernets.eno4=null
        netplan generate
        udevadm control --reload
        udevadm trigger --settle --subsystem-match=net
        mkdir -p /etc/network/interfaces.d
        printf 'source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n' > /etc/network/interfaces
        printf 'auto eno3\niface eno3 inet static\n  address 10.30.0.5/24\n  up ip route add 10.31.0.0/24 dev eno3\n' \
            > /etc/network/interfaces.d/eno3
    """)
    for words in ("update", "-y install --no-install-recommends ifupdown",
                  "-y install --no-install-recommends network-manager"):
        sh(bare, f"DEBIAN_FRONTEND=noninteractive apt-get -q {words}")
    sh(bare, r"""
        ifup --force eno3
        nmcli connection add type ethernet con-name uplink ifname eno4 ipv4.method manual ipv4.addresses 10.40.0.5/24 \
            ipv4.routes '10.41.0.0/24 10.40.0.9' ipv4.dns 10.40.0.53
        nmcli --wait 60 connection up uplink
    """)
    return bare


def test_ifupdown_and_networkmanager_go_back(both: Record, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(links(both))
    assert {"eno3 10.30.0.5/24", "eno4 10.40.0.5/24"} <= set(before)
    for bridge, path, wrong in ((BR3, IFUPDOWN, ("10.30.0.5/24", "10.30.0.555/24")),
                                (BR4, PORT, ("=eno4", "=eno9"))):
        said = accident(desk, lambda text, wrong=wrong: text.replace(*wrong), monkeypatch, f"{NETPLANS}, {bridge}",
                        path)
        assert "it has gone back to what it was" in said, said
        assert sorted(links(both)) == before
        assert sh(both, f"cat {path} || echo none") == "none"
    assert sh(both, "nmcli -g GENERAL.CONNECTION device show eno4") == "uplink"


def test_ifupdown_and_networkmanager_the_good_way(both: Record, desk: Desk) -> None:
    desk.write(f"{NETPLANS}, {BR3}, {BR4}")
    code, said = desk.run("apply", "-y")
    assert code == 0, said
    assert {"br3 10.30.0.5/24", "br4 10.40.0.5/24"} <= set(links(both))
    assert not {"eno3 10.30.0.5/24", "eno4 10.40.0.5/24"} & set(links(both))
    routes = sh(both, "ip -4 route show").splitlines()
    assert any(route.startswith("10.31.0.0/24 dev br3") for route in routes)
    assert any(route.startswith("10.41.0.0/24 via 10.40.0.9 dev br4") for route in routes)
    assert sh(both, "grep -v '^#' /etc/network/interfaces.d/eno3 || echo none") == "none", "all of it was eno3's"
    assert "Nothing to do: everything is as the file says." in desk.plan()


def test_all_three_are_there_after_a_reboot(both: Record) -> None:
    before, boot_id = sorted(links(both)), kit.boot_id(both)
    sh(both, "systemctl reboot", check=False)
    kit.await_reboot(both, boot_id)
    until = time.monotonic() + SLACK
    while sorted(links(both)) != before and time.monotonic() < until:
        time.sleep(2)
    assert sorted(links(both)) == before
