"""What doctor asks of a host besides its facts: recordings of hosts, and what is made of them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.machines import machines

from vmwright.errors import HostError
from vmwright.facts import denials, health
from vmwright.facts.denials import Denial
from vmwright.facts.health import Clock, HealthFacts
from vmwright.facts.probes import Output

GUEST = "libvirt-0f6d6a5e-1c2b-4a77-9f3e-0d6f6f1f2a01"


def recorded(name: str) -> HealthFacts:
    """A recording, read."""
    return health.assemble("here", machines.outputs(f"health-{name}"))


def test_a_virtual_machine_without_systemd() -> None:
    assert recorded("virtual") == HealthFacts(
        guest=True, modules=("kvm",), forwarding=True, denials=(), login="root", groups=("root",),
        filter=(("bridge-nf-call-arptables", 1), ("bridge-nf-call-ip6tables", 1), ("bridge-nf-call-iptables", 1)),
        qemu_user="libvirt-qemu", kvm_opens=True)


def test_a_debian_server() -> None:
    """chronyd is without `rtcsync`, so that the kernel's flag stays off; its own word counts."""
    assert recorded("debian12") == HealthFacts(
        virtualisation="vmx", modules=("kvm", "kvm_intel"), nested=True, vfio="module", governors=(("schedutil", 48),),
        scaling="intel_cpufreq", forwarding=True, clock_services=("chrony",), synchronised=True, apparmor=True,
        denials=(), login="ops", groups=("ops", "sudo", "libvirt"), qemu_user="libvirt-qemu", kvm_opens=True)


def test_an_ubuntu_server() -> None:
    found = recorded("ubuntu2404")
    assert (found.virtualisation, found.nested, found.vfio, found.barred) == (
        "svm", True, "loaded", ("blacklist vfio-pci",))
    assert found.governors == (("performance", 4), ("powersave", 28))
    assert (found.irqbalance, found.quiet) == (True, (4, 5, 6, 7, 20)), "the list counts, not the mask of before"
    assert (found.ksm, found.forwarding, found.synchronised, found.kvm_opens) == (True, False, False, False)


def test_a_fedora_server() -> None:
    found = recorded("fedora")
    assert (found.selinux, found.apparmor, found.security_driver) == ("enforcing", False, '"selinux"')
    assert (found.irqbalance, found.quiet) == (True, (8, 9, 10, 11)), "isolated CPUs are left alone by themselves"
    assert (found.synchronised, found.clock_services, found.nested) == (False, ("chronyd",), False)


def test_what_apparmor_denied() -> None:
    """In the kernel's log and once more by way of audit; not what is older than a day, nor what is not libvirt's."""
    assert recorded("ubuntu2404").denials == (
        Denial("AppArmor", "virt-aa-helper", "virt-aa-helper", "open r", "/data/vm/", 1, 1730990300, allowed=True),
        Denial("AppArmor", "rpc-libvirtd", "libvirtd", "capable", "bpf", 1, 1730990200),
        Denial("AppArmor", "qemu-system-x86", GUEST, "open r", "/data/vm/disk 1.qcow2", 2, 1730990060))


def test_what_selinux_denied() -> None:
    assert recorded("fedora").denials == (
        Denial("SELinux", "rpc worker", "virtqemud_t", "getattr open file", "/srv/other/data.img (var_t)", 1,
               1730986000, allowed=True),
        Denial("SELinux", "qemu-kvm", "svirt_t", "read file", "web.qcow2 (user_home_t)", 1, 1730985000))


@pytest.mark.parametrize(("lines", "cpus"), [
    ("", ()),
    ("quiet\tIRQBALANCE_BANNED_CPUS=fc0\n", (6, 7, 8, 9, 10, 11)),
    ("quiet\tIRQBALANCE_BANNED_CPUS=ff000000,00000001\n", (0, *range(56, 64))),
    ("quiet\tIRQBALANCE_BANNED_CPULIST=2\n", (2,)),
    ("quiet\tIRQBALANCE_BANNED_CPULIST=nonsense\n", ()),
    ("quiet\tIRQBALANCE_BANNED_CPUS=nonsense\ncmdline\tro isolcpus=2-3 quiet\n", (2, 3)),
    ("cmdline\tro isolcpus=domain,managed_irq,2-3,8 nohz_full=9\n", (2, 3, 8, 9)),
    ("cmdline\tro isolcpus=nonsense\n", ()),
])
def test_cpus_that_irqbalance_leaves_alone(lines: str, cpus: tuple[int, ...]) -> None:
    assert health.parse(f"{lines}end\n").quiet == cpus


@pytest.mark.parametrize(("lines", "known"), [
    ("", None), ("ntp\tyes\n", True), ("ntp\tno\n", False), ("leap\tNormal\n", True),
    ("leap\tInsert second\nntp\tno\n", True), ("leap\tNot synchronised\nntp\tno\n", False),
])
def test_whether_the_clock_is_kept(lines: str, known: bool | None) -> None:
    assert health.parse(f"{lines}end\n").synchronised is known


def test_a_probe_that_was_cut_off_is_named() -> None:
    whole = machines.outputs("health-debian12")
    for probe, text in (("health", "flag\tvmx"), ("denials", ""), ("denials", "now\t1731000000"),
                        ("denials", "now\tsoon\nend")):
        with pytest.raises(HostError, match=f"host here: the probe {probe} was not understood"):
            health.assemble("here", {**whole, probe: Output(text, 0)})
    for probe in health.commands():
        with pytest.raises(HostError, match=f"host here did not answer the probe {probe}"):
            health.assemble("here", {name: output for name, output in whole.items() if name != probe})


@given(st.text())
def test_a_log_with_whatever_in_it(text: str) -> None:
    """A guest may have its words in the log: nothing in there may stop doctor."""
    assert denials.parse(f"now\t1731000000\n{text}\nend") is not None


def test_clocks() -> None:
    assert health.parse_clock("1000.500000000", 1000.0, 1000.2) == Clock(pytest.approx(0.4), pytest.approx(0.1))
    with pytest.raises(HostError, match="does not tell the time"):
        health.parse_clock("welcome", 0, 1)


TOOL = """#!/bin/sh
[ -z "$(cat)" ] || exit 1
echo "{name} $*" >>{seen}
echo '{line}'
"""


def test_the_logs_are_asked_for_a_day_and_nothing_of_the_script_is_read(tmp_path: Path) -> None:
    """The script comes by standard input, and ausearch would read that; stand-ins for the two programs that read logs.
    """
    lines = machines.outputs("health-fedora")["denials"].text.splitlines()
    seen = tmp_path / "seen"
    for name, line in (("journalctl", lines[1]), ("dmesg", lines[1]), ("ausearch", lines[4])):
        (tmp_path / name).write_text(TOOL.format(name=name, seen=seen, line=line))
        (tmp_path / name).chmod(0o755)
    script = shlex.join(["sh", "-c", denials.SCRIPT])
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, env=os.environ | path)
    first, *found, last = done.stdout.splitlines()
    assert first.startswith("now\t") and last == "end" and found == [lines[1], lines[4]], done.stderr
    asked = seen.read_text()
    assert "ausearch --input-logs --raw --message AVC --start yesterday" in asked
    assert "--since=-1day _TRANSPORT=kernel _TRANSPORT=audit" in asked or asked.startswith("dmesg")
