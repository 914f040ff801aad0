"""Dump mode: what is another way in a port that writes the dump of a machine which has crashed, or hibernates.

DM-01 to DM-05. Windows then has a second miniport of the same kind for the adapter, and the disk dump port driver above
it. Here that is a port as any other, with a `Dump`: all callbacks at HIGH_LEVEL, no interrupts (whoever waits has
hw_interrupt called: `PortBase.poll`), no messages, no passive initialisation, no adapter or unit control.

Sources: Restrictions on Miniport Drivers that Manage the Boot Drive; HW_FIND_ADAPTER, PORT_CONFIGURATION_INFORMATION,
StorPortMarkDumpMemory (storport.h).
"""

from __future__ import annotations

from typing import Final, Protocol

from hba.miniport.chip import Chip
from hba.miniport.config import DUMP_MODE_HIBER, DUMP_MODE_MARK_MEMORY, PortConfigurationInformation
from hba.port.memory import PortMemory

MEMORY_LIMIT: Final = 32 << 10  # bytes a miniport should not exceed
MARKS_MEMORY = (DUMP_MODE_HIBER, DUMP_MODE_MARK_MEMORY)


class Told(Protocol):
    """The port, as far as findings go (`hba.port.reports`)."""

    def offence(self, rule: str, message: str) -> None: ...
    def finding(self, rule: str, message: str) -> object: ...


class Dump:
    """`mode`: DUMP_MODE_*; `requested`: RequestedDumpBufferSize, as the miniport said when Windows ran, in bytes."""

    def __init__(self, mode: int, requested: int = 0) -> None:
        self.mode = mode
        self.limit = max(MEMORY_LIMIT, requested)
        self.marks = True  # the model has StorPortMarkDumpMemory
        self.used = 0  # bytes

    def preset(self, info: PortConfigurationInformation) -> None:
        info.dump_mode = self.mode

    def allocated(self, told: Told, what: str, size: int) -> None:
        """DM-02: the miniport got `size` bytes from the routine `what`."""
        before, self.used = self.used, self.used + size
        if before <= self.limit < self.used:
            told.offence("DM-02", f"{what} of {size} bytes makes {self.used} in dump mode; {self.limit} at most")

    def asked(self, told: Told, routine: str) -> None:
        """DM-03: a routine that is not for dump mode was called."""
        told.offence("DM-03", f"{routine} in dump mode")

    def found(self, told: Told, memory: PortMemory) -> None:
        """hw_find_adapter has returned. DM-04."""
        if self.mode in MARKS_MEMORY and self.marks and self.used and not memory.marked:
            told.finding("DM-04", f"hw_find_adapter has {self.used} bytes, and marked none with StorPortMarkDumpMemory")

    def initialized(self, told: Told, chip: Chip) -> None:
        """hw_initialize has returned. DM-05."""
        left = [task for task in (*chip.active, *chip.completed) if task.owner is None]
        if left:
            told.finding("DM-05", f"hw_initialize left {len(left)} commands of the crashed system with the adapter")
