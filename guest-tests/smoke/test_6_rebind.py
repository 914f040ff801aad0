"""The driver lets go of the adapter and takes it again: reset, set-up and scan from the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapter import settle


@pytest.mark.parametrize("turn", [1, 2])
def test_unbind_and_bind(experiment, adapters, disks, turn):
    driver = Path("/sys/bus/pci/drivers", experiment["adapter"]["driver"])
    before = {(disk.target, disk.lun): disk.read(1 << 20, 64 * 1024) for disk in disks}
    counts = {adapter.address: len(adapter.disks()) for adapter in adapters}
    for adapter in adapters:
        (driver / "unbind").write_text(adapter.address)
        settle()
        assert adapter.driver is None
        assert adapter.disks() == [], "the disks outlive their driver"
        (driver / "bind").write_text(adapter.address)
        assert adapter.driver == experiment["adapter"]["driver"]
        found = adapter.wait_for_disks(counts[adapter.address])
        for disk in found:
            assert disk.read(1 << 20, 64 * 1024) == before[disk.target, disk.lun], f"{disk} reads differently now"
