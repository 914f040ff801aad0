"""The one-second tick: time-outs with their two diagnoses, escalation, busy retries (ER-06, ER-09, ER-10)."""

from __future__ import annotations

from hba.port.request import ISSUED
from hba.port.scsiport import errors
from hba.port.scsiport.slot import HOLD, Slot
from hba.port.scsiport.unit import BUSY_RETRY, FROZEN, LOCKED, ScsiPortRequest, ScsiPortUnit
from hba.srb import SRB_FUNCTION_ABORT_COMMAND, SRB_STATUS_BUS_RESET, SRB_STATUS_MASK, SRB_STATUS_SUCCESS, Srb


def needs_tick(slot: Slot) -> bool:
    if slot.ledger.outstanding or slot.busy:
        return True
    for unit in slot.units.values():
        if unit.holds & BUSY_RETRY:
            return True
        # A stopped queue is watched until it was said that it stands still.
        if unit.holds & FROZEN and ("Q-09", unit.name) not in slot.reports.reported_stuck:
            return True
        if unit.holds & LOCKED and ("Q-11", unit.name) not in slot.reports.reported_stuck:
            return True
    return False


def tick(slot: Slot) -> None:
    for unit in slot.units.values():
        if unit.holds & BUSY_RETRY:
            errors.retry_busy(slot, unit)
    if slot.gate & HOLD:
        return  # the reset has to end first; what it leaves behind is judged then
    busy_with = slot.busy_with
    if busy_with is not None:
        slot.busy_age = slot.busy_age + 1 if busy_with.number == slot.busy_seen else 1
        if slot.busy_age >= _timeout(slot, busy_with):
            slot.busy_seen = 0
            _no_next(slot, busy_with)
            return
    slot.busy_seen = busy_with.number if busy_with is not None else 0
    expired = _expired(slot)
    for unit in slot.units.values():
        if unit.abort_left > 0:
            unit.abort_left -= 1
            if unit.abort_left == 0:
                _abort_failed(slot, unit, "timed out")
    for unit in expired:  # last, so that the time of an abort it begins starts with the next tick
        _no_completion(slot, unit)


def _expired(slot: Slot) -> list[ScsiPortUnit]:
    """ER-09: per unit, the oldest request counts. Counting here keeps the clock out of the requests' way."""
    expired = []
    for unit in slot.units.values():
        oldest = next(iter(unit.active), None)
        number = oldest.number if oldest is not None else 0
        unit.age = unit.age + 1 if number == unit.oldest else 1
        unit.oldest = number
        if oldest is not None and unit.age == _timeout(slot, oldest):
            expired.append(unit)
    return expired


def _no_next(slot: Slot, request: ScsiPortRequest) -> None:
    """ER-09, first diagnosis: the adapter is not ready for the next request. ReactOS resets every bus."""
    name = f"#{request.number}"
    slot.reports.count("time-outs of the adapter")
    slot.reports.finding(
        "SP-07",
        f"no NextRequest or NextLuRequest within {_timeout(slot, request)} s since {name} was started; "
        f"{len(slot.queue)} requests wait for the adapter",
        request,
    )
    for path in range(slot.info.number_of_buses):
        slot.want_reset(path, f"no NextRequest since {name}")


def _no_completion(slot: Slot, unit: ScsiPortUnit) -> None:
    """ER-09, second diagnosis: the request was not completed. ER-10: abort it, or reset the bus."""
    request = next(iter(unit.active), None)
    if request is None:
        return
    slot.reports.count("time-outs of requests")
    slot.reports.note(request, "timeout")
    slot.reports.finding(
        "ER-09", f"#{request.number} on {unit.name} was not completed within {_timeout(slot, request)} s", request
    )
    if not slot.options.abort_first or unit.abort is not None or request.srb.function == SRB_FUNCTION_ABORT_COMMAND:
        slot.want_reset(unit.path, f"#{request.number} timed out")
        return
    srb = Srb(SRB_FUNCTION_ABORT_COMMAND, unit.path, unit.target, unit.lun)
    srb.next_srb = request.handed
    srb.time_out_value = slot.options.abort_timeout
    srb.completion = lambda done: _abort_done(slot, unit, request, done)
    unit.abort = slot.ledger.own(srb, unit, f"abort of #{request.number}")
    unit.abort_left = slot.options.abort_timeout
    slot.ahead(unit.abort)


def _abort_done(slot: Slot, unit: ScsiPortUnit, victim: ScsiPortRequest, srb: Srb) -> None:
    if unit.abort is None or unit.abort.srb is not srb:
        return  # given up already
    unit.abort = None
    if srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUS_RESET:
        return  # that was done meanwhile, and ended the abort; what it has left is judged after the hold
    if srb.srb_status != SRB_STATUS_SUCCESS or victim.state == ISSUED:
        slot.want_reset(unit.path, f"the abort of #{victim.number} failed")


def _abort_failed(slot: Slot, unit: ScsiPortUnit, why: str) -> None:
    abort = unit.abort
    unit.abort = None
    if abort is None:
        return  # it ended in time
    if abort in slot.queue:
        slot.queue.remove(abort)
    slot.reports.note(abort, "abort", why)
    slot.want_reset(unit.path, f"the abort on {unit.name} {why}")


def _timeout(slot: Slot, request: ScsiPortRequest) -> int:
    return request.srb.time_out_value or slot.options.default_timeout
