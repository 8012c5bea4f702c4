"""Devices of a VM that is there: which it gets and gives up, and whether its running self does so at once. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vmwright.facts.model import ConfigFacts, DomainFacts
from vmwright.plan.action import Effect
from vmwright.plan.devices import NETWORK, STORAGE, Dealt, Row, half_wiped, name_of
from vmwright.plan.handover import Event, hand_out
from vmwright.plan.view import Draft, View
from vmwright.spec.cloud import VmSpec

Step = tuple[str, object, tuple[str, str, str], bool]  # field of UpdateVm, its value, the change, and whether it is now


@dataclass(frozen=True)
class Plugged:
    """What differs in a VM's devices. `plug`: addresses of those that the running VM gets or gives up, too."""

    steps: tuple[Step, ...] = ()
    plug: frozenset[str] = frozenset()
    effects: frozenset[Effect] = frozenset()


def plan_plugs(view: View, vm: VmSpec, domain: DomainFacts, dealt: Dealt, ports: int, draft: Draft) -> Plugged:
    """`ports` are those that are free in the running VM for devices."""
    config, rows = domain.persistent, dealt.get(vm.name, ())
    _check_state(vm, domain, rows, draft)
    handed = hand_out(view, vm, [row for row in rows if row.address not in config.hostdevs], Event.ADD, draft)
    now = handed.given[:ports] if domain.live and _may_plug(view, domain.live) else ()
    added = [("add_devices", handed.given, (change.key, change.old, change.new), given in now)
             for given, change in zip(handed.given, handed.changes, strict=True)]
    ours = config.owner.devices if config.owner else ()
    wanted = {row.address for row in rows}
    gone = tuple(address for address in config.hostdevs if address in ours and address not in wanted)
    unplugged = [address for address in gone if _unpluggable(view, domain.live, address)]
    back = "given back to the host"
    removed = [("remove_devices", gone, (f"device {name_of(view, address)}", "passed through", back),
                address in unplugged) for address in gone]
    plug = frozenset((*unplugged, *(given.address for given in now)))
    cut = {Effect.CUTS_OFF} if any(_is(view, address, NETWORK) for address in unplugged) else set[Effect]()
    return Plugged((*added, *removed), plug, handed.effects | cut)


def _check_state(vm: VmSpec, domain: DomainFacts, rows: Collection[Row], draft: Draft) -> None:
    if domain.saved and rows:
        draft.refuse(f"vm {vm.name}: its memory is saved in a file, and it would go on from there without its devices",
                     f"start it and shut it down; or, if what it was at may be lost: virsh managedsave-remove "
                     f"{vm.name}", vm.keys.get("devices", vm.where))
    for row in rows:
        if half_wiped(row) and row.address in domain.persistent.hostdevs:
            row.refuse(vm, "was half wiped when a run was cut off, and has been given to the VM since",
                       f"vmwright rebuild {vm.name} finishes the wipe", draft)


def _may_plug(view: View, live: ConfigFacts) -> bool:
    """Whether a running VM's memory fits once all of it is pinned, as its first device makes it be."""
    return bool(live.hostdevs) or live.memory <= view.facts.memory_available


def _unpluggable(view: View, live: ConfigFacts | None, address: str) -> bool:
    """Whether the guest can do without a device at once: not without a drive, which it may have mounted."""
    if live is None or address not in live.hostdevs:
        return False
    return any(device.address == address for device in view.facts.devices) and not _is(view, address, STORAGE)


def _is(view: View, address: str, kind: str) -> bool:
    return any(device.address == address and device.kind.startswith(kind) for device in view.facts.devices)
