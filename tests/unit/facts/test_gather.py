"""Facts assembled from recorded hosts: what the shell said, and what libvirt did."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.facts.test_probes import NAMES, recorded

from vmwright.errors import HostError
from vmwright.facts.gather import assemble, untold
from vmwright.facts.model import Kvm, LinkFacts, PoolFacts
from vmwright.facts.probes import Output
from vmwright.spec.cloud import Pool
from vmwright.virt.connect import Inventory, RawDomain, RawNetwork, RawPool
from vmwright.virt.design import network_xml, overlay_xml, pool_xml

POOL = pool_xml("vms", "/srv/images").replace("</pool>", "<capacity unit='bytes'>100</capacity>"
                                              "<available unit='bytes'>40</available></pool>")
VOLUME = ("<volume><name>a.qcow2</name><capacity unit='bytes'>7</capacity><target><path>/srv/images/a.qcow2</path>"
          "<format type='qcow2'/></target></volume>")
DOMAIN = ("<domain type='kvm'><name>other</name><uuid>u</uuid><memory unit='KiB'>1024</memory><vcpu>2</vcpu><os/>"
          "</domain>")
CAPABILITIES = "<domainCapabilities><os><enum name='firmware'><value>efi</value></enum></os></domainCapabilities>"
NETWORK = "<network><name>default</name><forward mode='nat'/><ip address='192.168.122.1' prefix='24'/></network>"


def inventory(**changed: object) -> Inventory:
    """What libvirt says, with some of it changed."""
    plain = Inventory("9.0.0", "7.2.0", CAPABILITIES, (RawDomain(DOMAIN, DOMAIN, "running", True),),
                      (RawPool(POOL, True, True, (VOLUME,)),), (RawNetwork(NETWORK, True, False),))
    return replace(plain, **changed)  # type: ignore[arg-type]


def test_a_debian_host() -> None:
    host = assemble("here", recorded("debian12"), inventory())
    assert (host.name, host.hostname, host.os, host.kernel, host.user) == (
        "here", "kvm1.example.org", "Debian GNU/Linux 12 (bookworm)", "6.1.0-28-amd64", "root")
    assert (host.cpus, host.memory, host.memory_available) == (2, 24684084 << 10, 21954464 << 10)
    assert (host.kvm, host.kvm_reason) == (Kvm.BROKEN, "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69")
    assert (host.emulator, host.libvirt, host.uefi, host.kvm_device_mode) == ("7.2.0", "9.0.0", True, "root:kvm 660")
    assert "mmdebstrap" in host.tools
    assert host.pools == (PoolFacts("vms", "dir", "/srv/images", True, True, 100, 40, 0o711),)
    assert [(volume.pool, volume.name) for volume in host.volumes] == [("vms", "a.qcow2")]
    assert [(network.name, network.subnet, network.autostart) for network in host.networks] == [
        ("default", "192.168.122.1/24", False)]
    assert [(domain.name, domain.state, domain.autostart) for domain in host.domains] == [("other", "running", True)]
    assert [intent.operation for intent in host.intents] == ["create", "template"]


def test_an_ubuntu_host() -> None:
    host = assemble("zcloud", recorded("ubuntu2004"), inventory(domains=(), pools=(), networks=()))
    assert (host.os, host.cpus, host.kvm, host.kvm_reason) == ("Ubuntu 20.04.6 LTS", 48, Kvm.WORKS, "")
    assert LinkFacts("br0", "bridge", ("192.168.6.200/24", "192.168.7.200/24"), True, "94:18:82:00:00:01",
                     forward_delay=4.0) in host.links
    assert "mmdebstrap" not in host.tools
    assert not host.intents and not host.volumes


def test_a_host_without_qemu() -> None:
    host = assemble("here", recorded("debian12"), inventory(emulator=None, capabilities=""))
    assert host.emulator is None and not host.uefi


def test_a_pool_that_is_closed_to_qemu_is_known_to_be() -> None:
    closed = RawPool(pool_xml("vms", "/root/vms"), True, True)
    assert assemble("here", recorded("debian12"), inventory(pools=(closed,))).pools[0].blocked_by == "/root"


def test_files_of_a_pool_that_is_not_active_come_from_the_shell() -> None:
    off = RawPool(pool_xml("vms", "/srv/images"), False, True)
    host = assemble("here", recorded("debian12"), inventory(pools=(off,)), {"/srv/images": "vms"})
    assert [(volume.pool, volume.name, volume.backing is not None) for volume in host.volumes] == [
        ("vms", "lab.base.template-0123456789ab.qcow2", False), ("vms", "lab.web.root.qcow2", True),
        ("vms", "lab.web.seed.iso", False)]


def test_which_files_the_shell_is_asked_for() -> None:
    wanted = [Pool("a", "here", "/a"), Pool("b", "here", "/b"), Pool("c", "here", "/c")]
    there = [PoolFacts("a", "dir", "/a", True, True, 0, 0), PoolFacts("b", "dir", "/b", False, True, 0, 0)]
    assert untold(wanted, there) == {"/b": "b", "/c": "c"}


@pytest.mark.parametrize("probe", NAMES)
def test_each_missing_probe_is_named(probe: str) -> None:
    outputs = {name: output for name, output in recorded("debian12").items() if name != probe}
    with pytest.raises(HostError, match=f"host here did not answer the probe {probe}"):
        assemble("here", outputs, inventory())


@pytest.mark.parametrize(("probe", "text", "said"), [
    ("cpus", "undefined", "host here: the probe cpus was not understood\n"
                          "  why: invalid literal for int() with base 10: 'undefined'\n"
                          "  do:  see what it prints there: getconf _NPROCESSORS_ONLN"),
    ("memory", "", "host here: the probe memory was not understood\n  why: it has no MemTotal\n"
                   "  do:  see what it prints there: cat /proc/meminfo"),
    ("links", "Object \"-json\" is unknown", "host here: the probe links was not understood\n"
                                             "  why: Expecting value: line 1 column 1 (char 0)\n"
                                             "  do:  see what it prints there: ip -json -details address"),
    ("links", "[3]", "host here: the probe links was not understood\n"
                     "  why: argument of type 'int' is not iterable\n"
                     "  do:  see what it prints there: ip -json -details address"),
    ("files", '{"filename": 3}', None),
])
def test_what_is_not_understood_is_an_error_with_the_command(probe: str, text: str, said: str | None) -> None:
    outputs = {**recorded("debian12"), probe: Output(text, 0)}
    if said is None:
        assert assemble("here", outputs, inventory())
        return
    with pytest.raises(HostError) as caught:
        assemble("here", outputs, inventory())
    assert str(caught.value) == said


def test_our_own_descriptions_are_understood() -> None:
    """What the design writes is what the facts read."""
    from ipaddress import IPv4Network

    volume = overlay_xml("lab.web.root.qcow2", 8 << 30, "/srv/images/base.qcow2", "qcow2")
    network = network_xml("lan", IPv4Network("10.0.0.0/24"), ())
    host = assemble("here", recorded("debian12"), inventory(
        pools=(RawPool(POOL, True, True, (volume,)),), networks=(RawNetwork(network, True, True),)))
    assert (host.volumes[0].capacity, host.volumes[0].backing) == (8 << 30, "/srv/images/base.qcow2")
    assert (host.networks[0].forward, host.networks[0].subnet) == ("nat", "10.0.0.1/24")
