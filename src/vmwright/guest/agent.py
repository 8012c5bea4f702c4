"""The QEMU guest agent: run commands, read files and ask about CPUs, addresses and file systems inside a guest.

The agent's own limits are kept: a command's output is cut by the agent at 16 MiB, and libvirt carries replies of less
than 4 MiB as text; both are noticed. Polling backs off from 0.05 s to 2 s.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from vmwright.errors import AgentSilent, GuestError
from vmwright.guest.wait import pauses

# Sends one JSON command and returns the reply's JSON text; the number is how long to wait for it, in seconds. Raises
# AgentSilent when the agent cannot be reached, GuestError with the agent's words when it answers with an error.
Command = Callable[[str, int], str]

REPLY_TIMEOUT = 30  # seconds; the agent answers at once, but an emulated guest may be busy
PATIENCE = 300.0  # seconds for a command in a guest; on an emulated host, a shell may take a minute to start
_CHUNK = 1 << 20  # bytes of a file per reply: 1.4 MB as text
_REFUSED = re.compile(r"has been disabled|has not been found|is not allowed|CommandNotFound")
_NO_PROGRAM = re.compile(r"Failed to execute child process|[Ff]ailed to exec")
_ENVIRONMENT = ("LC_ALL=C", "HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
_UNBLOCK = """\
inside the guest, let the agent run commands: in /etc/sysconfig/qemu-ga empty BLACKLIST_RPC, BLOCK_RPCS and
FILTER_RPC_ARGS (or block-rpcs in /etc/qemu/qemu-ga.conf), then: systemctl restart qemu-guest-agent"""


class AgentRefused(GuestError):
    """The agent answers, but its settings forbid the command."""


class Ran(NamedTuple):
    """What a command in the guest left. `code` is 127 when there is no such program, 128 + n after signal n."""

    code: int
    stdout: str
    stderr: str


class Runs(Protocol):
    """What runs commands inside a guest; all that growing a disk and waiting for a boot need of an agent."""

    def exec(self, argv: Sequence[str], *, input: bytes | None = None, timeout: float = PATIENCE,
             on_poll: Callable[[], None] | None = None) -> Ran:
        """See Agent.exec."""
        ...


@dataclass(frozen=True)
class Vcpu:
    """A virtual CPU as the guest sees it."""

    id: int
    online: bool
    can_offline: bool


@dataclass(frozen=True)
class Interface:
    """A network interface of the guest; addresses are CIDR text."""

    name: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Mounted:
    """A mounted file system of the guest. Sizes are bytes; None where the agent is too old to tell."""

    mount: str
    device: str
    type: str
    total: int | None
    used: int | None


class Agent:
    """The agent of one guest, over a callable that sends one command."""

    def __init__(self, command: Command, *, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], object] = time.sleep) -> None:
        self._command, self._clock, self._sleep = command, clock, sleep

    def call(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: int = REPLY_TIMEOUT) -> Any:
        """Send one agent command and return what it returns. Raises AgentRefused, or GuestError as `command` does."""
        request = {"execute": name, **({"arguments": arguments} if arguments else {})}
        try:
            reply = _parse(self._command(json.dumps(request), timeout), name)
        except AgentSilent:
            raise
        except GuestError as error:
            raise _refused(name, str(error)) or error from None
        if "error" in reply:
            words = " ".join(str(value) for value in dict(reply["error"]).values())
            raise _refused(name, words) or GuestError(f"the guest agent could not do {name}", why=words)
        return reply.get("return")

    def ping(self) -> None:
        """Return when the agent answers; AgentSilent or GuestError when it does not."""
        self.call("guest-ping")

    def info(self) -> tuple[str, frozenset[str]]:
        """The agent's version, and the names of the commands it is willing to do."""
        reply = self.call("guest-info")
        return str(reply["version"]), frozenset(c["name"] for c in reply["supported_commands"] if c["enabled"])

    def exec(self, argv: Sequence[str], *, input: bytes | None = None, timeout: float = PATIENCE,
             on_poll: Callable[[], None] | None = None) -> Ran:
        """Run a command as root in the guest, in a C locale, and wait for its end.

        `on_poll` is called between polls; what it raises ends the waiting. Raises GuestError when the command does not
        end within `timeout` seconds (it is told to end) or printed more than the agent can carry.
        """
        try:
            pid = self._start(argv, input)
        except GuestError as error:
            if _NO_PROGRAM.search(str(error)):
                return Ran(127, "", str(error))
            raise
        status = self._finish(pid, argv, timeout, on_poll)
        for stream in ("out", "err"):
            if status.get(f"{stream}-truncated"):
                raise GuestError(f"{_short(argv)} in the guest printed more than the agent carries (16 MiB)",
                                 todo="let it print less, or into a file of the guest")
        code = 128 + int(status["signal"]) if "signal" in status else int(status.get("exitcode", 0))
        return Ran(code, _text(status.get("out-data")), _text(status.get("err-data")))

    def read_file(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """A file of the guest, at most `limit` bytes. Raises GuestError."""
        handle = self.call("guest-file-open", {"path": path, "mode": "r"})
        data = bytearray()
        try:
            while True:
                part = self.call("guest-file-read", {"handle": handle, "count": _CHUNK})
                data += b64decode(part.get("buf-b64", ""))
                if len(data) > limit:
                    raise GuestError(f"{path} in the guest is larger than {limit} bytes")
                if part.get("eof") or not part.get("count"):
                    return bytes(data)
        finally:
            with suppress(GuestError):  # a reading that failed must be heard of, not that it could not be closed
                self.call("guest-file-close", {"handle": handle})

    def vcpus(self) -> tuple[Vcpu, ...]:
        """The virtual CPUs, in the order of their numbers."""
        cpus = (Vcpu(c["logical-id"], c["online"], c.get("can-offline", True)) for c in self.call("guest-get-vcpus"))
        return tuple(sorted(cpus, key=lambda cpu: cpu.id))

    def set_vcpus(self, count: int) -> int:
        """Bring the first `count` CPUs online and the others that can be offline; return how many are online then."""
        wanted = [{"logical-id": cpu.id, "online": place < count} for place, cpu in enumerate(self.vcpus())
                  if cpu.online != (place < count) and (place < count or cpu.can_offline)]
        while wanted:  # the agent may do only some of them, and says how many
            done = int(self.call("guest-set-vcpus", {"vcpus": wanted}))
            if done <= 0:
                break
            wanted = wanted[done:]
        return sum(cpu.online for cpu in self.vcpus())

    def interfaces(self) -> tuple[Interface, ...]:
        """The network interfaces with their addresses."""
        return tuple(Interface(link["name"], link.get("hardware-address", ""), tuple(_addresses(link)))
                     for link in self.call("guest-network-get-interfaces"))

    def filesystems(self) -> tuple[Mounted, ...]:
        """The mounted file systems that are on disks."""
        return tuple(Mounted(one["mountpoint"], one["name"], one["type"], one.get("total-bytes"), one.get("used-bytes"))
                     for one in self.call("guest-get-fsinfo"))

    def _start(self, argv: Sequence[str], input: bytes | None) -> int:
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "env": list(_ENVIRONMENT),
                                     "capture-output": True}
        if input is not None:
            arguments["input-data"] = b64encode(input).decode()
        return int(self.call("guest-exec", arguments)["pid"])

    def _finish(self, pid: int, argv: Sequence[str], timeout: float,
                on_poll: Callable[[], None] | None) -> dict[str, Any]:
        deadline = self._clock() + timeout
        for pause in pauses(0.05, 2.0):
            status: dict[str, Any] = self.call("guest-exec-status", {"pid": pid})
            if status["exited"]:
                return status
            if on_poll:
                on_poll()
            if (left := deadline - self._clock()) <= 0:
                break
            self._sleep(min(pause, left))
        with suppress(GuestError):  # it is being given up in any case
            self.call("guest-exec", {"path": "kill", "arg": [str(pid)]})
        raise GuestError(f"{_short(argv)} in the guest did not end within {timeout:.0f} s",
                         why="\n".join(_command_line(argv)))


def must(agent: Runs, argv: Sequence[str], *, input: bytes | None = None, timeout: float = PATIENCE,
         on_poll: Callable[[], None] | None = None) -> str:
    """Standard output of a command in the guest that must succeed. Raises GuestError with the command and its words."""
    ran = agent.exec(argv, input=input, timeout=timeout, on_poll=on_poll)
    if ran.code != 0:
        raise failed(argv, ran)
    return ran.stdout


def failed(argv: Sequence[str], ran: Ran) -> GuestError:
    """The error of a command that ended badly inside a guest."""
    words = (ran.stderr.strip() or ran.stdout.strip()).splitlines()[-12:]
    return GuestError(f"{_short(argv)} in the guest failed with code {ran.code}",
                      why="\n".join([*_command_line(argv), *words]))


def _script(argv: Sequence[str]) -> bool:
    return list(argv[:2]) == ["sh", "-c"]


def _short(argv: Sequence[str]) -> str:
    return "a script" if _script(argv) else argv[0]


def _command_line(argv: Sequence[str]) -> list[str]:
    return [] if _script(argv) else [f"command: {shlex.join(argv)}"]


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
    except ValueError as error:
        raise GuestError(f"the guest agent's answer to {name} is not JSON", why=text[:200]) from error
    if not isinstance(reply, dict) or not reply.keys() & {"return", "error"}:
        raise GuestError(f"the guest agent's answer to {name} makes no sense", why=text[:200])
    return reply


def _refused(name: str, words: str) -> AgentRefused | None:
    if not _REFUSED.search(words):
        return None
    return AgentRefused(f"the guest agent refuses {name}", why=words, todo=_UNBLOCK)


def _text(data: str | None) -> str:
    return b64decode(data or "").decode(errors="replace")


def _addresses(link: Mapping[str, Any]) -> Iterable[str]:
    return (f"{one['ip-address']}/{one['prefix']}" for one in link.get("ip-addresses", ()))
