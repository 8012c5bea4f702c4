"""Handler: a service of the host's own for guests. It is done when the service answers, and taken back when not."""

from __future__ import annotations

import re
import threading
import time
from posixpath import dirname

from vmwright.apply.context import Context
from vmwright.apply.files import put, take_away
from vmwright.errors import ApplyError, HostError
from vmwright.guest.wait import pauses
from vmwright.host import services
from vmwright.names import NAT_TABLE, service_mark
from vmwright.plan.host_actions import Answer, SetService

_SHORT = 60.0  # seconds for a command
_START = 300.0  # squid lays out its directories when it starts for the first time
_PATIENCE = 90.0  # until a service that has been started answers, on a slow host
_WRONG = re.compile(r"error|fatal|bungled|unrecognized|invalid|bad ", re.IGNORECASE)
_LINES = 6
_OURS = ("/etc/vmwright", "/etc/systemd/system/")  # beneath which directories may be ours alone


def set_service(action: SetService, context: Context) -> None:
    """Files, units, and the look at whether it answers. With anything wrong all is as before."""
    context.check()
    mark, begun = service_mark(action.what), threading.Event()  # the event: what runs has been touched
    context.host.write(mark, b"")
    with context.undoing() as undo:
        undo.push("note that nothing is half done", lambda: context.host.remove(mark))
        undo.push("have units be as before", lambda: _as_before(action, context) if begun.is_set() else None)
        if action.stop:
            begun.set()
            _stop(*action.stop, context=context)
        for path in action.remove:
            take_away(context, path, undo=undo)
        for file in action.files:
            put(context, file.path, file.text, undo=undo)
        if action.unit and action.unit not in _active(context):
            undo.push(f"stop {action.unit}", lambda: _stop(action.unit, context=context) if begun.is_set() else None)
        _test(action, context)
        begun.set()
        context.host.run(services.reload_units(), timeout=_SHORT)
        for argv in action.after:
            context.host.run(argv, timeout=_SHORT)
        for unit in action.again:
            context.host.run(services.start_anew(unit), timeout=_START)
        if action.unit:
            _start(action.unit, action, context)
        _await_answers(action, context)
    context.host.remove(mark)
    _tidy(action, context)


def _stop(*units: str, context: Context) -> None:
    context.host.run(services.stop(units), timeout=_START)


def _active(context: Context) -> tuple[str, ...]:
    facts = context.facts.services
    return facts.active if facts else ()


def _as_before(action: SetService, context: Context) -> None:
    """After the files have come back: what ran before runs, with them."""
    context.host.run(services.reload_units(), timeout=_SHORT)
    for unit in action.again:
        context.host.run(services.start_anew(unit), timeout=_START)
    for unit in (*([action.unit] if action.unit in _active(context) else []), *action.stop):
        context.host.run(services.enable(unit), timeout=_SHORT)
        context.host.run(services.restart(unit), timeout=_START)


def _test(action: SetService, context: Context) -> None:
    """Have the program itself read what was written, before it is started anew."""
    for argv in action.tests:
        done = context.host.run(argv, check=False, timeout=_SHORT)
        if done.code:
            raise ApplyError(f"{action.object}: {argv[0]} on host {action.host} does not take its settings; all is as "
                             "before", why=telling((done.stderr or done.stdout).decode(errors="replace")),
                             todo="see whether its other settings there fit with what the file says")


def telling(said: str) -> str:
    """Of what a program says of its settings, the lines that tell what is wrong; squid says what it reads, too. Pure.
    """
    lines = said.strip().splitlines()
    return "\n".join(([line for line in lines if _WRONG.search(line)] or lines)[-_LINES:])


def _start(unit: str, action: SetService, context: Context) -> None:
    context.say(f"starting {unit}", None)
    context.host.run(services.enable(unit), timeout=_SHORT)
    try:
        context.host.run(services.restart(unit), timeout=_START)
    except HostError as error:
        raise ApplyError(f"{action.object}: {unit} did not start on host {action.host}; all is as before",
                         why=_log(unit, context) or error.why, todo="mend that there, then apply again") from error


def _log(unit: str, context: Context) -> str:
    return context.host.run(services.log(unit), check=False, timeout=_SHORT).text


def _await_answers(action: SetService, context: Context) -> None:
    until = time.monotonic() + _PATIENCE
    for answer in action.answers:
        context.say("waiting for it to answer", None)
        for pause in pauses(0.2, 2.0):
            said = _lacking(answer, context)
            if not said:
                break
            context.check()
            if time.monotonic() > until:
                raise ApplyError(f"{action.object}: {action.unit} runs on host {action.host}, but {said}; all is as "
                                 "before", why=_log(action.unit, context), todo=_todo(answer))
            time.sleep(pause)


def _lacking(answer: Answer, context: Context) -> str:
    """What is not to be seen of a service; empty when all is well."""
    place = f"at {answer.address} port {answer.port}"
    match answer.kind:
        case "dns":
            said = _ask("udp", answer, services.dns_question(answer.name or "localhost"), context)
            known = f" that {answer.name} is {answer.expected}" if answer.name else ""
            return "" if services.dns_answered(said, answer.expected) else f"{place} nothing says{known or ' anything'}"
        case "ntp":
            said = _ask("udp", answer, services.ntp_question(), context)
            return "" if services.ntp_answered(said) else f"{place} nothing tells the time"
        case "http":
            said = _ask("tcp", answer, services.http_question(), context)
            return "" if services.http_answered(said) else f"{place} nothing answers"
        case "dhcp":
            there = context.host.run(services.listening(67), timeout=_SHORT).text.split()
            return "" if {f"0.0.0.0%{answer.name}:67", "0.0.0.0:67"} & set(there) else f"no DHCP is on {answer.name}"
    return _lacking_nat(context)


def _lacking_nat(context: Context) -> str:
    if context.host.run(services.table(NAT_TABLE), check=False, timeout=_SHORT).code:
        return f"nftables has no table {NAT_TABLE}"
    if context.host.run(services.forwarding(), timeout=_SHORT).text.strip() != "1":
        return "the kernel does not forward"
    return ""


def _ask(kind: str, answer: Answer, said: bytes, context: Context) -> bytes:
    done = context.host.run(services.ask(kind, answer.address, answer.port, said), check=False, timeout=_SHORT)
    return bytes.fromhex(done.text.strip())


def _todo(answer: Answer) -> str:
    if answer.kind == "nat":
        return "see which file says otherwise: grep -r ip_forward /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d"
    return "see whether the host's firewall keeps it from itself, or another setting there is in the way; apply again"


def _tidy(action: SetService, context: Context) -> None:
    """Directories that were made for our files go with the last of them."""
    folders = sorted({dirname(path) for path in action.remove if path.startswith(_OURS)} - {"/etc/systemd/system"})
    if folders:
        context.host.run(services.remove_empty(folders), check=False, timeout=_SHORT)
