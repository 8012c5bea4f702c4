"""Reads the facts of hosts: one exec and one libvirt connection each, hosts side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from vmwright.errors import HostError
from vmwright.facts import domains, kvm, probes
from vmwright.facts.model import Facts, HostFacts, ImageFacts, PathFacts, PoolFacts, VolumeFacts
from vmwright.session import Session, Sessions
from vmwright.spec.cloud import Cloud, Pool
from vmwright.virt.connect import Inventory, RawPool

T = TypeVar("T")
_PROBE_SECONDS = 60.0


def gather(cloud: Cloud, sessions: Sessions, images: Collection[ImageFacts] = ()) -> Facts:
    """The facts of every host of the cloud. Raises HostError when one cannot be reached."""
    names = [host.name for host in cloud.hosts]
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        hosts = list(pool.map(lambda name: gather_host(cloud, sessions[name]), names))
    return Facts(tuple(hosts), tuple(images))


def gather_host(cloud: Cloud, session: Session) -> HostFacts:
    """The facts of one host. libvirt is asked first: where it has no active pool, the shell looks at the files."""
    wanted = [pool for pool in cloud.pools if pool.host == session.spec.name]
    inventory = session.virt.inventory(refresh={pool.name for pool in wanted})
    hidden = untold(wanted, (_pool(raw) for raw in inventory.pools))
    script = probes.script(probes.commands(cloud.name, {pool.path for pool in wanted}, hidden))
    done = session.host.run(["sh", "-s"], input=script.encode(), timeout=_PROBE_SECONDS)
    return assemble(session.spec.name, probes.split(done.text), inventory, hidden)


def untold(wanted: Iterable[Pool], there: Iterable[PoolFacts]) -> dict[str, str]:
    """Directories of wanted pools whose files libvirt does not tell, with the pool's name. Pure.

    A pool that is not started, or forgotten by libvirt, may be full of volumes: a plan that took it for empty would
    make its templates again, under the disks that stand on them.
    """
    told = {pool.target for pool in there if pool.active}
    return {pool.path: pool.name for pool in wanted if pool.path not in told}


def assemble(name: str, outputs: Mapping[str, probes.Output], inventory: Inventory,
             hidden: Mapping[str, str] | None = None) -> HostFacts:
    """Facts from what a host and its libvirt said. Pure. Raises HostError naming the probe that went wrong."""
    probes.demand(outputs, name)

    def read(probe: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(outputs[probe].text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HostError(f"host {name}: the probe {probe} was not understood", why=str(error),
                            todo=f"see what it prints there: {_shown(probe)}") from error

    total, available = read("memory", probes.parse_meminfo)
    verdict, reason = kvm.parse(outputs["kvm"].text)
    paths = probes.parse_paths(outputs["paths"].text)
    return HostFacts(
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
        tools=tuple(outputs["tools"].text.split()),
        pools=tuple(_with_paths(_pool(raw), paths) for raw in inventory.pools),
        volumes=(*_volumes(inventory), *read("files", lambda text: probes.parse_files(text, hidden or {}))),
        networks=tuple(domains.parse_network(raw.xml, active=raw.active, autostart=raw.autostart)
                       for raw in inventory.networks),
        links=read("links", probes.parse_links),
        domains=tuple(domains.parse_domain(raw.persistent, raw.live, raw.state, raw.autostart)
                      for raw in inventory.domains),
        intents=(*probes.parse_intents(outputs["intents"].text), *probes.parse_work(outputs["work"].text)),
        paths=paths,
        kvm_device_mode=outputs["kvm-device"].text.strip() or None,
        user=outputs["user"].text.strip(),
    )


def _shown(probe: str) -> str:
    argv = probes.commands("CLOUD", ())[probe]
    return " ".join(argv) if argv[0] != "sh" else "vmwright doctor"


def _pool(raw: RawPool) -> PoolFacts:
    return domains.parse_pool(raw.xml, active=raw.active, autostart=raw.autostart)


def _volumes(inventory: Inventory) -> Iterable[VolumeFacts]:
    for raw in inventory.pools:
        name = _pool(raw).name if raw.volumes else ""
        for xml in raw.volumes:
            yield domains.parse_volume(name, xml)


def _with_paths(pool: PoolFacts, paths: tuple[PathFacts, ...]) -> PoolFacts:
    path = next((path for path in paths if path.path == pool.target), None)
    if path is None:
        return pool
    # libvirt counts the blocks that the file system keeps for root; QEMU does not get those.
    return replace(pool, blocked_by=path.blocked_by, available=min(pool.available, path.available))
