"""The one-second tick: time-outs with their two diagnoses, escalation, busy retries (ER-06, ER-09, ER-10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.port.request import ISSUED, QUEUED
from hba.port.scsiport import control, errors, resets
from hba.port.scsiport.unit import BUSY_RETRY, FROZEN, LOCKED, ScsiPortRequest, ScsiPortUnit
from hba.srb import SRB_FUNCTION_ABORT_COMMAND, SRB_STATUS_SUCCESS, Srb

if TYPE_CHECKING:
    from hba.port.scsiport.driver import ScsiPort


def needs_tick(port: ScsiPort) -> bool:
    if port.ledger.outstanding or port.busy:
        return True
    for unit in port.units.values():
        if unit.holds & BUSY_RETRY:
            return True
        # A stopped queue is watched until it was said that it stands still.
        if unit.holds & FROZEN and ("Q-09", unit.name) not in port.reported_stuck:
            return True
        if unit.holds & LOCKED and ("Q-11", unit.name) not in port.reported_stuck:
            return True
    return False


def tick(port: ScsiPort) -> None:
    for unit in port.units.values():
        if unit.holds & BUSY_RETRY:
            errors.retry_busy(port, unit)
    if port.hold.active:
        return  # the reset has to end first; what it leaves behind is judged then
    busy_with = port.busy_with
    if busy_with is not None:
        port.busy_age = port.busy_age + 1 if busy_with.number == port.busy_seen else 1
        if port.busy_age >= _timeout(port, busy_with):
            port.busy_seen = 0
            _no_next(port)
            return
    port.busy_seen = busy_with.number if busy_with is not None else 0
    for expired in _expired(port):
        _no_completion(port, expired)
    for unit in port.units.values():
        if unit.abort_left > 0:
            unit.abort_left -= 1
            if unit.abort_left == 0:
                _abort_failed(port, unit, "timed out")
                return


def _expired(port: ScsiPort) -> list[ScsiPortUnit]:
    """ER-09: per unit, the oldest request counts. Counting here keeps the clock out of the requests' way."""
    expired = []
    for unit in port.units.values():
        oldest = next(iter(unit.active), None)
        number = oldest.number if oldest is not None else 0  # the object may have become another request meanwhile
        unit.age = unit.age + 1 if number == unit.oldest else 1
        unit.oldest = number
        if oldest is not None and unit.age == _timeout(port, oldest):
            expired.append(unit)
    return expired


def _no_next(port: ScsiPort) -> None:
    """ER-09, first diagnosis: the adapter is not ready for the next request. ReactOS resets every bus."""
    request = port.busy_with
    name = f"#{request.number}" if request is not None else "the last request"
    port.count("time-outs of the adapter")
    port.finding(
        "SP-07",
        f"no NextRequest or NextLuRequest within {_timeout(port, request)} s since {name} was started; "
        f"{len(port.adapter_queue)} requests wait for the adapter",
        request,
    )
    resets.reset_all(port, f"no NextRequest since {name}")


def _no_completion(port: ScsiPort, unit: ScsiPortUnit) -> None:
    """ER-09, second diagnosis: the request was not completed. ER-10: abort it, or reset the bus."""
    request = next(iter(unit.active), None)
    if request is None:
        return
    port.count("time-outs of requests")
    port.note(request, "timeout")
    port.finding(
        "ER-09", f"#{request.number} on {unit.name} was not completed within {_timeout(port, request)} s", request
    )
    if not port.options.abort_first or unit.abort is not None or request.srb.function == SRB_FUNCTION_ABORT_COMMAND:
        resets.reset_bus(port, unit.path, f"#{request.number} timed out")
        return
    srb = Srb(SRB_FUNCTION_ABORT_COMMAND, unit.path, unit.target, unit.lun)
    srb.next_srb = request.handed
    srb.time_out_value = port.options.abort_timeout
    number = request.number
    srb.completion = lambda done: _abort_done(port, unit, request, number, done)
    unit.abort = port.own_request(srb, unit, f"abort of #{request.number}")
    unit.abort_left = port.options.abort_timeout
    control.ahead(port, unit.abort)


def _abort_done(port: ScsiPort, unit: ScsiPortUnit, victim: ScsiPortRequest, number: int, srb: Srb) -> None:
    if unit.abort is None or unit.abort.srb is not srb:
        return  # given up already
    unit.abort = None
    unit.abort_left = -1
    alive = victim.number == number and victim.state == ISSUED  # and not another request in the same object
    if srb.srb_status != SRB_STATUS_SUCCESS or alive:
        resets.reset_bus(port, unit.path, f"the abort of #{number} failed")


def _abort_failed(port: ScsiPort, unit: ScsiPortUnit, why: str) -> None:
    abort = unit.abort
    unit.abort = None
    unit.abort_left = -1
    if abort is None:
        return
    if abort.state == QUEUED and abort in port.adapter_queue:
        port.adapter_queue.remove(abort)
    port.note(abort, "abort", why)
    resets.reset_bus(port, unit.path, f"the abort on {unit.name} {why}")


def _timeout(port: ScsiPort, request: ScsiPortRequest | None) -> int:
    value = request.srb.time_out_value if request is not None else 0
    return value or port.options.default_timeout
