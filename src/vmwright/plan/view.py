"""One host as the plan sees it: what is wanted there beside what is there, and what has been found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from vmwright.errors import Problem, Where
from vmwright.facts.model import DomainFacts, Facts, HostFacts, IntentFacts, Kvm, PoolFacts, VolumeFacts
from vmwright.names import OurVolume, parse_volume
from vmwright.plan.actions import Action, Kept
from vmwright.spec.cloud import Cloud, HostSpec, NetworkSpec, Pool, TemplateSpec, VmSpec


@dataclass(frozen=True)
class Request:
    """What the user asked for beyond "make it so". Names are of VMs."""

    restart: bool = False
    prune: bool = False
    rebuild: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """One host: spec and facts, indexed."""

    cloud: Cloud
    host: HostSpec
    facts: HostFacts
    request: Request

    @classmethod
    def of(cls, cloud: Cloud, host: HostSpec, facts: Facts, request: Request) -> View:
        """The view of one host of the cloud."""
        return cls(cloud, host, facts.host(host.name), request)

    @cached_property
    def vms(self) -> tuple[VmSpec, ...]:
        """The VMs wanted here."""
        return tuple(vm for vm in self.cloud.vms if vm.host == self.host.name)

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """The pools wanted here."""
        return tuple(pool for pool in self.cloud.pools if pool.host == self.host.name)

    @cached_property
    def templates(self) -> dict[tuple[str, str], TemplateSpec]:
        """The templates wanted here, by name and pool."""
        return {(t.name, t.pool): t for t in self.cloud.templates if t.host == self.host.name}

    @cached_property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """The networks that VMs here use; all of them where there is only one host."""
        used = {nic.network for vm in self.vms for nic in vm.nics}
        return tuple(n for n in self.cloud.networks if n.name in used or (len(self.cloud.hosts) == 1 and n.nat))

    @cached_property
    def domains(self) -> dict[str, DomainFacts]:
        """libvirt's domains by name."""
        return {domain.name: domain for domain in self.facts.domains}

    @cached_property
    def pool_facts(self) -> dict[str, PoolFacts]:
        """libvirt's pools by name."""
        return {pool.name: pool for pool in self.facts.pools}

    @cached_property
    def volumes(self) -> dict[tuple[str, str], VolumeFacts]:
        """Volumes by pool and name."""
        return {(volume.pool, volume.name): volume for volume in self.facts.volumes}

    @cached_property
    def volumes_by_path(self) -> dict[str, VolumeFacts]:
        """Volumes by path."""
        return {volume.path: volume for volume in self.facts.volumes}

    @cached_property
    def our_volumes(self) -> tuple[tuple[VolumeFacts, OurVolume], ...]:
        """The volumes whose names say that they are this cloud's."""
        parsed = ((volume, parse_volume(volume.name)) for volume in self.facts.volumes)
        return tuple((volume, ours) for volume, ours in parsed if ours and ours.cloud == self.cloud.name)

    @cached_property
    def backing_paths(self) -> frozenset[str]:
        """Paths that some overlay stands on."""
        return frozenset(volume.backing for volume in self.facts.volumes if volume.backing)

    @cached_property
    def intents(self) -> dict[str, IntentFacts]:
        """Notes of unfinished work on VMs of this cloud, by VM."""
        return {i.object: i for i in self.facts.intents if i.cloud == self.cloud.name and i.operation != "template"}

    @property
    def domain_type(self) -> str:
        """kvm where a guest really runs under it, else qemu (emulation), unless the file insists."""
        if self.host.accelerator != "auto":
            return self.host.accelerator
        return "kvm" if self.facts.kvm is Kvm.WORKS else "qemu"

    def pool_path(self, name: str) -> str | None:
        """The directory of a pool, as it is, or as it will be."""
        if name in self.pool_facts:
            return self.pool_facts[name].target
        return next((pool.path for pool in self.pools if pool.name == name), None)

    def free(self, name: str) -> int:
        """Bytes free in a pool, or where it is going to be."""
        facts = self.pool_facts.get(name)
        if facts and facts.active:
            return facts.available
        path = self.pool_path(name)
        return next((p.available for p in self.facts.paths if p.path == path), 0)


@dataclass
class Draft:
    """What the plan has found so far. The only thing that changes while a plan is made."""

    actions: list[Action] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unlisted: list[Kept] = field(default_factory=list)

    def refuse(self, what: str, todo: str, where: Where | None = None) -> None:
        """Note something that stands in the way."""
        problem = Problem(what, todo, where)
        if problem not in self.refused:
            self.refused.append(problem)
