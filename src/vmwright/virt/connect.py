"""The connection to libvirt: the only module that imports it. Every call goes through one place, which counts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import libvirt
import libvirt_qemu

from vmwright.errors import AgentSilent, ApplyError, GuestError, HostError

T = TypeVar("T")
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
}
_VALIDATES = 7_007_000  # getLibVersion's way to write 7.7
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
# libvirt's words may be in the host's language; its codes are not.
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL,
         libvirt.VIR_ERR_NO_NETWORK)
_BUSY = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_OPERATION_INVALID)  # a pool in which a volume is being made
_AGENT_GONE = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED, libvirt.VIR_ERR_OPERATION_INVALID)


@dataclass(frozen=True)
class RawDomain:
    """A domain as libvirt tells it. `live` is the running configuration's XML, None when it is off."""

    persistent: str
    live: str | None
    state: str
    autostart: bool
    saved: bool = False  # its memory is in a file of libvirt's (managed save)


@dataclass(frozen=True)
class RawPool:
    """A pool, and the XML of each of its volumes (none when it is not active, or is a volume group)."""

    xml: str
    active: bool
    autostart: bool
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawNetwork:
    """A network as libvirt tells it."""

    xml: str
    active: bool
    autostart: bool


@dataclass(frozen=True)
class Inventory:
    """One read of all that libvirt has on a host. `firmwares` are what it can boot guests of this machine type with."""

    libvirt: str | None  # None: it is not there
    emulator: str | None
    capabilities: str
    domains: tuple[RawDomain, ...]
    pools: tuple[RawPool, ...]
    networks: tuple[RawNetwork, ...]


def _quiet(*_: object) -> None:
    """libvirt prints every error to stderr by itself, unless it is told not to; ours are exceptions."""


libvirt.registerErrorHandler(_quiet, None)


def _name(listed: Any) -> str:
    return str(listed.name())


def version_text(number: int) -> str:
    """libvirt's and QEMU's version numbers, major * 1,000,000 + minor * 1,000 + release, as text."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


class Connection:
    """One connection to one host's libvirt. `calls` counts what was asked of libvirt, `agent_calls` what of guests."""

    def __init__(self, uri: str, host: str) -> None:
        self.host, self.uri = host, uri
        self.calls = self.agent_calls = 0
        self._count = threading.Lock()
        self._version = 0  # not asked yet
        self._domains: dict[str, libvirt.virDomain] = {}
        self._pools: dict[str, libvirt.virStoragePool] = {}
        try:
            self._libvirt = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise HostError(f"libvirt on host {host} does not answer", why=str(error),
                            todo=_reach_todo(str(error))) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of libvirt."""
        self._domains.clear()
        self._pools.clear()
        with suppress(libvirt.libvirtError):  # the daemon went away first: nothing is left to close
            self._libvirt.close()

    def _call(self, what: str, function: Callable[..., T], *args: Any) -> T:
        with self._count:
            self.calls += 1
        try:
            return function(*args)
        except libvirt.libvirtError as error:
            raised = ApplyError(f"libvirt on host {self.host} could not {what}", why=str(error),
                                todo=_call_todo(str(error)))
            raised.code = error.get_error_code()
            raise raised from error

    # -- reading ----------------------------------------------------------------------------------------------------

    def inventory(self, refresh: Collection[str] = ()) -> Inventory:
        """One listing per kind; then one description per domain (two when it runs), pool, volume and network.

        `refresh` names the pools in which libvirt looks again at what is there; pools of others may be slow to look at
        (iSCSI, NFS), and are told as libvirt knows them; in volume groups it never looks, as LVM tells more. All by
        name: libvirt lists in the order of its hash tables, and a plan is to look the same at every run.
        """
        conn = self._libvirt
        autostarted, saved = ({d.name() for d in self._call("list domains", conn.listAllDomains, flag)}
                              for flag in (libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART,
                                           libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE))
        stats = self._call("list domains", conn.getAllDomainStats, libvirt.VIR_DOMAIN_STATS_STATE, 0)
        domains = [self._still(self._raw_domain, domain, row, autostarted, saved)
                   for domain, row in sorted(stats, key=lambda row: _name(row[0]))]
        pools = [self._still(self._raw_pool, pool, _name(pool) in refresh)
                 for pool in sorted(self._call("list pools", conn.listAllStoragePools), key=_name)]
        networks = [self._still(self._raw_network, network)
                    for network in sorted(self._call("list networks", conn.listAllNetworks), key=_name)]
        return Inventory(
            libvirt=version_text(self._tell_version()),
            emulator=self._emulator(),
            capabilities=self._capabilities(),
            domains=tuple(d for d in domains if d),
            pools=tuple(p for p in pools if p),
            networks=tuple(n for n in networks if n),
        )

    def _still(self, describe: Callable[..., T], *args: Any) -> T | None:
        """What is described, or None when somebody else has removed it since it was listed."""
        try:
            return describe(*args)
        except ApplyError as error:
            if error.code in _GONE:
                return None
            raise

    def _emulator(self) -> str | None:
        try:
            return version_text(self._call("tell QEMU's version", self._libvirt.getVersion))
        except ApplyError:
            return None

    def _capabilities(self) -> str:
        try:
            return str(self._call("tell what guests can have",
                                  self._libvirt.getDomainCapabilities, None, "x86_64", "q35", None))
        except ApplyError:
            return ""  # no emulator for x86_64: the plan says so from the empty text

    def _raw_domain(self, domain: libvirt.virDomain, row: dict[str, Any], autostarted: set[str],
                    saved: set[str]) -> RawDomain:
        name = domain.name()
        self._domains[name] = domain
        active = domain.ID() != -1
        persistent = self._call("describe a domain", domain.XMLDesc,
                                libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        live = self._call("describe a domain", domain.XMLDesc, 0) if active else None
        state = _STATES.get(row.get("state.state", 0), "shut off")
        return RawDomain(persistent, live, state, name in autostarted, name in saved)

    def _raw_pool(self, pool: libvirt.virStoragePool, refresh: bool) -> RawPool:
        self._pools[pool.name()] = pool
        active = bool(self._call("look at a pool", pool.isActive))
        volumes: list[str] = []
        if active and refresh and not self._refresh(pool):
            # A refresh that fails may stop the pool: what libvirt cannot read, it does not keep.
            active = bool(self._call("look at a pool", pool.isActive))
        described = str(self._call("describe a pool", pool.XMLDesc, 0))  # with its free space, as it is now
        if active and not described.startswith("<pool type='logical'"):
            listed = self._call("list volumes", pool.listAllVolumes)
            volumes = [xml for volume in listed if (xml := self._volume_xml(volume))]
        return RawPool(described, active,
                       bool(self._call("look at a pool", pool.autostart)), tuple(volumes))

    def _refresh(self, pool: libvirt.virStoragePool) -> bool:
        # libvirt refuses while a volume is being made by somebody else: its last listing is what there is.
        try:
            self._call("refresh a pool", pool.refresh, 0)
        except ApplyError:
            return False
        return True

    def _volume_xml(self, volume: libvirt.virStorageVol) -> str | None:
        try:
            return str(self._call("describe a volume", volume.XMLDesc, 0))
        except ApplyError:
            return None  # removed since the listing

    def _raw_network(self, network: libvirt.virNetwork) -> RawNetwork:
        return RawNetwork(self._call("describe a network", network.XMLDesc, 0),
                          bool(self._call("look at a network", network.isActive)),
                          bool(self._call("look at a network", network.autostart)))

    def _domain(self, name: str) -> libvirt.virDomain:
        if name not in self._domains:
            self._domains[name] = self._call(f"find VM {name}", self._libvirt.lookupByName, name)
        return self._domains[name]

    def _pool(self, name: str) -> libvirt.virStoragePool:
        if name not in self._pools:
            self._pools[name] = self._call(f"find pool {name}", self._libvirt.storagePoolLookupByName, name)
        return self._pools[name]

    def domain_xml(self, name: str, *, live: bool = False) -> str:
        """A domain's persistent (or running) configuration."""
        flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
        return str(self._call(f"describe VM {name}", self._domain(name).XMLDesc, flags | libvirt.VIR_DOMAIN_XML_SECURE))

    def running_xml(self) -> list[str]:
        """The running configurations of all domains that run."""
        active = self._call("list domains", self._libvirt.listAllDomains, libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        found = [self._still(lambda domain: self._call("describe a domain", domain.XMLDesc, 0), d) for d in active]
        return [str(xml) for xml in found if xml]

    def domain_state(self, name: str) -> str:
        """running, paused, crashed or "shut off"."""
        return _STATES.get(self._call(f"look at VM {name}", self._domain(name).state)[0], "shut off")

    def alive(self, name: str) -> bool:
        """Whether a VM still runs; asked again and again while one waits, and so counted with the agent's calls."""
        with self._count:
            self.agent_calls += 1
        try:
            return bool(self._domain(name).isActive())
        except libvirt.libvirtError:
            return False

    # -- pools, volumes, networks -----------------------------------------------------------------------------------

    def ensure_pool(self, name: str, xml: str | None, *, build: bool) -> None:
        """Define the pool when `xml` is given, make its directory with `build`, start it now and at boot."""
        if xml is not None:
            flags = libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE if self._validates() else 0
            self._pools[name] = self._call(f"define pool {name}", self._libvirt.storagePoolDefineXML, xml, flags)
        pool = self._pool(name)
        if build:
            self._call(f"make pool {name}'s directory", pool.build, 0)
        if not self._call(f"look at pool {name}", pool.isActive):
            self._call(f"start pool {name}", pool.create, 0)
        self._call(f"set pool {name} to start at boot", pool.setAutostart, 1)

    def undefine_pool(self, name: str) -> None:
        """Stop a pool and forget its definition; the directory and what is in it stay."""
        pool = self._pool(name)
        if self._call(f"look at pool {name}", pool.isActive):
            self._call(f"stop pool {name}", pool.destroy)
        self._call(f"undefine pool {name}", pool.undefine)
        self._pools.pop(name, None)

    def refresh_pool(self, name: str) -> None:
        """Let libvirt see files that were put into a pool's directory; not now while it makes volumes there."""
        for pause in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
            try:
                self._call(f"refresh pool {name}", self._pool(name).refresh, 0)
                return
            except ApplyError as error:
                if error.code not in _BUSY:
                    raise
            time.sleep(pause)

    def create_volume(self, pool: str, xml: str) -> None:
        """Make a volume from its description."""
        self._call(f"make a volume in pool {pool}", self._pool(pool).createXML, xml, 0)

    def delete_volume(self, pool: str, name: str) -> bool:
        """Remove a volume. False when there was none of that name."""
        try:
            volume = self._call(f"find volume {name}", self._pool(pool).storageVolLookupByName, name)
        except ApplyError as error:
            if error.code == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return False
            raise
        self._call(f"remove volume {name} of pool {pool}", volume.delete, 0)
        return True

    def resize_volume(self, pool: str, name: str, size: int) -> None:
        """Make a volume larger; `size` in bytes. The VM must be off."""
        volume = self._call(f"find volume {name}", self._pool(pool).storageVolLookupByName, name)
        self._call(f"make volume {name} larger", volume.resize, size, 0)

    def define_network(self, name: str, xml: str) -> None:
        """Define a network; checked against libvirt's schema, where it does that."""
        if self._validates():
            self._call(f"define network {name}", self._libvirt.networkDefineXMLFlags, xml,
                       libvirt.VIR_NETWORK_DEFINE_VALIDATE)
        else:
            self._call(f"define network {name}", self._libvirt.networkDefineXML, xml)

    def _validates(self) -> bool:
        """Whether this libvirt checks pools and networks against its schema: the flags came with 7.7."""
        return self._tell_version() >= _VALIDATES

    def _tell_version(self) -> int:
        if not self._version:
            self._version = int(self._call("tell its version", self._libvirt.getLibVersion))
        return self._version

    def ensure_network(self, name: str) -> None:
        """Start the network now and at boot."""
        network = self._call(f"find network {name}", self._libvirt.networkLookupByName, name)
        if not self._call(f"look at network {name}", network.isActive):
            self._call(f"start network {name}", network.create)
        self._call(f"set network {name} to start at boot", network.setAutostart, 1)

    def undefine_network(self, name: str) -> None:
        """Stop a network and forget it."""
        network = self._call(f"find network {name}", self._libvirt.networkLookupByName, name)
        if self._call(f"look at network {name}", network.isActive):
            self._call(f"stop network {name}", network.destroy)
        self._call(f"undefine network {name}", network.undefine)

    # -- domains ----------------------------------------------------------------------------------------------------

    def define(self, name: str, xml: str) -> None:
        """Define (or define anew) a domain; checked against libvirt's schema."""
        self._domains[name] = self._call(f"define VM {name}", self._libvirt.defineXMLFlags, xml,
                                         libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def start(self, name: str, *, reset_nvram: bool = False) -> None:
        """Start a VM; with `reset_nvram`, from a fresh copy of its firmware's variables."""
        flags = libvirt.VIR_DOMAIN_START_RESET_NVRAM if reset_nvram else 0
        self._call(f"start VM {name}", self._domain(name).createWithFlags, flags)

    def shutdown(self, name: str) -> None:
        """Ask the guest to power off; returns at once."""
        self._call(f"ask VM {name} to power off", self._domain(name).shutdownFlags,
                   libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def kill(self, name: str) -> None:
        """Pull the plug: QEMU is asked to end, so that it can write out its caches, and made to when it does not."""
        with suppress(ApplyError):
            self._call(f"power off VM {name}", self._domain(name).destroyFlags, libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
        if self.alive(name):
            self._call(f"power off VM {name}", self._domain(name).destroyFlags, 0)

    def undefine(self, name: str) -> None:
        """Forget a domain, with its NVRAM, saved state, and the descriptions of its snapshots and checkpoints."""
        flags = (libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                 | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        self._call(f"undefine VM {name}", self._domain(name).undefineFlags, flags)
        self._domains.pop(name, None)

    def exists(self, name: str) -> bool:
        """Whether libvirt knows a domain of that name."""
        self._domains.pop(name, None)
        try:
            self._domain(name)
        except ApplyError as error:
            if error.code == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise
        return True

    def set_autostart(self, name: str, on: bool) -> None:
        """Start the VM at host boot, or not."""
        self._call(f"set VM {name}'s start at boot", self._domain(name).setAutostart, int(on))

    def set_vcpus_live(self, name: str, count: int) -> None:
        """Plug virtual CPUs into a running VM, up to its maximum."""
        self._call(f"give VM {name} {count} CPUs", self._domain(name).setVcpusFlags, count, _LIVE)

    def pin_live(self, name: str, vcpus: Sequence[Collection[int]], emulator: Collection[int],
                 iothreads: Mapping[int, Collection[int]]) -> None:
        """Move a running VM's threads to these CPUs of the host: of each vCPU, the emulator's, and I/O threads'."""
        domain = self._domain(name)
        for number, cpus in enumerate(vcpus):
            self._call(f"pin vCPU {number} of VM {name}", domain.pinVcpuFlags, number, _cpu_map(cpus), _LIVE)
        self._call(f"pin the emulator of VM {name}", domain.pinEmulator, _cpu_map(emulator), _LIVE)
        for number, cpus in iothreads.items():
            self._call(f"pin I/O thread {number} of VM {name}", domain.pinIOThread, number, _cpu_map(cpus), _LIVE)

    def set_memory_live(self, name: str, size: int) -> None:
        """Set a running VM's balloon; `size` in bytes."""
        self._call(f"set VM {name}'s memory", self._domain(name).setMemoryFlags, size >> 10, _LIVE)

    def attach_live(self, name: str, xml: str) -> None:
        """Plug a device into a running VM (its persistent definition is written separately)."""
        self._call(f"plug a device into VM {name}", self._domain(name).attachDeviceFlags, xml, _LIVE)

    def detach_live(self, name: str, xml: str) -> None:
        """Ask a running VM to let go of a device; it does so by and by."""
        self._call(f"unplug a device from VM {name}", self._domain(name).detachDeviceFlags, xml, _LIVE)

    def update_live(self, name: str, xml: str) -> None:
        """Change a plugged-in device of a running VM, e.g. the network of a NIC."""
        self._call(f"change a device of VM {name}", self._domain(name).updateDeviceFlags, xml, _LIVE)

    def grow_disk_live(self, name: str, path: str, size: int) -> None:
        """Make a running VM's disk larger; `size` in bytes (libvirt's own unit here is KiB unless told)."""
        self._call(f"make a disk of VM {name} larger", self._domain(name).blockResize, path, size,
                   libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def agent(self, name: str) -> Callable[[str, int], str]:
        """A function that hands one guest-agent command (JSON text, timeout in seconds) to a VM."""

        def command(text: str, timeout: int) -> str:
            with self._count:
                self.agent_calls += 1
            try:
                return str(libvirt_qemu.qemuAgentCommand(self._domain(name), text, timeout, 0))
            except libvirt.libvirtError as error:
                kind = AgentSilent if error.get_error_code() in _AGENT_GONE else GuestError
                what = "does not answer" if kind is AgentSilent else "refused a command"
                raise kind(f"the guest agent of VM {name} {what}",
                           why=str(error), todo=f"see its console: vmwright console {name}") from error

        return command


def _cpu_map(cpus: Collection[int]) -> tuple[bool, ...]:
    """As libvirt wants it: of each CPU whether it is meant; those beyond the last are not."""
    return tuple(number in cpus for number in range(max(cpus, default=-1) + 1))


def _reach_todo(said: str) -> str:
    if "No such file" in said or "Connection refused" in said:
        return "start libvirt's daemon there: systemctl start libvirtd (or install libvirt-daemon-system)"
    if "ermission denied" in said or "authentication" in said:
        return "work as root, or as a member of the group libvirt: adduser USER libvirt, then log in anew"
    return "try `virsh -c qemu:///system list` on the host"


def _call_todo(said: str) -> str:
    if "No space left" in said:
        return "make room on the host's disk, then apply again"
    if "hugetlbfs" in said:
        return ("libvirt knows of no hugetlbfs for such pages: mount one (mount -t hugetlbfs -o pagesize=2M none "
                "/dev/hugepages), and restart its daemon")
    if "Cannot allocate memory" in said:
        return "stop a VM or give less memory, then apply again"
    if "Permission denied" in said or "ermission" in said:
        return "see `vmwright doctor`: the libvirt user must be able to reach the pool's directory"
    return "the journal (`vmwright log`) has what was done; apply again picks up from there"

