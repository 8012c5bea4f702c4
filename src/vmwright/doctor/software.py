"""Doctor: libvirt, QEMU, firmware and programs: are they there, and new enough for what the file asks for?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmwright.doctor.check import Area, Case, Check, Verdict, names
from vmwright.plan.checks import check_host
from vmwright.plan.groups import copies_holes
from vmwright.plan.needs import VIRTUALISATION, besides, family, firmware_remedy, package, remedy, there, tools_of
from vmwright.plan.prepare import lacking, plan_packages
from vmwright.spec.cloud import BuildSource, Filesystem, Firmware, ImageSource
from vmwright.units import parse_version
from vmwright.virt.design import effective_cpu
from vmwright.virt.placing import FREE_PAGES

_AREA = Area.SOFTWARE
_HELPERS = ("flock", "setsid", "setpriv")


def software(case: Case) -> Iterator[Check]:
    """What is installed, of which version, and what is not."""
    yield from _packages(case)
    yield from _emulation(case)
    yield from _firmware(case)
    yield from _versions(case)


# -- what is not there ------------------------------------------------------------------------------------------------

def _packages(case: Case) -> Iterator[Check]:
    missing = _missing(case)
    virtual = tuple(tool for tool in missing if tool in VIRTUALISATION)
    rest = tuple(tool for tool in missing if tool not in VIRTUALISATION)
    if virtual:
        yield _absent(case, virtual, "no VM can be made without libvirt and QEMU")
    if rest:
        yield _absent(case, rest, "templates and pools are made with them")
    elif case.view.templates or not case.wanted:
        yield Check(Verdict.OK, _AREA, "the programs that make templates are there")
    if lacks := [tool for tool in _HELPERS if tool not in case.view.facts.tools]:
        yield Check(Verdict.FAIL, _AREA, f"missing: {', '.join(lacks)}",
                    "the lock of a host, and commands that can be stopped, are made of them",
                    f"{family(case.view.facts.platform) or 'apt-get'} install util-linux")


def _missing(case: Case) -> tuple[str, ...]:
    """Programs that the file takes; without a file those of the simplest cloud."""
    view = case.view
    default: list[BuildSource | ImageSource] = [BuildSource("debian", "stable", Filesystem.EXT4)]
    sources = [template.source for template in view.templates.values()] if case.wanted else default
    wanted = [*(lacking(view) if case.wanted else VIRTUALISATION), *(tool for one in sources for tool in tools_of(one))]
    return tuple(dict.fromkeys(tool for tool in wanted if not there(tool, view.facts)))


def _absent(case: Case, tools: tuple[str, ...], why: str) -> Check:
    platform = case.view.facts.platform
    kind, by_hand = family(platform), remedy(tools, platform)
    if kind and any(tool in VIRTUALISATION for tool in tools):
        packages = dict.fromkeys([*(package(tool, kind) for tool in tools), *besides(kind)])
        by_hand = f"{kind} install {' '.join(packages)}"
    what = f"not installed: {', '.join(tools)}"
    if kind is None:
        return Check(Verdict.FAIL if case.wanted else Verdict.WARN, _AREA, what,
                     f"{why}, and vmwright knows no way to install packages on {case.view.facts.os}",
                     f"install them by hand; by Debian's names: {by_hand}", None, case.refusals(plan_packages))
    return Check(Verdict.WARN, _AREA, what, why, f"vmwright apply installs what its file needs; by hand: {by_hand}")


# -- what is there ----------------------------------------------------------------------------------------------------

def _emulation(case: Case) -> Iterator[Check]:
    facts = case.view.facts
    if facts.libvirt:
        yield Check(Verdict.OK, _AREA, f"libvirt {facts.libvirt} answers")
    if facts.emulator:
        yield Check(Verdict.OK, _AREA, f"QEMU {facts.emulator}")
    elif facts.libvirt and there("qemu-system-x86_64", facts):
        yield Check(Verdict.FAIL, _AREA, "libvirt knows no QEMU for x86_64", "it could start no VM",
                    "see what it says of it there: virsh domcapabilities", None, case.refusals(check_host))


def _firmware(case: Case) -> Iterator[Check]:
    facts = case.view.facts
    if facts.emulator is None:
        return  # it comes with QEMU
    uefi = [vm.name for vm in case.view.vms if vm.firmware is Firmware.UEFI]
    if facts.uefi:
        yield Check(Verdict.OK, _AREA, "libvirt finds UEFI firmware")
    elif uefi or not case.wanted:
        yield Check(Verdict.FAIL if uefi else Verdict.WARN, _AREA, "libvirt finds no UEFI firmware",
                    f"{names(uefi)} boot{'s' * (len(uefi) == 1)} with it" if uefi else "VMs boot with it by default",
                    f"{firmware_remedy(facts.platform)} (or say `firmware: bios`)", None, case.refusals(check_host))


# -- versions ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Need:
    """The first version of libvirt, or of QEMU, that can do something which the file takes."""

    program: str
    version: tuple[int, int]
    what: str
    verdict: Verdict = Verdict.FAIL


def needs(case: Case) -> Iterator[Need]:
    """What the file asks of libvirt and QEMU. Versions: libvirt's NEWS and headers ("Since"), QEMU's change log."""
    view = case.view
    uefi = [vm.name for vm in view.vms if vm.firmware is Firmware.UEFI]
    if view.vms:
        yield Need("libvirt", FREE_PAGES[0], "free memory given back by VMs", Verdict.WARN)
        yield Need("QEMU", FREE_PAGES[1], "free memory given back by VMs", Verdict.WARN)
    if uefi:
        yield Need("libvirt", (8, 1), f"a fresh copy of UEFI's variables when {names(uefi)} "
                   f"{'are' if len(uefi) > 1 else 'is'} rebuilt", Verdict.WARN)
    most = [vm.name for vm in view.vms if effective_cpu(vm.cpu, view.domain_type) == "maximum"]
    if most:
        yield Need("libvirt", (7, 1), f"the CPU mode maximum ({names(most)})")


def _versions(case: Case) -> Iterator[Check]:
    facts = case.view.facts
    all, stands = list(needs(case)), False
    for program, version in (("libvirt", facts.libvirt), ("QEMU", facts.emulator)):
        for verdict in (Verdict.FAIL, Verdict.WARN):
            lacks = [need for need in all if version and (need.program, need.verdict) == (program, verdict)
                     and parse_version(version) < need.version]
            if lacks:
                stands = True
                yield _too_old(f"{program} {version}", lacks, verdict, case)
    if all and facts.libvirt and facts.emulator and not stands:
        yield Check(Verdict.OK, _AREA, "both are new enough for the file")
    yield from _zeros(case)


def _too_old(found: str, lacks: list[Need], verdict: Verdict, case: Case) -> Check:
    first = max(need.version for need in lacks)
    what = "; ".join(f"{need.what}: {_text(need.version)}" for need in sorted(lacks, key=lambda need: need.version))
    rest = "" if verdict is Verdict.FAIL else " for all that may be asked of it"
    return Check(verdict, _AREA, f"{found} is too old{rest}: {_text(first)} is needed", f"the file takes {what}",
                 "take a newer release of the host's distribution", None,
                 case.refusals(check_host) if verdict is Verdict.FAIL else ())


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _zeros(case: Case) -> Iterator[Check]:
    version = case.view.facts.emulator
    thin = [pool for pool in case.view.pools if case.view.lvm(pool) and not case.view.thick(pool)]
    if thin and version and not copies_holes(version):
        yield Check(Verdict.NOTE, _AREA, f"QEMU {version} writes out the zeros of what it copies",
                    f"templates, and disks with `copy: full`, take all of their size in pool {names(thin)}, which is "
                    "thin", "QEMU 5.0 and newer leave them out")

