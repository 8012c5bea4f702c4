"""What runs a rack's CPUs, and whether it fits into the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmwright.errors import HostError
from vmwright.facts.model import Kvm
from vmwright.rack.accel import check_memory, choose, judge, nesting
from vmwright.rack.shape import REFERENCE
from vmwright.units import GIB

NOT_NESTED = "kvm_intel has nested=N, so guests of guests cannot use KVM"


@pytest.mark.parametrize(("wanted", "verdict", "nested", "kvm", "words"), [
    ("auto", Kvm.WORKS, "", True, "the rack runs under KVM, and so do guests in it"),
    ("auto", Kvm.WORKS, NOT_NESTED, False,
     f"the rack runs under emulation, which is slow: {NOT_NESTED} (--accelerator kvm takes KVM, for the rack but not "
     "for guests in it)"),
    ("kvm", Kvm.WORKS, NOT_NESTED, True, f"the rack runs under KVM; guests in it do not: {NOT_NESTED}"),
    ("auto", Kvm.BROKEN, "", False, "the rack runs under emulation, which is slow: KVM is broken here (a reason)"),
    ("auto", Kvm.ABSENT, "", False, "the rack runs under emulation, which is slow: KVM is absent here (a reason)")])
def test_kvm_where_guests_of_guests_can_use_it(wanted: str, verdict: Kvm, nested: str, kvm: bool, words: str) -> None:
    made = judge(wanted, verdict, "a reason", nested)
    assert (made.kvm, made.words) == (kvm, words)


def test_kvm_that_is_asked_for_and_does_not_work() -> None:
    with pytest.raises(HostError) as caught:
        judge("kvm", Kvm.BROKEN, "failed to set MSR", "")
    assert str(caught.value) == (
        "KVM does not work on this machine\n  why: failed to set MSR\n"
        "  do:  leave --accelerator out: the rack then runs under emulation, which is slow")


def test_emulation_that_is_asked_for() -> None:
    assert choose("qemu").words == "the rack runs under emulation, as asked: slow"


@pytest.mark.parametrize(("module", "said", "why"), [
    ("kvm_intel", "Y", ""), ("kvm_amd", "1", ""), ("kvm_intel", "N", NOT_NESTED),
    ("kvm_amd", "0", "kvm_amd has nested=0, so guests of guests cannot use KVM"),
    ("other", "Y", "KVM here does not say that guests of guests can use it")])
def test_whether_guests_of_guests_can_use_kvm(tmp_path: Path, module: str, said: str, why: str) -> None:
    file = tmp_path / module / "parameters" / "nested"
    file.parent.mkdir(parents=True)
    file.write_text(f"{said}\n")
    assert nesting(tmp_path) == why


def meminfo(available: int) -> str:
    """As the kernel writes it."""
    return f"MemTotal:       99999999 kB\nMemFree:          100000 kB\nMemAvailable:   {available // 1024} kB\n"


def test_a_shape_that_fits() -> None:
    check_memory(REFERENCE, GIB, meminfo(10 * GIB))


def test_a_shape_that_does_not_fit_is_refused_with_the_figures() -> None:
    with pytest.raises(HostError) as caught:
        check_memory(REFERENCE, GIB, meminfo(7 * GIB))
    assert str(caught.value) == (
        "there is too little memory for the rack: it takes 9.5G, and 7G are available\n"
        "  why: 4G + 4G for its nodes, 1.5G for QEMU\n"
        "  do:  give it less with a shape file (memory: 1G), or stop something else")
