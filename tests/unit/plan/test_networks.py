"""Networks: NAT networks are made or adopted, bridges must be there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.plan.build import changes, cloud, facts, made, only, plan, refused, told, vm
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import LinkFacts, NetworkFacts
from vmwright.plan.actions import CreateNetwork, CreateVm, Plan
from vmwright.plan.diff import make_plan
from vmwright.spec.cloud import Cloud

DHCP = vm(address="10.0.0.10").replace("address: 10.0.0.10", "nics: [{network: lan}]")
BRIDGED = "networks: {lan: {bridge: br0, subnet: 10.0.0.0/24}}\n" + vm()


def on(wanted: Cloud, *networks: NetworkFacts, links: tuple[LinkFacts, ...] = ()) -> Plan:
    """The plan on a fresh machine that has these networks and links."""
    return make_plan(wanted, facts(wanted, Machine(), networks=networks, links=links))


def nat(name: str = "lan", subnet: str = "10.0.0.1/24", *, forward: str | None = "nat", active: bool = True,
        autostart: bool = True, dhcp: bool = False) -> NetworkFacts:
    """A network of libvirt."""
    return NetworkFacts(name, active, autostart, forward, "virbr7", subnet, dhcp)


def networks(found: Plan) -> list[CreateNetwork]:
    return [action for action in found.actions if isinstance(action, CreateNetwork)]


def test_a_nat_network_is_made_with_the_addresses_of_the_file_reserved() -> None:
    action, = networks(on(cloud()))
    assert (action.sign, action.object, action.verb) == ("+", "network lan", "create")
    assert action.why == "libvirt has no network of that name or subnet"
    assert changes(action) == ["NAT: 10.0.0.0/24"]
    assert [str(address) for address in action.reserved] == ["10.0.0.10"]
    assert not action.dhcp


def test_dhcp_is_there_when_a_nic_wants_it() -> None:
    action, = networks(on(cloud(DHCP)))
    assert action.dhcp


@pytest.mark.parametrize(("active", "autostart", "why"), [
    (False, True, "it is there, but not running"), (True, False, "it is there, but not started at boot")])
def test_a_network_that_is_there_is_started(active: bool, autostart: bool, why: str) -> None:
    action, = networks(on(cloud(), nat(active=active, autostart=autostart)))
    assert action.exists and (action.verb, action.why) == ("start", why)


def test_a_network_that_is_there_is_left_alone() -> None:
    found = on(cloud(), nat())
    assert not networks(found)
    assert ("network lan", "is there") in {(kept.object, kept.why) for kept in found.kept}


def test_libvirts_own_network_is_adopted_by_its_subnet() -> None:
    found = on(cloud(), nat("default"))
    assert not networks(found)
    assert ("network lan", "is there, as libvirt's default") in {(kept.object, kept.why) for kept in found.kept}
    web = found.actions[-1]
    assert isinstance(web, CreateVm) and web.networks == (("lan", "network", "default"),)


def test_an_adopted_network_that_is_off_is_started_under_its_own_name() -> None:
    action, = networks(on(cloud(), nat("default", active=False)))
    assert (action.libvirt_name, action.why) == ("default", "it is there, as libvirt's default, but not running")


def test_a_fixed_address_that_dhcp_may_hand_to_others_is_warned_of() -> None:
    mac = cloud().vms[0].nics[0].mac
    there = replace(nat("default", dhcp=True), dhcp_ranges=(("10.0.0.2", "10.0.0.9"), ("10.0.0.10", "10.0.0.99")))
    assert on(cloud(), there).warnings == (
        "vm web: DHCP of libvirt's network default may hand its address 10.0.0.10 to others, as it has 10.0.0.10 to "
        "10.0.0.99; take one outside, or reserve it: virsh net-update default add-last ip-dhcp-host "
        f"\"<host mac='{mac}' ip='10.0.0.10'/>\" --live --config",)
    for quiet in (replace(there, dhcp_ranges=(("10.0.0.2", "10.0.0.9"),)), replace(there, dhcp_hosts=("10.0.0.10",)),
                  replace(there, dhcp_ranges=(("", ""),))):
        assert not on(cloud(), quiet).warnings


def test_an_adopted_network_whose_host_has_another_address() -> None:
    assert on(cloud(), nat("default", "10.0.0.254/24")).warnings == (
        "network lan: guests are told the gateway 10.0.0.1, but on libvirt's network default the host is 10.0.0.254: "
        "`gateway: 10.0.0.254` may be meant",)
    assert refused(on(cloud(), nat("default", "10.0.0.10/24"))) == [
        "vm web: 10.0.0.10 is the host's own address on libvirt's network default\n    give it another `address:`"]


@pytest.mark.parametrize(("network", "described"), [
    (nat(subnet="10.5.0.1/24"), "a NAT network lan with 10.5.0.1/24"),
    (nat(forward="route"), "a network of kind route lan with 10.0.0.1/24"),
    (nat("isolated", forward=None), "an isolated network isolated with 10.0.0.1/24"),
])
def test_another_network_in_its_place_is_refused(network: NetworkFacts, described: str) -> None:
    assert refused(on(cloud(), network)) == [
        f"network lan: libvirt on host here has {described}, not NAT 10.0.0.0/24\n"
        "    choose another name and subnet, or those that are there"]


@pytest.mark.parametrize(("found", "other"), [
    ({"links": (LinkFacts("eth0", "ethernet", ("10.0.0.77/16",), True),)}, "10.0.0.77/16, which eth0 has"),
    ({"networks": (nat("other", "10.0.0.1/25", active=False),)}, "10.0.0.1/25 of libvirt's network other"),
    ({"networks": (nat(active=False),), "links": (LinkFacts("eth0", "ethernet", ("10.0.0.77/24",), True),)},
     "10.0.0.77/24, which eth0 has"),
])
def test_an_overlapping_subnet_is_refused(found: dict[str, object], other: str) -> None:
    wanted = cloud()
    said = refused(make_plan(wanted, facts(wanted, Machine(), **{"links": (), **found})))
    assert said == [f"network lan: 10.0.0.0/24 overlaps with {other} on host here\n"
                    "    choose a subnet that nothing else uses"]


def test_its_own_bridge_does_not_overlap() -> None:
    found = on(cloud(), nat(active=False), links=(LinkFacts("virbr7", "bridge", ("10.0.0.1/24",), False),))
    assert not found.refused


def test_a_nic_without_address_needs_dhcp() -> None:
    assert refused(on(cloud(DHCP), nat())) == [
        "vm web has no address, and libvirt's network lan hands none out\n    give it an `address:`"]
    assert not on(cloud(DHCP), nat(dhcp=True)).refused


def test_a_bridge_that_is_there_is_used() -> None:
    found = on(cloud(BRIDGED), links=(LinkFacts("br0", "bridge", (), True),))
    assert ("network lan", "bridge br0 is there") in {(kept.object, kept.why) for kept in found.kept}
    web = found.actions[-1]
    assert isinstance(web, CreateVm) and web.networks == (("lan", "bridge", "br0"),)


def test_a_bridge_that_is_down_is_warned_of() -> None:
    found = on(cloud(BRIDGED), links=(LinkFacts("br0", "bridge", (), False),))
    assert found.warnings == ("network lan: bridge br0 is down on host here",)


@pytest.mark.parametrize(("links", "what", "there"), [
    ((), "is not there", "none"),
    ((LinkFacts("br1", "bridge"), LinkFacts("eth0", "ethernet")), "is not there", "br1"),
    ((LinkFacts("br0", "ethernet"),), "is not a bridge, but an ethernet interface", "none"),
    ((LinkFacts("br0", "bond"),), "is not a bridge, but a bond interface", "none"),
    ((LinkFacts("br0", "openvswitch"),), "is not a bridge, but Open vSwitch, which is not yet supported", "none"),
])
def test_a_missing_bridge_is_refused_with_those_that_are_there(links: tuple[LinkFacts, ...], what: str,
                                                               there: str) -> None:
    todo = "name another one" if "not a bridge" in what else "have it made by `bridges:` of the host"
    found = on(cloud(BRIDGED), links=links)
    assert refused(found) == [f"network lan: bridge br0 {what} on host here\n"
                              f"    {todo}; bridges there: {there}"]
    assert "+ vm web: create" not in told(found)


def test_unused_networks_of_a_cloud_with_one_host_are_made_too() -> None:
    found = plan(cloud("networks: {lan: {nat: 10.0.0.0/24}, spare: {nat: 10.7.0.0/24}, far: {bridge: br9}}\n"
                       + vm(network="lan")), Machine())
    assert [action.object for action in networks(found)] == ["network lan", "network spare"]
    assert not found.refused


def test_a_network_taken_out_of_the_file_is_left_alone() -> None:
    machine = made(cloud("networks: {lan: {nat: 10.0.0.0/24}, spare: {nat: 10.7.0.0/24}}\n" + vm(network="lan")))
    found = plan(cloud(), machine, prune=True)
    assert not found.actions
    assert "spare" in machine.networks


def test_a_stopped_network_is_started_before_its_vms() -> None:
    machine = made(cloud())
    machine.networks["lan"].active = False
    machine.domains["web"].live = None
    network, web = plan(cloud(), machine).actions
    assert told(plan(cloud(), machine)) == ["+ network lan: start", "~ vm web: start"]
    assert isinstance(network, CreateNetwork)
    assert network.id in web.needs
    machine.domains["web"].live = machine.domains["web"].persistent
    assert only(plan(cloud(), machine)).object == "network lan"
