"""VMs that are there: what differs from the file, and how each difference is mended in place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vmwright.facts.model import ConfigFacts, DomainFacts, DomainState, NicFacts, VolumeFacts
from vmwright.names import data_volume, root_volume
from vmwright.plan.actions import Action, Change, Effect, GrowDisk, Kept, RestartVm, StartVm, UpdateVm, WaitReady
from vmwright.plan.create import Made, template_of, wanted_seed
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import DataDisk, Nic, VmSpec
from vmwright.units import content_hash, format_size
from vmwright.virt.design import effective_cpu

NOW, LATER = "now", "at next start"


@dataclass
class _Diff:
    """What has been found to differ in one VM."""

    vm: VmSpec
    running: bool
    fields: dict[str, Any] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    live: set[str] = field(default_factory=set)
    effects: set[Effect] = field(default_factory=set)

    def add(self, name: str, value: Any, change: tuple[str, str, str], *, live: bool | None = None) -> None:
        """Note one difference; `live` says whether the running VM takes it now (None: there is nothing to wait for)."""
        when = "" if live is None or not self.running else NOW if live else LATER
        self.fields[name] = value
        self.changes.append(Change(*change, when))
        if when == NOW:
            self.live.add(name)
        elif when == LATER:
            self.effects.add(Effect.NEXT_START)


def plan_existing(view: View, vm: VmSpec, domain: DomainFacts, made: Made, draft: Draft) -> None:
    """Actions for a VM of ours that is there."""
    diff = _Diff(vm, domain.state is not DomainState.SHUTOFF and domain.state is not DomainState.CRASHED)
    config = domain.persistent
    _sizes(diff, config, domain.live)
    _boot(diff, domain, draft)
    _cpu(view, diff, config)
    _nics(diff, config, made)
    _disks(view, diff, config)
    _seed(view, diff, config)
    _lineage(view, vm, config, draft)
    steps: list[Action] = []
    if diff.fields:
        steps.append(UpdateVm(host=view.host.name, vm=vm, why="the file says otherwise", changes=tuple(diff.changes),
                              live=frozenset(diff.live), effects=frozenset(diff.effects), needs=made.needs(vm, None),
                              **diff.fields))
    steps += _grow(view, vm, config, diff.running, draft)
    steps += _state(view, vm, domain, diff)
    previous: tuple[str, ...] = ()
    for step in steps:
        action = replace(step, needs=(*step.needs, *previous))
        draft.actions.append(action)
        previous = (action.id,)
    if not steps:
        draft.kept.append(Kept(view.host.name, f"vm {vm.name}", _as_asked(vm, domain)))


def _as_asked(vm: VmSpec, domain: DomainFacts) -> str:
    waiting = pending(domain)
    if waiting:
        return f"is as the file says, but {', '.join(waiting)} will count from its next start (apply --restart)"
    if vm.running is False and domain.state is DomainState.RUNNING:
        return f"is as the file says, but runs: vmwright stop {vm.name}"
    return "is as the file says"


def pending(domain: DomainFacts) -> tuple[str, ...]:
    """What of a running VM's definition its running self does not have yet."""
    live, config = domain.live, domain.persistent
    if live is None:
        return ()
    live_seed = live.owner.seed if live.owner else ""
    seed = config.owner.seed if config.owner else ""
    rows = {
        "vcpus": live.vcpus != config.vcpus, "memory": live.memory != config.memory, "cpu": live.cpu != config.cpu,
        "NICs": {(n.mac, n.source) for n in live.nics} != {(n.mac, n.source) for n in config.nics},
        "disks": {d.path for d in live.disks} != {d.path for d in config.disks}, "cloud-init data": live_seed != seed,
    }
    return tuple(name for name, differs in rows.items() if differs)


def _sizes(diff: _Diff, config: ConfigFacts, live: ConfigFacts | None) -> None:
    vm = diff.vm
    if vm.vcpus != config.vcpus:
        # Unplugging needs the guest's help and may never end; plugging in does not.
        can = live is not None and live.vcpus < vm.vcpus <= live.vcpus_max
        diff.add("vcpus", vm.vcpus, ("vcpus", str(config.vcpus), str(vm.vcpus)), live=can)
    if vm.memory != config.memory:
        can = live is not None and vm.memory <= live.memory_max
        diff.add("memory", vm.memory, ("memory", format_size(config.memory), format_size(vm.memory)), live=can)


def _boot(diff: _Diff, domain: DomainFacts, draft: Draft) -> None:
    vm, config = diff.vm, domain.persistent
    if vm.autostart != domain.autostart:
        diff.add("autostart", vm.autostart, ("autostart", _yes(domain.autostart), _yes(vm.autostart)))
    protect = bool(config.owner and config.owner.protect)
    if vm.protect != protect:
        diff.add("protect", vm.protect, ("protect", _yes(protect), _yes(vm.protect)))
    if vm.firmware != config.firmware:
        draft.warnings.append(f"vm {vm.name} boots by {config.firmware}; the file says {vm.firmware}: only a rebuild changes "
                              f"that (vmwright rebuild {vm.name})")


def _cpu(view: View, diff: _Diff, config: ConfigFacts) -> None:
    wanted = effective_cpu(diff.vm.cpu, config.type)
    if wanted != config.cpu:
        diff.add("cpu", diff.vm.cpu, ("cpu", config.cpu, wanted), live=False)


def _nics(diff: _Diff, config: ConfigFacts, made: Made) -> None:
    vm = diff.vm
    have: dict[str, NicFacts] = {nic.mac: nic for nic in config.nics}
    want: dict[str, Nic] = {nic.mac: nic for nic in vm.nics}
    if any(nic.network not in made.links for nic in vm.nics):
        return  # the network was refused
    add = tuple((nic, made.links[nic.network].type, made.links[nic.network].source) for mac, nic in want.items()
                if mac not in have)
    remove = tuple(mac for mac in have if mac not in want)
    move = tuple((mac, made.links[nic.network].type, made.links[nic.network].source) for mac, nic in want.items()
                 if mac in have and (have[mac].type, have[mac].source)
                 != (made.links[nic.network].type, made.links[nic.network].source))
    for nic, _, source in add:
        diff.add("add_nics", add, (f"NIC {nic.mac}", "", f"{nic.network} ({source})"), live=True)
    for mac in remove:
        diff.add("remove_nics", remove, (f"NIC {mac}", have[mac].source, "removed"), live=True)
    for mac, _, source in move:
        diff.add("move_nics", move, (f"NIC {mac}", have[mac].source, source), live=True)
    if diff.running and (remove or move):
        diff.effects.add(Effect.CUTS_OFF)


def _disks(view: View, diff: _Diff, config: ConfigFacts) -> None:
    vm = diff.vm
    have = {disk.serial: disk for disk in config.disks if disk.serial and not disk.readonly and disk.serial != "root"}
    want: dict[str, DataDisk] = {disk.serial: disk for disk in vm.data_disks}
    add = tuple(disk for serial, disk in want.items() if serial not in have)
    ours = f"{view.cloud.name}.{vm.name}.disk-"
    remove = tuple(serial for serial, disk in have.items()
                   if serial and serial not in want and disk.path and ours in disk.path)
    for disk in add:
        there = (disk.pool, data_volume(view.cloud.name, vm.name, disk.name)) in view.volumes
        text = format_size(disk.size) + (", with the data it has" if there else "")
        diff.add("add_disks", add, (f"disk {disk.name}", "", text), live=True)
    for serial in remove:
        # A mounted disk that goes away takes the guest's programs with it; at a start nothing is mounted yet.
        diff.add("remove_disks", remove, (f"disk {serial}", "attached", "detached; its volume is kept"), live=False)


def _seed(view: View, diff: _Diff, config: ConfigFacts) -> None:
    vm, owner = diff.vm, config.owner
    if owner is None:
        return
    wanted = wanted_seed(view, vm)
    if wanted != owner.seed:
        diff.fields["instance"] = content_hash(owner.instance, wanted)
        diff.add("seed", wanted, ("cloud-init data", owner.seed, wanted), live=False)


def _lineage(view: View, vm: VmSpec, config: ConfigFacts, draft: Draft) -> None:
    template, owner = template_of(view, vm), config.owner
    if template and owner and (owner.template, owner.template_version) != (template.name, template.version):
        draft.warnings.append(f"vm {vm.name} comes from {owner.template}@{owner.template_version}; the file's template is "
                              f"{template.name}@{template.version}: a rebuild takes it (vmwright rebuild {vm.name})")


def _grow(view: View, vm: VmSpec, config: ConfigFacts, running: bool, draft: Draft) -> list[Action]:
    cloud = view.cloud.name
    template = template_of(view, vm)
    root = vm.disk or (template.size if template else 0)
    wanted = [("root", vm.pool, root_volume(cloud, vm.name), root, "disk")]
    wanted += [(d.serial, d.pool, data_volume(cloud, vm.name, d.name), d.size, f"disks.{d.name}") for d in vm.data_disks]
    steps: list[Action] = []
    for serial, pool, name, size, key in wanted:
        volume = view.volumes.get((pool, name))
        begun = f"{vm.name}@{serial}" in view.intents
        if volume is None or not size or (size == volume.capacity and not begun):
            continue
        if size < volume.capacity:
            _refuse_shrink(view, vm, volume, size, key, serial, draft)
            continue
        steps.append(GrowDisk(host=view.host.name, vm=vm, pool=pool, volume=name, path=volume.path, serial=serial,
                              old_size=volume.capacity, size=size, running=running, root=serial == "root",
                              why="an earlier run did not see it end" if begun else "the file says more", effects=frozenset() if running else frozenset({Effect.NEXT_START}),
                              changes=(Change("size", format_size(volume.capacity), format_size(size)),)))
    return steps


def _refuse_shrink(view: View, vm: VmSpec, volume: VolumeFacts, size: int, key: str, serial: str, draft: Draft) -> None:
    if serial == "root" and vm.disk is None:
        return  # the template became smaller; the VM did not ask for anything
    draft.refuse(f"vm {vm.name}: {key} is {format_size(volume.capacity)} and cannot become {format_size(size)}: what is at its "
                 "end would be lost", f"say {format_size(volume.capacity)} or more; for a smaller disk, rebuild the VM",
                 vm.keys.get(key, vm.where))


def _state(view: View, vm: VmSpec, domain: DomainFacts, diff: _Diff) -> list[Action]:
    if not diff.running:
        if not vm.running:
            return []
        return [StartVm(host=view.host.name, vm=vm, why=f"it is {domain.state}, and the file wants it running",
                        changes=(Change("state", str(domain.state), "running"),))]
    intent = view.intents.get(vm.name)
    waits = bool(pending(domain)) or Effect.NEXT_START in diff.effects
    if view.request.restart and waits:
        return [RestartVm(host=view.host.name, vm=vm, effects=frozenset({Effect.STOPS}),
                          why="what waits for its next start shall count now (--restart)")]
    if intent and intent.operation in ("boot", "create", "rebuild"):
        return [WaitReady(host=view.host.name, vm=vm, why="an earlier run did not see its first boot end")]
    return []


def _yes(value: bool) -> str:
    return "yes" if value else "no"
