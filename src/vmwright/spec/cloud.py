"""The resolved cloud: groups counted out, defaults filled, addresses and MACs fixed. Frozen; what the plan compares.

Sizes are bytes. Every object carries `where`: the place in the user's file an error about it should name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vmwright.errors import Problem, Where

LINK_NAME = 15  # characters of an interface's name: IFNAMSIZ of linux/if.h is 16, with the NUL at its end


class Firmware(StrEnum):
    """How a VM boots."""

    UEFI = "uefi"
    BIOS = "bios"


class Copy(StrEnum):
    """How a VM's root disk comes from its template."""

    OVERLAY = "overlay"
    FULL = "full"


class Filesystem(StrEnum):
    """File systems that can be made and grown."""

    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"


class Content(StrEnum):
    """What becomes of the data on a device when its VM is made, or made anew."""

    KEEP = "keep"
    WIPE = "wipe"


class OnRemove(StrEnum):
    """What becomes of the bytes of a logical volume when it is removed."""

    LEAVE = "leave"  # until somebody else gets that room, who overwrites them first
    DISCARD = "discard"
    ZERO = "zero"


class MemoryPolicy(StrEnum):
    """How firmly a pinned VM's memory belongs to the nodes of its CPUs: only there, or there first."""

    STRICT = "strict"
    PREFERRED = "preferred"


ANY_PAGES = -1  # huge pages, whatever their size
SMALLEST_PAGES = 2 << 20  # of x86_64


class Sudo(StrEnum):
    """What a user may do as root."""

    NOPASSWD = "nopasswd"
    PASSWORD = "password"
    NONE = "none"


@dataclass(frozen=True)
class NotYet:
    """A key of the spec that is understood and checked, but not applied by this version."""

    key: str
    where: Where | None


@dataclass(frozen=True)
class ThinSpec:
    """A thin pool in a volume group. Sizes in bytes; None: what is left for it.

    `overcommit` is the most that its volumes may promise, as a multiple of its size; None: no limit, only warnings.
    """

    name: str = "thin"
    size: int | None = None
    metadata: int | None = None
    overcommit: float | None = None


@dataclass(frozen=True)
class LvmSpec:
    """A volume group as a pool. `wipe` are serials or sizes of disks whose content may be taken."""

    group: str
    disks: tuple[str, ...] = ()
    thin: ThinSpec | None = None
    wipe: tuple[str, ...] = ()
    on_remove: OnRemove = OnRemove.LEAVE


@dataclass(frozen=True)
class Pool:
    """A pool: a directory, or with `lvm` a volume group. Its libvirt name is `name`.

    `path` is where its volumes are, absolute, on the host: the directory, or /dev/GROUP.
    """

    name: str
    host: str
    path: str
    lvm: LvmSpec | None = None
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class DeviceSpec:
    """A PCI device set aside for guests: by `serial`, by `address` in the kernel's form (0000:05:00.0), or by both."""

    name: str
    serial: str | None = None
    address: str | None = None
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class BridgeSpec:
    """A bridge of the host over a NIC, or over one VLAN of it.

    None of `addresses`, `gateway`, `dns`: what the NIC has when the bridge is made. `forward_delay` and `timeout` are
    seconds; within `timeout` the host must be reached anew, or it goes back.
    """

    name: str
    nic: str
    vlan: int | None = None
    addresses: tuple[IPv4Interface, ...] | None = None
    gateway: IPv4Address | None = None
    dns: tuple[str, ...] | None = None
    stp: bool = False
    forward_delay: int = 0
    timeout: int = 90
    where: Where | None = field(default=None, compare=False)

    @property
    def port(self) -> str:
        """The interface that is the bridge's port: the NIC, or the VLAN of it."""
        if self.vlan is None:
            return self.nic
        name = f"{self.nic}.{self.vlan}"
        return name if len(name) <= LINK_NAME else f"vlan{self.vlan}"


@dataclass(frozen=True)
class HugePages:
    """Huge pages of a host: `size` in bytes, and how many: one number in all, or one for each NUMA node in order."""

    size: int
    counts: tuple[int, ...]
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class DhcpSpec:
    """Addresses that are handed out on a bridge, both ends included, and the subnet that they lie in."""

    first: IPv4Address
    last: IPv4Address
    subnet: IPv4Network


@dataclass(frozen=True)
class DnsSpec:
    """DNS for the guests on a bridge. `names`: it knows VMs by name. `upstream` empty: the host's own servers."""

    bridge: str
    dhcp: DhcpSpec | None = None
    names: bool = True
    upstream: tuple[str, ...] = ()
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class NtpSpec:
    """NTP for the guests of some subnets."""

    networks: tuple[IPv4Network, ...]
    upstream: tuple[str, ...] = ()
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ProxySpec:
    """A package proxy: `kind` is squid or apt-cacher-ng. `cache` is bytes on disk, of squid."""

    kind: str
    port: int
    networks: tuple[IPv4Network, ...]
    cache: int = 0
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class MasqueradeSpec:
    """Guests of some subnets get out by an interface, with the host's address there."""

    out: str
    networks: tuple[IPv4Network, ...]
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ServicesSpec:
    """What a host itself does for guests. None: it does not."""

    dns: DnsSpec | None = None
    ntp: NtpSpec | None = None
    proxy: ProxySpec | None = None
    masquerade: MasqueradeSpec | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is any."""
        return self != ServicesSpec()


@dataclass(frozen=True)
class HostSpec:
    """A host: `connect` is "local" or ssh://user@host[:port]. `accelerator` is auto, kvm or qemu.

    `iommu`: it must have its IOMMU on, whether or not a VM needs it now.
    """

    name: str
    connect: str
    accelerator: str = "auto"
    ssh_config: str | None = None  # an OpenSSH client configuration used in place of ~/.ssh/config
    devices: tuple[DeviceSpec, ...] = ()
    bridges: tuple[BridgeSpec, ...] = ()
    filter_bridged: bool = False  # the host's firewall may filter what goes over bridges
    hugepages: tuple[HugePages, ...] = ()
    devices_at_boot: bool = True
    where: Where | None = field(default=None, compare=False)
    iommu: bool = False
    services: ServicesSpec = ServicesSpec()
    keys: Mapping[str, Where] = field(default_factory=dict, compare=False, repr=False)  # where each key stands


@dataclass(frozen=True)
class NetworkSpec:
    """A network of the cloud. Exactly one of `bridge` (an existing bridge device) and `nat` (libvirt's NAT) is set."""

    name: str
    bridge: str | None
    nat: bool
    subnet: IPv4Network | None
    gateway: IPv4Address | None
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    proxy: str | None = None
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class UserSpec:
    """A user inside guests. `ssh_keys` are public keys (text); `password_hash` is crypt(3) text read from a file."""

    name: str
    ssh_keys: tuple[str, ...]
    sudo: Sudo = Sudo.NOPASSWD
    password_hash: str | None = field(default=None, repr=False)
    shell: str = "/bin/bash"
    groups: tuple[str, ...] = ()
    key_files: tuple[str, ...] = field(default=(), compare=False)  # files the keys were read from, absolute paths
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class BuildSource:
    """A template built from distribution packages on the host. `distribution` is "debian"."""

    distribution: str
    release: str
    filesystem: Filesystem
    packages: tuple[str, ...] = ()
    mirror: str | None = None


@dataclass(frozen=True)
class ImageSource:
    """A template from a cloud image: `location` is an absolute path (on this machine) or an http(s) URL.

    `sha256` is given, or looked up in the publisher's list at `sums` (a URL; `sums_algorithm` is sha256 or sha512).
    """

    location: str
    sha256: str | None = None
    sums: str | None = None
    sums_algorithm: str = "sha256"
    os: str | None = None


@dataclass(frozen=True)
class TemplateSpec:
    """A template on one host and pool. `version` is the content hash of everything it is made from."""

    name: str
    host: str
    pool: str
    source: BuildSource | ImageSource
    size: int
    firmware: Firmware
    version: str
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class DataDisk:
    """A disk besides the root disk; the guest sees `serial` under /dev/disk/by-id/virtio-SERIAL."""

    name: str
    size: int
    pool: str
    serial: str
    filesystem: Filesystem | None = None
    mount: str | None = None


@dataclass(frozen=True)
class Nic:
    """A NIC. `address` is None for DHCP. `gateway` and `dns` are set on the NIC that carries the default route."""

    network: str
    mac: str
    address: IPv4Interface | None
    gateway: IPv4Address | None = None
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class WriteFile:
    """A file written at first boot. `content` is text; `mode` is octal text like "0644"."""

    path: str
    content: str = field(repr=False)
    mode: str = "0644"
    owner: str = "root:root"
    append: bool = False


@dataclass(frozen=True)
class GuestSpec:
    """What cloud-init is told, besides names and addresses."""

    users: tuple[UserSpec, ...] = ()
    timezone: str | None = None
    locale: str | None = None
    proxy: str | None = None
    ntp: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    write_files: tuple[WriteFile, ...] = ()
    runcmd: tuple[str | tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class DeviceUse:
    """A device of the host that a VM gets.

    `content` None: the file does not say. Then a rebuild keeps what is on it, and a device that was another VM's is
    not handed over.
    """

    device: DeviceSpec
    content: Content | None = None
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True)
class PinSpec:
    """On which CPUs of the host a VM runs. As many as it has vCPUs: one each; else all its vCPUs run on any of them.

    `emulator`: where the emulator and I/O threads run; empty: on left-over CPUs of the same nodes. `hugepages`: the
    size of the pages, 0 for none, ANY_PAGES for whichever the host has enough of; None: those that the host has to
    spare when the VM is made, or ordinary ones.
    """

    cpus: tuple[int, ...]
    emulator: tuple[int, ...] = ()
    memory: MemoryPolicy = MemoryPolicy.STRICT
    hugepages: int | None = None


@dataclass(frozen=True)
class StartOrder:
    """When a VM starts with its host. Lower orders first; None: after all those that have one.

    `healthy`: those after it wait until its guest agent answers, at most `timeout` seconds.
    """

    order: int | None = None
    healthy: bool = False
    timeout: int = 600

    @property
    def said(self) -> bool:
        """Whether it says more than that the VM starts with its host."""
        return self.order is not None or self.healthy


@dataclass(frozen=True)
class VmSpec:
    """One VM, complete. `memory` and `disk` are bytes; `ready_timeout` is seconds."""

    name: str
    host: str
    template: str
    pool: str
    vcpus: int
    memory: int
    disk: int | None  # None: as large as the template's
    nics: tuple[Nic, ...]
    guest: GuestSpec
    firmware: Firmware = Firmware.UEFI
    cpu: str = "host-passthrough"
    copy: Copy = Copy.OVERLAY
    data_disks: tuple[DataDisk, ...] = ()
    autostart: bool = False
    start_order: StartOrder = StartOrder()
    devices: tuple[DeviceUse, ...] = ()
    pin: PinSpec | None = None
    protect: bool = False
    running: bool = True
    ready_timeout: int = 600
    where: Where | None = field(default=None, compare=False)
    keys: Mapping[str, Where] = field(default_factory=dict, compare=False, repr=False)  # where each key stands


@dataclass(frozen=True)
class Cloud:
    """The whole file, resolved."""

    name: str
    hosts: tuple[HostSpec, ...]
    pools: tuple[Pool, ...]
    networks: tuple[NetworkSpec, ...]
    templates: tuple[TemplateSpec, ...]
    vms: tuple[VmSpec, ...]
    not_yet: tuple[NotYet, ...] = ()
    warnings: tuple[str, ...] = ()  # "file:line:column: sentence"
    missing: tuple[Problem, ...] = ()  # things `check` tolerates and `plan` must refuse

    def vm(self, name: str) -> VmSpec | None:
        """The VM of that name, or None."""
        return next((vm for vm in self.vms if vm.name == name), None)
