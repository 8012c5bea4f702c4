"""Reads the facts of hosts: one exec and one libvirt connection each, hosts side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from vmwright.errors import HostError
from vmwright.facts import boot, cpu, domains, kvm, network, pci, platform, probes, services, storage
from vmwright.facts import devices as device_uses
from vmwright.facts.model import (
    BlockFacts,
    BootFacts,
    DeviceFacts,
    Facts,
    HostFacts,
    ImageFacts,
    PathFacts,
    PoolFacts,
    VolumeFacts,
)
from vmwright.names import METADATA_URI
from vmwright.session import Session, Sessions
from vmwright.spec.cloud import Cloud, Pool
from vmwright.virt.connect import Inventory, RawDomain, RawPool

T = TypeVar("T")
_PROBE_SECONDS = 60.0
_DAEMONS = ("libvirtd", "virtqemud")
NO_LIBVIRT = Inventory(None, None, "", (), (), ())
LOGICAL = "logical"  # libvirt's word for a pool that is a volume group


def gather(cloud: Cloud, sessions: Sessions, images: Collection[ImageFacts] = (), *, disks: bool = False,
           devices: bool = False) -> Facts:
    """The facts of every host of the cloud; `disks` and `devices` as in `gather_host`.

    Raises HostError when one is not reached.
    """
    names = [host.name for host in cloud.hosts]
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        hosts = list(pool.map(lambda name: gather_host(cloud, sessions[name], disks=disks, devices=devices), names))
    return Facts(tuple(hosts), tuple(images))


def gather_host(cloud: Cloud, session: Session, *, disks: bool = False, devices: bool = False,
                known: Inventory | None = None) -> HostFacts:
    """The facts of one host. libvirt is asked first: where it has no active pool, the shell looks at the files.

    Block devices are read when the cloud has an LVM pool there, or with `disks`. PCI devices are read when the cloud
    sets some aside there or a VM has one of us, or with `devices`; block devices with them, for they may be in use.
    `known` is what libvirt has, where that has been asked already.
    """
    pools = [pool for pool in cloud.pools if pool.host == session.spec.name]
    inventory = known or inventory_of(cloud, session)
    hidden = untold(pools, (_pool(raw) for raw in inventory.pools))
    devices = devices or session.spec.iommu or bool(session.spec.devices) or any(map(_has_ours, inventory.domains))
    wanted = storage.wanted(pools, disks=disks or devices)
    asked = probes.commands(cloud.name, {pool.path for pool in pools if not pool.lvm}, hidden)
    ordered = any(vm.host == session.spec.name and vm.start_order.said for vm in cloud.vms)
    more = {**boot.commands(cloud.name, ordered), **network.commands(session.spec.bridges),
            **services.commands(session.spec.services)}
    script = probes.script({**asked, **more, **storage.commands(wanted), **pci.commands(devices)})
    done = session.host.run(["sh", "-s"], input=script.encode(), timeout=_PROBE_SECONDS)
    outputs = probes.split(done.text)
    probes.demand(outputs, session.spec.name, more)
    return assemble(session.spec.name, outputs, inventory, hidden, wanted, devices=devices)


def _has_ours(domain: RawDomain) -> bool:
    """Whether a VM of vmwright's has a device that is passed through, from its XML."""
    return METADATA_URI in domain.persistent and "<hostdev" in domain.persistent + (domain.live or "")


def inventory_of(cloud: Cloud, session: Session) -> Inventory:
    """What libvirt has; nothing where it is not installed yet: the plan installs it.

    Raises HostError when it is there, and does not answer.
    """
    refresh = {pool.name for pool in cloud.pools if pool.host == session.spec.name and not pool.lvm}
    try:
        return session.virt.inventory(refresh=refresh)
    except HostError:
        if any(session.host.run(["sh", "-c", f"command -v {program}"], check=False).code == 0 for program in _DAEMONS):
            raise
        return NO_LIBVIRT


def untold(wanted: Iterable[Pool], there: Iterable[PoolFacts]) -> dict[str, str]:
    """Directories of wanted pools whose files libvirt does not tell, with the pool's name. Pure.

    A pool that is not started, or forgotten by libvirt, may be full of volumes: a plan that took it for empty would
    make its templates again, under the disks that stand on them.
    """
    told = {pool.target for pool in there if pool.active}
    return {pool.path: pool.name for pool in wanted if not pool.lvm and pool.path not in told}


def assemble(name: str, outputs: Mapping[str, probes.Output], inventory: Inventory,
             hidden: Mapping[str, str] | None = None, wanted: storage.Wanted | None = None, *,
             devices: bool = False) -> HostFacts:
    """Facts from what a host and its libvirt said. Pure. Raises HostError naming the probe that went wrong."""
    wanted = wanted or storage.Wanted()
    probes.demand(outputs, name, {**storage.commands(wanted), **pci.commands(devices)})

    def read(probe: str, parse: Callable[[str], T]) -> T:
        return _read(name, outputs, probe, parse)

    lvm, blocks = _storage(name, outputs, wanted)
    total, available = read("memory", probes.parse_meminfo)
    verdict, reason = kvm.parse(outputs["kvm"].text)
    paths = probes.parse_paths(outputs["paths"].text)
    cpus, nodes = read("topology", cpu.parse)
    host = HostFacts(
        name=name,
        hostname=outputs["hostname"].text.strip(),
        os=probes.parse_os(outputs["os"].text),
        kernel=outputs["kernel"].text.strip(),
        cpus=read("cpus", probes.parse_count),
        memory=total,
        memory_available=available,
        kvm=verdict,
        kvm_reason=reason,
        emulator=inventory.emulator,
        libvirt=inventory.libvirt,
        uefi=domains.has_uefi(inventory.capabilities),
        cpu_vendor=domains.cpu_vendor(inventory.capabilities),
        tools=tuple(outputs["tools"].text.split()),
        pools=tuple(_with_group(_with_paths(_pool(raw), paths), lvm) for raw in inventory.pools),
        volumes=(*_volumes(inventory), *lvm.volumes,
                 *read("files", lambda text: probes.parse_files(text, hidden or {}))),
        networks=tuple(domains.parse_network(raw.xml, active=raw.active, autostart=raw.autostart)
                       for raw in inventory.networks),
        links=read("links", probes.parse_links),
        domains=tuple(domains.parse_domain(raw.persistent, raw.live, raw.state, raw.autostart, raw.saved)
                      for raw in inventory.domains),
        intents=(*probes.parse_intents(outputs["intents"].text), *probes.parse_work(outputs["work"].text)),
        paths=paths,
        blocks=blocks,
        groups=lvm.groups,
        cpu_list=cpus,
        nodes=nodes,
        boot=read("boot", boot.parse) if "boot" in outputs else BootFacts(),
        kvm_device_mode=outputs["kvm-device"].text.strip() or None,
        user=outputs["user"].text.strip(),
        platform=read("platform", lambda text: platform.parse(text, outputs["own-files"].text, outputs["os"].text)),
        wiring=read("wiring", lambda _: network.parse({probe: out.text for probe, out in outputs.items()}))
        if "wiring" in outputs else None,
        services=read("services", services.parse) if "services" in outputs else None,
    )
    if not devices:
        return host
    seen = _seen(name, outputs)
    return replace(host, devices=_devices(host, outputs, seen), iommu=seen.iommu, not_aside=seen.not_aside,
                   fstab=seen.fstab,
                   held=pci.parse_notes(outputs["held"].text))


def _seen(name: str, outputs: Mapping[str, probes.Output]) -> pci.Seen:
    """PCI devices, by what sysfs tells of them."""
    serials = _read(name, outputs, "pci-config", pci.parse_serials)
    return _read(name, outputs, "pci", lambda text: pci.parse(text, serials, outputs["pci-names"].text))


def _devices(host: HostFacts, outputs: Mapping[str, probes.Output], seen: pci.Seen) -> tuple[DeviceFacts, ...]:
    """PCI devices with who uses them, by what else is known of the host."""
    addresses = _read(host.name, outputs, "links", device_uses.parse_addresses)
    links = device_uses.parse_disk_links(outputs["disk-links"].text)
    return device_uses.with_uses(seen, device_uses.Around(host.blocks, host.links, addresses, host.domains, links))


def _storage(name: str, outputs: Mapping[str, probes.Output],
             wanted: storage.Wanted) -> tuple[storage.Lvm, tuple[BlockFacts, ...]]:
    """What LVM has, and the block devices; nothing where nobody asked."""
    if not wanted.disks:
        return storage.Lvm(), ()
    lvm, looked = storage.Lvm(), storage.Looked()
    if wanted.pools:
        lvm = _read(name, outputs, "lvm", lambda text: storage.parse_lvm(text, outputs["lvm"].code, wanted.pools))
        looked = _read(name, outputs, "signatures", storage.parse_signatures)
    mounts = storage.parse_mounts(outputs["mounts"].text, outputs["swaps"].text)
    known = storage.Known(storage.parse_disks(outputs["disks"].text), mounts, looked, lvm.members)
    return lvm, _read(name, outputs, "blocks", lambda text: storage.parse_blocks(text, known))


def _read(host: str, outputs: Mapping[str, probes.Output], probe: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(outputs[probe].text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(f"host {host}: the probe {probe} was not understood", why=str(error),
                        todo=f"see what it prints there: {_shown(probe)}") from error


def _shown(probe: str) -> str:
    every = {**probes.commands("CLOUD", ()), **storage.commands(storage.Wanted(disks=True)), **pci.commands(True)}
    if probe == "lvm":
        return "lvm fullreport"
    argv = every.get(probe, ["sh"])
    return " ".join(argv) if argv[0] != "sh" else "vmwright doctor"


def _pool(raw: RawPool) -> PoolFacts:
    return domains.parse_pool(raw.xml, active=raw.active, autostart=raw.autostart)


def _volumes(inventory: Inventory) -> Iterable[VolumeFacts]:
    """What libvirt tells of; not those of volume groups, which LVM tells of itself."""
    for raw in inventory.pools:
        pool = _pool(raw) if raw.volumes else None
        if pool is None or pool.type == LOGICAL:
            continue
        for xml in raw.volumes:
            yield domains.parse_volume(pool.name, xml)


def _with_paths(pool: PoolFacts, paths: tuple[PathFacts, ...]) -> PoolFacts:
    path = next((path for path in paths if path.path == pool.target), None)
    if path is None:
        return pool
    # libvirt counts the blocks that the file system keeps for root; QEMU does not get those.
    return replace(pool, blocked_by=path.blocked_by, available=min(pool.available, path.available))


def _with_group(pool: PoolFacts, lvm: storage.Lvm) -> PoolFacts:
    """A volume group's own figures: libvirt's are those of when it last looked, which it is not asked to."""
    found = (group for group in lvm.groups if pool.type == LOGICAL and pool.target == f"/dev/{group.name}")
    group = next(found, None)
    return replace(pool, capacity=group.size, available=group.free) if group else pool
