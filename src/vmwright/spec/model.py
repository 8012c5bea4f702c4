"""What a user may write: the keys of the spec, each with its meaning, unit and default; JSON Schema and docs, too.

The models check one key at a time. What several keys say together (references, addresses, groups) is checked in
resolve.py, so that one wrong key does not hide what else is wrong. A VM of the model is one VM: groups are counted out
and defaults are filled in before (groups.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vmwright.spec import values as v
from vmwright.spec.base import Base, Domains, Ips, Servers, Texts, listed
from vmwright.spec.cloud import Copy, Filesystem, Firmware, MemoryPolicy, OnRemove, Sudo
from vmwright.spec.service_model import ServicesIn

# A key of a VM that holds one value: a group may give a list instead, one item for each of its VMs.
# fmt: off
DEALT = frozenset({
    "host", "template", "vcpus", "memory", "disk", "address", "network", "mac", "pool", "firmware", "cpu", "copy",
    "pin", "devices", "autostart", "protect", "running", "timezone", "locale", "proxy", "ready_timeout",
})
# fmt: on
LONGEST_WAIT = 86400  # seconds that others wait for a VM
DEALT_NIC = frozenset({"network", "address", "mac"})
DEALT_PIN = frozenset({"cpus", "emulator"})


def _sized(value: object) -> object:
    return value if isinstance(value, dict) else {"size": value}


def _pinned(value: object) -> object:
    return value if isinstance(value, dict) else {"cpus": v.from_text(v.parse_pin)(value)}


def _ordered(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    return value


def _command(value: object) -> object:
    if isinstance(value, dict):
        raise ValueError("a command is text or a list of words, not a mapping: write a line that holds ': ' in quotes")
    return value


def _device(value: object) -> object:
    if isinstance(value, dict) and len(value) == 1:
        what = next(iter(value.values()))
        if what in ("keep", "wipe"):
            return value
    elif isinstance(value, str):
        return value
    raise ValueError("a device is a name, or a name with what a rebuild does to its data: write NAME, or {NAME: keep}")


PageCounts = Annotated[list[Annotated[v.Int, Field(ge=0)]], Field(min_length=1),
                       BeforeValidator(listed, json_schema_input_type=v.Int | list[v.Int])]


class DeviceIn(Base):
    """A PCI device of the host, set aside for guests. `serial`, `address`, or both: then they must agree."""

    serial: str | None = Field(
        default=None, description="Serial number of the device, as the device itself reports it."
    )
    address: v.Pci | None = Field(
        default=None, description='PCI address, bus:slot.function, like "05:00.0" (in quotes).'
    )


_LVM_NAME = r"^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$"


class BridgeIn(Base):
    """A bridge device of the host. It takes the place of its NIC: what the NIC is told now, the bridge is told then."""

    nic: v.Device = Field(
        description="The host's network interface that becomes the bridge's port: a NIC, a bond or a VLAN interface."
    )
    vlan: Annotated[v.Int, Field(ge=1, le=4094)] | None = Field(
        default=None,
        description="Only frames of this VLAN (802.1Q) of the NIC are the bridge's; the NIC itself stays as it is. "
        "Default: all that has no VLAN tag.",
    )
    addresses: list[v.Interface] | None = Field(
        default=None,
        description="The host's own addresses on the bridge, each with its prefix, like 192.168.6.200/24. Default: "
        "those that the NIC has now, or its DHCP; with vlan: none.",
    )
    gateway: v.Address | None = Field(
        default=None, description="The host's default gateway by this bridge. Default: the one that the NIC has now."
    )
    dns: Ips | None = Field(default=None, description="The host's DNS servers. Default: those that the NIC has now.")
    stp: v.Bool = Field(
        default=False, description="Whether the bridge takes part in the spanning tree protocol. Default: false."
    )
    forward_delay: v.Int = Field(
        default=0,
        ge=0,
        le=30,
        description="Seconds a port listens before it forwards. Default: 0; with stp at least 2.",
    )
    timeout: Annotated[v.Int, Field(ge=20, le=3600)] = Field(
        default=90,
        description="Seconds within which the host must be reached anew when the bridge has been made or changed; else "
        "it goes back to what it was, by itself. Default: 90.",
    )


class ThinIn(Base):
    """The thin pool of a volume group, from which disks take room as they fill."""

    name: str = Field(
        default="thin", pattern=_LVM_NAME, description="Its name in the volume group. One that is there is taken as it "
        "is. Default: thin."
    )
    size: v.Size | None = Field(
        default=None, description="Its size when it is made. Default: all that is free but a twentieth."
    )
    metadata: v.Size | None = Field(
        default=None, description="The size of its metadata when it is made. Default: a five-hundredth of its size, at "
        "least 64M and at most 15G."
    )
    overcommit: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="The most that its disks together may promise, as a multiple of its size: 1 is no "
        "overcommitment. What would be more is refused. Default: no limit, but a warning above 1."
    )


def _thin(value: object) -> object:
    return {} if value is True else None if value is False else value


Thin = Annotated[ThinIn | None, BeforeValidator(_thin, json_schema_input_type=bool | ThinIn)]


class PoolIn(Base):
    """A place of the host for disks: a directory (`dir`) or an LVM volume group (`lvm`), exactly one of them."""

    dir: v.AbsolutePath | None = Field(
        default=None, description="A directory on the host, absolute. It is made when it is not there."
    )
    lvm: str | None = Field(
        default=None, pattern=_LVM_NAME, description="An LVM volume group. It is made of `disks` when it is not there."
    )
    disks: list[v.AbsolutePath] = Field(
        default=[], description="With lvm: the disks or partitions the volume group is made of, like /dev/sda4. More "
        "are added to a group that is there; none is taken out."
    )
    thin: Thin = Field(
        default=None, description="With lvm: clones as thin snapshots instead of full copies: true, false, or "
        "{name, size, metadata, overcommit} of the thin pool. Default: false."
    )
    wipe: Texts = Field(
        default=[], description="With lvm: the serial or the size (like 512G) of each of the disks that may be taken "
        "with what is on it. Its content is lost. Default: none, a disk that is not blank is refused."
    )
    on_remove: OnRemove = Field(
        default=OnRemove.LEAVE, description="With lvm: what becomes of the bytes of a volume that is removed: leave, "
        "discard (the disk is told that they are not needed), or zero (they are overwritten; not in a thin pool). "
        "Whatever it is, no new disk can be read before it has been overwritten. Default: leave."
    )


class HostIn(Base):
    """A machine that runs VMs."""

    connect: v.Connect = Field(
        default="local",
        description="How to reach the host: local (this machine) or ssh://USER@HOST[:PORT]. Default: local.",
    )
    accelerator: Literal["auto", "kvm", "qemu"] = Field(
        default="auto",
        description="kvm, qemu (emulation, slow), or auto: kvm where a guest really starts under it, else qemu. "
        "Default: auto.",
    )
    ssh_config: str | None = Field(
        default=None,
        description="An OpenSSH client configuration used in place of ~/.ssh/config; a relative path starts where this "
        "file is. Only with ssh://. Default: none.",
    )
    pools: dict[str, PoolIn] = Field(
        default={},
        description="Pools by name. Default: one pool named `default`, the directory /var/lib/libvirt/images.",
    )
    iommu: v.Bool = Field(
        default=False,
        description="Whether the host is prepared for PCI pass-through: its IOMMU on, by the kernel's arguments, which "
        "takes a reboot. Default: false.",
    )
    devices: dict[str, DeviceIn] = Field(
        default={}, description="PCI devices set aside for guests, by a name that VMs use. Default: none."
    )
    devices_at_boot: v.Bool = Field(
        default=True,
        description="Whether these devices are kept from the host's own drivers from boot on, by its initramfs; false: "
        "from when their VMs start. Default: true.",
    )
    bridges: dict[str, BridgeIn] = Field(
        default={},
        description="Bridge devices by name, for VMs to be plugged into. Default: none is made or changed.",
    )
    filter_bridged: v.Bool = Field(
        default=False,
        description="With bridges: whether the host's firewall filters what goes from VM to VM over a bridge, once "
        "some program has loaded br_netfilter. false: never; true: left to that program. Default: false.",
    )
    services: ServicesIn = Field(
        default_factory=ServicesIn, description="What the host itself does for guests: DNS and DHCP, NTP, a package "
        "proxy, masquerading. Default: nothing."
    )
    hugepages: dict[Literal["2M", "1G"], PageCounts] = Field(
        default={},
        description="Huge pages set aside for guests, now and at each boot: how many of each size, like {2M: 8192}, "
        "the same on each NUMA node; or a list with a number for each node, like {2M: [4096, 0]}. Default: what the "
        "host has.",
    )


class NetworkIn(Base):
    """A network of the cloud: exactly one of `bridge` (a bridge that the host has) and `nat` (libvirt's NAT)."""

    bridge: v.Device | None = Field(
        default=None, description="The host's bridge device the VMs are plugged into, like br0."
    )
    nat: v.Subnet | None = Field(
        default=None,
        description="The subnet of a private network behind the host, like 192.168.122.0/24; libvirt makes and "
        "serves it.",
    )
    subnet: v.Subnet | None = Field(
        default=None, description="The subnet of a bridged network, like 192.168.6.0/24: VMs' addresses must lie in it."
    )
    gateway: v.Address | None = Field(
        default=None,
        description="The default gateway VMs get. Default: on nat the subnet's first address; on a bridge the host "
        "that masquerades for it (`services:`), else none.",
    )
    dns: Ips | None = Field(
        default=None, description="DNS servers VMs get. Default: on nat the gateway; on a bridge the hosts that serve "
        "it (`services:`), else none."
    )
    search: Domains = Field(default=[], description="DNS search domains VMs get. Default: none.")
    ntp: Servers = Field(default=[], description="NTP servers VMs get. Default: the hosts that serve it "
                         "(`services:`), else what the distribution ships.")
    proxy: v.Proxy | None = Field(default=None, description="HTTP proxy for the package manager of VMs; none for no "
                                  "proxy. Default: that of the host that serves it (`services:`), else none.")


class UserIn(Base):
    """A user inside VMs."""

    ssh_keys: Texts = Field(
        default=[],
        description="Public SSH keys: the key itself, or a file of keys on this machine (starts with ~, /, ./ or ../; "
        "./ is relative to the spec file). A file may hold several keys, one per line. Default: none.",
    )
    sudo: Sudo = Field(
        default=Sudo.NOPASSWD,
        description="What the user may do as root: nopasswd, password (asked for it) or none. Default: nopasswd.",
    )
    password_hash_file: str | None = Field(
        default=None,
        description="A file on this machine that holds the hash of the user's password (crypt: $6$... or $y$...), as "
        "`openssl passwd -6` prints it. Default: no password, login by key only.",
    )
    shell: v.AbsolutePath = Field(default="/bin/bash", description="Login shell. Default: /bin/bash.")
    groups: Texts = Field(default=[], description="Further groups of the user. Default: none.")


class DiskIn(Base):
    """A data disk: a VM's further disk, kept when the VM is rebuilt."""

    size: v.Size = Field(description="Size with its unit: 10G is 10 GiB (2^30).")
    filesystem: Filesystem | None = Field(
        default=None,
        description="File system made at first boot when the disk is blank: ext4, xfs or btrfs. Default: ext4 with "
        "mount, else none.",
    )
    mount: v.AbsolutePath | None = Field(
        default=None, description="Where the disk is mounted in the VM. Default: not mounted."
    )
    pool: str | None = Field(default=None, description="Pool of the disk. Default: the VM's.")


class NicIn(Base):
    """A NIC of a VM. In a group, each key may be a list, one item for each VM."""

    network: str | None = Field(
        default=None, description="Network the NIC is plugged into. Default: as for the VM's `network`."
    )
    address: v.VmAddress | None = Field(
        default=None,
        description="Static IPv4 address, with or without prefix. In a group the first one; the rest count upwards. "
        "Default: DHCP.",
    )
    mac: v.Mac | None = Field(
        default=None, description="MAC address. Default: derived from the names of cloud and VM, always the same."
    )


class WriteFileIn(Base):
    """A file written at first boot: its text in `content`, or taken from `source`."""

    path: v.AbsolutePath = Field(description="Path in the VM, absolute.")
    content: str | None = Field(default=None, description="The text of the file.")
    source: str | None = Field(
        default=None,
        description="A text file on this machine to take the content from (~, / or ./ as for ssh_keys); for secrets, "
        "too.",
    )
    mode: v.Mode = Field(default="0644", description='Permissions in octal. Default: "0644".')
    owner: str = Field(
        default="root:root",
        pattern=r"^[a-z_][a-z0-9_-]*(:[a-z_][a-z0-9_-]*)?$",
        description="USER or USER:GROUP. Default: root:root.",
    )
    append: v.Bool = Field(
        default=False, description="Add to the end of the file instead of replacing it. Default: false."
    )


class AutostartIn(Base):
    """When a VM starts with its host."""

    order: Annotated[v.Int, Field(ge=0)] | None = Field(
        default=None, description="Lower numbers start first; VMs without one start last."
    )
    healthy: Literal["agent"] | None = Field(
        default=None,
        description="What those after it wait for: agent (its guest agent answers). Default: its start alone.",
    )
    timeout: Annotated[v.Int, Field(ge=1, le=LONGEST_WAIT)] | None = Field(
        default=None,
        description="Seconds that they wait for it at most when the host starts. Default: the VM's `ready_timeout`.",
    )


class PinIn(Base):
    """Where a VM runs on its host. In a group, `cpus` and `emulator` may be lists, one item for each VM."""

    cpus: v.Pin = Field(
        description='CPUs of the host, as a CPU list like 24-27 or "0-3,8". As many as the VM has vCPUs: one each; '
        "else each vCPU runs on any of them. auto (near its devices) is not applied yet."
    )
    emulator: v.CpuList | None = Field(
        default=None,
        description="CPUs for the emulator's own threads and the I/O threads. Default: CPUs of the same NUMA nodes "
        "that no VM is pinned to, if there are any, else the VM's own.",
    )
    memory: MemoryPolicy = Field(
        default=MemoryPolicy.STRICT,
        description="strict: all memory on the NUMA nodes of the CPUs, and what does not fit there is refused; "
        "preferred: there first, and elsewhere when they are full. Default: strict.",
    )
    hugepages: v.HugePages | None = Field(
        default=None,
        description="Whether the memory is made of huge pages: true, false, 2M or 1G. Default: when the VM is made and "
        "the nodes have enough free ones.",
    )


DeviceUse = Annotated[
    str | dict[str, Literal["keep", "wipe"]],
    BeforeValidator(_device, json_schema_input_type=str | dict[str, Literal["keep", "wipe"]]),
]
Command = Annotated[str | list[str], BeforeValidator(_command, json_schema_input_type=str | list[str])]
Disks = dict[str, Annotated[DiskIn, BeforeValidator(_sized, json_schema_input_type=v.Size | DiskIn)]]
Autostart = Annotated[AutostartIn | None, BeforeValidator(_ordered, json_schema_input_type=bool | AutostartIn)]
Devices = Annotated[
    list[DeviceUse],
    BeforeValidator(listed, json_schema_input_type=DeviceUse | list[DeviceUse]),
]
Pin = Annotated[PinIn | None, BeforeValidator(_pinned, json_schema_input_type=str | int | PinIn)]
CpuModel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class CommonIn(Base):
    """What a VM can be told, and what `defaults` can say for all of them."""

    host: str | None = Field(
        default=None, description="Host. Default: the only one; with several hosts it must be said."
    )
    template: str | None = Field(
        default=None, description="Template the VM is cloned from. Required, here or in defaults."
    )
    vcpus: Annotated[v.Int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Number of virtual CPUs. Default: 1."
    )
    memory: v.Size | None = Field(
        default=None, description="Memory with its unit: 4G is 4 GiB (2^30). At least 64M. Default: 1G."
    )
    disk: v.Size | None = Field(
        default=None,
        description="Size of the root disk; the file system grows with it. Default: the template's size (templates: "
        "10G).",
    )
    disks: Disks | None = Field(
        default=None,
        description="Data disks by name: a size ({data: 10G}), or {size, filesystem, mount, pool}. The guest sees "
        "the name as "
        "the disk's serial (at most 20 characters). In a group each VM gets disks of its own. Default: none.",
    )
    network: str | None = Field(
        default=None,
        description="Network of the VM's one NIC. Default: the only network of the file; with none in the file, a NAT "
        "network named `default` (192.168.122.0/24).",
    )
    pool: str | None = Field(
        default=None, description="Pool of the disks. Default: the host's only pool; with several it must be said."
    )
    firmware: Firmware | None = Field(
        default=None, description="uefi or bios. Default: the template's (templates: uefi)."
    )
    cpu: CpuModel | None = Field(
        default=None,
        description="CPU the VM sees: host-passthrough, host-model, maximum, or a model QEMU knows, like EPYC. "
        "Default: host-passthrough.",
    )
    copy_: Copy | None = Field(
        default=None,
        alias="copy",
        description="overlay (instant; only what differs from the template is stored) or full (an own copy). "
        "Default: overlay.",
    )
    autostart: Autostart = Field(
        default=None,
        description="Whether the VM starts with its host: true, false, or {order, healthy, timeout}. Default: false.",
    )
    protect: v.Bool | None = Field(default=None, description="Refuse to destroy or rebuild the VM. Default: false.")
    running: v.Bool | None = Field(default=None, description="Whether the VM is to be running. Default: true.")
    users: Texts | None = Field(
        default=None, description="Names of the users the VM gets. Default: all users of the file."
    )
    timezone: v.Timezone | None = Field(
        default=None, description="Timezone, like Asia/Shanghai. Default: the template's (mostly UTC)."
    )
    locale: v.Locale | None = Field(default=None, description="Locale, like en_US.UTF-8. Default: the template's.")
    packages: Texts | None = Field(
        default=None, description="Packages installed at first boot. In a group each VM gets all. Default: none."
    )
    write_files: list[WriteFileIn] | None = Field(
        default=None, description="Files written at first boot. In a group each VM gets all. Default: none."
    )
    runcmd: list[Command] | None = Field(
        default=None,
        description="Commands run at the end of the first boot, in order: a line for the shell, or a list of words. "
        "In a "
        "group each VM gets all. Default: none.",
    )
    ntp: Servers | None = Field(default=None, description="NTP servers. Default: the network's.")
    proxy: v.Proxy | None = Field(
        default=None, description="HTTP proxy for the package manager; none for no proxy. Default: the network's."
    )
    dns: Ips | None = Field(default=None, description="DNS servers. Default: the network's.")
    search: Domains | None = Field(default=None, description="DNS search domains. Default: the network's.")
    ready_timeout: Annotated[v.Int, Field(ge=1)] | None = Field(
        default=None, description="Seconds a VM may take from its start until it is ready. Default: 600."
    )


class DefaultsIn(CommonIn):
    """Values for every VM (and template, where it has the key) that says nothing else. A list is replaced whole."""

    mirror: v.Url | None = Field(
        default=None, description="For templates with build: package mirror. Default: the host's own."
    )


class VmIn(CommonIn):
    """A VM; with `count` a group of VMs, NAME-1 to NAME-N.

    In a group, a key that holds one value for one VM may be a list of N values: one each. Keys that are lists for one
    VM (packages, users, runcmd, write_files, nics, dns, ntp, search) and `disks` go to each VM as they are; `devices`
    is dealt out, one item each (an item may be a list).
    """

    count: Annotated[v.Int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Makes this a group of so many VMs, named NAME-1 to NAME-N. Default: one VM, named NAME.",
    )
    address: v.VmAddress | None = Field(
        default=None,
        description="Static IPv4 address of the VM's one NIC, with or without prefix. In a group: the first VM's, "
        "the rest count upwards; or a list. Default: DHCP.",
    )
    mac: v.Mac | None = Field(
        default=None, description="MAC address of the VM's one NIC. Default: derived from the names, always the same."
    )
    nics: list[NicIn] | None = Field(
        default=None,
        description="Several NICs, each {network, address, mac}, instead of network, address and mac. The first "
        "carries the default route.",
    )
    pin: Pin = Field(
        default=None,
        description='CPUs of the host the VM runs on, as a CPU list like 24-27 or "0-3,8"; or {cpus, emulator, memory, '
        "hugepages}. Its memory is on the NUMA nodes of these CPUs. Default: anywhere on its host.",
    )
    devices: Devices | None = Field(
        default=None,
        description="Devices of the host passed through, by name. What becomes of the data on it: {NAME: wipe} erases "
        "it when the VM gets the device or is rebuilt; {NAME: keep} never does. Without either it is kept, but a "
        "device that was another VM's is refused. Default: none.",
    )


class TemplateIn(Base):
    """What VMs are cloned from. Exactly one of `os`, `image` and `build`."""

    os: str | None = Field(
        default=None, description="A well-known cloud image by name, like debian12, ubuntu24.04, fedora42."
    )
    image: str | None = Field(
        default=None,
        description="A cloud image: an http(s) URL, or a file on this machine (~, / or ./); qcow2 or raw, also .xz, "
        ".gz, .zst.",
    )
    build: Literal["debian"] | None = Field(default=None, description="debian: built from Debian packages on the host.")
    release: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="With build: release of the distribution. Default: bookworm.",
    )
    filesystem: Literal[Filesystem.EXT4, Filesystem.XFS] | None = Field(
        default=None, description="With build: file system of the root disk: ext4 or xfs. Default: ext4."
    )
    sha256: v.Sha256 | None = Field(
        default=None, description="With image: SHA-256 sum of the file as it is fetched (before it is unpacked)."
    )
    sums: v.Url | None = Field(
        default=None,
        description="With an image URL: URL of the publisher's list of sums (SHA256SUMS or SHA512SUMS), instead of "
        "sha256.",
    )
    packages: Texts | None = Field(default=None, description="With build: further packages. Default: none.")
    disk: v.Size | None = Field(
        default=None, description="Size of the template's disk. Default: that of defaults, else 10G."
    )
    pool: str | None = Field(
        default=None,
        description="The pool to keep the template in. Default: the pool of each VM that is cloned from it.",
    )
    host: str | None = Field(
        default=None,
        description="The only host to make the template on. Default: every host where a VM is cloned from it.",
    )
    firmware: Firmware | None = Field(default=None, description="uefi or bios. Default: that of defaults, else uefi.")
    mirror: v.Url | None = Field(
        default=None, description="With build: package mirror. Default: that of defaults, else the host's own."
    )


class Spec(Base):
    """A private cloud: hosts, networks, users, templates and VMs."""

    cloud: str = Field(
        description="Name of the cloud: lower-case letters, digits and -. What vmwright makes on the hosts carries it."
    )
    include: Texts = Field(
        default=[],
        description="Further files of the same form, relative to this one. Their mappings are joined by name; a name "
        "in two files is an error.",
    )
    hosts: dict[str, HostIn] = Field(
        default={}, description="Hosts by name. Default: one host named `local`, this machine."
    )
    networks: dict[str, NetworkIn] = Field(
        default={}, description="Networks by name. Default: one NAT network named `default`, 192.168.122.0/24."
    )
    users: dict[str, UserIn] = Field(default={}, description="Users inside VMs, by name.")
    defaults: DefaultsIn = Field(
        default_factory=DefaultsIn, description="Values for every VM and template that does not say otherwise."
    )
    templates: dict[str, TemplateIn] = Field(default={}, description="Templates by name.")
    vms: dict[str, VmIn] = Field(default={}, description="VMs and groups of VMs by name; a name is the VM's host name.")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a spec file."""
    from vmwright.spec.schema import generate  # it imports this module

    return generate()
