"""Actions on a host itself: packages, kernel, files, network. Frozen; no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from vmwright.netconfig.common import NewFile
from vmwright.plan.action import Action, Sign
from vmwright.spec.cloud import BridgeSpec


def what_bridges(names: str) -> str:
    """Bridges as the object of an action; `names` are parted by a comma and a space."""
    return f"bridge{'s' if ', ' in names else ''} {names}"


class Prepare(Action):
    """A step that makes a host able to do the rest. All of them come first; then the facts are read anew."""


@dataclass(frozen=True, kw_only=True)
class InstallPackages(Prepare):
    """Install packages with the distribution's own tool (apt-get or dnf), and have services started, now and at boot.

    `programs` are those that must be there afterwards.
    """

    tool: str
    packages: tuple[str, ...]
    services: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return "packages"

    @property
    def verb(self) -> str:
        return "install"


@dataclass(frozen=True, kw_only=True)
class SetKernelArguments(Prepare):
    """Have the kernel started with these arguments from the next boot on, by a file of our own or by grubby."""

    arguments: tuple[str, ...]
    tool: str  # update-grub or grubby
    text: str = ""  # of names.GRUB_DROP_IN, with update-grub

    @property
    def object(self) -> str:
        return "kernel arguments"

    @property
    def verb(self) -> str:
        return "set"


@dataclass(frozen=True, kw_only=True)
class WriteFiles(Action):
    """Make files of ours on the host what they are to be, and have what reads them take note.

    `remove`: ours that are no longer needed; what was there before us comes back. `after` are commands, run in that
    order once all files are there; when one fails, the files are as before again, and `after` runs once more.
    """

    what: str
    files: tuple[NewFile, ...] = ()
    remove: tuple[str, ...] = ()
    after: tuple[tuple[str, ...], ...] = ()

    @property
    def object(self) -> str:
        return self.what

    @property
    def verb(self) -> str:
        return "set" if self.files else "take away"


class PrepareFiles(WriteFiles, Prepare):
    """The same, before the facts are read anew: the rest of the plan stands on it."""


@dataclass(frozen=True)
class Answer:
    """Something to be seen of a service when it runs. `kind` is dns, dhcp, ntp, http or nat.

    dns: at `address`, `name` resolves to `expected` (or, without a name, anything is answered). dhcp: something listens
    on `name`, a bridge. ntp, http: an answer at `address` and `port`. nat: our table is there, and the kernel forwards.
    """

    kind: str
    address: str = ""
    port: int = 0
    name: str = ""
    expected: str = ""


@dataclass(frozen=True, kw_only=True)
class SetService(WriteFiles):
    """Make a service of the host's own be as asked: files, units, and a look at whether it answers.

    `what` is dns, ntp, proxy or masquerade. `unit` is enabled and started anew, once `tests` have found nothing wrong
    with the files; empty: the service goes. `stop` are units that are stopped and disabled before files are taken away,
    `again` others that are started anew when they are gone.
    """

    unit: str = ""
    stop: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    tests: tuple[tuple[str, ...], ...] = ()
    answers: tuple[Answer, ...] = ()

    @property
    def object(self) -> str:
        return f"service {self.what}"

    @property
    def verb(self) -> str:
        if not self.unit:
            return "take away"
        return "set" if self.files or self.remove else "start"


@dataclass(frozen=True, kw_only=True)
class GiveBack(Action):
    """Let the host's own drivers have devices again that no VM has; `addresses` are theirs."""

    addresses: tuple[str, ...]

    @property
    def object(self) -> str:
        return "devices"

    @property
    def verb(self) -> str:
        return "give back"


@dataclass(frozen=True, kw_only=True)
class MakeBridges(Prepare):
    """Make or change bridges of the host, all at once; it goes back when it is not reached within `timeout` seconds.

    `files` are those that change. `managers` are, by name (netconfig.common.Manager), what sets up the NIC of each
    bridge. `profiles` are NetworkManager's connections of the NICs, by UUID, to go back to. `keep` are addresses that
    the host must have afterwards.
    """

    bridges: tuple[BridgeSpec, ...]
    files: tuple[NewFile, ...]
    managers: tuple[str, ...]
    timeout: int
    profiles: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    new: bool = True

    @property
    def object(self) -> str:
        return what_bridges(", ".join(bridge.name for bridge in self.bridges))

    @property
    def verb(self) -> str:
        return "make" if self.new else "change"


@dataclass(frozen=True, kw_only=True)
class TakeBridgesBack(Prepare):
    """Have the host go back to the network that it had before a change that was not confirmed. `what` was changed."""

    what: str

    @property
    def object(self) -> str:
        return what_bridges(self.what)

    @property
    def verb(self) -> str:
        return "take back"


@dataclass(frozen=True, kw_only=True)
class Reboot(Prepare):
    """Reboot the host and wait until it is back. `stop` are VMs of this cloud that are shut down before, in order."""

    boot: str  # the id of the boot that ends
    stop: tuple[str, ...] = ()
    sign: Sign = Sign.WARN

    @property
    def object(self) -> str:
        return f"host {self.host}"

    @property
    def verb(self) -> str:
        return "reboot"


@dataclass(frozen=True)
class HostFile:
    """A file of ours on a host, with the whole of its text."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class WriteStartOrder(Action):
    """Write what starts the VMs of a host in order when it boots, where it is not there, and have systemd use it."""

    files: tuple[HostFile, ...] = ()
    sign: Sign = Sign.ADD

    @property
    def object(self) -> str:
        return "start order"

    @property
    def verb(self) -> str:
        return "write"


@dataclass(frozen=True, kw_only=True)
class RemoveStartOrder(Action):
    """Remove these files, of those that start VMs in order. `unit`: systemd's unit is one of them."""

    paths: tuple[str, ...]
    unit: bool = False
    sign: Sign = Sign.REMOVE

    @property
    def object(self) -> str:
        return "start order"

    @property
    def verb(self) -> str:
        return "remove"
