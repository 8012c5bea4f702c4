"""One host as the plan sees it: what is wanted there beside what is there, and what has been found so far.

Everything is looked up by index: a plan must not look at all volumes, or all VMs, once for each VM.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from vmwright.errors import Problem, Where
from vmwright.facts.model import (
    BlockFacts,
    CpuFacts,
    DomainFacts,
    Facts,
    GroupFacts,
    HostFacts,
    IntentFacts,
    Kvm,
    LinkFacts,
    NodeFacts,
    OwnerFacts,
    PathFacts,
    PoolFacts,
    ThinFacts,
    VolumeFacts,
)
from vmwright.names import OurVolume, parse_path, volume_path
from vmwright.plan.action import Action
from vmwright.plan.actions import Kept
from vmwright.spec.cloud import Cloud, HostSpec, LvmSpec, NetworkSpec, OnRemove, Pool, TemplateSpec, VmSpec
from vmwright.units import some

K = TypeVar("K")
V = TypeVar("V")
Named = tuple[VolumeFacts, OurVolume]
ROOT_SERIAL = "root"
_SHOWN = 5  # names in one sentence
_REMOVALS = {OnRemove.LEAVE: "removed", OnRemove.DISCARD: "discarded and removed",
             OnRemove.ZERO: "overwritten with zeros and removed"}
_DIFF_LINES = 12


@dataclass(frozen=True)
class Request:
    """What the user asked for beyond "make it so". Names are of VMs; `only`: plan these and nothing else.

    `wipe` are names of devices that a rebuild erases whatever the file says.
    """

    restart: bool = False
    prune: bool = False
    rebuild: frozenset[str] = frozenset()
    wipe: frozenset[str] = frozenset()
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class View:
    """One host: spec and facts, indexed.

    Of a cloud with several hosts, `placed` says on which host the file has a VM, and `homes` on which hosts it is.
    """

    cloud: Cloud
    host: HostSpec
    facts: HostFacts
    request: Request
    placed: Mapping[str, str] = field(default_factory=dict)
    homes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # what is worked out once for all VMs

    @classmethod
    def of(cls, cloud: Cloud, host: HostSpec, facts: Facts, request: Request) -> View:
        """The view of one host of the cloud."""
        return cls(cloud, host, facts.host(host.name), request)

    @cached_property
    def listed(self) -> dict[str, VmSpec]:
        """The VMs that the file has on this host, by name."""
        return {vm.name: vm for vm in self.cloud.vms if vm.host == self.host.name}

    @cached_property
    def ordered(self) -> bool:
        """Whether the file says of a VM here more than that it starts with the host."""
        return any(vm.start_order.said for vm in self.listed.values())

    def flagged(self, vm: VmSpec) -> bool:
        """Whether libvirt itself is to start a VM with the host: not where systemd does, in order."""
        return vm.autostart and not (self.ordered and self.facts.boot.systemd)

    @cached_property
    def vms(self) -> tuple[VmSpec, ...]:
        """The VMs to plan here: all that the file has, or those that were asked for."""
        only = self.request.only
        return tuple(vm for vm in self.listed.values() if only is None or vm.name in only)

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The pools wanted here, by name; when VMs were asked for, those that they use."""
        used = {name for vm in self.vms for name in (vm.pool, *(disk.pool for disk in vm.data_disks))}
        used |= {template.pool for template in self.templates.values()}
        every = self.request.only is None
        return {pool.name: pool for pool in self.cloud.pools
                if pool.host == self.host.name and (every or pool.name in used)}

    @cached_property
    def templates(self) -> dict[tuple[str, str], TemplateSpec]:
        """The templates wanted here, by name and pool; when VMs were asked for, those that they come from."""
        used = {vm.template for vm in self.vms}
        every = self.request.only is None
        return {(t.name, t.pool): t for t in self.cloud.templates
                if t.host == self.host.name and (every or t.name in used)}

    @cached_property
    def templates_by_name(self) -> dict[str, TemplateSpec]:
        """The first of the templates of each name."""
        return {template.name: template for template in reversed(self.templates.values())}

    @cached_property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """The networks that VMs here use; all NAT networks where there is only one host."""
        used = {nic.network for vm in self.vms for nic in vm.nics}
        every = self.request.only is None and len(self.cloud.hosts) == 1
        return tuple(n for n in self.cloud.networks if n.name in used or (every and n.nat))

    @cached_property
    def domains(self) -> dict[str, DomainFacts]:
        """libvirt's domains by name."""
        return {domain.name: domain for domain in self.facts.domains}

    def owner(self, domain: DomainFacts | None) -> OwnerFacts | None:
        """Our mark, if the VM is this cloud's. A copy (virt-clone copies the mark, too) or a renamed VM is not."""
        owner = domain.persistent.owner if domain else None
        ours = domain and owner and owner.cloud == self.cloud.name and owner.vm == domain.name
        return owner if ours else None

    @cached_property
    def pool_facts(self) -> dict[str, PoolFacts]:
        """libvirt's pools by name."""
        return {pool.name: pool for pool in self.facts.pools}

    @cached_property
    def links(self) -> dict[str, LinkFacts]:
        """The host's network interfaces by name."""
        return {link.name: link for link in self.facts.links}

    @cached_property
    def groups(self) -> dict[str, GroupFacts]:
        """Volume groups by name."""
        return {group.name: group for group in self.facts.groups}

    @cached_property
    def blocks(self) -> dict[str, BlockFacts]:
        """Block devices by each of their paths."""
        return {path: block for block in self.facts.blocks for path in (block.path, *block.names)}

    def lvm(self, pool: str) -> LvmSpec | None:
        """What the file says of a pool that is a volume group; None for a directory."""
        return self.pools[pool].lvm if pool in self.pools else None

    def thin(self, pool: str) -> ThinFacts | None:
        """The thin pool that the disks of a pool are in, if they are to be, and it is there."""
        lvm = self.lvm(pool)
        group = self.groups.get(lvm.group) if lvm else None
        return next((t for t in group.thin if lvm.thin and t.name == lvm.thin.name), None) if lvm and group else None

    def thick(self, pool: str) -> bool:
        """Whether the disks of a pool take all of their size at once."""
        lvm = self.lvm(pool)
        return lvm is not None and lvm.thin is None

    def whole(self, pool: str, size: int) -> int:
        """The size that a volume of that size has in a pool: a volume group deals in whole extents."""
        lvm = self.lvm(pool)
        extent = self.groups[lvm.group].extent if lvm and lvm.group in self.groups else 1
        return -(-size // extent) * extent

    @cached_property
    def cpus(self) -> dict[int, CpuFacts]:
        """The host's logical CPUs by number."""
        return {cpu.number: cpu for cpu in self.facts.cpu_list}

    @cached_property
    def nodes(self) -> dict[int, NodeFacts]:
        """The host's NUMA nodes by number."""
        return {node.number: node for node in self.facts.nodes}

    @cached_property
    def pins(self) -> dict[frozenset[int], tuple[str, ...]]:
        """The sets of CPUs that VMs are bound to, and the names of those that are bound to each, sorted.

        VMs with a pin in the file are told by it, all others as libvirt has them.
        """
        pairs = [(frozenset(vm.pin.cpus), vm.name) for vm in self.listed.values() if vm.pin]
        for domain in self.facts.domains:
            vm = self.listed.get(domain.name)
            if not (vm and vm.pin) and not self.pinned_by_us(domain) and not self._leaves(domain):
                pairs.append((self._bound(domain), domain.name))
        return {cpus: tuple(sorted(names)) for cpus, names in _grouped(pairs).items() if cpus}

    @cached_property
    def pinned(self) -> dict[int, tuple[frozenset[int], ...]]:
        """Those sets by each of their CPUs."""
        return _grouped((cpu, cpus) for cpus in self.pins for cpu in cpus)

    def pinned_by_us(self, domain: DomainFacts | None) -> bool:
        """Whether where a VM runs is our doing: then it is as the file says, or will be."""
        owner = self.owner(domain)
        return owner is not None and owner.pinned and owner.vm in self.listed

    def _leaves(self, domain: DomainFacts) -> bool:
        """Whether a VM is ours and goes in this run: where it is now is free afterwards."""
        intent = self.intents.get(domain.name)
        goes = self.request.prune or (intent is not None and intent.operation == "destroy")
        return goes and domain.name not in self.listed and self.owner(domain) is not None

    def _bound(self, domain: DomainFacts) -> frozenset[int]:
        """The CPUs that a VM is bound to; to all of them is to none.

        Of a VM of the file the definition counts: a pin that was taken out of the file is gone from there, while the
        running VM may have it until its next start.
        """
        config = domain.persistent if domain.name in self.listed else domain.live or domain.persistent
        cpus = frozenset(cpu for pins in config.placement.vcpus for cpu in pins)
        return cpus - self._every if cpus >= self._every else cpus

    @cached_property
    def _every(self) -> frozenset[int]:
        return frozenset(cpu.number for cpu in self.facts.cpu_list if cpu.online)

    @cached_property
    def paths(self) -> dict[str, PathFacts]:
        """What is known of directories, by path."""
        return {path.path: path for path in self.facts.paths}

    @cached_property
    def volumes(self) -> dict[tuple[str, str], VolumeFacts]:
        """Volumes by pool and name."""
        return {(volume.pool, volume.name): volume for volume in self.facts.volumes}

    @cached_property
    def volumes_by_path(self) -> dict[str, VolumeFacts]:
        """Volumes by path."""
        return {volume.path: volume for volume in self.facts.volumes}

    @cached_property
    def our_volumes(self) -> tuple[Named, ...]:
        """The volumes whose names say that they are this cloud's."""
        parsed = ((volume, parse_path(volume.path)) for volume in self.facts.volumes)
        return tuple((volume, ours) for volume, ours in parsed if ours and ours.cloud == self.cloud.name)

    @cached_property
    def _places(self) -> dict[tuple[str, str, str, str], VolumeFacts]:
        return {(volume.pool, ours.object, ours.role, ours.detail): volume for volume, ours in self.our_volumes}

    def volume(self, pool: str, object: str, role: str, detail: str = "") -> VolumeFacts | None:
        """A volume of this cloud's, by what it is (see names.OurVolume); None when it is not in that pool."""
        return self._places.get((pool, object, role, detail))

    @cached_property
    def vm_volumes(self) -> dict[str, tuple[Named, ...]]:
        """Those of VMs (root, disk, seed), by the VM's name."""
        return _grouped((ours.object, (v, ours)) for v, ours in self.our_volumes if ours.role != "template")

    @cached_property
    def template_volumes(self) -> dict[str, tuple[Named, ...]]:
        """Those of templates, by the template's name."""
        return _grouped((ours.object, (v, ours)) for v, ours in self.our_volumes if ours.role == "template")

    @cached_property
    def overlays(self) -> dict[str, tuple[VolumeFacts, ...]]:
        """The volumes that stand on another, by the path of that one."""
        return _grouped((v.backing, v) for v in self.facts.volumes if v.backing)

    @cached_property
    def disk_users(self) -> dict[str, tuple[str, ...]]:
        """VMs that have a path as a disk, now or from their next start."""
        return _users(self.facts.domains, live=False)

    @cached_property
    def live_disk_users(self) -> dict[str, tuple[str, ...]]:
        """VMs that have a path as a disk now."""
        return _users(self.facts.domains, live=True)

    @cached_property
    def unseen(self) -> Counter[tuple[str, str]]:
        """How many VMs of ours came from a template's version, and have a root disk that is in no pool we see."""
        owners = ((self.owner(domain), domain) for domain in self.facts.domains)
        return Counter((owner.template, owner.template_version) for owner, domain in owners if owner and any(
            disk.serial == ROOT_SERIAL and disk.path not in self.volumes_by_path for disk in domain.persistent.disks))

    @cached_property
    def by_pool(self) -> dict[str, tuple[VolumeFacts, ...]]:
        """Volumes by pool."""
        return _grouped((v.pool, v) for v in self.facts.volumes)

    @cached_property
    def intents(self) -> dict[str, IntentFacts]:
        """Notes of unfinished work on VMs of this cloud, by VM (of growing: by VM@SERIAL)."""
        return {i.object: i for i in self.facts.intents if i.cloud == self.cloud.name and i.operation != "template"}

    @property
    def domain_type(self) -> str:
        """kvm where a guest really runs under it, else qemu (emulation), unless the file insists."""
        if self.host.accelerator != "auto":
            return self.host.accelerator
        return "kvm" if self.facts.kvm is Kvm.WORKS else "qemu"

    def removal(self, pool: str) -> str:
        """What becomes of a volume of that pool that is removed, in the words of a plan."""
        lvm = self.lvm(pool)
        return _REMOVALS[lvm.on_remove if lvm else OnRemove.LEAVE]

    def pool_path(self, name: str) -> str | None:
        """The directory of a pool, as it is, or as it will be."""
        if name in self.pool_facts:
            return self.pool_facts[name].target
        return self.pools[name].path if name in self.pools else None

    def free(self, name: str) -> int:
        """Bytes free in a pool, or where it is going to be."""
        lvm = self.lvm(name)
        if lvm:
            return self._free_of_group(name, lvm)
        facts = self.pool_facts.get(name)
        if facts and facts.active:
            return facts.available
        path = self.paths.get(self.pool_path(name) or "")
        return path.available if path else 0

    def _free_of_group(self, name: str, lvm: LvmSpec) -> int:
        group, thin = self.groups.get(lvm.group), self.thin(name)
        if thin:
            return int(thin.size * (100 - thin.data_percent) / 100)
        coming = (self.blocks.get(path) for path in lvm.disks)
        return (group.free if group else 0) + sum(block.size for block in coming if block and block.vg != lvm.group)


def _users(domains: Iterable[DomainFacts], *, live: bool) -> dict[str, tuple[str, ...]]:
    """The VMs that have a path as a disk. A logical volume has a second path: both are told as the first."""
    found: dict[str, dict[str, None]] = {}
    for domain in domains:
        for config in (domain.live, None if live else domain.persistent):
            for disk in config.disks if config else ():
                if disk.path:
                    found.setdefault(volume_path(disk.path), {})[domain.name] = None
    return {path: tuple(names) for path, names in found.items()}


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, tuple[V, ...]]:
    found: defaultdict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return {key: tuple(values) for key, values in found.items()}


@dataclass
class Draft:
    """What the plan has found so far. The only thing that changes while a plan is made."""

    actions: list[Action] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    refused: dict[Problem, None] = field(default_factory=dict)  # each once, in order
    warnings: list[str] = field(default_factory=list)
    unlisted: list[Kept] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, what: str, todo: str, where: Where | None = None) -> None:
        """Note something that stands in the way."""
        self.refused[Problem(what, todo, where)] = None

    def remark(self, text: str, vm: str) -> None:
        """Note something that is so for a VM, and perhaps for many: one warning for all. The text has {} for them."""
        self.remarks.setdefault(text, []).append(vm)

    def told(self) -> tuple[str, ...]:
        """All warnings, each once."""
        grouped = (text.replace("{}", _names(vms)) for text, vms in self.remarks.items())
        return tuple(dict.fromkeys([*self.warnings, *grouped]))


def _names(vms: list[str]) -> str:
    if len(vms) == 1:
        return f"vm {vms[0]}"
    return f"{len(vms)} VMs ({some(vms, _SHOWN)})"


def diff(ours: str, there: str) -> str:
    """What was changed in a file of ours, line by line."""
    lines = list(difflib.unified_diff(ours.splitlines(), there.splitlines(), "ours", "there", lineterm="", n=0))
    more = [f"    and {len(lines) - _DIFF_LINES} lines more"] if len(lines) > _DIFF_LINES else []
    return "\n".join([*(f"    {line}" for line in lines[2:_DIFF_LINES]), *more])
