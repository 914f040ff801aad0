"""What every emulated HBA is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hba.pci.function import PciFunction


class Adapter(ABC):
    """One HBA: a PCI function in front, a port driver behind. Made by `hba.server.assemble`."""

    type: str  # as the configuration spells it
    function: PciFunction  # what the engine serves

    @abstractmethod
    def start(self) -> None:
        """Power on. Raises `hba.errors.HbaError` when the port or its miniport cannot start."""

    @abstractmethod
    def stop(self) -> None:
        """Power off: end what is outstanding, release everything. Idempotent."""

    @abstractmethod
    def hot_plug(self, change: str, target: int, lun: int) -> None:
        """A unit was "added" to or "removed" from the bus: tell the guest, if the interface has a way."""

    @abstractmethod
    def snapshot(self) -> dict[str, object]:
        """For `hba show`: registers decoded, rings, counters. JSON-able."""
