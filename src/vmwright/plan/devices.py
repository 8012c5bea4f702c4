"""Devices: which PCI device of the host each name of the file means, and whether a VM can be given it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from vmwright.facts.devices import MEMBERS
from vmwright.facts.model import BlockFacts, DeviceFacts, DomainFacts, Held, HeldFacts, HostFacts, Use, UseFacts
from vmwright.names import dm_name
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import DeviceSpec, DeviceUse, VmSpec
from vmwright.units import some

NVME, STORAGE, NETWORK = "0108", "01", "02"  # beginnings of PCI classes
_BRIDGE, _SCREEN = "06", "0300"
_SPARED = (None, "vfio-pci", "pci-stub", "pcieport")  # drivers that make nobody of the host need a device
_SHOWN = 4
_SEE = "see what is there: vmwright facts --devices; then correct the file, or plug it in"
_NETWORK = "move the host's network to another interface first"


@dataclass(frozen=True)
class Row:
    """A device that the file gives to a VM, as it was found on the host, with our note about it."""

    use: DeviceUse
    facts: DeviceFacts
    note: HeldFacts | None = None

    @property
    def name(self) -> str:
        """What the file calls it."""
        return self.use.device.name

    @property
    def address(self) -> str:
        """Its place on the host."""
        return self.facts.address

    @property
    def serial(self) -> str | None:
        """Its serial, read now or when the host's driver last had it."""
        return self.facts.serial or (self.note.serial if self.note else None)

    @property
    def storage(self) -> bool:
        """Whether it is a drive, or a controller of some."""
        return self.facts.kind.startswith(STORAGE)

    def __str__(self) -> str:
        return f"device {self.name} ({short(self.address)})"

    def refuse(self, vm: VmSpec, why: str, todo: str, draft: Draft) -> None:
        """Note why a VM cannot have it."""
        draft.refuse(f"vm {vm.name}: {self} {why}", todo, self.use.where)


Dealt = Mapping[str, tuple[Row, ...]]


def short(address: str) -> str:
    """A PCI address as one writes it in the file: without domain 0."""
    return address.removeprefix("0000:")


def note_of(facts: HostFacts, device: DeviceFacts) -> HeldFacts | None:
    """Our note about a device: the one about its address, unless its serial says that it is another device.

    Then, and where there is none, the one about its serial: the drive has been moved. Not one about a place that still
    has that serial: all ports of a card have the same.
    """
    there = next((note for note in facts.held if note.address == device.address), None)
    if there and (there.serial is None or device.serial in (None, there.serial)):
        return there
    found = (note for note in facts.held if device.serial and note.serial == device.serial)
    return next((note for note in found if not _still(facts, note)), None)


def _still(facts: HostFacts, note: HeldFacts) -> bool:
    """Whether what is at the address of a note may well be what it is about."""
    at = next((device for device in facts.devices if device.address == note.address), None)
    return at is not None and at.serial in (None, note.serial)


def name_of(view: View, address: str) -> str:
    """What the file calls the device at an address; the address where it has no name for it."""
    device = next((device for device in view.facts.devices if device.address == address), None)
    note = note_of(view.facts, device) if device else None
    serial = device.serial or (note.serial if note else None) if device else None
    names = (spec.name for spec in view.host.devices if spec.address == address or (serial and spec.serial == serial))
    return next(names, short(address))


def deal(view: View, draft: Draft) -> Dealt:
    """What each VM of the file gets, by its name; what cannot be had is refused where the VM is to be planned now."""
    planned = {vm.name for vm in view.vms if vm.devices}
    if not planned:
        _check_iommu(view, draft)
        return {}
    if not _check_iommu(view, draft):
        return {}
    dealt: dict[str, tuple[Row, ...]] = {}
    taken: dict[str, tuple[str, str]] = {}  # (VM, device's name) by address
    for vm in view.listed.values():
        own = draft if vm.name in planned else Draft()
        found = [row for use in vm.devices if (row := _row(view, use, own)) and _once(vm, row, taken, own)]
        dealt |= {vm.name: tuple(found)} if len(found) == len(vm.devices) else {}
    homes = {address: vm for address, (vm, _) in taken.items()}
    for name, rows in dealt.items():
        for row in rows if name in planned else ():
            _check(view, view.listed[name], row, homes, draft)
    return dealt


def _check_iommu(view: View, draft: Draft) -> bool:
    """Whether the devices of the host are known, and some of them can be given to VMs."""
    iommu, wanted = view.facts.iommu, next((vm.devices[0] for vm in view.vms if vm.devices), None)
    if not wanted and not view.host.iommu:
        return True
    where = view.host.keys.get("iommu") if view.host.iommu else wanted.where if wanted else None
    off = f"host {view.host.name}: its IOMMU is off, so no device can be given to a VM: the firmware tells of"
    if iommu is None:
        draft.refuse(f"host {view.host.name}: the facts do not have its devices", "record them anew: vmwright facts "
                     "--devices --json", where)
        return False
    if iommu.on:
        return True
    if view.host.iommu:
        return False  # it is switched on first, or refused with why it cannot be: plan/prepare.py
    if iommu.table is None:
        draft.refuse(f"{off} none", "switch it on in the firmware's setup (VT-d, AMD-Vi), then apply again", where)
    else:
        said = f" (its command line has: {' '.join(iommu.arguments)})" if iommu.arguments else ""
        draft.refuse(f"{off} one ({iommu.table}), and the kernel does not use it{said}",
                     "say `iommu: true` for the host: then vmwright switches it on, which takes a reboot", where)
    return False


# -- which one --------------------------------------------------------------------------------------------------------

def find(view: View, spec: DeviceSpec) -> Row | None:
    """The device that a name of the file means; None where it cannot be told."""
    return _row(view, DeviceUse(spec), Draft())


def _row(view: View, use: DeviceUse, draft: Draft) -> Row | None:
    spec, facts = use.device, view.facts
    rows = {device.address: Row(use, device, note_of(facts, device)) for device in facts.devices}
    found = _by_address(view, spec, rows, draft) if spec.address else _by_serial(view, spec, rows, draft)
    if found and spec.serial and found.serial is None:
        draft.warnings.append(f"{found}: {_unreadable(found)}; it is taken for {spec.serial} by its address alone")
    return found


def _by_address(view: View, spec: DeviceSpec, rows: Mapping[str, Row], draft: Draft) -> Row | None:
    row = rows.get(spec.address or "")
    moved = next((other for other in rows.values() if spec.serial and other.serial == spec.serial), None)
    if row and (spec.serial is None or row.serial == spec.serial or (row.serial is None and _hidden(row))):
        return row
    if row is None:
        what = f"device {spec.name}: host {view.host.name} has no PCI device at {spec.address}"
    elif row.serial is None:
        what = f"{row}: it has no serial that could be read, and the file says {spec.serial}"
    else:
        what = f"{row}: its serial is {row.serial}, and the file says {spec.serial}"
    todo = f"{spec.serial} is at {short(moved.address)} now: take its address out of the file, or correct it" if moved \
        else _SEE
    draft.refuse(what, todo, spec.where)
    return None


def _by_serial(view: View, spec: DeviceSpec, rows: Mapping[str, Row], draft: Draft) -> Row | None:
    found = [row for row in rows.values() if row.serial == spec.serial]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(short(row.address) for row in found)
        draft.refuse(f"device {spec.name}: {len(found)} devices of host {view.host.name} have the serial "
                     f"{spec.serial}: {places}", "give its address, too", spec.where)
        return None
    hidden = ", ".join(f"{short(row.address)} ({row.facts.driver or 'no driver'})" for row in rows.values()
                       if row.serial is None and _hidden(row))
    what = f"device {spec.name}: host {view.host.name} has no device with the serial {spec.serial}"
    if hidden:
        draft.refuse(f"{what}, as far as serials can be read; not read: {hidden}", "give its address, too, or give it "
                     "back to its driver on the host", spec.where)
    else:
        draft.refuse(what, _SEE, spec.where)
    return None


def _hidden(row: Row) -> bool:
    """Whether a device may have a serial that cannot be read now: an NVMe drive tells it to its own driver alone."""
    return row.facts.kind.startswith(NVME) and row.facts.driver != "nvme"


def _unreadable(row: Row) -> str:
    return f"its serial cannot be read while {row.facts.driver or 'no driver'} has it"


def _once(vm: VmSpec, row: Row, taken: dict[str, tuple[str, str]], draft: Draft) -> bool:
    """Whether nobody has it yet; two names may mean the same device."""
    other = taken.setdefault(row.address, (vm.name, row.name))
    if other == (vm.name, row.name):
        return True
    draft.refuse(f"vm {vm.name}: {row} is given twice: it is device {other[1]} of vm {other[0]}",
                 "a device can belong to one VM only, and once", row.use.where)
    return False


# -- can it be given --------------------------------------------------------------------------------------------------

def _check(view: View, vm: VmSpec, row: Row, homes: Mapping[str, str], draft: Draft) -> None:
    kind = row.facts.kind
    if kind.startswith(_BRIDGE):
        row.refuse(vm, "is a bridge of the host's, which no VM can be given", "name a device behind it", draft)
        return
    _check_group(view, vm, row, homes, draft)
    domain = view.domains.get(vm.name)
    idle = domain is not None and not vm.running and row.address in domain.persistent.hostdevs
    if not idle or vm.name in view.request.rebuild:  # else it is left alone: the host may look at what is on it
        refuse_uses(view, vm, row, draft)
    if kind.startswith(_SCREEN) and row.facts.driver not in _SPARED:
        draft.remark(f"{{}}: {row} is a display that {row.facts.driver} drives; if it is the host's own screen, "
                     "nothing is shown there while the VM has it", vm.name)
    _check_node(view, vm, row, draft)


def _check_group(view: View, vm: VmSpec, row: Row, homes: Mapping[str, str], draft: Draft) -> None:
    """A group is the smallest thing that can be given away: its members can reach each other's memory."""
    if row.facts.group is None:
        row.refuse(vm, "is in no IOMMU group, so nothing would keep it within its VM",
                   "see the kernel's log on the host: dmesg | grep -i -e dmar -e iommu", draft)
        return
    every = {device.address: device for device in view.facts.devices}
    peers = [every[peer] for peer in row.facts.peers if not every[peer].bridge and homes.get(peer) != vm.name]
    domain = view.domains.get(vm.name)
    had = {address for config in (domain.persistent, domain.live) if config for address in config.hostdevs} if domain \
        else set[str]()
    staying = [peer for peer in peers if peer.address not in homes
               and (peer.driver not in _SPARED or peer.address in had)]
    shared = f"shares IOMMU group {row.facts.group}"
    if staying:
        row.refuse(vm, f"{shared} with {_names(staying)}, which would stay with the host",
                   f"give all of the group to {vm.name}, or use a device (or slot) that is alone in its group; see "
                   "vmwright facts --devices", draft)
    for peer in peers:
        others = (domain.name for domain in holders(view, peer.address, vm.name))
        if other := homes.get(peer.address) or next(others, None):
            row.refuse(vm, f"{shared} with {short(peer.address)}, which is vm {other}'s",
                       "all members of a group go to one VM", draft)


def _names(peers: list[DeviceFacts]) -> str:
    return some([f"{short(peer.address)} ({peer.driver})" for peer in peers], _SHOWN)


def holders(view: View, address: str, but: str) -> list[DomainFacts]:
    """The other VMs that have a device, now or at their next start."""
    return [domain for domain in view.facts.domains if domain.name != but and any(
        address in config.hostdevs for config in (domain.persistent, domain.live) if config)]


def refuse_uses(view: View, vm: VmSpec, row: Row, draft: Draft) -> None:
    """The host must not need it. What a guest has put on its drive is no use of the host's."""
    for what, todo in host_uses(view, row):
        row.refuse(vm, f"is in use by the host: {what}", f"{todo}, or give {vm.name} another device", draft)
    active = _active(view, row)
    if active and _is_guests(view, row, active):
        draft.remark(f"{{}}: on {row}, the host has found the guest's own volumes and made them active "
                     f"({', '.join(active[:_SHOWN])}); they are switched off there before the guest gets it", vm.name)


def host_uses(view: View, row: Row) -> list[tuple[str, str]]:
    """What the host needs a device for, as a person would say it, and how to end that."""
    guests = _is_guests(view, row, _active(view, row))
    return [_say(use) for use in row.facts.uses if use.use is not Use.VM and not (guests and _of_guest(use))]


def _active(view: View, row: Row) -> list[str]:
    """Paths of active volumes of LVM on a device."""
    return [block.path for block in above(view, row) if block.kind == "lvm"]


def _is_guests(view: View, row: Row, active: Collection[str]) -> bool:
    """Whether what is on a device is what a VM has left there."""
    return row.note is not None and not any(path.startswith(_pools(view)) for path in active)


def _of_guest(use: UseFacts) -> bool:
    """Whether a use may be no more than what a guest has left on its drive: a signature, or volumes of it."""
    return use.use is Use.LVM or (use.use is Use.RAID and use.what in MEMBERS)


def _pools(view: View) -> tuple[str, ...]:
    """How the paths of the volumes in the host's own pools begin."""
    groups = (pool.target.removeprefix("/dev/") for pool in view.facts.pools if pool.type == "logical")
    return tuple(f"/dev/mapper/{dm_name(group, '')}" for group in groups)


def above(view: View, row: Row) -> Iterator[BlockFacts]:
    """What stands on a device: its disks, their partitions, and what is on those."""
    found = set(row.facts.blocks)
    for block in view.facts.blocks:
        if block.path in found or any(parent in found for parent in block.parents):
            found.add(block.path)
            yield block


def content(view: View, row: Row) -> tuple[int, tuple[str, ...]]:
    """The size of the disks on a device, and what was found on them; 0 while the host does not see them."""
    blocks = list(above(view, row))
    found = [f"{block.table} partition table" for block in blocks if block.table]
    found += [signature for block in blocks for signature in block.signatures]
    return sum(block.size for block in blocks if block.path in row.facts.blocks), tuple(dict.fromkeys(found))


def _say(use: UseFacts) -> tuple[str, str]:
    """A use as a person would say it, and how to end it."""
    match use.use:
        case Use.MOUNT:
            return f"{use.by} is mounted at {use.what}", f"unmount it (umount {use.what}; and see /etc/fstab)"
        case Use.SWAP:
            return f"{use.by} is swap space in use", f"end that (swapoff {use.by}; and see /etc/fstab)"
        case Use.LVM if use.what:
            return (f"{use.by} is a physical volume of volume group {use.what}",
                    f"take it out of the group (vgreduce, pvremove) or remove the group (vgremove {use.what})")
        case Use.LVM:
            return f"{use.by} is a physical volume of LVM", "see of which group (pvs), and take it out of that"
        case Use.RAID if use.what:
            return f"{use.by} is part of something that holds several devices ({use.what})", "take it out of that"
        case Use.RAID:
            return f"{use.by} stands on it", f"stop it (mdadm --stop {use.by})"
        case Use.HOLDER:
            return f"{use.by} stands on it", "close that (cryptsetup close, multipath -f, ...)"
        case Use.DISK:
            return f"vm {use.by} has a disk there, {use.what}", f"take that disk out of {use.by}"
        case Use.ROUTE:
            return f"the default route goes by {use.by}", _NETWORK
        case Use.SESSION:
            return f"the ssh session of vmwright comes in by {use.by}", _NETWORK
        case _:
            return (f"its interface {use.by} has the address {use.what}" if "/" in use.what else
                    f"its interface {use.by} belongs to {use.what}"), _NETWORK


def check_start(view: View, vm: VmSpec, domain: DomainFacts, draft: Draft) -> None:
    """Whether a VM can start with the devices that it has, whatever the file says by now."""
    owner, every = domain.persistent.owner, {device.address: device for device in view.facts.devices}
    for address in domain.persistent.hostdevs:
        if owner is None or address not in owner.devices:
            continue
        name = name_of(view, address)
        if address not in every:
            draft.refuse(f"vm {vm.name}: its device {name} is not at {short(address)} any more",
                         "see what is there: vmwright facts --devices; then vmwright apply", vm.where)
            continue
        use = DeviceUse(DeviceSpec(name, address=address), where=vm.keys.get("devices", vm.where))
        row = Row(use, every[address], note_of(view.facts, every[address]))
        refuse_uses(view, vm, row, draft)
        if half_wiped(row):
            row.refuse(vm, "is wiped in part, by a run that was cut off", f"vmwright rebuild {vm.name} finishes that",
                       draft)
        if other := next((d for d in holders(view, address, vm.name) if d.live and address in d.live.hostdevs), None):
            row.refuse(vm, f"is with vm {other.name}, which runs", f"stop {other.name} first", draft)


def _check_node(view: View, vm: VmSpec, row: Row, draft: Draft) -> None:
    node = row.facts.numa_node
    if vm.pin is None or node is None:
        return
    nodes = {cpu.node for cpu in view.facts.cpu_list if cpu.number in vm.pin.cpus and cpu.node is not None}
    if nodes and node not in nodes:
        there = ", ".join(map(str, sorted(nodes)))
        draft.remark(f"{{}}: {row} is on NUMA node {node}, and its CPUs are on node {there}: what goes between them is "
                     "slower", vm.name)


def half_wiped(row: Row) -> bool:
    """Whether a wipe of it was begun, and not seen to its end."""
    return row.note is not None and row.note.state is Held.WIPING
