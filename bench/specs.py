"""Files of many VMs, and the facts of a host on which they all exist."""

from __future__ import annotations

from functools import cache

from tests.unit.plan.build import cloud, facts, made, public_key
from tests.unit.plan.simulate import Machine

from vmwright.facts.model import Facts
from vmwright.facts.store import dumps
from vmwright.spec.cloud import Cloud
from vmwright.units import GIB

_HEAD = """\
cloud: lab
hosts: {here: {pools: {images: {dir: /srv/images}}}}
networks: {lan: {nat: 10.0.0.0/16}}
users: {admin: {ssh_keys: [KEY]}}
templates: {base: {build: debian, disk: 4G}}
"""
_SHAPE = "template: base, vcpus: 2, memory: 2G, disk: 20G, disks: {data: 10G}"


def _vms(count: int) -> str:
    rows = (f"  vm-{n}: {{{_SHAPE}, address: 10.0.{1 + n // 200}.{1 + n % 200}}}\n" for n in range(count))
    return "vms:\n" + "".join(rows)


def spec(count: int) -> str:
    """A file of so many VMs, each with a data disk and an address."""
    return (_HEAD + _vms(count)).replace("KEY", public_key())


@cache
def existing(count: int) -> tuple[Cloud, Facts]:
    """The cloud of that file, and facts in which all of it exists.

    Made by the real handlers and parsers on the host that the tests of the plan keep in memory, so that the facts are
    as gathering would find them; only libvirt and the disks are not there.
    """
    wanted = cloud(_vms(count), _HEAD)
    return wanted, facts(wanted, made(wanted, Machine(memory=4 * count * GIB)))


def recorded(count: int) -> str:
    """Those facts as `vmwright facts --json` would record them."""
    return dumps(existing(count)[1])
