"""How often libvirt is asked: per VM, and the same however many there are. Counted where every call passes through."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
from tests.local.kit import Kit

from vmwright.apply.execute import Outcome, Run, execute
from vmwright.apply.journal import Journal
from vmwright.cli.common import with_images
from vmwright.errors import Busy
from vmwright.facts.gather import gather
from vmwright.facts.model import HostFacts
from vmwright.plan.diff import make_plan
from vmwright.session import Sessions
from vmwright.spec.load import load
from vmwright.state import State

AT_MOST = 6  # calls for a new VM, once the listings have been read
PATIENCE = 300.0  # seconds for another vmwright to be done with this machine


class Silent:
    """A reporter that tells nobody."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@dataclass(frozen=True)
class Counted:
    """One run: the calls to libvirt that change something, and those of waiting and the guest agent."""

    doing: int
    waiting: int
    outcome: Outcome


@pytest.fixture(autouse=True)
def state(cloud: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process runs keeps its state in the test's folder, as the kit's commands do."""
    monkeypatch.setenv("XDG_STATE_HOME", cloud.environment["XDG_STATE_HOME"])


def apply(cloud: Kit, vms: str) -> Counted:
    """Make it so, in this process, and count; anew when another vmwright was at work."""
    cloud.write(vms or "  {}\n")
    wanted, _ = with_images(load(str(cloud.file)))
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with Sessions(wanted.hosts) as sessions, Journal(State.of(cloud.name).journals, "apply") as journal:
                virt = sessions["here"].virt
                found = gather(wanted, sessions)
                before = virt.calls
                run = Run(wanted, found, sessions, State.of(cloud.name), journal, Silent(), threading.Event())
                outcome = execute(make_plan(wanted, found), run)
                return Counted(virt.calls - before, virt.agent_calls, outcome)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(2)


def read(cloud: Kit) -> tuple[HostFacts, int]:
    """The facts, and the calls that they took."""
    wanted = load(str(cloud.file))
    with Sessions(wanted.hosts) as sessions:
        facts = gather(wanted, sessions)
        return facts.host("here"), sessions["here"].virt.calls


def vms(cloud: Kit, count: int, more: str = "running: false") -> str:
    """So many VMs of nothing but an empty disk."""
    return "".join(
        f"  {cloud.name}-{n}: {{template: blank, firmware: bios, memory: 64M, pool: {cloud.name}-pool, "
        f"network: {cloud.name}-net, address: {cloud.subnet}.{10 + n}, {more}}}\n" for n in range(count))


def allowed(facts: HostFacts) -> int:
    """What one reading may ask: eight questions about the host, and so many about each thing that there is."""
    running = sum(domain.state == "running" for domain in facts.domains)
    active = sum(pool.active for pool in facts.pools)
    return (8 + len(facts.domains) + running + 3 * len(facts.pools) + 2 * active + len(facts.volumes)
            + 3 * len(facts.networks))


def test_reading_asks_once_about_each_thing(cloud: Kit) -> None:
    """A listing per kind and a description per thing, however many there are: nothing is asked per pair."""
    for count in (2, 8):
        assert apply(cloud, vms(cloud, count)).outcome.error() is None
        # Somebody else's things may go away while they are looked at, so the best of three counts.
        facts, calls = min((read(cloud) for _ in range(3)), key=lambda one: one[1] - allowed(one[0]))
        assert len(facts.domains) >= count
        assert calls <= allowed(facts)


def test_a_second_apply_asks_for_nothing(cloud: Kit) -> None:
    """No call, however small, is made to change what is as it should be."""
    assert apply(cloud, vms(cloud, 1)).doing > 0
    assert apply(cloud, vms(cloud, 1)).doing == 0


@pytest.mark.parametrize(("more", "each"), [
    ("running: false", 2),  # the root disk and the definition
    ("running: false, autostart: true, disks: {data: 64M, logs: 64M}", 5),
    ("running: false, copy: full", 1),  # the definition: the copy is made beside libvirt
])
def test_calls_per_new_vm_do_not_grow(cloud: Kit, more: str, each: int) -> None:
    """Pool, network and template apart, each VM costs the same, whether one is made or five are."""
    assert each <= AT_MOST
    apply(cloud, vms(cloud, 1, more))  # with it come the pool, the network and the template
    for there, new in ((1, 1), (2, 5)):
        made = apply(cloud, vms(cloud, there + new, more))
        assert made.outcome.error() is None
        assert made.doing == each * new


def test_waiting_for_a_guest_does_not_add_up(cloud: Kit) -> None:
    """A VM that is started and never becomes ready: what is asked while waiting is not part of making it."""
    apply(cloud, vms(cloud, 1))
    made = apply(cloud, vms(cloud, 1) + vms(cloud, 2, "ready_timeout: 5").splitlines()[1] + "\n")
    error = made.outcome.error()
    assert error is not None and "was not ready within 5 s" in error.what
    assert made.waiting > 3
    assert made.doing == 3  # its disk, its definition, its start
