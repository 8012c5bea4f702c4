"""What a handler has to work with: its host, its libvirt, somewhere to say how far it is, and a way to be stopped."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

from vmwright.apply.journal import Journal
from vmwright.errors import Cancelled
from vmwright.facts.model import HostFacts, IntentFacts
from vmwright.guest.agent import Agent
from vmwright.host.run import Host
from vmwright.names import HOST_STATE, intent_path
from vmwright.session import Session
from vmwright.spec.cloud import Cloud
from vmwright.state import State
from vmwright.virt.connect import Connection

Say = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Context:
    """One action's surroundings. `say` shows progress: a few words, and how much is done (0 to 1, None: unknown)."""

    cloud: Cloud
    session: Session
    facts: HostFacts
    state: State
    journal: Journal
    cancel: threading.Event
    say: Say
    action: str = ""
    notes: list[str] = field(default_factory=list)
    changed: set[tuple[str, str]] = field(default_factory=set)  # (host, pool) of what libvirt has not been told of

    @property
    def host(self) -> Host:
        """Commands on the host."""
        return self.session.host

    @property
    def virt(self) -> Connection:
        """The host's libvirt."""
        return self.session.virt

    def agent(self, vm: str) -> Agent:
        """The guest agent of a running VM."""
        return Agent(self.virt.agent(vm))

    def check(self) -> None:
        """Stop here if the user asked to. Raises Cancelled."""
        if self.cancel.is_set():
            raise Cancelled("stopped at your wish")

    def note(self, text: str) -> None:
        """Something the user should read when the action is done."""
        self.notes.append(text)

    def intend(self, object: str, operation: str, *, volumes: tuple[str, ...] = (), instance: str = "") -> None:
        """Write down on the host what is about to be done, so that any later run can pick it up."""
        intent = IntentFacts(self.cloud.name, object, operation, volumes, instance)
        self.host.write(intent_path(self.cloud.name, object), json.dumps(asdict(intent)).encode(), mode=0o600)

    def fulfil(self, object: str) -> None:
        """It is whole now: drop the note."""
        self.host.remove(intent_path(self.cloud.name, object))

    def work(self, name: str) -> str:
        """A directory on the host for something being made."""
        return f"{HOST_STATE}/{self.cloud.name}/work/{name}"

    @contextmanager
    def undoing(self) -> Iterator[Undo]:
        """Undo, in reverse order, what was registered, if the block fails."""
        undo = Undo(self)
        try:
            yield undo
        except BaseException:
            undo.run()
            raise


class Undo:
    """Steps back."""

    def __init__(self, context: Context) -> None:
        self._context, self._stack = context, ExitStack()
        self._clean = True

    def push(self, what: str, step: Callable[[], object]) -> None:
        """Register how to take back what has just been done."""
        self._stack.callback(self._step, what, step)

    def run(self) -> None:
        """Take everything back."""
        self._stack.close()

    def _step(self, what: str, step: Callable[[], object]) -> None:
        journal, action = self._context.journal, self._context.action
        if not self._clean:  # what lies below the step that failed is still in use by what that should have removed
            journal.write("undo-left", action=action, what=what)
            return
        try:
            step()
            journal.write("undo", action=action, what=what)
        except Exception as error:
            # The first error is the one to show; the note on the host lets the next apply finish this.
            self._clean = False
            journal.write("undo-failed", action=action, what=what, error=str(error))
