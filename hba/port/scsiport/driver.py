"""SCSI Port: the request's way from the unit's queue over the adapter's slot to the miniport, and back.

    submit -> unit queue (sorted) -> adapter queue -> slot (READY/BUSY) -> hw_start_io -> ... -> DPC -> up

A unit hands one request at a time to the adapter queue; the slot takes one request at a time and is BUSY until the
miniport says NextRequest or NextLuRequest (SP-02). What the miniport notifies is latched and acted on in the DPC
(SP-09), in ReactOS's order. Everything that is not the ordinary way has its own module beside this one.

Sources: SCSI Port I/O Model; SCSI Port Driver's Queue Management; Return from HwScsiStartIo; ScsiPortNotification.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hba.loop import EventLoop
from hba.miniport.base import Miniport
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
from hba.port.buffers import BufferPolicy, MappedBuffer, OpaqueBuffer
from hba.port.context import DIRQL, NO_CALLBACK, PASSIVE_LEVEL, START_IO
from hba.port.request import ISSUED
from hba.port.scsiport import (
    configuration,
    control,
    diagnosis,
    errors,
    freezing,
    interrupts,
    resets,
    timeouts,
)
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.scsiport.services import Services
from hba.port.scsiport.unit import (
    FROZEN,
    LOCKED,
    NEED_SENSE,
    NOT_READY,
    PENDING_UNTAGGED,
    QUEUE_FULL,
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
    SRB_FUNCTION_IO_CONTROL,
    SRB_STATUS_SUCCESS,
    Srb,
)

# ScsiPort.gate
BUSY = 1  # SP-02: until NextRequest or NextLuRequest
DISCONNECT = 2  # SP-14: a DISABLE_DISCONNECT request has the bus
HOLD = resets.HOLD  # ER-12: after a bus reset
NO_TAG = 8  # until the next completion

_BYPASSING = SRB_FLAGS_BYPASS_FROZEN_QUEUE | SRB_FLAGS_BYPASS_LOCKED_QUEUE
_MAY_BE_TAGGED = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE
FIXED_SENSE = 18


class ScsiPort(PortBase[ScsiPortUnit]):
    model = "scsiport"
    options: ScsiPortConfig

    def __init__(self, loop: EventLoop, miniport: Miniport, chip: Chip, config: ScsiPortConfig) -> None:
        super().__init__(loop, miniport, chip, config)
        self.adapter_queue: deque[ScsiPortRequest] = deque()
        # the slot (SP-02, SP-03)
        self.gate = 0  # why nothing is started: BUSY, DISCONNECT, HOLD, NO_TAG; 0 is READY
        self.busy_with: ScsiPortRequest | None = None  # the one that made it BUSY
        self.busy_age = 0  # ticks it has been BUSY with that one (ER-09)
        self.busy_seen = 0  # number of the one that was busy at the last tick
        self.disconnect_owner: ScsiPortRequest | None = None  # SP-14: holds the bus until it completes
        self.free_tags: list[int] = []

        # what the miniport notified, until the DPC (SP-09)
        self.next_latched = False
        self.rare_latched = False
        self.ready_units: list[ScsiPortUnit] = []
        self.timer_latched: tuple[Callable[[], None], int] | None = None
        self.reset_latched: set[int] = set()
        self.enable_latched: Callable[[], None] | None = None
        self.disable_latched: Callable[[], None] | None = None

        self.timer = interrupts.MiniportTimer(self)
        self.hold = resets.ResetHold(self)

        self.fixed_by_extension: tuple[object, ...] | None = None  # CF-09
        self.overlap = False  # tagged queuing or MultipleRequestPerLu (CF-13)
        self.mapped = False
        self.adjust = False  # some option changes SRBs on the way down (CF-13, ER-05)
        poison = config.forbidden_access == "poison"
        self.opaque_policy = BufferPolicy("CF-02", "that is not mapped (MapBuffers FALSE)", poison, self.offence_of)
        self.mapped_policy: BufferPolicy | None = None

    # == down ======================================================================================================

    def enqueue(self, request: ScsiPortRequest) -> None:
        """SP-01, Q-01: into the unit's queue, never refused; on to the adapter at once if nothing is in the way."""
        unit = request.unit
        assert unit is not None
        srb = request.srb
        if srb.srb_flags & _BYPASSING and control.bypass(self, request, unit):
            pass
        elif not unit.holds and not unit.queue.entries and len(unit.active) < unit.depth:
            unit.holds = NOT_READY
            unit.queue.last_key = srb.queue_sort_key
            self.adapter_queue.append(request)
        else:
            unit.queue.insert(request)
            self.pull(unit)
        if not self.running and self.callback == NO_CALLBACK:
            self.start_packets()

    def pull(self, unit: ScsiPortUnit) -> None:
        """The unit's next request goes to the adapter queue, unless something inhibits it (Q-03)."""
        if unit.queue.entries and not unit.holds and len(unit.active) < unit.depth:
            unit.holds = NOT_READY
            self.adapter_queue.append(unit.queue.pop())

    def start_packets(self) -> None:
        """SP-03: one current packet; the others wait in the adapter queue."""
        queue = self.adapter_queue
        # `gate`: not while BUSY (SP-02), while someone holds the bus (SP-14), during the reset hold (ER-12).
        while queue and not self.gate:
            self._start_packet(queue.popleft())

    def _start_packet(self, request: ScsiPortRequest) -> None:
        """DriverStartIo (SP-04): prepare the SRB, then run hw_start_io."""
        unit = request.unit
        assert unit is not None
        srb = request.srb
        if unit.holds & ~NOT_READY and not self._may_start(request, unit):
            return
        if srb.function and control.answered_here(self, request):
            unit.ready = True
            self.pull(unit)
            return
        flags = srb.srb_flags
        tagged = self.overlap and flags & _MAY_BE_TAGGED and not flags & SRB_FLAGS_DISABLE_DISCONNECT
        if not (self._may_start_tagged(request, unit) if tagged else self._may_start_untagged(request, unit)):
            return
        if self.adjust:
            self._adjust(srb)
        if srb.srb_flags & SRB_FLAGS_DISABLE_DISCONNECT:
            self.disconnect_owner = request
            self.gate |= DISCONNECT  # SP-14
        self._start(request, unit, bool(tagged))

    def _start(self, request: ScsiPortRequest, unit: ScsiPortUnit, tagged: bool) -> None:
        """hw_start_io, synchronised with the interrupt (SP-04, SP-05). Every request the miniport ever gets comes by
        here."""
        srb = request.srb
        if tagged:
            request.tag = srb.queue_tag = self.free_tags.pop()
        else:
            srb.queue_tag = SP_UNTAGGED
            if srb.function not in control.ABOUT_OTHERS:
                unit.untagged = request
        # the buffer (CF-01, CF-02, CF-03)
        mdl = srb.mdl
        if mdl is None:
            srb.data_buffer = None
        elif self.mapped or srb.function == SRB_FUNCTION_IO_CONTROL:
            srb.data_buffer = MappedBuffer(mdl, request, self.mapped_policy)
        else:
            srb.data_buffer = OpaqueBuffer(request, self.opaque_policy)
        extensions = self.memory.extensions
        if extensions is not None:
            srb.srb_extension = request.extension = extensions.lend(request)
        self.gate |= BUSY  # SP-02
        self.busy_with = request
        self.ledger.issue(request)
        # SP-05: interrupts raised from here on stay pending until hw_start_io has returned.
        self.callback, self.irql = START_IO, DIRQL
        returned: object = True
        try:
            start_io: Callable[[Srb], object] = self.edge.hw_start_io  # which may return anything
            returned = start_io(request.handed)
        except Exception as error:
            self.crashed(error, request)
            errors.start_io_failed(self, request)
        if self.unsettled:
            self.leave(START_IO, DIRQL, request)
        if not self.info.bus_interrupt_level:
            self._check_polled(request)
        self.callback, self.irql = NO_CALLBACK, PASSIVE_LEVEL
        if returned is not True:
            self._start_io_returned(request, returned)

    def _may_start(self, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
        """Q-07: what reached the adapter queue before its unit was frozen or locked goes back, in its order."""
        if request.stage == control.BYPASS or not unit.holds & (FROZEN | LOCKED | NEED_SENSE):
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
        if self.free_tags:
            return True
        self.gate |= NO_TAG
        self.count("waits for a tag")
        self.adapter_queue.appendleft(request)
        return False

    def _may_start_untagged(self, request: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
        """Q-14: alone on its unit. ABORT_COMMAND and bus resets are about other requests: they do not wait for them."""
        if not unit.active or request.srb.function in control.ABOUT_OTHERS:
            return True
        unit.pending_untagged.append(request)
        unit.holds |= PENDING_UNTAGGED
        return False

    def _adjust(self, srb: Any) -> None:
        options = self.options
        if options.disable_disconnects:
            srb.srb_flags |= SRB_FLAGS_DISABLE_DISCONNECT  # CF-13
        if options.disable_synchronous_transfers:
            srb.srb_flags |= SRB_FLAGS_DISABLE_SYNCH_TRANSFER  # CF-13
        if options.small_sense_only and srb.sense_info_buffer_length > FIXED_SENSE:
            srb.srb_flags |= SRB_FLAGS_DISABLE_AUTOSENSE  # ER-05

    def _check_polled(self, request: ScsiPortRequest) -> None:
        """IN-07."""
        if request.state == ISSUED and not self.timer.armed and self.timer_latched is None:
            self.finding(
                "IN-07", "hw_start_io of a polled adapter returned with a request outstanding and no timer", request
            )

    def _start_io_returned(self, request: ScsiPortRequest, returned: object) -> None:
        """SP-06: only TRUE is right. FALSE is what ReactOS takes for a failure: the request fails, and the slot stays
        taken until the port gives up on it; here it is opened, or a guest would hang on the mistake."""
        self.finding("SP-06", f"hw_start_io returned {returned!r} instead of True", request)
        if returned is False and request.state == ISSUED:
            errors.start_io_failed(self, request)

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
            self.next_latched = True
        else:
            self._rare_notification(notification_type, first, second)
        self.dpc_pending = True
        self.run_later()

    def _rare_notification(self, notification_type: int, first: Any, second: Any) -> None:
        if notification_type == REQUEST_TIMER_CALL:
            self.timer_latched = (first, int(second))
        elif notification_type == RESET_DETECTED:
            self.reset_latched.add(int(first or 0))
            self.count("resets detected")
        elif notification_type == CALL_ENABLE_INTERRUPTS:
            interrupts.call_enable(self, first)
        elif notification_type == CALL_DISABLE_INTERRUPTS:
            interrupts.call_disable(self, first)
        elif notification_type in (BUS_CHANGE_DETECTED, WMI_EVENT, WMI_REREGISTER):
            self.count(NOTIFICATION_NAMES[notification_type])
            return
        else:
            self.count("unknown notifications")
            self.offence("SP-09", f"notification type {notification_type!r} does not exist in SCSI Port")
            return
        self.rare_latched = True

    def _next_lu(self, path: int, target: int, lun: int) -> None:
        """SP-11: NextRequest, and this unit may get another one."""
        self.next_latched = True
        if not self.overlap:
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
        self.ready_units.append(unit)

    # == DPC =======================================================================================================

    def dpc(self) -> None:
        """SP-09: one round of what was latched, in ReactOS's order: timer, next, reset, ready units, next packet,
        completions, and last the routine that enables interrupts again."""
        self.dpc_pending = False
        if self.rare_latched and self.timer_latched is not None:
            routine, microseconds = self.timer_latched
            self.timer_latched = None
            self.timer.request(routine, microseconds)
        if self.next_latched:
            self.next_latched = False
            if not self.gate & BUSY:
                self.count("spurious next")  # SP-15
            self.gate &= ~BUSY  # READY; no unit is thereby (SP-10)
            self.busy_with = None
        if self.rare_latched:
            self._rare_in_dpc()
        if self.ready_units:
            ready = self.ready_units[:]
            self.ready_units.clear()
            for told in ready:
                if told.holds & NOT_READY:
                    told.holds &= ~NOT_READY
                    if told.queue.entries:
                        self.pull(told)
        if self.adapter_queue:
            self.start_packets()
        if self.ledger.finished:
            self._retire()
        if self.adapter_queue:
            self.start_packets()
        if self.enable_latched is not None:
            interrupts.run_deferred(self)

    def _rare_in_dpc(self) -> None:
        self.rare_latched = False
        if self.reset_latched:
            for path in self.reset_latched:
                self.hold.begin(path, "ResetDetected")  # ER-14
            self.reset_latched.clear()

    def _unit_free(self, unit: ScsiPortUnit) -> None:
        """A completion: the unit may have its next request, and waiting ones may have got what they wait for."""
        self.gate &= ~NO_TAG
        if unit.holds & QUEUE_FULL:
            unit.holds &= ~QUEUE_FULL
        if unit.holds & PENDING_UNTAGGED and not unit.active:
            errors.retry_untagged(self, unit)
        unit.holds &= ~NOT_READY
        self.pull(unit)

    def _retire(self) -> None:
        """Completed SRBs: out of the counts, errors handled, their units' next, and up with them together."""
        while self.ledger.finished:
            finished, had = self.retired()
            kept = {request for request in had if self._goes_on(request)}
            if kept:
                finished = [request for request in finished if request not in kept]
            self.complete_up(finished)
            if self.options.auto_release:
                for request in finished:
                    if request.frozen:
                        self._release_queue_of(request)

    def _release_queue_of(self, request: ScsiPortRequest) -> None:
        unit = request.unit
        assert unit is not None
        freezing.unfreeze(self, unit, "released by the port's upper edge (auto_release)")

    def _goes_on(self, request: ScsiPortRequest) -> bool:
        """What the end of a request means for its unit, and for others. True: it goes up later, because it is tried
        again, or its sense data is fetched first."""
        srb, unit = request.srb, request.unit
        assert unit is not None
        if request.tag:
            self.free_tags.append(request.tag)
            request.tag = 0
        elif unit.untagged is request:
            unit.untagged = None
        if self.disconnect_owner is request:
            self.disconnect_owner = None
            self.gate &= ~DISCONNECT
        if srb.srb_status != SRB_STATUS_SUCCESS and errors.handle(self, request, unit):
            self._unit_free(unit)
            return True
        if srb.function in control.ABOUT_OTHERS:
            # It counted as outstanding, so others may have waited for it; the unit's turn it did not take.
            control.done(self, request)
            if unit.holds & PENDING_UNTAGGED and not unit.active:
                errors.retry_untagged(self, unit)
            self.pull(unit)
        else:
            self._unit_free(unit)
        return False

    def any_tag(self) -> None:
        """Whoever waited for a tag at the head of the adapter queue may be gone: look again."""
        self.gate &= ~NO_TAG

    def make_ready(self) -> None:
        """The slot is opened without the miniport having said so."""
        self.gate &= ~BUSY
        self.busy_with = None

    @property
    def busy(self) -> bool:
        """The slot is taken: a request was started, and neither NextRequest nor NextLuRequest has come (SP-02)."""
        return bool(self.gate & BUSY)

    def take_disable_routine(self) -> Callable[[], None] | None:
        """What CallDisableInterrupts left (IN-04)."""
        routine, self.disable_latched = self.disable_latched, None
        return routine

    def forget_latches(self) -> None:
        """The adapter was reset: nothing it said before counts, and all tags are back."""
        configuration.fill_tags(self)
        self.next_latched = False
        self.ready_units.clear()
        self.timer_latched = None
        self.reset_latched.clear()
        self.enable_latched = None
        self.disconnect_owner = None
        self.gate &= ~(DISCONNECT | NO_TAG)

    def interrupt(self) -> None:
        # IN-07: an adapter without an interrupt is polled by the miniport's timer.
        if self.info.bus_interrupt_level:
            self.service_interrupt()
        else:
            self.interrupt_pending = False

    # == the others, each in its module ============================================================================

    def services(self) -> Services:
        library = Services(self)
        self.library = library
        return library

    def preset(self, info: PortConfigurationInformation) -> None:
        configuration.preset(self, info)

    def configured(self, info: PortConfigurationInformation) -> None:
        configuration.configured(self, info)

    def new_unit(self, path: int, target: int, lun: int) -> ScsiPortUnit:
        # SP-13: without overlap, one at a time.
        return ScsiPortUnit(path, target, lun, self.options.requests_per_unit if self.overlap else 1)

    def control(self, request: ScsiPortRequest) -> None:
        control.control(self, request)

    def tick(self) -> None:
        timeouts.tick(self)

    def needs_tick(self) -> bool:
        return timeouts.needs_tick(self)

    def drop_queues(self) -> list[ScsiPortRequest]:
        return resets.drop_queues(self)

    def stuck(self) -> list[tuple[str, str, str]]:
        return diagnosis.stuck(self)

    def adapter_snapshot(self) -> dict[str, object]:
        return diagnosis.adapter_snapshot(self)

    def outcome(self, request: ScsiPortRequest) -> str:
        return f"{super().outcome(request)} {diagnosis.outcome(request)}"

    def unit_snapshot(self, unit: ScsiPortUnit, now: int) -> dict[str, object]:
        return {**super().unit_snapshot(unit, now), **diagnosis.unit_snapshot(self, unit, now)}
