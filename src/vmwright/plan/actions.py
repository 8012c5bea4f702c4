"""Actions: what the plan is made of. Frozen; each says what it does, why, and what it costs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from ipaddress import IPv4Address

from vmwright.errors import Problem
from vmwright.facts.model import ANYWHERE, Placement
from vmwright.netconfig.common import NewFile
from vmwright.spec.cloud import (
    BridgeSpec,
    DataDisk,
    HostSpec,
    LvmSpec,
    NetworkSpec,
    Nic,
    Pool,
    TemplateSpec,
    ThinSpec,
    VmSpec,
)


class Sign(StrEnum):
    """How an action looks in a plan."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"
    WARN = "!"


class Effect(Enum):
    """What an action costs the user, beyond time. The value is how a plan says it."""

    STOPS = "stops the VM"
    TAKES_DATA = "takes data"
    REBOOTS = "reboots the host"
    CUTS_OFF = "cuts the network"
    NEXT_START = "at next start"


@dataclass(frozen=True)
class Change:
    """One value: from what to what, as a person writes it. `old` is empty for something new; `when`: now or later."""

    key: str
    old: str
    new: str
    when: str = ""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One step. `needs` are ids of actions that must have succeeded before."""

    host: str
    why: str
    changes: tuple[Change, ...] = ()
    effects: frozenset[Effect] = frozenset()
    needs: tuple[str, ...] = ()
    sign: Sign = Sign.CHANGE

    @property
    def object(self) -> str:
        """What it acts on, e.g. "vm z-dev"."""
        raise NotImplementedError

    @property
    def verb(self) -> str:
        """What it does, one word or two: "create", "grow disk"."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """Unique in a plan, the same at every run."""
        return f"{self.host}/{self.object}/{self.verb}".replace(" ", "-")


class Prepare(Action):
    """A step that makes a host able to do the rest. All of them come first; then the facts are read anew."""


@dataclass(frozen=True, kw_only=True)
class InstallPackages(Prepare):
    """Install packages with the distribution's own tool (apt-get or dnf), and have services started, now and at boot.

    `programs` are those that must be there afterwards.
    """

    tool: str
    packages: tuple[str, ...]
    services: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return "packages"

    @property
    def verb(self) -> str:
        return "install"


@dataclass(frozen=True, kw_only=True)
class SetKernelArguments(Prepare):
    """Have the kernel started with these arguments from the next boot on, by a file of our own or by grubby."""

    arguments: tuple[str, ...]
    tool: str  # update-grub or grubby
    text: str = ""  # of names.GRUB_DROP_IN, with update-grub

    @property
    def object(self) -> str:
        return "kernel arguments"

    @property
    def verb(self) -> str:
        return "set"


@dataclass(frozen=True, kw_only=True)
class SetBridgeFilter(Prepare):
    """Have the kernel not hand to the host's firewall what goes over bridges, whenever it would begin to."""

    settings: str  # the texts of names.FILTER_SETTINGS and FILTER_RULE
    rule: str

    @property
    def object(self) -> str:
        return "bridge filter"

    @property
    def verb(self) -> str:
        return "switch off"


@dataclass(frozen=True, kw_only=True)
class MakeBridges(Prepare):
    """Make or change bridges of the host, all at once; it goes back when it is not reached within `timeout` seconds.

    `files` are those that change. `managers` are, by name (netconfig.common.Manager), what sets up the NIC of each
    bridge. `profiles` are NetworkManager's connections of the NICs, by UUID, to go back to. `keep` are addresses that
    the host must have afterwards.
    """

    bridges: tuple[BridgeSpec, ...]
    files: tuple[NewFile, ...]
    managers: tuple[str, ...]
    timeout: int
    profiles: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    new: bool = True

    @property
    def object(self) -> str:
        return what_bridges(", ".join(bridge.name for bridge in self.bridges))

    @property
    def verb(self) -> str:
        return "make" if self.new else "change"


@dataclass(frozen=True, kw_only=True)
class TakeBridgesBack(Prepare):
    """Have the host go back to the network that it had before a change that was not confirmed. `what` was changed."""

    what: str

    @property
    def object(self) -> str:
        return what_bridges(self.what)

    @property
    def verb(self) -> str:
        return "take back"


def what_bridges(names: str) -> str:
    """Bridges as the object of an action; `names` are parted by a comma and a space."""
    return f"bridge{'s' if ', ' in names else ''} {names}"


@dataclass(frozen=True, kw_only=True)
class Reboot(Prepare):
    """Reboot the host and wait until it is back. `stop` are VMs of this cloud that are shut down before, in order."""

    boot: str  # the id of the boot that ends
    stop: tuple[str, ...] = ()
    sign: Sign = Sign.WARN

    @property
    def object(self) -> str:
        return f"host {self.host}"

    @property
    def verb(self) -> str:
        return "reboot"


@dataclass(frozen=True, kw_only=True)
class CreatePool(Action):
    """Define (when it is not there), start and autostart a directory pool."""

    pool: Pool
    exists: bool = False
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return f"pool {self.pool.name}"

    @property
    def verb(self) -> str:
        return "start" if self.exists else "create"


@dataclass(frozen=True)
class TakenDisk:
    """A disk or partition that becomes a physical volume. `found`: what is on it and is lost, with `wipe`."""

    path: str
    size: int
    wipe: bool = False
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class CreateGroup(CreatePool):
    """Make a volume group (`make`), or add `disks` to it; make its thin pool; define, start and autostart its pool."""

    lvm: LvmSpec
    make: bool = False
    disks: tuple[TakenDisk, ...] = ()
    thin: ThinSpec | None = None  # to be made, with both sizes

    @property
    def verb(self) -> str:
        return "create" if self.make else "change" if self.disks or self.thin or not self.exists else "start"


@dataclass(frozen=True, kw_only=True)
class CreateNetwork(Action):
    """Define (when it is not there), start and autostart a NAT network. `libvirt_name` is what libvirt calls it."""

    network: NetworkSpec
    libvirt_name: str
    exists: bool = False
    reserved: tuple[IPv4Address, ...] = ()  # addresses that the VMs of the file have
    dhcp: bool = False  # some NIC has no address of its own
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return f"network {self.network.name}"

    @property
    def verb(self) -> str:
        return "start" if self.exists else "create"


@dataclass(frozen=True, kw_only=True)
class MakeTemplate(Action):
    """Build or fetch one version of a template."""

    template: TemplateSpec
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return f"template {self.template.name}"

    @property
    def verb(self) -> str:
        return "make"

    @property
    def id(self) -> str:
        """With its version and pool: one file may keep a template in several pools of a host."""
        template = self.template
        return f"{self.host}/template-{template.name}@{template.version}-in-{template.pool}/{self.verb}"


@dataclass(frozen=True, kw_only=True)
class RemoveTemplate(Action):
    """Remove a version that no VM uses."""

    template: str
    version: str
    pool: str
    volume: str
    sign: Sign = Sign.REMOVE

    @property
    def object(self) -> str:
        return f"template {self.template}@{self.version}"

    @property
    def verb(self) -> str:
        return "remove"

    @property
    def id(self) -> str:
        """With its pool: a version may be in several pools of a host."""
        return f"{self.host}/template-{self.template}@{self.version}-in-{self.pool}/{self.verb}"


@dataclass(frozen=True, kw_only=True)
class VmAction(Action):
    """An action on a VM of the spec."""

    vm: VmSpec

    @property
    def object(self) -> str:
        return f"vm {self.vm.name}"


@dataclass(frozen=True)
class Given:
    """A device that a VM gets. `wipe`: what is on it is erased before."""

    name: str  # as the file calls it
    address: str
    serial: str | None = None
    wipe: bool = False


@dataclass(frozen=True, kw_only=True)
class CreateVm(VmAction):
    """Make a VM from its template, start it and wait until it is ready.

    `instance` is the id of the new incarnation, `seed` the mark of its cloud-init data (plan/seeds.py). `remove` are
    paths of volumes that go first: half made by a run that was cut off, or thrown away by a rebuild. `keep` are data
    volumes that exist and are the VM's own (a rebuild keeps them).
    """

    template: TemplateSpec
    instance: str
    seed: str
    type: str  # kvm or qemu
    networks: tuple[tuple[str, str, str], ...] = ()  # (network of the spec, "network" or "bridge", libvirt's name)
    autostart: bool = False  # by libvirt itself
    remove: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    placement: Placement = ANYWHERE
    devices: tuple[Given, ...] = ()
    sign: Sign = Sign.ADD

    @property
    def verb(self) -> str:
        return "create"


@dataclass(frozen=True, kw_only=True)
class RebuildVm(CreateVm):
    """Throw the root disk away and make the VM again from the template's current version. Data disks stay."""

    sign: Sign = Sign.WARN

    @property
    def verb(self) -> str:
        return "rebuild"


@dataclass(frozen=True, kw_only=True)
class WaitReady(VmAction):
    """Wait for a first boot that an earlier run did not see to its end."""

    @property
    def verb(self) -> str:
        return "wait until ready"


@dataclass(frozen=True, kw_only=True)
class UpdateVm(VmAction):
    """Change a VM in place: one new persistent definition, and live what libvirt can. None means unchanged.

    `live` says that the running VM is changed too; without it, what differs waits for the next start.
    """

    vcpus: int | None = None
    memory: int | None = None
    autostart: bool | None = None  # by libvirt itself
    protect: bool | None = None
    type: str | None = None  # kvm or qemu
    cpu: str | None = None
    add_nics: tuple[tuple[Nic, str, str], ...] = ()  # (nic, "network" or "bridge", libvirt's name for it)
    remove_nics: tuple[str, ...] = ()  # MACs
    move_nics: tuple[tuple[str, str, str], ...] = ()  # (MAC, "network" or "bridge", libvirt's name for it)
    add_disks: tuple[DataDisk, ...] = ()
    remove_disks: tuple[str, ...] = ()  # serials; the volume is kept
    add_devices: tuple[Given, ...] = ()
    remove_devices: tuple[str, ...] = ()  # addresses
    plug: frozenset[str] = frozenset()  # addresses of those devices that the running VM gets, or gives up, too
    placement: Placement | None = None
    seed: str | None = None
    instance: str = ""
    live: frozenset[str] = frozenset()  # which of the fields above are applied to the running VM, too

    @property
    def verb(self) -> str:
        return "change"


@dataclass(frozen=True, kw_only=True)
class GrowDisk(VmAction):
    """Make a disk larger: volume, virtual disk, and inside the guest partition and file system."""

    pool: str
    volume: str
    path: str
    old_size: int
    size: int
    serial: str
    running: bool
    root: bool = True

    @property
    def object(self) -> str:
        return f"vm {self.vm.name} disk {self.serial}"

    @property
    def verb(self) -> str:
        return "grow"


@dataclass(frozen=True, kw_only=True)
class StartVm(VmAction):
    """Start a VM that is off."""

    @property
    def verb(self) -> str:
        return "start"


@dataclass(frozen=True, kw_only=True)
class RestartVm(VmAction):
    """Stop and start a VM, so that what waits for its next start takes effect."""

    @property
    def verb(self) -> str:
        return "restart"


@dataclass(frozen=True, kw_only=True)
class StopVm(VmAction):
    """Ask the guest to power off and wait; with `force`, pull the plug after `patience` seconds."""

    patience: float = 120.0
    force: bool = False

    @property
    def verb(self) -> str:
        return "stop"


@dataclass(frozen=True, kw_only=True)
class DestroyVm(Action):
    """Remove a VM and all that is its own. `volumes` are (pool, volume name) pairs."""

    name: str
    uuid: str | None
    volumes: tuple[tuple[str, str], ...]
    sign: Sign = Sign.REMOVE

    @property
    def object(self) -> str:
        return f"vm {self.name}"

    @property
    def verb(self) -> str:
        return "destroy"


@dataclass(frozen=True)
class HostFile:
    """A file of ours on a host, with the whole of its text."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class WriteStartOrder(Action):
    """Write what starts the VMs of a host in order when it boots, where it is not there, and have systemd use it."""

    files: tuple[HostFile, ...] = ()
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return "start order"

    @property
    def verb(self) -> str:
        return "write"


@dataclass(frozen=True, kw_only=True)
class RemoveStartOrder(Action):
    """Remove these files, of those that start VMs in order. `unit`: systemd's unit is one of them."""

    paths: tuple[str, ...]
    unit: bool = False
    sign: Sign = Sign.REMOVE

    @property
    def object(self) -> str:
        return "start order"

    @property
    def verb(self) -> str:
        return "remove"


@dataclass(frozen=True, kw_only=True)
class Tidy(Action):
    """Remove what a run that was cut off left behind: notes, work directories. Nothing of a user's is in them.

    `paths` are files and logical volumes that go, too: images half moved into a pool, the manifest of a template that
    was not finished. With the operation "volume", they are all.
    """

    name: str
    operation: str
    paths: tuple[str, ...] = ()

    @property
    def object(self) -> str:
        return f"{'leftover' if self.operation in ('template', 'volume') else 'note'} {self.name}"

    @property
    def verb(self) -> str:
        return "tidy"


AS_ASKED = "is as the file says"


@dataclass(frozen=True)
class Kept:
    """Something left alone, and why."""

    host: str
    object: str
    why: str


@dataclass(frozen=True)
class Plan:
    """Ordered actions (each after all it needs), what is left alone, and what stands in the way.

    With any `refused`, nothing may be applied. `unlisted` are VMs of this cloud that are no longer in the file.
    """

    cloud: str
    hosts: tuple[HostSpec, ...] = ()
    actions: tuple[Action, ...] = ()
    kept: tuple[Kept, ...] = ()
    refused: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    unlisted: tuple[Kept, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Nothing to do."""
        return not self.actions

    @property
    def first(self) -> tuple[Action, ...]:
        """What is to be done before the facts must be read anew: what prepares hosts; without any, everything."""
        return tuple(action for action in self.actions if isinstance(action, Prepare)) or self.actions
