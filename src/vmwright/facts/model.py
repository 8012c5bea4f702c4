"""The inventory of a host: frozen, complete, saved and loaded as JSON. Sizes are bytes.

Loading checks the types (pydantic's TypeAdapter on these dataclasses), so that a recording edited by hand is refused
with the place of its first error, not half believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from vmwright.facts.service_model import ServicesFacts

FORMAT = 1


class Kvm(StrEnum):
    """Whether a guest really starts under KVM here."""

    WORKS = "works"
    BROKEN = "broken"  # /dev/kvm is there, but a guest does not run
    ABSENT = "absent"


class DomainState(StrEnum):
    """libvirt's domain states, as few as a user needs."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shut off"
    CRASHED = "crashed"


@dataclass(frozen=True)
class PoolFacts:
    """A storage pool. `target` is its directory; capacity and available are those of the file system below."""

    name: str
    type: str
    target: str
    active: bool
    autostart: bool
    capacity: int
    available: int
    target_mode: int | None = None  # of the directory
    blocked_by: str | None = None  # the first directory on the way that the libvirt user cannot search, if any


@dataclass(frozen=True)
class VolumeFacts:
    """A volume of a pool. `backing` is the path of the image it is an overlay of."""

    pool: str
    name: str
    path: str
    format: str
    capacity: int
    allocation: int
    backing: str | None = None
    thin: str | None = None  # the thin pool that a logical volume is in
    active: bool = True  # of a logical volume: its device is there
    open: bool = False  # of a logical volume: somebody has its device open


@dataclass(frozen=True)
class BlockFacts:
    """A block device of the host: a disk, a partition, or what stands on one."""

    path: str  # /dev/sda4
    size: int
    kind: str  # lsblk's type: disk, part, lvm, crypt, raid1, loop, ...
    parents: tuple[str, ...] = ()  # paths of the devices it stands on
    serial: str | None = None  # of a disk
    model: str | None = None
    table: str | None = None  # gpt or dos, of a device with a partition table
    signatures: tuple[str, ...] = ()  # what wipefs finds at its places, e.g. ext4, LVM2_member, swap
    mounts: tuple[str, ...] = ()  # where it is mounted; [SWAP] for swap in use
    vg: str | None = None  # the volume group that it is a physical volume of
    readonly: bool = False
    numa_node: int | None = None
    names: tuple[str, ...] = ()  # other paths of it, like those in /dev/disk/by-id


@dataclass(frozen=True)
class ThinFacts:
    """A thin pool of a volume group. Percents are of what is used of it, 0 to 100."""

    name: str
    size: int
    metadata: int
    data_percent: float
    metadata_percent: float
    monitored: bool = False  # dmeventd watches how full it is
    zero: bool = True  # blocks are zeroed before they are given to a volume


@dataclass(frozen=True)
class GroupFacts:
    """An LVM volume group. Sizes in bytes."""

    name: str
    size: int
    free: int
    extent: int
    disks: tuple[str, ...]  # its physical volumes
    missing: int = 0  # of them, how many are not there
    thin: tuple[ThinFacts, ...] = ()


@dataclass(frozen=True)
class CpuFacts:
    """A logical CPU. Of one that is offline the kernel tells nothing but its number."""

    number: int
    node: int | None = None  # its NUMA node
    socket: int | None = None
    core: int | None = None  # unique within its socket only
    siblings: tuple[int, ...] = ()  # the other hyper-threads of its core
    online: bool = True


@dataclass(frozen=True)
class HugepageFacts:
    """Huge pages of one size on a node; `size` in bytes, `total` and `free` are counts.

    `mounted`: there is a hugetlbfs of this size, from which libvirt takes them.
    """

    size: int
    total: int
    free: int
    mounted: bool = False


@dataclass(frozen=True)
class NodeFacts:
    """A NUMA node. Sizes in bytes; `memory` has all of it, huge pages too.

    `reclaimable` is what the kernel gives back when it is asked for: it keeps files there, and its own caches.
    """

    number: int
    cpus: tuple[int, ...]  # those that are online
    memory: int
    free: int
    reclaimable: int = 0
    distances: tuple[int, ...] = ()  # to each node of the host, in the order of their numbers
    hugepages: tuple[HugepageFacts, ...] = ()


class Use(StrEnum):
    """What keeps a device from being given away."""

    MOUNT = "mount"
    SWAP = "swap"
    LVM = "lvm"  # a physical volume is on it
    RAID = "raid"
    HOLDER = "holder"  # another block device stands on it: crypt, multipath
    DISK = "disk"  # a VM has a disk of it, or of a part of it
    ROUTE = "route"  # the default route goes by it
    SESSION = "session"  # the ssh session that reads the facts comes in by it
    LINK = "link"  # its interface has an address, or belongs to a bridge or the like
    VM = "vm"  # it is passed through


@dataclass(frozen=True)
class UseFacts:
    """A use of a device: `by` is the block device, interface or VM, `what` the mount point, group, address or the like.

    With Use.VM, `by` is the VM's name and `what` is empty; with Use.DISK, `by` is the VM's name and `what` the path.
    """

    use: Use
    by: str
    what: str = ""


@dataclass(frozen=True)
class DeviceFacts:
    """A PCI device, bridges and the like too.

    `serial` is what the device itself reports: an NVMe drive to the driver nvme alone, so it is not known while another
    driver has it; of all other devices it is `pcie_serial`.
    """

    address: str  # 0000:05:00.0
    ids: str  # vendor and device, 144d:a80a
    kind: str  # class, subclass and interface in six digits: 010802 is an NVMe controller
    name: str = ""  # vendor's and device's, where the host knows them
    driver: str | None = None
    numa_node: int | None = None
    group: int | None = None  # its IOMMU group
    peers: tuple[str, ...] = ()  # addresses of the others in that group
    serial: str | None = None
    pcie_serial: str | None = None  # the Device Serial Number capability; one for all functions of a card
    blocks: tuple[str, ...] = ()  # paths of the disks on it
    links: tuple[str, ...] = ()  # names of its network interfaces
    uses: tuple[UseFacts, ...] = ()
    former: str | None = None  # set aside for VMs at boot: the driver that the host has for it otherwise

    @property
    def bridge(self) -> bool:
        """Whether it is a bridge between PCI buses: in a group, those alone may keep a driver of the host's."""
        return self.kind.startswith("0604")


@dataclass(frozen=True)
class IommuFacts:
    """Whether the host has an IOMMU and uses it."""

    on: bool  # the kernel has made groups
    table: str | None = None  # by which the firmware tells of it: DMAR (Intel) or IVRS (AMD)
    arguments: tuple[str, ...] = ()  # those of the kernel command line that have to do with it


@dataclass(frozen=True)
class NetworkFacts:
    """A libvirt network. `subnet` is CIDR text with the host's own address, e.g. 192.168.122.1/24."""

    name: str
    active: bool
    autostart: bool
    forward: str | None
    bridge: str | None
    subnet: str | None
    dhcp: bool = False
    dhcp_ranges: tuple[tuple[str, str], ...] = ()  # first and last address of each
    dhcp_hosts: tuple[str, ...] = ()  # addresses kept for one guest


@dataclass(frozen=True)
class LinkFacts:
    """A network interface of the host."""

    name: str
    kind: str  # "bridge", "ethernet", ...
    addresses: tuple[str, ...] = ()  # CIDR text
    up: bool = False
    mac: str = ""
    master: str | None = None  # the bridge or bond that it is a port of
    lower: str | None = None  # of a VLAN: the interface that it is on
    vlan: int | None = None
    dynamic: bool = False  # some of its addresses are lent, by DHCP
    stp: bool = False  # of a bridge; the delay is in seconds
    forward_delay: float = 0.0


@dataclass(frozen=True)
class DiskFacts:
    """A disk of a domain."""

    target: str  # vda
    path: str | None
    serial: str | None
    readonly: bool = False
    format: str = "raw"


@dataclass(frozen=True)
class NicFacts:
    """A NIC of a domain: `type` is network or bridge, `source` the network's or bridge's name."""

    mac: str
    type: str
    source: str


@dataclass(frozen=True)
class OwnerFacts:
    """Our mark in a domain's <metadata>."""

    cloud: str
    vm: str
    template: str
    template_version: str
    instance: str  # id of this incarnation: new at create and rebuild
    seed: str  # content hash of the cloud-init data, and of its parts (plan/seeds.py)
    protect: bool = False
    nics: tuple[str, ...] | None = None  # MACs of the NICs that we gave it; None: nothing is said, all of them
    devices: tuple[str, ...] = ()  # addresses of the host's PCI devices that we gave it
    pinned: bool = False  # its placement is ours; else it is whose ever put it there


@dataclass(frozen=True)
class Cell:
    """A NUMA node of a guest: its vCPUs, its bytes of memory, and the host's nodes that those are on (none: any)."""

    vcpus: tuple[int, ...]
    memory: int
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where on its host a VM runs. Empty tuples: anywhere.

    `vcpus` are the host's CPUs that each vCPU may run on, for as many as it can have; `nodes` those of the memory as
    a whole, `memory` libvirt's mode for them, and for those of cells (strict, preferred, ...). `threads` are
    hyper-threads per core as the guest sees them, `hugepages` the size of the pages that its memory is made of, 0 for
    ordinary ones.
    """

    vcpus: tuple[tuple[int, ...], ...] = ()
    emulator: tuple[int, ...] = ()
    iothreads: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    memory: str = ""
    cells: tuple[Cell, ...] = ()
    threads: int = 1
    hugepages: int = 0


ANYWHERE = Placement()


@dataclass(frozen=True)
class ConfigFacts:
    """What a domain's XML says, persistent or live."""

    vcpus: int
    vcpus_max: int
    memory: int
    memory_max: int
    disks: tuple[DiskFacts, ...]
    nics: tuple[NicFacts, ...]
    firmware: str  # uefi or bios
    type: str  # kvm or qemu
    cpu: str  # mode
    owner: OwnerFacts | None
    nvram: str | None = None
    hostdevs: tuple[str, ...] = ()  # addresses of the host's PCI devices that are passed through
    placement: Placement = ANYWHERE
    iothreads: int = 0
    free_ports: int = 0  # PCIe root ports that nothing is plugged into


@dataclass(frozen=True)
class DomainFacts:
    """A domain. `live` is the running configuration, None when it is off."""

    name: str
    uuid: str
    state: DomainState
    autostart: bool
    persistent: ConfigFacts
    live: ConfigFacts | None = None
    saved: bool = False  # its memory lies in a file (virsh managedsave), and its next start goes on from there


@dataclass(frozen=True)
class FileFacts:
    """A file of the host's that we may write. None: it is not there; `ours`: what we wrote last, None: never."""

    path: str
    text: str | None = None
    ours: str | None = None


@dataclass(frozen=True)
class ProfileFacts:
    """A connection of NetworkManager's that is active, with its settings as nmcli tells them; without secrets."""

    link: str
    name: str
    uuid: str
    settings: tuple[tuple[str, str], ...] = ()

    def get(self, key: str) -> str:
        """A setting; empty when it is not set."""
        return next((value for name, value in self.settings if name == key), "")


@dataclass(frozen=True)
class RouteFacts:
    """A default route (IPv4)."""

    link: str
    gateway: str | None = None


@dataclass(frozen=True)
class WiringFacts:
    """How the host's own network is set up, as far as it takes to make bridges.

    `tools` are those of netplan, ifup, nmcli and resolvconf that are there; `active` those of NetworkManager and
    systemd-networkd that run. In the text of a file in `secret`, what is secret is left out.
    """

    tools: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    files: tuple[FileFacts, ...] = ()  # of netplan, ifupdown, and ours of NetworkManager's
    secret: tuple[str, ...] = ()
    profiles: tuple[ProfileFacts, ...] = ()
    wireless: tuple[str, ...] = ()
    routes: tuple[RouteFacts, ...] = ()
    dns: tuple[str, ...] = ()
    session: str | None = None  # the host's address that the ssh session came to
    answered: tuple[tuple[str, str], ...] = ()  # addresses that the file gives the host, and whose MAC answered
    pending: str = ""  # bridges that a run has made, and not confirmed yet
    filter: tuple[tuple[str, int], ...] = ()  # settings of br_netfilter; none while it is not loaded
    resolved: tuple[str, ...] = ()  # what the host's own name resolves to

    def file(self, path: str) -> FileFacts:
        """What is known of a file."""
        return next((file for file in self.files if file.path == path), FileFacts(path))


@dataclass(frozen=True)
class PlatformFacts:
    """What kind of system a host has, as far as it takes to prepare it. `id` and `like` are os-release's.

    `tools` are the ways to install packages (apt-get, dnf), to set the kernel's command line (update-grub, grubby), and
    to make its initramfs (update-initramfs, dracut).
    """

    id: str = ""
    like: tuple[str, ...] = ()
    boot: str = ""  # differs from boot to boot
    cmdline: str = ""
    systemd: bool = False
    tools: tuple[str, ...] = ()
    files: tuple[FileFacts, ...] = ()

    def file(self, path: str) -> FileFacts:
        """What is known of a file."""
        return next((file for file in self.files if file.path == path), FileFacts(path))


class Held(StrEnum):
    """What is known of the data on a device that we have given to a VM."""

    GIVEN = "given"  # the VM has it, or had it last: what is on it is that VM's
    WIPING = "wiping"  # a wipe was begun, and not seen to its end
    WIPED = "wiped"  # empty, and with no VM since


@dataclass(frozen=True)
class HeldFacts:
    """Our note on the host about a device: which VM it was given to last.

    `serial` is what the device reported when the host's driver last had it; None where it has none. `driver` is that
    driver; None where the host had none for it. `address` is empty when another device has been seen there since.
    """

    address: str
    serial: str | None
    cloud: str
    vm: str
    state: Held = Held.GIVEN
    driver: str | None = None


@dataclass(frozen=True)
class BootFacts:
    """What starts VMs in order when the host boots, as it was found there. Texts are None where there is no file."""

    systemd: bool = False
    enabled: bool = False  # systemd starts our unit at boot
    unit: str | None = None
    script: str | None = None
    order: str | None = None  # this cloud's list of VMs
    others: tuple[str, ...] = ()  # clouds besides this one that have a list
    guests: str | None = None  # libvirt-guests.service, ON_BOOT: "start" or "ignore"; None: it is not enabled


@dataclass(frozen=True)
class IntentFacts:
    """The note of something begun and not finished, by a run that was cut off.

    `operation` is create, rebuild, destroy, boot (made; first boot not seen to end), grow (`object` is VM@SERIAL) or
    template. `volumes` are paths that this operation makes and that hold nothing of the user's yet (for destroy: that
    are to be removed).
    """

    cloud: str
    object: str
    operation: str
    volumes: tuple[str, ...] = ()
    instance: str = ""


@dataclass(frozen=True)
class ImageFacts:
    """A local image file that a template is made from; sha256 as read."""

    location: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PathFacts:
    """A directory that a pool of the spec wants, or vmwright itself (names.HOST_STATE)."""

    path: str
    exists: bool
    available: int  # bytes free on the file system that holds it, or its nearest existing parent
    blocked_by: str | None = None
    filesystem: str = ""  # the type of that file system, as in /proc/mounts; empty: not known


@dataclass(frozen=True)
class HostFacts:
    """All that is known of one host, from one read."""

    name: str
    hostname: str
    os: str
    kernel: str
    cpus: int
    memory: int
    memory_available: int
    kvm: Kvm
    kvm_reason: str
    emulator: str | None  # QEMU's version
    libvirt: str | None
    uefi: bool  # libvirt finds UEFI firmware for x86_64 guests
    tools: tuple[str, ...] = ()  # of the programs we may need, those that are there
    pools: tuple[PoolFacts, ...] = ()
    volumes: tuple[VolumeFacts, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()
    links: tuple[LinkFacts, ...] = ()
    domains: tuple[DomainFacts, ...] = ()
    intents: tuple[IntentFacts, ...] = ()
    paths: tuple[PathFacts, ...] = ()
    blocks: tuple[BlockFacts, ...] = ()
    groups: tuple[GroupFacts, ...] = ()
    cpu_list: tuple[CpuFacts, ...] = ()
    nodes: tuple[NodeFacts, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    iommu: IommuFacts | None = None  # None: not read, as the devices
    held: tuple[HeldFacts, ...] = ()
    fstab: tuple[tuple[str, str], ...] = ()  # devices that the boot waits for, and where they are to be mounted
    not_aside: tuple[tuple[str, str], ...] = ()  # devices that were not set aside at boot, and why; "all": none was
    boot: BootFacts = BootFacts()
    platform: PlatformFacts = PlatformFacts()
    wiring: WiringFacts | None = None  # None: not read, for the file asks for no bridges
    services: ServicesFacts | None = None  # None: not read, for the file asks for none
    machine: str = "q35"
    cpu_vendor: str = ""  # of the CPU that guests under KVM have: AMD or Intel; empty where there are none
    kvm_device_mode: str | None = None  # "root:kvm 660"; libvirt probes anew at every define where it is not usable
    user: str = "root"


@dataclass(frozen=True)
class Facts:
    """All hosts of a cloud."""

    hosts: tuple[HostFacts, ...]
    images: tuple[ImageFacts, ...] = ()
    format: int = field(default=FORMAT)

    def host(self, name: str) -> HostFacts:
        """The facts of that host. KeyError when it was not read."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)
