"""The kernel's own driver has taken our PCI function."""

from __future__ import annotations

from pathlib import Path

from kernellog import KernelLog


def test_the_driver_is_bound_to_every_adapter(experiment, adapters):
    assert len(adapters) == experiment["adapters"]
    for adapter in adapters:
        assert adapter.driver == experiment["adapter"]["driver"], adapter.address


def test_the_adapter_has_a_scsi_host(adapters):
    for adapter in adapters:
        assert list(adapter.path.glob("host*/scsi_host/host*")), adapter.address


def test_interrupts_arrive(experiment, adapters, disks):
    def count() -> int:
        lines = [line.split() for line in Path("/proc/interrupts").read_text().splitlines()]
        return sum(int(line[1]) for line in lines if line[-1] == "vmw_pvscsi")

    before = count()
    for disk in disks:
        disk.read(0, 4096)
    assert count() > before, "disks were read without a single interrupt"


def test_nothing_went_wrong_since_boot(known_messages):
    trouble = [text for text in KernelLog(everything=True).trouble(known_messages) if "pvscsi" in text or "sd " in text]
    assert not trouble, "\n".join(trouble)
