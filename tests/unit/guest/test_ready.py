"""Waiting until a guest is ready, with a clock that only moves when it is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from tests.unit.guest import boots

from vmwright.errors import AgentSilent, Cancelled, GuestError
from vmwright.guest.agent import AgentRefused, Interface, Ran
from vmwright.guest.cloudinit import PROBE
from vmwright.guest.ready import Ready, wait_ready

SILENT = AgentSilent("the guest agent is not connected")
REFUSED = AgentRefused("the guest agent refuses guest-exec", todo="empty BLACKLIST_RPC")


@dataclass
class Booting:
    """A guest and its VM. `shows` is what a probe sees from a moment on: an output, or an error."""

    shows: Sequence[tuple[float, str | GuestError]]
    facts: Sequence[str | GuestError] = (boots.FACTS,)
    dies: float = float("inf")
    logs: dict[str, str | GuestError] = field(default_factory=dict)
    now: float = 0.0
    probes: list[float] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    asked_facts: int = 0

    def exec(self, argv: Sequence[str], *, input: bytes | None = None, timeout: float = 60.0,
             on_poll: Callable[[], None] | None = None) -> Ran:
        if argv[0] == "tail":
            return self.say(self.logs.get(argv[-1], ""))
        if argv[2] == PROBE:
            self.probes.append(self.now)
            return self.say([shown for since, shown in self.shows if since <= self.now][-1])
        self.asked_facts += 1
        return self.say(self.facts[min(self.asked_facts, len(self.facts)) - 1])

    def say(self, answer: str | GuestError) -> Ran:
        if isinstance(answer, GuestError):
            raise answer
        return Ran(0, answer, "")

    def interfaces(self) -> tuple[Interface, ...]:
        return (Interface("lo", "", ("127.0.0.1/8", "::1/128")),
                Interface("net0", "52:00:00:00:00:01", ("192.168.6.253/24", "fe80::1/64", "2001:db8::5/64")))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, timeout: float = 600, instance: str | None = None, cancel: threading.Event | None = None,
             agent_failed: Callable[[], bool] = lambda: False) -> Ready:
        return wait_ready(self, timeout=timeout, domain_alive=lambda: self.now < self.dies, instance=instance,
                          agent_failed=agent_failed, clock=lambda: self.now, sleep=self.sleep, cancel=cancel,
                          progress=self.stages.append)


def test_a_boot_to_its_end() -> None:
    guest = Booting([(0, SILENT), (20, boots.NOT_BEGUN), (22, boots.LOCAL), (25, SILENT), (30, boots.FINAL),
                     (40, boots.DONE)])
    assert guest.wait() == Ready(
        hostname="z-dev", addresses=("192.168.6.253/24", "2001:db8::5/64"),
        ssh_host_keys=("ecdsa-sha2-nistp256 AAAAE2Vj", "ssh-ed25519 AAAAC3Nz"),
        machine_id="0123456789abcdef0123456789abcdef", boot_seconds=41.07, instance="i-1")
    assert guest.stages == [
        "waiting for the guest agent", "the agent answers, cloud-init has not begun",
        "cloud-init is setting up the network", "cloud-init is installing packages and running commands",
        "cloud-init is done"]


def test_an_agent_that_is_not_to_be_had_is_told_at_once() -> None:
    """The console says so, long before the time is up; while the agent answers, nobody looks there."""
    guest, looks = Booting([(0, SILENT)]), list[float]()

    def failed() -> bool:
        looks.append(guest.now)
        return guest.now > 60

    with pytest.raises(GuestError, match="the guest agent could not be installed in the guest"):
        guest.wait(agent_failed=failed)
    assert 60 < guest.now < 70
    assert all(later - earlier >= 5 for earlier, later in pairwise(looks)) and len(looks) <= 13
    booted = Booting([(0, SILENT), (3, boots.FINAL), (90, SILENT), (100, boots.DONE)])
    assert booted.wait(agent_failed=lambda: pytest.fail("it answers"))


def test_it_asks_often_at_first_and_then_every_two_seconds() -> None:
    guest = Booting([(0, SILENT), (30, boots.DONE)])
    guest.wait()
    assert guest.probes[:6] == pytest.approx([0, 0.2, 0.6, 1.4, 3.0, 5.0])
    assert guest.probes[-1] - guest.probes[-2] == pytest.approx(2)
    assert guest.now < 32


def test_a_guest_that_is_ready_is_not_waited_for() -> None:
    guest = Booting([(0, boots.DONE)])
    guest.wait(timeout=0)
    assert guest.now == 0


def test_a_first_boot_in_which_the_agent_is_freed() -> None:
    guest = Booting([(0, SILENT), (5, REFUSED), (9, SILENT), (12, boots.DONE)])
    guest.wait()
    assert guest.stages[1] == "the agent answers, but may not run commands yet"


def test_an_agent_that_is_restarted_at_the_very_end() -> None:
    guest = Booting([(0, boots.DONE)], facts=(SILENT, boots.FACTS))
    assert guest.wait().hostname == "z-dev"
    assert guest.now == pytest.approx(0.2)


def test_warnings_are_handed_on() -> None:
    assert Booting([(0, boots.DEGRADED)]).wait().warnings == ("Unable to rename interfaces", "no time")


class TestErrors:
    def error(self, guest: Booting, **how: object) -> str:
        with pytest.raises(GuestError) as caught:
            guest.wait(**how)  # type: ignore[arg-type]
        return str(caught.value)

    def test_the_agent_never_answers(self) -> None:
        guest = Booting([(0, SILENT)])
        text = self.error(guest, timeout=100)
        assert text.startswith("the guest was not ready within 100 s\n"
                               "  why: it got this far: waiting for the guest agent\n")
        assert "the image needs qemu-guest-agent" in text
        assert guest.now == pytest.approx(100)
        assert guest.probes[-1] == pytest.approx(100)  # the last look is at the end, not a pause before it

    def test_cloud_init_takes_too_long(self) -> None:
        text = self.error(Booting([(0, SILENT), (9, boots.FINAL)]), timeout=100)
        assert "it got this far: cloud-init is installing packages and running commands" in text
        assert "ready_timeout" in text

    def test_an_agent_that_stays_blocked(self) -> None:
        text = self.error(Booting([(0, REFUSED)]), timeout=10)
        assert "it got this far: the agent answers, but may not run commands yet" in text
        assert "do:  empty BLACKLIST_RPC" in text

    def test_the_vm_stops(self) -> None:
        guest = Booting([(0, SILENT), (5, boots.LOCAL)], dies=10)
        assert self.error(guest).startswith("the VM stopped before it was ready\n  why: the last that was seen: "
                                            "cloud-init is setting up the network\n")
        assert guest.now < 13

    def test_the_vm_stops_at_once(self) -> None:
        assert "the last that was seen: nothing yet" in self.error(Booting([(0, SILENT)], dies=0))

    def test_cloud_init_fails_with_the_lines_that_say_why(self) -> None:
        guest = Booting([(0, boots.FAILED)], logs={"/var/log/cloud-init.log": boots.LOG,
                                                   "/var/log/cloud-init-output.log": boots.OUTPUT})
        text = self.error(guest)
        assert text.startswith("cloud-init failed in the guest\n  why: ('package-update-upgrade-install'")
        assert "\n       E: Unable to locate package no-such-package\n" in text
        assert "boot long ago" not in text

    def test_cloud_init_fails_and_its_logs_cannot_be_read(self) -> None:
        text = self.error(Booting([(0, boots.FAILED)], logs={"/var/log/cloud-init.log": SILENT}))
        assert text.startswith("cloud-init failed in the guest\n  why: ('package-update-upgrade-install'")

    def test_no_cloud_init(self) -> None:
        guest = Booting([(0, boots.probe(command="", instance=""))])
        assert self.error(guest).startswith("the guest has no cloud-init\n")
        assert guest.now == 0

    def test_another_seed(self) -> None:
        text = self.error(Booting([(0, boots.DONE)]), instance="i-2")
        assert text.startswith("the guest has applied another seed than its own\n"
                               "  why: it says it is instance i-1, and should be i-2\n")

    def test_its_own_seed(self) -> None:
        assert Booting([(0, boots.DONE)]).wait(instance="i-1").instance == "i-1"

    def test_cancelled(self) -> None:
        cancel = threading.Event()
        cancel.set()
        guest = Booting([(0, SILENT)])
        with pytest.raises(Cancelled):
            guest.wait(cancel=cancel)
        assert guest.probes == []

    def test_a_cancel_is_not_waited_out(self) -> None:
        """Without a sleep of its own it waits for the event, which is set while a pause of the back-off runs."""
        cancel, guest = threading.Event(), Booting([(0, SILENT)])
        timer = threading.Timer(0.3, cancel.set)
        timer.start()
        with pytest.raises(Cancelled):
            wait_ready(guest, timeout=3600, domain_alive=lambda: True, clock=lambda: 0.0, cancel=cancel)
        timer.join()
