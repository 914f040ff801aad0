"""What holds requests back under Storport, and what lets them go again.

QD-01 to QD-11, ST-13. Sources: Storport Queue Management; StorPortPause, StorPortPauseDevice, StorPortBusy,
StorPortDeviceBusy, StorPortSetDeviceQueueDepth; Registry Entries for StorPort Miniport Drivers; Device Status for
High-Performance Buses and Adapters.

A gate is a bit in `unit.gates` or `gates.closed` (names in `units`). Opening one asks the driver for a round of its
DPC, so nothing is ever started from inside a miniport's call.
"""

from __future__ import annotations

from collections import deque

from hba.clock import MS, S, Timer
from hba.port.request import ISSUED
from hba.port.storport.gates import Gates
from hba.port.storport.units import (
    BUSY,
    FRESH,
    LINK_DOWN,
    LOCKED,
    PAUSED,
    QUEUE_FULL,
    REFUSED,
    RETRYING,
    STARTED,
    StorRequest,
    StorUnit,
)
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_QUEUE_FULL,
    SRB_STATUS_BUSY,
    SRB_STATUS_LINK_DOWN,
    SRB_STATUS_MASK,
)


class Flow:
    """The adapter's own gates and everything that opens or closes one."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.busy_left = 0  # completions until the adapter's BUSY opens
        self.pause_timer: Timer | None = None
        self.link_timer: Timer | None = None
        self.link_lost = False  # down for longer than LinkDownTimeoutValue

    def reset(self) -> None:
        """Forget every hold and timer of the adapter and its units."""
        for timer in (self.pause_timer, self.link_timer):
            if timer is not None:
                timer.cancel()
        self.pause_timer = self.link_timer = None
        self.busy_left = 0
        self.link_lost = False

    # -- pause and resume (QD-05, QD-07) -----------------------------------------------------------------------

    def pause(self, seconds: int) -> bool:
        if seconds <= 0:
            return False
        gates = self.gates
        if self.pause_timer is not None:
            self.pause_timer.cancel()
        gates.close(PAUSED)
        self.pause_timer = gates.clock.call_later(seconds * S, self._pause_over)
        return True

    def _pause_over(self) -> None:
        self.pause_timer = None
        self.gates.open(PAUSED)

    def resume(self) -> bool:
        if not self.gates.closed & PAUSED:
            return False
        if self.pause_timer is not None:
            self.pause_timer.cancel()
            self.pause_timer = None
        self.gates.open(PAUSED)
        return True

    def pause_device(self, unit: StorUnit | None, seconds: int) -> bool:
        if unit is None or seconds <= 0:
            return False
        if unit.pause_timer is not None:
            unit.pause_timer.cancel()
        self.gates.close(PAUSED, unit)
        target = unit

        def over() -> None:
            target.pause_timer = None
            self.gates.open(PAUSED, target)

        unit.pause_timer = self.gates.clock.call_later(seconds * S, over)
        return True

    def resume_device(self, unit: StorUnit | None) -> bool:
        if unit is None or not unit.gates & PAUSED:
            return False
        if unit.pause_timer is not None:
            unit.pause_timer.cancel()
            unit.pause_timer = None
        self.gates.open(PAUSED, unit)
        return True

    # -- busy and ready (QD-06, QD-07) -------------------------------------------------------------------------

    def busy(self, completions: int) -> bool:
        """Until `completions` requests are complete; more than are outstanding: until all are. With none outstanding
        only Ready could end it, so it ends at once."""
        gates = self.gates
        if completions <= 0:
            return False
        self.busy_left = min(completions, self._outstanding(None))
        if self.busy_left:
            gates.close(BUSY)
        return True

    def ready(self) -> bool:
        self.busy_left = 0
        self.gates.open(BUSY)
        return True

    def device_busy(self, unit: StorUnit | None, completions: int) -> bool:
        if unit is None or completions <= 0:
            return False
        unit.busy_left = min(completions, self._outstanding(unit))
        if unit.busy_left:
            self.gates.close(BUSY, unit)
        return True

    def device_ready(self, unit: StorUnit | None) -> bool:
        if unit is None:
            return False
        unit.busy_left = 0
        self.gates.open(BUSY, unit)
        return True

    def _outstanding(self, unit: StorUnit | None) -> int:
        """What the miniport still owes: started and not notified. What was only built waits itself for the gate."""
        units = self.gates.units if unit is None else [unit]
        return sum(
            1
            for one in units
            for request in one.active
            if request.state == ISSUED and request.stage in (STARTED, REFUSED)
        )

    def completed(self, unit: StorUnit) -> None:
        """A request of `unit` has completed while a gate was closed: count down."""
        gates = self.gates
        if gates.closed & BUSY:
            self.busy_left -= 1
            if self.busy_left <= 0 or not self._outstanding(None):
                gates.open(BUSY)
        if unit.gates & BUSY:
            unit.busy_left -= 1
            if unit.busy_left <= 0 or not self._outstanding(unit):
                gates.open(BUSY, unit)
        if unit.gates & QUEUE_FULL:
            unit.full_left -= 1
            if unit.full_left <= 0 or not self._outstanding(unit):
                gates.open(QUEUE_FULL, unit)

    # -- depth (QD-01 to QD-04) --------------------------------------------------------------------------------

    def set_depth(self, unit: StorUnit | None, depth: int) -> bool:
        gates = self.gates
        if depth <= 0:
            gates.reports.offence("QD-04", f"StorPortSetDeviceQueueDepth with depth {depth}")
            return False
        if unit is None or unit.gates & FRESH:
            gates.reports.offence("QD-04", "StorPortSetDeviceQueueDepth before the unit's first INQUIRY")
            return False
        if depth > gates.info.max_ios_per_lun:
            gates.reports.offence(
                "QD-04", f"queue depth {depth} of {unit.name} is above MaxIOsPerLun ({gates.info.max_ios_per_lun})"
            )
            return False
        more = depth > unit.depth
        unit.depth = depth
        if more:
            gates.wake()
        return True

    # -- busy completions (QD-08, QD-09, ST-13) ----------------------------------------------------------------

    def retry(self, request: StorRequest) -> bool:
        """Whether the port keeps the request to try it again instead of passing the unit's "busy" up."""
        gates, srb = self.gates, request.srb
        unit = request.unit
        assert unit is not None
        busy = srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUSY
        full = not busy and srb.scsi_status == SCSISTAT_QUEUE_FULL
        scsi_busy = not busy and srb.scsi_status == SCSISTAT_BUSY and gates.options.scsi_busy == "retry"
        link = srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_LINK_DOWN and not self.link_lost
        if not (busy or full or scsi_busy or link):
            return False
        if busy and request.moved:
            # ST-13: busy means "not begun"; a transaction that moved data cannot be repeated blindly.
            gates.reports.finding("ST-13", f"SRB_STATUS_BUSY after {request.moved} bytes were transferred", request)
        limit = gates.options.busy_retry
        if limit != "inf" and request.retries >= limit:
            gates.reports.count("busy retries exhausted")
            return False
        self.requeue(request)
        outstanding = self._outstanding(unit)
        if full and outstanding:
            # QD-09: some of the outstanding ones must come back first. At least one.
            share = gates.options.queue_full_wait_io_percentage
            unit.full_left = max(1, (outstanding * share + 99) // 100)
            gates.close(QUEUE_FULL, unit)
        else:
            self._pause_for_retry(unit)
        return True

    def requeue(self, request: StorRequest) -> None:
        """ST-13: this instance is dropped; a fresh one, extension and all, goes through BuildIo and StartIo again."""
        gates, unit = self.gates, request.unit
        assert unit is not None
        fresh = gates.ledger.again(request)
        gates.reports.count("busy retries")
        gates.reports.note(fresh, "retry", f"number {fresh.retries}")
        # Back to its place: before everything the port got later, behind what it got earlier.
        queue = unit.queue
        if queue and queue[0].number < fresh.number:
            unit.queue = deque(sorted([*queue, fresh], key=_number))
        else:
            queue.appendleft(fresh)

    def _pause_for_retry(self, unit: StorUnit) -> None:
        """QD-08: the unit rests for BusyPauseTime."""
        gates = self.gates
        if unit.gates & RETRYING:
            return
        gates.close(RETRYING, unit)

        def over() -> None:
            unit.retry_timer = None
            gates.open(RETRYING, unit)

        unit.retry_timer = gates.clock.call_later(gates.options.busy_pause_time * MS, over)

    # -- link (QD-10, RS-09) -----------------------------------------------------------------------------------

    def link_down(self) -> None:
        gates = self.gates
        if gates.closed & LINK_DOWN:
            return
        gates.close(LINK_DOWN)
        self.link_timer = gates.clock.call_later(gates.options.link_down_timeout * S, self._link_stays_down)

    def _link_stays_down(self) -> None:
        """LinkDownTimeoutValue has passed: requests end with LINK_DOWN instead of waiting (RS-09)."""
        self.link_timer = None
        self.link_lost = True
        for request in self.gates.take_queues():
            self.gates.ledger.answer(request, SRB_STATUS_LINK_DOWN)

    def link_up(self) -> None:
        gates = self.gates
        if not gates.closed & LINK_DOWN:
            gates.reports.offence("QD-10", "LinkUp without a LinkDown before it")
            return
        if self.link_timer is not None:
            self.link_timer.cancel()
            self.link_timer = None
        self.link_lost = False
        gates.open(LINK_DOWN)

    # -- lock (Q-11) -------------------------------------------------------------------------------------------

    def lock(self, unit: StorUnit, owner: object) -> None:
        unit.locked_at = self.gates.clock.now()
        unit.lock_owner = owner
        self.gates.close(LOCKED, unit)

    def unlock(self, unit: StorUnit, owner: object) -> None:
        if unit.lock_owner is not None and owner is not None and owner is not unit.lock_owner:
            self.gates.reports.finding("Q-11", f"{unit.name} is unlocked by somebody who did not lock it")
        unit.locked_at = None
        unit.lock_owner = None
        self.gates.open(LOCKED, unit)


def _number(request: StorRequest) -> int:
    return request.number
