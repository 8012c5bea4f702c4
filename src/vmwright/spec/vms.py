"""VMs: model -> resolved. Defaults and groups are worked out already; references and limits are checked here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vmwright.errors import Where
from vmwright.spec import keyfiles
from vmwright.spec.cloud import (
    Content,
    Copy,
    DataDisk,
    DeviceUse,
    Filesystem,
    Firmware,
    GuestSpec,
    NetworkSpec,
    Nic,
    StartOrder,
    UserSpec,
    VmSpec,
    WriteFile,
)
from vmwright.spec.findings import Findings
from vmwright.spec.groups import Member
from vmwright.spec.hosts import HostView, valid_label
from vmwright.spec.model import LONGEST_WAIT, DiskIn, VmIn, WriteFileIn
from vmwright.spec.nics import Registry, resolve_nics
from vmwright.spec.pins import resolve_pin
from vmwright.spec.templates import Template
from vmwright.spec.users import base_of
from vmwright.spec.yaml import KeyPath
from vmwright.units import GIB, MIB, format_size

LONGEST_SERIAL = 20  # bytes; virtio-blk cuts longer ones off (VIRTIO_BLK_ID_BYTES)
ROOT_SERIAL = "root"
READY_TIMEOUT = 600  # seconds
_LEAST_MEMORY = 64 * MIB


@dataclass
class Surroundings:
    """What a VM may refer to, and what VMs have taken so far."""

    hosts: Mapping[str, HostView]
    networks: Mapping[str, NetworkSpec]
    users: Mapping[str, UserSpec]
    templates: Mapping[str, Template]
    registry: Registry
    devices: dict[tuple[str, str], str] = field(default_factory=dict)  # (host, device) -> who has it


def resolve_vm(name: str, vm: VmIn, member: Member, around: Surroundings, findings: Findings) -> VmSpec:
    """The VM. What could not be worked out is empty in it, and told to the findings."""
    path: KeyPath = ("vms", name)
    if member.index == 0:
        _check_name(path, member, findings)
    template = _template(path, vm, around, findings)
    host = _host(path, vm, template, around, findings)
    pool = _pool(path, vm, template, host, around, findings)
    _check_sizes(path, vm, template, findings)
    devices = tuple(_devices(path, name, vm, host, around, findings))
    nics = resolve_nics(name, vm, member, around.registry, findings)
    return VmSpec(
        name=name,
        host=host.spec.name if host else "",
        template=vm.template or "",
        pool=pool,
        vcpus=vm.vcpus or 1,
        memory=vm.memory or GIB,
        disk=vm.disk,
        nics=nics,
        guest=_guest(path, vm, nics, around, findings),
        firmware=_firmware(path, vm, member, template, findings),
        cpu=vm.cpu or "host-passthrough",
        copy=vm.copy_ or Copy.OVERLAY,
        data_disks=_data_disks(path, vm.disks or {}, pool, host, findings),
        pin=resolve_pin(path, vm, member, findings),
        autostart=vm.autostart is not None,
        start_order=_start_order(path, vm, findings),
        devices=devices,
        protect=bool(vm.protect),
        running=vm.running is not False,
        ready_timeout=vm.ready_timeout or READY_TIMEOUT,
        where=findings.where(path, key=True),
        keys=_keys(path, vm, findings),
    )


def _keys(path: KeyPath, vm: VmIn, findings: Findings) -> dict[str, Where]:
    """Where each key stands that this VM (or its group, or defaults) says; of data disks each one, too."""
    said = [VmIn.model_fields[name].alias or name for name in vm.model_fields_set]
    found = {key: findings.where((*path, key)) for key in said}
    found |= {f"disks.{name}": findings.where((*path, "disks", name)) for name in vm.disks or ()}
    return found


def _check_name(path: KeyPath, member: Member, findings: Findings) -> None:
    name = member.group
    if not valid_label(findings, path, name, "VM name (it is the host name)"):
        return
    longest = f"{name}-{member.count}" if member.count else name
    if len(longest) > 63:
        findings.error(path, f"{longest!r} is not a valid VM name: {len(longest)} characters, 63 are allowed", key=True)
    elif longest.isdigit():
        findings.error(
            path,
            f"{name!r} is not a valid VM name: a number alone would be taken for an address or an id",
            f"write vm{name}",
            key=True,
        )
    elif longest == "localhost":
        findings.error(path, "'localhost' is not a valid VM name: every machine calls itself so", key=True)


def _template(path: KeyPath, vm: VmIn, around: Surroundings, findings: Findings) -> Template | None:
    if vm.template is None:
        if not findings.broken(*map(str, path), "template") and not findings.broken("defaults", "template"):
            known = ", ".join(around.templates)
            todo = (
                f"write template: here or in defaults; there is: {known}"
                if known
                else "add one under templates:, and name it here"
            )
            findings.error(path, "says no template", todo, key=True)
        return None
    findings.refers((*path, "template"), "template", vm.template, around.templates, "templates")
    return around.templates.get(vm.template)


def _host(
    path: KeyPath, vm: VmIn, template: Template | None, around: Surroundings, findings: Findings
) -> HostView | None:
    hosts = around.hosts
    name = vm.host or (template.host if template else None)
    if name is None:
        if len(hosts) == 1:
            return next(iter(hosts.values()))
        if not findings.broken("hosts") and not findings.broken(*map(str, path), "host"):
            findings.error(path, "which host?", f"write host: {' or '.join(hosts)}, here or in defaults", key=True)
        return None
    if vm.host and not findings.refers((*path, "host"), "host", vm.host, hosts, "hosts"):
        return None
    if vm.host and template and template.host not in (None, vm.host):
        place = f"{template.host} (at {template.where})"
        what = f"template {template.name} is kept on host {place} only, and this VM is on {vm.host}"
        findings.error((*path, "template"), what, "leave host: out of the template, or move the VM")
    return hosts.get(name)


def _pool(
    path: KeyPath, vm: VmIn, template: Template | None, host: HostView | None, around: Surroundings, findings: Findings
) -> str:
    if host is None or findings.broken("hosts", host.spec.name):
        return vm.pool or ""
    name = host.spec.name
    if template and template.pool and template.pool not in host.pool_names and template.host is None:
        findings.error(
            (*path, "template"),
            f"template {template.name} is kept in pool {template.pool}, which host {name} does not have",
        )
    if vm.pool:
        findings.refers((*path, "pool"), f"pool on host {name} named", vm.pool, host.pool_names)
        return vm.pool
    if template and template.pool in host.pool_names:
        return template.pool or ""
    if len(host.pool_names) == 1:
        return host.pool_names[0]
    if not findings.broken(*map(str, path), "pool"):
        findings.error(
            path, "which pool?", f"write pool: {' or '.join(host.pool_names)}, here or in defaults", key=True
        )
    return ""


def _check_sizes(path: KeyPath, vm: VmIn, template: Template | None, findings: Findings) -> None:
    if vm.memory is not None and vm.memory < _LEAST_MEMORY:
        what = f"{format_size(vm.memory)} of memory is too little for a guest to start"
        findings.error((*path, "memory"), what, f"write {format_size(_LEAST_MEMORY)} or more")
    if vm.disk is None or template is None or findings.broken("templates", template.name):
        return
    if vm.disk < template.size:
        base = f"the disk of template {template.name}, {format_size(template.size)} (at {template.where})"
        what = f"{format_size(vm.disk)} is smaller than {base}"
        findings.error((*path, "disk"), what, f"write {format_size(template.size)} or more, or leave it out")


def _devices(
    path: KeyPath, name: str, vm: VmIn, host: HostView | None, around: Surroundings, findings: Findings
) -> Iterator[DeviceUse]:
    for position, use in enumerate(vm.devices or ()):
        place = (*path, "devices", position)
        device, content = (use, None) if isinstance(use, str) else next(iter(use.items()))
        if host is None or not findings.refers(
            place, f"device on host {host.spec.name} named", device, host.devices, ""
        ):
            continue
        key, where = (host.spec.name, device), findings.where(place)
        if key in around.devices:
            what = f"device {device} is given to {name} and to {around.devices[key]}"
            findings.error(place, what, "a device can belong to one VM only, and once")
            continue
        around.devices[key] = f"{name}, at {where}"
        spec = next(spec for spec in host.spec.devices if spec.name == device)
        yield DeviceUse(spec, Content(content) if content else None, where)


def _firmware(path: KeyPath, vm: VmIn, member: Member, template: Template | None, findings: Findings) -> Firmware:
    own = vm.firmware if "firmware" in member.own else None
    if template is None:
        return own or vm.firmware or Firmware.UEFI
    if own and own is not template.firmware:
        base = f"template {template.name}'s is (at {template.where})"
        what = f"{own} does not start a disk made for {template.firmware}, as {base}"
        findings.error((*path, "firmware"), what, "say firmware: in the template instead")
    return own or template.firmware


def _start_order(path: KeyPath, vm: VmIn, findings: Findings) -> StartOrder:
    said = vm.autostart
    if said is None:
        return StartOrder()
    if said.timeout is not None and said.healthy is None:
        findings.error((*path, "autostart", "timeout"), "nothing is waited for",
                       "add healthy: agent, or leave the timeout out")
    timeout = said.timeout or min(vm.ready_timeout or READY_TIMEOUT, LONGEST_WAIT)
    return StartOrder(said.order, said.healthy is not None, timeout)


def _data_disks(
    path: KeyPath, disks: Mapping[str, DiskIn], pool: str, host: HostView | None, findings: Findings
) -> tuple[DataDisk, ...]:
    mounts: dict[str, str] = {}
    for name, disk in disks.items():
        place = (*path, "disks", name)
        _check_disk_name(place, name, findings)
        if disk.pool and host and not findings.broken("hosts", host.spec.name):
            findings.refers((*place, "pool"), f"pool on host {host.spec.name} named", disk.pool, host.pool_names)
        if disk.mount == "/":
            findings.error((*place, "mount"), "/ is the root disk's", "choose another directory")
        elif disk.mount and mounts.setdefault(disk.mount, name) != name:
            findings.error((*place, "mount"), f"{disk.mount} is used twice: also by disk {mounts[disk.mount]}")
    return tuple(
        DataDisk(
            name,
            disk.size,
            disk.pool or pool,
            name,
            disk.filesystem or (Filesystem.EXT4 if disk.mount else None),
            disk.mount,
        )
        for name, disk in disks.items()
    )


def _check_disk_name(place: KeyPath, name: str, findings: Findings) -> None:
    if not valid_label(findings, place, name, "disk name"):
        return
    if len(name) > LONGEST_SERIAL:
        limit = f"{LONGEST_SERIAL} are allowed (it is the disk's serial)"
        what = f"{name!r} is not a valid disk name: {len(name)} characters, {limit}"
        findings.error(place, what, key=True)
    elif name == ROOT_SERIAL:
        findings.error(
            place, f"{name!r} is the name of the root disk", "choose another; disk: is the root disk's size", key=True
        )
    elif name == "seed":
        findings.error(place, f"{name!r} is the name of the disk with the cloud-init data", "choose another", key=True)


def _guest(path: KeyPath, vm: VmIn, nics: tuple[Nic, ...], around: Surroundings, findings: Findings) -> GuestSpec:
    carrier = next((nic for nic in nics if nic.gateway or nic.address is None), nics[0] if nics else None)
    network = around.networks.get(carrier.network) if carrier else None
    proxy = vm.proxy or (network.proxy if network else None)
    return GuestSpec(
        users=_users(path, vm, around, findings),
        timezone=vm.timezone,
        locale=vm.locale,
        proxy=None if proxy == "none" else proxy,
        ntp=tuple(vm.ntp if vm.ntp is not None else network.ntp if network else ()),
        packages=tuple(vm.packages or ()),
        write_files=tuple(_files(path, vm.write_files or (), findings)),
        runcmd=tuple(line if isinstance(line, str) else tuple(line) for line in vm.runcmd or ()),
    )


def _users(path: KeyPath, vm: VmIn, around: Surroundings, findings: Findings) -> tuple[UserSpec, ...]:
    if vm.users is None:
        return tuple(around.users.values())
    right = [
        name
        for position, name in enumerate(vm.users)
        if findings.refers((*path, "users", position), "user", name, around.users, "users")
    ]
    return tuple(around.users[name] for name in dict.fromkeys(right))


def _files(path: KeyPath, files: Iterable[WriteFileIn], findings: Findings) -> list[WriteFile]:
    written = []
    for position, file in enumerate(files):
        place = (*path, "write_files", position)
        if (file.content is None) == (file.source is None):
            what = "both content and source are given" if file.source else "neither content nor source is given"
            findings.error(place, what, "give exactly one of them")
        content = file.content if file.source is None else _content((*place, "source"), file.source, findings)
        written.append(WriteFile(file.path, content or "", file.mode, file.owner, file.append))
    return written


def _content(path: KeyPath, source: str, findings: Findings) -> str:
    try:
        return keyfiles.read_text(source, base_of(findings, path))
    except keyfiles.Wrong as wrong:
        findings.error(path, wrong.what, wrong.todo)
    except keyfiles.Absent as absent:
        findings.absent(path, f"the file {absent}", absent.todo)
    return ""
