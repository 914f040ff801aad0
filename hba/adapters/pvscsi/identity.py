"""PVSCSI's PCI identity."""

from __future__ import annotations

from hba.pci.identity import Identity

IDENTITY = Identity(
    vendor=0x15AD, device=0x07C0, subsystem_vendor=0x15AD, subsystem=0x07C0, revision=0x02, class_code=0x010000
)
