"""The spec resolved: model -> Cloud. Nothing is looked up but the files it names on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vmwright.spec.cloud import Cloud, NetworkSpec, Pool, TemplateSpec, VmSpec
from vmwright.spec.findings import Findings
from vmwright.spec.groups import Member
from vmwright.spec.hosts import HostView, resolve_hosts, valid_label
from vmwright.spec.model import Spec
from vmwright.spec.networks import resolve_networks
from vmwright.spec.nics import Registry
from vmwright.spec.services import check_ranges, resolve_services, serve_networks
from vmwright.spec.templates import Template, resolve_templates
from vmwright.spec.users import resolve_users
from vmwright.spec.vms import Surroundings, resolve_vm


def resolve(spec: Spec, members: Mapping[str, Member], findings: Findings) -> Cloud:
    """The cloud. It is whole only when the findings hold no problem."""
    if not findings.broken("cloud"):
        valid_label(findings, ("cloud",), spec.cloud, "cloud name", key=False)
    hosts = resolve_hosts(spec, findings)
    networks = resolve_networks(spec, findings)
    hosts = resolve_services(spec, hosts, networks, findings)
    networks = serve_networks(spec, networks, hosts)
    users = resolve_users(spec, findings)
    templates = resolve_templates(spec, hosts, findings)
    taken = {address: what for host in hosts.values() for address, what in host.addresses.items()}
    registry = Registry(spec.cloud, networks, taken)
    around = Surroundings(hosts, networks, users, templates, registry)
    vms = tuple(resolve_vm(name, vm, members[name], around, findings) for name, vm in spec.vms.items())
    check_ranges(hosts, networks, registry.taken, findings)
    _warn(spec, vms, findings)
    needed = _templates(vms, templates)
    return Cloud(
        name=spec.cloud,
        hosts=tuple(host.spec for host in hosts.values()),
        pools=_pools(spec, hosts, vms, needed),
        networks=_networks(spec, networks, vms),
        templates=needed,
        vms=vms,
    )


def _warn(spec: Spec, vms: Iterable[VmSpec], findings: Findings) -> None:
    """What is right, but hardly meant."""
    if spec.vms and not spec.users and not findings.broken("users"):
        findings.warn(("vms",), "the file names no users: nobody can log in to these VMs")
    silent = {nic.network for vm in vms for nic in vm.nics if nic.gateway and not nic.dns}
    for name in silent:
        findings.warn(("networks", name), "VMs with fixed addresses there get no DNS server: add dns: to the network")


def _templates(vms: Iterable[VmSpec], templates: Mapping[str, Template]) -> tuple[TemplateSpec, ...]:
    """Each template on every host and pool where a VM needs it."""
    needed: dict[tuple[str, str, str], TemplateSpec] = {}
    for vm in vms:
        template = templates.get(vm.template)
        if template is None:
            continue
        key = (vm.template, vm.host, template.pool or vm.pool)
        if key not in needed and (made := template.on(*key[1:])):
            needed[key] = made
    return tuple(needed.values())


def _pools(
    spec: Spec, hosts: Mapping[str, HostView], vms: Iterable[VmSpec], templates: Iterable[TemplateSpec]
) -> tuple[Pool, ...]:
    """The pools of the file; the one nobody named only where it is used."""
    used = {(vm.host, pool) for vm in vms for pool in (vm.pool, *(disk.pool for disk in vm.data_disks))}
    used |= {(template.host, template.pool) for template in templates}
    return tuple(
        pool
        for name, host in hosts.items()
        for pool in host.pools.values()
        if (name in spec.hosts and spec.hosts[name].pools) or (name, pool.name) in used
    )


def _networks(spec: Spec, networks: Mapping[str, NetworkSpec], vms: Iterable[VmSpec]) -> tuple[NetworkSpec, ...]:
    """The networks of the file; the one nobody named only when it is used."""
    used = {nic.network for vm in vms for nic in vm.nics}
    return tuple(network for name, network in networks.items() if spec.networks or name in used)
