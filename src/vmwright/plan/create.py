"""VMs that are not there, or are to be made anew: create, rebuild, pick up a run that was cut off."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmwright.facts.model import DomainFacts, DomainState, IntentFacts, OwnerFacts
from vmwright.names import data_volume, reserved, root_volume, too_long
from vmwright.plan.action import Action, Change, Effect
from vmwright.plan.actions import CreateVm, GrowDisk, RebuildVm
from vmwright.plan.devices import Dealt
from vmwright.plan.handover import Event, given_back, hand_out
from vmwright.plan.networks import Link
from vmwright.plan.place import described, differences, place
from vmwright.plan.seeds import seed_mark
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import Copy, DataDisk, TemplateSpec, VmSpec
from vmwright.units import content_hash, format_size
from vmwright.virt.design import cpu_note, effective_cpu

# Notes that name volumes which hold nothing of the user's, or that the user has given up already.
GIVEN_UP = ("create", "rebuild", "destroy")


@dataclass(frozen=True)
class Made:
    """What a VM on this host can stand on, and the actions that must come first."""

    links: dict[str, Link]
    templates: dict[tuple[str, str], str]
    pools: dict[str, str]
    devices: Dealt = field(default_factory=dict)
    services: tuple[str, ...] = ()  # of the host: guests need them from their first boot on

    def needs(self, vm: VmSpec, template: TemplateSpec | None) -> tuple[str, ...]:
        """Ids of the actions that must have succeeded before this VM is made."""
        found = [self.links[nic.network].action for nic in vm.nics if nic.network in self.links]
        found += [self.pools.get(pool) for pool in (vm.pool, *(disk.pool for disk in vm.data_disks))]
        found += [self.templates.get((template.name, template.pool))] if template else []
        return tuple(dict.fromkeys([*self.services, *(i for i in found if i)]))

    def reaches(self, vm: VmSpec) -> bool:
        """Whether all its networks are there or will be; if not, that was refused where the network was planned."""
        return all(nic.network in self.links for nic in vm.nics)


@dataclass(frozen=True)
class Own:
    """The volumes that exist and are a VM's by their names, sorted by what becomes of them. Paths."""

    remove: tuple[str, ...] = ()  # half made, given up, or made by us alone
    keep: tuple[str, ...] = ()  # data disks that belong to it
    strange: tuple[str, ...] = ()  # nobody knows what they hold
    notes: tuple[Change, ...] = field(default=())


def template_of(view: View, vm: VmSpec) -> TemplateSpec | None:
    """The template a VM comes from, as it is to be on this VM's host and pool."""
    return view.templates.get((vm.template, vm.pool)) or view.templates_by_name.get(vm.template)


def plan_create(view: View, vm: VmSpec, made: Made, draft: Draft) -> list[Action]:
    """The actions that make a VM that libvirt does not have. None when something stands in the way."""
    template = template_of(view, vm)
    if template is None or not made.reaches(vm):
        return []
    intent = view.intents.get(vm.name)
    own = _sorted(view, vm.name, intent)
    if own.strange:
        draft.refuse(f"vm {vm.name}: there is no such VM, but a volume of that name: {', '.join(own.strange)}",
                     f"if it holds nothing of worth: vmwright destroy {vm.name}; else rename or move it away", vm.where)
        return []
    _check_base(view, vm, template, draft)
    _check_names(view, vm, draft)
    handed = hand_out(view, vm, made.devices.get(vm.name, ()), Event.CREATE, draft)
    begun = intent is not None and intent.operation in GIVEN_UP
    action = CreateVm(
        host=view.host.name, vm=vm, template=template, type=view.domain_type, seed=seed_mark(view.cloud.name, vm),
        instance=content_hash(view.cloud.name, vm.name, template.version, intent.instance if intent else ""),
        networks=_networks(vm, made), autostart=view.flagged(vm), remove=own.remove, keep=own.keep,
        needs=made.needs(vm, template), devices=handed.given, effects=handed.effects,
        placement=place(view, vm),
        changes=(*_describe(view, vm, template, own.keep), *handed.changes, *own.notes),
        why=f"a run that was cut off had begun to {_BEGUN[intent.operation]} it" if intent and begun else
        "libvirt has no VM of that name")
    return [action, *_grow_kept(view, vm, action, draft)]


_BEGUN = {"create": "make", "rebuild": "rebuild", "destroy": "remove"}


def _sorted(view: View, name: str, intent: IntentFacts | None) -> Own:
    """A note says which volumes are half made. Without one, disks may hold anything; a seed holds nothing of worth."""
    begun = intent is not None and intent.operation in GIVEN_UP
    half_made = set(intent.volumes) if intent and begun else set[str]()
    remove, keep, strange, notes = list[str](), list[str](), list[str](), list[Change]()
    for volume, ours in view.vm_volumes.get(name, ()):
        if volume.path in half_made or ours.role == "seed":
            remove.append(volume.path)
            notes.append(Change(f"leftover {volume.name}", format_size(volume.allocation), view.removal(volume.pool)))
        elif ours.role == "disk" and intent and intent.operation in ("create", "rebuild"):
            keep.append(volume.path)
        else:
            strange.append(volume.path)
    return Own(tuple(sorted(remove)), tuple(sorted(keep)), tuple(strange), tuple(notes))


def _check_names(view: View, vm: VmSpec, draft: Draft) -> None:
    """LVM has rules for names, and little room."""
    cloud = view.cloud.name
    wanted = [(vm.pool, root_volume(cloud, vm.name, block=True))]
    wanted += [(disk.pool, data_volume(cloud, vm.name, disk.name, block=True)) for disk in vm.data_disks]
    for pool, name in wanted:
        lvm = view.lvm(pool)
        if lvm and (reserved(name) or too_long(lvm.group, name)):
            why = "LVM keeps such names for itself" if reserved(name) else "that is longer than LVM allows"
            draft.refuse(f"vm {vm.name}: its volume would be called {name}: {why}",
                         "choose a shorter name for the cloud, the VM or the disk" if not reserved(name) else
                         "choose another name for the cloud", vm.where)


def _check_base(view: View, vm: VmSpec, template: TemplateSpec, draft: Draft) -> None:
    """An overlay smaller than its template would cut the guest's file systems off."""
    base = view.volume(template.pool, template.name, "template", template.version)
    wanted = vm.disk or template.size
    if view.lvm(template.pool) and not view.lvm(vm.pool):
        draft.refuse(f"vm {vm.name}: its disk is to be in the directory pool {vm.pool}, and its template is kept in "
                     f"the volume group of pool {template.pool}: an image cannot lie over a logical volume",
                     f"keep the template in {vm.pool}, or the VM in {template.pool}", vm.keys.get("pool", vm.where))
    if base and base.capacity > view.whole(template.pool, wanted):
        draft.refuse(f"vm {vm.name}: its disk of {format_size(wanted)} is smaller than its template's, "
                     f"{format_size(base.capacity)}", f"say `disk: {format_size(base.capacity)}` or more",
                     vm.keys.get("disk", vm.where))


def plan_rebuild(view: View, vm: VmSpec, domain: DomainFacts, made: Made, draft: Draft) -> list[Action]:
    """The actions that make a VM anew from its template; its data disks stay."""
    template, owner = template_of(view, vm), view.owner(domain)
    if vm.protect or (owner and owner.protect):
        draft.refuse(f"vm {vm.name} is protected: rebuild would throw its root disk away",
                     f"say `vmwright set vms.{vm.name}.protect=false`, apply, and rebuild then", vm.where)
        return []
    if template is None or owner is None or not made.reaches(vm):
        return []
    _check_base(view, vm, template, draft)
    check_disk_pools(view, vm, draft)
    own = view.vm_volumes.get(vm.name, ())
    rows = made.devices.get(vm.name, ())
    handed = hand_out(view, vm, rows, Event.REBUILD, draft)
    disk = view.volume(vm.pool, vm.name, "root")
    stops = {Effect.STOPS} if domain.state not in (DomainState.SHUTOFF, DomainState.CRASHED) else set[Effect]()
    keep = tuple(sorted(v.path for v, ours in own if ours.role == "disk"))
    placement = place(view, vm)
    action = RebuildVm(
        host=view.host.name, vm=vm, template=template, type=view.domain_type, seed=seed_mark(view.cloud.name, vm),
        instance=content_hash(owner.instance, "rebuild", template.version), networks=_networks(vm, made),
        autostart=view.flagged(vm), remove=tuple(sorted(v.path for v, ours in own if ours.role != "disk")), keep=keep,
        needs=made.needs(vm, template), effects=frozenset({Effect.TAKES_DATA, *stops}), why="asked for",
        placement=placement,
        devices=handed.given,
        changes=(Change("root disk", f"{format_size(disk.allocation)} of data" if disk else "what it holds",
                        "thrown away"),
                 Change("template", f"{owner.template}@{owner.template_version}", _next_version(owner, template)),
                 *(Change(f"disk {d.name}", "attached", "kept, with its data") for d in vm.data_disks
                   if _disk_path(view, vm, d) in keep), *handed.changes, *given_back(view, domain, rows),
                 *(Change(*row) for row in differences(domain.persistent.placement, placement))))
    return [action, *_grow_kept(view, vm, action, draft)]


def _next_version(owner: OwnerFacts, template: TemplateSpec) -> str:
    same = (owner.template, owner.template_version) == (template.name, template.version)
    return "the same, there is no newer one" if same else f"{template.name}@{template.version}"


def check_disk_pools(view: View, vm: VmSpec, draft: Draft) -> None:
    """A data disk is not moved to another pool: a new, empty one there would look as if the data were lost."""
    there = {ours.detail: volume.pool for volume, ours in view.vm_volumes.get(vm.name, ()) if ours.role == "disk"}
    for disk in vm.data_disks:
        pool = there.get(disk.name, disk.pool)
        if pool != disk.pool and view.volume(disk.pool, vm.name, "disk", disk.name) is None:
            draft.refuse(f"vm {vm.name}: its disk {disk.name} is in pool {pool}, not in {disk.pool}; disks are not "
                         f"moved", f"say `pool: {pool}` for this disk, or give the new one another name",
                         vm.keys.get(f"disks.{disk.name}", vm.where))


def _grow_kept(view: View, vm: VmSpec, action: CreateVm, draft: Draft) -> list[Action]:
    """Disks that stay as they are may be smaller than the file says by now."""
    steps: list[Action] = []
    previous = action.id
    for disk in vm.data_disks:
        volume = view.volume(disk.pool, vm.name, "disk", disk.name)
        size = view.whole(disk.pool, disk.size)
        if volume is None or volume.path not in action.keep or volume.capacity == size:
            continue
        if size < volume.capacity:
            refuse_shrink(vm, disk.name, volume.capacity, disk.size, draft)
            continue
        grow = GrowDisk(host=view.host.name, vm=vm, pool=disk.pool, volume=volume.name, path=volume.path,
                        serial=disk.serial, old_size=volume.capacity, size=size, running=vm.running, root=False,
                        needs=(previous,),
                        why="the file says more", changes=(
                            Change("size", format_size(volume.capacity), format_size(size)),))
        steps.append(grow)
        previous = grow.id
    return steps


def refuse_shrink(vm: VmSpec, disk: str, old: int, new: int, draft: Draft) -> None:
    """A disk never becomes smaller. `disk` is a data disk's name; empty for the root disk."""
    what, key = (f"disk {disk}", f"disks.{disk}") if disk else ("its disk", "disk")
    remedy = "move the data to a new disk" if disk else "rebuild the VM"
    draft.refuse(f"vm {vm.name}: {what} is {format_size(old)} and cannot become {format_size(new)}: what is at its end "
                 f"would be lost", f"say {format_size(old)} or more; for a smaller one, {remedy}",
                 vm.keys.get(key, vm.where))


def _disk_path(view: View, vm: VmSpec, disk: DataDisk) -> str:
    volume = view.volume(disk.pool, vm.name, "disk", disk.name)
    return volume.path if volume else ""


def _networks(vm: VmSpec, made: Made) -> tuple[tuple[str, str, str], ...]:
    names = dict.fromkeys(nic.network for nic in vm.nics)
    return tuple((name, made.links[name].type, made.links[name].source) for name in names)


def _describe(view: View, vm: VmSpec, template: TemplateSpec, keep: tuple[str, ...]) -> tuple[Change, ...]:
    addresses = ", ".join(str(nic.address) if nic.address else "DHCP" for nic in vm.nics)
    copied = "full copy of " if vm.copy is Copy.FULL else ""
    rows = [("from", f"{copied}{template.name}@{template.version}"), ("vcpus", str(vm.vcpus)),
            ("memory", format_size(vm.memory)), ("disk", format_size(vm.disk or template.size))]
    rows += [("address", addresses)] if addresses else []
    for disk in vm.data_disks:
        kept = ", with the data it has" if _disk_path(view, vm, disk) in keep else ""
        rows.append((f"disk {disk.name}", format_size(disk.size) + kept))
    if cpu_note(vm.cpu, view.domain_type):
        rows.append(("cpu", f"{effective_cpu(vm.cpu, view.domain_type)}, emulated"))
    rows += described(place(view, vm))
    rows += [] if vm.running else [("state", "off")]
    return tuple(Change(key, "", value) for key, value in rows)
