"""From a plain server to one that runs VMs: packages, the IOMMU, a reboot, on the rack's bare image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rack.cloud import RackCloud
from tests.rack.kit import await_reboot, boot_id, up

from vmwright.names import GRUB_DROP_IN
from vmwright.rack import process
from vmwright.rack.contents import Image

POOL = "      images: {dir: /srv/images}\n"
VM = "  one: {template: blank, vcpus: 1, memory: 64M, network: nat, address: 10.7.0.10, running: false}\n"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RackCloud]:
    """A rack with nothing but a plain installation."""
    rack = up("bare", process.Wish(image=Image.BARE))
    yield RackCloud(rack, tmp_path_factory.mktemp("bare"))
    process.down("bare", force=True, seconds=0, remove=True)


ADMIN = "/etc/default/grub.d/55-admin.cfg"


def write(cloud: RackCloud) -> None:
    """A cloud that needs everything: the IOMMU, a directory pool, a NAT network, a VM that is off."""
    cloud.write(POOL, VM)
    file = Path(cloud.folder / "cloud.yaml")
    text = file.read_text().replace("    pools:\n", "    iommu: true\n    pools:\n")
    file.write_text(text.replace("{bridge: br0, subnet: 192.168.6.0/24}", "{bridge: br0, subnet: 192.168.6.0/24}\n"
                                 "  nat: {nat: 10.7.0.0/24}"))


def test_a_bare_host_is_prepared_by_one_command(bare: RackCloud) -> None:
    """Debian's kernel has the IOMMU on unless it is told otherwise: here the administrator has once told it."""
    before = boot_id(bare.rack)
    bare.sh(f"""echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX intel_iommu=off"' > {ADMIN}
        update-grub 2>/dev/null; systemctl reboot""")
    await_reboot(bare.rack, before)
    write(bare)
    assert bare.sh("command -v virsh || echo none") == "none"
    planned = bare.plan()
    assert {f"{row['object']}: {row['verb']}" for row in planned["actions"]} > {
        "packages: install", "kernel arguments: set", "host rack: reboot"}
    refused = bare.run("apply", "-y")
    assert refused.returncode != 0
    assert "host rack has to be rebooted: " in refused.stderr
    assert bare.sh("command -v virsh || echo none") == "none", "nothing was changed"
    said = bare.ok("apply", "-y", "--reboot")
    assert "Done: read again, and everything is as the file says." in said
    assert "intel_iommu=on iommu=pt" in bare.sh("cat /proc/cmdline")
    assert bare.sh("ls /sys/kernel/iommu_groups | head -n 1") == "0"
    assert "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX intel_iommu=on iommu=pt\"" in bare.sh(f"cat {GRUB_DROP_IN}")
    assert bare.sh("virsh -q list --all --name") == "one"
    assert bare.plan()["empty"]
