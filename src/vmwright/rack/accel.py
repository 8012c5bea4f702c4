"""What runs a rack's CPUs: KVM where a guest starts under it and may run guests itself, else emulation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vmwright.errors import HostError
from vmwright.facts import kvm
from vmwright.facts.model import Kvm
from vmwright.host.local import LocalHost
from vmwright.rack.shape import Shape
from vmwright.units import MIB, format_size

_NESTED = ("kvm_intel", "kvm_amd")
_OVERHEAD = 512 * MIB  # of QEMU itself


@dataclass(frozen=True)
class Accelerator:
    """The choice, and the sentence that says so."""

    kvm: bool
    words: str


def choose(wanted: str) -> Accelerator:
    """The accelerator for `wanted`: auto, kvm or qemu. Raises HostError when kvm is wanted and does not work."""
    if wanted == "qemu":
        return Accelerator(False, "the rack runs under emulation, as asked: slow")
    verdict, reason = probe()
    nested = nesting(Path("/sys/module")) if verdict is Kvm.WORKS else ""
    return judge(wanted, verdict, reason, nested)


def judge(wanted: str, verdict: Kvm, reason: str, nested: str) -> Accelerator:
    """The choice from what is known. `nested` says why guests of guests cannot use KVM; empty: they can. Pure."""
    if verdict is not Kvm.WORKS:
        if wanted == "kvm":
            raise HostError("KVM does not work on this machine", why=reason,
                            todo="leave --accelerator out: the rack then runs under emulation, which is slow")
        return Accelerator(False, f"the rack runs under emulation, which is slow: KVM is {verdict} here ({reason})")
    if nested and wanted != "kvm":
        return Accelerator(False, f"the rack runs under emulation, which is slow: {nested} "
                                  "(--accelerator kvm takes KVM, for the rack but not for guests in it)")
    return Accelerator(True, f"the rack runs under KVM; guests in it do not: {nested}" if nested else
                       "the rack runs under KVM, and so do guests in it")


def probe() -> tuple[Kvm, str]:
    """Whether this user's guests really start under KVM, and why not."""
    if os.path.exists("/dev/kvm") and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Kvm.BROKEN, "you may not open /dev/kvm: join the group kvm"
    return kvm.parse(LocalHost("this machine").run(["sh", "-c", kvm.script()], check=False, timeout=60).text)


def nesting(modules: Path) -> str:
    """Why guests of guests cannot use KVM here; empty when they can."""
    for name in _NESTED:
        file = modules / name / "parameters" / "nested"
        if file.exists():
            said = file.read_text().strip()
            return "" if said in ("Y", "1") else f"{name} has nested={said}, so guests of guests cannot use KVM"
    return "KVM here does not say that guests of guests can use it"


def check_memory(shape: Shape, cache: int, meminfo: str) -> None:
    """Raises HostError when the shape does not fit into the memory. `cache`: bytes for translated code. Pure."""
    available = next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    needed = sum(shape.memory) + cache + _OVERHEAD
    if needed > available:
        raise HostError(
            f"there is too little memory for the rack: it takes {format_size(needed // MIB * MIB)}, and "
            f"{format_size(available // MIB * MIB)} are available",
            why=f"{' + '.join(format_size(size) for size in shape.memory)} for its nodes, "
                f"{format_size(cache + _OVERHEAD)} for QEMU",
            todo="give it less with a shape file (memory: 1G), or stop something else")
