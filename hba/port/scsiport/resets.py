"""Bus reset and the pause after it (ER-10 to ER-14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.clock import S, Timer
from hba.port.context import DIRQL, NO_CALLBACK, RESET_BUS
from hba.port.request import ISSUED
from hba.port.scsiport.unit import ScsiPortRequest, ScsiPortUnit
from hba.port.units import ALL
from hba.srb import SRB_STATUS_BUS_RESET

if TYPE_CHECKING:
    from hba.port.scsiport.driver import ScsiPort

HOLD = 4  # ScsiPort.gate


def reset_bus(port: ScsiPort, path: int, why: str) -> bool:
    """Call hw_reset_bus (ER-10) and begin the hold (ER-12). What it left outstanding is judged when the hold ends."""
    port.note(None, "reset_bus", f"path {path}: {why}")
    port.count("bus resets")
    ok = port.call(RESET_BUS, DIRQL, False, port.miniport.hw_reset_bus, path)
    if not ok:
        port.finding("ER-11", f"hw_reset_bus({path}) returned {ok!r}: the bus was not reset ({why})")
    left = port.matching(path, ALL, ALL)
    if left:
        numbers = ", ".join(f"#{request.number}" for request in left[:8])
        port.finding(
            "ER-11",
            f"hw_reset_bus({path}) returned with {len(left)} requests outstanding ({numbers})",
            left[0],
            severity="warning",
        )
    port.hold.begin(path, why)
    port.dpc_pending = True
    return bool(ok)


def reset_all(port: ScsiPort, why: str) -> None:
    for path in range(port.info.number_of_buses):
        reset_bus(port, path, why)


def flush(port: ScsiPort, path: int, target: int | None = None, lun: int | None = None) -> None:
    """A reset asked for from above ends what waits at the port, too: who asked has given up on all of it."""
    for unit in list(port.units.values()):
        if unit.path != path or (target is not None and unit.target != target) or (lun is not None and unit.lun != lun):
            continue
        assert unit is not None
        for request in _waiting(port, unit):
            port.answer(request, SRB_STATUS_BUS_RESET)


def _waiting(port: ScsiPort, unit: ScsiPortUnit) -> list[ScsiPortRequest]:
    """Take out everything of a unit that the miniport does not have."""
    waiting = unit.queue.drain()
    if unit.parked is not None:
        waiting.append(unit.parked)
        unit.unpark()
    waiting += unit.pending_untagged
    unit.pending_untagged = []
    unit.no_pending_untagged()
    mine = [request for request in port.adapter_queue if request.unit is unit]
    for request in mine:
        port.adapter_queue.remove(request)
        port.any_tag()
    if unit.need_sense is not None and unit.sense not in unit.active:
        waiting.append(unit.need_sense)
        unit.forget_sense()
    unit.ready = True
    return waiting + mine


def drop_queues(port: ScsiPort) -> list[ScsiPortRequest]:
    """For an adapter reset: forget everything, return what waited."""
    waiting: list[ScsiPortRequest] = []
    for unit in port.units.values():
        waiting += _waiting(port, unit)
        if unit.need_sense is not None:
            waiting.append(unit.need_sense)
        unit.forget()
    port.adapter_queue.clear()
    port.make_ready()
    port.forget_latches()
    port.hold.cancel()
    port.timer.cancel()
    return waiting


class ResetHold:
    """ER-12: after a reset no hw_start_io for `bus_reset_hold_time` s. ER-13: then nothing is left outstanding."""

    def __init__(self, port: ScsiPort) -> None:
        self.port = port
        self.why = ""
        self.paths: set[int] = set()
        self.timer: Timer | None = None

    @property
    def active(self) -> bool:
        return bool(self.port.gate & HOLD)

    def begin(self, path: int, why: str) -> None:
        """Starts again when there is one already."""
        port = self.port
        if self.timer is not None:
            self.timer.cancel()
        port.gate |= HOLD
        self.why = why
        self.paths.add(path)
        port.note(None, "reset_hold.begin", why)
        self.timer = port.clock.call_later(port.options.bus_reset_hold_time * S, self._end)

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None
        self.port.gate &= ~HOLD
        self.paths.clear()

    def _end(self) -> None:
        port = self.port
        if port.running or port.callback != NO_CALLBACK:
            port.loop.call_soon(self._end)
            return
        if not self.active:
            return
        paths = sorted(self.paths)
        why = self.why
        self.cancel()
        port.note(None, "reset_hold.end", why)
        for path in paths:
            for request in port.matching(path, ALL, ALL):
                port.finding(
                    "ER-13",
                    f"#{request.number} is still outstanding at the end of the reset hold ({why})",
                    request,
                )
                if port.options.reclaim_lost and request.state == ISSUED:
                    port.take_back(request, SRB_STATUS_BUS_RESET)
        if port.busy and port.busy_with is not None and port.busy_with.state != ISSUED:
            port.finding("SP-07", f"no NextRequest after the bus reset ({why})", port.busy_with)
            if port.options.reclaim_lost:
                port.make_ready()
        port.dpc_pending = True
        port.run()
