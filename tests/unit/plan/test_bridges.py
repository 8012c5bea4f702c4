"""Bridges of a host: made by its own network files, all at once; what would cut it off is refused before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.plan.build import changes, cloud, facts, made, only, refused, told
from tests.unit.plan.simulate import DEBIAN

from vmwright.facts.model import FileFacts, IommuFacts, LinkFacts, PlatformFacts, ProfileFacts, RouteFacts, WiringFacts
from vmwright.names import FILTER_RULE, FILTER_SETTINGS, written_note
from vmwright.netconfig.common import lacking
from vmwright.plan.action import Effect
from vmwright.plan.actions import Plan
from vmwright.plan.bridge_filter import filter_rule, filter_settings
from vmwright.plan.diff import make_plan
from vmwright.plan.host_actions import MakeBridges, PrepareFiles, Reboot, TakeBridgesBack

LAN = "networks: {lan: {bridge: br0, subnet: 10.0.2.0/24}}\n"
VM = "vms: {web: {template: base, vcpus: 1, memory: 1G, address: 10.0.2.20}}\n"
MINE = "/etc/netplan/10-it.yaml"
OWN = "/etc/netplan/99-vmwright-br0.yaml"
STATIC = """\
network:
  version: 2
  ethernets:
    eno1:
      addresses: [10.0.2.15/24]
      routes: [{to: default, via: 10.0.2.2}]
"""
LO = LinkFacts("lo", "loopback", ("127.0.0.1/8",), True, "00:00:00:00:00:00")
ENO1 = LinkFacts("eno1", "ethernet", ("10.0.2.15/24",), True, "94:18:82:00:00:01")
ENO2 = LinkFacts("eno2", "ethernet", (), True, "94:18:82:00:00:02")
ENO49 = LinkFacts("eno49", "ethernet", ("10.9.0.5/24",), True, "94:18:82:00:00:49")
LINKS = (LO, ENO1, ENO2, ENO49)
READY = replace(DEBIAN, files=(FileFacts(FILTER_SETTINGS, filter_settings(), filter_settings()),
                               FileFacts(FILTER_RULE, filter_rule(), filter_rule())))
WIRING = WiringFacts(tools=("netplan",), active=("systemd-networkd",), files=(FileFacts(MINE, STATIC),),
                     routes=(RouteFacts("eno1", "10.0.2.2"),), dns=("10.0.2.3",), session="10.0.2.15",
                     resolved=("127.0.1.1",))


def plan(bridges: str = "br0: {nic: eno1}", links: tuple[LinkFacts, ...] = LINKS, wiring: WiringFacts | None = WIRING,
         platform: PlatformFacts = READY, *, text: str = "", **changed: Any) -> Plan:
    """The plan for a host, reached over ssh, that is to have these bridges."""
    wanted = cloud(f"hosts: {{here: {{connect: 'ssh://root@h', pools: {{images: {{dir: /srv/images}}}}, "
                   f"bridges: {{{bridges}}}}}}}\n" + (text or LAN))
    return make_plan(wanted, facts(wanted, made(cloud()), links=links, wiring=wiring, platform=platform, **changed))


def making(found: Plan) -> MakeBridges:
    (action,) = (action for action in found.actions if isinstance(action, MakeBridges))
    return action


def bridged(**changed: Any) -> tuple[LinkFacts, ...]:
    """The links when br0 is over eno1."""
    there = LinkFacts("br0", "bridge", ("10.0.2.15/24",), True, ENO1.mac)
    return (LO, replace(ENO1, addresses=(), master="br0"), ENO2, ENO49, replace(there, **changed))


def applied(found: Plan, **changed: Any) -> WiringFacts:
    """The host's network when a plan has been carried out."""
    files = {file.path: file for file in WIRING.files}
    files |= {file.path: FileFacts(file.path, file.text, file.text) for file in making(found).files}
    return replace(WIRING, files=tuple(files.values()), routes=(RouteFacts("br0", "10.0.2.2"),), **changed)


# ---- the good way ----

def test_a_bridge_takes_over_what_its_nic_has() -> None:
    found = plan()
    action = only(found)
    assert isinstance(action, MakeBridges)
    assert (action.object, action.verb, action.why) == ("bridge br0", "make", "it is not there")
    assert changes(action) == [
        "br0: over eno1, with what eno1 has", f"files: {OWN}, {MINE}",
        "goes back: by itself, unless the host is reached anew within 90 s"]
    assert (action.managers, action.timeout, action.keep) == (("netplan",), 90, ("10.0.2.15/24",))
    assert action.effects == {Effect.CUTS_OFF}, "the session comes in by that NIC"
    assert not found.refused and not found.warnings


def test_when_it_is_done_there_is_nothing_to_do() -> None:
    first = plan()
    again = plan(links=bridged(), wiring=applied(first))
    assert again.empty
    assert [kept.why for kept in again.kept if kept.object == "bridge br0"] == ["is as the file says"]


def test_networks_stand_on_a_bridge_that_is_made_before() -> None:
    found = plan(text=LAN + VM)
    assert told(found)[0] == "+ bridge br0: make" or told(found)[0] == "~ bridge br0: make"
    assert not found.refused
    assert found.first == (making(found),)


def test_a_bridge_of_others_that_is_as_asked_is_left_alone() -> None:
    found = plan("br0: {nic: eno1, addresses: [10.0.2.15/24]}", bridged(), replace(WIRING, files=()))
    assert found.empty
    assert [kept.why for kept in found.kept if kept.object == "bridge br0"] == ["is as the file says; made by others"]


@pytest.mark.parametrize(("bridge", "links", "why"), [
    ("stp: true, forward_delay: 4", bridged(), "STP is off"),
    ("addresses: [10.0.2.16/24]", bridged(), "it does not have 10.0.2.16/24"),
    ("vlan: 7", bridged(), "eno1.7 is not its port"),
    ("addresses: [10.0.2.15/24]", bridged(kind="ethernet"), "br0 is no bridge"),
])
def test_a_bridge_of_others_that_differs_is_not_changed(bridge: str, links: tuple[LinkFacts, ...], why: str) -> None:
    said = refused(plan(f"br0: {{nic: eno1, {bridge}}}", links, replace(WIRING, files=())))
    assert said[0].startswith(f"host here: br0 is there, and vmwright did not make it, but {why}\n    change the ")


def test_a_nic_that_does_not_carry_the_session_cuts_nobody_off() -> None:
    action = making(plan("br0: {nic: eno2, addresses: [192.168.6.200/24]}"))
    assert not action.effects
    assert [file.path for file in action.files] == [OWN], "nothing else says anything of eno2"


def test_all_bridges_of_a_host_are_made_in_one_step() -> None:
    found = plan("br0: {nic: eno1}, br20: {nic: eno1, vlan: 20}, br1: {nic: eno2, stp: true, forward_delay: 15, "
                 "timeout: 100}")
    action = only(found)
    assert isinstance(action, MakeBridges)
    assert (action.object, action.timeout) == ("bridges br0, br20, br1", 130), "STP listens and learns before"
    assert changes(action)[:3] == [
        "br0: over eno1, with what eno1 has", "br20: over VLAN 20 of eno1, no address",
        "br1: over eno2, with what eno2 has, STP, forward delay 15 s"]


def test_a_second_bridge_leaves_the_first_as_it_is() -> None:
    found = plan("br0: {nic: eno1}, br1: {nic: eno2, addresses: [10.8.0.1/24]}", bridged(), applied(plan()))
    action = only(found)
    assert (action.object, action.effects) == ("bridge br1", frozenset())


def test_a_change_of_our_own_bridge() -> None:
    found = plan("br0: {nic: eno1, addresses: [10.0.2.15/24, 10.0.3.15/24]}", bridged(), applied(plan()))
    action = only(found)
    assert isinstance(action, MakeBridges)
    assert (action.verb, action.why, action.effects) == ("change", "it does not have 10.0.3.15/24", {Effect.CUTS_OFF})


def test_a_bridge_of_ours_that_is_no_longer_in_the_file_is_told() -> None:
    two = applied(plan("br0: {nic: eno1}, br1: {nic: eno2}"))
    ours = FileFacts("/etc/NetworkManager/system-connections/vmwright-br2.nmconnection", "x", "x")
    port = FileFacts("/etc/NetworkManager/system-connections/vmwright-br2-port.nmconnection", "x", "x")
    found = plan(links=bridged(), wiring=replace(two, files=(*two.files, ours, port)))
    assert found.empty
    assert [f"{kept.object} {kept.why}" for kept in found.unlisted if kept.object != "vm web"] == [
        "bridge br1 is not in the file, and stays: /etc/netplan/99-vmwright-br1.yaml",
        f"bridge br2 is not in the file, and stays: {ours.path}"]


def test_settings_that_cannot_be_seen_are_compared_by_our_file() -> None:
    found = plan("br0: {nic: eno1, dns: [9.9.9.9]}", bridged(), applied(plan()))
    assert only(found).why == "its settings are others"


def test_what_somebody_changed_by_hand_at_run_time_is_set_again() -> None:
    action = making(plan(links=bridged(up=False), wiring=applied(plan())))
    assert (action.why, action.files) == ("it is down", ())


def test_it_comes_after_a_reboot_and_before_everything_else() -> None:
    found = plan(text=f"{LAN}{VM}", platform=replace(READY, files=()), iommu=IommuFacts(False, "DMAR"))
    assert [type(action) for action in found.first] == [PrepareFiles, MakeBridges]
    with_iommu = cloud("hosts: {here: {connect: 'ssh://root@h', iommu: true, pools: {images: {dir: /srv/images}}, "
                       "bridges: {br0: {nic: eno1}}}}\n" + LAN)
    found = make_plan(with_iommu, facts(with_iommu, made(cloud()), links=LINKS, wiring=WIRING, platform=DEBIAN,
                                        iommu=IommuFacts(False, "DMAR")))
    reboot = next(action for action in found.actions if isinstance(action, Reboot))
    assert reboot.id in making(found).needs
    assert any("bridge-filter" in need for need in reboot.needs), "nothing runs while it reboots"


# ---- which of the three ----

def test_networkmanager_where_it_has_the_nic() -> None:
    profile = ProfileFacts("eno1", "eno1", "u-1", (("ipv4.method", "auto"),))
    wiring = replace(WIRING, tools=("nmcli", "netplan"), active=("NetworkManager",), profiles=(profile,), files=())
    action = making(plan(wiring=wiring))
    assert (action.managers, action.profiles) == (("NetworkManager",), ("u-1",))
    assert [file.path for file in action.files] == [
        f"/etc/NetworkManager/system-connections/vmwright-br0{part}.nmconnection" for part in ("", "-port")]


def test_ifupdown_where_it_has_the_nic() -> None:
    main = FileFacts("/etc/network/interfaces", "auto eno1\niface eno1 inet dhcp\n")
    action = making(plan(wiring=replace(WIRING, tools=("ifup", "ifdown"), files=(main,))))
    assert action.managers == ("ifupdown",)


def test_a_nic_that_something_else_set_up_is_refused() -> None:
    assert refused(plan(wiring=replace(WIRING, files=()))) == [
        "host here: eno1 has 10.0.2.15/24, and neither netplan nor NetworkManager nor ifupdown has given it that\n"
        "    make bridge br0 by what sets eno1 up; a bridge that is as the file says is left alone"]


def test_a_host_with_none_of_them_is_refused() -> None:
    (said,) = refused(plan("br0: {nic: eno2}", wiring=replace(WIRING, tools=(), files=())))
    assert said.startswith("host here: neither netplan nor NetworkManager nor ifupdown is at work there\n")


def test_a_host_without_systemd_is_refused() -> None:
    (said,) = refused(plan(platform=replace(READY, systemd=False)))
    assert said.startswith("host here: systemd is not running there, and the clock by which it goes back")


# ---- what is refused ----

@pytest.mark.parametrize(("bridge", "said"), [
    ("nic: en1", "host here: bridge br0 wants the interface en1, which is not there\n    did you mean eno1?"),
    ("nic: lo", "host here: lo is a loopback interface, which cannot be a port of bridge br0"),
    ("nic: eno1, addresses: [10.0.2.99/24]",
     "host here: you come in by eno1 at 10.0.2.15, which bridge br0 would not have: it would cut you off for good\n"
     "    add 10.0.2.15/24 to its `addresses:`, or connect by another interface"),
    ("nic: eno1, addresses: []",
     "host here: you come in by eno1 at 10.0.2.15, which bridge br0 would not have"),
    ("nic: eno2, addresses: [10.0.2.15/24]",
     "host here: 10.0.2.15 is to be on bridge br0, but eno1 has it\n    name the right `nic:`, or take it from eno1"),
    ("nic: eno1, addresses: [10.0.2.15/32]",
     "host here: its default gateway 10.0.2.2 is reached by eno1, and is in no subnet of the addresses of bridge br0"),
])
def test_what_would_go_wrong_is_refused(bridge: str, said: str) -> None:
    assert refused(plan(f"br0: {{{bridge}}}"))[0].startswith(said)


@pytest.mark.parametrize(("links", "said"), [
    ((LO, replace(ENO1, master="br7"), ENO2), "host here: eno1 is a port of br7 already"),
    ((LO, replace(ENO1, kind="bridge"), ENO2), "host here: eno1 is a bridge interface, which cannot be a port"),
])
def test_a_nic_that_cannot_be_a_port(links: tuple[LinkFacts, ...], said: str) -> None:
    assert refused(plan(links=links))[0].startswith(said)


def test_a_wireless_nic_cannot_be_a_port() -> None:
    assert refused(plan(wiring=replace(WIRING, wireless=("eno1",)))) == [
        "host here: eno1 is wireless, and cannot be a port of a bridge\n    name a wired interface, or use a `nat:` "
        "network for the VMs"]


def test_an_address_that_another_machine_has() -> None:
    wiring = replace(WIRING, answered=(("10.0.2.16", "52:54:00:00:00:09"),))
    bridges = "br0: {nic: eno1, addresses: [10.0.2.15/24, 10.0.2.16/24]}"
    assert refused(plan(bridges, wiring=wiring)) == [
        "host here: 10.0.2.16 is to be its own, on bridge br0, but another machine answers for it: 52:54:00:00:00:09\n"
        "    correct the address, or take it from that machine"]
    own = replace(WIRING, answered=(("10.0.2.16", ENO49.mac.upper()),))
    assert not plan(bridges, wiring=own).refused, "another interface of its own answers, too"


def test_a_vlan_that_is_there_under_another_name() -> None:
    vlan = LinkFacts("storage", "vlan", (), True, ENO1.mac, lower="eno1", vlan=20)
    assert refused(plan("br0: {nic: eno1, vlan: 20}", (*LINKS, vlan))) == [
        "host here: VLAN 20 of eno1 is there already, as storage\n    write `nic: storage` without `vlan:`"]


def test_facts_from_before_the_file_had_bridges() -> None:
    assert refused(plan(wiring=None))[0].startswith("host here: the facts do not tell how its network is set up")
    found = plan("br0: {nic: eno1, addresses: [10.0.2.15/24]}", bridged(), None)
    assert found.empty, "what is there is as asked: that much they tell"


def test_our_file_changed_by_hand_is_shown_and_not_overwritten() -> None:
    wiring = applied(plan())
    file = wiring.file(OWN)
    by_hand = FileFacts(OWN, (file.text or "").replace("stp: false", "stp: true"), file.ours)
    others = tuple(other for other in wiring.files if other.path != OWN)
    assert refused(plan(links=bridged(stp=True), wiring=replace(wiring, files=(*others, by_hand)))) == [
        f"host here: {OWN} was changed by hand:\n    @@ -20 +20 @@\n    -        stp: false\n    +        stp: true\n"
        f"    say it in the cloud's file, if it can; back to what vmwright wrote: cp {written_note(OWN)} {OWN}"]


def test_a_refused_bridge_is_not_refused_again_by_its_network() -> None:
    assert len(refused(plan("br0: {nic: en1}", text=LAN + VM))) == 1


# ---- warnings ----

def test_an_address_of_dhcp_may_be_another_one() -> None:
    links = (LO, replace(ENO1, dynamic=True), ENO2)
    files = (FileFacts(MINE, "network: {ethernets: {eno1: {dhcp4: true}}}\n"),)
    found = plan(links=links, wiring=replace(WIRING, files=files))
    assert found.warnings == (
        "host here: br0 asks DHCP for its address with the MAC of eno1, but under another name: it may get another one "
        "than 10.0.2.15/24; if the host is not reached then, it goes back",)
    assert not making(found).keep


@pytest.mark.parametrize(("resolved", "said"), [
    ((), "host here: its own name host does not resolve: sudo and others wait for DNS; put the line "
         "`192.168.6.200 host` into its /etc/hosts"),
    (("192.168.6.7",), "host here: its own name host resolves to 192.168.6.7, which it does not have: sudo and others "
                       "wait for DNS; put the line `192.168.6.200 host` into its /etc/hosts"),
    (("192.168.6.200",), ""),
])
def test_a_host_that_does_not_know_its_own_name(resolved: tuple[str, ...], said: str) -> None:
    found = plan("br0: {nic: eno2, addresses: [192.168.6.200/24]}", wiring=replace(WIRING, resolved=resolved))
    assert found.warnings == ((said,) if said else ())


# ---- a run that was cut off ----

def test_a_change_that_was_not_confirmed_is_taken_back_first() -> None:
    found = plan(wiring=replace(WIRING, pending="br0"), links=bridged(), text=LAN + VM)
    (action,) = found.first
    assert isinstance(action, TakeBridgesBack)
    assert (action.object, action.verb) == ("bridge br0", "take back")
    assert action.why == "an earlier run has changed it, and did not live to see that the host is reached over it"
    assert action.effects == {Effect.CUTS_OFF}
    assert not found.refused


# ---- br_netfilter ----

def test_the_filter_is_switched_off_by_files_that_hold_whenever_the_module_loads() -> None:
    (action, _) = plan(platform=DEBIAN).actions
    assert isinstance(action, PrepareFiles)
    settings, rule = (file.text for file in action.files)
    assert "-net.bridge.bridge-nf-call-iptables = 0\n" in settings
    assert 'SUBSYSTEM=="module", KERNEL=="br_netfilter"' in rule
    assert changes(action) == [f"files: {FILTER_SETTINGS}, {FILTER_RULE}"]


def test_a_host_without_bridges_is_left_alone() -> None:
    wanted, machine = cloud(), made(cloud())
    assert make_plan(wanted, facts(wanted, machine)).empty


def test_the_file_can_leave_the_filter_to_others() -> None:
    wanted = cloud("hosts: {here: {pools: {images: {dir: /srv/images}}, filter_bridged: true, "
                   "bridges: {br0: {nic: eno1, addresses: [10.0.2.15/24]}}}}\n" + LAN)
    found = make_plan(wanted, facts(wanted, made(cloud()), links=bridged(), wiring=replace(WIRING, files=())))
    assert found.empty


def test_a_program_that_switches_it_on_again_is_told_of() -> None:
    found = plan(links=bridged(), wiring=applied(plan(), filter=(("bridge-nf-call-iptables", 1),)))
    assert found.empty
    assert found.warnings[0].startswith(f"host here: bridge-nf-call-iptables is on though {FILTER_SETTINGS} says off")


def test_its_file_changed_by_hand_is_shown_and_not_overwritten() -> None:
    there = FileFacts(FILTER_SETTINGS, filter_settings() + "net.ipv4.ip_forward = 1\n", filter_settings())
    assert refused(plan(platform=replace(READY, files=(there, *READY.files[1:]))))[0] == (
        f"host here: {FILTER_SETTINGS} was changed by hand:\n    @@ -5,0 +6 @@\n    +net.ipv4.ip_forward = 1\n"
        f"    put it into a file of your own; back to what vmwright wrote: cp /var/lib/vmwright/files{FILTER_SETTINGS} "
        f"{FILTER_SETTINGS}")


# ---- what is missing ----

def test_in_what_a_bridge_is_not_as_asked() -> None:
    wanted = cloud("hosts: {here: {pools: {images: {dir: /srv/images}}, bridges: {br0: {nic: eno1, stp: true, "
                   "forward_delay: 4, addresses: [10.0.2.15/24], gateway: 10.0.2.2}}}}\n" + LAN).hosts[0].bridges[0]
    assert lacking(wanted, LINKS, ()) == ("it is not there",)
    right = bridged(stp=True, forward_delay=4.0)
    route = RouteFacts("br0", "10.0.2.2")
    assert lacking(wanted, right, (route,)) == ()
    assert lacking(wanted, right, ()) == ("the default route does not go by 10.0.2.2",)
    assert lacking(wanted, bridged(stp=True, forward_delay=15.0), (route,)) == ("its forward delay is 15 s",)
    extra = bridged(stp=True, forward_delay=4.0, addresses=("10.0.2.15/24", "10.0.2.16/24"))
    assert lacking(wanted, extra, (route,)) == ("it has 10.0.2.16/24, too",)
    both = (LO, replace(ENO1, master="br0"), right[-1])
    assert lacking(wanted, both, (route,)) == ("eno1 still has 10.0.2.15/24",)


