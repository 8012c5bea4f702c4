"""Hosts as doctor sees them, for its tests: all is well on them, but for what a test changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.plan.build import cloud, made
from tests.unit.plan.simulate import Machine

from vmwright.doctor.check import Area, Check, Verdict
from vmwright.doctor.visit import Report, Visit, reports
from vmwright.facts.health import HealthFacts
from vmwright.facts.model import HostFacts
from vmwright.spec.cloud import Cloud, HostSpec

OK, NOTE, WARN, FAIL = Verdict.OK, Verdict.NOTE, Verdict.WARN, Verdict.FAIL
WELL = HealthFacts(
    virtualisation="vmx", modules=("kvm", "kvm_intel"), nested=True, vfio="module", governors=(("performance", 8),),
    forwarding=True, clock_services=("chrony",), synchronised=True, apparmor=True, denials=(), login="root",
    groups=("root",), qemu_user="libvirt-qemu", kvm_opens=True)


def applied(wanted: Cloud, machine: Machine | None = None, **changed: Any) -> HostFacts:
    """A host on which that cloud has been applied, with some of its facts changed."""
    facts = made(wanted, machine).facts(wanted)
    return replace(facts, kvm_device_mode="root:kvm 660", **changed)


def report(wanted: Cloud, host: HostFacts, *, file: bool = True, **health: Any) -> list[Report]:
    """What doctor says of one host, and of the file; without one, of this machine."""
    wanted = wanted if file else Cloud("none", (HostSpec(host.name, "local"),), (), (), (), ())
    return reports(wanted, [Visit(host.name, "local", host, replace(WELL, **health))], wanted=file)


def said(wanted: Cloud, host: HostFacts, *, file: bool = True, **health: Any) -> list[Check]:
    """All checks, of the host and of the file."""
    return [check for one in report(wanted, host, file=file, **health) for check in one.checks]


def wrong(wanted: Cloud, host: HostFacts, *, file: bool = True, **health: Any) -> list[Check]:
    """What is not fine; where in the file it stands is left out."""
    return [replace(check, where=None) for check in said(wanted, host, file=file, **health)
            if check.verdict is not OK]


def fine(area: Area, wanted: Cloud, host: HostFacts, **health: Any) -> list[str]:
    """What is fine of an area."""
    return [check.what for check in said(wanted, host, **health) if (check.area, check.verdict) == (area, OK)]


def verdicts(found: list[Check]) -> list[tuple[Verdict, str]]:
    """Checks in short."""
    return [(check.verdict, check.what) for check in found]


WEB = cloud()
