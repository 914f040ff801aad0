"""SCSI Port: the request's way from the unit's queue over the adapter's slot to the miniport, and back.

    submit -> unit queue (sorted) -> adapter queue -> slot (READY/BUSY) -> hw_start_io -> ... -> DPC -> up

A unit hands one request at a time to the adapter queue; the slot takes one request at a time and is BUSY until the
miniport says NextRequest or NextLuRequest (SP-02). What the miniport notifies is latched and acted on in the DPC
(SP-09), in ReactOS's order. Everything that is not the ordinary way has its own module beside this one.

Sources: SCSI Port I/O Model; SCSI Port Driver's Queue Management; Return from HwScsiStartIo; ScsiPortNotification.
"""

from __future__ import annotations

from typing import Any, Final

from hba.loop import EventLoop
from hba.miniport.base import SCSI_PORT_CONTROL_TYPES, Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.services import (
    BUS_CHANGE_DETECTED,
    CALL_DISABLE_INTERRUPTS,
    CALL_ENABLE_INTERRUPTS,
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    NOTIFICATION_NAMES,
    REQUEST_COMPLETE,
    REQUEST_TIMER_CALL,
    RESET_DETECTED,
    WMI_EVENT,
    WMI_REREGISTER,
)
from hba.port.base import PortBase
from hba.port.buffers import MappedBuffer, OpaqueBuffer
from hba.port.context import (
    DIRQL,
    DISABLE_INTERRUPTS,
    DISPATCH_LEVEL,
    DPC,
    NO_CALLBACK,
    PASSIVE_LEVEL,
    RESET_BUS,
    START_IO,
)
from hba.port.request import ISSUED, PortUnit, SrbState
from hba.port.scsiport import (
    configuration,
    control,
    diagnosis,
    errors,
    freezing,
    resets,
    timeouts,
)
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.scsiport.slot import BUSY, BYPASS, DISCONNECT, NO_TAG, Slot
from hba.port.scsiport.unit import (
    FROZEN,
    LOCKED,
    NEED_SENSE,
    NOT_READY,
    PENDING_UNTAGGED,
    QUEUE_FULL,
    STOPPED,
    ScsiPortRequest,
    ScsiPortUnit,
)
from hba.srb import (
    SP_UNTAGGED,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_DISABLE_SYNCH_TRANSFER,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_QUIESCE_DEVICE,
    SRB_FUNCTION_RESET_BUS,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_SUCCESS,
    Srb,
)

_BYPASSING: Final = SRB_FLAGS_BYPASS_FROZEN_QUEUE | SRB_FLAGS_BYPASS_LOCKED_QUEUE
_MAY_BE_TAGGED: Final = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE
FIXED_SENSE: Final = 18


class ScsiPort(PortBase[ScsiPortUnit]):
    model = "scsiport"
    control_type_list = SCSI_PORT_CONTROL_TYPES
    sends_power = False

    def __init__(self, loop: EventLoop, miniport: Miniport, chip: Chip, config: ScsiPortConfig) -> None:
        super().__init__(loop, miniport, chip, config, config.timer_resolution)
        self.slot = Slot(config, self.clock, self, self.ledger, self.units, self.memory)
        self.hold = resets.ResetHold(self.slot, self._hold_over)

    # == down ======================================================================================================

    def enqueue(self, request: ScsiPortRequest) -> None:
        """SP-01, Q-01: into the unit's queue, never refused; on to the adapter at once if nothing is in the way."""
        unit = request.unit
        assert unit is not None
        srb, slot = request.srb, self.slot
        if srb.srb_flags & _BYPASSING and control.bypass(slot, request, unit):
            pass
        elif not unit.holds and not unit.queue.entries and len(unit.active) < unit.depth:
            unit.holds = NOT_READY
            unit.queue.last_key = srb.queue_sort_key
            slot.queue.append(request)
        else:
            unit.queue.insert(request)
            slot.pull(unit)
        if not self.running and self.callback == NO_CALLBACK:
            self.start_packets()

    def start_packets(self) -> None:
        """SP-03: one current packet; the others wait in the adapter's queue."""
        slot = self.slot
        queue = slot.queue
        # `gate`: not while BUSY (SP-02), while someone holds the bus (SP-14), during the reset hold (ER-12).
        while queue and not slot.gate:
            self._start_packet(queue.popleft())

    def _start_packet(self, request: ScsiPortRequest) -> None:
        """DriverStartIo (SP-04): prepare the SRB, then run hw_start_io."""
        unit = request.unit
        assert unit is not None
        srb, slot = request.srb, self.slot
        if unit.holds & ~NOT_READY and not self._may_start(request, unit):
            return
        if srb.function and control.answered_here(slot, request):
            unit.ready = True
            slot.pull(unit)
            return
        flags = srb.srb_flags
        tagged = slot.overlap and flags & _MAY_BE_TAGGED and not flags & SRB_FLAGS_DISABLE_DISCONNECT
        if not (self._may_start_tagged(request, unit) if tagged else self._may_start_untagged(request, unit)):
            return
        if slot.adjust:
            self._adjust(srb)
        if srb.srb_flags & SRB_FLAGS_DISABLE_DISCONNECT:
            slot.disconnect_owner = request
            slot.gate |= DISCONNECT  # SP-14
        self._start(request, unit, bool(tagged))

    def _start(self, request: ScsiPortRequest, unit: ScsiPortUnit, tagged: bool) -> None:
        """hw_start_io, synchronised with the interrupt (SP-04, SP-05). Every request the miniport ever gets comes by
        here."""
        srb, slot = request.srb, self.slot
        if tagged:
            request.tag = srb.queue_tag = slot.free_tags.pop()
        else:
            srb.queue_tag = SP_UNTAGGED
            if srb.function not in control.ABOUT_OTHERS:
                unit.untagged = request
        # the buffer (CF-01, CF-02, CF-03)
        mdl = srb.mdl
        if mdl is None:
            srb.data_buffer = None
        elif slot.mapped or srb.function in control.ALWAYS_USABLE:
            srb.data_buffer = MappedBuffer(mdl, request, slot.mapped_policy)
        else:
            srb.data_buffer = OpaqueBuffer(request, slot.opaque_policy)
        extensions = self.memory.extensions
        if extensions is not None:
            srb.srb_extension = request.extension = extensions.lend(request)
        slot.gate |= BUSY  # SP-02
        slot.busy_with = request
        self.ledger.issue(request)
        # SP-05: interrupts raised from here on stay pending until hw_start_io has returned.
        self.callback, self.irql = START_IO, self.dirql
        returned: object = True
        try:
            returned = self.edge.hw_start_io(request.handed)
        except Exception as error:
            self.crashed(error, request)
            self._start_io_failed(request)
        if self.unsettled:
            self.leave(START_IO, self.dirql, request)
        if not self.info.bus_interrupt_level:
            self._check_polled(request)
        self.callback, self.irql = NO_CALLBACK, PASSIVE_LEVEL
        if returned is not True:
            self._start_io_returned(request, returned)

    def _may_start(self, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
        """Q-07: what reached the adapter queue before its unit was frozen or locked goes back, in its order."""
        if request.stage == BYPASS or not unit.holds & (FROZEN | LOCKED | NEED_SENSE | STOPPED):
            return True
        unit.queue.insert(request)
        unit.ready = True
        return False

    def _may_start_tagged(self, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
        """Q-14: not beside an untagged one. A tag from the pool; without one the adapter waits for a completion."""
        if unit.untagged is not None:
            unit.pending_untagged.append(request)
            unit.holds |= PENDING_UNTAGGED
            return False
        slot = self.slot
        if slot.free_tags:
            return True
        slot.gate |= NO_TAG
        self.count("waits for a tag")
        slot.queue.appendleft(request)
        return False

    def _may_start_untagged(self, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
        """Q-14: alone on its unit. ABORT_COMMAND and bus resets are about other requests: they do not wait for them."""
        if not unit.active or request.srb.function in control.ABOUT_OTHERS:
            return True
        unit.pending_untagged.append(request)
        unit.holds |= PENDING_UNTAGGED
        return False

    def _adjust(self, srb: Any) -> None:
        options = self.slot.options
        if options.disable_disconnects:
            srb.srb_flags |= SRB_FLAGS_DISABLE_DISCONNECT  # CF-13
        if options.disable_synchronous_transfers:
            srb.srb_flags |= SRB_FLAGS_DISABLE_SYNCH_TRANSFER  # CF-13
        if options.small_sense_only and srb.sense_info_buffer_length > FIXED_SENSE:
            srb.srb_flags |= SRB_FLAGS_DISABLE_AUTOSENSE  # ER-05

    def _check_polled(self, request: ScsiPortRequest) -> None:
        """IN-07."""
        if request.state == ISSUED and not self.timer.armed and self.slot.timer_latched is None:
            self.finding(
                "IN-07", "hw_start_io of a polled adapter returned with a request outstanding and no timer", request
            )

    def _start_io_returned(self, request: ScsiPortRequest, returned: object) -> None:
        """SP-06: only TRUE is right. FALSE is what ReactOS takes for a failure: the request fails, and the slot stays
        taken until the port gives up on it; here it is opened, or a guest would hang on the mistake."""
        self.finding("SP-06", f"hw_start_io returned {returned!r} instead of True", request)
        if returned is False and request.state == ISSUED:
            self._start_io_failed(request)

    def _start_io_failed(self, request: ScsiPortRequest) -> None:
        """hw_start_io raised or returned FALSE: the request fails, the slot is opened, the port lives on."""
        self.fail_started(request)  # or it has ended; the DPC comes in either case
        self.slot.next_latched = True

    # == from the miniport =========================================================================================

    def notification(self, notification_type: int, first: Any = None, second: Any = 0, third: Any = 0) -> None:
        """ScsiPortNotification: latched here, acted on in the DPC (SP-09), so their order does not matter (SP-08)."""
        if notification_type == REQUEST_COMPLETE:
            self.returned(first)
            return
        for watcher in self.watchers:
            watcher.told(notification_type, (first, second, third))
        if notification_type == NEXT_LU_REQUEST:
            self._next_lu(first, second, third)
        elif notification_type == NEXT_REQUEST:
            self.slot.next_latched = True
        else:
            self._rare_notification(notification_type, first, second)
        self.ledger.due = True
        self.run_later()

    def _rare_notification(self, notification_type: int, first: Any, second: Any) -> None:
        slot = self.slot
        if notification_type == REQUEST_TIMER_CALL:
            slot.timer_latched = (first, int(second))
        elif notification_type == RESET_DETECTED:
            slot.reset_latched.add(int(first or 0))
            self.count("resets detected")
        elif notification_type == CALL_ENABLE_INTERRUPTS:
            # IN-04: hw_interrupt defers its work, and is not called until the CallDisableInterrupts routine ran.
            if self.chip.interrupts_enabled:
                self.offence("IN-04", "CallEnableInterrupts while the adapter's interrupts are not disabled")
            self.interrupts_held = True
            slot.enable_latched = first
        elif notification_type == CALL_DISABLE_INTERRUPTS:
            slot.disable_latched = first
        elif notification_type in (BUS_CHANGE_DETECTED, WMI_EVENT, WMI_REREGISTER):
            self.count(NOTIFICATION_NAMES[notification_type])
            if notification_type == BUS_CHANGE_DETECTED:
                self.bus_changed(int(first or 0))
            return
        else:
            self.count("unknown notifications")
            self.offence("SP-09", f"notification type {notification_type!r} does not exist in SCSI Port")
            return
        slot.rare_latched = True

    def _next_lu(self, path: int, target: int, lun: int) -> None:
        """SP-11: NextRequest, and this unit may get another one."""
        slot = self.slot
        slot.next_latched = True
        if not slot.overlap:
            self.offence("SP-11", "NextLuRequest without TaggedQueuing or MultipleRequestPerLu")
        unit = self.units.get(path << 16 | target << 8 | lun)
        if unit is None:
            return
        if unit.untagged is not None and unit.untagged.state == ISSUED:
            # SP-12: nothing would be started anyway; the part for the adapter stands.
            self.offence(
                "SP-12", f"NextLuRequest for {unit.name} while an untagged request is active there", unit.untagged
            )
            return
        slot.ready_units.append(unit)

    # == DPC =======================================================================================================

    def dpc(self) -> None:
        """SP-09: one round of what was latched, in ReactOS's order: timer, next, reset, ready units, next packet,
        completions, and last the routine that enables interrupts again."""
        slot, ledger = self.slot, self.ledger
        ledger.due = False
        if slot.rare_latched and slot.timer_latched is not None:
            routine, microseconds = slot.timer_latched
            slot.timer_latched = None
            self.timer.request(routine, microseconds)
        if slot.next_latched:
            slot.next_latched = False
            if not slot.gate & BUSY:
                self.count("spurious next")  # SP-15
            slot.gate &= ~BUSY  # READY; no unit is thereby (SP-10)
            slot.busy_with = None
        if slot.rare_latched:
            self._rare_in_dpc()
        if slot.ready_units:
            ready = slot.ready_units[:]
            slot.ready_units.clear()
            for told in ready:
                if told.holds & NOT_READY:
                    told.holds &= ~NOT_READY
                    if told.queue.entries:
                        slot.pull(told)
        if slot.queue:
            self.start_packets()
        if ledger.finished:
            self._retire()
        if slot.queue:
            self.start_packets()
        if slot.enable_latched is not None:
            self._run_deferred()

    def _rare_in_dpc(self) -> None:
        slot = self.slot
        slot.rare_latched = False
        if slot.reset_latched:
            for path in slot.reset_latched:
                self.hold.begin(path, "ResetDetected")  # ER-14
            slot.reset_latched.clear()
        wanted, slot.resets_wanted = slot.resets_wanted, []
        for path, why, request in wanted:
            srb_status = self._reset_bus(path, why)
            if request is not None:
                self.ledger.answer(request, srb_status)

    def _reset_bus(self, path: int, why: str) -> int:
        """Call hw_reset_bus (ER-10) and begin the hold (ER-12); the SrbStatus for who asked."""
        self.note(None, "reset_bus", f"path {path}: {why}")
        self.count("bus resets")
        ok = self.call(RESET_BUS, DIRQL, False, self.miniport.hw_reset_bus, path)
        resets.was_called(self.slot, path, ok, why)
        self.hold.begin(path, why)
        return SRB_STATUS_SUCCESS if ok else SRB_STATUS_ERROR

    def _hold_over(self) -> None:
        if self.running or self.callback != NO_CALLBACK:
            self.loop.call_soon(self._hold_over)
            return
        self.hold.end()
        self.run()

    def _run_deferred(self) -> None:
        """IN-04, the last step of the DPC: the routine with system interrupts enabled, then the one that ends the
        deferral."""
        slot = self.slot
        routine, slot.enable_latched = slot.enable_latched, None
        if routine is None:
            return
        slot.disable_latched = None
        self.call(DPC, DISPATCH_LEVEL, None, routine)
        self._enable_again(slot)

    def _enable_again(self, slot: Slot) -> None:
        disable, slot.disable_latched = slot.disable_latched, None
        if disable is None:
            self.finding("IN-04", "the CallEnableInterrupts routine returned without CallDisableInterrupts")
        else:
            self.call(DISABLE_INTERRUPTS, DIRQL, None, disable)
        self.interrupts_held = False
        if self.chip.asserted and self.chip.interrupts_enabled:
            self.interrupt_pending = True

    def _unit_free(self, unit: ScsiPortUnit) -> None:
        """A completion: the unit may have its next request, and waiting ones may have got what they wait for."""
        slot = self.slot
        slot.gate &= ~NO_TAG
        if unit.holds & PENDING_UNTAGGED and not unit.active:
            errors.retry_untagged(slot, unit)
        unit.holds &= ~NOT_READY
        slot.pull(unit)

    def _retire(self) -> None:
        """Completed SRBs: out of the counts, errors handled, their units' next, and up with them together."""
        while self.ledger.finished:
            finished, had = self.retired()
            kept = {request for request in had if self._goes_on(request)}
            if kept:
                finished = [request for request in finished if request not in kept]
            self.complete_up(finished)
            if self.slot.options.auto_release:
                for request in finished:
                    if request.frozen:
                        self._release_queue_of(request)

    def _release_queue_of(self, request: ScsiPortRequest) -> None:
        unit = request.unit
        assert unit is not None
        freezing.unfreeze(self.slot, unit, "released by the port's upper edge (auto_release)")

    def _goes_on(self, request: ScsiPortRequest) -> bool:
        """What the end of a request means for its unit, and for others. True: it goes up later, because it is tried
        again, or its sense data is fetched first."""
        srb, unit, slot = request.srb, request.unit, self.slot
        assert unit is not None
        if unit.holds & QUEUE_FULL:
            unit.holds &= ~QUEUE_FULL  # unless this one says so again
        if request.tag:
            slot.free_tags.append(request.tag)
        elif unit.untagged is request:
            unit.untagged = None
        if slot.disconnect_owner is request:
            slot.disconnect_owner = None
            slot.gate &= ~DISCONNECT
        if srb.srb_status != SRB_STATUS_SUCCESS and errors.handle(slot, request, unit):
            self._unit_free(unit)
            return True
        if srb.function in control.ABOUT_OTHERS:
            # It counted as outstanding, so others may have waited for it; the unit's turn it did not take.
            if srb.function == SRB_FUNCTION_RESET_BUS:
                self._bus_reset_done(request)
            if unit.holds & PENDING_UNTAGGED and not unit.active:
                errors.retry_untagged(slot, unit)
            slot.pull(unit)
        else:
            self._unit_free(unit)
        return False

    def _bus_reset_done(self, request: ScsiPortRequest) -> None:
        """A RESET_BUS came back from hw_start_io. A miniport that does not do it there has hw_reset_bus."""
        srb, why = request.srb, f"RESET_BUS #{request.number}"
        if srb.srb_status == SRB_STATUS_SUCCESS:
            self.hold.begin(srb.path_id, why)
        elif srb.srb_status == SRB_STATUS_INVALID_REQUEST:
            srb.srb_status = self._reset_bus(srb.path_id, why)

    def interrupt(self) -> None:
        # IN-07: an adapter without an interrupt is polled by the miniport's timer.
        if self.info.bus_interrupt_level:
            self.service_interrupt()
        else:
            self.interrupt_pending = False

    # == the others, each in its module ============================================================================

    def preset(self, info: PortConfigurationInformation) -> None:
        configuration.preset(self.slot, self.miniport, self.chip, info)

    def configured(self, info: PortConfigurationInformation) -> None:
        configuration.configured(self.slot, self.miniport, info)
        self.hold.cancel()

    def new_unit(self, path: int, target: int, lun: int) -> ScsiPortUnit:
        # SP-13: without overlap, one at a time.
        unit = ScsiPortUnit(path, target, lun, self.slot.options.requests_per_unit if self.slot.overlap else 1)
        if self.pnp.holding:
            unit.holds |= STOPPED
        return unit

    # -- what the PnP and power managers need ------------------------------------------------------------------

    def hold_all(self, hold: bool) -> None:
        for unit in self.units.values():
            if hold:
                unit.holds |= STOPPED
            elif unit.holds & STOPPED:
                unit.holds &= ~STOPPED
                self.slot.restart(unit)
        if not hold:
            self.run_later()

    def pass_down(self, srb: Srb) -> None:
        unit = self.unit_at(srb.path_id, srb.target_id, srb.lun)
        self.slot.ahead(self.ledger.own(srb, unit, "by the port"))
        self.run()

    def begin_again(self) -> None:
        """The slot is open, and what was latched before counts no more."""
        self.slot.forget()
        super().begin_again()

    def take_waiting(self, unit: PortUnit | None) -> list[ScsiPortRequest]:
        return [
            request
            for mine in list(self.units.values())
            if unit is None or mine is unit
            for request in resets.waiting(self.slot, mine)
        ]

    # -- the rest ----------------------------------------------------------------------------------------------

    def control(self, request: ScsiPortRequest) -> None:
        if request.srb.function == SRB_FUNCTION_QUIESCE_DEVICE:
            self.quiesce(request)
        elif control.control(self.slot, request):
            self.enqueue(request)

    def tick(self) -> None:
        timeouts.tick(self.slot)

    def needs_tick(self) -> bool:
        return timeouts.needs_tick(self.slot)

    def drop_queues(self) -> list[ScsiPortRequest]:
        waiting = resets.drop_queues(self.slot)
        self.hold.cancel()
        self.timer.cancel()
        return waiting

    def stuck(self) -> list[tuple[str, str, str]]:
        return diagnosis.stuck(self.slot)

    def adapter_snapshot(self) -> dict[str, object]:
        return {**diagnosis.adapter_snapshot(self.slot, self.interrupts_held), "timer_armed": self.timer.armed}

    def outcome(self, state: SrbState) -> str:
        return f"{super().outcome(state)} {diagnosis.outcome(state)}"

    def unit_snapshot(self, unit: ScsiPortUnit, now: int) -> dict[str, object]:
        return {**super().unit_snapshot(unit, now), **diagnosis.unit_snapshot(unit, now)}
