"""A logical unit under Storport: its queue, its depth and the gates that hold it (QD-01 to QD-10)."""

from __future__ import annotations

from collections import deque
from typing import Final

from hba.port.request import PortUnit, RequestOf

# Gates, of a unit and of the adapter. Any in HOLDING holds requests back.
PAUSED: Final = 0x01  # StorPortPause, StorPortPauseDevice (QD-05)
BUSY: Final = 0x02  # StorPortBusy, StorPortDeviceBusy (QD-06)
QUEUE_FULL: Final = 0x04  # SCSI status QUEUE FULL (QD-09)
RETRYING: Final = 0x08  # SRB_STATUS_BUSY, waiting BusyPauseTime (QD-08)
LOCKED: Final = 0x10  # LOCK_QUEUE
RESETTING: Final = 0x20  # a reset of this unit, its target or its bus is under way (RS-01, RS-03)
LINK_DOWN: Final = 0x40  # the adapter's link is down (QD-10)
RESET_HOLD: Final = 0x80  # BusResetHoldTime after a bus reset (RS-03)
FRESH: Final = 0x100  # holds nothing: no INQUIRY was sent yet (QD-04)
CAPPED: Final = 0x200  # holds nothing by itself: IoLatencyCap is set, look at each request (QD-11)
POWERED_DOWN: Final = 0x400  # holds nothing: the next request powers the unit up, or ends with NOT_POWERED (RS-09)
STOPPED: Final = 0x800  # the PnP or power manager stops the adapter (RS-06)
HOLDING: Final = 0x8FF

GATE_NAMES = {
    PAUSED: "paused by the miniport (StorPortPause)",
    BUSY: "busy (StorPortBusy)",
    QUEUE_FULL: "waiting after QUEUE FULL",
    RETRYING: "waiting to retry a busy request",
    LOCKED: "locked by LOCK_QUEUE",
    RESETTING: "being reset",
    LINK_DOWN: "link down",
    RESET_HOLD: "held after a bus reset",
    STOPPED: "held by the PnP or power manager",
}

# Request.stage
NOT_BUILT: Final = 0
BUILT: Final = 1  # hw_build_io said TRUE, hw_start_io has not been called (RS-04)
STARTED: Final = 2
REFUSED: Final = 3  # hw_build_io said FALSE: never started, the miniport completes it (ST-05)


StorRequest = RequestOf["StorUnit"]


class StorUnit(PortUnit):
    """`queue` is first in, first out; `gates` is 0 when nothing is the matter."""

    __slots__ = (
        "built",
        "depth",
        "gates",
        "queue",
        "since",
        "waiting",
        "waiting_since",
    )

    def __init__(self, path: int, target: int, lun: int, depth: int) -> None:
        super().__init__(path, target, lun)
        self.queue: deque[StorRequest] = deque()
        self.built: deque[StorRequest] = deque()  # built, held by a gate that closed in between
        self.depth = depth
        self.gates = FRESH
        self.waiting = False  # in the driver's list of units that wait for the adapter
        self.since: int  # ns, when its gates last closed
        self.waiting_since = 0  # ns, when the first of those in the queue was put there

    @property
    def powered(self) -> bool:
        return not self.gates & POWERED_DOWN

    @powered.setter
    def powered(self, on: bool) -> None:
        self.gates = self.gates & ~POWERED_DOWN if on else self.gates | POWERED_DOWN


def gate_names(gates: int) -> list[str]:
    return [name for bit, name in GATE_NAMES.items() if gates & bit]
