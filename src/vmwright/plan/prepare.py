"""What makes a host able to run the cloud: packages, the IOMMU, a reboot where one is needed. It comes first.

On a host that lacks some of it the rest of a plan is provisional: what the host will be like is not known before it has
been prepared, so the facts are read, and the plan is made, anew then.
"""

from __future__ import annotations

from collections.abc import Iterator

from vmwright.facts.model import DomainState
from vmwright.names import GRUB_DROP_IN
from vmwright.netconfig.common import NewFile
from vmwright.plan.action import Change, Effect
from vmwright.plan.host_actions import InstallPackages, Prepare, Reboot, SetKernelArguments
from vmwright.plan.needs import (
    VIRTUALISATION,
    besides,
    family,
    package,
    remedy,
    services,
    there,
    tools_of,
    tools_of_group,
    tools_of_services,
)
from vmwright.plan.own_files import to_write
from vmwright.plan.storage import is_there
from vmwright.plan.view import Draft, View

_VENDOR_ARGUMENTS = {"DMAR": ("intel_iommu=on", "iommu=pt"), "IVRS": ("amd_iommu=on", "iommu=pt")}
_TABLES = {"DMAR": "VT-d", "IVRS": "AMD-Vi"}


def plan_prepare(view: View, draft: Draft) -> None:
    """Actions that prepare the host, in their order; what cannot be prepared is refused."""
    plan_packages(view, draft)
    plan_iommu(view, draft)


# -- packages ---------------------------------------------------------------------------------------------------------

def lacking(view: View) -> tuple[str, ...]:
    """Programs that what is planned here takes and that the host does not have."""
    return tuple(dict.fromkeys(tool for tool in _wanted(view) if not there(tool, view.facts)))


def _wanted(view: View) -> Iterator[str]:
    if view.vms or view.pools or view.networks:
        yield from VIRTUALISATION
    for pool in view.pools.values():
        yield from tools_of_group(pool.lvm) if pool.lvm else ()
    for template in view.templates.values():
        if not is_there(view, template):
            yield from tools_of(template.source)
    if view.request.only is None:
        yield from tools_of_services(view.host.services)


def plan_packages(view: View, draft: Draft) -> None:
    tools, kind = lacking(view), family(view.facts.platform)
    if not tools:
        return
    if kind is None:
        draft.refuse(f"host {view.host.name}: not installed there: {', '.join(tools)}; and vmwright knows no way to "
                     f"install packages on {view.facts.os}",
                     f"install them by hand; by Debian's names: {remedy(tools, view.facts.platform)}",
                     view.host.where)
        return
    new = any(tool in tools for tool in VIRTUALISATION)
    packages = dict.fromkeys([*(package(tool, kind) for tool in tools), *(besides(kind) if new else ())])
    draft.actions.append(InstallPackages(
        host=view.host.name, tool=str(kind), packages=tuple(packages), programs=tools,
        services=services(kind) if new and view.facts.platform.systemd else (),
        why=_why(tools, new=new), changes=(Change(f"by {kind}", "", " ".join(packages)),)))


def _why(tools: tuple[str, ...], *, new: bool) -> str:
    if new and "libvirtd" in tools:
        return "libvirt and QEMU are not installed"
    return f"not installed: {', '.join(tools)}"


# -- IOMMU ------------------------------------------------------------------------------------------------------------

def iommu_comes(view: View) -> bool:
    """Whether the host's IOMMU is to be switched on, and is not yet: who can have which device is not known before."""
    return view.host.iommu and view.facts.iommu is not None and not view.facts.iommu.on


def plan_iommu(view: View, draft: Draft) -> None:
    """The IOMMU on, where the file wants it: in firmware by hand, in the kernel by us, in use after a reboot."""
    iommu, host = view.facts.iommu, view.host
    if iommu is None or not iommu_comes(view):
        return
    if iommu.table is None:
        draft.refuse(f"host {host.name}: `iommu: true`, but its firmware tells of no IOMMU",
                     "switch on VT-d (Intel) or AMD-Vi / IOMMU (AMD) in the firmware's set-up, often below Processor "
                     "or Chipset; then apply again", host.where)
        return
    arguments = _VENDOR_ARGUMENTS[iommu.table]
    if set(arguments) <= set(view.facts.platform.cmdline.split()):
        draft.refuse(f"host {host.name}: the kernel was started with {' '.join(arguments)}, and its firmware has a "
                     f"{iommu.table} table, but no IOMMU is in use",
                     f"see what the kernel says of it: dmesg | grep -e {iommu.table} -e IOMMU; {_TABLES[iommu.table]} "
                     "may be switched off, or broken, in the firmware", host.where)
        return
    _plan_arguments(view, arguments, draft)


def drop_in(arguments: tuple[str, ...]) -> str:
    """The text of our file for GRUB: it adds to what the administrator's own line says."""
    return ("# Written by vmwright, to take away again: vmwright release; changes here are told as drift.\n"
            f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {" ".join(arguments)}"\n')


def _plan_arguments(view: View, arguments: tuple[str, ...], draft: Draft) -> None:
    host, platform = view.host, view.facts.platform
    tool = next((tool for tool in ("grubby", "update-grub") if tool in platform.tools), None)
    if tool is None:
        draft.refuse(f"host {host.name}: its kernel must be started with {' '.join(arguments)}, and it has neither "
                     "update-grub nor grubby", "add them to the kernel's command line by hand, and reboot", host.where)
        return
    text = drop_in(arguments)
    if tool == "update-grub":
        files = to_write(view, (NewFile(GRUB_DROP_IN, text),), draft)
        if files is None:
            return
    why = "the IOMMU is not in use, and devices cannot be passed through without it"
    if tool != "update-grub" or files:
        draft.actions.append(SetKernelArguments(
            host=host.name, arguments=arguments, tool=tool, text=text, why=why,
            changes=(Change("adds", "", " ".join(arguments)), Change("by", "", _by(tool)))))
    _plan_reboot(view, f"the kernel reads its arguments ({' '.join(arguments)}) when it starts", draft)


def _by(tool: str) -> str:
    return "grubby" if tool == "grubby" else f"{GRUB_DROP_IN} and update-grub"


# -- reboot -----------------------------------------------------------------------------------------------------------

def _plan_reboot(view: View, why: str, draft: Draft) -> None:
    host = view.host
    if host.connect == "local":
        draft.warnings.append(f"host {host.name}: {why}: reboot it when it suits you, and apply again then; vmwright "
                              "does not reboot the machine that it runs on")
        return
    on = [domain for domain in view.facts.domains if domain.state is not DomainState.SHUTOFF]
    ours = tuple(domain.name for domain in on if view.owner(domain))
    others = [domain.name for domain in on if not view.owner(domain)]
    if others:
        draft.warnings.append(f"host {host.name}: VMs that are not this cloud's go down with it: {', '.join(others)}")
    draft.actions.append(Reboot(
        host=host.name, boot=view.facts.platform.boot, stop=_in_order(view, ours), why=why,
        needs=tuple(a.id for a in draft.actions if isinstance(a, Prepare) and a.host == host.name),
        effects=frozenset({Effect.REBOOTS} | ({Effect.STOPS} if on else set())),
        changes=tuple(Change(f"vm {name}", "running", "shut down") for name in _in_order(view, ours))))


def _in_order(view: View, names: tuple[str, ...]) -> tuple[str, ...]:
    """What was started last goes down first."""
    def rank(name: str) -> int:
        vm = view.listed.get(name)
        order = vm.start_order.order if vm else None
        return order if order is not None else 1 << 31

    return tuple(sorted(names, key=lambda name: -rank(name)))
