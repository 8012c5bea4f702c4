"""VMs that are not there, or are to be made anew: create, rebuild, pick up a run that was cut off, destroy."""

from __future__ import annotations

from dataclasses import dataclass

from vmwright.facts.model import DomainFacts, DomainState, IntentFacts
from vmwright.guest.seed import seed_hash
from vmwright.names import root_volume
from vmwright.plan.actions import Change, CreateVm, DestroyVm, Effect, RebuildVm
from vmwright.plan.networks import Link
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import Copy, TemplateSpec, VmSpec
from vmwright.units import content_hash, format_size


@dataclass(frozen=True)
class Made:
    """What a VM on this host can stand on, and the actions that must come first."""

    links: dict[str, Link]
    templates: dict[tuple[str, str], str]
    pools: dict[str, str]

    def needs(self, vm: VmSpec, template: TemplateSpec | None) -> tuple[str, ...]:
        """Ids of the actions that must have succeeded before this VM is made."""
        found = [self.links[nic.network].action for nic in vm.nics if nic.network in self.links]
        found += [self.pools.get(pool) for pool in {vm.pool, *(disk.pool for disk in vm.data_disks)}]
        found += [self.templates.get((template.name, template.pool))] if template else []
        return tuple(dict.fromkeys(i for i in found if i))


def template_of(view: View, vm: VmSpec) -> TemplateSpec | None:
    """The template a VM comes from, as it is to be on this VM's host and pool."""
    return view.templates.get((vm.template, vm.pool)) or next(
        (t for (name, _), t in view.templates.items() if name == vm.template), None)


def wanted_seed(view: View, vm: VmSpec) -> str:
    """The content hash of the cloud-init data that the spec asks for."""
    return seed_hash(view.cloud.name, vm)


def plan_create(view: View, vm: VmSpec, made: Made, draft: Draft) -> CreateVm | None:
    """The action that makes a VM that libvirt does not have. None when something stands in the way."""
    template = template_of(view, vm)
    if template is None or any(nic.network not in made.links for nic in vm.nics):
        return None  # refused already, with the reason, where the network or template was planned
    intent = view.intents.get(vm.name)
    own = own_volumes(view, vm.name)
    half_made = set(intent.volumes) if intent and intent.operation in ("create", "rebuild", "destroy") else set()
    keep = tuple(path for path, role in own.items() if role == "disk" and path not in half_made)
    blocking = [path for path, role in own.items() if role != "disk" and path not in half_made]
    if intent is None or intent.operation == "boot":
        blocking += keep
    if blocking:
        draft.refuse(f"vm {vm.name}: there is no such VM, but a volume of that name: {', '.join(blocking)}",
                     f"if it holds nothing of worth: vmwright destroy {vm.name}; else rename or move it away", vm.where)
        return None
    resumed = intent is not None
    return CreateVm(
        host=view.host.name, vm=vm, template=template, type=view.domain_type, seed=wanted_seed(view, vm),
        instance=content_hash(view.cloud.name, vm.name, template.version, intent.instance if intent else ""),
        networks=_networks(vm, made), remove=tuple(sorted(half_made & own.keys())), keep=keep,
        needs=made.needs(vm, template), changes=_describe(view, vm, template),
        why="a run that was cut off had begun to make it" if resumed else "libvirt has no VM of that name")


def plan_rebuild(view: View, vm: VmSpec, domain: DomainFacts, made: Made, draft: Draft) -> RebuildVm | None:
    """The action that makes a VM anew from its template; its data disks stay."""
    template = template_of(view, vm)
    owner = domain.persistent.owner
    if vm.protect or (owner and owner.protect):
        draft.refuse(f"vm {vm.name} is protected: rebuild would throw its root disk away",
                     f"say `vmwright set vms.{vm.name}.protect=false`, apply, and rebuild then", vm.where)
        return None
    if template is None or owner is None or any(nic.network not in made.links for nic in vm.nics):
        return None
    own = own_volumes(view, vm.name)
    disk = view.volumes.get((vm.pool, root_volume(view.cloud.name, vm.name)))
    effects = {Effect.TAKES_DATA} | ({Effect.STOPS} if domain.state is not DomainState.SHUTOFF else set())
    return RebuildVm(
        host=view.host.name, vm=vm, template=template, type=view.domain_type, seed=wanted_seed(view, vm),
        instance=content_hash(owner.instance, "rebuild", template.version), networks=_networks(vm, made),
        remove=tuple(path for path, role in own.items() if role != "disk"),
        keep=tuple(path for path, role in own.items() if role == "disk"),
        needs=made.needs(vm, template), effects=frozenset(effects), why="asked for",
        changes=(Change("root disk", f"{format_size(disk.allocation)} of data" if disk else "", "thrown away"),
                 Change("template", f"{owner.template}@{owner.template_version}", f"{template.name}@{template.version}")))


def plan_destroy(view: View, name: str, why: str, draft: Draft) -> DestroyVm | None:
    """The action that removes a VM of this cloud with all that is its own. None when there is nothing, or it is protected."""
    domain = view.domains.get(name)
    owner = domain.persistent.owner if domain else None
    if domain and (owner is None or owner.cloud != view.cloud.name):
        draft.refuse(f"vm {name} was not made by cloud {view.cloud.name}, and is not touched",
                     "remove it with virsh, if that is what you want")
        return None
    wanted = view.cloud.vm(name)
    if (owner and owner.protect) or (wanted and wanted.protect):
        draft.refuse(f"vm {name} is protected, and not destroyed",
                     f"say `protect: false` for {name} in the file, apply, and destroy it then", wanted.where if wanted else None)
        return None
    volumes = [(v.pool, v.name, v.allocation) for v, ours in view.our_volumes
               if ours.object == name and ours.role in ("root", "disk", "seed")]
    if domain is None and not volumes and name not in view.intents:
        return None
    intent = view.intents.get(name)
    begun = intent is not None and intent.operation == "destroy"  # asked for and confirmed then
    effects = set() if begun else {Effect.TAKES_DATA}
    effects |= {Effect.STOPS} if domain and domain.state is not DomainState.SHUTOFF else set()
    return DestroyVm(host=view.host.name, name=name, uuid=domain.uuid if domain else None, why=why, effects=frozenset(effects),
                     volumes=tuple((pool, volume) for pool, volume, _ in volumes),
                     changes=tuple(Change(volume, format_size(size), "removed") for _, volume, size in volumes))


def own_volumes(view: View, name: str) -> dict[str, str]:
    """The volumes whose names say that they are this VM's: path -> role (root, disk, seed)."""
    return {v.path: ours.role for v, ours in view.our_volumes if ours.object == name and ours.role != "template"}


def stale(view: View, intent: IntentFacts) -> bool:
    """Whether a note of unfinished work has nothing left to do."""
    domain = view.domains.get(intent.object)
    if domain is None:
        return not any(path in view.volumes_by_path for path in intent.volumes)
    owner = domain.persistent.owner
    if intent.operation == "destroy":
        return False
    return owner is None or owner.instance != intent.instance


def _networks(vm: VmSpec, made: Made) -> tuple[tuple[str, str, str], ...]:
    names = dict.fromkeys(nic.network for nic in vm.nics)
    return tuple((name, made.links[name].type, made.links[name].source) for name in names)


def _describe(view: View, vm: VmSpec, template: TemplateSpec) -> tuple[Change, ...]:
    addresses = ", ".join(str(nic.address) if nic.address else "DHCP" for nic in vm.nics)
    copied = "full copy of " if vm.copy is Copy.FULL else ""
    rows = [("from", f"{copied}{template.name}@{template.version}"), ("vcpus", str(vm.vcpus)),
            ("memory", format_size(vm.memory)), ("disk", format_size(vm.disk or template.size)), ("address", addresses)]
    rows += [(f"disk {disk.name}", format_size(disk.size)) for disk in vm.data_disks]
    return tuple(Change(key, "", value) for key, value in rows)
