"""A host without an IOMMU: to want it on is refused, and so is every device that a VM is to have."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local.kit import kit

GROUPS = Path("/sys/kernel/iommu_groups")
pytestmark = pytest.mark.skipif(GROUPS.is_dir() and any(GROUPS.iterdir()), reason="this machine's IOMMU is on")


@pytest.mark.parametrize(("asked", "why"), [
    ("    iommu: true\n", "host here: `iommu: true`, but its firmware tells of no IOMMU"),
    ("", "host here: its IOMMU is off, so no device can be given to a VM: the firmware tells of none")])
def test_devices_without_an_iommu(tmp_path: Path, asked: str, why: str) -> None:
    address = min(path.name for path in Path("/sys/bus/pci/devices").iterdir())
    with kit(tmp_path) as cloud:
        vm = "" if asked else f"  {cloud.name}: {{template: blank, firmware: bios, devices: one}}\n"
        cloud.write(vm or "  {}\n", host=f'local\n{asked}    devices: {{one: {{address: "{address}"}}}}')
        said = cloud.run("plan")
        assert said.code == 4 and "refused: nothing was changed" in said.err
        assert why in said.err
        assert cloud.domains() == set()
