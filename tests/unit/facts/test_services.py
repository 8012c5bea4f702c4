"""What bears on a host's own services, from what a host prints."""

from __future__ import annotations

import pytest

from vmwright.facts import services
from vmwright.facts.service_model import ServicesFacts, SocketFacts
from vmwright.spec.cloud import DnsSpec, ProxySpec, ServicesSpec

# A host with libvirt, systemd-resolved, chrony and Docker's firewall; one line is of a kernel socket without a program.
PRINTED = """\
unit\tvmwright-dns.service\tactive\tenabled
unit\tchrony.service\tactive\tenabled
unit\tsquid.service\tinactive\tdisabled
unit\tfirewalld.service\tinactive\t
socket\tudp\t127.0.0.53%lo:53\tusers:(("systemd-resolve",pid=612,fd=13))\tsystemd-resolved.service
socket\tudp\t192.168.122.1:53\tusers:(("dnsmasq",pid=900,fd=5))\tlibvirtd.service
socket\tudp\t0.0.0.0%virbr0:67\tusers:(("dnsmasq",pid=900,fd=3))\tlibvirtd.service
socket\tudp\t[fe80::5086:86ff:fe19:e796]%br0:53\tusers:(("dnsmasq",pid=700,fd=11))\tvmwright-dns.service
socket\tudp\t0.0.0.0:123\tusers:(("chronyd",pid=650,fd=5))\tchrony.service
socket\ttcp\t*:3128\t\t
main\tchrony\t/etc/chrony/chrony.conf
reads\tchrony\tconfdir /etc/chrony/conf.d
unfinished\tdns
forwarding\t1
chains\t{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"chain": {"family": "ip", "table": "filter", \
"name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}, {"chain": \
{"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "accept"}}, {"chain": {"family": \
"bridge", "table": "filter", "name": "IN", "hook": "input", "policy": "drop"}}, {"chain": {"family": "ip", "table": \
"nat", "name": "DOCKER"}}]}
table\tyes
end
"""


def test_what_a_host_prints() -> None:
    assert services.parse(PRINTED) == ServicesFacts(
        active=("vmwright-dns.service", "chrony.service"), enabled=("vmwright-dns.service", "chrony.service"),
        sockets=(SocketFacts("udp", "127.0.0.53", 53, "lo", "systemd-resolve", "systemd-resolved.service"),
                 SocketFacts("udp", "192.168.122.1", 53, "", "dnsmasq", "libvirtd.service"),
                 SocketFacts("udp", "0.0.0.0", 67, "virbr0", "dnsmasq", "libvirtd.service"),
                 SocketFacts("udp", "fe80::5086:86ff:fe19:e796", 53, "br0", "dnsmasq", "vmwright-dns.service"),
                 SocketFacts("udp", "0.0.0.0", 123, "", "chronyd", "chrony.service"),
                 SocketFacts("tcp", "*", 3128)),
        main=(("chrony", "/etc/chrony/chrony.conf"),), reads=(("chrony", "confdir /etc/chrony/conf.d"),),
        forwarding=True, table=True, unfinished=("dns",), drops=(("forward", "table ip filter, chain FORWARD"),))


def test_a_host_with_nothing() -> None:
    assert services.parse("unit\tsquid.service\tinactive\t\nforwarding\t0\nend") == ServicesFacts()


@pytest.mark.parametrize("text", ["", "forwarding\t1\n", "chains\t{\nend\n"])
def test_what_is_cut_off_or_broken_is_not_believed(text: str) -> None:
    with pytest.raises(ValueError):
        services.parse(text)


def test_a_host_that_is_to_have_none_is_not_asked() -> None:
    assert services.commands(ServicesSpec()) == {}


def test_only_sockets_of_these_services_are_asked_for() -> None:
    argv = services.commands(ServicesSpec(DnsSpec("br0"), proxy=ProxySpec("squid", 8080, ())))["services"]
    assert argv[5] == "sport = :53 or sport = :67 or sport = :123 or sport = :8080"
