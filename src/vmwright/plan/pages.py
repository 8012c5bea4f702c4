"""Huge pages: which VMs get them, and of which size. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmwright.facts.model import ConfigFacts
from vmwright.plan.topology import nodes_of, shares
from vmwright.plan.view import View
from vmwright.spec.cloud import ANY_PAGES, SMALLEST_PAGES, VmSpec

Needs = dict[tuple[int, ...], int]  # nodes -> pages that must be on them, on whichever


def page_size(view: View, vm: VmSpec) -> int:
    """The size of the pages that a pinned VM's memory is made of, in bytes; 0 for ordinary ones.

    Where the file leaves the choice to us, a VM that is there keeps what it has, and one that is made gets the largest
    pages of which its nodes have enough and a hugetlbfs is mounted (virt/placing.py says what a missing one means); VMs
    before it in the file are served first. Where the file asks for huge pages
    of any size and no size has enough, the smallest is told, to be refused with the figures (nodes.py).
    """
    if "pages" not in view.memo:
        view.memo["pages"] = _deal(view)
    return int(view.memo["pages"].get(vm.name, 0))


def _fixed(view: View, vm: VmSpec) -> int | None:
    """The size of a VM's pages where there is nothing to choose; None where there is."""
    asked = vm.pin.hugepages if vm.pin else 0
    if asked is not None and asked != ANY_PAGES:
        return asked
    domain = view.domains.get(vm.name)
    if domain is None or vm.name in view.request.rebuild:
        return None
    had = domain.persistent.placement.hugepages
    if had:
        return None if vm.memory % had else had
    return 0 if asked is None else None


def page_needs(view: View, vm: VmSpec, size: int) -> Needs | None:
    """The pages of that size that a pinned VM takes; None when its memory is not made of whole ones."""
    if vm.pin is None or vm.memory % size:
        return None
    return {(node,): count for node, count in shares(view, vm, size).items()} or {
        nodes_of(view, vm.pin): vm.memory // size}


def _deal(view: View) -> dict[str, int]:
    """The sizes for all VMs: those that have a size or insist on one first, then the others as the file has them."""
    left, found, choosers = _Free.of(view), dict[str, int](), list[VmSpec]()
    for vm in view.listed.values():
        fixed = _fixed(view, vm)
        if fixed is None:
            choosers.append(vm)
        else:
            found[vm.name] = fixed
            if fixed and _starts(view, vm):
                left.take(page_needs(view, vm, fixed) or {}, fixed)
    for vm in choosers:
        size = _choose(view, vm, left)
        left.take(page_needs(view, vm, size) or {} if size else {}, size)
        found[vm.name] = size or (SMALLEST_PAGES if vm.pin and vm.pin.hugepages == ANY_PAGES else 0)
    return found


def _starts(view: View, vm: VmSpec) -> bool:
    domain = view.domains.get(vm.name)
    return vm.running and (domain is None or domain.live is None or vm.name in view.request.rebuild)


def _choose(view: View, vm: VmSpec, left: _Free) -> int:
    sizes = sorted(left.sizes(), reverse=True)
    return next((size for size in sizes if (needs := page_needs(view, vm, size)) and left.has(needs, size)), 0)


class _Free:
    """Free huge pages that can be chosen, counted down while they are dealt out."""

    def __init__(self, counts: dict[tuple[int, int], int]) -> None:
        self._counts = counts

    @classmethod
    def of(cls, view: View) -> _Free:
        """Those of the host, with what VMs to be rebuilt give back."""
        counts = {(node.number, page.size): page.free for node in view.facts.nodes for page in node.hugepages
                  if page.mounted}
        for name in view.request.rebuild:
            domain = view.domains.get(name)
            for place, pages in _held(domain.live if domain else None):
                counts[place] = counts.get(place, 0) + pages
        return cls(counts)

    def sizes(self) -> set[int]:
        """The sizes to choose from."""
        return {size for _, size in self._counts}

    def has(self, needs: Mapping[tuple[int, ...], int], size: int) -> bool:
        """Whether there are enough."""
        return all(sum(self._counts.get((node, size), 0) for node in nodes) >= count for nodes, count in needs.items())

    def take(self, needs: Mapping[tuple[int, ...], int], size: int) -> None:
        """Count them down, on the first nodes first."""
        for nodes, count in needs.items():
            for node in nodes:
                taken = min(count, self._counts.get((node, size), 0))
                if taken:
                    self._counts[node, size] -= taken
                    count -= taken


def _held(config: ConfigFacts | None) -> Iterator[tuple[tuple[int, int], int]]:
    """The huge pages of a running VM, as far as it is known on which node they are."""
    placement = config.placement if config else None
    if config is None or placement is None or not placement.hugepages:
        return
    parts = [(cell.nodes, cell.memory) for cell in placement.cells] or [(placement.nodes, config.memory)]
    for nodes, memory in parts:
        if len(nodes) == 1:
            yield (nodes[0], placement.hugepages), memory // placement.hugepages
