"""Everything from above that is not EXECUTE_SCSI: freeze and lock, flush, abort, reset, power (Q-04 to Q-16, ER-08)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hba.port.request import ISSUED, QUEUED
from hba.port.scsiport import freezing, resets
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
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_REQUEST_FLUSHED,
    SRB_STATUS_SUCCESS,
    Srb,
)

if TYPE_CHECKING:
    from hba.port.scsiport.driver import ScsiPort

BYPASS = 2  # ScsiPortRequest.stage, see the driver

# Requests about other requests: they take no tag and wait for nothing on their unit.
ABOUT_OTHERS = frozenset({SRB_FUNCTION_ABORT_COMMAND, SRB_FUNCTION_RESET_BUS})


def control(port: ScsiPort, request: ScsiPortRequest) -> None:
    """One function from above. Unknown ones are completed, not dropped (ER-17)."""
    unit = request.unit
    assert unit is not None
    handler = _HANDLERS.get(request.srb.function)
    if handler is None:
        port.answer(request, SRB_STATUS_INVALID_REQUEST)
    else:
        handler(port, request, unit)


def bypass(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """Q-07, Q-11: a request with a bypass flag goes straight to the adapter queue. False: it has to queue up."""
    flags = request.srb.srb_flags
    holds = unit.holds
    if holds & FROZEN and not flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE:
        return False
    if holds & LOCKED:
        if not flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
            return False
        owner = request.srb.original_request
        if owner is not None and unit.lock_owner is not None and owner is not unit.lock_owner:
            port.finding("Q-11", f"a request bypasses the lock another driver holds on {unit.name}", request)
    elif not flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE:
        return False  # BYPASS_LOCKED_QUEUE means nothing on a queue that is not locked
    if holds & FROZEN and port.options.bypass_flushes:
        _flush(port, unit)
    request.stage = BYPASS
    port.adapter_queue.append(request)
    return True


def answered_here(port: ScsiPort, request: ScsiPortRequest) -> bool:
    """Functions that pass through the queues but end at the port. Called when their turn has come."""
    srb, unit = request.srb, request.unit
    assert unit is not None
    if srb.function == SRB_FUNCTION_POWER:
        # Power goes to the adapter as a whole (hw_adapter_control), not to the unit.
        port.answer(request, SRB_STATUS_SUCCESS)
        return True
    if srb.function == SRB_FUNCTION_UNLOCK_QUEUE:
        _unlock(port, request, unit)
        return True
    if srb.function == SRB_FUNCTION_ABORT_COMMAND:
        victim = live_request(srb.next_srb)
        if victim is None or victim.state != ISSUED:
            _abort_of_nothing(port, request)
            return True
    return False


def live_request(srb: Srb | None) -> ScsiPortRequest | None:
    """What the port has for an SRB: of a split transfer the part that is under way."""
    if srb is None:
        return None
    request: ScsiPortRequest | None = srb._port
    while request is not None and request.child is not None:
        request = request.child._port
    return request


# -- release and flush ------------------------------------------------------------------------------------------


def _release_queue(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    freezing.unfreeze(port, unit, f"by #{request.number}")
    port.answer(request, SRB_STATUS_SUCCESS)


def _flush_queue(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """Q-10: what is queued ends with REQUEST_FLUSHED, and the queue is released. Not for an unfrozen queue."""
    if not unit.holds & FROZEN:
        port.finding("Q-10", f"FLUSH_QUEUE although the queue of {unit.name} is not frozen", request)
        port.answer(request, SRB_STATUS_INVALID_REQUEST)
        return
    if unit.active:
        port.finding(
            "Q-10", f"FLUSH_QUEUE while {len(unit.active)} requests are active on {unit.name}", request, severity="note"
        )
    _flush(port, unit)
    if port.info.caches_data:
        # "Flushing the Port Driver's Internal Queue": the adapter's cache is flushed as well.
        srb = Srb(SRB_FUNCTION_FLUSH, unit.path, unit.target, unit.lun)
        port.submit(srb)
    freezing.unfreeze(port, unit, f"flushed by #{request.number}")
    port.answer(request, SRB_STATUS_SUCCESS)


def _flush(port: ScsiPort, unit: ScsiPortUnit) -> None:
    flushed = unit.queue.drain()
    for request in list(port.adapter_queue):
        if request.unit is unit and request.stage != BYPASS:
            port.adapter_queue.remove(request)
            flushed.append(request)
            unit.ready = True
    for request in flushed:
        port.answer(request, SRB_STATUS_REQUEST_FLUSHED)


# -- lock -------------------------------------------------------------------------------------------------------


def _lock_queue(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """Q-11: on request from above nothing but BYPASS_LOCKED_QUEUE requests is started."""
    unit.holds |= LOCKED
    if unit.locked_at is None:
        unit.locked_at = port.clock.now()
        unit.lock_owner = request.srb.original_request
    port.note(request, "lock_queue", unit.name)
    port.arm_tick()
    port.answer(request, SRB_STATUS_SUCCESS)


def _unlock_queue(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    if unit.holds & LOCKED and not request.srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
        # it waits in the queue it was meant to unlock.
        port.finding("Q-11", f"UNLOCK_QUEUE for {unit.name} without BYPASS_LOCKED_QUEUE waits for itself", request)
        unit.queue.insert(request)
        return
    _unlock(port, request, unit)


def _unlock(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    unit.holds &= ~LOCKED
    unit.locked_at = None
    unit.lock_owner = None
    port.note(request, "unlock_queue", unit.name)
    port.reported_stuck.discard(("Q-11", unit.name))
    port.answer(request, SRB_STATUS_SUCCESS)
    freezing.restart(port, unit)


# -- for the miniport -------------------------------------------------------------------------------------------


def _queued(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    port.enqueue(request)


def _flush_or_shutdown(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """Q-16: only a miniport that caches data sees these."""
    if port.info.caches_data:
        port.enqueue(request)
    else:
        port.answer(request, SRB_STATUS_SUCCESS)


def _abort_command(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """ER-08. What the miniport does not have yet is aborted here."""
    victim = live_request(request.srb.next_srb)
    if victim is None or victim.state not in (QUEUED, ISSUED):
        _abort_of_nothing(port, request)
    elif victim.state == QUEUED:
        dequeue(port, victim)
        port.answer(victim, SRB_STATUS_ABORTED)
        port.answer(request, SRB_STATUS_SUCCESS)
    else:
        request.srb.next_srb = victim.handed
        ahead(port, request)


def _abort_of_nothing(port: ScsiPort, request: ScsiPortRequest) -> None:
    port.count("aborts of completed requests")
    failed = port.options.abort_of_completed == "abort_failed"
    port.answer(request, SRB_STATUS_ABORT_FAILED if failed else SRB_STATUS_SUCCESS)


def dequeue(port: ScsiPort, request: ScsiPortRequest) -> None:
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
    elif request in port.adapter_queue:
        port.adapter_queue.remove(request)
        unit.ready = True
        port.any_tag()
    freezing.restart(port, unit)


def ahead(port: ScsiPort, request: ScsiPortRequest) -> None:
    """To the head of the adapter queue, whatever holds the unit."""
    request.stage = BYPASS
    port.adapter_queue.appendleft(request)
    port.dpc_pending = True


def _reset_bus(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """ER-10: an SRB RESET_BUS goes through hw_start_io. When that is not possible now, hw_reset_bus is called."""
    path = request.srb.path_id
    if port.options.reset_flushes_queue:
        resets.flush(port, path)
    if port.gate:
        ok = resets.reset_bus(port, path, f"RESET_BUS #{request.number}")
        port.answer(request, SRB_STATUS_SUCCESS if ok else SRB_STATUS_ERROR)
    else:
        ahead(port, request)


def _reset_unit(port: ScsiPort, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """SCSI Port knows no reset of a target or unit: it is a bus reset (section 4 of the catalogue; ER-10)."""
    srb = request.srb
    if port.options.reset_flushes_queue:
        lun = srb.lun if srb.function == SRB_FUNCTION_RESET_LOGICAL_UNIT else None
        resets.flush(port, srb.path_id, srb.target_id, lun)
    ok = resets.reset_bus(port, srb.path_id, f"reset of {unit.name} #{request.number}")
    port.answer(request, SRB_STATUS_SUCCESS if ok else SRB_STATUS_ERROR)


def done(port: ScsiPort, request: ScsiPortRequest) -> None:
    """The miniport completed an ABORT_COMMAND or RESET_BUS."""
    if request.srb.function == SRB_FUNCTION_RESET_BUS:
        _reset_bus_done(port, request)


def _reset_bus_done(port: ScsiPort, request: ScsiPortRequest) -> None:
    """A RESET_BUS came back from hw_start_io. A miniport that does not do it there has hw_reset_bus."""
    srb = request.srb
    if srb.srb_status == SRB_STATUS_SUCCESS:
        port.hold.begin(srb.path_id, f"RESET_BUS #{request.number}")
    elif srb.srb_status == SRB_STATUS_INVALID_REQUEST:
        ok = resets.reset_bus(port, srb.path_id, f"RESET_BUS #{request.number}")
        srb.srb_status = SRB_STATUS_SUCCESS if ok else SRB_STATUS_ERROR


_HANDLERS: dict[int, Callable[[ScsiPort, ScsiPortRequest, ScsiPortUnit], None]] = {
    SRB_FUNCTION_RELEASE_QUEUE: _release_queue,
    SRB_FUNCTION_FLUSH_QUEUE: _flush_queue,
    SRB_FUNCTION_LOCK_QUEUE: _lock_queue,
    SRB_FUNCTION_UNLOCK_QUEUE: _unlock_queue,
    SRB_FUNCTION_FLUSH: _flush_or_shutdown,
    SRB_FUNCTION_SHUTDOWN: _flush_or_shutdown,
    SRB_FUNCTION_POWER: _queued,
    SRB_FUNCTION_IO_CONTROL: _queued,
    SRB_FUNCTION_ABORT_COMMAND: _abort_command,
    SRB_FUNCTION_RESET_BUS: _reset_bus,
    SRB_FUNCTION_RESET_DEVICE: _reset_unit,
    SRB_FUNCTION_RESET_LOGICAL_UNIT: _reset_unit,
}
