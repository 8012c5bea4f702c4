"""Hypothesis strategies: files of small clouds that have much in common, so that one can follow another."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tests.unit.plan.build import public_key

NAMES = ("alpha", "beta", "gamma")
# On a host of two nodes with two cores of two threads each: vCPUs with CPUs of their own, or sharing some.
PINS = ("", "", "0-3", "2-4", "{cpus: 0-5, memory: preferred}", "{cpus: 6, emulator: 7}",
        "{cpus: 1-6, hugepages: true}", "{cpus: 0-2, hugepages: false}")
POOLS = {"alpha": "images", "beta": "big", "gamma": "images"}
_TEMPLATE = "{build: debian, disk: 4G, packages: [%s]}"


@st.composite
def vms(draw: st.DrawFn, name: str, later: bool) -> str:
    """One VM, as YAML flow text."""
    sizes = ("1G", "2G") if later else ("1G",)
    disks = draw(st.dictionaries(st.sampled_from(("data", "logs")), st.sampled_from(sizes), max_size=2))
    nics = draw(st.sampled_from((("lan",), ("lan", "wan"), ("wan", "lan"))))
    rows: dict[str, Any] = {
        "template": draw(st.sampled_from(("base", "other"))),
        "vcpus": draw(st.integers(1, 6)),
        "memory": draw(st.sampled_from(("512M", "1G", "3G"))),
        "disk": draw(st.sampled_from(("5G", "8G") if later else ("5G",))),
        "copy": draw(st.sampled_from(("overlay", "full"))),
        "pool": POOLS[name],
        "timezone": draw(st.sampled_from(("Etc/UTC", "Asia/Shanghai"))),
        "running": str(draw(st.booleans())).lower(),
        "autostart": draw(st.sampled_from(("false", "true", "{order: 1}", "{order: 2, healthy: agent}"))),
    }
    if pin := draw(st.sampled_from(PINS)):
        rows["pin"] = pin
    if disks:
        mount = draw(st.booleans())
        each = (f"{disk}: {{size: {size}{f', mount: /srv/{disk}' if mount else ''}}}" for disk, size in disks.items())
        rows["disks"] = "{" + ", ".join(each) + "}"
    subnets = {"lan": "10.0.0", "wan": "10.1.0"}
    place = 10 + NAMES.index(name)
    rows["nics"] = "[" + ", ".join(f"{{network: {nic}, address: {subnets[nic]}.{place}}}" for nic in nics) + "]"
    return "{" + ", ".join(f"{key}: {value}" for key, value in rows.items()) + "}"


@st.composite
def files(draw: st.DrawFn, later: bool = False) -> str:
    """A whole file: a host, two pools, two networks, two templates and some VMs. A later one may want larger disks."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=0 if later else 1))
    packages = [draw(st.sampled_from(("vim", "vim, less"))) for _ in range(2)]
    gateway = draw(st.sampled_from(("", ", dns: [10.1.0.9]")))
    rows = [f"  {name}: {draw(vms(name, later))}" for name in sorted(names)]
    return "\n".join([
        "cloud: lab",
        "hosts: {here: {pools: {images: {dir: /srv/images}, big: {dir: /srv/big}}}}",
        f"networks: {{lan: {{nat: 10.0.0.0/24}}, wan: {{nat: 10.1.0.0/24{gateway}}}}}",
        f"users: {{admin: {{ssh_keys: [{public_key()}]}}}}",
        f"templates: {{base: {_TEMPLATE % packages[0]}, other: {_TEMPLATE % packages[1]}}}",
        f"vms:{'' if rows else ' {}'}", *rows, ""])
