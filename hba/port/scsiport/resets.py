"""Bus reset and the pause after it (ER-10 to ER-14)."""

from __future__ import annotations

from collections.abc import Callable

from hba.clock import S, Timer
from hba.port.request import ISSUED, owned
from hba.port.scsiport.slot import HOLD, Slot
from hba.port.scsiport.unit import ScsiPortRequest, ScsiPortUnit
from hba.srb import SRB_STATUS_BUS_RESET


def was_called(slot: Slot, path: int, ok: object, why: str) -> None:
    """ER-11: hw_reset_bus has returned `ok`. What it left outstanding is judged when the hold ends."""
    if not ok:
        slot.reports.finding("ER-11", f"hw_reset_bus({path}) returned {ok!r}: the bus was not reset ({why})")
    left = owned(slot.units.values(), path)
    if left:
        numbers = ", ".join(f"#{request.number}" for request in left[:8])
        slot.reports.finding(
            "ER-11",
            f"hw_reset_bus({path}) returned with {len(left)} requests outstanding ({numbers})",
            left[0],
            severity="warning",
        )


def flush(slot: Slot, path: int, target: int | None = None, lun: int | None = None) -> None:
    """A reset asked for from above ends what waits at the port, too: who asked has given up on all of it."""
    for unit in list(slot.units.values()):
        if unit.path != path or (target is not None and unit.target != target) or (lun is not None and unit.lun != lun):
            continue
        for request in waiting(slot, unit):
            slot.ledger.answer(request, SRB_STATUS_BUS_RESET)


def waiting(slot: Slot, unit: ScsiPortUnit) -> list[ScsiPortRequest]:
    """Take out everything of a unit that the miniport does not have."""
    found = unit.queue.drain()
    if unit.parked is not None:
        found.append(unit.parked)
        unit.unpark()
    found += unit.pending_untagged
    unit.pending_untagged = []
    unit.no_pending_untagged()
    mine = [request for request in slot.queue if request.unit is unit]
    for request in mine:
        slot.queue.remove(request)
        slot.any_tag()
    if unit.need_sense is not None and unit.sense not in unit.active:
        found.append(unit.need_sense)
        unit.forget_sense()
    unit.ready = True
    return found + mine


def drop_queues(slot: Slot) -> list[ScsiPortRequest]:
    """For an adapter reset: forget everything, return what waited."""
    queued: list[ScsiPortRequest] = []
    for unit in slot.units.values():
        queued += waiting(slot, unit)
        if unit.need_sense is not None:
            queued.append(unit.need_sense)
        unit.forget()
    queued += [request for _, _, request in slot.resets_wanted if request is not None]
    slot.forget()
    return queued


class ResetHold:
    """ER-12: after a reset no hw_start_io for `bus_reset_hold_time` s. ER-13: then nothing is left outstanding."""

    def __init__(self, slot: Slot, over: Callable[[], None]) -> None:
        self._slot = slot
        self._over = over  # when the time has come: to call `end` as soon as nothing of the miniport runs
        self._paths: set[int] = set()
        self._timer: Timer | None = None

    def begin(self, path: int, why: str) -> None:
        """Starts again when there is one already."""
        slot = self._slot
        if self._timer is not None:
            self._timer.cancel()
        slot.gate |= HOLD
        slot.hold_why = why
        self._paths.add(path)
        slot.reports.note(None, "reset_hold.begin", why)
        self._timer = slot.clock.call_later(slot.options.bus_reset_hold_time * S, self._over)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._slot.gate &= ~HOLD
        self._paths.clear()

    def end(self) -> None:
        slot = self._slot
        if not slot.gate & HOLD:
            return
        paths, why = sorted(self._paths), slot.hold_why
        self.cancel()
        slot.reports.note(None, "reset_hold.end", why)
        for path in paths:
            for request in owned(slot.units.values(), path):
                slot.reports.finding(
                    "ER-13", f"#{request.number} is still outstanding at the end of the reset hold ({why})", request
                )
                if slot.options.reclaim_lost and request.state == ISSUED:
                    slot.ledger.take_back(request, SRB_STATUS_BUS_RESET)
        if slot.busy and slot.busy_with is not None and slot.busy_with.state != ISSUED:
            slot.reports.finding("SP-07", f"no NextRequest after the bus reset ({why})", slot.busy_with)
            if slot.options.reclaim_lost:
                slot.make_ready()
        slot.ledger.due = True
