"""Files that we write outside of our own directories, with a copy of what was there, and of what we wrote."""

from __future__ import annotations

from vmwright.apply.context import Context, Undo
from vmwright.names import before_note, written_note


def put(context: Context, path: str, text: str, *, mode: int = 0o644, undo: Undo | None = None) -> None:
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


def _restore(context: Context, path: str, mode: int) -> None:
    facts, host = context.facts.platform.file(path), context.host
    if facts.text is None:
        host.remove(path)
    else:
        host.write(path, facts.text.encode(), mode=mode)
    if facts.ours is None:
        host.remove(written_note(path))
    else:
        host.write(written_note(path), facts.ours.encode(), mode=0o600)
