"""What doctor found, as a person and a program read it, and the exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from tests.unit.doctor.cases import WEB, WELL, applied

from vmwright.cli.main import main
from vmwright.doctor import visit as visits
from vmwright.doctor.check import Area, Check, Verdict
from vmwright.doctor.examine import by_severity, worst
from vmwright.doctor.visit import Report, Visit
from vmwright.errors import HostError, Where
from vmwright.facts.health import HealthFacts
from vmwright.report.doctor import doctor_data, doctor_lines

FOUND = (
    Check(Verdict.OK, Area.ACCESS, "commands run as root"),
    Check(Verdict.NOTE, Area.CPU, "nested virtualisation is off", "no guests in guests", "switch it on"),
    Check(Verdict.OK, Area.CPU, "a guest starts under KVM"),
    Check(Verdict.OK, Area.CPU, "CPU frequency: performance"),
    Check(Verdict.FAIL, Area.DEVICES, "no IOMMU", "web has a device", "switch it on\nthen boot",
          Where("cloud.yaml", 3, 5)),
    Check(Verdict.WARN, Area.CLOCK, "the clock is off", "logs", "ntp"),
)
REPORTS = [Report("here", "local", FOUND),
           Report(None, None, (Check(Verdict.FAIL, Area.FILE, "vm a is twice", "refused", "rename it"),))]

TEXT = """\
host here (local)
  FAIL  cloud.yaml:3:5: no IOMMU
        why: web has a device
        do:  switch it on
             then boot
  warn  the clock is off
        why: logs
        do:  ntp
  note  nested virtualisation is off
        why: no guests in guests
        do:  switch it on
  ok    access: commands run as root
  ok    CPU: a guest starts under KVM; CPU frequency: performance

the file
  FAIL  vm a is twice
        why: refused
        do:  rename it

2 will not work, 1 to look at, 1 advice, 3 fine."""


def test_the_worst_first_and_what_is_fine_in_short() -> None:
    assert "\n".join(line.plain for line in doctor_lines(REPORTS)) == TEXT


def test_as_json() -> None:
    found = doctor_data(REPORTS)
    assert json.loads(json.dumps(found)) == found and found["format"] == 1
    assert found["checks"][4] == {
        "host": "here", "verdict": "fail", "area": "devices", "what": "no IOMMU", "why": "web has a device",
        "todo": "switch it on\nthen boot", "where": "cloud.yaml:3:5"}
    assert found["checks"][-1]["host"] is None
    assert [check["verdict"] for check in found["checks"]] == ["ok", "note", "ok", "ok", "fail", "warn", "fail"]


def test_severity() -> None:
    assert [check.verdict for check in by_severity(FOUND)] == ["fail", "warn", "note", "ok", "ok", "ok"]
    assert worst(()) is Verdict.OK and worst(FOUND[:4]) is Verdict.NOTE and worst(FOUND) is Verdict.FAIL


@pytest.mark.parametrize(("health", "lost", "code"), [
    (WELL, None, None),
    (replace(WELL, nested=False), None, None),
    (replace(WELL, synchronised=False), None, 9),
    (replace(WELL, kvm_opens=False, synchronised=False), None, 1),
    (None, HostError("gone"), 1),
])
def test_the_exit_code_is_that_of_the_worst(health: HealthFacts | None, lost: HostError | None, code: int | None,
                                            monkeypatch: pytest.MonkeyPatch, tmp_path: object,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    """The host is the simulated one; all the rest is as in any run without a file."""
    facts = replace(applied(WEB), name="local") if health else None
    monkeypatch.setattr(visits, "visit", lambda cloud, sessions: [Visit("local", "local", facts, health, lost=lost)])
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["vmwright", "doctor"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or None) == code
    assert capsys.readouterr().out.startswith("host local (local)\n")
