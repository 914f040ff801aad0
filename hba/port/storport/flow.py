"""What holds requests back under Storport, and what lets them go again.

QD-01 to QD-11, ST-13. Sources: Storport Queue Management; StorPortPause, StorPortPauseDevice, StorPortBusy,
StorPortDeviceBusy, StorPortSetDeviceQueueDepth; Registry Entries for StorPort Miniport Drivers; Device Status for
High-Performance Buses and Adapters.
"""

from __future__ import annotations

from collections import deque

from hba.clock import MS, S, Timer
from hba.port.storport.gates import Gates
from hba.port.storport.units import (
    BUSY,
    FRESH,
    LINK_DOWN,
    LOCKED,
    PAUSED,
    QUEUE_FULL,
    RETRYING,
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
    """What opens and closes gates. Of the adapter where no unit is named."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.link_timer: Timer | None = None
        self.link_is_down = False
        self.link_lost = False  # down for longer than LinkDownTimeoutValue

    def reset(self) -> None:
        """The adapter was reset: its link, too, is as it was at the start."""
        if self.link_timer is not None:
            self.link_timer.cancel()
        self.link_is_down = self.link_lost = False

    # -- pause, busy (QD-05 to QD-07) --------------------------------------------------------------------------

    def pause(self, seconds: int, unit: StorUnit | None = None) -> bool:
        if seconds <= 0:
            return False
        self.gates.close_for(PAUSED, seconds * S, unit)
        return True

    def resume(self, unit: StorUnit | None = None) -> bool:
        return self.gates.open(PAUSED, unit)

    def busy(self, completions: int, unit: StorUnit | None = None) -> bool:
        """Until `completions` requests are complete; more than are outstanding: until all are. With none outstanding
        only Ready could end it, so it ends at once."""
        if completions <= 0:
            return False
        self.gates.close_until(BUSY, min(completions, self.gates.outstanding(unit)), unit)
        return True

    def ready(self, unit: StorUnit | None = None) -> bool:
        self.gates.open(BUSY, unit)
        return True

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
        unit.depth = depth
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
        given_up = self.link_lost and gates.options.link_down_expired == "fail"
        link = srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_LINK_DOWN and not given_up
        if not (busy or full or scsi_busy or link):
            return False
        if busy and request.moved:
            # ST-13: busy means "not begun"; a transaction that moved data cannot be repeated blindly.
            gates.reports.finding("ST-13", f"SRB_STATUS_BUSY after {request.moved} bytes were transferred", request)
        elif busy and srb.data_transfer_length != request.length_at_issue:
            length = f"{request.length_at_issue} to {srb.data_transfer_length}"
            gates.reports.finding("ST-13", f"SRB_STATUS_BUSY with DataTransferLength changed from {length}", request)
        limit = gates.options.busy_retry
        if limit != "inf" and request.retries >= limit:
            gates.reports.count("busy retries exhausted")
            return False
        self.requeue(request)
        outstanding = gates.outstanding(unit)
        if full and outstanding:
            # QD-09: some of the outstanding ones must come back first. At least one: the share is not 0.
            share = gates.options.queue_full_wait_io_percentage
            gates.close_until(QUEUE_FULL, (outstanding * share + 99) // 100, unit)
        elif not unit.gates & RETRYING:
            gates.close_for(RETRYING, gates.options.busy_pause_time * MS, unit)  # QD-08
        return True

    def requeue(self, request: StorRequest) -> None:
        """ST-13: the SRB goes through BuildIo and StartIo again, with an SRB extension that is new."""
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

    # -- link (QD-10, RS-09) -----------------------------------------------------------------------------------

    def link_down(self) -> None:
        gates = self.gates
        if self.link_is_down:
            return
        self.link_is_down = True
        gates.close(LINK_DOWN)
        self.link_timer = gates.clock.call_later(gates.options.link_down_timeout * S, self._link_stays_down)

    def _link_stays_down(self) -> None:
        """LinkDownTimeoutValue has passed. The registry's page: I/O to the miniport is restarted, which says what it
        can do (RS-09). Option: requests end with LINK_DOWN here."""
        self.link_lost = True
        gates = self.gates
        if gates.options.link_down_expired == "restart":
            gates.open(LINK_DOWN)
            return
        for request in gates.take_queues():
            gates.ledger.answer(request, SRB_STATUS_LINK_DOWN)
        gates.soon()

    def link_up(self) -> None:
        gates = self.gates
        if not self.link_is_down:
            gates.reports.offence("QD-10", "LinkUp without a LinkDown before it")
            return
        if self.link_timer is not None:
            self.link_timer.cancel()
        self.link_is_down = self.link_lost = False
        gates.open(LINK_DOWN)

    # -- lock (Q-11) -------------------------------------------------------------------------------------------

    def lock(self, unit: StorUnit, owner: object) -> None:
        unit.lock(self.gates.clock.now(), owner)
        self.gates.close(LOCKED, unit)

    def unlock(self, unit: StorUnit, owner: object) -> None:
        if unit.is_anothers(owner):
            self.gates.reports.finding("Q-11", f"{unit.name} is unlocked by somebody who did not lock it")
        unit.unlock()
        self.gates.open(LOCKED, unit)


def _number(request: StorRequest) -> int:
    return request.number
