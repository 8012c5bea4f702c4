"""Huge pages of a host: how many on each NUMA node, now and at each boot. Pure.

A drop-in of systemd-tmpfiles writes the numbers into sysfs, early at boot, when memory is still in one piece; what the
kernel's command line or others set aside is overwritten by it for the sizes that the file names. Sysfs is as in the
kernel's Documentation/ABI/testing/sysfs-kernel-mm-hugepages, by node as in sysfs-devices-node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from vmwright.facts.model import HugepageFacts, NodeFacts
from vmwright.names import HUGE_PAGES
from vmwright.netconfig.common import NewFile
from vmwright.plan.action import Change, Sign
from vmwright.plan.actions import AS_ASKED, Kept
from vmwright.plan.host_actions import PrepareFiles, WriteFiles
from vmwright.plan.nodes import for_guests
from vmwright.plan.own_files import is_anothers, leftover, mark, to_write
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import HugePages
from vmwright.units import KIB, MIB, format_size, some

_WHAT = "huge pages"
_LEFT = 512 * MIB  # of a node's free memory, for the host
_SHOWN = 5  # VMs named in one sentence
Counts = Mapping[int, Mapping[int, int]]  # how many, by size and node


def plan_hugepages(view: View, draft: Draft) -> View:
    """What sets pages aside, where the numbers are other ones; its removal where the file asks for none.

    Returns the host as it will be then: the rest of the plan is for that one.
    """
    wanted = _plan(view, draft)
    if not any(isinstance(action, PrepareFiles) and (action.host, action.what) == (view.host.name, _WHAT)
               for action in draft.actions):
        return view
    nodes = tuple(_with(node, wanted) for node in view.facts.nodes)
    return replace(view, facts=replace(view.facts, nodes=nodes))


def _with(node: NodeFacts, wanted: Counts) -> NodeFacts:
    """A node with these pages, as far as its free memory goes."""
    free, found = node.free + node.reclaimable, list[HugepageFacts]()
    for pages in node.hugepages:
        more = wanted.get(pages.size, {}).get(node.number, pages.total) - pages.total
        more = max(-pages.free, min(more, free // pages.size))
        free -= more * pages.size
        found.append(replace(pages, total=pages.total + more, free=pages.free + more))
    return replace(node, free=max(0, free - node.reclaimable), hugepages=tuple(found))


def _plan(view: View, draft: Draft) -> Counts:
    host = view.host
    if not host.hugepages:
        if leftover(view, HUGE_PAGES, draft):
            draft.actions.append(WriteFiles(
                host=host.name, what=_WHAT, remove=(HUGE_PAGES,), sign=Sign.REMOVE,
                why="the file does not ask for them any more",
                changes=(Change("pages", "", "as the host has them itself, from its next boot on"),)))
        return {}
    if is_anothers(view, HUGE_PAGES, _WHAT, draft):
        return {}
    refused = len(draft.refused)
    wanted = {pages.size: _shared_out(view, pages, draft) for pages in host.hugepages}
    _check_memory(view, wanted, draft)
    _check_vms(view, wanted, draft)
    if len(draft.refused) == refused:
        _plan_counts(view, wanted, draft)
    return wanted


def _shared_out(view: View, pages: HugePages, draft: Draft) -> dict[int, int]:
    """The number for each node; none where that is refused."""
    nodes, size = [node.number for node in view.facts.nodes], format_size(pages.size)
    if not nodes or not all(_of(node, pages.size) for node in view.facts.nodes):
        draft.refuse(f"host {view.host.name}: its kernel has no huge pages of {size}",
                     "name a size that it has: ls /sys/kernel/mm/hugepages", pages.where)
        return {}
    if len(pages.counts) == 1:
        each, rest = divmod(pages.counts[0], len(nodes))
        return {node: each + (place < rest) for place, node in enumerate(nodes)}
    if len(pages.counts) != len(nodes):
        draft.refuse(f"host {view.host.name}: {len(pages.counts)} numbers of huge pages of {size} are given, and it "
                     f"has {len(nodes)} NUMA node{'s' * (len(nodes) != 1)}",
                     "give a number for each node, or one in all", pages.where)
        return {}
    return dict(zip(nodes, pages.counts, strict=True))


def _of(node: NodeFacts, size: int) -> HugepageFacts | None:
    return next((pages for pages in node.hugepages if pages.size == size), None)


def _check_memory(view: View, wanted: Counts, draft: Draft) -> None:
    """All of them together must fit the node, with something left for the host itself."""
    for node in view.facts.nodes:
        asked = sum(size * counts.get(node.number, 0) for size, counts in wanted.items())
        room = for_guests(node.memory)
        if asked > room:
            draft.refuse(f"host {view.host.name}: huge pages of {format_size(asked)} are to be on node {node.number}, "
                         f"which has {format_size(node.memory)} of memory, {format_size(room)} of it for VMs",
                         "ask for fewer, or say how many on each node: {2M: [4096, 0]}",
                         view.host.keys.get("hugepages", view.host.where))


def _check_vms(view: View, wanted: Counts, draft: Draft) -> None:
    """What is set aside is gone for VMs of ordinary memory: those that are to run must fit beside it."""
    asked = sum(size * count for size, counts in wanted.items() for count in counts.values())
    ordinary = {vm.name: vm.memory for vm in view.listed.values()
                if vm.running and (vm.pin is None or vm.pin.hugepages == 0)}
    ordinary |= {domain.name: domain.live.memory for domain in view.facts.domains
                 if domain.live and domain.name not in view.listed and not domain.live.placement.hugepages}
    room, memory = for_guests(view.facts.memory), sum(ordinary.values())
    if ordinary and asked + memory > room:
        draft.refuse(f"host {view.host.name}: huge pages of {format_size(asked)} leave too little for VMs that are not "
                     f"made of them: {format_size(memory)} of {format_size(room)} ({some(list(ordinary), _SHOWN)})",
                     "ask for fewer, or pin these VMs with `hugepages: true`",
                     view.host.keys.get("hugepages", view.host.where))


def _fits_now(view: View, wanted: Counts) -> bool:
    """Whether there is free memory for all of them; the kernel would take it from what runs, else."""
    for node in view.facts.nodes:
        more = sum(size * (counts.get(node.number, 0) - pages.total) for size, counts in wanted.items()
                   if (pages := _of(node, size)))
        if more > max(0, node.free + node.reclaimable - _LEFT):
            return False
    return True


def _plan_counts(view: View, wanted: Counts, draft: Draft) -> None:
    host = view.host
    if not view.facts.platform.systemd:
        draft.refuse(f"host {host.name}: systemd is not running there, which sets huge pages aside at boot",
                     "set them aside by the kernel's command line (hugepages=), and take the key out",
                     host.keys.get("hugepages", host.where))
        return
    files = to_write(view, (NewFile(HUGE_PAGES, text(view.cloud.name, wanted)),), draft)
    if files is None:
        return
    changes = tuple(_changes(view, wanted))
    if files and not _fits_now(view, wanted):
        draft.actions.append(WriteFiles(
            host=host.name, what=_WHAT, files=files,
            why="they come at the host's next boot: there is not enough free memory for them now",
            changes=tuple(replace(change, when="at next boot") for change in changes)))
    elif files:
        draft.actions.append(PrepareFiles(
            host=host.name, what=_WHAT, files=files, after=(("systemd-tmpfiles", "--create", HUGE_PAGES),),
            why="the host has others" if changes else "so that it has them at each boot, too",
            changes=changes or (Change("at boot", "", ", ".join(_say(wanted))),)))
    elif changes:
        rows = "; ".join(f"{change.key}: {change.old}, not {change.new}" for change in changes)
        draft.warnings.append(f"host {host.name}: huge pages are not as {HUGE_PAGES} says: {rows}. Where its memory is "
                              "in pieces they come at its next boot; to try again now: systemd-tmpfiles --create "
                              f"{HUGE_PAGES}")
    else:
        draft.kept.append(Kept(host.name, _WHAT, AS_ASKED))


def text(cloud: str, wanted: Counts) -> str:
    """The drop-in: lines of tmpfiles.d(5), which write a number into a file each."""
    rows = [f"w /sys/devices/system/node/node{node}/hugepages/hugepages-{size // KIB}kB/nr_hugepages - - - - {count}\n"
            for size, counts in wanted.items() for node, count in counts.items()]
    return mark(cloud) + "".join(rows)


def _changes(view: View, wanted: Counts) -> Iterator[Change]:
    for node in view.facts.nodes:
        for size, counts in wanted.items():
            there = _of(node, size)
            if there and there.total != counts[node.number]:
                yield Change(f"node {node.number}, {format_size(size)}", str(there.total), str(counts[node.number]))


def _say(wanted: Counts) -> Iterator[str]:
    for size, counts in wanted.items():
        for node, count in counts.items():
            yield f"{count} of {format_size(size)} on node {node}"
