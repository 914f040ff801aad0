"""Everything from above that is not EXECUTE_SCSI: freeze and lock, flush, abort, reset, power (Q-04 to Q-16, ER-08)."""

from __future__ import annotations

from collections.abc import Callable

from hba.port.request import ISSUED, QUEUED, live_request
from hba.port.scsiport import freezing, resets
from hba.port.scsiport.slot import BYPASS, Slot
from hba.port.scsiport.unit import FROZEN, LOCKED, ScsiPortRequest, ScsiPortUnit
from hba.srb import (
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_FLUSH_QUEUE,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_SHUTDOWN,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_FUNCTION_WMI,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_REQUEST_FLUSHED,
    SRB_STATUS_SUCCESS,
    Srb,
)

FOR_THE_MINIPORT = (SRB_FUNCTION_IO_CONTROL,)
# CF-03: the data buffer has a valid address whatever MapBuffers says (SCSI_WMI_REQUEST_BLOCK says so of WMI).
ALWAYS_USABLE = frozenset({SRB_FUNCTION_IO_CONTROL, SRB_FUNCTION_WMI})
FLUSHES = (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN)  # only a miniport that caches data sees these

# Requests about other requests: they take no tag and wait for nothing on their unit.
ABOUT_OTHERS = frozenset({SRB_FUNCTION_ABORT_COMMAND, SRB_FUNCTION_RESET_BUS})


def control(slot: Slot, request: ScsiPortRequest) -> bool:
    """One function from above. True: it is for the miniport, and takes its turn. Unknown ones are completed, not
    dropped (ER-17)."""
    unit = request.unit
    assert unit is not None
    function = request.srb.function
    if function == SRB_FUNCTION_POWER:
        return not _passes_frozen(slot, request, unit)
    if function in FOR_THE_MINIPORT or (function in FLUSHES and slot.info.caches_data):
        return True
    if function == SRB_FUNCTION_WMI and slot.info.wmi_data_provider:
        return True  # SCSI_WMI_REQUEST_BLOCK: only a miniport that set WmiDataProvider gets these
    handler = _HANDLERS.get(function)
    if handler is not None:
        handler(slot, request, unit)
    else:
        slot.ledger.answer(request, SRB_STATUS_SUCCESS if function in FLUSHES else SRB_STATUS_INVALID_REQUEST)
    return False


def bypass(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """Q-07, Q-11: a request with a bypass flag goes straight to the adapter queue. False: it has to queue up."""
    flags = request.srb.srb_flags
    holds = unit.holds
    if holds & FROZEN and not flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE:
        return False
    if holds & LOCKED:
        if not flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
            return False
        if unit.is_anothers(request.srb.original_request):
            slot.reports.finding("Q-11", f"a request bypasses the lock another driver holds on {unit.name}", request)
    elif not flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE:
        return False  # BYPASS_LOCKED_QUEUE means nothing on a queue that is not locked
    if holds & FROZEN and slot.options.bypass_flushes:
        _flush(slot, unit)
    request.stage = BYPASS
    slot.queue.append(request)
    return True


def _passes_frozen(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """Q-07: power requests pass a frozen queue, as autosense does; a locked one only with the flag (Q-12)."""
    if not unit.holds & FROZEN:
        return False
    if unit.holds & LOCKED and not request.srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
        return False
    slot.ahead(request)
    return True


def answered_here(slot: Slot, request: ScsiPortRequest) -> bool:
    """Functions that pass through the queues but end at the port. Called when their turn has come."""
    srb, unit = request.srb, request.unit
    assert unit is not None
    if srb.function == SRB_FUNCTION_POWER:
        # Power goes to the adapter as a whole (hw_adapter_control), not to the unit.
        slot.ledger.answer(request, SRB_STATUS_SUCCESS)
        return True
    if srb.function == SRB_FUNCTION_UNLOCK_QUEUE:
        _unlock(slot, request, unit)
        return True
    if srb.function == SRB_FUNCTION_ABORT_COMMAND:
        victim: ScsiPortRequest | None = live_request(srb.next_srb)
        if victim is None or victim.state != ISSUED:
            _abort_of_nothing(slot, request)
            return True
    return False


# -- release and flush ------------------------------------------------------------------------------------------


def _release_queue(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    freezing.unfreeze(slot, unit, f"by #{request.number}")
    slot.ledger.answer(request, SRB_STATUS_SUCCESS)


def _flush_queue(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """Q-10: the adapter's cache is flushed first, then what is queued ends with REQUEST_FLUSHED, and the queue is
    released."""
    if not unit.holds & FROZEN:
        slot.reports.finding("Q-10", f"FLUSH_QUEUE although the queue of {unit.name} is not frozen", request)
        if slot.options.flush_unfrozen == "refuse":
            slot.ledger.answer(request, SRB_STATUS_INVALID_REQUEST)
            return
    if unit.active:
        slot.reports.finding(
            "Q-10", f"FLUSH_QUEUE while {len(unit.active)} requests are active on {unit.name}", request, severity="note"
        )
    if not slot.info.caches_data:
        _flush_now(slot, request, unit, SRB_STATUS_SUCCESS)
        return
    srb = Srb(SRB_FUNCTION_FLUSH, unit.path, unit.target, unit.lun)
    srb.completion = lambda done: _flush_now(slot, request, unit, done.srb_status)
    slot.ahead(slot.ledger.own(srb, unit, f"for #{request.number}"))


def _flush_now(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit, srb_status: int) -> None:
    _flush(slot, unit)
    freezing.unfreeze(slot, unit, f"flushed by #{request.number}")
    slot.ledger.answer(request, srb_status)


def _flush(slot: Slot, unit: ScsiPortUnit) -> None:
    flushed = unit.queue.drain()
    for request in list(slot.queue):
        if request.unit is unit and request.stage != BYPASS:
            slot.queue.remove(request)
            flushed.append(request)
            unit.ready = True
    for request in flushed:
        slot.ledger.answer(request, SRB_STATUS_REQUEST_FLUSHED)


# -- lock -------------------------------------------------------------------------------------------------------


def _lock_queue(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """Q-11: on request from above nothing but BYPASS_LOCKED_QUEUE requests is started."""
    unit.holds |= LOCKED
    unit.lock(slot.clock.now(), request.srb.original_request)
    slot.reports.note(request, "lock_queue", unit.name)
    slot.ledger.watch()
    slot.ledger.answer(request, SRB_STATUS_SUCCESS)


def _unlock_queue(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    if unit.holds & LOCKED and not request.srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
        # it waits in the queue it was meant to unlock.
        slot.reports.finding(
            "Q-11", f"UNLOCK_QUEUE for {unit.name} without BYPASS_LOCKED_QUEUE waits for itself", request
        )
        unit.queue.insert(request)
        return
    _unlock(slot, request, unit)


def _unlock(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    if unit.is_anothers(request.srb.original_request):
        slot.reports.finding("Q-11", f"{unit.name} is unlocked by somebody who did not lock it", request)
    unit.holds &= ~LOCKED
    unit.unlock()
    slot.reports.note(request, "unlock_queue", unit.name)
    slot.reports.reported_stuck.discard(("Q-11", unit.name))
    slot.ledger.answer(request, SRB_STATUS_SUCCESS)
    slot.restart(unit)


# -- about other requests ---------------------------------------------------------------------------------------


def _abort_command(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """ER-08. What the miniport does not have yet is aborted here."""
    victim: ScsiPortRequest | None = live_request(request.srb.next_srb)
    if victim is None or victim.state not in (QUEUED, ISSUED):
        _abort_of_nothing(slot, request)
    elif victim.state == QUEUED:
        dequeue(slot, victim)
        slot.ledger.answer(victim, SRB_STATUS_ABORTED)
        slot.ledger.answer(request, SRB_STATUS_SUCCESS)
    else:
        request.srb.next_srb = victim.handed
        slot.ahead(request)


def _abort_of_nothing(slot: Slot, request: ScsiPortRequest) -> None:
    slot.reports.count("aborts of completed requests")
    failed = slot.options.abort_of_completed == "abort_failed"
    slot.ledger.answer(request, SRB_STATUS_ABORT_FAILED if failed else SRB_STATUS_SUCCESS)


def dequeue(slot: Slot, request: ScsiPortRequest) -> None:
    """Take a queued request out of wherever it waits."""
    unit = request.unit
    assert unit is not None
    if unit.queue.remove(request):
        return
    if unit.parked is request:
        unit.unpark()
    elif request in unit.pending_untagged:
        unit.pending_untagged.remove(request)
        if not unit.pending_untagged:
            unit.no_pending_untagged()
        unit.ready = True
    elif request in slot.queue:
        slot.queue.remove(request)
        unit.ready = True
        slot.any_tag()
    slot.restart(unit)


def _reset_bus(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """ER-10: an SRB RESET_BUS goes through hw_start_io. When that is not possible now, hw_reset_bus is called."""
    path = request.srb.path_id
    if slot.options.reset_flushes_queue:
        resets.flush(slot, path)
    if slot.gate:
        slot.want_reset(path, f"RESET_BUS #{request.number}", request)
    else:
        slot.ahead(request)


def _reset_unit(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """SCSI Port knows no reset of a target or unit: it is a bus reset (section 4 of the catalogue; ER-10)."""
    srb = request.srb
    if slot.options.reset_flushes_queue:
        lun = srb.lun if srb.function == SRB_FUNCTION_RESET_LOGICAL_UNIT else None
        resets.flush(slot, srb.path_id, srb.target_id, lun)
    slot.want_reset(srb.path_id, f"reset of {unit.name} #{request.number}", request)


_HANDLERS: dict[int, Callable[[Slot, ScsiPortRequest, ScsiPortUnit], None]] = {
    SRB_FUNCTION_RELEASE_QUEUE: _release_queue,
    SRB_FUNCTION_FLUSH_QUEUE: _flush_queue,
    SRB_FUNCTION_LOCK_QUEUE: _lock_queue,
    SRB_FUNCTION_UNLOCK_QUEUE: _unlock_queue,
    SRB_FUNCTION_ABORT_COMMAND: _abort_command,
    SRB_FUNCTION_RESET_BUS: _reset_bus,
    SRB_FUNCTION_RESET_DEVICE: _reset_unit,
    SRB_FUNCTION_RESET_LOGICAL_UNIT: _reset_unit,
}
