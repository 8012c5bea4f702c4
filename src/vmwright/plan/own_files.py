"""Files of the host's that are ours: what is to be written, what was changed by hand, what is no longer needed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vmwright.names import written_note
from vmwright.netconfig.common import NewFile
from vmwright.plan.view import Draft, View, diff

_MARK = re.compile(r"^# Written by vmwright for cloud (\S+);", re.MULTILINE)


def to_write(view: View, wanted: Iterable[NewFile], draft: Draft) -> tuple[NewFile, ...] | None:
    """Those of the wanted files that are not there as they should be. None: one is another's, and that is refused.

    What somebody has changed by hand is shown, and not overwritten unasked.
    """
    files = tuple(file for file in wanted if view.facts.platform.file(file.path).text != file.text)
    refused = len(draft.refused)
    for file in files:
        there = view.facts.platform.file(file.path)
        if there.text is None or there.text == there.ours:
            continue
        if there.ours is None:
            draft.refuse(f"host {view.host.name}: {file.path} is there, and vmwright did not write it",
                         "move it away: vmwright keeps something of its own there", view.host.where)
        else:
            draft.refuse(f"host {view.host.name}: {file.path} was changed by hand:\n{diff(there.ours, there.text)}",
                         "put it into a file of your own; back to what vmwright wrote: cp "
                         f"{written_note(file.path)} {file.path}", view.host.where)
    return None if len(draft.refused) > refused else files


def owner(text: str | None) -> str:
    """The cloud that a file of ours is for, by its mark; empty when it says none."""
    found = _MARK.search(text or "")
    return found[1] if found else ""


def mark(cloud: str) -> str:
    """The first line of a file of ours that is one cloud's."""
    return f"# Written by vmwright for cloud {cloud}; changes here are told as drift, and not overwritten.\n"


def is_anothers(view: View, path: str, what: str, draft: Draft) -> bool:
    """Refuse where another cloud has written a file of which a host has one."""
    cloud = owner(view.facts.platform.file(path).text)
    if cloud in ("", view.cloud.name):
        return False
    draft.refuse(f"host {view.host.name}: its {what} are set by cloud {cloud}, in {path}",
                 "say it in one cloud's file: a host has them once", view.host.where)
    return True


def leftover(view: View, path: str, draft: Draft) -> bool:
    """Whether a file of this cloud's is there that is not needed now; one changed by hand is kept, and told."""
    return _goes(view, path, (view.cloud.name,), "is not needed any more, but was changed by hand: it stays", draft)


def released(view: View, path: str, draft: Draft) -> bool:
    """Whether a file goes when the host is released: one of this cloud's, or of no cloud's; kept and told as above."""
    return _goes(view, path, ("", view.cloud.name), "was changed by hand, and stays", draft)


def _goes(view: View, path: str, owners: tuple[str, ...], kept: str, draft: Draft) -> bool:
    file = view.facts.platform.file(path)
    if file.ours is None or file.text is None or owner(file.ours) not in owners:
        return False
    if file.text != file.ours:
        draft.warnings.append(f"host {view.host.name}: {path} {kept}; remove it when you have what you need of it")
        return False
    return True


def tell_drift(view: View, draft: Draft) -> None:
    """What was changed by hand in files of ours that the plan has nothing to say of otherwise."""
    said = "\n".join([*draft.warnings, *(problem.what for problem in draft.refused),
                      *(change.new for action in draft.actions for change in action.changes)])
    for file in view.facts.platform.files:
        if file.ours is None or file.text == file.ours or file.path in said:
            continue
        if file.text is None:
            draft.warnings.append(f"host {view.host.name}: {file.path}, which vmwright wrote, is gone; what it was: "
                                  f"{written_note(file.path)}")
        else:
            draft.warnings.append(f"host {view.host.name}: {file.path} was changed by hand, and stays so:\n"
                                  f"{diff(file.ours, file.text)}")
