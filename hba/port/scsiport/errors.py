"""Completions that are not plain success: freeze, busy, retry (Q-05, Q-06, ER-06)."""

from __future__ import annotations

from hba.port.scsiport import freezing, sense
from hba.port.scsiport.slot import Slot
from hba.port.scsiport.unit import BUSY_RETRY, FROZEN, QUEUE_FULL, ScsiPortRequest, ScsiPortUnit
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_STATUS_BUSY,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
)

_BUSY_SCSI_STATUS = (SCSISTAT_BUSY, SCSISTAT_QUEUE_FULL)


def handle(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """A request came back from the miniport with something else than plain SUCCESS. True: it does not go up now."""
    srb = request.srb
    if srb.function != SRB_FUNCTION_EXECUTE_SCSI or request is unit.sense:
        return False
    base = srb.srb_status & SRB_STATUS_MASK
    if base == SRB_STATUS_SUCCESS:
        return False
    if base == SRB_STATUS_BUSY or srb.scsi_status in _BUSY_SCSI_STATUS:
        return _busy(slot, request, unit)
    if sense.is_needed(srb) and sense.fetch(slot, request, unit):
        return True
    freezing.freeze_for(slot, request, unit)
    return False


def _busy(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """ER-06: parked on its unit and retried on the tick; after the last retry frozen and failed. Whether the adapter
    takes other requests meanwhile is the miniport's NextRequest, here as always (ER-07)."""
    srb = request.srb
    if srb.srb_flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE:
        return False
    if request.retries >= slot.options.busy_retries:
        freezing.freeze(slot, request, unit, f"busy after {request.retries} retries")
        return False
    if srb.scsi_status == SCSISTAT_QUEUE_FULL and unit.active:
        unit.holds |= QUEUE_FULL  # until one of its requests completes
    again = slot.ledger.again(request)
    slot.reports.note(again, "busy", f"retry {again.retries}")
    if unit.holds & (FROZEN | BUSY_RETRY):
        unit.queue.insert(again)
    else:
        unit.parked = again
        unit.holds |= BUSY_RETRY
    return True


def retry_busy(slot: Slot, unit: ScsiPortUnit) -> None:
    """The tick came by: the parked request has another go."""
    request = unit.parked
    if request is None:
        return
    unit.unpark()
    unit.queue.insert(request) if unit.holds & FROZEN else slot.queue.append(request)
    unit.ready = bool(unit.holds & FROZEN)
    slot.ledger.due = True


def retry_untagged(slot: Slot, unit: ScsiPortUnit) -> None:
    """Q-14: the unit's tagged requests have drained."""
    waiting = unit.pending_untagged
    unit.pending_untagged = []
    unit.no_pending_untagged()
    slot.queue.extendleft(reversed(waiting))
