"""Message signalled interrupts under Storport: how many there are, and what is known of each (IN-08, LK-04).

Sources: HW_MESSAGE_SIGNALED_INTERRUPT_ROUTINE, INTERRUPT_SYNCHRONIZATION_MODE, StorPortGetMSIInfo,
MESSAGE_INTERRUPT_INFORMATION (storport.h); Enabling Message-Signaled Interrupts in the Registry.
"""

from __future__ import annotations

from typing import Final

from hba.miniport.config import (
    INTERRUPT_SUPPORT_NONE,
    INTERRUPT_SYNCHRONIZE_PER_MESSAGE,
    LATCHED,
    MessageInterruptInformation,
    PortConfigurationInformation,
)
from hba.miniport.services import (
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
)
from hba.port.context import DIRQL, INTERRUPT
from hba.port.reports import Reports

# What a PC's messages look like: a write to a local interrupt controller, with the vector as data.
LOCAL_INTERRUPT_CONTROLLER: Final = 0xFEE0_0000
FIRST_VECTOR: Final = 0x50
LAST_VECTOR: Final = 0xBF


class Messages:
    """Those granted to one adapter. `served`: how often each was, by message; empty without messages."""

    def __init__(
        self, info: PortConfigurationInformation, limit: int, reports: Reports, has_routine: bool = False
    ) -> None:
        mode = info.interrupt_synchronization_mode
        self.reports = reports
        self.granted = 0 if mode == INTERRUPT_SUPPORT_NONE or info.virtual_device or not has_routine else limit
        self.per_message = bool(self.granted) and mode == INTERRUPT_SYNCHRONIZE_PER_MESSAGE
        self.current: int  # the one that is served, or was last
        self.served = [0] * self.granted

    def info(self, message_id: int) -> tuple[int, MessageInterruptInformation | None]:
        """StorPortGetMSIInfo."""
        if self.reports.callback == INTERRUPT:
            self.reports.offence("IN-08", "StorPortGetMSIInfo from HwMSInterruptRoutine")
        if not self.granted:
            return STOR_STATUS_INVALID_DEVICE_REQUEST, None
        if not 0 <= message_id < self.granted:
            return STOR_STATUS_INVALID_PARAMETER, None
        vector = FIRST_VECTOR + message_id % (LAST_VECTOR - FIRST_VECTOR + 1)
        return STOR_STATUS_SUCCESS, MessageInterruptInformation(
            message_id, vector, LOCAL_INTERRUPT_CONTROLLER, vector, DIRQL, LATCHED
        )

    def returned(self, message_id: int, mine: object) -> None:
        """IN-08: nobody shares a message."""
        if not mine:
            self.reports.finding("IN-08", f"hw_msi_interrupt returned {mine!r} for message {message_id} of its adapter")
