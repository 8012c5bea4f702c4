"""A host without a machine: libvirt and the shell kept in dictionaries, and the real handlers of apply working on them.

What is real: the plan, the handlers (vmwright.apply), the XML they write (vmwright.virt) and the parsers that read it
back as facts. What is made up: where it ends, the libvirt connection and the commands on the host. Every step that
changes something can be the last one (Killed, as by SIGKILL) or can fail (as libvirt would).

Volumes that a user may have written to are marked; whatever removes one without its having been given up is caught.
"""

from __future__ import annotations

import copy
import json
import posixpath
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from tests.unit.plan import drives
from tests.unit.plan.drives import Drive

from vmwright.apply import power, storage
from vmwright.apply.context import Context
from vmwright.apply.handlers import HANDLERS
from vmwright.boot.files import LINK_PATH, SCRIPT_PATH, UNIT_PATH
from vmwright.errors import ApplyError, HostError
from vmwright.facts import domains, probes
from vmwright.facts.model import (
    BootFacts,
    ConfigFacts,
    CpuFacts,
    Facts,
    HostFacts,
    IommuFacts,
    Kvm,
    LinkFacts,
    NodeFacts,
    PathFacts,
    PlatformFacts,
    VolumeFacts,
)
from vmwright.guest import grow
from vmwright.guest.grow import Grown
from vmwright.guest.ready import Ready
from vmwright.host.run import Completed
from vmwright.names import HOST_STATE, parse_volume, start_list
from vmwright.plan.action import Action, Effect
from vmwright.plan.actions import DestroyVm, Plan, VmAction
from vmwright.spec.cloud import Cloud
from vmwright.units import GIB, MIB
from vmwright.virt import alter
from vmwright.virt.xml import read, tree

ALL_TOOLS = probes.TOOLS
DEBIAN = PlatformFacts("debian", (), "boot-1", "ro quiet", True, ("apt-get", "update-grub"))
LIBVIRT = 0o600


class Killed(BaseException):
    """The run ends here, as by SIGKILL: nothing that comes after it is done."""


@dataclass
class Image:
    """A disk image. `used`: a guest has had it, so that a user's data may be in it."""

    capacity: int
    backing: str | None = None
    format: str = "qcow2"
    used: bool = False


@dataclass
class Defined:
    """A domain: its XML, that of its running self, and whether it starts with the host."""

    persistent: str
    live: str | None = None
    autostart: bool = False


@dataclass
class Listed:
    """A pool or network of libvirt: its XML."""

    xml: str
    active: bool = False
    autostart: bool = False


@dataclass
class Machine:
    """One host. `fuse`: how many more steps there are before the run is killed (or, with `fails`, a step fails)."""

    name: str = "here"
    cpus: int = 8
    memory: int = 64 * GIB
    free: int = 500 * GIB
    kvm: Kvm = Kvm.WORKS
    tools: tuple[str, ...] = ALL_TOOLS
    cpu_list: tuple[CpuFacts, ...] = ()
    nodes: tuple[NodeFacts, ...] = ()
    platform: PlatformFacts = DEBIAN
    iommu: IommuFacts | None = None
    links: tuple[LinkFacts, ...] = (LinkFacts("lo", "loopback", ("127.0.0.1/8",), True),
                                    LinkFacts("br0", "bridge", ("10.9.0.1/24",), True))
    pools: dict[str, Listed] = field(default_factory=dict)
    networks: dict[str, Listed] = field(default_factory=dict)
    domains: dict[str, Defined] = field(default_factory=dict)
    files: dict[str, bytes | Image] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)  # by PCI address
    known_hosts: set[str] = field(default_factory=set)
    systemd: bool = True
    fuse: int | None = None
    fails: bool = False
    dead: bool = False
    steps: int = 0
    given_up: set[str] = field(default_factory=set)

    # -- what happens ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something is about to be changed."""
        if self.dead:
            raise Killed
        if self.fuse is not None:
            if self.fuse == 0:
                if self.fails:
                    self.fuse = None
                    raise ApplyError("the simulated step failed")
                self.dead = True
                raise Killed
            self.fuse -= 1
        self.steps += 1

    def remove(self, path: str) -> bool:
        """Remove a file, or a directory's files. A user's data must have been given up before."""
        gone = [known for known in self.files if known == path or known.startswith(f"{path}/")]
        for known in gone:
            file = self.files.pop(known)
            assert not (isinstance(file, Image) and file.used) or known in self.given_up, f"data lost: {known}"
        return bool(gone)

    def target(self, pool: str) -> str:
        """A pool's directory."""
        return domains.parse_pool(self.pools[pool].xml, active=True, autostart=True).target

    # -- what is read ------------------------------------------------------------------------------------------------

    def facts(self, cloud: Cloud) -> HostFacts:
        """What gathering would find, by the real parsers."""
        wanted = {pool.path: pool.name for pool in cloud.pools if pool.host == self.name}
        inside = f"{HOST_STATE}/{cloud.name}"
        notes = [json.dumps(json.loads(cast(bytes, data))) for path, data in self.files.items()
                 if posixpath.dirname(path) == f"{inside}/intents"]
        work = {path.removeprefix(f"{inside}/work/").split("/")[0] for path in self.files
                if path.startswith(f"{inside}/work/")}
        running = [_parsed(d.live) for d in self.domains.values() if d.live]
        taken = sum(config.memory for config in running if not config.placement.hugepages)
        return HostFacts(
            name=self.name, hostname="host", os="Debian GNU/Linux 12 (bookworm)", kernel="6.1.0", cpus=self.cpus,
            memory=self.memory, memory_available=self.memory - taken, kvm=self.kvm, kvm_reason="", emulator="7.2.0",
            libvirt="9.0.0", uefi=True, tools=self.tools, links=self.links, cpu_list=self.cpu_list,
            platform=self.platform,
            nodes=tuple(_used(node, running) for node in self.nodes),
            pools=tuple(replace(domains.parse_pool(p.xml, active=p.active, autostart=p.autostart), capacity=self.free,
                                available=self.free) for p in self.pools.values()),
            volumes=tuple(self._volumes(wanted)),
            networks=tuple(domains.parse_network(n.xml, active=n.active, autostart=n.autostart)
                           for n in self.networks.values()),
            domains=tuple(domains.parse_domain(d.persistent, d.live, "running" if d.live else "shut off", d.autostart)
                          for d in self.domains.values()),
            **({"iommu": self.iommu} | drives.facts(self.drives, self.files, self.domains.items())),
            boot=self._boot(cloud),
            intents=(*probes.parse_intents("\n".join(notes)), *probes.parse_work("\n".join(sorted(work)))),
            paths=tuple(PathFacts(path, any(f.startswith(f"{path}/") for f in self.files), self.free)
                        for path in sorted({*wanted, HOST_STATE})))

    def _boot(self, cloud: Cloud) -> BootFacts:
        """What starts VMs in order; nothing where the file has none, and none of the files is there."""
        lists = re.compile(f"{HOST_STATE}/[^/]+/autostart")
        texts = {path: data.decode() for path, data in self.files.items() if isinstance(data, bytes)
                 and (path in (UNIT_PATH, SCRIPT_PATH) or lists.fullmatch(path))}
        if not texts and not any(vm.host == self.name and vm.start_order.said for vm in cloud.vms):
            return BootFacts()
        own = start_list(cloud.name)
        others = (path for path in texts if path not in (own, UNIT_PATH, SCRIPT_PATH))
        return BootFacts(self.systemd, LINK_PATH in self.files, texts.get(UNIT_PATH), texts.get(SCRIPT_PATH),
                         texts.get(own), tuple(path.split("/")[-2] for path in others))

    def _volumes(self, wanted: dict[str, str]) -> Iterator[VolumeFacts]:
        """Files in pools, as libvirt tells them; of wanted pools that it does not tell of, as the shell does."""
        folders = dict(wanted)
        folders |= {self.target(name): name for name, pool in self.pools.items() if pool.active}
        for path, file in self.files.items():
            folder, name = posixpath.split(path)
            if folder in folders:
                image = file if isinstance(file, Image) else Image(len(file), format="raw")
                yield VolumeFacts(folders[folder], name, path, image.format, image.capacity,
                                  min(image.capacity, 64 * MIB), image.backing)

    def images(self) -> dict[str, Image]:
        """The images, by path."""
        return {path: file for path, file in self.files.items() if isinstance(file, Image)}


class Virt:
    """libvirt's part of a machine, with the face of virt.connect.Connection."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def _domain(self, name: str) -> Defined:
        if name not in self._machine.domains:
            raise ApplyError(f"no domain {name}", why="Domain not found")
        return self._machine.domains[name]

    def ensure_pool(self, name: str, xml: str | None, *, build: bool = True) -> None:
        self._ensure(self._machine.pools, name, xml)

    def define_network(self, name: str, xml: str) -> None:
        self._machine.step()
        self._machine.networks[name] = Listed(xml)

    def ensure_network(self, name: str) -> None:
        self._ensure(self._machine.networks, name, None)

    def _ensure(self, kind: dict[str, Listed], name: str, xml: str | None) -> None:
        for change in ("define", "start", "autostart"):
            if change == "define" and xml is None:
                continue
            self._machine.step()
            if change == "define" and xml is not None:
                kind[name] = Listed(xml)
            elif change == "start":
                kind[name].active = True
            else:
                kind[name].autostart = True

    def undefine_network(self, name: str) -> None:
        if name not in self._machine.networks:
            raise ApplyError(f"no network {name}")
        self._machine.step()
        del self._machine.networks[name]

    def refresh_pool(self, name: str) -> None:
        assert self._machine.pools[name].active, f"pool {name} is not active"

    def create_volume(self, pool: str, xml: str) -> None:
        facts = domains.parse_volume(pool, xml)
        path = f"{self._machine.target(pool)}/{facts.name}"
        if path in self._machine.files:
            raise ApplyError(f"volume {facts.name} is there already")
        assert facts.backing is None or facts.backing in self._machine.files, f"{facts.backing} is not there"
        self._machine.step()
        self._machine.files[path] = Image(facts.capacity, facts.backing, facts.format)

    def delete_volume(self, pool: str, name: str) -> bool:
        self._machine.step()
        return self._machine.remove(f"{self._machine.target(pool)}/{name}")

    def resize_volume(self, pool: str, name: str, size: int) -> None:
        self._machine.step()
        self._grow(f"{self._machine.target(pool)}/{name}", size)

    def grow_disk_live(self, name: str, path: str, size: int) -> None:
        self._machine.step()
        live = domains.parse_domain(cast(str, self._domain(name).live), None, "running", False).persistent
        assert path in {disk.path for disk in live.disks}, f"{name} does not have {path}"
        self._grow(path, size)

    def _grow(self, path: str, size: int) -> None:
        image = self._machine.files[path]
        assert isinstance(image, Image) and size >= image.capacity, f"{path} would become smaller"
        image.capacity = size

    def define(self, name: str, xml: str) -> None:
        self._machine.step()
        for disk in domains.parse_domain(xml, None, "shut off", False).persistent.disks:
            assert disk.path in self._machine.files, f"{name} has a disk that is not there: {disk.path}"
        before = self._machine.domains.get(name)
        self._machine.domains[name] = replace(before, persistent=xml) if before else Defined(xml)

    def set_autostart(self, name: str, on: bool) -> None:
        self._machine.step()
        self._domain(name).autostart = on

    def start(self, name: str, *, reset_nvram: bool = False) -> None:
        self._machine.step()
        domain = self._domain(name)
        assert domain.live is None, f"{name} runs already"
        drives.plug(self._machine.drives, name, drives.of(domain.persistent))
        domain.live = domain.persistent

    def shutdown(self, name: str) -> None:
        self._machine.step()
        drives.unplug(self._machine.drives, drives.of(self._domain(name).live))
        self._domain(name).live = None

    def kill(self, name: str) -> None:
        self.shutdown(name)

    def undefine(self, name: str) -> None:
        self._machine.step()
        assert self._domain(name).live is None, f"{name} still runs"
        del self._machine.domains[name]

    def exists(self, name: str) -> bool:
        return name in self._machine.domains

    def domain_state(self, name: str) -> str:
        return "running" if self._domain(name).live else "shut off"

    def domain_xml(self, name: str, *, live: bool = False) -> str:
        domain = self._domain(name)
        return cast(str, domain.live) if live else domain.persistent

    def _alter(self, name: str, change: Callable[[str], str]) -> None:
        self._machine.step()
        domain = self._domain(name)
        assert domain.live is not None, f"{name} does not run"
        domain.live = change(domain.live)

    def set_vcpus_live(self, name: str, count: int) -> None:
        self._alter(name, lambda xml: alter.set_vcpus(xml, count, self._machine.cpus))

    def pin_live(self, name: str, vcpus: Sequence[Sequence[int]], emulator: Sequence[int],
                 iothreads: Mapping[int, Sequence[int]]) -> None:
        """Pins and nothing else: a running VM keeps its memory where it is."""
        def pinned(xml: str) -> str:
            old = _parsed(xml).placement
            threads = tuple(next(iter(iothreads.values()), ()))
            return alter.set_placement(xml, replace(old, vcpus=tuple(map(tuple, vcpus)), emulator=tuple(emulator),
                                                    iothreads=threads), self._machine.cpus)

        assert len(vcpus) == _parsed(cast(str, self._domain(name).live)).vcpus_max
        self._alter(name, pinned)

    def set_memory_live(self, name: str, size: int) -> None:
        """The balloon: what the guest has changes, what it has at most does not."""
        def balloon(xml: str) -> str:
            root = tree.parse(xml)
            assert size <= read.scaled(root.findtext("memory"), "KiB"), f"{name} cannot have {size} while it runs"
            tree.ensure(root, "currentMemory").text = str(size >> 10)
            return tree.render(root)

        self._alter(name, balloon)

    def running_xml(self) -> list[str]:
        return [domain.live for domain in self._machine.domains.values() if domain.live]

    def alive(self, name: str) -> bool:
        return self._domain(name).live is not None

    def attach_live(self, name: str, xml: str) -> None:
        self._alter(name, lambda live: _with_device(live, xml, add=True))
        drives.plug(self._machine.drives, name, drives.of(f"<domain><devices>{xml}</devices></domain>"))

    def detach_live(self, name: str, xml: str) -> None:
        self._alter(name, lambda live: _with_device(live, xml, add=False))
        drives.unplug(self._machine.drives, drives.of(f"<domain><devices>{xml}</devices></domain>"))

    def update_live(self, name: str, xml: str) -> None:
        self._alter(name, lambda live: _with_device(_with_device(live, xml, add=False), xml, add=True))

    def agent(self, name: str) -> Callable[[str, int], str]:
        """Only what plugging in CPUs asks: a guest that has them online at once."""
        live = domains.parse_domain(cast(str, self._domain(name).live), None, "running", False).persistent
        online = [{"logical-id": number, "online": True} for number in range(live.vcpus)]
        return lambda text, timeout: json.dumps({"return": 0 if "set" in text else online})


def _parsed(xml: str) -> ConfigFacts:
    return domains.parse_domain(xml, None, "shut off", False).persistent


def _used(node: NodeFacts, running: list[ConfigFacts]) -> NodeFacts:
    """A node with what running VMs have taken of it, as far as they are bound to it and to no other."""
    pages = {page.size: page.free for page in node.hugepages}
    free = node.free
    for config in running:
        place = config.placement
        for nodes, size in [(c.nodes, c.memory) for c in place.cells] or [(place.nodes, config.memory)]:
            if nodes == (node.number,) and place.hugepages:
                pages[place.hugepages] -= size // place.hugepages
            elif nodes == (node.number,):
                free -= size
    return replace(node, free=max(0, free), hugepages=tuple(replace(page, free=pages[page.size])
                                                            for page in node.hugepages))


def _with_device(xml: str, device: str, *, add: bool) -> str:
    """A domain's XML with a device more, or without that NIC or device of the host."""
    root, new = tree.parse(xml), tree.parse(device)
    devices = tree.ensure(root, "devices")
    if add:
        devices.append(new)
    elif new.tag == "hostdev":
        return alter.remove_hostdev(xml, cast(str, read.pci_address(new.find("source/address"))))
    else:
        mac = cast(Any, new.find("mac")).get("address")
        for nic in devices.findall("interface"):
            if cast(Any, nic.find("mac")).get("address") == mac:
                devices.remove(nic)
    return tree.render(root)


class Shell:
    """The host's part of a machine, with the face of host.run.Host: the commands that handlers use, and no other."""

    name = "here"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("-")]
        self._machine.step()
        match argv[0]:
            case "rm":
                for path in words:
                    self._machine.remove(path)
            case "mv":
                self._machine.files[words[1]] = self._machine.files.pop(words[0])
            case "sh" if argv[3] in drives.WORDS:
                return drives.run(self._machine, argv)
            case "sh":
                return Completed(tuple(argv), self._place(argv[3], *argv[4:]), b"", b"")
            case "qemu-img":
                assert argv[1] == "resize"
                cast(Image, self._machine.files[argv[-2]]).capacity = int(argv[-1])
            case "mkdir":
                self._machine.files.setdefault(f"{words[-1]}/.", b"")
            case "systemctl":
                assert self._machine.systemd
                if argv[1] == "enable":
                    assert UNIT_PATH in self._machine.files
                    self._machine.files[LINK_PATH] = b""
            case "chmod" | "sync":
                assert words[-1] in self._machine.files
            case _:
                raise HostError(f"no such command: {argv}")
        return Completed(tuple(argv), 0, b"", b"")

    def _place(self, what: str, *paths: str) -> int:
        """host.copy's commands."""
        files, target = self._machine.files, paths[-1]
        if what == "copy":
            image = files[paths[0]]
            assert isinstance(image, Image)
            files[target] = replace(image, used=False)
        elif target in files:
            return 1
        elif what == "claim":
            files[target] = Image(0)
        else:
            files[target] = files.pop(paths[0])
        return 0

    def remove(self, *paths: str) -> None:
        self._machine.step()
        for path in paths:
            self._machine.remove(path)

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self._machine.step()
        self._machine.files[path] = data


class _Guests:
    """What is remembered of guests' host keys."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def remember_guest(self, vm: str, addresses: object, keys: object) -> None:
        self._machine.known_hosts.add(vm)

    def forget_guest(self, vm: str) -> None:
        self._machine.known_hosts.discard(vm)


def _made_image(action: Any, context: Context, work: str) -> tuple[str, dict[str, object]]:
    """A template is made: an image appears in its work directory."""
    machine = cast(Any, context).session.machine
    machine.step()
    machine.files[f"{work}/image"] = Image(action.template.size)
    return f"{work}/image", {}


def _ready(*_: object, **__: object) -> Ready:
    return Ready("host", (), (), "", 1.0, "")


def _grown(agent: object, serial: str, **_: object) -> Grown:
    return Grown(serial, 0, 0, None, "", None, None, None, None, None)


@contextmanager
def seams() -> Iterator[None]:
    """What a guest would do, and what takes minutes, is made up."""
    with patch.object(storage, "_image", _made_image), patch.object(power, "wait_ready", _ready), \
            patch.object(grow, "check", lambda *_: None), patch.object(grow, "grow", _grown):
        yield


def carry_out(plan: Plan, cloud: Cloud, machine: Machine) -> list[Action]:
    """Do what the plan says, one action after another, by the real handlers. What needs something failed is left out.

    Returns what failed. Raises Killed where the fuse ends.
    """
    assert not plan.refused, [problem.what for problem in plan.refused]
    facts = machine.facts(cloud)
    session = SimpleNamespace(host=Shell(machine), virt=Virt(machine), machine=machine)
    journal = SimpleNamespace(write=lambda event, **values: None)
    lost: list[Action] = []
    with seams():
        for action in plan.actions:
            if {need for need in action.needs} & {other.id for other in lost}:
                lost.append(action)
                continue
            _give_up(action, machine)
            context = Context(
                cloud=cloud, session=cast(Any, session), facts=facts, state=cast(Any, _Guests(machine)),
                journal=cast(Any, journal), cancel=threading.Event(), say=lambda text, share: None, action=action.id)
            try:
                HANDLERS[type(action)](action, context)
            except ApplyError:
                lost.append(action)
    return lost


def _give_up(action: Action, machine: Machine) -> None:
    """What takes data has been confirmed by name."""
    if Effect.TAKES_DATA not in action.effects:
        return
    name = action.name if isinstance(action, DestroyVm) else cast(VmAction, action).vm.name
    given = getattr(action, "devices", getattr(action, "add_devices", ()))
    machine.given_up.update(device.address for device in given if device.wipe)
    roles = ("root", "disk") if isinstance(action, DestroyVm) else ("root",)
    for path in machine.images():
        ours = parse_volume(posixpath.basename(path))
        if ours and ours.object == name and ours.role in roles:
            machine.given_up.add(path)


def use(machine: Machine) -> None:
    """Time goes by: guests write to the disks that they have. What was given up and made again holds new data."""
    machine.given_up.clear()
    drives.use(machine.drives)
    for domain in machine.domains.values():
        for disk in domains.parse_domain(domain.persistent, None, "shut off", False).persistent.disks:
            image = machine.files.get(disk.path or "")
            if isinstance(image, Image):
                image.used = True


def all_facts(cloud: Cloud, machine: Machine) -> Facts:
    """The facts of a cloud of one host."""
    return Facts((machine.facts(cloud),))


def clone(machine: Machine) -> Machine:
    """The same machine once more."""
    return copy.deepcopy(machine)
