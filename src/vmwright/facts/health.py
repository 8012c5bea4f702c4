"""What only doctor wants to know of a host: a probe that takes its time, and a pure parser. No plan reads it.

Sources: the kernel's Documentation/ABI and admin-guide (sysfs of KVM's modules, cpufreq and KSM), and the manual pages
of timedatectl(1), chronyc(1), irqbalance(1) and modprobe.d(5).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vmwright.errors import HostError
from vmwright.facts import denials, probes
from vmwright.facts.denials import Denial
from vmwright.session import Session
from vmwright.units import parse_cpuset

T = TypeVar("T")
_SECONDS = 60.0
_ISOLATED = ("isolcpus", "nohz_full")  # of the kernel's arguments


@dataclass(frozen=True)
class HealthFacts:
    """What was found. None: it could not be told.

    `virtualisation` is the CPU's flag (vmx, svm), empty without; `guest`: the host is itself a VM. `vfio` is "loaded"
    (or built in), "module", or empty where the kernel has no vfio-pci; `barred` are lines of modprobe.d that keep it
    from being loaded. `governors` are cpufreq's, with how many CPUs have each.
    """

    virtualisation: str = ""
    guest: bool = False
    modules: tuple[str, ...] = ()  # of kvm, kvm_intel and kvm_amd
    nested: bool | None = None
    firmware: tuple[str, ...] = ()  # what the kernel says that the firmware has switched off
    vfio: str = ""
    barred: tuple[str, ...] = ()
    governors: tuple[tuple[str, int], ...] = ()
    scaling: str = ""  # cpufreq's driver
    irqbalance: bool = False
    quiet: tuple[int, ...] = ()  # CPUs that irqbalance leaves alone
    ksm: bool = False  # the kernel merges equal pages, also those of different NUMA nodes
    forwarding: bool | None = None  # of IPv4
    filter: tuple[tuple[str, int], ...] = ()  # settings of br_netfilter; none while it is not loaded
    clock_services: tuple[str, ...] = ()
    synchronised: bool | None = None
    apparmor: bool = False
    selinux: str = ""  # enforcing or permissive
    security_driver: str = ""  # what libvirt is told to confine VMs with, if anything is said
    denials: tuple[Denial, ...] | None = None
    login: str = ""  # who has come in, before becoming root
    groups: tuple[str, ...] = ()
    qemu_user: str = ""
    kvm_opens: bool | None = None  # to the user that QEMU runs as


@dataclass(frozen=True)
class Clock:
    """How far a host's clock is ahead of this machine's, give or take `within`; in seconds."""

    ahead: float
    within: float


# A sysctl's file ends after its first byte was read, which is how dash reads: `read` fails then, and has the value.
_SYSTEM = r"""
exec </dev/null
say() { printf '%s\t%s\n' "$1" "$2"; }
first() { value=; [ ! -r "$2" ] || { read -r value <"$2"; [ -z "$value" ] || say "$1" "$value"; }; }
active() { [ -d /run/systemd/system ] && systemctl is-active --quiet "$1"; }
flag=$(grep -m 1 -o -w -e vmx -e svm /proc/cpuinfo | head -n 1)
[ -z "$flag" ] || say flag "$flag"
! grep -q -m 1 -w hypervisor /proc/cpuinfo || say guest yes
for name in kvm kvm_intel kvm_amd; do [ ! -d "/sys/module/$name" ] || say module "$name"; done
for file in /sys/module/kvm_*/parameters/nested; do first nested "$file"; done
dmesg | grep -i -m 3 -e 'disabled by bios' -e 'disabled (by bios)' | while read -r line; do say firmware "$line"; done
if [ -d /sys/bus/pci/drivers/vfio-pci ]; then say vfio loaded
elif grep -q '/vfio-pci\.ko' "/lib/modules/$(uname -r)/modules.dep"; then say vfio module
fi
cat /etc/modprobe.d/*.conf /run/modprobe.d/*.conf /usr/lib/modprobe.d/*.conf /lib/modprobe.d/*.conf |
  grep -e '^[[:space:]]*blacklist[[:space:]]*vfio[_-]pci' \
    -e '^[[:space:]]*install[[:space:]]*vfio[_-]pci[[:space:]].*bin/\(false\|true\)' |
  sort -u | while read -r line; do say barred "$line"; done
cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor | sort | uniq -c |
  while read -r count name; do say governor "$name $count"; done
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_driver; do first scaling "$file"; break; done
if active irqbalance || pidof irqbalance >/dev/null; then say irqbalance yes; fi
grep -h '^IRQBALANCE_BANNED_CPU\(S\|LIST\)=.' /usr/lib/irqbalance/defaults.env /etc/default/irqbalance \
  /etc/sysconfig/irqbalance | while read -r line; do say quiet "$line"; done
first cmdline /proc/cmdline
first ksm /sys/kernel/mm/ksm/run
first merging /sys/kernel/mm/ksm/merge_across_nodes
first forwarding /proc/sys/net/ipv4/ip_forward
for file in /proc/sys/net/bridge/bridge-nf-call-*; do
  [ ! -r "$file" ] || { read -r value <"$file"; say filter "${file##*/} $value"; }
done
for unit in chrony chronyd systemd-timesyncd ntp ntpd ntpsec openntpd; do
  ! active "$unit" || say clock "$unit"
done
! command -v chronyc >/dev/null || timeout 5 chronyc -n tracking | sed -n 's/^Leap status *: */leap\t/p'
! command -v timedatectl >/dev/null || timeout 5 timedatectl show | sed -n 's/^NTPSynchronized=/ntp\t/p'
first apparmor /sys/module/apparmor/parameters/enabled
first selinux /sys/fs/selinux/enforce
conf=/etc/libvirt/qemu.conf
sed -n 's/^[[:space:]]*security_driver[[:space:]]*=[[:space:]]*/driver\t/p' "$conf" | tail -n 1
login=${SUDO_USER:-$(id -un)}
say login "$login"
say groups "$(id -Gn "$login")"
user=$(sed -n 's/^[[:space:]]*user[[:space:]]*=[[:space:]]*"+\{0,1\}\([^"]*\)".*/\1/p' "$conf" | tail -n 1)
user=$(id -un "${user:-libvirt-qemu}" || id -un qemu)
if [ -n "$user" ]; then
  say qemu "$user"
  if [ -e /dev/kvm ] && [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups sh -c '[ -r /dev/kvm ] && [ -w /dev/kvm ]'
    say opens "$?"
  fi
fi
printf 'end\n'
"""


def commands() -> dict[str, Sequence[str]]:
    """Every probe's argv by name."""
    return {"health": ["sh", "-c", _SYSTEM], "denials": ["sh", "-c", denials.SCRIPT]}


def read_health(session: Session) -> HealthFacts:
    """Ask a host. Raises HostError."""
    script = probes.script(commands())
    done = session.host.run(["sh", "-s"], input=script.encode(), timeout=_SECONDS)
    return assemble(session.spec.name, probes.split(done.text))


def read_clock(session: Session) -> Clock:
    """Compare clocks; what the way there and back takes is how uncertain it is. Raises HostError."""
    before = time.time()
    done = session.host.run(["date", "+%s.%N"], timeout=_SECONDS)
    return parse_clock(done.text, before, time.time())


def parse_clock(text: str, before: float, after: float) -> Clock:
    """From what `date +%s.%N` said, and this machine's clock before and after. Pure."""
    try:
        there = float(text)
    except ValueError as error:
        raise HostError("a host does not tell the time", why=f"date said {text[:100]!r}",
                        todo="is the login shell there a POSIX shell, and does it print nothing by itself?") from error
    return Clock(there - (before + after) / 2, (after - before) / 2)


def assemble(name: str, outputs: Mapping[str, probes.Output]) -> HealthFacts:
    """What the probes said. Pure. Raises HostError naming the probe that went wrong."""
    probes.answered(outputs, name, commands())
    denied = _read(name, "denials", denials.parse, outputs["denials"].text)
    return _read(name, "health", lambda text: parse(text, denied), outputs["health"].text)


def _read(host: str, probe: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise HostError(f"host {host}: the probe {probe} was not understood", why=str(error),
                        todo="run it again; if it stays so, please report it with `vmwright facts --json`") from error


def parse(text: str, denied: tuple[Denial, ...] | None = None) -> HealthFacts:
    """What the first of the probes said. Raises ValueError."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("\t")
        rows.setdefault(key, []).append(value.strip())
    if "end" not in rows:
        raise ValueError("it ended too early")

    def one(key: str) -> str:
        return rows.get(key, [""])[0]

    return HealthFacts(
        virtualisation=one("flag"), guest="guest" in rows, modules=tuple(rows.get("module", ())),
        nested=one("nested") in ("Y", "1") if "nested" in rows else None,
        firmware=tuple(rows.get("firmware", ())), vfio=one("vfio"), barred=tuple(rows.get("barred", ())),
        governors=tuple(_counted(rows.get("governor", ()))), scaling=one("scaling"),
        irqbalance="irqbalance" in rows, quiet=_quiet(rows.get("quiet", ()), one("cmdline")),
        ksm=one("ksm") == one("merging") == "1",
        forwarding=one("forwarding") == "1" if "forwarding" in rows else None,
        filter=tuple(_counted(rows.get("filter", ()))),
        clock_services=tuple(rows.get("clock", ())), synchronised=_synchronised(rows),
        apparmor=one("apparmor") == "Y", selinux={"1": "enforcing", "0": "permissive"}.get(one("selinux"), ""),
        security_driver=one("driver"), denials=denied, login=one("login"), groups=tuple(one("groups").split()),
        qemu_user=one("qemu"), kvm_opens=one("opens") == "0" if "opens" in rows else None)


def _counted(lines: Sequence[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        name, _, number = line.rpartition(" ")
        if name and number.isdigit():
            yield name, int(number)


def _synchronised(rows: Mapping[str, Sequence[str]]) -> bool | None:
    """The kernel's own flag, which systemd tells, stays off with a chronyd that has no `rtcsync`: chronyd counts, too.
    """
    said = [word == "yes" for word in rows.get("ntp", ())]
    said += [word != "Not synchronised" for word in rows.get("leap", ())]
    return any(said) if said else None


def _quiet(settings: Sequence[str], cmdline: str) -> tuple[int, ...]:
    """CPUs that irqbalance leaves alone: those of its list, else of its mask, else the isolated ones."""
    for setting in sorted(reversed(settings), key=lambda setting: "CPULIST" not in setting):
        key, _, value = setting.partition("=")
        value = value.strip().strip("\"'")
        found = _mask(value) if key.endswith("CPUS") else _cpus(value)
        if found:
            return found
    words = (word.partition("=") for word in cmdline.split())
    return tuple(sorted({cpu for key, _, value in words if key in _ISOLATED for cpu in _cpus(value)}))


def _mask(text: str) -> tuple[int, ...]:
    """CPUs of a hexadecimal mask, with or without commas: fc0 are 6 to 11."""
    digits = text.replace(",", "")
    if not re.fullmatch(r"[0-9a-fA-F]+", digits):
        return ()
    mask = int(digits, 16)
    return tuple(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def _cpus(text: str) -> tuple[int, ...]:
    """CPUs of a list; in isolcpus, flags like "domain" may stand before them. Of what is no plain list, none."""
    try:
        return parse_cpuset(",".join(part for part in text.split(",") if not part.isalpha() and "_" not in part))
    except ValueError:
        return ()
