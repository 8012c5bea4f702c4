"""Doctor: does the host keep time, and do hosts agree on it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from vmwright.doctor.check import Area, Case, Check, Verdict
from vmwright.facts.health import Clock

_AREA = Area.CLOCK
_SKEW = 1.0  # seconds that are worth a word
_WHY = "guests start with their host's clock; certificates, logs and clusters (etcd, Ceph) inside go wrong by it"


def clock(case: Case) -> Iterator[Check]:
    """Is the clock kept by NTP?"""
    health = case.health
    by = f" ({', '.join(health.clock_services)})" if health.clock_services else ""
    if health.synchronised:
        yield Check(Verdict.OK, _AREA, f"the clock is synchronised{by}")
    elif health.synchronised is None:
        yield Check(Verdict.NOTE, _AREA, "whether the clock is synchronised is not known: neither timedatectl nor "
                    "chronyc answers", _WHY, "see that something keeps it: chronyd, systemd-timesyncd or ntpd")
    elif health.clock_services:
        yield Check(Verdict.WARN, _AREA, f"the clock is not synchronised, though something is to keep it{by}", _WHY,
                    "see whether its servers are reached: chronyc sources, or timedatectl timesync-status")
    else:
        yield Check(Verdict.WARN, _AREA, "the clock is not synchronised, and nothing keeps it", _WHY,
                    "timedatectl set-ntp true, or install chrony")


def against_here(found: Clock | None) -> Iterator[Check]:
    """A host's clock beside this machine's, as far as it can be told over the way there."""
    if found is None:
        return
    sure = abs(found.ahead) - found.within
    if sure < _SKEW:
        yield Check(Verdict.OK, _AREA, f"its clock and this machine's agree within {max(0.1, abs(found.ahead)):.1f} s")
    else:
        yield Check(Verdict.WARN, _AREA, f"its clock is {_offset(found.ahead)} this machine's",
                    "times in logs and in the journal do not fit together; one of the two is wrong",
                    "have both keep time by NTP (chronyd, systemd-timesyncd)")


def between(clocks: Mapping[str, Clock]) -> Iterator[tuple[str, Check]]:
    """Hosts whose clocks differ, each pair told at its second host."""
    for one, other in combinations(clocks, 2):
        ahead = clocks[other].ahead - clocks[one].ahead
        if abs(ahead) - clocks[one].within - clocks[other].within >= _SKEW:
            yield other, Check(Verdict.WARN, _AREA, f"its clock is {_offset(ahead)} host {one}'s", _WHY,
                               "have both keep time by the same NTP servers")


def _offset(ahead: float) -> str:
    return f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
