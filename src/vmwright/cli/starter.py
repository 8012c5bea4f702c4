"""The starter file that `vmwright init` writes: right as it stands, small, and a comment for each choice."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv4Network
from itertools import chain, count
from pathlib import Path

from vmwright.facts.model import Facts, HostFacts, Kvm
from vmwright.spec.cloud import Cloud, HostSpec
from vmwright.units import GIB, format_size

_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
_POOL = "/var/lib/libvirt/vms"
_ANY = IPv4Network("10.213.77.0/24")  # on a host that has all private addresses, the plan says what is in the way


def starter(cloud: str, connect: str) -> str:
    """The file's text. Reads the host's facts."""
    from vmwright.facts.gather import gather
    from vmwright.session import Sessions

    name = "local" if connect == "local" else "server"
    empty = Cloud(cloud or "none", (HostSpec(name, connect),), (), (), (), ())
    with Sessions(empty.hosts) as sessions:
        facts: Facts = gather(empty, sessions)
    key = ssh_key()
    return render(cloud, connect, facts.host(name), key, key_there=Path(key).expanduser().exists())


def ssh_key() -> str:
    """The user's public key, as a path to write in the file; one that is usual when there is none."""
    found = next((name for name in _KEYS if (Path.home() / ".ssh" / name).exists()), _KEYS[0])
    return f"~/.ssh/{found}"


def free_subnet(host: HostFacts) -> IPv4Network:
    """A /24 of the private ranges that none of the host's interfaces or libvirt networks has."""
    taken = [IPv4Interface(address).network for link in host.links for address in link.addresses]
    taken += [IPv4Interface(network.subnet).network for network in host.networks if network.subnet]
    candidates = (IPv4Network(f"{first}.{third}.0/24") for first in ("192.168", "172.28", "10.213")
                  for third in (*range(130, 255), *range(1, 130)))
    return next((c for c in candidates if not any(c.overlaps(other) for other in taken)), _ANY)


def cloud_name(host: HostFacts) -> str:
    """A cloud's name from a host's: a host-name label."""
    label = re.sub(r"[^a-z0-9-]+", "-", host.hostname.split(".")[0].lower()).strip("-")
    return f"{label[:40].strip('-')}-cloud" if label else "my-cloud"


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it when others have it."""
    return next(n for n in chain([name], (f"{name}{number}" for number in count(2))) if n not in taken)


def render(cloud: str, connect: str, host: HostFacts, key: str, *, key_there: bool) -> str:
    """The starter file for a host; when the key is not there, it says how to make one. Pure."""
    net = free_subnet(host)
    known = {pool.name: pool for pool in host.pools}
    pool = free_name("vms", [name for name, facts in known.items() if facts.target != _POOL])
    pool = next((facts.name for facts in known.values() if facts.target == _POOL), pool)
    network = free_name("lan", [facts.name for facts in host.networks])
    domains = {name for domain in host.domains for name in (domain.name, domain.name.rpartition("-")[0])}
    web, db = free_name("web", domains), free_name("db", domains)
    memory = _memory(host)
    make_key = "" if key_there else "    # not there yet: ssh-keygen -t ed25519"
    return f"""\
# A private cloud. Look: vmwright plan      Make it so: vmwright apply      See it: vmwright status
# Every key, with its meaning: docs/reference/spec.md, or `vmwright check --schema` for your editor.
cloud: {cloud or cloud_name(host)}

hosts:
  {host.name}:
    # {_one_line(host.os)}, {host.cpus} CPUs, {format_size(host.memory)} memory; guests run by {_how(host)}
    connect: {connect}
    pools:
      {pool}: {{dir: {_POOL}}}    # a directory on a file system with room

networks:
  {network}:
    nat: {net}                # the VMs reach the world through the host; or, to be on your own network:
{_bridged(host)}

users:
  admin: {{ssh_keys: [{key}], sudo: nopasswd}}{make_key}

defaults:                             # for every VM, unless it says otherwise
  pool: {pool}
  network: {network}
  timezone: Etc/UTC

templates:
  debian: {{build: debian, disk: 4G}}   # from the host's own Debian mirror; a cloud image would be {{os: debian12}}

vms:
  {web}:
    count: 2                          # {web}-1 and {web}-2, with addresses that count upwards
    template: debian
    vcpus: 1
    memory: {memory:<4}                      # G is GiB
    address: {net.network_address + 10}
  {db}:
    template: debian
    vcpus: {min(2, host.cpus)}
    memory: {memory}
    address: {net.network_address + 20}
    disk: 8G                          # larger than the template's: the guest sees all of it
    disks: {{data: {{size: 4G, filesystem: ext4, mount: /srv}}}}
    autostart: true
"""


def _memory(host: HostFacts) -> str:
    """For each of three VMs, so that they fit beside what runs already."""
    return "2G" if host.memory_available > 8 * GIB else "1G" if host.memory_available > 4 * GIB else "512M"


def _how(host: HostFacts) -> str:
    if host.kvm is Kvm.WORKS:
        return "KVM"
    return f"emulation, which is slow (KVM is {host.kvm}: {_one_line(host.kvm_reason)})"


def _bridged(host: HostFacts) -> str:
    """The commented keys of a bridged network, with the host's own bridge when it has one."""
    bridges = [link for link in host.links if link.kind == "bridge" and not link.name.startswith(("virbr", "docker"))]
    name = bridges[0].name if bridges else "br0"
    address = IPv4Interface(next((a for bridge in bridges[:1] for a in bridge.addresses), "192.168.1.0/24"))
    gateway = address.network.network_address + 1
    rows = (f"bridge: {name}", f"subnet: {address.network}", f"gateway: {gateway}", f"dns: [{gateway}]")
    return "\n".join(f"    # {row:<22}{'    # an existing bridge of the host' if row is rows[0] else ''}".rstrip()
                     for row in rows)


def _one_line(text: str) -> str:
    return " ".join(text.split())
