"""What takes everything of vmwright's off a host again, and leaves VMs and data alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vmwright.boot import files
from vmwright.names import ASIDE_LIST, FILTER_RULE, FILTER_SETTINGS, GRUB_DROP_IN, HOST_STATE, HUGE_PAGES, KERNEL_NOTE
from vmwright.plan.action import Change, Sign
from vmwright.plan.actions import Kept, UpdateVm
from vmwright.plan.aside import plan_nothing_aside
from vmwright.plan.boot import plan_boot
from vmwright.plan.host_actions import WriteFiles
from vmwright.plan.own_files import released
from vmwright.plan.services import plan_no_services
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import Cloud, StartOrder

_WHY = "the host is released"
# Files by what they are for, and what must know when they are gone. What holds only until the next boot is left so.
_PLAIN: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = (
    ("bridge filter", (FILTER_SETTINGS, FILTER_RULE), (("udevadm", "control", "--reload"),)),
    ("huge pages", (HUGE_PAGES,), ()),
    ("kernel arguments", (GRUB_DROP_IN,), (("update-grub",),)),
)


def plan_release(view: View, draft: Draft) -> None:
    """Files, units and settings go; told is what stays."""
    for what, paths, after in _PLAIN:
        remove = tuple(path for path in paths if released(view, path, draft))
        if remove:
            draft.actions.append(WriteFiles(
                host=view.host.name, what=what, remove=remove, after=after, sign=Sign.REMOVE, why=_WHY,
                changes=tuple(Change("file", path, "as before vmwright") for path in remove)))
    _plan_grubby(view, draft)
    if released(view, ASIDE_LIST, draft):
        plan_nothing_aside(view, _WHY, draft)
    plan_no_services(view, draft)
    _plan_order(view, draft)
    _warn_of_vms(view, draft)
    draft.kept += _stays(view)


def _warn_of_vms(view: View, draft: Draft) -> None:
    """VMs stay, and some of them need what goes."""
    needing = sorted(domain.name for domain in view.facts.domains
                     if domain.persistent.hostdevs or domain.persistent.placement.hugepages)
    if needing and draft.actions:
        draft.warnings.append(f"host {view.host.name}: {', '.join(needing)} {'has' if len(needing) == 1 else 'have'} "
                              "devices or huge pages, and may not start after the host's next boot: it starts without "
                              "what vmwright has set for them")


def _plan_grubby(view: View, draft: Draft) -> None:
    arguments = (view.facts.platform.file(KERNEL_NOTE).text or "").split()
    if arguments:
        draft.actions.append(WriteFiles(
            host=view.host.name, what="kernel arguments", remove=(KERNEL_NOTE,), sign=Sign.REMOVE, why=_WHY,
            after=(("grubby", "--update-kernel=ALL", f"--remove-args={' '.join(arguments)}"),),
            changes=(Change("arguments", " ".join(arguments), "removed, from the next boot on"),)))


def _plan_order(view: View, draft: Draft) -> None:
    """VMs that our unit has started with the host are libvirt's to start, in no order."""
    had = {row.name for row in files.parse_list(view.facts.boot.order or "")}
    for vm in view.listed.values():
        domain = view.domains.get(vm.name)
        if vm.name in had and domain and view.owner(domain) and not domain.autostart:
            draft.actions.append(UpdateVm(host=view.host.name, vm=vm, autostart=True, why=_WHY,
                                          changes=(Change("autostart", "in order", "by libvirt"),)))
    plan_boot(_without_order(view), draft)


def _without_order(view: View) -> View:
    """The same file, where no VM has an order."""
    vms = tuple(replace(vm, start_order=StartOrder()) for vm in view.cloud.vms)
    return replace(view, cloud=replace(view.cloud, vms=vms))


def _stays(view: View) -> Iterator[Kept]:
    host = view.host.name
    wiring = view.facts.wiring
    for file in wiring.files if wiring else ():
        if file.ours is not None and file.text is not None:
            yield Kept(host, file.path, "stays: the host is reached, and VMs reach others, over its bridge")
    count = sum(1 for domain in view.facts.domains if view.owner(domain))
    if count:
        yield Kept(host, f"{count} VM{'s' * (count != 1)}", "stay, with their disks, pools and networks")
    yield Kept(host, HOST_STATE, "stays: what templates are made of, and whose data is on which drive")
    yield Kept(host, "packages", "stay, and so do services that were started with them")


def others_there(view: View, cloud: Cloud) -> tuple[str, ...]:
    """Other clouds that have VMs on the host."""
    owners = (domain.persistent.owner for domain in view.facts.domains)
    return tuple(sorted({owner.cloud for owner in owners if owner and owner.cloud != cloud.name}))
