"""The starter file that `vmwright init` writes: right as it stands, small, and a comment for each choice."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from vmwright.facts.model import Facts, HostFacts, Kvm
from vmwright.spec.cloud import Cloud, HostSpec
from vmwright.units import GIB, format_size

_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")


def starter(cloud: str, connect: str) -> str:
    """The file's text. Reads the host's facts."""
    from vmwright.facts.gather import gather
    from vmwright.session import Sessions

    name = "local" if connect == "local" else "server"
    empty = Cloud(cloud or "none", (HostSpec(name, connect),), (), (), (), ())
    with Sessions(empty.hosts) as sessions:
        facts: Facts = gather(empty, sessions)
    return render(cloud, connect, facts.host(name), ssh_key())


def ssh_key() -> str:
    """The user's public key, as a path to write in the file; one that is usual when there is none."""
    found = next((name for name in _KEYS if (Path.home() / ".ssh" / name).exists()), _KEYS[0])
    return f"~/.ssh/{found}"


def free_subnet(host: HostFacts) -> IPv4Network:
    """A /24 of 192.168.0.0/16 that none of the host's interfaces or libvirt networks has."""
    taken = [IPv4Interface(address).network for link in host.links for address in link.addresses]
    taken += [IPv4Interface(network.subnet).network for network in host.networks if network.subnet]
    candidates = (IPv4Network(f"192.168.{third}.0/24") for third in (*range(130, 255), *range(1, 130)))
    return next(c for c in candidates if not any(c.overlaps(other) for other in taken))


def cloud_name(host: HostFacts) -> str:
    """A cloud's name from a host's: a host-name label."""
    label = re.sub(r"[^a-z0-9-]+", "-", host.hostname.split(".")[0].lower()).strip("-")
    return f"{label[:40].strip('-')}-cloud" if label else "my-cloud"


def render(cloud: str, connect: str, host: HostFacts, key: str) -> str:
    """The starter file for a host. Pure."""
    net = free_subnet(host)
    memory = "2G" if host.memory_available > 6 * GIB else "1G"
    how = "KVM" if host.kvm is Kvm.WORKS else f"emulation, which is slow (KVM is {host.kvm}: {host.kvm_reason})"
    bridges = [link.name for link in host.links if link.kind == "bridge" and not link.name.startswith(("virbr", "docker"))]
    bridge = bridges[0] if bridges else "br0"
    return f"""\
# A private cloud. Look: vmwright plan      Make it so: vmwright apply      See it: vmwright status
# Every key, with its meaning: docs/reference/spec.md, or `vmwright check --schema` for your editor.
cloud: {cloud or cloud_name(host)}

hosts:
  {host.name}:
    # {host.os}, {host.cpus} CPUs, {format_size(host.memory)} memory; guests run by {how}
    connect: {connect}
    pools:
      vms: {{dir: /var/lib/libvirt/vms}}    # a directory on a file system with room

networks:
  lan:
    nat: {net}                # the VMs reach the world through the host; or, to be on your own network:
    # bridge: {bridge}                    # an existing bridge of the host
    # subnet: 192.168.1.0/24
    # gateway: 192.168.1.1
    # dns: [192.168.1.1]

users:
  admin: {{ssh_keys: [{key}], sudo: nopasswd}}

defaults:                             # for every VM, unless it says otherwise
  pool: vms
  network: lan
  timezone: Etc/UTC

templates:
  debian: {{build: debian, disk: 4G}}   # from the host's own Debian mirror; a cloud image would be {{os: debian12}}

vms:
  web:
    count: 2                          # web-1 and web-2, with addresses that count upwards
    template: debian
    vcpus: 1
    memory: {memory}                        # G is GiB
    address: {net.network_address + 10}
  db:
    template: debian
    vcpus: 2
    memory: {memory}
    address: {net.network_address + 20}
    disk: 8G                          # larger than the template's: the guest sees all of it
    disks: {{data: {{size: 4G, filesystem: ext4, mount: /srv}}}}
    autostart: true
"""
