"""A host's own services for guests: set up, kept, changed, taken away; what stands in the way is refused before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import WEB, changes, cloud, facts, made, only, plan, refused, told
from tests.unit.plan.simulate import DEBIAN, Machine
from tests.unit.plan.test_bridges import WIRING

from vmwright.facts.model import FileFacts, LinkFacts, NetworkFacts, PlatformFacts
from vmwright.facts.service_model import ServicesFacts, SocketFacts
from vmwright.names import (
    CACHER_CONFIG,
    CACHER_DROP_IN,
    DNS_CONFIG,
    DNS_NAMES,
    DNS_SERVICE,
    DNS_UNIT,
    FORWARDING,
    NAT_RULES,
    NAT_SERVICE,
    NAT_UNIT,
    NTP_CONFIG,
    NTP_CONFIG_FEDORA,
    SQUID_CONFIG,
    written_note,
)
from vmwright.plan.actions import CreateVm, Plan
from vmwright.plan.diff import make_plan, make_rebuild_plan, make_release_plan
from vmwright.plan.host_actions import Answer, InstallPackages, SetService
from vmwright.spec.cloud import Cloud

FEDORA = PlatformFacts("rocky", ("rhel", "centos", "fedora"), "boot-1", "ro", True, ("dnf", "grubby"))
LAN = ("networks: {lan: {bridge: br0, subnet: 10.2.0.0/24, gateway: 10.2.0.1, dns: 10.2.0.200, "
       "search: [lab.example]}}\n")
VM = "vms: {box: {template: base, vcpus: 1, memory: 1G, address: 10.2.0.20}}\n"
LINKS = (LinkFacts("lo", "loopback", ("127.0.0.1/8",), True), LinkFacts("eno1", "ethernet", ("192.0.2.5/24",), True),
         LinkFacts("br0", "bridge", ("10.2.0.200/24",), True))
# Debian's own files, as its packages bring them.
QUIET = ServicesFacts(main=(("chrony", "/etc/chrony/chrony.conf"), ("squid", "/etc/squid/squid.conf")),
                      reads=(("chrony", "confdir /etc/chrony/conf.d"), ("squid", "include /etc/squid/conf.d/*.conf"),
                             ("squid", "http_port 3128")))
ALL = "dns: {dhcp: 10.2.0.100-10.2.0.199}, ntp: true, proxy: true, masquerade: eno1"


def lab(services: str, text: str = LAN + VM, more: str = "") -> Cloud:
    return cloud(f"hosts: {{here: {{{more}pools: {{images: {{dir: /srv/images}}}}, services: {{{services}}}}}}}\n"
                 f"{text}")


def planned(services: str, found: ServicesFacts | None = QUIET, files: tuple[FileFacts, ...] = (), *,
            text: str = LAN + VM, more: str = "", platform: PlatformFacts = DEBIAN, **changed: Any) -> Plan:
    """The plan for a host that has all programs, and on it a network br0."""
    wanted, machine = lab(services, text, more), made(cloud())
    given = {"links": LINKS, "services": found, "platform": replace(platform, files=files), **changed}
    return make_plan(wanted, facts(wanted, machine, **given))


def setting(found: Plan, name: str = "dns") -> SetService:
    """The action of one service."""
    (action,) = (a for a in found.actions if isinstance(a, SetService) and a.what == name)
    return action


def services(found: Plan) -> list[str]:
    return [row for row in told(found) if " service " in row]


def written(found: Plan) -> tuple[FileFacts, ...]:
    """The host's files when all services of a plan have been set."""
    return tuple(FileFacts(file.path, file.text, file.text) for action in found.actions
                 if isinstance(action, SetService) for file in action.files)


def running(found: Plan) -> ServicesFacts:
    """What is found when they have been."""
    units = tuple(action.unit for action in found.actions if isinstance(action, SetService))
    return replace(QUIET, active=units, enabled=units, forwarding=True, table=True)


def text_of(found: Plan, path: str) -> str:
    return next(file.text for file in written(found) if file.path == path and file.text)


# ---- the good way ----

def test_all_four_are_set_up_each_by_an_action_of_its_own_before_the_vms() -> None:
    found = planned(ALL)
    assert services(found) == ["+ service masquerade: set", "+ service dns: set", "+ service ntp: set",
                               "+ service proxy: set"]
    assert not found.refused
    (create,) = (action for action in found.actions if isinstance(action, CreateVm))
    assert {a.id for a in found.actions if isinstance(a, SetService)} <= set(create.needs)
    dns = setting(found)
    assert (dns.unit, dns.why) == (DNS_SERVICE, "the file asks for it")
    assert changes(dns) == ["dnsmasq: DNS on br0; 2 names of its own; DHCP 10.2.0.100 to 10.2.0.199",
                            f"files: {DNS_CONFIG}, {DNS_NAMES}, {DNS_UNIT}"]
    assert dns.answers == (Answer("dns", "10.2.0.200", 53, "box", "10.2.0.20"), Answer("dhcp", name="br0"))
    assert setting(found, "ntp").answers == (Answer("ntp", "10.2.0.200", 123),)
    assert setting(found, "proxy").answers == (Answer("http", "127.0.0.1", 3128),)
    assert setting(found, "masquerade").answers == (Answer("nat"),)


def test_when_it_is_done_there_is_nothing_to_do() -> None:
    first = planned(ALL)
    again = planned(ALL, running(first), written(first))
    assert services(again) == []
    kept = {kept.object: kept.why for kept in again.kept}
    assert kept["service ntp"] == "is as the file says: serves 10.2.0.0/24"
    assert kept["service proxy"] == "is as the file says: port 3128, for 10.2.0.0/24"
    assert not again.warnings


def test_one_that_does_not_run_is_started() -> None:
    first = planned(ALL)
    now = replace(running(first), active=(), table=False)
    again = planned(ALL, now, written(first))
    assert services(again) == ["~ service masquerade: start", "~ service dns: start", "~ service ntp: start",
                               "~ service proxy: start"]
    assert setting(again).why == "it is not running"
    assert setting(again, "masquerade").why == "it is not running; its table is gone"


def test_what_was_cut_off_is_set_up_anew() -> None:
    first = planned("dns: true")
    again = setting(planned("dns: true", replace(running(first), unfinished=("dns",)), written(first)))
    assert (again.files, again.why) == ((), "an earlier run was cut off while it set this up")


def test_a_host_that_does_not_forward_any_more() -> None:
    first = planned("masquerade: eno1")
    again = planned("masquerade: eno1", replace(running(first), forwarding=False), written(first))
    assert setting(again, "masquerade").why == "the kernel does not forward"


def test_a_new_vm_is_a_new_name_and_nothing_else() -> None:
    first = planned("dns: true")
    text = LAN + "vms: {box: {template: base, address: 10.2.0.20}, db: {template: base, address: 10.2.0.21}}\n"
    again = setting(planned("dns: true", running(first), written(first), text=text))
    assert [file.path for file in again.files] == [DNS_NAMES]
    assert (again.verb, again.sign, again.why) == ("set", "~", "the file says otherwise")


def test_missing_programs_are_installed_first() -> None:
    wanted, machine = lab(ALL), Machine()
    programs = ("dnsmasq", "chronyd", "squid", "nft")
    machine.tools = tuple(tool for tool in machine.tools if tool not in programs)
    fresh = facts(wanted, machine, links=LINKS, services=ServicesFacts(), platform=DEBIAN)
    found = make_plan(wanted, fresh)
    (install,) = found.first
    assert isinstance(install, InstallPackages)
    assert install.packages == ("dnsmasq-base", "chrony", "squid", "nftables")
    assert len(services(found)) == 4
    assert found.warnings == (
        "host here: chrony takes the place of what sets its clock now (systemd-timesyncd, ntpd): Debian removes that "
        "when it installs chrony",)


def test_on_fedora_names_and_places_are_others() -> None:
    reads = replace(QUIET, main=(("chrony", "/etc/chrony.conf"),), reads=(("chrony", "confdir /etc/chrony.d"),))
    found = planned("dns: {dhcp: 10.2.0.100-10.2.0.199}, ntp: true", reads, platform=FEDORA)
    assert setting(found, "ntp").unit == "chronyd.service"
    assert [file.path for file in setting(found, "ntp").files] == [NTP_CONFIG_FEDORA]
    assert "dhcp-leasefile=/var/lib/dnsmasq/dnsmasq.vmwright.leases" in text_of(found, DNS_CONFIG)


def test_a_bridge_that_is_made_in_the_same_run() -> None:
    found = planned("dns: true", links=LINKS[:2], wiring=WIRING, more="bridges: {br0: {nic: eno1, addresses: "
                    "[10.2.0.200/24]}}, ")
    assert setting(found).answers[0].address == "10.2.0.200"
    assert not [line for line in refused(found) if "service" in line]


def test_a_rebuild_leaves_services_alone() -> None:
    wanted = lab("dns: {bridge: br0}", WEB)
    found = make_rebuild_plan(wanted, facts(wanted, made(cloud()), links=LINKS), ["web"])
    assert told(found) == ["! vm web: rebuild"] and not found.refused


# ---- what is written ----

def test_what_dnsmasq_is_told() -> None:
    text = LAN + "vms: {box: {template: base, address: 10.2.0.20}, free: {template: base, mac: '52:54:00:00:00:09'}}\n"
    found = planned("dns: {dhcp: 10.2.0.100-10.2.0.199, upstream: [9.9.9.9]}, ntp: {networks: 10.2.0.0/24}", text=text)
    assert text_of(found, DNS_CONFIG).splitlines()[1:] == [
        "interface=br0", "except-interface=lo", "bind-dynamic", "pid-file=", "no-hosts", f"addn-hosts={DNS_NAMES}",
        "domain-needed", "no-resolv", "server=9.9.9.9", "dhcp-range=10.2.0.100,10.2.0.199,255.255.255.0,12h",
        "dhcp-option=option:router,10.2.0.1", "dhcp-option=option:dns-server,10.2.0.200",
        "dhcp-option=option:domain-search,lab.example",
        "dhcp-host=52:54:00:00:00:09,free", "dhcp-leasefile=/var/lib/misc/dnsmasq.vmwright.leases"]
    assert text_of(found, DNS_NAMES).splitlines()[1:] == ["10.2.0.200 host", "10.2.0.20 box box.lab.example"]


def test_a_network_without_a_gateway_has_none_by_dhcp_either() -> None:
    """dnsmasq would name itself, though this host forwards nothing."""
    found = planned("dns: {dhcp: 10.2.0.100-10.2.0.199}", text="networks: {lan: {bridge: br0, subnet: 10.2.0.0/24}}\n")
    assert "\ndhcp-option=option:router\n" in text_of(found, DNS_CONFIG)


def test_what_chrony_is_told() -> None:
    found = planned("ntp: {networks: [10.2.0.0/24, 10.9.0.0/24], upstream: ntp.example.org}")
    assert text_of(found, NTP_CONFIG).splitlines()[1:] == [
        "server ntp.example.org iburst", "allow 10.2.0.0/24", "allow 10.9.0.0/24", "local stratum 10"]


def test_what_squid_is_told() -> None:
    found = planned("proxy: {cache: 2G}")
    assert text_of(found, SQUID_CONFIG).splitlines()[1:] == [
        "acl vmwright_guests src 10.2.0.0/24",
        "acl vmwright_inside dst 127.0.0.0/8 0.0.0.0/32 169.254.0.0/16 ::1/128 fe80::/10",
        "http_access deny vmwright_guests vmwright_inside", "http_access allow vmwright_guests",
        "maximum_object_size 1 GB",
        "cache_dir ufs /var/spool/squid 2048 16 256", r"refresh_pattern -i \.(u?deb|d?rpm)$ 129600 100% 129600"]


def test_squid_is_told_a_port_that_its_own_file_does_not_have() -> None:
    assert "http_port 8080\n" in text_of(planned("proxy: {port: 8080}"), SQUID_CONFIG)
    there = replace(QUIET, reads=(*QUIET.reads, ("squid", "http_port 10.2.0.200:8080 name=guests")))
    assert "http_port" not in text_of(planned("proxy: {port: 8080}", there), SQUID_CONFIG)


def test_apt_cacher_ng_answers_at_the_hosts_own_addresses_only() -> None:
    found = planned("proxy: {kind: apt-cacher-ng}")
    assert text_of(found, CACHER_CONFIG).splitlines()[1:] == [
        "Port: 3142", "BindAddress: 127.0.0.1 10.2.0.200", "PassThroughPattern: .*:443$"]
    assert text_of(found, CACHER_DROP_IN).splitlines()[2:] == [
        "[Unit]", "Wants=network-online.target", "After=network-online.target"]


def test_what_nftables_is_told() -> None:
    found = planned("masquerade: {out: eno1, networks: [10.2.1.0/24, 10.2.0.0/24]}")
    assert '\t\tip saddr { 10.2.0.0/23 } ip daddr != { 10.2.0.0/23 } oifname "eno1" masquerade\n' in text_of(
        found, NAT_RULES), "neighbours are told as one: a set has no parts that overlap"
    assert text_of(found, FORWARDING).splitlines()[1:] == ["net.ipv4.ip_forward = 1"]
    assert "PartOf=nftables.service" in text_of(found, NAT_UNIT)


# ---- by hand, and other clouds ----

def test_what_was_changed_by_hand_is_shown_and_not_overwritten() -> None:
    first = planned("ntp: true")
    (file,) = written(first)
    said = refused(planned("ntp: {upstream: t.example}", running(first), (replace(file, text=f"{file.text}x\n"),)))
    assert said == [f"host here: {NTP_CONFIG} was changed by hand:\n    @@ -3,0 +4 @@\n    +x\n    put it into a file "
                    f"of your own; back to what vmwright wrote: cp {written_note(NTP_CONFIG)} {NTP_CONFIG}"]


def test_a_host_has_each_service_from_one_cloud() -> None:
    first = planned("ntp: true")
    theirs = tuple(FileFacts(file.path, text := (file.text or "").replace("cloud lab", "cloud other"), text)
                   for file in written(first))
    assert refused(planned("ntp: true", running(first), theirs)) == [
        f"host here: its settings for ntp are set by cloud other, in {NTP_CONFIG}\n    say it in one cloud's file: a "
        "host has them once"]
    gone = planned("dns: true", running(first), theirs)
    assert services(gone) == ["+ service dns: set"], "and nobody takes away what another cloud has set up"


# ---- the way back ----

def test_what_is_no_longer_in_the_file_is_taken_away() -> None:
    first = planned(ALL)
    found = planned("ntp: false", None, written(first))
    assert services(found) == ["- service masquerade: take away", "- service dns: take away",
                               "- service ntp: take away", "- service proxy: take away"]
    dns, ntp, proxy = setting(found), setting(found, "ntp"), setting(found, "proxy")
    assert (dns.remove, dns.stop, dns.again) == ((DNS_CONFIG, DNS_NAMES, DNS_UNIT), (DNS_SERVICE,), ())
    assert (ntp.remove, ntp.stop, ntp.again) == ((NTP_CONFIG,), (), ("chrony.service",))
    assert (proxy.stop, setting(found, "masquerade").stop) == (("squid.service",), (NAT_SERVICE,))
    assert changes(proxy) == [f"files: {SQUID_CONFIG} -> removed",
                              "squid.service: stopped, and not started at boot any more", "packages: stay installed"]
    (create,) = (action for action in found.actions if isinstance(action, CreateVm))
    assert not {dns.id, ntp.id} & set(create.needs)


def test_a_host_that_is_released_has_none_any_more() -> None:
    first = planned(ALL)
    wanted = lab(ALL)
    there = facts(wanted, made(cloud()), links=LINKS, services=running(first),
                  platform=replace(DEBIAN, files=written(first)))
    found = make_release_plan(wanted, there, "here")
    assert services(found) == ["- service masquerade: take away", "- service dns: take away",
                               "- service ntp: take away", "- service proxy: take away"]
    assert setting(found).why == "the host is released"


def test_another_kind_of_proxy_takes_the_place_of_the_one_before() -> None:
    first = planned("proxy: true")
    found = setting(planned("proxy: {kind: apt-cacher-ng}", running(first), written(first)), "proxy")
    assert (found.unit, found.stop, found.remove) == ("apt-cacher-ng.service", ("squid.service",), (SQUID_CONFIG,))


# ---- what stands in the way ----

OTHERS = SocketFacts("udp", "0.0.0.0", 53, program="dnsmasq", unit="dnsmasq.service")
TAKEN = ("or have it listen at other addresses; or leave this service to it, and take it out of the file")


@pytest.mark.parametrize(("given", "socket", "said"), [
    ("dns: true", OTHERS, "host here: UDP 53 there is taken by dnsmasq (dnsmasq.service)\n    if it is not needed: "
     f"systemctl disable --now dnsmasq.service; {TAKEN}"),
    ("dns: true", SocketFacts("tcp", "10.2.0.200", 53, program="named"),
     f"host here: TCP 53 there is taken by named\n    stop it; {TAKEN}"),
    ("dns: {dhcp: 10.2.0.100-10.2.0.199}", SocketFacts("udp", "0.0.0.0", 67, "br0", "dhcpd"),
     f"host here: UDP 67 there is taken by dhcpd\n    stop it; {TAKEN}"),
    ("ntp: true", SocketFacts("udp", "0.0.0.0", 123, program="ntpd", unit="ntpsec.service"),
     "host here: UDP 123 there is taken by ntpd (ntpsec.service)\n    if it is not needed: systemctl disable --now "
     f"ntpsec.service; {TAKEN}"),
    ("proxy: true", SocketFacts("tcp", "*", 3128, program="tinyproxy"),
     f"host here: TCP 3128 there is taken by tinyproxy\n    stop it; {TAKEN}"),
])
def test_a_port_that_another_program_has(given: str, socket: SocketFacts, said: str) -> None:
    assert refused(planned(given, replace(QUIET, sockets=(socket,)))) == [said]


@pytest.mark.parametrize("socket", [
    replace(OTHERS, address="192.168.122.1", unit="libvirtd.service"),
    replace(OTHERS, port=67, link="virbr0", unit="libvirtd.service"),
    SocketFacts("udp", "127.0.0.53", 53, "lo", "systemd-resolve", "systemd-resolved.service"),
    replace(OTHERS, address="10.2.0.200", unit=DNS_SERVICE),
    SocketFacts("udp", "0.0.0.0", 123, program="chronyd", unit="chrony.service"),
    SocketFacts("tcp", "*", 3128, program="squid", unit="squid.service"),
])
def test_who_listens_elsewhere_or_is_the_service_itself_is_not_in_the_way(socket: SocketFacts) -> None:
    assert not planned(ALL, replace(QUIET, sockets=(socket,))).refused


@pytest.mark.parametrize(("given", "changed", "said"), [
    ("dns: {bridge: br1}", {}, "host here: service dns wants the bridge br1, which is neither there nor in the file"
     "\n    did you mean br0?"),
    ("dns: {bridge: eno1}", {}, "host here: service dns wants the bridge eno1, which is no bridge, but ethernet\n"),
    ("masquerade: eno2", {}, "host here: service masquerade wants the interface eno2, which is neither there nor in "
     "the file\n    did you mean eno1?"),
    ("dns: true", {"links": (*LINKS[:2], replace(LINKS[2], addresses=()))}, "host here: it has no address on br0, "
     "where guests could reach its DNS\n    give it one: bridges: {br0: {addresses: [...]}}"),
    ("dns: {dhcp: 10.2.0.100-10.2.0.199}", {"links": (*LINKS[:2], replace(LINKS[2], addresses=("10.5.0.1/24",)))},
     "host here: it has no address in 10.2.0.0/24 on br0, and dnsmasq hands out addresses of its own subnets only\n"),
    ("dns: {dhcp: 10.2.0.100-10.2.0.199}", {"links": (*LINKS[:2], replace(LINKS[2], addresses=("10.2.0.150/24",)))},
     "host here: 10.2.0.150, which is to be handed out, is its own on br0\n"),
    ("dns: true", {"networks": (NetworkFacts("inner", True, True, None, "br0", "10.2.0.200/24"),)},
     "host here: br0 is libvirt's, of its network inner: libvirt serves DNS there\n"),
    ("ntp: true", {"services": replace(QUIET, reads=())}, "host here: /etc/chrony/chrony.conf does not read "
     f"{NTP_CONFIG}, where vmwright says what chrony is to do\n    add this line to it: confdir /etc/chrony/conf.d"),
    ("proxy: true", {"services": replace(QUIET, reads=())}, "host here: /etc/squid/squid.conf does not read "
     f"{SQUID_CONFIG}, where vmwright says what squid is to do\n    add this line to it, above http_access deny all: "
     "include /etc/squid/conf.d/*.conf"),
    ("masquerade: eno1", {"services": replace(QUIET, active=("firewalld.service",))}, "host here: firewalld is "
     "running, and lets nothing through that is not in its own rules"
     "\n    let it do this itself: firewall-cmd --permanent --zone=external --change-interface=eno1; "
     "firewall-cmd --reload; "),
    ("dns: true", {"services": None}, "host here: the facts do not tell what its services stand on\n"),
    ("dns: true", {"platform": replace(DEBIAN, systemd=False)}, "host here: systemd is not running there, which starts "
     "and watches `services:`\n"),
    ("proxy: {kind: apt-cacher-ng}", {"platform": FEDORA}, "host here: Debian GNU/Linux 12 (bookworm) has no "
     "apt-cacher-ng\n    say kind: squid"),
])  # fmt: skip
def test_what_cannot_be_is_refused(given: str, changed: dict[str, Any], said: str) -> None:
    found = planned(given, text=LAN, **{"found": changed.pop("services")} if "services" in changed else {}, **changed)
    (line,) = refused(found)
    assert line.startswith(said), line
    assert all(problem.where for problem in found.refused)


def test_what_the_firewall_keeps_out_is_told_while_a_service_is_set_up() -> None:
    dropping = replace(QUIET, drops=(("forward", "table ip filter, chain FORWARD"),
                                     ("input", "table ip filter, chain ufw-before")))
    found = planned("dns: true, masquerade: eno1", dropping)
    assert [line.partition("host here: ")[2] for line in found.warnings] == [
        "its firewall (table ip filter, chain FORWARD) drops what it would forward, unless a rule lets it through: see "
        "that guests are let through",
        "its firewall (table ip filter, chain ufw-before) drops what no rule lets in: let guests in to UDP and TCP 53 "
        "(with DHCP: UDP 67)"]
    done = replace(running(found), drops=dropping.drops)
    assert not planned("dns: true, masquerade: eno1", done, written(found)).warnings


def test_what_firewalld_is_to_be_told() -> None:
    found = planned("ntp: true", replace(QUIET, active=("firewalld.service",)))
    assert found.warnings[0].endswith(
        "host here: firewalld is running: let guests in to UDP 123, in the zone of their bridge: firewall-cmd "
        "--permanent --zone=ZONE --add-service=ntp")


def test_a_host_without_services_has_nothing_of_them_in_its_plan() -> None:
    wanted = cloud()
    machine = made(wanted)
    assert plan(wanted, machine).empty
    assert "service" not in " ".join(kept.object for kept in plan(wanted, machine).kept)


def test_only_one_service_is_one_action() -> None:
    assert isinstance(only(planned("ntp: true", text=LAN)), SetService)


def test_dns_is_not_served_at_a_public_address() -> None:
    public = (*LINKS[:-1], replace(LINKS[-1], addresses=("10.2.0.200/24", "8.8.4.4/24")))
    (problem,) = refused(planned("dns: {bridge: br0}", links=public))
    assert problem.startswith("host here: 8.8.4.4 on br0 is a public address, and DNS would be served to everybody")
    link = replace(LINKS[0], addresses=("8.8.4.4/24",))
    assert not refused(planned("dns: {bridge: br0}", links=(link, *LINKS[1:]))), "elsewhere it may have one"
    at_port = tuple(replace(one, master="br0") if one.name == "eno1" else one for one in LINKS)
    (problem,) = refused(planned("masquerade: eno1", links=at_port))
    assert problem.startswith("host here: service masquerade goes out by eno1, which is a port of br0")
