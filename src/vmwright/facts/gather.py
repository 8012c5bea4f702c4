"""Reads the facts of hosts: one exec and one libvirt connection each, hosts side by side."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from vmwright.errors import HostError
from vmwright.facts import domains, kvm, probes
from vmwright.facts.model import Facts, HostFacts, ImageFacts, PathFacts, PoolFacts
from vmwright.session import Session, Sessions
from vmwright.spec.cloud import Cloud
from vmwright.virt.connect import Inventory

_PROBE_SECONDS = 60.0


def gather(cloud: Cloud, sessions: Sessions, images: Collection[ImageFacts] = ()) -> Facts:
    """The facts of every host of the cloud. Raises HostError when one cannot be reached."""
    names = [host.name for host in cloud.hosts]
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        hosts = list(pool.map(lambda name: gather_host(cloud, sessions[name]), names))
    return Facts(tuple(hosts), tuple(images))


def gather_host(cloud: Cloud, session: Session) -> HostFacts:
    """The facts of one host."""
    wanted = {pool.path for pool in cloud.pools if pool.host == session.spec.name}
    script = probes.script(probes.commands(cloud.name, wanted))
    done = session.host.run(["sh", "-s"], input=script.encode(), timeout=_PROBE_SECONDS)
    inventory = session.virt.inventory()
    return assemble(session.spec.name, probes.split(done.text), inventory)


def assemble(name: str, outputs: dict[str, probes.Output], inventory: Inventory) -> HostFacts:
    """Facts from what a host and its libvirt said. Pure."""
    missing = [probe for probe in ("os", "memory", "cpus", "user") if probe not in outputs]
    if missing:
        raise HostError(f"host {name} did not answer the probe {missing[0]}", todo="is its login shell a POSIX shell?")
    total, available = probes.parse_meminfo(outputs["memory"].text)
    verdict, reason = kvm.parse(outputs["kvm"].text)
    paths = probes.parse_paths(outputs["paths"].text)
    pools = [(domains.parse_pool(raw.xml, active=raw.active, autostart=raw.autostart), raw) for raw in inventory.pools]
    return HostFacts(
        name=name,
        hostname=outputs["hostname"].text.strip(),
        os=probes.parse_os(outputs["os"].text),
        kernel=outputs["kernel"].text.strip(),
        cpus=int(outputs["cpus"].text.strip()),
        memory=total,
        memory_available=available,
        kvm=verdict,
        kvm_reason=reason,
        emulator=inventory.emulator,
        libvirt=inventory.libvirt,
        uefi=domains.has_uefi(inventory.capabilities),
        tools=tuple(outputs["tools"].text.split()),
        pools=tuple(_with_paths(pool, paths) for pool, _ in pools),
        volumes=tuple(domains.parse_volume(pool.name, xml) for pool, raw in pools for xml in raw.volumes),
        networks=tuple(domains.parse_network(raw.xml, active=raw.active, autostart=raw.autostart)
                       for raw in inventory.networks),
        links=probes.parse_links(outputs["links"].text),
        domains=tuple(domains.parse_domain(raw.persistent, raw.live, raw.state, raw.autostart)
                      for raw in inventory.domains),
        intents=(*probes.parse_intents(outputs["intents"].text), *probes.parse_work(outputs["work"].text)),
        paths=paths,
        kvm_device_mode=outputs["kvm-device"].text.strip() or None,
        user=outputs["user"].text.strip(),
    )


def _with_paths(pool: PoolFacts, paths: tuple[PathFacts, ...]) -> PoolFacts:
    blocked = next((path.blocked_by for path in paths if path.path == pool.target), None)
    return replace(pool, blocked_by=blocked)
