"""Actions: what the plan is made of. Frozen; each says what it does, why, and what it costs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from vmwright.errors import Problem
from vmwright.facts.model import ANYWHERE, Placement
from vmwright.plan.action import Action, Sign
from vmwright.plan.host_actions import Prepare
from vmwright.spec.cloud import (
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
