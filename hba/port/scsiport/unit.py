"""One logical unit at SCSI Port: its queue and why it stands still."""

from __future__ import annotations

from typing import Final

from hba.port.request import PortUnit, RequestOf
from hba.port.scsiport.queue import SortedQueue

# what inhibits dispatch, apart from the depth. Frozen (an error) and locked (asked for) are two things.
FROZEN: Final = 1
LOCKED: Final = 2
BUSY_RETRY: Final = 4
QUEUE_FULL: Final = 8
NEED_SENSE: Final = 16
PENDING_UNTAGGED: Final = 32
STOPPED: Final = 128  # the PnP or power manager stops the adapter (RS-06)
NOT_READY: Final = 64  # has handed a request on, and neither NextLuRequest nor a completion has come since

HOLD_NAMES = {
    FROZEN: "frozen",
    LOCKED: "locked",
    BUSY_RETRY: "waits to retry a busy request",
    QUEUE_FULL: "queue full",
    NEED_SENSE: "waits for sense data",
    STOPPED: "held by the PnP or power manager",
    PENDING_UNTAGGED: "tagged and untagged requests wait for each other to end",
}


ScsiPortRequest = RequestOf["ScsiPortUnit"]


class ScsiPortUnit(PortUnit):
    __slots__ = (
        "abort",
        "abort_left",
        "age",
        "depth",
        "frozen_at",
        "frozen_by",
        "holds",
        "need_sense",
        "oldest",
        "parked",
        "pending_untagged",
        "queue",
        "sense",
        "sense_memory",
        "untagged",
    )

    def __init__(self, path: int, target: int, lun: int, depth: int) -> None:
        super().__init__(path, target, lun)
        self.queue: SortedQueue[ScsiPortRequest] = SortedQueue()
        self.depth = depth
        self.holds = 0
        self.oldest = 0  # number of the oldest active one when the tick last came by; 0: there was none
        self.age = 0  # ticks it has been outstanding (ER-09)
        self.untagged: ScsiPortRequest | None = None  # active
        self.frozen_at = 0  # ns, when FROZEN
        self.frozen_by = ""
        self.parked: ScsiPortRequest | None = None  # BUSY_RETRY
        self.sense_memory: tuple[memoryview, int] | None = None  # where REQUEST SENSE puts its data
        self.need_sense: ScsiPortRequest | None = None  # the one that failed with CHECK CONDITION (NEED_SENSE)
        self.sense: ScsiPortRequest | None = None  # the port's REQUEST SENSE
        self.pending_untagged: list[ScsiPortRequest] = []  # must not start beside what is active (PENDING_UNTAGGED)
        self.abort: ScsiPortRequest | None = None  # the port's ABORT_COMMAND for a timed-out request
        self.abort_left = 0  # ticks until that is overdue

    @property
    def ready(self) -> bool:
        """It may hand its next request to the adapter, as far as the miniport is concerned."""
        return not self.holds & NOT_READY

    @ready.setter
    def ready(self, ready: bool) -> None:
        if not ready:
            self.holds |= NOT_READY
        elif self.untagged is None:  # which is alone until it completes (SP-12, Q-14)
            self.holds &= ~NOT_READY

    def unpark(self) -> None:
        self.parked = None
        self.holds &= ~BUSY_RETRY

    def no_pending_untagged(self) -> None:
        self.holds &= ~PENDING_UNTAGGED

    def forget_sense(self) -> None:
        self.need_sense = None
        self.sense = None
        self.holds &= ~NEED_SENSE

    def forget(self) -> None:
        """The adapter was reset: nothing holds the unit any more."""
        self.forget_sense()
        self.holds = 0
        self.untagged = None
        self.unlock()
        self.abort = None

    def blocked(self) -> list[str]:
        """Every reason why nothing more is started on this unit now (Q-03)."""
        reasons = [name for hold, name in HOLD_NAMES.items() if self.holds & hold]
        if len(self.active) >= self.depth:
            reasons.append(f"{len(self.active)} of {self.depth} requests outstanding")
        elif self.holds & NOT_READY:
            reasons.append("waits for NextLuRequest or a completion")
        return reasons
