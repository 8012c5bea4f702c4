"""Files that we write outside of our own directories, with a copy of what was there, and of what we wrote."""

from __future__ import annotations

from collections.abc import Sequence

from vmwright.apply.context import Context, Undo
from vmwright.errors import ApplyError, HostError
from vmwright.names import before_note, written_note
from vmwright.plan.host_actions import WriteFiles

_PATIENCE = 900.0  # an initramfs takes minutes on a slow host
_MODE, _SCRIPT = 0o644, 0o755

# Back to what was there before us, or away; then the copies of it and of ours. $1 the file, $2 and $3 the copies.
_TAKE_AWAY = """
set -e
if [ -f "$2" ]; then
    cp -p "$2" "$1.vmwright-new"
    chmod 644 "$1.vmwright-new"
    mv -f "$1.vmwright-new" "$1"
else
    rm -f "$1"
fi
rm -f "$2" "$3"
"""


def put(context: Context, path: str, text: str, *, mode: int = _MODE, undo: Undo | None = None) -> None:
    """Write a file atomically. What it was before we wrote to it for the first time is kept, once.

    The copies are written first: a run that is cut off between leaves a copy of something that is not there yet, which
    the next one writes again.
    """
    facts, host = context.facts.platform.file(path), context.host
    if facts.text is not None and facts.ours is None:
        host.write(before_note(path), facts.text.encode(), mode=0o600)
    host.write(written_note(path), text.encode(), mode=0o600)
    if undo:
        undo.push(f"take {path} back", lambda: _restore(context, path, mode))
    host.write(path, text.encode(), mode=mode)


def take_away(context: Context, path: str, *, undo: Undo | None = None) -> None:
    """Remove a file of ours; what was there before us comes back."""
    if undo:
        text = context.facts.platform.file(path).text or ""
        mode = _SCRIPT if text.startswith("#!") else _MODE
        undo.push(f"put {path} back", lambda: _restore(context, path, mode))
    context.host.run(["sh", "-c", _TAKE_AWAY, "sh", path, before_note(path), written_note(path)])


def _restore(context: Context, path: str, mode: int) -> None:
    facts, host = context.facts.platform.file(path), context.host
    for place, text, bits in ((path, facts.text, mode), (written_note(path), facts.ours, 0o600)):
        if text is None:
            host.remove(place)
        else:
            host.write(place, text.encode(), mode=bits)


def write_files(action: WriteFiles, context: Context) -> None:
    """All files, then the commands that have them read. With anything wrong it is as before."""
    context.check()
    with context.undoing() as undo:
        if action.after:
            undo.push("have the former files read", lambda: _after(action.after, context))
        for path in action.remove:
            take_away(context, path, undo=undo)
        for file in action.files:
            put(context, file.path, file.text, mode=file.mode or _MODE, undo=undo)
        _after(action.after, context)


def _after(commands: Sequence[Sequence[str]], context: Context) -> None:
    for argv in commands:
        context.say(f"running {argv[0]}", None)
        try:
            context.host.run(argv, timeout=_PATIENCE)
        except HostError as error:
            raise ApplyError(f"{argv[0]} failed on host {context.facts.name}; the files are as they were before",
                             why=error.why, todo="mend that there, then apply again") from error
