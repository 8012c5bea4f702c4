"""Templates have versions: a VM stays on the one it came from, and a base is never removed under a living overlay."""

from __future__ import annotations

import subprocess

from tests.local.kit import Kit


def bases(cloud: Kit) -> set[str]:
    """The versions of templates that are in the pool."""
    return {name.split(".template-")[1].removesuffix(".qcow2") for name in cloud.volumes() if ".template-" in name}


def test_an_old_base_stays_while_a_disk_stands_on_it(cloud: Kit) -> None:
    row = "  {}: {{template: blank, firmware: bios, memory: 64M, running: false, address: {}}}\n"
    first = row.format(f"{cloud.name}-a", f"{cloud.subnet}.10")
    second = row.format(f"{cloud.name}-b", f"{cloud.subnet}.11")
    cloud.write(first)
    cloud.ok("apply", "-y")
    (old,) = bases(cloud)
    assert cloud.status()[f"{cloud.name}-a"]["template"] == f"blank@{old}"

    other = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(cloud.blank)]
    subprocess.run(other, check=True, capture_output=True)
    cloud.write(first + second)
    cloud.ok("apply", "-y")
    (new,) = bases(cloud) - {old}
    rows = cloud.status()
    assert rows[f"{cloud.name}-a"]["template"] == f"blank@{old}"
    assert "older template" in rows[f"{cloud.name}-a"]["drift"]
    assert rows[f"{cloud.name}-b"]["template"] == f"blank@{new}"

    cloud.ok("apply", "-y", "--prune")
    assert bases(cloud) == {old, new}, "a base went from under a disk"

    cloud.ok("rebuild", f"{cloud.name}-a", "-y")
    assert cloud.status()[f"{cloud.name}-a"]["template"] == f"blank@{new}"
    assert bases(cloud) == {old, new}, "what nobody asked to be removed is gone"
    assert f"template blank@{old}" in cloud.run("plan").out
    cloud.ok("apply", "-y", "--prune")
    assert bases(cloud) == {new}
