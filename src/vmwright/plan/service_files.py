"""The files of a host's own services for guests: dnsmasq's, chrony's, the proxies', nftables', and units of systemd.

Pure text. Where a program is the host's own (chrony, squid, apt-cacher-ng), a file beside the administrator's is added;
dnsmasq runs as a unit of ours, for others on the host (libvirt's, NetworkManager's) are not to be touched.
Sources: dnsmasq(8), chrony.conf(5), the documented squid.conf, nft(8), systemd.unit(5), systemd.service(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses, ip_address

from vmwright.names import (
    CACHER_CONFIG,
    CACHER_DROP_IN,
    DNS_CONFIG,
    DNS_NAMES,
    DNS_UNIT,
    FORWARDING,
    NAT_RULES,
    NAT_TABLE,
    NAT_UNIT,
    SQUID_CONFIG,
)
from vmwright.netconfig.common import NewFile
from vmwright.plan.own_files import mark
from vmwright.spec.cloud import Cloud, DhcpSpec, DnsSpec, MasqueradeSpec, NetworkSpec, Nic, NtpSpec, ProxySpec
from vmwright.units import MIB

_LEASE = "12h"
_STRATUM = 10  # of a clock that nobody else has set: any real server is preferred to it
_KEPT_MINUTES = 129600  # 90 days: a package's file never changes under its name
_LEASES = {True: "/var/lib/dnsmasq", False: "/var/lib/misc"}  # on Fedora, where SELinux lets dnsmasq write; elsewhere


@dataclass(frozen=True)
class Name:
    """An address and what it is called."""

    address: IPv4Address
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        """As in hosts(5)."""
        return f"{self.address} {' '.join(self.names)}\n"


# -- DNS and DHCP ------------------------------------------------------------------------------------------------------

def dns_files(cloud: Cloud, dns: DnsSpec, names: Sequence[Name], *, fedora: bool) -> tuple[NewFile, ...]:
    """Of our own dnsmasq: what it does, the names it knows, its unit."""
    head = mark(cloud.name)
    return (NewFile(DNS_CONFIG, head + "".join(f"{line}\n" for line in _dns_lines(cloud, dns, fedora=fedora))),
            NewFile(DNS_NAMES, head + "".join(name.line for name in names)),
            NewFile(DNS_UNIT, head + _DNS_UNIT.format(bridge=dns.bridge)))


def _dns_lines(cloud: Cloud, dns: DnsSpec, *, fedora: bool) -> Iterator[str]:
    """The host's own /etc/hosts is not read: it has the host's name with an address of the host's alone."""
    yield from (f"interface={dns.bridge}", "except-interface=lo", "bind-dynamic", "pid-file=", "no-hosts",
                f"addn-hosts={DNS_NAMES}", "domain-needed")
    if dns.upstream:
        yield from ("no-resolv", *(f"server={server}" for server in dns.upstream))
    if dns.dhcp:
        yield from _dhcp_lines(cloud, dns.bridge, dns.dhcp)
        yield f"dhcp-leasefile={_LEASES[fedora]}/dnsmasq.vmwright.leases"


def _dhcp_lines(cloud: Cloud, bridge: str, dhcp: DhcpSpec) -> Iterator[str]:
    yield f"dhcp-range={dhcp.first},{dhcp.last},{dhcp.subnet.netmask},{_LEASE}"
    network = network_of(cloud, bridge, dhcp.subnet)
    options: dict[str, tuple[str, ...]] = {"router": (str(network.gateway),) if network and network.gateway else ()}
    if network:
        options |= {"dns-server": _addresses(network.dns), "ntp-server": _addresses(network.ntp),
                    "domain-search": network.search}
    for option, values in options.items():
        if values or option == "router":  # without a value: none is told, instead of this host
            yield ",".join((f"dhcp-option=option:{option}", *values))
    for vm in cloud.vms:
        for nic in vm.nics:
            if nic.address is None and network and nic.network == network.name:
                yield f"dhcp-host={nic.mac},{vm.name}"


def network_of(cloud: Cloud, bridge: str, subnet: IPv4Network) -> NetworkSpec | None:
    """The network of the cloud on that bridge with that subnet."""
    return next((n for n in cloud.networks if n.bridge == bridge and n.subnet == subnet), None)


def _addresses(servers: Iterable[str]) -> tuple[str, ...]:
    """Those of the servers that are IPv4 addresses: DHCP tells no others."""
    return tuple(server for server in servers if _is_ipv4(server))


def _is_ipv4(text: str) -> bool:
    try:
        return ip_address(text).version == 4
    except ValueError:
        return False


def vm_names(cloud: Cloud, bridge: str) -> tuple[Name, ...]:
    """VMs with fixed addresses: by one on the bridge if they have one, with the search domains of its network."""
    networks = {network.name: network for network in cloud.networks}
    found = []
    for vm in cloud.vms:
        nics = sorted((nic for nic in vm.nics if nic.address and nic.network in networks),
                      key=lambda nic: networks[nic.network].bridge != bridge)
        found += [_vm_name(vm.name, nic, nic.address, networks[nic.network]) for nic in nics[:1] if nic.address]
    return tuple(found)


def _vm_name(name: str, nic: Nic, address: IPv4Interface, network: NetworkSpec) -> Name:
    domains = nic.search or network.search
    return Name(address.ip, (name, *(f"{name}.{domain.rstrip('.')}" for domain in domains)))


_DNS_UNIT = f"""\
[Unit]
Description=DNS and DHCP for guests on {{bridge}} (vmwright)
Documentation=man:dnsmasq(8)
Wants=network.target
After=network.target

[Service]
ExecStartPre=/usr/sbin/dnsmasq --test --conf-file={DNS_CONFIG}
ExecStart=/usr/sbin/dnsmasq --keep-in-foreground --conf-file={DNS_CONFIG}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2

[Install]
WantedBy=multi-user.target
"""


# -- NTP ---------------------------------------------------------------------------------------------------------------

def ntp_files(cloud: Cloud, ntp: NtpSpec, path: str) -> tuple[NewFile, ...]:
    """Of chrony: whom it serves, also while nobody tells the host the time."""
    lines = [*(f"server {server} iburst" for server in ntp.upstream), *(f"allow {subnet}" for subnet in ntp.networks),
             f"local stratum {_STRATUM}"]
    return (NewFile(path, mark(cloud.name) + "".join(f"{line}\n" for line in lines)),)


# -- package proxies ---------------------------------------------------------------------------------------------------

_INSIDE = ("127.0.0.0/8", "0.0.0.0/32", "169.254.0.0/16", "::1/128", "fe80::/10")


def squid_files(cloud: Cloud, proxy: ProxySpec, *, port_said: bool) -> tuple[NewFile, ...]:
    """Of squid: who may use it, and that packages are kept. `port_said`: its main file has the port already."""
    lines = [
        f"acl vmwright_guests src {' '.join(map(str, proxy.networks))}",
        f"acl vmwright_inside dst {' '.join(_INSIDE)}",  # the host's own programs, and what is only for itself
        "http_access deny vmwright_guests vmwright_inside", "http_access allow vmwright_guests",
        *([] if port_said else [f"http_port {proxy.port}"]),
        "maximum_object_size 1 GB",  # counts for what comes after it
        f"cache_dir ufs /var/spool/squid {proxy.cache // MIB} 16 256",
        rf"refresh_pattern -i \.(u?deb|d?rpm)$ {_KEPT_MINUTES} 100% {_KEPT_MINUTES}"]
    return (NewFile(SQUID_CONFIG, mark(cloud.name) + "".join(f"{line}\n" for line in lines)),)


def cacher_files(cloud: Cloud, proxy: ProxySpec, own: Sequence[IPv4Address]) -> tuple[NewFile, ...]:
    """Of apt-cacher-ng: it has no list of who may use it, but answers only at the host's addresses there."""
    bind = " ".join(map(str, (IPv4Address("127.0.0.1"), *own)))
    text = f"Port: {proxy.port}\nBindAddress: {bind}\nPassThroughPattern: .*:443$\n"
    return NewFile(CACHER_CONFIG, mark(cloud.name) + text), NewFile(CACHER_DROP_IN, mark(cloud.name) + _CACHER_UNIT)


_CACHER_UNIT = """\
# It answers at addresses of bridges, which come up with the network.
[Unit]
Wants=network-online.target
After=network-online.target
"""


# -- masquerading ------------------------------------------------------------------------------------------------------

def nat_files(cloud: Cloud, masquerade: MasqueradeSpec) -> tuple[NewFile, ...]:
    """A table of our own in nftables, loaded by a unit of ours, and the kernel told to forward."""
    head, subnets = mark(cloud.name), ", ".join(map(str, collapse_addresses(masquerade.networks)))
    return (NewFile(NAT_RULES, head + _NAT_RULES.format(table=NAT_TABLE, subnets=subnets, out=masquerade.out)),
            NewFile(FORWARDING, f"{head}net.ipv4.ip_forward = 1\n"),
            NewFile(NAT_UNIT, head + _NAT_UNIT))


# A table that is there is made anew: it is named first, so that there is one to delete.
_NAT_RULES = """\
table ip {table}
delete table ip {table}
table ip {table} {{
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {{ {subnets} }} ip daddr != {{ {subnets} }} oifname "{out}" masquerade
	}}
}}
"""

# nftables.service flushes all tables: when it is stopped, started anew or reloaded, ours is, too, and after it at boot.
_NAT_UNIT = f"""\
[Unit]
Description=Masquerading for guests (vmwright)
Documentation=man:nft(8)
After=nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {NAT_RULES}
ExecReload=/usr/sbin/nft -f {NAT_RULES}
ExecStop=-/usr/sbin/nft delete table ip {NAT_TABLE}

[Install]
WantedBy=multi-user.target
"""
