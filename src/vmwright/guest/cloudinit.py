"""What cloud-init says of itself inside a guest: how far it is, what went wrong, and which log lines say why. Pure.

Reads the files it writes (status.json and result.json under /run/cloud-init), whose form has been the same since
version 18; `cloud-init status` has changed its words and exit codes several times, and takes seconds when emulated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmwright.errors import GuestError

# Prints one section per question. result.json is asked for before status.json: it is written later, so a guest that
# has a result has its last status, too. Where SELinux confines the agent, `command -v` does not
# find what the agent may not run. Few processes: in an emulated guest of an emulated server each takes half a second.
PROBE = """\
say() { printf '==%s==\\n' "$1"; }
those() { for file; do [ ! -e "$file" ] || echo "$file"; done; }
result=/run/cloud-init/result.json
say command; command -v cloud-init || those /etc/cloud/cloud.cfg
say result; [ ! -e "$result" ] || cat "$result"
say status; cat /run/cloud-init/status.json
say disabled; those /run/cloud-init/disabled /etc/cloud/cloud-init.disabled
say before; those /var/lib/cloud/instance/boot-finished
say instance; cat /var/lib/cloud/data/instance-id
say final; [ -e "$result" ] || systemctl is-failed cloud-final.service
"""
LOGS = ("/var/log/cloud-init.log", "/var/log/cloud-init-output.log")

_STAGES = {
    "init-local": "setting up the network",
    "init": "setting up the system",
    "modules-init": "setting up the system",
    "modules-config": "configuring the system",
    "modules-final": "installing packages and running commands",
}
_BOOT = re.compile(r"running 'init-local'")
_EXCEPTION = r"^[A-Za-z_][\w.]*(?:Error|Exception)\b(?:: |$)"
_LOG_TELLING = re.compile(
    r"\[(?:WARNING|ERROR|CRITICAL)\]: | - (?:WARNING|ERROR|CRITICAL): |"
    r"^(?:Command|Exit code|Stderr): (?!-$)|" + _EXCEPTION)
_OUTPUT_TELLING = re.compile(
    r"^(?:E|Err|Error|error|ERROR|fatal|Fatal|FAILED)\b ?[: ]|: not found$|: command not found|"
    r"No such file or directory|Permission denied|[Uu]nable to |[Ff]ailed |[Cc]ould not |[Cc]annot |"
    r"No space left|Temporary failure|" + _EXCEPTION)
_NOISE = re.compile(r"\b0 failed\b|failed=0|Failed to set locale|debconf: unable to initialize frontend")


@dataclass(frozen=True)
class Boot:
    """How far a guest's boot is. `problem` is set when it can never get to its end as wanted."""

    stage: str
    finished: bool = False
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    instance: str = ""
    problem: GuestError | None = None


def sections(text: str) -> dict[str, str]:
    """The parts of a probe's output by their names, without empty ends."""
    parts = re.split(r"^==([\w-]+)==$", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def judge(probe: str) -> Boot:
    """What the output of PROBE means."""
    said = sections(probe)
    status, result = _version1(said.get("status", "")), _version1(said.get("result", ""))
    instance = said.get("instance", "")
    if not status and not result:
        return _not_begun(said, instance)
    stage = _stage(status)
    if not result:
        if said.get("final") == "failed":
            return Boot(stage, True, ("cloud-init's last stage failed before it could say why",), (), instance)
        return Boot(stage, instance=instance)
    errors = [str(error) for error in result.get("errors", [])]
    datasource = str(result.get("datasource") or "nothing")
    if not errors and "NoCloud" not in datasource:
        return Boot("cloud-init is done", True, (), (), instance, GuestError(
            "cloud-init did not find its seed", why=f"it took its data from {datasource}",
            todo="see that the image's datasource_list has NoCloud, and that the VM has its seed disk"))
    return Boot("cloud-init is done", True, tuple(errors), _warnings(status), instance)


def telling_lines(log: str, output: str, *, limit: int = 12) -> tuple[str, ...]:
    """The lines of cloud-init's two logs that say what went wrong in the last boot, at most `limit`, the last ones.

    `log` is cloud-init.log, `output` is cloud-init-output.log, which has what packages and commands printed.
    """
    lines = [line.strip() for line in _last_boot(log) if _LOG_TELLING.search(line)]
    lines += [line.strip() for line in output.splitlines()[-400:] if _OUTPUT_TELLING.search(line)]
    told = [line for line in dict.fromkeys(lines) if not _NOISE.search(line)]
    return tuple(line[:300] for line in told[-limit:])


def _not_begun(said: Mapping[str, str], instance: str) -> Boot:
    if not said.get("command"):
        return Boot("the agent answers", problem=GuestError(
            "the guest has no cloud-init", why="the agent answers, but there is no command cloud-init in the guest",
            todo="use an image with cloud-init: names, addresses and users come into a VM by it"))
    if not said.get("disabled"):
        return Boot("the agent answers, cloud-init has not begun", instance=instance)
    where = said["disabled"].splitlines()[0]
    if said.get("before"):
        return Boot("cloud-init is disabled", True, (), (f"cloud-init is disabled by {where}",), instance)
    return Boot("the agent answers", problem=GuestError(
        "cloud-init is disabled in the guest", why=f"by {where}",
        todo="see that the image's datasource_list has NoCloud, and that the VM has its seed disk"))


def _version1(text: str) -> dict[str, Any]:
    """The `v1` part of one of cloud-init's files; empty when the file is not there."""
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    found = data.get("v1") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _stage(status: Mapping[str, Any]) -> str:
    stage = status.get("stage")
    if stage:
        return f"cloud-init is {_STAGES.get(stage, stage)}"
    begun = [name for name in _STAGES if (status.get(name) or {}).get("start")]
    return f"cloud-init has finished {begun[-1]}" if begun else "cloud-init has begun"


def _warnings(status: Mapping[str, Any]) -> tuple[str, ...]:
    """What cloud-init got over; versions from 23.4 on list it. Deprecations of the seed are ours, not the user's."""
    found: list[str] = []
    for stage in status.values():
        kinds: Mapping[str, Sequence[str]] = stage.get("recoverable_errors") or {} if isinstance(stage, dict) else {}
        found += [str(text) for kind, texts in kinds.items() if kind != "DEPRECATED" for text in texts]
    return tuple(dict.fromkeys(found))


def _last_boot(log: str) -> list[str]:
    lines = log.splitlines()
    start = max((number for number, line in enumerate(lines) if _BOOT.search(line)), default=0)
    return lines[start:]
