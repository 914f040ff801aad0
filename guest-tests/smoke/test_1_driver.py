"""The kernel's own driver has taken our PCI function."""

from __future__ import annotations

from pathlib import Path

from kernellog import KernelLog


def test_the_driver_is_bound_to_every_adapter(experiment, adapters):
    expected = sorted(about["pci_id"] for about in experiment["adapters"])
    assert sorted(adapter.about["pci_id"] for adapter in adapters) == expected
    for adapter in adapters:
        assert adapter.driver == adapter.about["driver"], adapter.address


def test_the_adapter_has_a_scsi_host(adapters):
    for adapter in adapters:
        assert list(adapter.path.glob("host*/scsi_host/host*")), adapter.address


def test_interrupts_arrive(adapters, disks):
    numbers = {number for adapter in adapters for number in adapter.interrupts}

    def count() -> int:
        lines = [line.split() for line in Path("/proc/interrupts").read_text().splitlines()]
        return sum(int(line[1]) for line in lines if line[0].rstrip(":") in numbers)

    before = count()
    for disk in disks:
        disk.read(0, 4096)
    assert count() > before, "disks were read without a single interrupt"


def test_nothing_went_wrong_since_boot(known_messages, driver_logs):
    log = KernelLog(driver_logs, everything=True)
    log.expected += known_messages
    trouble = [text for text in log.trouble() if log.drivers.search(text) or "sd " in text]
    assert not trouble, "\n".join(trouble)
