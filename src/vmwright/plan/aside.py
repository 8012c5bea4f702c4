"""Devices that are set aside for VMs when the host boots, before its own drivers look at what is on them. Pure.

libvirt takes a device from its driver when a VM starts: until then the host has it, finds partitions, LVM and RAID on
it and uses them. Here vfio-pci gets it first, at each boot, by a script in the initramfs (boot/aside.sh).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmwright.boot import aside
from vmwright.boot.aside import Entry
from vmwright.names import ASIDE_FILES, ASIDE_LIST
from vmwright.plan.action import Change, Sign
from vmwright.plan.actions import AS_ASKED, Kept
from vmwright.plan.devices import NETWORK, NVME, STORAGE, Row, above, find, host_uses, short
from vmwright.plan.host_actions import GiveBack, PrepareFiles, WriteFiles
from vmwright.plan.own_files import is_anothers, leftover, mark, to_write
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import DeviceSpec

_WHAT = "devices at boot"
_TOOLS = ("dracut", "update-initramfs")  # a host with dracut may have the other as another name for it


def plan_aside(view: View, draft: Draft) -> None:
    """The list of devices for the host's initramfs, and what reads it there; its removal when none is set aside."""
    if not view.host.devices or not view.host.devices_at_boot:
        _plan_none(view, draft)
        return
    if view.facts.iommu is None:
        return
    _tell_missed(view, draft)
    tool = _tool(view)
    if tool is None:
        draft.kept.append(Kept(view.host.name, _WHAT, "the host has neither update-initramfs nor dracut: devices are "
                               "taken from its drivers when their VMs start"))
    elif not is_anothers(view, ASIDE_LIST, _WHAT, draft):
        _plan_list(view, tool, draft)


def _tool(view: View) -> str | None:
    """What makes the host's initramfs."""
    return next((tool for tool in _TOOLS if tool in view.facts.platform.tools), None)


def _listed(view: View) -> tuple[Entry, ...]:
    """The devices in the list that is there."""
    return aside.parse_list(view.facts.platform.file(ASIDE_LIST).text or "")


def _tell_missed(view: View, draft: Draft) -> None:
    """What the script has found in the way when the host booted."""
    names = {spec.name for spec in view.host.devices}
    for name, why in view.facts.not_aside:
        if name in names or name == "all":
            what = "no device was" if name == "all" else f"device {name} was not"
            draft.warnings.append(f"host {view.host.name}: {what} set aside when it booted: {why}")


def _plan_list(view: View, tool: str, draft: Draft) -> None:
    there = {entry.name: entry for entry in _listed(view)}
    entries = tuple(_entries(view, there, draft))
    wanted = aside.files(tool, aside.list_text(mark(view.cloud.name), entries))
    if not entries and not there:
        return
    files = to_write(view, wanted, draft)
    if files is None:
        return
    if not files:
        draft.kept.append(Kept(view.host.name, _WHAT, AS_ASKED))
        return
    gone = [entry for name, entry in there.items() if name not in {entry.name for entry in entries}]
    _plan_give_back(view, gone, "they are not set aside any more", draft)
    comes = not view.facts.iommu or not view.facts.iommu.on  # then the host is to boot anew in any case
    kind = PrepareFiles if comes and view.host.iommu else WriteFiles
    draft.actions.append(kind(
        host=view.host.name, what=_WHAT, files=files, after=(aside.make_anew(tool),),
        sign=Sign.CHANGE if there else Sign.ADD, changes=tuple(_changes(there, entries)),
        why="else the host's drivers use them at each boot, until their VMs start"))


def _entries(view: View, there: dict[str, Entry], draft: Draft) -> Iterator[Entry]:
    for spec in view.host.devices:
        row = find(view, spec)
        if row is None:  # out of its slot, or not to be told now: as it was
            yield from [there[spec.name]] if spec.name in there else []
        elif (entry := _entry(view, spec, row, draft)) is not None:
            yield entry


def _entry(view: View, spec: DeviceSpec, row: Row, draft: Draft) -> Entry | None:
    """How a device is known when the host boots; None for one that is not to be taken then."""
    kind, device = row.facts.kind, row.facts
    uses = host_uses(view, row)
    listed = [(f"{source} is to be mounted at {place} (/etc/fstab)", "") for source, place in view.facts.fstab
              if any(block.path == source for block in above(view, row))]
    if uses := [*uses, *listed]:
        draft.warnings.append(f"host {view.host.name}: {row} is not set aside at boot, for it is in use by the host: "
                              f"{uses[0][0]}")
        return None
    serial = row.serial if kind.startswith(NVME) else device.pcie_serial
    if serial is None and kind.startswith((STORAGE, NETWORK)):
        draft.kept.append(Kept(view.host.name, f"device {spec.name}", "is taken from its driver when its VM starts, "
                               "not at boot: it has no serial to be known by"))
        return None
    known = device.driver if device.driver != "vfio-pci" else device.former or (row.note.driver if row.note else None)
    return Entry(spec.name, device.address, device.ids, "nvme" if kind.startswith(NVME) else known, serial)


def _changes(there: dict[str, Entry], entries: tuple[Entry, ...]) -> Iterator[Change]:
    new = {entry.name: entry for entry in entries}
    for name in dict.fromkeys([*there, *new]):
        if there.get(name) != new.get(name):
            yield Change(f"device {name}", _say(there.get(name)), _say(new.get(name)) or "left to the host's driver",
                         "at next boot")
    if there == new:
        yield Change("files", "", "as this version writes them")


def _say(entry: Entry | None) -> str:
    return f"{', '.join(filter(None, (short(entry.address), entry.serial)))} by vfio-pci" if entry else ""


def _unclaimed(view: View, gone: Iterable[Entry]) -> tuple[str, ...]:
    """The addresses of devices that were set aside at this boot, are not to be any more, and that no VM has."""
    had = {address for domain in view.facts.domains for config in (domain.persistent, domain.live) if config
           for address in config.hostdevs}
    serials = {entry.serial or entry.address for entry in gone}
    return tuple(device.address for device in view.facts.devices if device.address not in had
                 and device.driver == "vfio-pci" and device.former
                 and (device.serial or device.pcie_serial or device.address) in serials)


def _plan_give_back(view: View, gone: Iterable[Entry], why: str, draft: Draft) -> None:
    """Devices go back to the host's drivers at once, as soon as no VM has them."""
    addresses = _unclaimed(view, gone)
    if addresses:
        draft.actions.append(GiveBack(
            host=view.host.name, addresses=addresses, why=why,
            changes=tuple(Change("device", short(address), "to the host's driver") for address in addresses)))


def _plan_none(view: View, draft: Draft) -> None:
    """No device is set aside any more."""
    if leftover(view, ASIDE_LIST, draft):
        plan_nothing_aside(view, "the file sets no device aside any more" if not view.host.devices else
                           "the file says devices_at_boot: false", draft)


def plan_nothing_aside(view: View, why: str, draft: Draft) -> None:
    """All files go that set devices aside at boot, and the host's drivers have again what no VM has."""
    there, tool = _listed(view), _tool(view)
    _plan_give_back(view, there, why, draft)
    draft.actions.append(WriteFiles(
        host=view.host.name, what=_WHAT, sign=Sign.REMOVE, why=why,
        remove=tuple(file.path for file in map(view.facts.platform.file, ASIDE_FILES)
                     if file.ours is not None and file.text == file.ours),
        after=(aside.make_anew(tool),) if tool else (),
        changes=tuple(Change(f"device {entry.name}", _say(entry), "left to the host's driver", "at next boot")
                      for entry in there)))
