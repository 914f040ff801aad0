"""What is attached to the guest: our HBA, or QEMU's own model of one, to hold ours against."""

from __future__ import annotations

from typing import Any

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import AdapterType, QemuDevice, Registry

OURS = "hba"


def builtin(known: Registry = ADAPTERS) -> dict[str, tuple[AdapterType[Any], QemuDevice]]:
    """QEMU's own models by the name they have here: of which type, and which device."""
    return {f"builtin-{kind.qemu.driver}": (kind, kind.qemu) for kind in known if kind.qemu is not None}


def for_guest(kind: AdapterType[Any]) -> dict[str, Any]:
    """What the guest's tests are told of an adapter of this type."""
    return {
        "pci_id": kind.pci_id,
        "driver": kind.driver.name,
        "log": kind.driver.log,
        "resets": kind.driver.resets,
        "without_bus_master": kind.driver.without_bus_master,
    }


def known_messages(device: str, known: Registry = ADAPTERS) -> tuple[str, ...]:
    """Patterns of what the guest's kernel says of a device that is no fault."""
    return () if device == OURS else builtin(known)[device][1].messages
