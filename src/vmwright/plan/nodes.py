"""Does it fit the host's CPUs and NUMA nodes? Pins, memory of each node, huge pages; before anything is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeGuard

from vmwright.facts.model import ConfigFacts, DomainFacts, Placement
from vmwright.plan.action import Action
from vmwright.plan.actions import CreateVm, DestroyVm, RebuildVm, RestartVm, StartVm, UpdateVm, VmAction
from vmwright.plan.place import place
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import VmSpec
from vmwright.units import GIB, MIB, format_cpuset, format_size

# What the kernel and QEMU itself take, of each node: a share of it, as page tables and the like grow with the memory.
_LEAST_RESERVE, _RESERVE_SHARE = 128 * MIB, 64
_ONLY_THERE = ("strict", "restrictive")
_STEP = 64 * MIB  # offers are rounded down to it
_SHOWN = 5  # VMs named in one sentence


def check_nodes(view: View, draft: Draft) -> None:
    """All checks of where VMs run on this host, from what the draft has planned."""
    for vm in view.vms:
        _check_cpus(view, vm, draft)
        _tell_shared(view, vm, draft)
    if not view.facts.nodes:
        return
    starting, will = _starting(view, draft), _will_run(view, draft)
    changed = {a.vm.name for a in draft.actions if a.host == view.host.name and _takes_place(a)}
    for pages in sorted({0, *(demand.pages for demand in (*starting, *will))}):
        ever = [demand for demand in will if demand.pages == pages]
        now = [demand for demand in starting if demand.pages == pages]
        refused = _check_ever(view, ever, pages, changed, draft)
        _check_now(view, now, pages, refused, draft)


def _takes_place(action: Action) -> TypeGuard[VmAction]:
    """Whether a VM starts by it, or has another place or memory after it."""
    if isinstance(action, UpdateVm):
        return action.placement is not None or action.memory is not None
    return isinstance(action, CreateVm | StartVm | RestartVm)


@dataclass(frozen=True)
class Bound:
    """What is to be on these nodes and nowhere else, and what there is room for, in bytes; `pages` as in a placement.
    """

    nodes: tuple[int, ...]
    pages: int
    size: int
    room: int
    vms: tuple[str, ...]


def bound(view: View) -> tuple[Bound, ...]:
    """What VMs bind to nodes when all run that should, for each set of nodes: the figures that are checked below."""
    will = _will_run(view, Draft()) if view.facts.nodes else []
    return tuple(_bound_inside([demand for demand in will if demand.pages == pages], nodes, view)
                 for pages in sorted({demand.pages for demand in will})
                 for nodes in _sets(demand for demand in will if demand.pages == pages))


def _bound_inside(demands: list[_Demand], nodes: frozenset[int], view: View) -> Bound:
    inside = [demand for demand in demands if demand.nodes <= nodes]
    pages = inside[0].pages
    return Bound(tuple(sorted(nodes)), pages, sum(demand.size for demand in inside),
                 sum(_capacity(view, node, pages) for node in nodes), tuple(_summed(inside)))


# ---- CPUs ----


def _check_cpus(view: View, vm: VmSpec, draft: Draft) -> None:
    """CPUs that the host does not have, or that are offline."""
    if vm.pin is None:
        return
    there = view.cpus.keys() or set(range(view.facts.cpus))
    named = {*vm.pin.cpus, *vm.pin.emulator}
    where = vm.keys.get("pin", vm.where)
    if missing := named - there:
        draft.refuse(f"vm {vm.name}: pinned to CPU {format_cpuset(missing)}, and host {view.host.name} has "
                     f"{format_cpuset(there)}", "name CPUs that it has: see `vmwright facts`", where)
    if offline := format_cpuset(number for number in named & view.cpus.keys() if not view.cpus[number].online):
        draft.refuse(f"vm {vm.name}: pinned to CPU {offline}, which is offline on host {view.host.name}",
                     f"bring it up there (chcpu -e {offline}), or name others", where)


def _tell_shared(view: View, vm: VmSpec, draft: Draft) -> None:
    """A core that two VMs are pinned to is half a core for each; nothing else would say so."""
    if vm.pin is None:
        return
    own = frozenset(vm.pin.cpus)
    siblings = {other for cpu in own & view.cpus.keys() for other in view.cpus[cpu].siblings} - own
    told = [f"shared with {names}"] if (names := _bound_to(view, own, vm.name)) else []
    told += [f"on the same cores as those of {names}"] if (names := _bound_to(view, siblings, vm.name)) else []
    if told:
        its = f"CPUs {format_cpuset(own)} are" if len(own) > 1 else f"CPU {vm.pin.cpus[0]} is"
        draft.warnings.append(f"vm {vm.name}: its {its} {', and '.join(told)}")


def _bound_to(view: View, cpus: Collection[int], but: str) -> str:
    """The other VMs that are bound to some of these CPUs, and to which; a few by name, more by their number."""
    found = {pins: pins & frozenset(cpus) for cpu in cpus for pins in view.pinned.get(cpu, ())}
    rows = sorted((name, format_cpuset(both)) for pins, both in found.items()
                  for name in view.pins[pins][:_SHOWN + 1] if name != but)
    count = sum(len(view.pins[pins]) - (but in view.pins[pins]) for pins in found)
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    return ", ".join(f"{name} ({both})" for name, both in rows[:_SHOWN]) + more


# ---- memory ----


@dataclass(frozen=True)
class _Demand:
    """Memory that a VM has on these nodes and nowhere else; `pages`: the size of huge pages, 0 for ordinary ones."""

    vm: str
    nodes: frozenset[int]
    size: int
    pages: int
    ours: bool = True  # the file can change it


def _demands(view: View, name: str, placement: Placement, memory: int) -> Iterator[_Demand]:
    """What a VM binds to nodes. Huge pages are on some node in any case."""
    strict = placement.memory in _ONLY_THERE
    if not strict and not placement.hugepages:
        return
    parts = [(cell.nodes or placement.nodes, cell.memory) for cell in placement.cells] or [(placement.nodes, memory)]
    for nodes, size in parts:
        bound = frozenset(view.nodes).intersection(nodes if strict else ()) or frozenset(view.nodes)
        yield _Demand(name, bound, size, placement.hugepages, name in view.listed)


def _starting(view: View, draft: Draft) -> list[_Demand]:
    """What is about to be taken: of VMs that are started by this plan."""
    actions = [a for a in draft.actions if isinstance(a, VmAction) and a.host == view.host.name]
    updates = {a.vm.name: a for a in actions if isinstance(a, UpdateVm)}
    found: list[_Demand] = []
    for action in actions:
        domain = view.domains.get(action.vm.name)
        if isinstance(action, CreateVm) and action.vm.running:
            found += _demands(view, action.vm.name, action.placement, action.vm.memory)
        elif isinstance(action, StartVm | RestartVm) and domain:
            placement, memory = _at_start(domain.persistent, updates.get(action.vm.name))
            found += _demands(view, action.vm.name, placement, memory)
        if isinstance(action, RebuildVm | RestartVm) and domain and domain.live:
            found += [_Demand(d.vm, d.nodes, -d.size, d.pages) for d in _given_back(view, domain.live, domain)]
    return found


def _at_start(config: ConfigFacts, update: UpdateVm | None) -> tuple[Placement, int]:
    placement = update.placement if update and update.placement is not None else config.placement
    return placement, update.memory if update and update.memory is not None else config.memory


def _given_back(view: View, live: ConfigFacts, domain: DomainFacts) -> Iterator[_Demand]:
    """What a VM frees where it is known where that is; on a host of one node it always is."""
    yield from _demands(view, domain.name, live.placement, live.memory)
    if len(view.nodes) == 1 and live.placement.memory not in _ONLY_THERE and not live.placement.hugepages:
        yield _Demand(domain.name, frozenset(view.nodes), live.memory, 0)


def _will_run(view: View, draft: Draft) -> list[_Demand]:
    """What is bound to nodes when all run that should: VMs of the file as it says, others as they are."""
    leaving = {a.name for a in draft.actions if isinstance(a, DestroyVm) and a.host == view.host.name}
    planned = {vm.name for vm in view.vms}
    found: list[_Demand] = []
    for vm in view.listed.values():
        domain = view.domains.get(vm.name)
        if vm.name in planned and (vm.running or (domain and domain.live)):
            ours = vm.pin is not None or view.pinned_by_us(domain)
            placement = place(view, vm) if ours or domain is None else domain.persistent.placement
            found += _demands(view, vm.name, placement, vm.memory)
    for domain in view.facts.domains:
        stays_off = domain.live is None and (domain.name in view.listed or not domain.autostart)
        if domain.name not in planned | leaving and not stays_off:
            config = domain.live or domain.persistent
            found += _demands(view, domain.name, config.placement, config.memory)
    return found


def _check_ever(view: View, demands: list[_Demand], pages: int, changed: set[str],
                draft: Draft) -> list[frozenset[int]]:
    """For each set of nodes: is there room for all that is bound inside it? Returns the sets without.

    What is so already and is not touched by this plan is no reason to refuse it.
    """
    refused: list[frozenset[int]] = []
    for nodes in _sets(demands):
        inside = [demand for demand in demands if demand.nodes <= nodes]
        room = sum(_capacity(view, node, pages) for node in nodes)
        if sum(d.size for d in inside) <= room or not changed & {d.vm for d in inside} or _within(nodes, refused):
            continue
        refused.append(nodes)
        has = sum(_total(view, node, pages) for node in nodes)
        said = f"has {_size(has, pages)}" if pages else f"has {_size(has, 0)} of memory, {_size(room, 0)} of it for VMs"
        _refuse(view, inside, nodes, pages, said, min(room, _reachable(view, inside, nodes, pages)), draft)
    return refused


def _check_now(view: View, demands: list[_Demand], pages: int, refused: list[frozenset[int]], draft: Draft) -> None:
    """For each set of nodes: does what is to start bound inside it fit into what is free there?"""
    for nodes in _sets(demands):
        inside = [demand for demand in demands if demand.nodes <= nodes]
        back = -sum(d.size for d in inside if d.size < 0)
        starts = [demand for demand in inside if demand.size > 0]
        free = sum(_free(view, node, pages) for node in nodes) + back
        if sum(d.size for d in starts) <= free or _within(nodes, refused):
            continue
        refused.append(nodes)
        has = sum(_total(view, node, pages) for node in nodes)
        said = f"has {_size(free, pages)} free now, of {_size(has, pages)}"
        _refuse(view, starts, nodes, pages, said, free, draft)


def _reachable(view: View, inside: list[_Demand], nodes: frozenset[int], pages: int) -> int:
    """What is free on these nodes, with what these VMs have there already."""
    found = sum(_free(view, node, pages) for node in nodes)
    for name in {demand.vm for demand in inside}:
        domain = view.domains.get(name)
        held = _demands(view, name, domain.live.placement, domain.live.memory) if domain and domain.live else ()
        found += sum(demand.size for demand in held if demand.nodes <= nodes and demand.pages == pages)
    return found


def _sets(demands: Iterable[_Demand]) -> list[frozenset[int]]:
    """The sets of nodes that VMs are bound to, small ones first."""
    return sorted({demand.nodes for demand in demands}, key=lambda nodes: (len(nodes), sorted(nodes)))


def _within(nodes: frozenset[int], refused: list[frozenset[int]]) -> bool:
    """Whether a part of these nodes was refused already: one thing at a time."""
    return any(other <= nodes for other in refused)


def _total(view: View, node: int, pages: int) -> int:
    facts = view.nodes[node]
    huge = [page for page in facts.hugepages if not pages or page.size == pages]
    set_aside = sum(page.total * page.size for page in huge)
    return set_aside if pages else facts.memory - set_aside


def _capacity(view: View, node: int, pages: int) -> int:
    total = _total(view, node, pages)
    return total if pages else for_guests(total)


def for_guests(memory: int) -> int:
    """What is there for VMs of so many bytes of a node's memory."""
    return max(0, memory - max(_LEAST_RESERVE, memory // _RESERVE_SHARE))


def _free(view: View, node: int, pages: int) -> int:
    facts = view.nodes[node]
    if pages:
        return sum(page.free * page.size for page in facts.hugepages if page.size == pages)
    return max(0, facts.free + facts.reclaimable - _LEAST_RESERVE)


def _refuse(view: View, inside: list[_Demand], nodes: frozenset[int], pages: int, has: str, room: int,
            draft: Draft) -> None:
    vms = _summed(inside)
    largest = sorted(vms.items(), key=lambda row: (-row[1], row[0]))
    shown = ", ".join(f"{name} {format_size(size)}" for name, size in largest[:_SHOWN])
    shown += f" and {len(largest) - _SHOWN} more" if len(largest) > _SHOWN else ""
    ours = [view.listed[demand.vm] for demand in inside if demand.ours]
    wanted = _size(sum(vms.values()), pages)
    draft.refuse(f"{_names(nodes)} of host {view.host.name} {has}, and {wanted} are to be there "
                 f"and nowhere else: {shown}",
                 "; or ".join(_offers(view, inside, nodes, pages, room)),
                 ours[0].keys.get("pin", ours[0].where) if ours else None)


def _summed(demands: Iterable[_Demand]) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for demand in demands:
        found[demand.vm] += demand.size
    return dict(found)


def _offers(view: View, inside: list[_Demand], nodes: frozenset[int], pages: int, room: int) -> Iterator[str]:
    """What would fit."""
    ours = _summed(demand for demand in inside if demand.ours)
    many = len(ours) > 1
    yield _less(view, ours, room - sum(demand.size for demand in inside if not demand.ours), pages)
    yield "have more of them set aside on the host; or say `hugepages: false` in the pin" if pages else \
        "say `pin: {cpus: ..., memory: preferred}`"
    others = {node: _free(view, node, pages) for node in sorted(view.nodes.keys() - nodes)}
    if more := ", ".join(f"{node} ({_size(free, pages)} free)" for node, free in others.items() if free >= _STEP):
        yield f"pin {'some of them' if many else 'it'} to CPUs of two nodes, or of another node: {more}"


def _less(view: View, ours: dict[str, int], room: int, pages: int) -> str:
    """The memory that each could have, where that can be told."""
    step, alike = pages or _STEP, len(set(ours.values())) == 1
    each = room // (len(ours) if alike else 1) // step * step
    if each <= 0 or any(view.listed[name].memory != size for name, size in ours.items()):
        return "give less `memory:`, or stop others there"
    whom, how = ("it", "") if len(ours) == 1 else ("them", " each" if alike else " in all")
    return f"give {whom} at most {_size(each, 0)} of `memory:`{how}"


def _names(nodes: Collection[int]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {format_cpuset(nodes)}"


def _size(size: int, pages: int) -> str:
    """Figures that are compared: to the MiB, or counted in pages."""
    if pages:
        return f"{size // pages} huge pages of {format_size(pages)}"
    return format_size(size) if size % GIB == 0 or size < GIB else f"{size // MIB}M"
