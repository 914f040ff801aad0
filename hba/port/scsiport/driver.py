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
from hba.port.request import ISSUED, Request, describe
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
    PENDING_UNTAGGED,
    QUEUE_FULL,
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
)
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

# Request.stage
WAITING = 0
STARTED = 1  # it was given to hw_start_io and not taken out of the counts yet
BYPASS = 2  # goes straight to the adapter queue, whatever holds its unit

_BYPASSING = SRB_FLAGS_BYPASS_FROZEN_QUEUE | SRB_FLAGS_BYPASS_LOCKED_QUEUE
_MAY_BE_TAGGED = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE
FIXED_SENSE = 18


class ScsiPort(PortBase):
    model = "scsiport"
    options: ScsiPortConfig

    def __init__(
        self,
        loop: EventLoop,
        miniport: Miniport,
        chip: Chip,
        config: ScsiPortConfig,
        verifier: Verifier | None = None,
        trace: Recorder | None = None,
    ) -> None:
        super().__init__(loop, miniport, chip, config, verifier, trace)
        self.adapter_queue: deque[Request] = deque()
        # the slot (SP-02, SP-03)
        self.busy = False  # BUSY: a request was started and no Next has come
        self.busy_with: Request | None = None
        self.busy_left = -1  # ticks until "no NextRequest" is diagnosed (ER-09)
        self.disconnect_owner: Request | None = None  # SP-14: holds the bus until it completes
        self.request_pending = False  # no free tag; retried at the next completion
        self.free_tags: list[int] = []

        # what the miniport notified, until the DPC (SP-09)
        self.next_latched = False
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
        self._hw_start_io = miniport.hw_start_io

    # == down ======================================================================================================

    def enqueue(self, request: Request) -> None:
        """SP-01, Q-01: into the unit's queue, never refused; on to the adapter at once if nothing is in the way."""
        unit = request.unit
        assert isinstance(unit, ScsiPortUnit)
        srb = request.srb
        if srb.srb_flags & _BYPASSING and control.bypass(self, request, unit):
            pass
        elif unit.ready and not unit.holds and not unit.queue and len(unit.active) < unit.depth:
            unit.ready = False
            unit.queue.last_key = srb.queue_sort_key
            self.adapter_queue.append(request)
        else:
            unit.queue.insert(request)
            if unit.ready:
                self.pull(unit)
        if not self.running and self.callback == NO_CALLBACK:
            self.start_packets()

    def pull(self, unit: ScsiPortUnit) -> None:
        """The unit's next request goes to the adapter queue, unless something inhibits it (Q-03)."""
        if unit.queue and not unit.holds and len(unit.active) < unit.depth:
            unit.ready = False
            self.adapter_queue.append(unit.queue.pop())

    def start_packets(self) -> None:
        """SP-03: one current packet; the others wait in the adapter queue."""
        queue = self.adapter_queue
        # SP-02: not while BUSY. SP-14: not while someone holds the bus. ER-12: not during the reset hold.
        while (
            queue
            and not self.busy
            and self.disconnect_owner is None
            and not self.hold.active
            and not self.request_pending
        ):
            self.start_io(queue.popleft())

    def start_io(self, request: Request) -> None:
        """DriverStartIo: prepare the SRB and run hw_start_io synchronised with the interrupt (SP-04, SP-05)."""
        unit = request.unit
        assert isinstance(unit, ScsiPortUnit)
        srb = request.srb
        if unit.holds and not self._may_start(request, unit):
            return
        if self.trace is not None:
            self.note(request, "driver_start_io.enter", describe(srb))
        if srb.function and control.answered_here(self, request):
            unit.ready = True
            self.pull(unit)
            return
        if not self._tag(request, unit):
            return

        # the buffer (CF-01, CF-02, CF-03)
        mdl = srb.mdl
        if mdl is None:
            srb.data_buffer = None
        elif self.mapped or srb.function == SRB_FUNCTION_IO_CONTROL:
            srb.data_buffer = MappedBuffer(mdl, request, self.mapped_policy)
        else:
            srb.data_buffer = OpaqueBuffer(request, self.opaque_policy)
        if self.adjust:
            self._adjust(srb)
        if srb.srb_flags & SRB_FLAGS_DISABLE_DISCONNECT:
            self.disconnect_owner = request  # SP-14
        self.busy = True  # SP-02
        self.busy_with = request
        self.busy_left = srb.time_out_value or self.options.default_timeout
        request.stage = STARTED
        given = self.issue(request)

        watched = self.verifier is not None or self.trace is not None
        since = self._enter_start_io(request) if watched else 0
        # SP-05: interrupts raised from here on stay pending until hw_start_io has returned.
        self.callback = START_IO
        self.irql = DIRQL
        self.current = request
        try:
            returned = self._hw_start_io(given)
        except Exception as error:
            self.crashed(error, request)
            returned = True
            errors.start_io_failed(self, request)
        finally:
            if watched:
                self._leave_start_io(since)
            self.current = None
            self.callback = NO_CALLBACK
            self.irql = PASSIVE_LEVEL
        if returned is not True:
            self._start_io_returned(request, returned)

    def _may_start(self, request: Request, unit: ScsiPortUnit) -> bool:
        """Q-07: what reached the adapter queue before its unit was frozen or locked goes back, in its order."""
        if request.stage == BYPASS or not unit.holds & (FROZEN | LOCKED | NEED_SENSE):
            return True
        unit.queue.insert(request)
        unit.ready = True
        return False

    def _tag(self, request: Request, unit: ScsiPortUnit) -> bool:
        """Q-14: a tag from the pool, or untagged and then alone on its unit. False: it has to wait."""
        srb = request.srb
        flags = srb.srb_flags
        if self.overlap and flags & _MAY_BE_TAGGED and not flags & SRB_FLAGS_DISABLE_DISCONNECT:
            if not self.free_tags:
                self.request_pending = True
                self.count("waits for a tag")
                self.adapter_queue.appendleft(request)
                return False
            srb.queue_tag = self.free_tags.pop()
            unit.tagged[srb.queue_tag] = request
            request.tag = srb.queue_tag
            return True
        # ABORT_COMMAND and bus resets are about other requests: they do not wait for them.
        if srb.function in control.ABOUT_OTHERS:
            srb.queue_tag = SP_UNTAGGED
            return True
        if unit.active:
            unit.pending_untagged.append(request)
            unit.holds |= PENDING_UNTAGGED
            return False
        srb.queue_tag = SP_UNTAGGED
        unit.untagged = request
        return True

    def _adjust(self, srb: Any) -> None:
        options = self.options
        if options.disable_disconnects:
            srb.srb_flags |= SRB_FLAGS_DISABLE_DISCONNECT  # CF-13
        if options.disable_synchronous_transfers:
            srb.srb_flags |= SRB_FLAGS_DISABLE_SYNCH_TRANSFER  # CF-13
        if options.small_sense_only and srb.sense_info_buffer_length > FIXED_SENSE:
            srb.srb_flags |= SRB_FLAGS_DISABLE_AUTOSENSE  # ER-05

    def _enter_start_io(self, request: Request) -> int:
        self.note(request, "start_io.enter", describe(request.srb))
        return self.begin_watch()

    def _leave_start_io(self, since: int) -> None:
        if self.verifier is not None:
            self.end_watch(since)
            polled = not self.info.bus_interrupt_level
            if polled and not (self.finished or self.timer.armed or self.timer_latched is not None):
                self.finding(
                    "IN-07",
                    "hw_start_io of a polled adapter returned with a request outstanding and no timer",
                    self.current,
                )
        self.note(self.current, "start_io.exit")

    def _start_io_returned(self, request: Request, returned: object) -> None:
        """SP-06: only TRUE is right. FALSE is what ReactOS takes for a failure: the request fails, and the slot stays
        taken until the port gives up on it; here it is opened, or a guest would hang on the mistake."""
        self.finding("SP-06", f"hw_start_io returned {returned!r} instead of True", request)
        if returned is False and request.state == ISSUED:
            errors.start_io_failed(self, request)

    # == from the miniport =========================================================================================

    def notification(self, notification_type: int, *arguments: Any) -> None:
        """ScsiPortNotification: latched here, acted on in the DPC (SP-09)."""
        if self.verifier is not None or self.trace is not None:
            self._watch_notification(notification_type, arguments)
        if notification_type == REQUEST_COMPLETE:
            self.request_complete(arguments[0])
            return
        if notification_type == NEXT_REQUEST:
            self.next_latched = True
        elif notification_type == NEXT_LU_REQUEST:
            self._next_lu(*arguments)
        elif notification_type == REQUEST_TIMER_CALL:
            self.timer_latched = (arguments[0], int(arguments[1]))
        elif notification_type == RESET_DETECTED:
            self.reset_latched.add(arguments[0] if arguments else 0)
            self.count("resets detected")
        elif notification_type == CALL_ENABLE_INTERRUPTS:
            interrupts.call_enable(self, arguments[0])
        elif notification_type == CALL_DISABLE_INTERRUPTS:
            interrupts.call_disable(self, arguments[0])
        elif notification_type in (BUS_CHANGE_DETECTED, WMI_EVENT, WMI_REREGISTER):
            self.count(NOTIFICATION_NAMES[notification_type])
            return
        else:
            self.count("unknown notifications")
            self.offence("SP-09", f"notification type {notification_type} does not exist in SCSI Port")
            return
        self.dpc_pending = True
        if self.callback == NO_CALLBACK and not self.running:
            self.run_later()

    def _watch_notification(self, notification_type: int, arguments: tuple[Any, ...]) -> None:
        name = NOTIFICATION_NAMES.get(notification_type, str(notification_type))
        if notification_type == REQUEST_COMPLETE:
            request = getattr(arguments[0], "_request", None) or getattr(arguments[0], "_port", None)
            self.note(request, "notification", name)
        elif self.trace is not None:
            detail = [name, *arguments] if notification_type == NEXT_LU_REQUEST else name
            self.trace.add("notification", 0, detail)
        if self.verifier is not None:
            self.check_place(notification_type)

    def _next_lu(self, path: int, target: int, lun: int) -> None:
        """SP-11: NextRequest, and this unit may get another one."""
        self.next_latched = True
        if not self.overlap:
            self.offence("SP-11", "NextLuRequest without TaggedQueuing or MultipleRequestPerLu")
        unit = self.units.get(path << 16 | target << 8 | lun)
        if not isinstance(unit, ScsiPortUnit):
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
        """SP-09: one round of what was latched, in ReactOS's order."""
        self.dpc_pending = False
        if self.timer_latched is not None:
            routine, microseconds = self.timer_latched
            self.timer_latched = None
            self.timer.request(routine, microseconds)
        if self.next_latched:
            self.next_latched = False
            if not self.busy:
                self.count("spurious next")  # SP-15
            self.make_ready()
        if self.reset_latched:
            for path in self.reset_latched:
                self.hold.begin(path, "ResetDetected")  # ER-14
            self.reset_latched.clear()
        if self.ready_units:
            ready, self.ready_units = self.ready_units, []
            for unit in ready:
                if not unit.ready:
                    unit.ready = True
                    self.pull(unit)
        if self.adapter_queue:
            self.start_packets()
        finished = self.finished
        while finished:
            self.retire(finished.popleft())
        if self.adapter_queue:
            self.start_packets()
        if self.enable_latched is not None:
            interrupts.run_deferred(self)

    def make_ready(self) -> None:
        """The slot is READY again (SP-02, SP-10); no unit is thereby."""
        self.busy = False
        self.busy_with = None
        self.busy_left = -1

    def take_disable_routine(self) -> Callable[[], None] | None:
        """What CallDisableInterrupts left (IN-04)."""
        routine, self.disable_latched = self.disable_latched, None
        return routine

    def forget_latches(self) -> None:
        """The adapter was reset: nothing it said before counts."""
        self.next_latched = False
        self.ready_units.clear()
        self.timer_latched = None
        self.reset_latched.clear()
        self.enable_latched = None
        self.disconnect_owner = None
        self.request_pending = False

    def interrupt(self) -> None:
        # IN-07: an adapter without an interrupt is polled by the miniport's timer.
        if self.info.bus_interrupt_level:
            self.service_interrupt()
        else:
            self.interrupt_pending = False

    def retire(self, request: Request) -> None:
        """A completed SRB: out of the counts, errors handled, the unit's next, and up."""
        srb = request.srb
        unit = request.unit
        if request.stage == STARTED:
            assert isinstance(unit, ScsiPortUnit)
            request.stage = WAITING
            self.release(request)
            tag = request.tag
            if tag:
                del unit.tagged[tag]
                self.free_tags.append(tag)
            elif unit.untagged is request:
                unit.untagged = None
            if self.disconnect_owner is request:
                self.disconnect_owner = None
            self.request_pending = False
            holds = unit.holds
            if holds & QUEUE_FULL:
                unit.holds &= ~QUEUE_FULL
            if holds & PENDING_UNTAGGED and not unit.active:
                errors.retry_untagged(self, unit)
            if srb.srb_status != SRB_STATUS_SUCCESS and errors.handle(self, request, unit):
                return  # goes up later: retried, or its sense data is fetched first
            if not srb.function:
                unit.ready = True
                if unit.queue:
                    self.pull(unit)
            else:
                control.done(self, request, unit)
        self.complete_up(request)
        if request.frozen and self.options.auto_release:
            assert isinstance(unit, ScsiPortUnit)
            freezing.unfreeze(self, unit, "released by the port's upper edge (auto_release)")

    # == the others, each in its module ============================================================================

    def services(self) -> Services:
        return Services(self)

    def preset(self, info: PortConfigurationInformation) -> None:
        configuration.preset(self, info)

    def configured(self, info: PortConfigurationInformation) -> None:
        configuration.configured(self, info)

    def new_unit(self, path: int, target: int, lun: int) -> ScsiPortUnit:
        # SP-13: without overlap, one at a time.
        return ScsiPortUnit(path, target, lun, self.options.requests_per_unit if self.overlap else 1)

    def control(self, request: Request) -> None:
        control.control(self, request)

    def tick(self) -> None:
        timeouts.tick(self)

    def needs_tick(self) -> bool:
        return timeouts.needs_tick(self)

    def drop_queues(self) -> list[Request]:
        return resets.drop_queues(self)

    def stuck(self) -> list[tuple[str, str, str]]:
        return diagnosis.stuck(self)

    def adapter_snapshot(self) -> dict[str, object]:
        return diagnosis.adapter_snapshot(self)

    def outcome(self, request: Request) -> str:
        return f"{super().outcome(request)} {diagnosis.outcome(request)}"

    def unit_snapshot(self, unit: Any, now: int) -> dict[str, object]:
        return {**super().unit_snapshot(unit, now), **diagnosis.unit_snapshot(self, unit, now)}
