"""Doctor: the IOMMU, vfio-pci, and each device that the file sets aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vmwright.doctor.check import Area, Case, Check, Verdict, names, refused
from vmwright.facts.model import DeviceFacts
from vmwright.plan.devices import Dealt, Row, deal, short
from vmwright.plan.host_actions import SetKernelArguments
from vmwright.plan.prepare import plan_iommu
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import DeviceSpec

_AREA = Area.DEVICES
_FIRMWARE = "switch on VT-d (Intel) or AMD-Vi / IOMMU (AMD) in the firmware's set-up, often below Processor or Chipset"


def devices(case: Case) -> Iterator[Check]:
    """Can the devices of the file be given to VMs? Nothing is said where the file sets none aside."""
    host = case.view.host
    if not (host.iommu or host.devices or any(vm.devices for vm in case.view.vms)):
        return
    yield replace(_iommu(case), covers=case.refusals(_of_iommu))
    yield _vfio(case)
    iommu = case.view.facts.iommu
    if iommu and iommu.on:
        yield from _each(case)


def _of_iommu(view: View, draft: Draft) -> None:
    """What a plan says of the IOMMU: for what is off, nothing else is said of devices."""
    plan_iommu(view, draft)
    if not (view.facts.iommu and view.facts.iommu.on):
        deal(view, draft)


def _why(case: Case) -> str:
    vms = [vm.name for vm in case.view.vms if vm.devices]
    return f"without it no device can be given to {names(vms)}" if vms else \
        "the file wants it: `iommu: true`" if case.view.host.iommu else "without it no device can be given to a VM"


def _iommu(case: Case) -> Check:
    iommu, why = case.view.facts.iommu, _why(case)
    needed = case.view.host.iommu or any(vm.devices for vm in case.view.vms)
    verdict = Verdict.FAIL if needed else Verdict.WARN
    if iommu is None:
        return Check(Verdict.WARN, _AREA, "the IOMMU was not looked at", why, "run vmwright doctor again")
    said = f"; command line: {' '.join(iommu.arguments)}" if iommu.arguments else ""
    if iommu.on:
        return Check(Verdict.OK, _AREA, f"the IOMMU is in use ({iommu.table or 'no table'}{said})")
    if iommu.table is None:
        todo = "give it a virtual IOMMU where it is defined (libvirt: <iommu model='intel'/>)" if case.health.guest \
            else _FIRMWARE
        return Check(verdict, _AREA, "the firmware tells of no IOMMU: it has no DMAR and no IVRS table", why, todo)
    what = f"the firmware has an IOMMU ({iommu.table}), and the kernel does not use it{said}"
    if any(isinstance(action, SetKernelArguments) for action in case.actions):
        return Check(Verdict.WARN, _AREA, what, why, "vmwright apply --reboot switches it on")
    if case.view.host.iommu:
        return Check(verdict, _AREA, what, why, "see what the kernel says: dmesg | grep -i -e DMAR -e AMD-Vi -e IOMMU")
    return Check(verdict, _AREA, what, why, "say `iommu: true` for the host: then vmwright apply switches it on, which "
                 "takes a reboot")


def _vfio(case: Case) -> Check:
    health = case.health
    if health.vfio == "loaded":
        return Check(Verdict.OK, _AREA, "vfio-pci is there (loaded, or built in)")
    why = "VMs get devices by that driver"
    if health.barred:
        return Check(Verdict.FAIL, _AREA, f"vfio-pci may not be loaded: {health.barred[0]}", why,
                     "take that line out: grep -r vfio /etc/modprobe.d")
    if health.vfio == "module":
        return Check(Verdict.OK, _AREA, "vfio-pci is there (a module, loaded when it is needed)")
    return Check(Verdict.FAIL, _AREA, f"kernel {case.view.facts.kernel} has no vfio-pci", why,
                 "boot the distribution's kernel for servers: those that are made for virtual machines may lack it")


def _each(case: Case) -> Iterator[Check]:
    dealt: dict[str, tuple[Row, ...]] = {}

    def look(view: View, draft: Draft) -> None:
        dealt.update(deal(view, draft))

    draft = case.asked(look)
    yield from refused(_AREA, draft, "vmwright apply gives it to nobody as long as that is so")
    for warning in draft.told():
        yield Check(Verdict.NOTE, _AREA, warning, "the file asks for it all the same", "nothing, if it is meant")
    stand = [problem.what for problem in draft.refused]
    for vm, rows in dealt.items():
        yield from (_row(case, vm, row, dealt) for row in rows if not any(str(row) in what for what in stand))
    given = {use.device.name for vm in case.view.vms for use in vm.devices}
    yield from (_spare(case, spec) for spec in case.view.host.devices if spec.name not in given)


def _row(case: Case, vm: str, row: Row, dealt: Dealt) -> Check:
    mine = {other.address for other in dealt[vm]}
    peers = [short(peer) for peer in row.facts.peers if peer in mine]
    group = f"IOMMU group {row.facts.group}, " + (f"with {', '.join(peers)} of the same VM" if peers else
                                                  "alone" if not row.facts.peers else "with bridges or idle ones")
    return Check(Verdict.OK, _AREA, f"{row} for {vm}: {group}, {_state(row.facts)}")


def _state(device: DeviceFacts) -> str:
    node = f", node {device.numa_node}" if device.numa_node is not None else ""
    return f"driver {device.driver or 'none'}{node}"


def _spare(case: Case, spec: DeviceSpec) -> Check:
    """A device that is set aside for nobody yet."""
    found = next((one for one in case.view.facts.devices if one.address == spec.address
                  or (spec.serial and one.serial == spec.serial)), None)
    if found is None:
        said = " and ".join(filter(None, (spec.address and short(spec.address), spec.serial)))
        return Check(Verdict.WARN, _AREA, f"device {spec.name} ({said}) is not there, as far as can be seen",
                     "the file sets it aside, for no VM yet", "see what is there: vmwright facts --devices", spec.where)
    return Check(Verdict.OK, _AREA, f"device {spec.name} ({short(found.address)}), for no VM yet: {_state(found)}")
