"""VMs that are there: what differs from the file, and how each difference is mended in place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vmwright.facts.model import ConfigFacts, DomainFacts, DomainState, NicFacts, VolumeFacts
from vmwright.names import parse_path
from vmwright.plan.action import Action, Change, Effect
from vmwright.plan.actions import AS_ASKED, GrowDisk, Kept, RestartVm, StartVm, UpdateVm, WaitReady
from vmwright.plan.create import Made, check_disk_pools, refuse_shrink, template_of
from vmwright.plan.place import differences, only_pins_differ, place
from vmwright.plan.plug import plan_plugs
from vmwright.plan.seeds import is_current, seed_mark, what_differs
from vmwright.plan.uses import waking
from vmwright.plan.view import ROOT_SERIAL, Draft, View
from vmwright.spec.cloud import DataDisk, Nic, VmSpec
from vmwright.units import content_hash, format_size
from vmwright.virt.design import effective_cpu

NOW, LATER = "now", "at next start"
_ACCELERATORS = {"kvm": "KVM", "qemu": "emulation"}


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
        """Note one difference; `live`: whether the running VM takes it now (None: it is not about what runs)."""
        when = "" if live is None or not self.running else NOW if live else LATER
        self.fields[name] = value
        self.changes.append(Change(*change, when))
        if when == NOW:
            self.live.add(name)
        elif when == LATER:
            self.effects.add(Effect.NEXT_START)


def is_on(domain: DomainFacts) -> bool:
    """Whether the VM runs or is paused."""
    return domain.state in (DomainState.RUNNING, DomainState.PAUSED)


def plan_existing(view: View, vm: VmSpec, domain: DomainFacts, made: Made, draft: Draft) -> None:
    """Actions for a VM of ours that is there: the change, what it takes to be up, and growing, one after another."""
    refused = len(draft.refused)
    diff = _diff(view, vm, domain, made, draft)
    _remark(view, vm, domain, draft)
    check_disk_pools(view, vm, draft)
    steps: list[Action] = []
    if diff.fields:
        steps.append(UpdateVm(host=view.host.name, vm=vm, why="the file says otherwise", changes=tuple(diff.changes),
                              live=frozenset(diff.live), effects=frozenset(diff.effects), **diff.fields))
    grows, ups = _grow(view, vm, domain, draft), _up(view, vm, domain, diff)
    # A guest that is still in its first boot cannot grow its disks; one that is off has them grown before it starts.
    steps += [*ups, *grows] if any(isinstance(step, WaitReady) for step in ups) else [*grows, *ups]
    base = made.needs(vm, None)
    previous: tuple[str, ...] = ()
    for step in steps:
        action = replace(step, needs=(*base, *previous))
        draft.actions.append(action)
        previous = (action.id,)
    if not steps and made.reaches(vm) and len(draft.refused) == refused:
        draft.kept.append(Kept(view.host.name, f"vm {vm.name}", _as_asked(vm, domain)))


def _as_asked(vm: VmSpec, domain: DomainFacts) -> str:
    waiting = pending(domain)
    if domain.state is DomainState.PAUSED:
        return f"{AS_ASKED}, but is paused: virsh resume {vm.name}, when you know why"
    if waiting:
        return (f"{AS_ASKED}, but {', '.join(waiting)} will count from its next start "
                "(`vmwright apply --restart`)")
    if vm.running:
        return AS_ASKED
    return f"{AS_ASKED}, but runs: vmwright stop {vm.name}" if is_on(domain) else "is off, as the file says"


def pending(domain: DomainFacts) -> tuple[str, ...]:
    """What of a running VM's definition its running self does not have yet."""
    live, config = domain.live, domain.persistent
    if live is None:
        return ()
    live_seed = live.owner.seed if live.owner else ""
    seed = config.owner.seed if config.owner else ""
    rows = {
        "vcpus": live.vcpus != config.vcpus,
        "memory": live.memory != config.memory,
        "accelerator": live.type != config.type,
        "cpu": live.cpu != config.cpu,
        "firmware": live.firmware != config.firmware,
        "placement": live.placement != config.placement,
        "NICs": {(n.mac, n.type, n.source) for n in live.nics} != {(n.mac, n.type, n.source) for n in config.nics},
        "disks": {d.path for d in live.disks} != {d.path for d in config.disks},
        "devices": set(live.hostdevs) != set(config.hostdevs),
        "cloud-init data": live_seed != seed,
    }
    return tuple(name for name, differs in rows.items() if differs)


def _diff(view: View, vm: VmSpec, domain: DomainFacts, made: Made, draft: Draft) -> _Diff:
    diff, config = _Diff(vm, is_on(domain)), domain.persistent
    _sizes(diff, config, domain.live)
    _boot(view, diff, domain)
    _cpu(view, diff, config)
    _placement(view, diff, domain)
    _nics(diff, config, made)
    _disks(view, diff, config)
    if vm.name in made.devices or not vm.devices:
        _devices(view, diff, domain, made, draft)
    _seed(view, diff, config)
    return diff


def _sizes(diff: _Diff, config: ConfigFacts, live: ConfigFacts | None) -> None:
    vm = diff.vm
    if vm.vcpus != config.vcpus:
        # Unplugging needs the guest's help and may never end; plugging in does not.
        can = live is not None and live.vcpus <= vm.vcpus <= live.vcpus_max
        diff.add("vcpus", vm.vcpus, ("vcpus", str(config.vcpus), str(vm.vcpus)), live=can)
    if vm.memory != config.memory:
        # More is given back by the balloon. Less would be taken from a guest that may need it: it swaps, or kills.
        # With devices of the host in it, all its memory is pinned, and there is no balloon.
        can = live is not None and live.memory <= vm.memory <= live.memory_max and not live.hostdevs
        diff.add("memory", vm.memory, ("memory", format_size(config.memory), format_size(vm.memory)), live=can)


def _cpu(view: View, diff: _Diff, config: ConfigFacts) -> None:
    """Accelerator and CPU. Where the file leaves the accelerator to us, a VM goes from emulation to KVM and never back:

    that KVM does not work just now may be a module that is not loaded, and emulation some ten times slower.
    """
    type = view.domain_type
    if type != config.type and type == "qemu" and view.host.accelerator == "auto":
        type = config.type
    if type != config.type:
        diff.add("type", type, ("accelerator", _ACCELERATORS[config.type], _ACCELERATORS[type]), live=False)
    wanted = effective_cpu(diff.vm.cpu, type)
    if wanted != config.cpu:
        diff.add("cpu", diff.vm.cpu, ("cpu", config.cpu, wanted), live=False)


def _placement(view: View, diff: _Diff, domain: DomainFacts) -> None:
    """Where it runs. Threads of a running VM move at once; its memory, NUMA nodes and number of vCPUs do not.

    Without a pin in the file, what others have pinned is left alone, and what we have pinned is let go.
    """
    if diff.vm.pin is None and not view.pinned_by_us(domain):
        return
    wanted, config = place(view, diff.vm), domain.persistent.placement
    running = domain.live.placement if domain.live else None
    movable = running is not None and only_pins_differ(running, wanted)
    old = running if wanted == config and running and movable else config
    for change in differences(old, wanted):
        diff.add("placement", wanted, change, live=movable)


def _boot(view: View, diff: _Diff, domain: DomainFacts) -> None:
    vm, owner, flag = diff.vm, domain.persistent.owner, view.flagged(diff.vm)
    if flag != domain.autostart:
        key = "autostart by libvirt" if view.ordered or view.facts.boot.order else "autostart"
        diff.add("autostart", flag, (key, _yes(domain.autostart), _yes(flag)))
    protect = bool(owner and owner.protect)
    if vm.protect != protect:
        diff.add("protect", vm.protect, ("protect", _yes(protect), _yes(vm.protect)))


def _nics(diff: _Diff, config: ConfigFacts, made: Made) -> None:
    vm = diff.vm
    if not made.reaches(vm):
        return  # the network was refused
    have: dict[str, NicFacts] = {nic.mac: nic for nic in config.nics}
    want: dict[str, tuple[Nic, str, str]] = {
        nic.mac: (nic, made.links[nic.network].type, made.links[nic.network].source) for nic in vm.nics}
    add = tuple(row for mac, row in want.items() if mac not in have)
    ours = config.owner.nics if config.owner else None  # what others have plugged in is left alone
    remove = tuple(mac for mac in have if mac not in want and (ours is None or mac in ours))
    move = tuple((mac, kind, source) for mac, (_, kind, source) in want.items()
                 if mac in have and (have[mac].type, have[mac].source) != (kind, source))
    for nic, _, source in add:
        diff.add("add_nics", add, (f"NIC {nic.mac}", "", f"network {_both(nic.network, source)}"), live=True)
    for mac in remove:
        diff.add("remove_nics", remove, (f"NIC {mac}", f"network {have[mac].source}", "removed"), live=True)
    for mac, _, source in move:
        change = (f"NIC {mac}", f"network {have[mac].source}", f"network {_both(want[mac][0].network, source)}")
        diff.add("move_nics", move, change, live=True)
    if diff.running and (remove or move):
        diff.effects.add(Effect.CUTS_OFF)


def _both(network: str, source: str) -> str:
    return network if network == source else f"{network} ({source})"


def _disks(view: View, diff: _Diff, config: ConfigFacts) -> None:
    vm = diff.vm
    have = {d.serial: d for d in config.disks if d.serial and not d.readonly and d.serial != ROOT_SERIAL}
    want: dict[str, DataDisk] = {disk.serial: disk for disk in vm.data_disks}
    add = tuple(disk for serial, disk in want.items() if serial not in have)
    remove = tuple(serial for serial, disk in have.items() if serial not in want and _is_data(view, vm, disk.path))
    for disk in add:
        volume = view.volume(disk.pool, vm.name, "disk", disk.name)
        text = f"{format_size(volume.capacity)}, with the data it has" if volume else format_size(disk.size)
        diff.add("add_disks", add, (f"disk {disk.name}", "", text), live=True)
    for serial in remove:
        # A mounted disk that goes away takes the guest's programs with it; at a start nothing is mounted yet.
        diff.add("remove_disks", remove, (f"disk {serial}", "attached", "detached; its volume is kept"), live=False)


def _devices(view: View, diff: _Diff, domain: DomainFacts, made: Made, draft: Draft) -> None:
    taken = len(diff.fields.get("add_nics", ())) + len(diff.fields.get("add_disks", ()))
    ports = max(0, domain.live.free_ports - taken) if domain.live else 0
    found = plan_plugs(view, diff.vm, domain, made.devices, ports, draft)
    for name, value, change, now in found.steps:
        diff.add(name, value, change, live=now)
    diff.effects |= found.effects
    if found.plug:
        diff.fields["plug"] = found.plug


def _is_data(view: View, vm: VmSpec, path: str | None) -> bool:
    """Whether a path is that of a data disk of ours; what others have attached is left alone."""
    ours = parse_path(path or "")
    return ours is not None and (ours.cloud, ours.object, ours.role) == (view.cloud.name, vm.name, "disk")


def _seed(view: View, diff: _Diff, config: ConfigFacts) -> None:
    vm, owner = diff.vm, config.owner
    if owner is None or is_current(owner.seed, view.cloud.name, vm):
        return
    mark = seed_mark(view.cloud.name, vm)
    parts = what_differs(owner.seed, mark)
    diff.fields["instance"] = content_hash(owner.instance, mark)
    diff.add("seed", mark, ("cloud-init data", "as it was told", f"other {parts}" if parts else "other"), live=False)


def _remark(view: View, vm: VmSpec, domain: DomainFacts, draft: Draft) -> None:
    """What differs and is not mended in place."""
    config, template, owner = domain.persistent, template_of(view, vm), domain.persistent.owner
    if template and owner and (owner.template, owner.template_version) != (template.name, template.version):
        draft.remark(f"{{}}: from {owner.template}@{owner.template_version}, while the file's template is now "
                     f"{template.name}@{template.version}; `vmwright rebuild` takes it", vm.name)
    if vm.firmware != config.firmware:
        draft.remark(f"{{}}: boots by {config.firmware}, the file says {vm.firmware}; only `vmwright rebuild` changes "
                     "that", vm.name)
    if config.type == "kvm" != view.domain_type and view.host.accelerator == "auto":
        draft.remark(f"{{}}: defined for KVM, which is {view.facts.kvm} here now, so that it will not start; see "
                     "`vmwright doctor`, or say `accelerator: qemu` for the host", vm.name)
    _remark_root(view, vm, config, draft)


def _remark_root(view: View, vm: VmSpec, config: ConfigFacts, draft: Draft) -> None:
    path = next((disk.path for disk in config.disks if disk.serial == ROOT_SERIAL), None)
    volume = view.volumes_by_path.get(path or "")
    if volume and volume.pool != vm.pool:
        draft.remark(f"{{}}: its disk is in pool {volume.pool}, the file says {vm.pool}; only `vmwright rebuild` takes "
                     f"another pool", vm.name)
    elif volume is None and path and path.startswith(f"{view.pool_path(vm.pool)}/"):
        draft.remark(f"{{}}: its root disk is gone from pool {vm.pool}; put it back from a backup, or: vmwright "
                     "rebuild", vm.name)


def _grow(view: View, vm: VmSpec, domain: DomainFacts, draft: Draft) -> list[Action]:
    template = template_of(view, vm)
    size = vm.disk or (template.size if template else 0)
    wanted = [(ROOT_SERIAL, view.volume(vm.pool, vm.name, "root"), size)]
    wanted += [(d.serial, view.volume(d.pool, vm.name, "disk", d.name), d.size) for d in vm.data_disks]
    steps: list[Action] = []
    for serial, volume, asked in wanted:
        size = view.whole(volume.pool, asked) if volume else asked
        online = volume is not None and _online(domain, volume.path)
        begun = online and f"{vm.name}@{serial}" in view.intents
        if volume is None or not size or (size == volume.capacity and not begun):
            continue
        if size > volume.capacity or begun:
            steps.append(_grow_one(view, vm, volume, serial, max(size, volume.capacity), online, begun))
        if size < volume.capacity and not (serial == ROOT_SERIAL and vm.disk is None):
            # Without a size of its own, it is the template that became smaller: the VM did not ask for anything.
            refuse_shrink(vm, "" if serial == ROOT_SERIAL else serial, volume.capacity, size, draft)
    return steps


def _online(domain: DomainFacts, path: str) -> bool:
    """Whether a running VM has the disk, or is going to: one that it does not have at all is plugged in before."""
    if domain.live is None or not is_on(domain):
        return False
    defined, live = ({disk.path for disk in config.disks} for config in (domain.persistent, domain.live))
    return path in live or path not in defined


def _grow_one(view: View, vm: VmSpec, volume: VolumeFacts, serial: str, size: int, running: bool,
              begun: bool) -> GrowDisk:
    change = Change("size", format_size(volume.capacity), format_size(size), NOW if running else LATER)
    if size == volume.capacity:
        change = Change("size", "", f"{format_size(size)}, also inside the guest")
    return GrowDisk(host=view.host.name, vm=vm, pool=volume.pool, volume=volume.name, path=volume.path, serial=serial,
                    old_size=volume.capacity, size=size, running=running, root=serial == ROOT_SERIAL,
                    why="an earlier run did not see it end" if begun else "the file says more",
                    effects=frozenset() if running else frozenset({Effect.NEXT_START}), changes=(change,))


def _up(view: View, vm: VmSpec, domain: DomainFacts, diff: _Diff) -> list[Action]:
    """What it takes to have the VM up as the file says: start, restart, wait, or nothing."""
    if not diff.running:
        why = f"it is {domain.state}, and the file wants it running"
        changes = (*waking(view, domain), Change("state", str(domain.state), "running"))
        return [StartVm(host=view.host.name, vm=vm, why=why, changes=changes)] if vm.running else []
    if view.request.restart and (pending(domain) or Effect.NEXT_START in diff.effects):
        waiting = dict.fromkeys((*pending(domain), *(c.key for c in diff.changes if c.when == LATER)))
        return [RestartVm(host=view.host.name, vm=vm, effects=frozenset({Effect.STOPS}),
                          why=f"{', '.join(waiting)} shall count now (--restart)")]
    if _first_boot(view, vm, domain):
        return [WaitReady(host=view.host.name, vm=vm, why="an earlier run did not see its first boot end")]
    return []


def _first_boot(view: View, vm: VmSpec, domain: DomainFacts) -> bool:
    """Whether a note says that this incarnation (and not one before) has not been seen to become ready."""
    intent = view.intents.get(vm.name)
    if intent is None or intent.operation not in ("boot", "create"):
        return False
    owners = (domain.persistent.owner, domain.live.owner if domain.live else None)
    return any(owner and owner.instance == intent.instance for owner in owners)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
