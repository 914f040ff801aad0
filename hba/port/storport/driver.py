"""Storport's dispatch: BuildIo, StartIo, completion (ST-01 to ST-13), and the pieces of the model put together.

Sources: Storport I/O Model; HW_STARTIO, HW_BUILDIO (storport.h); Performance Tip: Completing Requests During
HwStartIo; Storport Queue Management.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from hba.clock import MS, S
from hba.loop import EventLoop
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import (
    INTERRUPT_SUPPORT_NONE,
    SRB_TYPE_STORAGE_REQUEST_BLOCK,
    STOR_SYNCHRONIZE_HALF_DUPLEX,
    PortConfigurationInformation,
)
from hba.miniport.services import (
    CALL_DISABLE_INTERRUPTS,
    CALL_ENABLE_INTERRUPTS,
    NOTIFICATION_NAMES,
    Dpc,
    StorPortServices,
)
from hba.port.base import PortBase
from hba.port.buffers import OpaqueBuffer
from hba.port.context import (
    BUILD_IO,
    CALLBACK_NAMES,
    DISPATCH_LEVEL,
    DPC,
    INITIALIZE,
    INTERRUPT,
    NO_CALLBACK,
    PASSIVE_INITIALIZE,
    PASSIVE_LEVEL,
    RESET_BUS,
    START_IO,
    SYNCHRONIZED,
    TIMER,
)
from hba.port.guard import GuardedSrb
from hba.port.request import COMPLETED, ISSUED, NOTIFIED, Request, describe
from hba.port.storport.config import MAP_BUFFERS, MAP_BUFFERS_NAMES, StorPortConfig
from hba.port.storport.extended import StorageRequestBlock
from hba.port.storport.flow import Flow
from hba.port.storport.locks import Locks, LockTable
from hba.port.storport.mapping import Mapper
from hba.port.storport.perf import PerfOptions, flag_names
from hba.port.storport.power import Power
from hba.port.storport.preset import apply_options, check_configuration, preset
from hba.port.storport.races import CLOSELY, SAMPLE, BuildIoWrites
from hba.port.storport.resets import Resets
from hba.port.storport.services import StorPortServicesOf
from hba.port.storport.timer import MiniportTimer
from hba.port.storport.units import (
    BUILT,
    CAPPED,
    FRESH,
    GATE_NAMES,
    HOLDING,
    LINK_DOWN,
    LOCKED,
    NOT_BUILT,
    REFUSED,
    STARTED,
    WATCHED,
    StorUnit,
    gate_names,
)
from hba.port.units import PortUnit
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_NO_KEEP_AWAKE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_FLUSH,
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
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_LUN,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_LINK_DOWN,
    SRB_STATUS_MASK,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_NOT_POWERED,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

INQUIRY = 0x12
RESETS = (SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE)
PASSED_BACK = (SRB_STATUS_SELECTION_TIMEOUT, SRB_STATUS_NO_DEVICE, SRB_STATUS_INVALID_LUN)


SPARES = 256  # requests kept for the next ones
_NOTHING = Srb()


class StorPort(PortBase):
    """One adapter under Storport."""

    model = "storport"

    def __init__(
        self,
        loop: EventLoop,
        miniport: Miniport,
        chip: Chip,
        config: StorPortConfig | None = None,
        verifier: Verifier | None = None,
        trace: Recorder | None = None,
    ) -> None:
        options = config if config is not None else StorPortConfig()
        if options.io_timeout_value:
            options = msgspec.structs.replace(options, default_timeout=options.io_timeout_value)  # QD-11
        super().__init__(loop, miniport, chip, options, verifier, trace)
        self.stor_options = options
        self.watched = self.verifier is not None or trace is not None or bool(options.interleave)
        self.gates = self._base_gates()
        self.since = 0  # ns, when the adapter's gates last closed
        self.max_io = 1000
        self.waiting: deque[StorUnit] = deque()  # units whose next request waits for the adapter, not for the unit
        self.dpcs: deque[tuple[Dpc, Any, Any]] = deque()
        self.pump_all = False
        self.passive_routine: Callable[[], bool] | None = None
        self.srb_extension_size_was: int | None = None  # when get_uncached_extension was called (MB-16)
        self.nested = 0  # callbacks of other processors on the stack
        self.in_start_io = 0
        self.service_calls = 0
        self.writes: BuildIoWrites | None = None
        self.extended = False
        self.flow = Flow(self)
        self.resets = Resets(self)
        self.power = Power(self)
        self.perf = PerfOptions(self)
        self.timer = MiniportTimer(self)
        self.locks = Locks(self, LockTable(half_duplex=True, virtual=False))
        self.mapper: Mapper  # as soon as the miniport has said how (configured)
        self._plain_mapping = False
        self._total_sense = options.total_sense_data_bytes
        # for `submit`
        self._start_irql = DISPATCH_LEVEL
        self._spares: list[Request] = []  # of requests that ended plainly: nobody else has them, use them again
        self._max_length = 0
        self._max_segments = 0

    def _base_gates(self) -> int:
        """Gates that hold nothing, but keep requests off the short way of `submit`."""
        careful = self.trace is not None or self.stor_options.interleave
        return (CAPPED if self.stor_options.io_latency_cap else 0) | (WATCHED if careful else 0)

    # == configuration ============================================================================================

    def services(self) -> StorPortServices:
        return StorPortServicesOf(self)

    def preset(self, info: PortConfigurationInformation) -> None:
        self.perf = PerfOptions(self)
        self.passive_routine = None
        preset(self, info)

    def configured(self, info: PortConfigurationInformation) -> None:
        options = self.stor_options
        check_configuration(self, info)
        apply_options(options, info)
        half = info.synchronization_model == STOR_SYNCHRONIZE_HALF_DUPLEX
        self.locks = Locks(self, LockTable(half, info.virtual_device))
        self._start_irql = self.irql_of(START_IO)
        self.max_io = max(1, info.max_number_of_io)
        self.mapper = Mapper(self, info.map_buffers)
        # The common case in one test on the hot path: value 2, an address that is there but not to be touched.
        self._plain_mapping = self.mapper.mode == MAP_BUFFERS["STOR_MAP_NON_READ_WRITE_BUFFERS"] and (
            not self.mapper.null
        )
        self._rw_opcodes = self.mapper.rw_opcodes
        self._opaque_policy = self.mapper.opaque_policy
        self._known_by = self._rw_opcodes | {INQUIRY}  # nobody reads from a unit he has not asked what it is
        self.extended = info.srb_type == SRB_TYPE_STORAGE_REQUEST_BLOCK  # XS-01
        if info.interrupt_synchronization_mode != INTERRUPT_SUPPORT_NONE:
            self.isr = partial(self.miniport.hw_msi_interrupt, 0)
        self.writes = BuildIoWrites(self.miniport) if self.verifier is not None else None
        self.power.query()

    def _initialize(self) -> None:
        plain = not (self.extended or self.limits.alignment_mask)
        self._max_length = self.limits.max_length if plain else -1
        self._max_segments = self.limits.max_segments
        super()._initialize()
        routine, self.passive_routine = self.passive_routine, None
        if routine is not None and not self.call(PASSIVE_INITIALIZE, PASSIVE_LEVEL, False, routine):
            self.finding("PF-01", "the passive initialisation routine returned FALSE", severity="warning")
        self.run()

    def irql_of(self, callback: int) -> int:
        return self.locks.table.irql(callback)

    def new_unit(self, path: int, target: int, lun: int) -> StorUnit:
        info = self.info
        unit = StorUnit(path, target, lun, max(1, min(info.initial_lun_queue_depth, info.max_ios_per_lun)))
        self.power.unit_started(unit)
        self.resets.new_unit(unit)
        return unit

    def stor_units(self) -> list[StorUnit]:
        return [unit for unit in self.units.values() if isinstance(unit, StorUnit)]

    # == requests from above ======================================================================================

    def submit(self, srb: Srb) -> None:
        """The common case, in one function because every guest request pays for it: a command for a unit that nothing
        holds, not traced, often complete before hw_start_io returns (ST-12). It does what `PortBase.submit`,
        `issue`, `dispatch`, `run` and `retire` do; anything out of the ordinary is left to them.
        """
        unit: Any = self.units.get(srb.path_id << 16 | srb.target_id << 8 | srb.lun)
        mdl = srb.mdl
        if (
            unit is None
            or srb.function
            or self.gates | unit.gates
            or self.running
            or self.callback
            or unit.queue
            or self.finished
            or len(unit.active) >= unit.depth
            or self.outstanding >= self.max_io
            or not (mdl is None or (mdl.length <= self._max_length and len(mdl.segments) <= self._max_segments))
            or not srb.cdb
        ):
            super().submit(srb)
            return
        spares = self._spares
        if spares:
            request = spares.pop()
            request.srb = srb
            request.unit = unit
            request.retries = 0
        else:
            request = Request(srb, unit)
            request.opaque = OpaqueBuffer(request, self._opaque_policy)
        request.state = ISSUED
        request.stage = NOT_BUILT
        self.numbers = request.number = self.numbers + 1
        srb._port = request
        request.length_at_issue = srb.data_transfer_length
        if mdl is not None:
            if self._plain_mapping and srb.cdb[0] in self._rw_opcodes:
                srb.data_buffer = request.opaque
            else:
                srb.data_buffer = self.mapper.data_buffer(request)
        active = unit.active
        active[request] = None
        unit.started += 1
        self.outstanding += 1
        verified = self.verifier is not None
        if verified:
            self._build_and_start_verified(request)
        else:
            miniport = self.miniport
            self.callback = BUILD_IO
            try:
                if not miniport.hw_build_io(srb):
                    request.stage = REFUSED
                elif (self.gates | unit.gates) & HOLDING:
                    self._hold_built(request)
                elif request.state == ISSUED:
                    self.callback = START_IO
                    request.stage = STARTED
                    miniport.hw_start_io(srb)
            except Exception as error:
                self._crashed_with(error, request, srb)
        self.callback = NO_CALLBACK
        finished = self.finished
        if (
            request.state == NOTIFIED
            and srb.srb_status == SRB_STATUS_SUCCESS
            and len(finished) == 1
            and not (self.gates or unit.gates or self.interrupt_pending or self.dpcs or self.waiting)
        ):
            finished.clear()
            self.dpc_pending = False
            del active[request]
            unit.completed += 1
            self.outstanding -= 1
            request.state = COMPLETED
            srb._port = None
            srb.srb_extension = srb.data_buffer = None
            if verified:
                self._close_window(request)
            else:
                request.srb = _NOTHING  # or it would keep the guest's memory mapped
                spares.append(request)
            completion = srb.completion
            if completion is not None:
                self.running = True
                try:
                    completion(srb)
                finally:
                    self.running = False
        elif request.state == ISSUED and len(active) == 1:
            unit.timeout_left = srb.time_out_value or self.options.default_timeout
            if self.tick_timer is None:
                self.arm_tick()
        if self.dpc_pending or self.interrupt_pending:
            self.run()

    def submit_all(self, srbs: Iterable[Srb]) -> None:
        if self.trace is not None or self.running or self.callback:
            super().submit_all(srbs)
            return
        self.chip.plug()
        try:
            self._submit_all(srbs)
        finally:
            self.chip.unplug()

    def _submit_all(self, srbs: Iterable[Srb]) -> None:
        """`submit`, for a batch: what cannot change between two requests of it is looked at once, and counted at the
        end. A request that is out of the ordinary, or a callback that changes something, starts anew."""
        miniport = self.miniport
        build_io, start_io = miniport.hw_build_io, miniport.hw_start_io
        max_length, max_segments = self._max_length, self._max_segments
        plain, rw_opcodes = self._plain_mapping, self._rw_opcodes
        verified = self.verifier is not None
        spares = self._spares
        unit: Any = None
        target = lun = -1
        active: dict[Request, None] = {}
        room = started = 0  # requests that `unit` can still have, and got
        number = self.numbers
        try:
            for srb in srbs:
                mdl = srb.mdl
                if srb.lun != lun or srb.target_id != target or srb.path_id or self.gates or unit.gates:
                    if started:
                        self.numbers = number
                        self._account(unit, started)
                        started = 0
                    target, lun = srb.target_id, srb.lun
                    unit = self.units.get(target << 8 | lun)
                    if unit is None or srb.path_id or self.gates | unit.gates or unit.queue or self.finished:
                        room = 0
                    else:
                        active = unit.active
                        room = min(unit.depth - len(active), self.max_io - self.outstanding)
                cdb = srb.cdb
                if (
                    room <= 0
                    or srb.function
                    or not cdb
                    or (mdl is not None and (mdl.length > max_length or len(mdl.segments) > max_segments))
                ):
                    self.numbers = number
                    if started:
                        self._account(unit, started)
                        started = 0
                    self.callback = NO_CALLBACK
                    self.submit(srb)
                    number = self.numbers
                    lun = -1
                    continue
                if spares:
                    request = spares.pop()
                    request.srb = srb
                    request.unit = unit
                    request.retries = 0
                else:
                    request = Request(srb, unit)
                    request.opaque = OpaqueBuffer(request, self._opaque_policy)
                request.state = ISSUED
                request.stage = NOT_BUILT
                request.number = number = number + 1
                srb._port = request
                request.length_at_issue = srb.data_transfer_length
                if mdl is not None:
                    if plain and cdb[0] in rw_opcodes:
                        srb.data_buffer = request.opaque
                    else:
                        srb.data_buffer = self.mapper.data_buffer(request)
                active[request] = None
                room -= 1
                started += 1
                if verified:
                    self._build_and_start_verified(request)
                else:
                    self.callback = BUILD_IO
                    try:
                        if not build_io(srb):
                            request.stage = REFUSED
                        elif self.gates or unit.gates:
                            self._hold_or_start(request)
                        elif request.state == ISSUED:
                            self.callback = START_IO
                            request.stage = STARTED
                            start_io(srb)
                    except Exception as error:
                        self._crashed_with(error, request, srb)
                if self.dpc_pending or self.interrupt_pending:
                    self.callback = NO_CALLBACK
                    self.numbers = number
                    self._account(unit, started)
                    started = 0
                    self.run()
                    number = self.numbers
                    lun = -1
        finally:
            self.callback = NO_CALLBACK
            self.numbers = max(number, self.numbers)
            if started:
                self._account(unit, started)
        if self.dpc_pending or self.interrupt_pending:
            self.run()

    def _account(self, unit: StorUnit, started: int) -> None:
        """`unit` has got so many requests."""
        unit.started += started
        self.outstanding += started
        if len(unit.active) == started:  # it had none before: ER-09
            self._restart_timeout(unit)
        if self.tick_timer is None:
            self.arm_tick()

    def _hold_or_start(self, request: Request) -> None:
        """Between BuildIo and StartIo, when there is a gate."""
        unit: Any = request.unit
        if (self.gates | unit.gates) & HOLDING:
            self._hold_built(request)
        elif request.state == ISSUED:
            self.callback = START_IO
            request.stage = STARTED
            self.miniport.hw_start_io(request.srb)

    # -- the verifier's part of it --------------------------------------------------------------------------------

    def _build_and_start_verified(self, request: Request) -> None:
        """BuildIo and StartIo, with everything that is compared around them. One function: it is hot, too."""
        miniport, unit, locks, writes, srb = self.miniport, request.unit, self.locks, self.writes, request.srb
        request.issued_at = self.clock.now()
        request.history = [(request.issued_at, "submit", None)]
        request.sense_at_issue = srb.sense_info_buffer_length
        windows = self.chip.windows
        if windows is not None:
            windows.open(srb)
        assert self.guard_policy is not None
        handed = request.guard = GuardedSrb(request, self.guard_policy)
        self.irql, self.current, self.charged = DISPATCH_LEVEL, request, 0
        locks_before = locks.taken
        number = request.number
        if writes is not None and (number <= CLOSELY or number % SAMPLE < 2):  # `due`, without a call
            writes.begin()
        self.callback = BUILD_IO
        try:
            built = miniport.hw_build_io(handed)
            # Locks, IRQL, time and write set (LK-03, LK-05, IN-03, ST-04).
            if self.charged or locks.held or self.irql != DISPATCH_LEVEL:
                self.end_watch()
            if writes is not None and writes.watching:
                found = writes.end(number)
                if found and locks_before == locks.taken:
                    self._races(request, found)
            self.irql = self._start_irql
            self.in_start_io += 1
            if not built:
                request.stage = REFUSED
            elif (self.gates | unit.gates) & HOLDING:  # type: ignore[union-attr]
                self._hold_built(request)
            elif request.state == ISSUED:
                self.callback = START_IO
                request.stage = STARTED
                if not miniport.hw_start_io(handed):
                    self._refused_to_start(request)
            else:
                self._complete_already(request)
        except Exception as error:
            self._crashed_with(error, request, handed)
        finally:
            self.in_start_io = 0
            wrong_irql = self.callback == START_IO and self.irql != self._start_irql
            if self.charged or locks.held or wrong_irql:
                self.end_watch()
            self.irql = PASSIVE_LEVEL
            self.current = None

    def _close_window(self, request: Request) -> None:
        """The request is complete: no DMA for it any more."""
        windows = self.chip.windows
        if windows is not None:
            windows.close(request.srb)
        request.guard = request.opaque = None

    def _refused_to_start(self, request: Request) -> None:
        if request.state == ISSUED:
            # ST-07: what Windows does then is not documented; here it stays the miniport's, until it times out.
            self.finding("ST-07", "hw_start_io returned FALSE without completing the SRB", request)

    def _complete_already(self, request: Request) -> None:
        """ST-05: whoever completes in BuildIo says FALSE."""
        self.finding("ST-05", "hw_build_io returned TRUE for an SRB it had completed", request)

    def _races(self, request: Request, found: list[tuple[str, int]]) -> None:
        for name, first in found:
            self.finding(
                "ST-04",
                f"{name} is written without a lock by the BuildIo of several requests (#{first}, "
                f"#{request.number}), which may run at once",
                request,
            )

    def enqueue(self, request: Request) -> None:
        unit: Any = request.unit
        if (
            (unit.gates | self.gates) & ~WATCHED
            or unit.queue
            or len(unit.active) >= unit.depth
            or self.outstanding >= self.max_io
            or self.callback
        ):
            self._enqueue_carefully(request, unit)
        else:
            self.dispatch(request)

    def _enqueue_carefully(self, request: Request, unit: StorUnit) -> None:
        """QD-01, QD-03, QD-07, RS-09: to the end of the unit's queue, and start what may be started."""
        srb = request.srb
        if self.gates & LINK_DOWN and self.flow.link_lost:
            self.answer(request, SRB_STATUS_LINK_DOWN)  # RS-09
            return
        if not unit.powered:
            if srb.srb_flags & SRB_FLAGS_NO_KEEP_AWAKE:
                self.answer(request, SRB_STATUS_NOT_POWERED)  # RS-09
                return
            self.power.wake(unit)
        if unit.gates & LOCKED and srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
            # passes the lock, but nothing else that holds the unit.
            if not (unit.gates & HOLDING & ~LOCKED) and not self.gates & HOLDING:
                self.dispatch(request)
            else:
                unit.queue.appendleft(request)
            return
        if self.tick_timer is None:
            self.arm_tick()
        if not unit.queue:
            unit.waiting_since = self.clock.now()
        unit.queue.append(request)
        if self.callback == NO_CALLBACK:
            self.pump(unit)
        else:
            self.wake()

    def control(self, request: Request) -> None:
        """Everything but EXECUTE_SCSI."""
        srb, unit = request.srb, request.unit
        assert isinstance(unit, StorUnit)
        function = srb.function
        if function in RESETS or function == SRB_FUNCTION_RESET_BUS:
            self.resets.from_above(request)
        elif function == SRB_FUNCTION_ABORT_COMMAND:
            self.resets.abort(request)
        elif function in (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN):
            # only a miniport that caches data hears of it.
            if self.info.caches_data:
                self.enqueue(request)
            else:
                self.answer(request, SRB_STATUS_SUCCESS)
        elif function in (SRB_FUNCTION_IO_CONTROL, SRB_FUNCTION_WMI):
            self.enqueue(request)
        elif function == SRB_FUNCTION_POWER:
            self.power.submitted(request)
        elif function == SRB_FUNCTION_LOCK_QUEUE:
            self.flow.lock(unit, srb.original_request)
            self.answer(request, SRB_STATUS_SUCCESS)
        elif function == SRB_FUNCTION_UNLOCK_QUEUE:
            if unit.gates & LOCKED and not srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
                self.finding(
                    "Q-11", f"UNLOCK_QUEUE of {unit.name} without BYPASS_LOCKED_QUEUE waits behind its own lock"
                )
                unit.queue.append(request)
                return
            self.flow.unlock(unit, srb.original_request)
            self.answer(request, SRB_STATUS_SUCCESS)
        elif function == SRB_FUNCTION_RELEASE_QUEUE:
            self.answer(request, SRB_STATUS_SUCCESS)  # Storport freezes no queue: accepted and ignored
        else:
            # ST-14: TERMINATE_IO, RELEASE_RECOVERY, RECEIVE_EVENT are never sent; the rest is unknown (ER-17).
            self.answer(request, SRB_STATUS_INVALID_REQUEST)

    def submit_internal(self, srb: Srb) -> None:
        """A request of the port's own: past every gate, straight to the miniport."""
        unit = self.unit_at(srb.path_id, srb.target_id, srb.lun)
        request = Request(srb, unit)
        srb._port = request
        self.numbers = request.number = self.numbers + 1
        if self.watched:
            self.note(request, "submit", f"by the port: {describe(srb)}")
        self.dispatch(request)
        if not self.running and self.callback == NO_CALLBACK:
            self.run()

    # == gates ====================================================================================================

    def close(self, gate: int, unit: StorUnit | None = None) -> None:
        if unit is None:
            if not self.gates & HOLDING:
                self.since = self.clock.now()
            self.gates |= gate
        else:
            if not unit.gates & HOLDING:
                unit.since = self.clock.now()
            unit.gates |= gate
        if self.watched:
            self.note(None, "gate.closed", f"{unit.name if unit is not None else 'adapter'}: {GATE_NAMES[gate]}")

    def open(self, gate: int, unit: StorUnit | None = None) -> None:
        if unit is None:
            if not self.gates & gate:
                return
            self.gates &= ~gate
        else:
            if not unit.gates & gate:
                return
            unit.gates &= ~gate
        if self.watched:
            self.note(None, "gate.opened", f"{unit.name if unit is not None else 'adapter'}: {GATE_NAMES[gate]}")
        self.wake()

    def wake(self) -> None:
        """Have the DPC look at every queue, after what runs now."""
        self.pump_all = True
        self.dpc_pending = True
        if self.callback == NO_CALLBACK and not self.running:
            self.run()

    def pump(self, unit: StorUnit) -> None:
        """ST-01: push as much as depths and gates allow."""
        while True:
            if unit.gates & HOLDING or self.gates & HOLDING:
                return
            if unit.built:
                self._start_built(unit.built.popleft())
                continue
            queue = unit.queue
            if not queue or len(unit.active) >= unit.depth:
                return
            if self.outstanding >= self.max_io:
                if not unit.waiting:
                    unit.waiting = True
                    self.waiting.append(unit)
                return
            if self.gates & CAPPED and self._capped(unit):
                return
            request = queue.popleft()
            if unit.gates & FRESH and request.srb.cdb and request.srb.cdb[0] in self._known_by:
                unit.gates &= ~FRESH  # QD-04
            self.dispatch(request)

    def _capped(self, unit: StorUnit) -> bool:
        """QD-11: a request older than IoLatencyCap holds its unit's new ones."""
        oldest = next(iter(unit.active), None)
        if oldest is None:
            return False
        return self.clock.now() - oldest.issued_at > self.stor_options.io_latency_cap * MS

    def _pump_all(self) -> None:
        self.pump_all = False
        for unit in self.stor_units():
            if unit.queue or unit.built:
                self.pump(unit)

    def take_queues(self, of: Callable[[StorUnit], bool] | None = None) -> list[Request]:
        """Remove and return what is queued, oldest first."""
        taken: list[Request] = []
        for unit in self.stor_units():
            if of is None or of(unit):
                taken += unit.queue
                unit.queue.clear()
        return sorted(taken, key=lambda request: request.number)

    # == to the miniport ==========================================================================================

    def dispatch(self, request: Request) -> None:
        """ST-03: BuildIo, then StartIo, once each."""
        srb = request.srb
        if srb.mdl is not None:
            if self._plain_mapping and srb.function == SRB_FUNCTION_EXECUTE_SCSI and srb.cdb[0] in self._rw_opcodes:
                srb.data_buffer = OpaqueBuffer(request, self._opaque_policy)
            else:
                srb.data_buffer = self.mapper.data_buffer(request)
        request.length_at_issue = srb.data_transfer_length
        if self.watched or self.extended or self.gates & CAPPED or self.callback:
            self._dispatch_watched(request)
            return
        self.issue(request)
        miniport = self.miniport
        self.callback = BUILD_IO
        try:
            if miniport.hw_build_io(srb):
                unit: Any = request.unit
                if unit.gates & HOLDING or self.gates & HOLDING:
                    self._hold_built(request)
                else:
                    self.callback = START_IO
                    request.stage = STARTED
                    # ST-05: TRUE with an SRB that is complete already is not started.
                    if request.state == ISSUED:
                        miniport.hw_start_io(srb)
            else:
                request.stage = REFUSED
        except Exception as error:
            self._crashed_with(error, request, srb)
        finally:
            self.callback = NO_CALLBACK

    def _hold_built(self, request: Request) -> None:
        """QD-07: BuildIo itself made the miniport pause; the started half waits. Resets go through."""
        unit = request.unit
        assert isinstance(unit, StorUnit)
        request.stage = BUILT
        if request.state != ISSUED:
            return
        srb, gates = request.srb, (unit.gates | self.gates) & HOLDING
        passes_lock = gates == LOCKED and srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI or passes_lock:
            self._start_built(request)
        else:
            unit.built.append(request)

    def _start_built(self, request: Request) -> None:
        """The second half of a request that was built earlier."""
        if request.state != ISSUED:
            return
        srb = request.guard if request.guard is not None else request.srb
        unit: Any = request.unit
        if next(iter(unit.active)) is request:
            unit.timeout_left = srb.time_out_value or self.options.default_timeout  # its time starts now (ER-09)
        if self.watched:
            self._start_io_watched(request, srb)
            return
        request.stage = STARTED
        outer, self.callback = self.callback, START_IO
        try:
            self.miniport.hw_start_io(srb)
        except Exception as error:
            self._crashed_with(error, request, srb)
        finally:
            self.callback = outer

    def _crashed_with(self, error: Exception, request: Request, srb: Srb) -> None:
        """An exception in BuildIo or StartIo: the request ends, unless the chip has it (then it ends by itself)."""
        self.crashed(error, request)
        if request.state == ISSUED and not any(task.owner == srb for task in self.chip.active):
            self.take_back(request, SRB_STATUS_INTERNAL_ERROR)

    # -- with verifier or trace ----------------------------------------------------------------------------------

    def _dispatch_watched(self, request: Request) -> None:
        handed = self.issue(request)
        request.issued_at = self.clock.now()
        if self.extended:
            handed = request.guard = StorageRequestBlock(request, self.offence_of)
        if self.watched and request.srb.data_buffer is not None:
            kind = "read/write" if self.mapper.is_read_write(request) else "other"
            self.note(request, "map", f"{kind}: {type(request.srb.data_buffer).__name__}")  # MB-08
        outer = self.callback, self.irql, self.current, self.charged
        locks = self.locks.swap([], [])
        self.callback, self.irql, self.current = BUILD_IO, DISPATCH_LEVEL, request
        built = False
        try:
            built = self._build_io_watched(request, handed)
            if built:
                unit = request.unit
                assert isinstance(unit, StorUnit)
                busy = self.in_start_io >= self.locks.table.channels and not self.info.virtual_device
                if unit.gates & HOLDING or self.gates & HOLDING or busy:
                    self._hold_built(request)
                    if busy:
                        self.wake()
                else:
                    self._start_io_watched(request, handed)
        finally:
            self.callback, self.irql, self.current, self.charged = outer
            self.locks.swap(*locks)

    def _build_io_watched(self, request: Request, srb: Srb) -> bool:
        """ST-04, ST-05. Whether StartIo follows."""
        if self.trace is not None:
            self.trace.add("build_io.enter", request.number, None)
        self.begin_watch()
        writes, taken = self.writes, self.locks.taken
        if writes is not None and writes.due(request.number):
            writes.begin()
        wanted = False
        try:
            wanted = bool(self.miniport.hw_build_io(srb))
        except Exception as error:
            self._crashed_with(error, request, srb)
        finally:
            if self.verifier is not None:
                self.end_watch()
            if self.trace is not None:
                self.trace.add("build_io.exit", request.number, wanted)
        if writes is not None and writes.watching:
            found = writes.end(request.number)
            if taken == self.locks.taken:
                self._races(request, found)
        if not wanted:
            request.stage = REFUSED
        elif request.state != ISSUED:
            self._complete_already(request)
            return False
        return wanted

    def _start_io_watched(self, request: Request, srb: Srb) -> None:
        """ST-06 to ST-08, ST-11."""
        outer = self.callback, self.irql, self.current
        request.stage = STARTED
        self.callback, self.irql, self.current = START_IO, self.irql_of(START_IO), request
        self.in_start_io += 1
        if self.trace is not None:
            self.trace.add("start_io.enter", request.number, None)
        self.begin_watch()
        started: object = True
        try:
            started = self.miniport.hw_start_io(srb)
        except Exception as error:
            self._crashed_with(error, request, srb)
        finally:
            if self.verifier is not None:
                self.end_watch()
            self.in_start_io -= 1
            if self.trace is not None:
                self.trace.add("start_io.exit", request.number, bool(started))
            self.callback, self.irql, self.current = outer
        if not started:
            self._refused_to_start(request)

    def end_watch(self) -> int:
        stalled = super().end_watch()
        self.locks.leave(self.callback, self.irql_of(self.callback) if self.callback in _CHECKED else self.irql)
        return stalled

    def noted(self, notification: int, arguments: tuple[Any, ...]) -> None:
        """A notification, for the trace, the history and the legality matrix."""
        if self.verifier is not None:
            if notification not in (CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS):  # SCSI Port's; not ours (ST-02)
                self.check_place(notification)
            if notification == 0 and self.current is None and self.callback not in (NO_CALLBACK,):
                self._check_reset_scope(arguments)
        if self.watched:
            request = None
            if notification == 0 and arguments:
                found = getattr(arguments[0], "_request", None) or getattr(arguments[0], "_port", None)
                request = found if isinstance(found, Request) else None
            name = NOTIFICATION_NAMES.get(notification, f"{notification:#x}")
            self.note(request, "notification", f"{name} from {CALLBACK_NAMES[self.callback]}")

    def _check_reset_scope(self, arguments: tuple[Any, ...]) -> None:
        """RS-04: a request that was built but not started is not the miniport's to complete in a bus reset."""
        request = getattr(arguments[0], "_request", None) if arguments else None
        if isinstance(request, Request) and request.stage == BUILT and request.state == ISSUED:
            self.offence("RS-04", "completed although hw_start_io was never called for it", request)

    # -- other processors ----------------------------------------------------------------------------------------

    def other_processors(self) -> None:
        """`interleave`: at a service call of BuildIo or StartIo, run what Windows could run on another processor now.

        Only while this processor's callback holds no lock of its own, so that the other one never has to wait.
        """
        every = self.stor_options.interleave
        if not every or self.nested or self.callback not in (BUILD_IO, START_IO) or self.locks.held:
            return
        self.service_calls += 1
        if self.service_calls % every:
            return
        self.nested += 1
        try:
            # ST-10: in full duplex the interrupt may come in the middle of StartIo; BuildIo holds no lock at all.
            if self.interrupt_pending and not (self.callback == START_IO and self.locks.table.half_duplex):
                self.count("interrupts beside a start-I/O")
                held = self.locks.swap([], [])
                self.interrupt()
                self.locks.swap(*held)
            # ST-04, ST-11: another request may be built, and started if the StartIo lock is not taken.
            for unit in self.stor_units():
                if unit.queue and not self.gates & HOLDING and not unit.gates & HOLDING:
                    if len(unit.active) < unit.depth and self.outstanding < self.max_io:
                        self.count("requests beside another's start-I/O")
                        self.dispatch(unit.queue.popleft())
                    break
        finally:
            self.nested -= 1

    def nested_call(self, callback: int, routine: Callable[..., bool], *arguments: Any) -> bool:
        """A callback inside a callback, on the same processor (StorPortSynchronizeAccess)."""
        held = self.locks.swap([], [])
        try:
            return self.call(callback, self.irql_of(callback), False, routine, *arguments)
        finally:
            self.locks.swap(*held)

    # == back from the miniport ===================================================================================

    def interrupt(self) -> None:
        """ST-10: delivered between callbacks, or (interleave) beside a full-duplex StartIo."""
        if self.power.adapter_stopped:
            # RS-06, RS-07: a stopped adapter, or one whose interrupt is not connected yet, must be quiet.
            self.interrupt_pending = False
            self.finding("RS-06", "the adapter interrupts although it was stopped")
            return
        self.service_interrupt()

    def dpc(self) -> None:
        self.dpc_pending = False
        # PF-04: the miniport's DPCs run as soon as the processor is below DIRQL again.
        for _ in range(len(self.dpcs)):
            dpc, argument1, argument2 = self.dpcs.popleft()
            dpc.queued = False
            self.call(DPC, DISPATCH_LEVEL, None, dpc.routine, dpc, argument1, argument2)
        self._retire_plain()
        finished = self.finished
        for _ in range(len(finished)):
            self.retire(finished.popleft())
        if self.pump_all:
            self._pump_all()

    def _retire_plain(self) -> None:
        """The common case of `retire`, up to the first request that is not one: a command that ended well, at a unit
        that nothing holds and nobody traces. A guest's batch comes back this way."""
        finished = self.finished
        if not finished or self.waiting or self.gates:
            return
        verified, windows = self.verifier is not None, self.chip.windows
        now = self.clock.now() if verified else 0
        spares = self._spares
        last: Any = None
        active: dict[Request, None] = {}
        before = 0
        done: list[Srb] = []
        for request in finished:
            srb = request.srb
            unit: Any = request.unit
            if unit is not last:
                if last is not None:
                    self._returned(last, len(done) - before)
                    last, before = None, len(done)
                if unit is None or unit.gates or unit.queue:
                    break
                last, active = unit, unit.active
            if srb.srb_status != SRB_STATUS_SUCCESS or srb.function or request not in active:
                break
            del active[request]
            request.state = COMPLETED
            srb._port = srb.srb_extension = srb.data_buffer = None
            if verified:
                if windows is not None:
                    windows.close(srb)
                request.guard = request.opaque = None
                if request.history is not None:
                    request.history.append((now, "complete", None))
            elif request.opaque is not None:
                request.srb = _NOTHING  # or it would keep the guest's memory mapped
                spares.append(request)
            done.append(srb)
        if last is not None:
            self._returned(last, len(done) - before)
        if len(done) == len(finished):
            finished.clear()
        else:
            for _ in done:
                finished.popleft()
        del spares[SPARES:]
        if done:
            self.up_together(done)

    def _returned(self, unit: StorUnit, count: int) -> None:
        """The miniport has given back so many requests of `unit`."""
        self.outstanding -= count
        unit.completed += count
        self._restart_timeout(unit)

    def _restart_timeout(self, unit: Any) -> None:
        """ER-09: the clock of a unit runs for its oldest request."""
        if unit.active:
            unit.timeout_left = next(iter(unit.active)).srb.time_out_value or self.options.default_timeout
        else:
            unit.timeout_left = -1

    def retire(self, request: Request) -> None:
        """A request came back: counters and gates, another try for what was busy, else up with it; then the next."""
        srb = request.srb
        unit: Any = request.unit
        if unit is None or request not in unit.active:
            self.complete_up(request)  # the port's own answer
            return
        if srb.function in RESETS and self.resets.check_scope(request):
            self.finished.append(request)  # behind what the reset left over, which has just been taken back
            return
        if srb.function in RESETS:
            self.resets.let_go(request)
        windows = self.chip.windows
        moved = windows.transferred(srb) if windows is not None else 0
        self.release(request)
        if (self.gates | unit.gates) & HOLDING:
            self.flow.completed(unit)
        srb_status = srb.srb_status
        if srb_status != SRB_STATUS_SUCCESS:
            srb.srb_status = srb_status & ~SRB_STATUS_QUEUE_FROZEN  # not the miniport's to set
            if self._came_back_busy(request, moved):
                if unit.queue:
                    self.pump(unit)
                return
            self._failed(request, unit)
        if self.watched:
            self.complete_up(request)
        else:
            request.state = COMPLETED
            srb._port = request.opaque = None
            srb.srb_extension = srb.data_buffer = None  # no cycle is left for the garbage collector
            completion = srb.completion
            if completion is not None:
                completion(srb)
        if unit.queue:
            self.pump(unit)
        if self.waiting:
            self._pump_waiting()

    def _came_back_busy(self, request: Request, moved: int) -> bool:
        srb = request.srb
        return (
            srb.scsi_status in (SCSISTAT_BUSY, SCSISTAT_QUEUE_FULL)
            or srb.srb_status & SRB_STATUS_MASK in (0x05, SRB_STATUS_LINK_DOWN)
        ) and self.flow.retry(request, moved)

    def _failed(self, request: Request, unit: StorUnit) -> None:
        """Bookkeeping for what does not end well. Not hot."""
        srb = request.srb
        if self.verifier is not None:
            self.mapper.check_unmapped_completion(request)
        sense = srb.sense_info_buffer
        if len(sense) > self._total_sense:
            srb.sense_info_buffer = sense[: self._total_sense]  # QD-11
        if srb.function in RESETS:
            return
        # Nobody lives there: forget the unit, so that a guest that scans every address costs no memory.
        if (
            srb.srb_status & SRB_STATUS_MASK in PASSED_BACK
            and not unit.active
            and not unit.queue
            and not unit.gates & HOLDING
            and unit.extension is None
        ):
            self.units.pop(unit.path << 16 | unit.target << 8 | unit.lun, None)

    def _pump_waiting(self) -> None:
        """One unit gets the adapter's free place; they take turns."""
        unit = self.waiting.popleft()
        unit.waiting = False
        self.pump(unit)

    # == time, resets, life =======================================================================================

    def tick(self) -> None:
        for unit in self.expired_units():
            assert isinstance(unit, StorUnit)
            self.resets.timed_out(unit)
        if self.gates & CAPPED:
            self.wake()

    def needs_tick(self) -> bool:
        return self.outstanding > 0 or any(unit.queue for unit in self.stor_units())

    def drop_queues(self) -> list[Request]:
        queued = self.take_queues()
        self.flow.reset()
        queued += self.resets.forget()
        self.timer.cancel()
        self.waiting.clear()
        self.dpcs.clear()
        self.gates &= ~HOLDING
        for unit in self.stor_units():
            unit.built.clear()
            unit.gates &= ~HOLDING
            unit.busy_left = unit.full_left = 0
            unit.waiting = False
            unit.locked_at = None
            unit.cancel_timers()
        return queued

    def reset_adapter(self) -> None:
        """See `PortDriver`. The miniport resets its adapter first, so what it has comes back from it."""
        if self.started and self.callback == NO_CALLBACK:
            for path in range(self.info.number_of_buses):
                self.resets.reset_bus(path)
        super().reset_adapter()

    def stop(self) -> None:
        """RS-06: nothing outstanding, FLUSH, ScsiStopAdapter, ScsiSetBootConfig."""
        if not self.started:
            return
        self.note(None, "stop")
        self._give_up_everything(SRB_STATUS_ABORTED)
        self.power.stop_adapter()
        self._give_up_everything(SRB_STATUS_BUS_RESET)
        self.started = False
        if self.tick_timer is not None:
            self.tick_timer.cancel()
            self.tick_timer = None

    def restart(self) -> None:
        """After `stop` (RS-06, RS-07)."""
        if self.started:
            return
        if self.power.restart_adapter():
            self.started = True
            self.run()
        else:
            self.start()

    def stuck(self) -> list[tuple[str, str, str]]:
        """Queues that stand still, with the gate that holds them."""
        found: list[tuple[str, str, str]] = []
        limit = self.stor_options.stuck_after * S
        now = self.clock.now()
        for unit in self.stor_units():
            gates = (unit.gates | self.gates) & HOLDING
            if not gates or not (unit.queue or unit.built):
                continue
            since = min(unit.since if unit.gates & HOLDING else now, self.since if self.gates & HOLDING else now)
            if not unit.built:
                since = max(since, unit.waiting_since)
            if now - since > limit:
                reasons = ", ".join(gate_names(gates))
                rule = "Q-11" if gates & LOCKED else "QD-07"
                waiting = len(unit.queue) + len(unit.built)
                found.append((rule, unit.name, f"LU {unit.name}: {waiting} requests wait, {reasons}"))
        return found

    def unit_snapshot(self, unit: PortUnit, now: int) -> dict[str, object]:
        result = super().unit_snapshot(unit, now)
        assert isinstance(unit, StorUnit)
        blocked = gate_names(unit.gates | self.gates)
        if len(unit.active) >= unit.depth:
            blocked.append(f"queue depth {unit.depth} reached")
        elif unit.queue and self.outstanding >= self.max_io:
            blocked.append(f"the adapter's {self.max_io} requests are outstanding")
        result |= {
            "queued": len(unit.queue) + len(unit.built),
            "queue": [self.request_snapshot(request, now) for request in list(unit.queue)[:32]],
            "depth": unit.depth,
            "powered": unit.powered,
            "blocked_by": blocked,
        }
        return result

    def adapter_snapshot(self) -> dict[str, object]:
        return {
            "state": "stopped" if self.power.adapter_stopped else "running",
            "held_by": gate_names(self.gates),
            "max_number_of_io": self.max_io,
            "half_duplex": self.locks.table.half_duplex,
            "channels": self.perf.channels,
            "perf_flags": flag_names(self.perf.flags),
            "map_buffers": MAP_BUFFERS_NAMES[self.mapper.mode] if self.started else None,
            "recoveries": len(self.resets.recoveries),
        }


# Callbacks whose IRQL on entry is known here (LK-05).
_CHECKED = frozenset({INITIALIZE, BUILD_IO, START_IO, INTERRUPT, DPC, TIMER, RESET_BUS, SYNCHRONIZED})
