"""A host's own services for guests, on a rack: set up beside libvirt's own, used, kept over a reboot, taken away.

The guest is a network namespace of the rack's, plugged into its bridge.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.long.test_bridges import SMALL
from tests.rack.cloud import RackCloud
from tests.rack.kit import await_reboot, boot_id, sh, up

from vmwright.names import NAT_TABLE, SERVICE_FILES, SQUID_CONFIG
from vmwright.rack import process, shape
from vmwright.rack.contents import Image

OWN, OUT, BEYOND = "10.20.0.1", "10.0.2.15", "10.0.2.2"
BRIDGE = f"    bridges: {{br0: {{nic: eno2, addresses: [{OWN}/24]}}}}\n"
SERVICES = """\
    services:
      dns: {bridge: br0, dhcp: 10.20.0.100-10.20.0.109}
      ntp: true
      proxy: {cache: 64M}
      masquerade: eno1
"""
POOL = "      images: {dir: /srv/images}\n"
DB = "  db: {template: blank, vcpus: 1, memory: 64M, network: lan, address: 10.20.0.9, running: false}\n"
DHCP = (Path(__file__).parents[1] / "dhcp.py").read_text()

# In the rack: a guest on br0. What it prints by DHCP becomes its own.
PLUG = f"""
ip netns del guest 2>/dev/null || :
ip netns add guest
ip link add guest type veth peer name eth0 netns guest
ip link set guest master br0 up
ip -n guest link set lo up
ip -n guest link set eth0 up
cat >/tmp/dhcp.py <<'END'
{DHCP}
END
ip netns exec guest python3 /tmp/dhcp.py eth0 | tee /tmp/lease
address=$(sed -n 's/^address //p' /tmp/lease)
router=$(sed -n 's/^router //p' /tmp/lease)
ip -n guest address add "$address/24" dev eth0
ip -n guest route add default via "$router"
"""

DNS = f"""
import socket, struct
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.settimeout(20)
line.sendto(struct.pack(">6H", 7, 256, 1, 0, 0, 0) + b"\\2db\\0" + struct.pack(">2H", 1, 1), ("{OWN}", 53))
print(socket.inet_ntoa(line.recv(512)[-4:]))
"""
NTP = f"""
import socket
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.settimeout(20)
line.sendto(b"\\x23" + bytes(47), ("{OWN}", 123))
answer = line.recv(512)
print(answer[0] & 7, answer[0] >> 6 != 3)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """A small rack with libvirt, whose second NIC leads to no one."""
    rack = up("services", process.Wish(shape.read("small.yaml", SMALL), Image.READY))
    yield RackCloud(rack, tmp_path_factory.mktemp("services"))
    process.down("services", force=True, seconds=0, remove=True)


def write(lab: RackCloud, services: str = SERVICES) -> None:
    """A file with a NAT network of libvirt's, too: it has a dnsmasq of its own."""
    lab.write(POOL, DB)
    file = lab.folder / "cloud.yaml"
    text = file.read_text().replace("    pools:\n", f"{BRIDGE}{services}    pools:\n")
    file.write_text(text.replace("{bridge: br0, subnet: 192.168.6.0/24}", "{bridge: br0, subnet: 10.20.0.0/24}\n"
                                 "  nat: {nat: 10.7.0.0/24}"))


def guest(lab: RackCloud, program: str) -> str:
    """What a Python program prints in the guest."""
    return lab.sh(f"ip netns exec guest python3 - <<'END'\n{program}\nEND")


def proxied(lab: RackCloud, before: str, own: str) -> str:
    """The code that the proxy at an address of the host answers with, and what it brings."""
    return lab.sh(f"{before} curl -s -m 60 -o /tmp/got -w '%{{http_code}} ' -x http://{own}:3128 http://{OWN}:8000/it; "
                  "head -n 1 /tmp/got")


def reaches_out(lab: RackCloud) -> bool:
    return sh(lab.rack, f"ip netns exec guest ping -q -c 3 -W 10 {BEYOND} >/dev/null && echo yes", check=False) == "yes"


def units(lab: RackCloud) -> list[str]:
    return lab.sh("for unit in vmwright-dns vmwright-masquerade chrony squid; do systemctl is-active $unit || :; "
                  "done").split()


def told(lab: RackCloud) -> list[str]:
    return [f"{row['object']}: {row['verb']}" for row in lab.plan()["actions"]]


def test_a_port_that_is_taken_is_told_before_anything_is_changed(lab: RackCloud) -> None:
    write(lab)
    lab.sh("systemd-run --quiet --unit busy python3 -c 'import socket, time; line = socket.socket(type=2); "
           "line.bind((\"\", 123)); time.sleep(9999)'; sleep 3")
    assert lab.refused() == ["host rack: UDP 123 there is taken by python3 (busy.service)"]
    assert lab.run("apply", "-y").returncode == 4
    lab.sh("systemctl stop busy")


def test_one_command_sets_all_of_them_up(lab: RackCloud) -> None:
    assert "Done: read again, and everything is as the file says." in lab.ok("apply", "-y")
    assert units(lab) == ["active"] * 4
    assert lab.plan()["empty"]


def test_guests_use_them(lab: RackCloud) -> None:
    lease = lab.sh(PLUG).splitlines()
    assert lease[0] in {f"address 10.20.0.{last}" for last in range(100, 110)}
    assert lease[1:] == [f"dns {OWN}", f"ntp {OWN}", f"router {OWN}"]
    assert guest(lab, DNS) == "10.20.0.9", "the address of db"
    assert guest(lab, NTP) == "4 True", "a server's answer, and it has the time"
    assert reaches_out(lab)
    lab.sh("mkdir -p /srv/www; echo it is there >/srv/www/it; systemd-run --quiet --unit www python3 -m http.server "
           "--directory /srv/www 8000; sleep 5")
    assert proxied(lab, "ip netns exec guest", OWN) == "200 it is there"
    assert proxied(lab, "", OUT).startswith("403 "), "not from outside"
    assert "10.7.0.1:53" in lab.sh("ss -H -l -n -u 'sport = :53'"), "libvirt's own is there, too"


def test_what_somebody_stops_is_started_again(lab: RackCloud) -> None:
    lab.sh(f"systemctl stop vmwright-dns; nft delete table ip {NAT_TABLE}")
    assert told(lab) == ["service masquerade: start", "service dns: start"]
    lab.ok("apply", "-y")
    assert guest(lab, DNS) == "10.20.0.9" and reaches_out(lab)
    assert lab.plan()["empty"]


def test_who_flushes_all_tables_does_not_take_ours_away(lab: RackCloud) -> None:
    """Debian's nftables.service does, when it is started, and when it is reloaded."""
    lab.sh("systemctl start nftables; systemctl restart nftables")
    assert "masquerade" in lab.sh(f"nft list table ip {NAT_TABLE}")
    lab.sh("systemctl reload nftables")
    assert "masquerade" in lab.sh(f"until nft list table ip {NAT_TABLE}; do sleep 1; done 2>/dev/null")
    lab.sh("systemctl stop nftables; systemctl start vmwright-masquerade; systemctl restart libvirtd")


def test_settings_that_a_program_does_not_take_change_nothing(lab: RackCloud) -> None:
    before = lab.sh(f"cat {SQUID_CONFIG}")
    write(lab, SERVICES.replace("64M", "65M"))
    lab.sh("echo nonsense >/etc/squid/conf.d/99-admin.conf")
    failed = lab.run("apply", "-y")
    assert failed.returncode == 6 and "squid on host rack does not take its settings" in failed.stderr, failed.stderr
    assert lab.sh(f"cat {SQUID_CONFIG}") == before and units(lab) == ["active"] * 4
    lab.sh("rm /etc/squid/conf.d/99-admin.conf")
    write(lab)
    assert lab.plan()["empty"]


def test_they_are_there_after_a_reboot(lab: RackCloud) -> None:
    before = boot_id(lab.rack)
    lab.sh("systemctl reboot")
    await_reboot(lab.rack, before)
    lab.sh("timeout 250 systemctl is-system-running --wait || :")
    assert units(lab) == ["active"] * 4
    assert lab.plan()["empty"]
    lab.sh(PLUG)
    assert guest(lab, DNS) == "10.20.0.9" and guest(lab, NTP) == "4 True" and reaches_out(lab)


def test_what_leaves_the_file_is_taken_away(lab: RackCloud) -> None:
    write(lab, "")
    assert sorted(told(lab)) == [f"service {name}: take away" for name in ("dns", "masquerade", "ntp", "proxy")]
    lab.ok("apply", "-y")
    assert units(lab) == ["inactive", "inactive", "active", "inactive"], "the host's clock goes on"
    there = " ".join((*SERVICE_FILES, "/etc/vmwright"))
    assert lab.sh(f"ls -d {there} 2>/dev/null || :") == ""
    assert lab.sh("chronyc accheck 10.20.0.100 || :") == "209 Access denied"
    assert NAT_TABLE not in lab.sh("nft list tables ip")
    assert lab.plan()["empty"]
