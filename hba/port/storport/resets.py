"""Time-outs, resets and aborts under Storport: logical unit, then target, then bus.

RS-01 to RS-04, ST-14, ER-09, ER-13, ER-14. Sources: Multi-Tier Reset in Storport; HW_RESET_BUS (storport.h);
SCSI_REQUEST_BLOCK; PORT_CONFIGURATION_INFORMATION (BusResetHoldTime, FeatureSupport).

A reset the port starts itself (`Recovery`) leaves the queue alone, as on Windows: what was not started is started
afterwards. A reset from above ends everything in its scope, also what is still queued here, because to the guest the
port and its queue are inside the adapter it resets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from hba.clock import US, S, Timer
from hba.miniport.config import STOR_ADAPTER_FEATURE_ABORT_COMMAND
from hba.port.request import COMPLETED, ISSUED, QUEUED, live_request, owned
from hba.port.storport.gates import Gates
from hba.port.storport.units import BUILT, REFUSED, RESET_HOLD, RESETTING, STARTED, StorRequest, StorUnit
from hba.srb import (
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
    Srb,
)

# The steps of RS-01, in order
ABORT: Final = 0  # only with STOR_ADAPTER_FEATURE_ABORT_COMMAND (ST-14)
LOGICAL_UNIT: Final = 1
TARGET: Final = 2
BUS: Final = 3
STEP_NAMES = ("ABORT_COMMAND", "RESET_LOGICAL_UNIT", "RESET_DEVICE", "HwStorResetBus")
FUNCTIONS = (SRB_FUNCTION_ABORT_COMMAND, SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE)


class Resets:
    """All of it for one adapter."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.recoveries: list[Recovery] = []
        self.steps: list[Recovery] = []  # whose step is to be taken in the DPC
        self.hold_timer: Timer | None = None
        self.owed: list[StorRequest] = []  # outstanding when a reset was detected (ER-14)
        # who holds which units with RESETTING: (holder, the scope as `covers(unit)`, units)
        self.holders: list[tuple[object, Callable[[StorUnit], bool], list[StorUnit]]] = []

    def forget(self) -> list[StorRequest]:
        """The adapter itself is reset or stopped. Returns the aborts from above that waited for a recovery."""
        waiting = [abort for recovery in self.recoveries for abort in recovery.waiting]
        for recovery in self.recoveries:
            recovery.cancel()
        self.recoveries.clear()
        self.steps.clear()
        if self.hold_timer is not None:
            self.hold_timer.cancel()
        self.owed.clear()
        self.holders.clear()
        return waiting

    def hold_units(self, holder: object, covers: Callable[[StorUnit], bool]) -> None:
        """Nothing is started on the units `covers` says while `holder` (a reset request or a recovery) is at work."""
        units = [unit for unit in self.gates.units if covers(unit)]
        self.holders.append((holder, covers, units))
        for unit in units:
            if not unit.gates & RESETTING:
                self.gates.close(RESETTING, unit)

    def new_unit(self, unit: StorUnit) -> None:
        """RS-02: a unit first addressed while its target or bus is being reset waits for that like the others."""
        for _, covers, units in self.holders:
            if covers(unit):
                units.append(unit)
                self.gates.close(RESETTING, unit)

    def let_go(self, holder: object) -> None:
        """Units nobody else holds go on."""
        mine = {unit: None for one, _, units in self.holders if one is holder for unit in units}
        self.holders = [held for held in self.holders if held[0] is not holder]
        for unit in mine:
            if not any(unit in units for _, _, units in self.holders):
                self.gates.open(RESETTING, unit)
            self.rearm(unit)

    # -- time-outs ---------------------------------------------------------------------------------------------

    def timed_out(self, unit: StorUnit) -> None:
        """ER-09: the oldest request of `unit` has had its time. One recovery per unit at a time."""
        request = next((other for other in unit.active if other.state == ISSUED and other.stage != BUILT), None)
        if request is None or any(recovery.covers(unit) for recovery in self.recoveries):
            return  # its time runs anew when it is started, or when that recovery lets go
        gates = self.gates
        gates.reports.count("time-outs")
        seconds = request.srb.time_out_value or gates.options.default_timeout
        if request.stage == REFUSED:
            gates.reports.finding(
                "ST-05", f"hw_build_io returned FALSE and the SRB was not completed within its {seconds} s", request
            )
        else:
            gates.reports.finding("ER-09", f"no completion within {seconds} s", request, severity="warning")
        gates.reports.note(request, "timeout", f"{seconds} s")
        self._recover(unit, request, [])

    def rearm(self, unit: StorUnit) -> None:
        """What is still outstanding (or only built) gets its full time again."""
        if unit.timeout_left == -1:
            self.gates.ledger.restart_timeout(unit)

    def _recover(self, unit: StorUnit, victim: StorRequest, aborts: list[StorRequest]) -> None:
        recovery = Recovery(self, unit, victim, aborts)
        self.recoveries.append(recovery)
        recovery.begin()

    # -- from above --------------------------------------------------------------------------------------------

    def begin(self, request: StorRequest) -> None:
        """RESET_LOGICAL_UNIT or RESET_DEVICE from above, before the miniport gets it."""
        in_scope = partial(_in_scope, request.srb)
        self.flush(in_scope)
        self.hold_units(request, in_scope)

    def flush(self, covers: Callable[[StorUnit], bool]) -> None:
        """A reset from above ends what is still queued."""
        for queued in self.gates.take_queues(covers):
            self.gates.ledger.answer(queued, SRB_STATUS_BUS_RESET)

    def check_scope(self, request: StorRequest) -> bool:
        """RS-02: a successful reset of a unit or target has completed what was active there. True: it had not, and
        the port has taken it back."""
        srb = request.srb
        if srb.srb_status & SRB_STATUS_MASK != SRB_STATUS_SUCCESS or request.late:
            return False
        taken = False
        for unit in self.gates.units:
            if not _in_scope(srb, unit):
                continue
            taken |= self._leftovers(
                [
                    other
                    for other in unit.active
                    if other.state == ISSUED and other.stage == STARTED and other.srb.function not in FUNCTIONS
                ],
                "RS-02",
                f"still outstanding on {unit.name} when its reset had completed",
            )
        return taken

    def _leftovers(self, left: list[StorRequest], rule: str, what: str) -> bool:
        """Requests a reset should have completed: a finding each, and no guest may hang on them."""
        gates = self.gates
        for request in left:
            gates.reports.count("requests lost at a reset")
            gates.reports.finding(rule, what, request)
            if gates.options.reclaim_lost:
                gates.ledger.take_back(request, SRB_STATUS_BUS_RESET)
        return bool(left) and gates.options.reclaim_lost

    # -- the bus -----------------------------------------------------------------------------------------------

    def bus_was_reset(self, path: int, worked: bool) -> None:
        """RS-03: HwStorResetBus has returned. Then BusResetHoldTime."""
        if not worked:
            self.gates.reports.finding(
                "RS-03", f"hw_reset_bus({path}) returned FALSE: there is nothing left to escalate to"
            )
        self._leftovers(
            [
                request
                for request in owned(self.gates.units, path)
                # RS-04: what has only been built is not the miniport's to complete here.
                if request.stage in (STARTED, REFUSED)
            ],
            "RS-03",
            "still outstanding when hw_reset_bus had returned",
        )
        self.hold()

    def hold(self) -> None:
        """No requests for BusResetHoldTime."""
        gates = self.gates
        hold = gates.options.bus_reset_hold_time
        microseconds = gates.info.bus_reset_hold_time if hold is None else hold
        if self.hold_timer is not None:
            self.hold_timer.cancel()
        if microseconds:
            gates.close(RESET_HOLD)
            self.hold_timer = gates.clock.call_later(microseconds * US, self._hold_over)
        else:
            self._hold_over()

    def _hold_over(self) -> None:
        left = [request for request in self.owed if request.state == ISSUED]
        self.owed = []
        self._leftovers(left, "ER-14", "active when the miniport reported ResetDetected, and never completed")
        self.gates.open(RESET_HOLD)

    def detected(self, path: int) -> None:
        """ER-14: the miniport saw somebody reset the bus. It still completes what is active."""
        self.owed += owned(self.gates.units, path)
        self.hold()

    # -- aborts ------------------------------------------------------------------------------------------------

    def abort(self, request: StorRequest) -> bool:
        """ABORT_COMMAND from above: here, in the miniport (ST-14; True), or by a reset of the unit."""
        gates, ledger = self.gates, self.gates.ledger
        victim: StorRequest | None = live_request(request.srb.next_srb)
        if victim is None or victim.state not in (QUEUED, ISSUED):
            ledger.answer(request, SRB_STATUS_ABORT_FAILED)  # completed, or on its way up: there is nothing to abort
            return False
        unit = victim.unit
        assert unit is not None
        if victim in unit.queue:
            unit.queue.remove(victim)
            ledger.answer(victim, SRB_STATUS_ABORTED)
            ledger.answer(request, SRB_STATUS_SUCCESS)
        elif victim in unit.built:
            unit.built.remove(victim)  # the miniport has not started it, so it has nothing to abort
            ledger.take_back(victim, SRB_STATUS_ABORTED)
            ledger.answer(request, SRB_STATUS_SUCCESS)
        elif victim.state != ISSUED:
            ledger.answer(request, SRB_STATUS_ABORT_FAILED)  # an abort that waits for a recovery
        elif self.miniport_aborts():
            request.srb.next_srb = victim.srb
            return True
        elif gates.options.abort_without_feature == "fail":
            ledger.answer(request, SRB_STATUS_ABORT_FAILED)
        else:
            self._recover(unit, victim, [request])
        return False

    def miniport_aborts(self) -> bool:
        """ST-14: ABORT_COMMAND is sent only to a miniport that says it can."""
        return bool(self.gates.info.feature_support & STOR_ADAPTER_FEATURE_ABORT_COMMAND)


def _in_scope(srb: Srb, unit: StorUnit) -> bool:
    """Whether a reset SRB is about this unit."""
    return (
        unit.path == srb.path_id
        and unit.target == srb.target_id
        and (srb.function == SRB_FUNCTION_RESET_DEVICE or unit.lun == srb.lun)
    )


class Recovery:
    """One climb of RS-01's ladder. Every step waits for the one before to fail, by status or by time."""

    def __init__(self, resets: Resets, unit: StorUnit, victim: StorRequest, aborts: list[StorRequest]) -> None:
        self.resets = resets
        self.gates = resets.gates
        self.unit = unit
        self.victim = victim
        self.step = LOGICAL_UNIT
        self.timer: Timer | None = None  # of the last request
        self.pending: Srb | None  # the reset request the miniport has
        self.waiting = aborts  # from above, that this recovery answers

    def covers(self, unit: StorUnit) -> bool:
        if self.step >= BUS:
            return unit.path == self.unit.path
        if self.step == TARGET:
            return (unit.path, unit.target) == (self.unit.path, self.unit.target)
        return unit is self.unit

    def begin(self) -> None:
        if self.gates.options.abort_first and self.resets.miniport_aborts():
            self.step = ABORT
        self._want_step()

    def cancel(self) -> None:
        """The adapter was reset under it."""
        self.pending = None
        if self.timer is not None:
            self.timer.cancel()

    def _want_step(self) -> None:
        self.resets.hold_units(self, self.covers)
        self.gates.reports.note(self.victim, "recovery", STEP_NAMES[self.step])
        self.resets.steps.append(self)
        self.gates.soon()

    def request(self) -> Srb:
        """The request of this step, if it is not the bus: the miniport gets it now."""
        step, options = self.step, self.gates.options
        lun = 0 if step == TARGET else self.unit.lun
        srb = self.pending = Srb(FUNCTIONS[step], self.unit.path, self.unit.target, lun, self._step_done)
        srb.time_out_value = options.reset_timeout
        if step == ABORT:
            srb.next_srb = self.victim.srb
        self.timer = self.gates.clock.call_later(options.reset_timeout * S, self._step_timed_out)
        return srb

    def _step_done(self, srb: Srb) -> None:
        """The miniport completed the reset request."""
        if srb is not self.pending:
            return  # too late: the next step is under way, or the recovery is over
        assert self.timer is not None
        self.timer.cancel()
        worked = srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_SUCCESS
        if worked and (self.step != ABORT or self.victim.state == COMPLETED):
            self.finish(True)
        else:
            self._climb()

    def _step_timed_out(self) -> None:
        late, self.pending = self.pending, None
        assert late is not None and late._port is not None
        late._port.late = True
        self.gates.reports.finding(
            "RS-01", f"{STEP_NAMES[self.step]} was not completed in time", self.victim, severity="warning"
        )
        self._climb()

    def _climb(self) -> None:
        self.step += 1
        self._want_step()

    def finish(self, worked: bool) -> None:
        ended = self.victim.state != ISSUED
        self.resets.recoveries.remove(self)
        self.resets.let_go(self)
        self.gates.reports.note(self.victim, "recovery", "done" if worked else "failed")
        for abort in self.waiting:
            self.gates.ledger.answer(abort, SRB_STATUS_SUCCESS if ended else SRB_STATUS_ABORT_FAILED)
