"""What makes a rack itself: its name, keys and network, handed to its first boot; and the client's ssh files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vmwright.host.local import LocalHost
from vmwright.image.debian_guest import tar
from vmwright.rack import machine
from vmwright.rack.contents import DISK_SIZE, GROW, Image
from vmwright.rack.record import Disks, Record
from vmwright.rack.shape import Cable, Nic, Shape

BRIDGE = "br0"
KEY, HOST_KEY, KNOWN_HOSTS, SSH_CONFIG = "id_ed25519", "host_key", "known_hosts", "ssh_config"


def make_keys(folder: Path, name: str) -> None:
    """The rack's pairs of keys: the one to log in by, and the one it proves itself by. Those that are there stay."""
    host = LocalHost("this machine")
    for file, comment in ((KEY, f"vmwright rack {name}"), (HOST_KEY, f"rack {name}")):
        if not (folder / f"{file}.pub").exists():
            (folder / file).unlink(missing_ok=True)
            host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(folder / file)])


def write_client(record: Record) -> None:
    """The files that let OpenSSH in: known_hosts and ssh_config, for this port. The host key is known, not learned."""
    where = record.folder
    kind, key = (where / f"{HOST_KEY}.pub").read_text().split()[:2]
    (where / KNOWN_HOSTS).write_text(f"[127.0.0.1]:{record.port} {kind} {key}\n")
    (where / SSH_CONFIG).write_text(client_config(record.name, record.port, where))


def client_config(name: str, port: int, where: Path) -> str:
    """The client configuration: for `ssh -F FILE NAME`, and for `ssh_config:` of a host in a cloud's file."""
    return (f"Host {name}\n    HostName 127.0.0.1\n    Port {port}\nHost {name} 127.0.0.1\n    User root\n"
            f'    IdentityFile "{where / KEY}"\n    IdentitiesOnly yes\n'
            f'    UserKnownHostsFile "{where / KNOWN_HOSTS}"\n    GlobalKnownHostsFile /dev/null\n'
            "    StrictHostKeyChecking yes\n")


def archive(record: Record, disks: Disks, mirrors: str) -> bytes:
    """The tar archive that the first boot unpacks. `mirrors` is a .sources file of apt's."""
    return tar(files(record, disks) | {
        "root/.ssh/authorized_keys": (0o600, (record.folder / f"{KEY}.pub").read_text()),
        "etc/ssh/ssh_host_ed25519_key": (0o600, (record.folder / HOST_KEY).read_text()),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, (record.folder / f"{HOST_KEY}.pub").read_text()),
        "etc/apt/sources.list.d/debian.sources": (0o644, mirrors)})


def files(record: Record, disks: Disks) -> dict[str, tuple[int, str]]:
    """Mode and text of the files that hold nothing secret, by path. Pure."""
    own = record.address.partition("/")[0]
    made = {
        "etc/hostname": (0o644, f"{record.name}\n"),
        "etc/hosts": (0o644, f"127.0.0.1 localhost\n{own} {record.name}\n::1 localhost ip6-localhost ip6-loopback\n"),
        "etc/resolv.conf": (0o644, f"nameserver {machine.OUTSIDE_DNS}\n"),
        # JSON is YAML, too
        "etc/netplan/10-rack.yaml": (0o600, json.dumps(netplan(record, disks), indent=2) + "\n"),
    }
    for n, nic in enumerate(disks.shape.nics):
        for function in range(nic.functions):
            name, mac = port_name(nic, function), machine.mac(nic, n, record.name, function)
            text = f"[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\n"
            made[f"etc/systemd/network/10-{name}.link"] = (0o644, text)
    if disks.shape.disks[0].size > DISK_SIZE:
        made[GROW.lstrip("/")] = (0o644, "")
    return made


def port_name(nic: Nic, function: int) -> str:
    """What a port of a NIC is called in the rack."""
    return nic.name if nic.functions == 1 else f"{nic.name}f{function}"


def netplan(record: Record, disks: Disks) -> dict[str, Any]:
    """The rack's network. In the ready image the address is on a bridge for guests, else on the NIC itself."""
    shape = disks.shape
    plain: dict[str, Any] = {"dhcp4": False, "link-local": [], "optional": True}
    ethernets = {nic.name: dict(plain) for nic in shape.nics if nic.network is not Cable.NONE}
    outside = next(nic.name for nic in shape.nics if nic.network is Cable.OUTSIDE)
    ethernets[outside] |= {"addresses": [f"{machine.OUTSIDE_ADDRESS}/24"],
                           "routes": [{"to": "default", "via": machine.OUTSIDE_GATEWAY}],
                           "nameservers": {"addresses": [machine.OUTSIDE_DNS]}}
    network: dict[str, Any] = {"version": 2, "renderer": "networkd", "ethernets": ethernets}
    private = _private(shape)
    if disks.image is Image.READY:
        network["bridges"] = {BRIDGE: {**plain, "interfaces": private[:1], "addresses": [record.address],
                                       "parameters": {"stp": False, "forward-delay": 0}}}
    elif private:
        ethernets[private[0]]["addresses"] = [record.address]
    return {"network": network}


def _private(shape: Shape) -> list[str]:
    return [nic.name for nic in shape.nics if nic.network is Cable.PRIVATE]
