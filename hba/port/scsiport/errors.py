"""Completions that are not plain success: freeze, busy, retry (Q-05, Q-06, ER-06)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.port.request import ISSUED
from hba.port.scsiport import freezing, sense
from hba.port.scsiport.unit import BUSY_RETRY, FROZEN, QUEUE_FULL, ScsiPortRequest, ScsiPortUnit
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_STATUS_BUSY,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
)

if TYPE_CHECKING:
    from hba.port.scsiport.driver import ScsiPort

_BUSY_SCSI_STATUS = (SCSISTAT_BUSY, SCSISTAT_QUEUE_FULL)


def handle(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """A request came back from the miniport with something else than plain SUCCESS. True: it does not go up now."""
    srb = request.srb
    if srb.function != SRB_FUNCTION_EXECUTE_SCSI or request is unit.sense:
        return False
    base = srb.srb_status & SRB_STATUS_MASK
    if base == SRB_STATUS_SUCCESS:
        return False
    if base == SRB_STATUS_BUSY or srb.scsi_status in _BUSY_SCSI_STATUS:
        return _busy(port, request, unit)
    if sense.is_needed(srb) and sense.fetch(port, request, unit):
        return True
    freezing.freeze_for(port, request, unit)
    return False


def _busy(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """ER-06: parked on its unit and retried on the tick; after the last retry frozen and failed. Whether the adapter
    takes other requests meanwhile is the miniport's NextRequest, here as always (ER-07)."""
    srb = request.srb
    if srb.srb_flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE:
        return False
    if request.retries >= port.options.busy_retries:
        freezing.freeze(port, request, unit, f"busy after {request.retries} retries")
        return False
    if srb.scsi_status == SCSISTAT_QUEUE_FULL and unit.active:
        unit.holds |= QUEUE_FULL  # until one of its requests completes
    again = port.ledger.again(request)
    port.note(again, "busy", f"retry {again.retries}")
    if unit.holds & (FROZEN | BUSY_RETRY):
        unit.queue.insert(again)
    else:
        unit.parked = again
        unit.holds |= BUSY_RETRY
        port.arm_tick()
    return True


def retry_busy(port: ScsiPort, unit: ScsiPortUnit) -> None:
    """The tick came by: the parked request has another go."""
    request = unit.parked
    if request is None:
        return
    unit.unpark()
    unit.queue.insert(request) if unit.holds & FROZEN else port.adapter_queue.append(request)
    unit.ready = bool(unit.holds & FROZEN)
    port.dpc_pending = True


def retry_untagged(port: ScsiPort, unit: ScsiPortUnit) -> None:
    """Q-14: the unit's tagged requests have drained."""
    waiting = unit.pending_untagged
    unit.pending_untagged = []
    unit.no_pending_untagged()
    port.adapter_queue.extendleft(reversed(waiting))


def start_io_failed(port: ScsiPort, request: ScsiPortRequest) -> None:
    """hw_start_io raised or returned FALSE: the request fails, the slot is opened, the port lives on."""
    if request.state == ISSUED and not any(task.owner is request.handed for task in port.chip.active):
        port.take_back(request, SRB_STATUS_INTERNAL_ERROR)
    port.next_latched = True
    port.dpc_pending = True
