"""Setting up a service of the host's own: the order of steps, and the way back when it does not come about."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.plan.build import cloud, facts, made

from vmwright.apply import services as handler
from vmwright.apply.context import Context
from vmwright.apply.services import set_service
from vmwright.errors import ApplyError, Cancelled, HostError
from vmwright.facts.model import FileFacts
from vmwright.facts.service_model import ServicesFacts
from vmwright.host import services
from vmwright.host.run import Completed
from vmwright.names import DNS_CONFIG, DNS_SERVICE, DNS_UNIT, NTP_CONFIG, before_note, service_mark, written_note
from vmwright.netconfig.common import NewFile
from vmwright.plan.host_actions import Answer, SetService

OLD, NEW = "# old\n", "# new\n"
ANSWER = bytes.fromhex("7677858000010001000000000364622000 000100010000000000040a020014".replace(" ", ""))
DNS = SetService(host="here", what="dns", why="asked for", unit=DNS_SERVICE,
                 files=(NewFile(DNS_CONFIG, NEW), NewFile(DNS_UNIT, NEW)), tests=(("dnsmasq", "--test"),),
                 after=(("sysctl",),), answers=(Answer("dns", "10.2.0.200", 53, "db", "10.2.0.20"),))


@dataclass
class Host:
    """Files and units of a host in a dictionary and a set; `broken` are first words of commands that fail."""

    files: dict[str, str] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    broken: tuple[str, ...] = ()
    answer: bytes = ANSWER
    ran: list[str] = field(default_factory=list)
    waits: Callable[[], object] = lambda: None

    def run(self, argv: Sequence[str], *, check: bool = True, **_: object) -> Completed:
        words = " ".join(argv[:2])
        self.ran.append(words if argv[0] == "systemctl" else argv[0])
        failed = any(words.startswith(word) for word in self.broken)
        if failed and check:
            raise HostError(f"{argv[0]} failed")
        if argv[:2] in (["systemctl", "restart"], ["systemctl", "try-restart"]):
            self.running.add(argv[-1])
        elif argv == services.stop(argv[4:]):
            self.ran[-1] = f"stop {' '.join(argv[4:])}"
            self.running -= set(argv[4:])
        elif argv[:2] == ["sh", "-c"]:
            path, before, written = argv[4:]
            self.files.pop(written)
            self.files.pop(path)
            if before in self.files:
                self.files[path] = self.files.pop(before)
        elif argv[0] == "bash":
            self.waits()
            return Completed(tuple(argv), 0, self.answer.hex().encode(), b"")
        return Completed(tuple(argv), int(failed), b"", b"line 3: bad option\n" if failed else b"")

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = data.decode()

    def remove(self, *paths: str) -> None:
        for path in paths:
            self.files.pop(path, None)


def context(host: Host, cancel: threading.Event | None = None) -> Context:
    """What a handler has, where the facts are what that host has now."""
    wanted = cloud()
    notes = {path: host.files.get(written_note(path)) for path in host.files}
    there = tuple(FileFacts(path, text, notes[path]) for path, text in host.files.items())
    (seen,) = facts(wanted, made(wanted), services=ServicesFacts(active=tuple(host.running))).hosts
    seen = replace(seen, platform=replace(seen.platform, files=there))
    return Context(wanted, cast(Any, SimpleNamespace(host=host)), seen, cast(Any, None),
                   cast(Any, SimpleNamespace(write=lambda event, **values: None)), cancel or threading.Event(),
                   lambda text, share: None)


def before(running: bool = True) -> Host:
    """A host where the service was set up by an earlier run."""
    files = {path: OLD for name in (DNS_CONFIG, DNS_UNIT) for path in (name, written_note(name))}
    return Host(files, {DNS_SERVICE, "ssh.service"} if running else {"ssh.service"})


def test_the_way_there() -> None:
    host = Host()
    set_service(DNS, context(host))
    assert host.ran == ["dnsmasq", "systemctl daemon-reload", "sysctl", "systemctl enable", "systemctl restart", "bash"]
    assert host.files == {path: NEW for name in (DNS_CONFIG, DNS_UNIT) for path in (name, written_note(name))}
    assert host.running == {DNS_SERVICE}


def test_settings_that_the_program_does_not_take_are_taken_back_before_it_is_started() -> None:
    host = before()
    files, running = dict(host.files), set(host.running)
    host.broken = ("dnsmasq",)
    with pytest.raises(ApplyError) as raised:
        set_service(DNS, context(host))
    assert raised.value.what == "service dns: dnsmasq on host here does not take its settings; all is as before"
    assert raised.value.why == "line 3: bad option"
    assert (host.files, host.running) == (files, running)
    assert host.ran == ["dnsmasq"], "and what runs was not touched"


@pytest.mark.parametrize(("said", "told"), [
    ("2026/11/23 03:01:20| Processing: http_port 3128\n"
     "2026/11/23 03:01:20| /etc/squid/conf.d/zz.conf(1): unrecognized: 'nonsense'\n"
     "2026/11/23 03:01:20| Initializing https:// proxy context\n",
     "2026/11/23 03:01:20| /etc/squid/conf.d/zz.conf(1): unrecognized: 'nonsense'"),
    ("2026-11-23T02:55:35Z Fatal error : Invalid directive at line 1 in file c3.conf\nnonsense 3\n",
     "2026-11-23T02:55:35Z Fatal error : Invalid directive at line 1 in file c3.conf"),
    ("it is no more\n", "it is no more"),
])
def test_of_what_a_program_says_what_is_wrong_is_told(said: str, told: str) -> None:
    assert handler.telling(said) == told


@pytest.mark.parametrize("host", [Host(), before(), before(running=False)])
def test_one_that_does_not_start_is_taken_back(host: Host) -> None:
    files, running = dict(host.files), set(host.running)
    host.broken = ("systemctl restart",) if DNS_SERVICE not in running else ("sysctl",)
    with pytest.raises((ApplyError, HostError)):
        set_service(DNS, context(host))
    assert (host.files, host.running) == (files, running)


def test_one_that_does_not_answer_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "_PATIENCE", -1.0)
    host = Host(answer=b"")
    with pytest.raises(ApplyError) as raised:
        set_service(DNS, context(host))
    assert raised.value.what == (f"service dns: {DNS_SERVICE} runs on host here, but at 10.2.0.200 port 53 nothing "
                                 "says that db is 10.2.0.20; all is as before")
    assert (host.files, host.running) == ({}, set())
    assert f"stop {DNS_SERVICE}" in host.ran


def test_stopped_by_the_user_while_it_waits() -> None:
    cancel = threading.Event()
    host = Host(answer=b"", waits=cancel.set)
    with pytest.raises(Cancelled):
        set_service(DNS, context(host, cancel))
    assert (host.files, host.running) == ({}, set())


def test_while_it_is_at_work_a_mark_says_so() -> None:
    host = Host()
    host.waits = lambda: marks.append(service_mark("dns") in host.files)
    marks: list[bool] = []
    set_service(DNS, context(host))
    assert marks == [True] and service_mark("dns") not in host.files


def test_the_way_back() -> None:
    host = before()
    host.files[before_note(DNS_CONFIG)] = "# the administrator's\n"
    set_service(SetService(host="here", what="dns", why="gone", remove=(DNS_CONFIG, DNS_UNIT),
                           stop=(DNS_SERVICE,)), context(host))
    assert (host.files, host.running) == ({DNS_CONFIG: "# the administrator's\n"}, {"ssh.service"})
    assert host.ran[0] == f"stop {DNS_SERVICE}", "while its unit is still known"
    assert host.ran[-2:] == ["systemctl daemon-reload", "rmdir"]


def test_the_clock_goes_on_without_our_settings() -> None:
    host = Host({NTP_CONFIG: OLD, written_note(NTP_CONFIG): OLD}, {"chrony.service"})
    set_service(SetService(host="here", what="ntp", why="gone", remove=(NTP_CONFIG,),
                           again=("chrony.service",)), context(host))
    assert host.ran == ["sh", "systemctl daemon-reload", "systemctl try-restart"]
    assert (host.files, host.running) == ({}, {"chrony.service"})
