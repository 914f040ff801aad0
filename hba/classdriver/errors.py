"""What a class driver does about a request that failed: try it again, when, or pass the failure up.

Sources: Storage Class Driver's RetryRequest Routine (bus errors, selection time-outs and busy units are the port's to
retry, never the class driver's); Storage Class Driver's InterpretRequestSense Routine; delays and what is hopeless as
in Microsoft's sample of classpnp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hba.clock import S
from hba.scsi.sense import (
    KEY_ABORTED_COMMAND,
    KEY_HARDWARE_ERROR,
    KEY_NO_SENSE,
    KEY_NOT_READY,
    KEY_UNIT_ATTENTION,
    NOT_READY_BECOMING_READY,
    NOT_READY_INITIALIZING_COMMAND_REQUIRED,
    condition_of,
)
from hba.srb import (
    SCSISTAT_RESERVATION_CONFLICT,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_COMMAND_TIMEOUT,
    SRB_STATUS_ERROR,
    SRB_STATUS_MASK,
    SRB_STATUS_PHASE_SEQUENCE_FAILURE,
    SRB_STATUS_REQUEST_FLUSHED,
    SRB_STATUS_REQUEST_SENSE_FAILED,
    SRB_STATUS_TIMEOUT,
    Srb,
)

NOT_READY_DELAY: Final = 10 * S
ERROR_DELAY: Final = 1 * S
RESET_OCCURRED: Final = 0x29  # additional sense code: power on, reset, or the like
OPERATION_IN_PROGRESS: Final = 0x020407
CRC_ERROR: Final = 0x040803  # LOGICAL UNIT COMMUNICATION CRC ERROR
PHASE_RETRIES: Final = 2  # of a PHASE_SEQUENCE_FAILURE, however many others may have


@dataclass(frozen=True, slots=True)
class Verdict:
    """`again`: after `delay` ns. `counts`: it is an error of the device (see `UnitErrors`). `start`: the unit has to be
    started first."""

    again: bool
    delay: int = 0
    counts: bool = False
    start: bool = False


FAIL: Final = Verdict(False)
AT_ONCE: Final = Verdict(True)

# By SrbStatus, of a request without sense data.
_BY_STATUS: Final[dict[int, Verdict]] = {
    SRB_STATUS_ABORTED: Verdict(True, ERROR_DELAY, counts=True),
    SRB_STATUS_TIMEOUT: Verdict(True, ERROR_DELAY, counts=True),
    SRB_STATUS_COMMAND_TIMEOUT: Verdict(True, ERROR_DELAY, counts=True),
    SRB_STATUS_PHASE_SEQUENCE_FAILURE: Verdict(True, ERROR_DELAY, counts=True),
    SRB_STATUS_BUS_RESET: AT_ONCE,
    SRB_STATUS_REQUEST_FLUSHED: AT_ONCE,
    SRB_STATUS_REQUEST_SENSE_FAILED: AT_ONCE,
}


def judge(srb: Srb, tried: int) -> Verdict:
    """A request came back with another status than SUCCESS, after `tried` retries.

    A unit attention that is about the medium, its capacity or the inventory of units goes up: whoever is above the
    class driver here is the guest, and it has to hear of it. Only that a reset has happened is settled here.
    """
    status = srb.srb_status & SRB_STATUS_MASK
    if srb.srb_status & SRB_STATUS_AUTOSENSE_VALID and srb.sense:
        return _by_sense(condition_of(srb.sense))
    if status == SRB_STATUS_ERROR and srb.scsi_status == SCSISTAT_RESERVATION_CONFLICT:
        return FAIL
    if status == SRB_STATUS_PHASE_SEQUENCE_FAILURE and tried >= PHASE_RETRIES:
        return FAIL
    return _BY_STATUS.get(status, FAIL)


def _by_sense(condition: int) -> Verdict:
    key, code = condition >> 16, condition >> 8 & 0xFF
    if key == KEY_UNIT_ATTENTION:
        return AT_ONCE if code == RESET_OCCURRED else FAIL
    if key == KEY_NOT_READY:
        if condition in (NOT_READY_BECOMING_READY, OPERATION_IN_PROGRESS):
            return Verdict(True, NOT_READY_DELAY)
        if condition == NOT_READY_INITIALIZING_COMMAND_REQUIRED:
            return Verdict(True, start=True)
        return FAIL
    if key == KEY_ABORTED_COMMAND or condition == CRC_ERROR:
        return Verdict(True, ERROR_DELAY, counts=True)
    if key == KEY_HARDWARE_ERROR:
        return Verdict(False, counts=True)
    return AT_ONCE if key == KEY_NO_SENSE else FAIL


# CLASS_ERROR_LEVEL_1 and _2: errors of a unit after which the class driver asks less of it.
UNTAGGED_AFTER: Final = 4
NO_DISCONNECT_AFTER: Final = 8
FORGIVEN_AFTER: Final = 16  # successes in a row after which one error is forgotten


class UnitErrors:
    """How a unit has been doing: after some errors no more tagged requests and frozen queues, then no disconnects."""

    __slots__ = ("count", "successes")

    def __init__(self) -> None:
        self.count = 0
        self.successes = 0

    def add(self) -> None:
        self.count += 1
        self.successes = 0

    def success(self) -> None:
        if self.count:
            self.successes += 1
            if self.successes >= FORGIVEN_AFTER:
                self.count -= 1
                self.successes = 0

    @property
    def tagged(self) -> bool:
        return self.count < UNTAGGED_AFTER

    @property
    def disconnects(self) -> bool:
        return self.count < NO_DISCONNECT_AFTER
