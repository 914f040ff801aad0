"""The driver lets go of the adapter and takes it again: reset, set-up and scan from the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adapter import settle


def test_bind_as_the_driver_does_it_itself(adapters, disks, kernel_is_content):
    """Unbinding switches bus mastering off, and a driver may want something of the adapter before it switches it on
    again (our verifier reports that as GD-20). A device that obeys the bit cannot answer, and the driver may say so. At
    boot the firmware has left the bit on."""
    for adapter in adapters:
        kernel_is_content.expected += adapter.about["without_bus_master"]
    rebind(adapters, disks, bus_master=False)


@pytest.mark.parametrize("turn", [1, 2])
def test_unbind_and_bind(adapters, disks, turn):
    rebind(adapters, disks, bus_master=True)


def set_bus_master(adapter):
    """Bit 2 of the command register (PCI Local Bus Specification 3.0, section 6.2.2)."""
    with (adapter.path / "config").open("r+b", buffering=0) as config:
        command = int.from_bytes(os.pread(config.fileno(), 2, 4), "little")
        os.pwrite(config.fileno(), (command | 4).to_bytes(2, "little"), 4)


def rebind(adapters, disks, bus_master):
    before = {(disk.target, disk.lun): disk.read(1 << 20, 64 * 1024) for disk in disks}
    counts = {adapter.address: len(adapter.disks()) for adapter in adapters}
    for adapter in adapters:
        driver = Path("/sys/bus/pci/drivers", adapter.about["driver"])
        settle()  # or udev may still read from a disk of the last turn
        (driver / "unbind").write_text(adapter.address)
        settle()
        assert adapter.driver is None
        assert adapter.disks() == [], "the disks outlive their driver"
        if bus_master:
            set_bus_master(adapter)
        (driver / "bind").write_text(adapter.address)
        assert adapter.driver == adapter.about["driver"]
        found = adapter.wait_for_disks(counts[adapter.address])
        for disk in found:
            assert disk.read(1 << 20, 64 * 1024) == before[disk.target, disk.lun], f"{disk} reads differently now"
