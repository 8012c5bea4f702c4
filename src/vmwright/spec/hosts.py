"""Hosts and their pools, bridges and devices: model -> resolved."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from vmwright.spec import keyfiles
from vmwright.spec.bridges import check_addresses, resolve_bridges
from vmwright.spec.cloud import DeviceSpec, HostSpec, HugePages, LvmSpec, OnRemove, Pool, ThinSpec
from vmwright.spec.findings import Findings
from vmwright.spec.model import HostIn, PoolIn, Spec
from vmwright.spec.values import IDENTIFIER, LABEL, USER, connect_host
from vmwright.spec.yaml import KeyPath
from vmwright.units import parse_size

DEFAULT_HOST = "local"
DEFAULT_POOL = Pool("default", "", "/var/lib/libvirt/images")


@dataclass(frozen=True)
class HostView:
    """A host and what others may refer to on it."""

    spec: HostSpec
    pools: dict[str, Pool] = field(default_factory=dict)
    pool_names: tuple[str, ...] = ()  # those with mistakes, too
    devices: tuple[str, ...] = ()
    addresses: dict[IPv4Address, str] = field(default_factory=dict)  # the host's own, and what they are


def valid_label(findings: Findings, path: KeyPath, name: str, what: str, *, key: bool = True) -> bool:
    """Whether a name is a host-name label (RFC 1123) in lower case. `key`: whether it is the key at that path."""
    if LABEL.fullmatch(name):
        return True
    if len(name) > 63:
        findings.error(path, f"{name!r} is not a valid {what}: {len(name)} characters, 63 are allowed", key=key)
    else:
        suggestion = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", name.lower())).strip("-")
        todo = f"write {suggestion}" if suggestion else ""
        rule = "lower-case letters, digits and -, with a letter or digit at both ends"
        findings.error(path, f"{name!r} is not a valid {what}: {rule}", todo, key=key)
    return False


def valid_identifier(findings: Findings, path: KeyPath, name: str, what: str) -> None:
    """Complain unless a name is letters, digits, _ and -."""
    if not IDENTIFIER.fullmatch(name):
        findings.error(path, f"{name!r} is not a valid {what}: letters, digits, _ and -, at most 63", key=True)


def valid_user(findings: Findings, path: KeyPath, name: str, what: str) -> None:
    """Complain unless a name can be a Linux user or group."""
    if not USER.fullmatch(name):
        findings.error(
            path, f"{name!r} is not a valid {what}: lower-case letters, digits, _ and -, at most 32", key=True
        )


def resolve_hosts(spec: Spec, findings: Findings) -> dict[str, HostView]:
    """The hosts by name. A file without hosts means this machine."""
    hosts = spec.hosts or ({} if findings.broken("hosts") else {DEFAULT_HOST: HostIn()})
    views = {name: _host(name, host, findings) for name, host in hosts.items()}
    _unique(
        findings, [(("hosts", name, "connect"), host.connect) for name, host in hosts.items()], "are the same machine"
    )
    check_addresses(spec, findings)
    return views


def _host(name: str, host: HostIn, findings: Findings) -> HostView:
    path: KeyPath = ("hosts", name)
    valid_identifier(findings, path, name, "host name")
    for pool_name, pool in host.pools.items():
        _check_pool((*path, "pools", pool_name), pool_name, pool, findings)
    _check_devices(path, host, findings)
    bridges = resolve_bridges(path, host, findings)
    pools = {
        pool_name: Pool(pool_name, name, pool.dir or f"/dev/{pool.lvm}", _lvm(pool),
                        findings.where((*path, "pools", pool_name), key=True))
        for pool_name, pool in host.pools.items()
        if bool(pool.dir) != bool(pool.lvm)
    }
    for kind, what in (("dir", "directory"), ("lvm", "volume group")):
        same = [((*path, "pools", key, kind), value) for key, pool in host.pools.items()
                if (value := getattr(pool, kind))]
        _unique(findings, same, f"are the same {what}")
    disks = [((*path, "pools", key, "disks", place), disk) for key, pool in host.pools.items()
             for place, disk in enumerate(pool.disks)]
    _unique(findings, disks, "are the same disk")
    names = tuple(host.pools)
    if not names and not findings.broken(*map(str, path), "pools"):
        names = (DEFAULT_POOL.name,)
        pools = {names[0]: replace(DEFAULT_POOL, host=name, where=findings.where(path, key=True))}
    config = _ssh_config((*path, "ssh_config"), host, findings)
    devices = tuple(DeviceSpec(key, device.serial, device.address, findings.where((*path, "devices", key), key=True))
                    for key, device in host.devices.items())
    keys = {key: findings.where((*path, key), key=True) for key in host.model_fields_set}
    spec = HostSpec(name, host.connect, host.accelerator, config, devices, bridges, host.filter_bridged,
                    _hugepages((*path, "hugepages"), host, findings), host.devices_at_boot,
                    findings.where(path, key=True), host.iommu,
                    keys=keys)
    return HostView(spec, pools, names, tuple(host.devices), _addresses(name, host, findings))


def _lvm(pool: PoolIn) -> LvmSpec | None:
    if pool.lvm is None:
        return None
    given = pool.thin
    thin = ThinSpec(given.name, given.size, given.metadata, given.overcommit) if given else None
    return LvmSpec(pool.lvm, tuple(pool.disks), thin, tuple(pool.wipe), pool.on_remove)


def _ssh_config(path: KeyPath, host: HostIn, findings: Findings) -> str | None:
    if host.ssh_config is None:
        return None
    if host.connect == "local":
        findings.error(path, "is for a host reached over ssh, and this one is local", "take it out")
    try:
        file = keyfiles.local_path(host.ssh_config, Path(findings.where(path).file).parent)
    except keyfiles.Absent as absent:
        findings.absent(path, str(absent), absent.todo)
        return None
    if not file.is_file():
        lacking = keyfiles.absent(str(file), file)
        findings.absent(path, f"the file {lacking}", lacking.todo)
    return str(file)


def _check_pool(path: KeyPath, name: str, pool: PoolIn, findings: Findings) -> None:
    valid_identifier(findings, path, name, "pool name")
    if (pool.dir is None) == (pool.lvm is None):
        what = "both dir and lvm are given" if pool.dir else "neither dir nor lvm is given"
        findings.error(path, what, "give exactly one: {dir: /PATH} or {lvm: VOLUME-GROUP}", key=True)
    elif pool.dir == "/":
        findings.error((*path, "dir"), "the root directory cannot be a pool", "name a directory of its own")
    if pool.dir:
        for key in ("disks", "thin", "wipe", "on_remove"):
            if key in pool.model_fields_set:
                findings.error((*path, key), "goes with lvm, not with dir", key=True)
    if pool.thin and pool.on_remove is OnRemove.ZERO:
        findings.error((*path, "on_remove"), "in a thin pool, zeros would take room for all that a volume promises, "
                       "and leave what it shares with snapshots",
                       "say discard: the pool zeroes all room before it gives it out again")


def _check_devices(path: KeyPath, host: HostIn, findings: Findings) -> None:
    for name, device in host.devices.items():
        valid_identifier(findings, (*path, "devices", name), name, "device name")
        if device.serial is None and device.address is None:
            findings.error(
                (*path, "devices", name), "neither serial nor address is given", "give one, or both", key=True
            )
    addresses = [((*path, "devices", name, "address"), d.address) for name, d in host.devices.items() if d.address]
    serials = [((*path, "devices", name, "serial"), d.serial) for name, d in host.devices.items() if d.serial]
    _unique(findings, addresses, "are the same device")
    _unique(findings, serials, "are the same device")


def _hugepages(path: KeyPath, host: HostIn, findings: Findings) -> tuple[HugePages, ...]:
    return tuple(HugePages(parse_size(size), tuple(counts), findings.where((*path, size), key=True))
                 for size, counts in host.hugepages.items())


def _addresses(name: str, host: HostIn, findings: Findings) -> dict[IPv4Address, str]:
    """The host's own addresses, as far as the file tells."""
    found: dict[IPv4Address, str] = {}
    for bridge_name, bridge in host.bridges.items():
        for position, address in enumerate(bridge.addresses or ()):
            where = findings.where(("hosts", name, "bridges", bridge_name, "addresses", position))
            found[address.ip] = f"host {name}'s own, on {bridge_name} at {where}"
    try:
        connect = IPv4Address(connect_host(host.connect) or "")
    except ValueError:
        return found
    found.setdefault(connect, f"host {name}'s own, at {findings.where(('hosts', name, 'connect'))}")
    return found


def _unique(findings: Findings, values: Collection[tuple[KeyPath, str]], what: str) -> None:
    """Complain where two places say the same."""
    seen: dict[str, KeyPath] = {}
    for path, value in values:
        if value in seen:
            first = seen[value]
            findings.error(path, f"{value} is given twice: also at {findings.where(first)}", f"these {what}: keep one")
        seen.setdefault(value, path)
