"""The NoCloud seed: what cloud-init is told about a VM. Pure; every name and text of the user may hold anything.

Checked against the sources of cloud-init 20.1 to 26.2. The documents are JSON, which is YAML to cloud-init; a string
in quotes can never be taken for a number, a date or a truth value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from io import BytesIO
from typing import TypeAlias

from vmwright.guest import scripts
from vmwright.spec.cloud import DataDisk, Filesystem, Nic, Sudo, UserSpec, VmSpec, WriteFile
from vmwright.units import content_hash

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
_HASH_FORMAT = "1"
# What PyYAML refuses or takes for the end of a line when it stands in a text as it is. JSON leaves these unescaped.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SUDO = {Sudo.NOPASSWD: "ALL=(ALL) NOPASSWD:ALL", Sudo.PASSWORD: "ALL=(ALL:ALL) ALL"}
_MKFS_PACKAGE = {Filesystem.EXT4: "e2fsprogs", Filesystem.XFS: "xfsprogs", Filesystem.BTRFS: "btrfs-progs"}

# $1: the proxy, or empty for none. Not a package of the seed: for those cloud-init fetches all package lists at a first
# boot, and many images of which nothing is known have the agent. What the package manager said is kept for AGENT_UP.
AGENT_NEEDED = """\
log=/run/vmwright-agent; : > "$log"
PATH="$PATH:/usr/sbin:/sbin"
command -v qemu-ga >/dev/null 2>&1 && exit 0
[ -z "$1" ] || export http_proxy="$1" https_proxy="$1"
export DEBIAN_FRONTEND=noninteractive ZYPP_LOCK_TIMEOUT=120
apt() { apt-get -q -y -o DPkg::Lock::Timeout=120 "$@"; }
if command -v apt-get >/dev/null 2>&1; then
    apt install qemu-guest-agent > "$log" 2>&1 || { apt update && apt install qemu-guest-agent; } > "$log" 2>&1
elif command -v dnf >/dev/null 2>&1; then dnf -y install qemu-guest-agent > "$log" 2>&1
elif command -v yum >/dev/null 2>&1; then yum -y install qemu-guest-agent > "$log" 2>&1
elif command -v zypper >/dev/null 2>&1; then zypper -n install qemu-guest-agent > "$log" 2>&1
elif command -v pacman >/dev/null 2>&1; then pacman -Sy --noconfirm qemu-guest-agent > "$log" 2>&1
else echo "Error: no package manager that is known here" > "$log"
fi
cat "$log"
"""

AGENT_FAILED = "vmwright: the guest agent, qemu-guest-agent, could not be installed and started:"

# Enabling a unit takes many seconds where guests are emulated: one that runs by itself needs it not. Without the agent,
# the serial console is the only way out of a guest: vmwright looks for the line there, and shows the last ones.
AGENT_UP = f"""\
systemctl --quiet is-active qemu-guest-agent.service && exit 0
log=/run/vmwright-agent; out=/dev/console; [ ! -w /dev/ttyS0 ] || out=/dev/ttyS0
{{
{scripts.START_AGENT}}} 2>> "$log" && exit 0
telling='^[ -]*(E|Err|errors?|fatal|failed|curl|problem|no provider)\\b|not (found|resolve|connect)'
why=$(grep -Ei "$telling" "$log" | tail -n 4)
{{
    echo '{AGENT_FAILED}'
    printf '%s\\n' "${{why:-$(tail -n 4 "$log")}}" | cut -c 1-200
}} > "$out"
exit 1
"""


@dataclass(frozen=True)
class ImageTraits:
    """What is known of the system on a template's disk. `family` is debian, rhel, suse, or empty when not known."""

    agent_installed: bool = True
    agent_exec_blocked: bool = False
    family: str = ""


@dataclass(frozen=True)
class Seed:
    """The files of a seed, and the hash of what the spec wants. The files may hold password hashes: not for any log."""

    files: Mapping[str, bytes] = field(repr=False)
    hash: str


def seed(cloud: str, vm: VmSpec, *, instance: str, regenerate: bool, image: ImageTraits) -> Seed:
    """The seed of one incarnation of a VM.

    A new `instance` makes cloud-init apply everything again. `regenerate` says that the root disk is new, so the guest
    makes new SSH host keys; without it (a change in place) the guest keeps its own. Commands of `runcmd` run again only
    when they have changed, appended texts are appended once: both are remembered on the root disk.
    """
    files = {
        "meta-data": _dump({"instance-id": instance, "local-hostname": vm.name, "vmwright": {"cloud": cloud}}),
        "user-data": b"#cloud-config\n" + _dump(user_data(vm, instance=instance, regenerate=regenerate, image=image)),
        "network-config": _dump(network_config(vm.nics)),
    }
    return Seed(files, seed_hash(cloud, vm))


def seed_hash(cloud: str, vm: VmSpec) -> str:
    """A short hash of what the spec wants to be inside the guest.

    It depends neither on the instance nor on how this version of vmwright writes it down, nor on the template: a VM
    does not drift because vmwright was upgraded or its template got a newer version. Fields that are empty do not
    count, so a field added later with an empty default changes no hash.
    """
    nics = [{key: getattr(nic, key) for key in ("mac", "address", "gateway", "dns", "search")} for nic in vm.nics]
    disks = [{"serial": d.serial, "filesystem": d.filesystem, "mount": d.mount} for d in vm.data_disks if d.filesystem]
    wanted = _canonical({"cloud": cloud, "name": vm.name, "nics": nics, "guest": vm.guest, "disks": disks})
    return content_hash(_HASH_FORMAT, json.dumps(wanted, sort_keys=True))


def iso(seed: Seed) -> bytes:
    """The seed as an ISO 9660 image with the label CIDATA; only root may read its files. Takes about a millisecond."""
    from pycdlib import PyCdlib  # imported here: 50 ms that most commands need not pay

    image = PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="CIDATA")
    for name, data in sorted(seed.files.items()):
        short = name.replace("-", "_").upper()
        image.add_fp(BytesIO(data), len(data), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}", file_mode=0o100400)
    out = BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()


def network_config(nics: tuple[Nic, ...]) -> dict[str, Json]:
    """Network configuration, version 2. NICs are found by MAC and named net0, net1, ... in the order of the spec.

    The name is needed: cloud-init before 22.1 takes the key for the device's name where it does not hand the document
    to netplan. The default route is 0.0.0.0/0: netplan before 0.103 (Ubuntu 20.04) and cloud-init's own renderers do
    not know "default".
    """
    carrier = _default_carrier(nics)
    return {"version": 2, "ethernets": {f"net{n}": _ethernet(n, nic, nic is carrier) for n, nic in enumerate(nics)}}


def user_data(vm: VmSpec, *, instance: str, regenerate: bool, image: ImageTraits) -> dict[str, Json]:
    """The cloud-config document."""
    guest = vm.guest
    root_logs_in = any(user.name == "root" for user in guest.users)
    config: dict[str, Json] = {
        "hostname": vm.name,
        "fqdn": fqdn(vm),
        "prefer_fqdn_over_hostname": False,
        "preserve_hostname": False,
        "manage_etc_hosts": False,  # _bootcmd writes our one line; the rest of the file is the user's
        "updates": {"network": {"when": ["boot-new-instance", "boot"]}},
        "users": _users(guest.users),
        "disable_root": not root_logs_in,
        "ssh_pwauth": False,
        "ssh_deletekeys": regenerate,
        "ssh_genkeytypes": ["ed25519", "ecdsa"],
        "growpart": {"mode": "auto", "devices": ["/"], "ignore_growroot_disabled": False},
        "resize_rootfs": True,
        # "false" keeps the image's own; without it, Debian's cloud-init generates en_US.UTF-8. Text, by its schema.
        "locale": guest.locale or "false",
        "bootcmd": _bootcmd(vm, instance, image),
    }
    optional: dict[str, Json] = {
        "timezone": guest.timezone,
        "ntp": {"enabled": True, "servers": list(guest.ntp)} if guest.ntp else None,
        "apt": _apt(guest.proxy) if image.family in ("debian", "") else None,
        "packages": list(vm.guest.packages),
        "write_files": [_write_file(file) for file in guest.write_files],
        "mounts": [_mount(disk) for disk in vm.data_disks if disk.filesystem and disk.mount],
        "runcmd": _runcmd(vm, image),
        # Keys on the console would push from its last lines what AGENT_UP says there.
        **({} if image.agent_installed else {"no_ssh_fingerprints": True, "ssh": {"emit_keys_to_console": False}}),
    }
    return {**config, **{key: value for key, value in optional.items() if value}}


def fqdn(vm: VmSpec) -> str:
    """The VM's name with the first search domain of its NICs; the bare name where there is none."""
    domain = next((nic.search[0] for nic in vm.nics if nic.search), "")
    return f"{vm.name}.{domain}" if domain else vm.name


def _default_carrier(nics: tuple[Nic, ...]) -> Nic | None:
    """The NIC with the default route: the first that has a gateway, else the first that asks DHCP for one."""
    return next((n for n in nics if n.gateway), None) or next((n for n in nics if n.address is None), None)


def _ethernet(number: int, nic: Nic, carrier: bool) -> dict[str, Json]:
    config: dict[str, Json] = {"match": {"macaddress": nic.mac}, "set-name": f"net{number}"}
    if nic.address is None:
        config["dhcp4"] = True
        if not carrier:  # the metric is for renderers that do not know use-routes (sysconfig, NetworkManager)
            config["dhcp4-overrides"] = {"use-routes": False, "route-metric": 1024}
    else:
        config["addresses"] = [str(nic.address)]
    if nic.gateway is not None and carrier:
        config["routes"] = [{"to": "0.0.0.0/0", "via": str(nic.gateway)}]
    names = {"addresses": list(nic.dns), "search": list(nic.search)}
    if any(names.values()):
        config["nameservers"] = {key: list(value) for key, value in names.items() if value}
    return config


def _users(users: tuple[UserSpec, ...]) -> Json:
    """All users, in place of the image's default one. root is always among them, so that its password gets locked."""
    listed = any(user.name == "root" for user in users)
    root: list[Json] = [] if listed else [{"name": "root", "lock_passwd": True}]
    return root + [_user(user) for user in users]


def _user(user: UserSpec) -> dict[str, Json]:
    entry: dict[str, Json] = {"name": user.name, "lock_passwd": user.password_hash is None}
    if user.name != "root":
        # Naming the group lets useradd take one that is there (Ubuntu has a group "admin"); cloud-init makes a missing
        # one only if `groups` names it, too.
        groups = list(dict.fromkeys([*user.groups, user.name]))
        entry |= {"primary_group": user.name, "groups": list(groups), "shell": user.shell}
        if user.sudo in _SUDO:
            entry["sudo"] = _SUDO[user.sudo]
    if user.password_hash is not None:
        entry["hashed_passwd"] = user.password_hash
    if user.ssh_keys:
        entry["ssh_authorized_keys"] = [key.strip() for key in user.ssh_keys]
    return entry


def _bootcmd(vm: VmSpec, instance: str, image: ImageTraits) -> Json:
    """What runs early at every boot, before packages and users. Data disks come last: their failure is the script's."""
    address = next((str(nic.address.ip) for nic in vm.nics if nic.address), "127.0.1.1")
    names = " ".join(dict.fromkeys([fqdn(vm), vm.name]))
    keys = "\n".join(f"{user.name} {key.strip()}" for user in vm.guest.users for key in user.ssh_keys or ("",))
    commands = [_sh(scripts.HOSTS, address, names), _sh(scripts.ACCESS, instance, keys)]
    if image.family in ("rhel", ""):
        commands.append(_sh(scripts.DNF_PROXY, vm.guest.proxy or ""))
    if image.family in ("suse", ""):
        commands.append(_sh(scripts.ZYPPER_PROXY, vm.guest.proxy or ""))
    if _agent_confined(image):
        commands.append(_sh(scripts.FREE_AGENT))
    commands += [_sh(scripts.FORMAT, _device(disk), disk.filesystem) for disk in vm.data_disks if disk.filesystem]
    return [*commands]


def _runcmd(vm: VmSpec, image: ImageTraits) -> list[Json]:
    """What runs at the end of a first boot, and again after a change in place."""
    commands: list[Json] = []
    if not image.agent_installed:
        commands.append(_sh(AGENT_NEEDED, vm.guest.proxy or ""))
        commands += [_sh(scripts.FREE_AGENT)] if _agent_confined(image) else []
        commands.append(_sh(AGENT_UP))
    for disk in vm.data_disks:  # those whose mkfs was not in the image, so that bootcmd could not make them
        if disk.filesystem:
            commands.append(_sh(scripts.NEED, f"mkfs.{disk.filesystem}", _MKFS_PACKAGE[disk.filesystem]))
            commands.append(_sh(scripts.FORMAT, _device(disk), disk.filesystem))
            commands += [_sh(scripts.MOUNT, disk.mount)] if disk.mount else []
    commands += [_sh(scripts.APPEND, _part(file), file.path, file.mode, file.owner)
                 for file in vm.guest.write_files if file.append]
    if vm.guest.runcmd:
        own: list[Json] = [one if isinstance(one, str) else list(one) for one in vm.guest.runcmd]
        mark = f"{scripts.STATE}/runcmd-{content_hash(json.dumps(own))}"
        commands += [scripts.ONCE.format(mark=mark, state=scripts.STATE), *own]
    return commands


def _agent_confined(image: ImageTraits) -> bool:
    return image.agent_exec_blocked or image.family != "debian"


def _apt(proxy: str | None) -> dict[str, Json]:
    """apt's settings. Sources stay the image's own. Without a proxy, cloud-init removes the one it wrote before."""
    wanted: dict[str, Json] = {"preserve_sources_list": True}
    return wanted | ({"http_proxy": proxy, "https_proxy": proxy} if proxy else {})


def _write_file(file: WriteFile) -> dict[str, Json]:
    """A text to append is only laid down; APPEND puts it in its place. Others' files wait for their owners."""
    if file.append:
        return {"path": f"{scripts.STATE}/append/{_part(file)}", "content": file.content, "permissions": "0600"}
    entry: dict[str, Json] = {"path": file.path, "content": file.content, "permissions": file.mode, "owner": file.owner}
    return entry if file.owner == "root:root" else entry | {"defer": True}


def _mount(disk: DataDisk) -> Json:
    check = "2" if disk.filesystem is Filesystem.EXT4 else "0"
    return [_device(disk), disk.mount, str(disk.filesystem), "defaults,nofail", "0", check]


def _device(disk: DataDisk) -> str:
    return f"/dev/disk/by-id/virtio-{disk.serial}"


def _part(file: WriteFile) -> str:
    return content_hash(file.path, file.content)


def _sh(script: str, *arguments: str) -> list[Json]:
    return ["sh", "-c", script, "vmwright", *arguments]


def _dump(value: Json) -> bytes:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode() + b"\n"


def _canonical(value: object) -> object:
    """A value as plain JSON, without what is empty, fields that do not compare, and order that does not matter."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return _canonical({f.name: getattr(value, f.name) for f in fields(value) if f.compare})
    if isinstance(value, Mapping):
        plain = {str(key): _canonical(item) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item not in (None, "", False, [], {})}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value if isinstance(value, str | int) else str(value) if value is not None else None
