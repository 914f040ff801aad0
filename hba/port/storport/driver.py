"""Storport's dispatch: BuildIo, StartIo, completion (ST-01 to ST-13), and the pieces of the model put together.

Sources: Storport I/O Model; HW_STARTIO, HW_BUILDIO (storport.h); Performance Tip: Completing Requests During
HwStartIo; Storport Queue Management.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from types import MethodType
from typing import Any, Final, cast

import msgspec

from hba.clock import MS, S
from hba.loop import EventLoop
from hba.miniport.base import ADAPTER_CONTROL_TYPES, SCSI_ADAPTER_POWER, AdapterControlPower, Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import (
    SRB_TYPE_STORAGE_REQUEST_BLOCK,
    STOR_SYNCHRONIZE_HALF_DUPLEX,
    PortConfigurationInformation,
)
from hba.miniport.services import Dpc
from hba.port.base import PortBase
from hba.port.context import (
    BUILD_IO,
    DISPATCH_LEVEL,
    DPC,
    FREE_RESOURCES,
    NO_CALLBACK,
    PASSIVE_INITIALIZE,
    PASSIVE_LEVEL,
    RESET_BUS,
    START_IO,
    TRACING_ENABLED,
)
from hba.port.request import ISSUED, PortUnit, Request, snapshot
from hba.port.storport.config import MAP_BUFFERS_NAMES, StorPortConfig
from hba.port.storport.extended import StorageRequestBlock
from hba.port.storport.flow import Flow
from hba.port.storport.gates import Gates
from hba.port.storport.locks import Locks, LockTable
from hba.port.storport.mapping import Mapper
from hba.port.storport.messages import Messages
from hba.port.storport.perf import PerfOptions, flag_names
from hba.port.storport.power import Power
from hba.port.storport.preset import apply_options, check_configuration, preset
from hba.port.storport.resets import BUS, Resets
from hba.port.storport.units import (
    BUILT,
    CAPPED,
    FRESH,
    HOLDING,
    LINK_DOWN,
    LOCKED,
    POWERED_DOWN,
    REFUSED,
    RESETTING,
    STARTED,
    STOPPED,
    StorRequest,
    StorUnit,
    gate_names,
)
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
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_QUIESCE_DEVICE,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_SHUTDOWN,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_FUNCTION_WMI,
    SRB_POWER_FLAGS_ADAPTER_REQUEST,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_LUN,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_LINK_DOWN,
    SRB_STATUS_MASK,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_NOT_POWERED,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)

INQUIRY: Final = 0x12
RESETS = (SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE)
PASSED_BACK = (SRB_STATUS_SELECTION_TIMEOUT, SRB_STATUS_NO_DEVICE, SRB_STATUS_INVALID_LUN)


class StorPort(PortBase[StorUnit]):
    """One adapter under Storport."""

    model = "storport"
    control_type_list = ADAPTER_CONTROL_TYPES
    sends_power = True

    def __init__(self, loop: EventLoop, miniport: Miniport, chip: Chip, config: StorPortConfig | None = None) -> None:
        options = config if config is not None else StorPortConfig()
        if options.io_timeout_value:
            options = msgspec.structs.replace(options, default_timeout=options.io_timeout_value)  # QD-11
        super().__init__(loop, miniport, chip, options, options.timer_resolution)
        self.gates = Gates(options, self.clock, self, self.ledger, self.units, self.run)
        self.dpcs: deque[tuple[Dpc, Any, Any]] = deque()
        self.passive_routine: Callable[[], object] | None  # (preset); a miniport's: what it returns is its own
        self.srb_extension_size_was: int | None = None  # when get_uncached_extension was called (MB-16)
        self.nested = 0  # callbacks of other processors on the stack
        self.in_start_io = 0
        self.service_calls = 0
        self.extended: bool  # as `mapper`
        self.other_lists = bool(options.interleave)  # asking for a scatter/gather list is more than that
        self.flow = Flow(self.gates)
        self.resets = Resets(self.gates)
        self.power = Power(self)
        self.perf = PerfOptions(options, self)
        self.messages = Messages(self.info, 0, self)
        self.locks = Locks(self, LockTable(half_duplex=True, virtual=False), self.info, self.messages)
        self.mapper: Mapper  # as soon as the miniport has said how (configured)
        self._total_sense = options.total_sense_data_bytes
        self._build_irql: int
        self._start_irql: int

    # == configuration ============================================================================================

    def preset(self, info: PortConfigurationInformation) -> None:
        self.perf = PerfOptions(self.gates.options, self)
        self.passive_routine = None
        self.gates.info = info
        preset(self.miniport, info)

    def configured(self, info: PortConfigurationInformation) -> None:
        options = self.gates.options
        check_configuration(options, self, info, self.srb_extension_size_was)
        apply_options(options, info)
        half = info.synchronization_model == STOR_SYNCHRONIZE_HALF_DUPLEX
        messages = self.messages = Messages(info, options.message_number_limit, self, self._has_message_routine(info))
        self.chip.use_messages(messages.granted)
        self.perf.grant(messages.granted)
        self.locks = Locks(self, LockTable(half, info.virtual_device, messages.per_message), info, messages)
        self._build_irql, self._start_irql = self.irql_of(BUILD_IO), self.irql_of(START_IO)
        self.gates.max_io = max(1, info.max_number_of_io)
        self.mapper = Mapper(options, self, info.map_buffers)
        # Nobody reads from a unit he has not asked what it is (QD-04).
        self._known_by = self.mapper.rw_opcodes | {INQUIRY}
        self.extended = info.srb_type == SRB_TYPE_STORAGE_REQUEST_BLOCK  # XS-01

    def _query_control_types(self) -> None:
        super()._query_control_types()
        self.power.query()

    def _has_message_routine(self, info: PortConfigurationInformation) -> bool:
        """HwMSInterruptRoutine, from the structure or as a method: without one there are no messages, and none in dump
        mode."""
        if self.dump is not None:
            return False
        miniport, routine = self.miniport, info.hw_ms_interrupt_routine
        if routine is not None:
            setattr(miniport, "hw_msi_interrupt", MethodType(routine, miniport))  # noqa: B010 - a method otherwise
            return True
        return type(miniport).hw_msi_interrupt is not Miniport.hw_msi_interrupt

    def _initialize(self) -> None:
        super()._initialize()
        routine, self.passive_routine = self.passive_routine, None
        if routine is not None and not self.call(PASSIVE_INITIALIZE, PASSIVE_LEVEL, cast(object, False), routine):
            self.finding("PF-01", "the passive initialisation routine returned FALSE", severity="warning")
        self.run()

    def irql_of(self, callback: int) -> int:
        return max(self.locks.table.irql(callback), self.least_irql)

    def new_unit(self, path: int, target: int, lun: int) -> StorUnit:
        info = self.info
        unit = StorUnit(path, target, lun, max(1, min(info.initial_lun_queue_depth, info.max_ios_per_lun)))
        self.power.unit_started(unit)
        self.resets.new_unit(unit)
        return unit

    def perf_changed(self) -> None:
        """The miniport has asked for performance options (ST-11, MB-18)."""
        self.other_lists = self.perf.no_sgl or bool(self.gates.options.interleave)
        self.locks.table.set_channels(self.perf.channels)

    # == requests from above ======================================================================================

    def enqueue(self, request: StorRequest) -> None:
        """ST-01: to the miniport at once, unless something holds its unit or the adapter."""
        unit, gates = request.unit, self.gates
        assert unit is not None
        if (
            unit.gates | gates.closed
            or unit.queue
            or len(unit.active) >= unit.depth
            or self.ledger.outstanding >= gates.max_io
            or self.callback
        ):
            self._enqueue_carefully(request, unit)
        else:
            self.dispatch(request)

    def _enqueue_carefully(self, request: StorRequest, unit: StorUnit) -> None:
        """QD-01, QD-03, QD-07, RS-09: to the end of the unit's queue, and start what may be started."""
        srb, gates = request.srb, self.gates
        if gates.closed & LINK_DOWN and self.flow.link_lost:
            self.ledger.answer(request, SRB_STATUS_LINK_DOWN)  # RS-09
            return
        if not unit.powered and srb.srb_flags & SRB_FLAGS_NO_KEEP_AWAKE:
            self.ledger.answer(request, SRB_STATUS_NOT_POWERED)  # RS-09
            return
        if unit.gates & LOCKED and srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
            # passes the lock, but nothing else that holds the unit.
            if unit.is_anothers(srb.original_request):
                self.finding("Q-11", f"a request bypasses the lock another driver holds on {unit.name}", request)
            unit.queue.appendleft(request)
            self.ledger.watch()
            if self.callback == NO_CALLBACK:
                self.pump(unit)
            else:
                gates.wake()
            return
        self.ledger.watch()
        if not unit.queue:
            unit.waiting_since = self.clock.now()
        unit.queue.append(request)
        if self.callback == NO_CALLBACK:
            self.pump(unit)
        else:
            gates.wake()

    def control(self, request: StorRequest) -> None:
        """Everything but EXECUTE_SCSI."""
        srb, unit, ledger = request.srb, request.unit, self.ledger
        assert unit is not None
        function = srb.function
        if function in RESETS:
            self.resets.begin(request)
            self.dispatch(request)
        elif function == SRB_FUNCTION_RESET_BUS:
            # ST-14: a bus reset is the callback, never an SRB.
            self.resets.flush(lambda unit: unit.path == srb.path_id)
            ledger.answer(request, SRB_STATUS_SUCCESS if self.reset_bus(srb.path_id) else SRB_STATUS_ERROR)
        elif function == SRB_FUNCTION_ABORT_COMMAND:
            if self.resets.abort(request):
                self.dispatch(request)
        elif function in (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN):
            # only a miniport that caches data hears of it.
            if self.info.caches_data:
                self.enqueue(request)
            else:
                ledger.answer(request, SRB_STATUS_SUCCESS)
        elif function in (SRB_FUNCTION_IO_CONTROL, SRB_FUNCTION_WMI, SRB_FUNCTION_PNP):
            self.enqueue(request)
        elif function == SRB_FUNCTION_QUIESCE_DEVICE:
            self.quiesce(request)
        elif function == SRB_FUNCTION_POWER:
            if srb.srb_power_flags & SRB_POWER_FLAGS_ADAPTER_REQUEST:
                srb_status = self._adapter_power(srb)
            else:
                srb_status = self.power.submitted(unit, srb.device_power_state)
            if srb_status is None:
                self._power(request, unit)
            else:
                ledger.answer(request, srb_status)
        elif function == SRB_FUNCTION_LOCK_QUEUE:
            self.flow.lock(unit, srb.original_request)
            ledger.answer(request, SRB_STATUS_SUCCESS)
        elif function == SRB_FUNCTION_UNLOCK_QUEUE:
            if unit.gates & LOCKED and not srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE:
                self.finding(
                    "Q-11", f"UNLOCK_QUEUE of {unit.name} without BYPASS_LOCKED_QUEUE waits behind its own lock"
                )
                unit.queue.append(request)
                return
            self.flow.unlock(unit, srb.original_request)
            ledger.answer(request, SRB_STATUS_SUCCESS)
        elif function == SRB_FUNCTION_RELEASE_QUEUE:
            ledger.answer(request, SRB_STATUS_SUCCESS)  # Storport freezes no queue: accepted and ignored
        else:
            # ST-14: TERMINATE_IO, RELEASE_RECOVERY, RECEIVE_EVENT are never sent; the rest is unknown (ER-17).
            ledger.answer(request, SRB_STATUS_INVALID_REQUEST)

    def _power(self, request: StorRequest, unit: StorUnit) -> None:
        """QD-07: a POWER request waits as others do where its unit or the adapter is held, but ahead of them; the lock
        of its own sequence it passes (Q-12)."""
        unit.queue.appendleft(request)
        self.ledger.watch()
        self.pump(unit)

    def _adapter_power(self, srb: Srb) -> int | None:
        """RS-06: a miniport with ScsiAdapterPower gets the callback instead of the SRB."""
        if not self.declares(SCSI_ADAPTER_POWER):
            return None
        power = AdapterControlPower(srb.power_action, srb.device_power_state)
        return SRB_STATUS_SUCCESS if self.adapter_control(SCSI_ADAPTER_POWER, power) else SRB_STATUS_ERROR

    def pass_down(self, srb: Srb) -> None:
        """A request of the port's own: past every gate, straight to the miniport."""
        request = self.ledger.own(srb, self.unit_at(srb.path_id, srb.target_id, srb.lun), "by the port")
        self.dispatch(request)
        self.run()

    def reset_bus(self, path: int) -> bool:
        """RS-03: HwStorResetBus with all queues held."""
        self.count("bus resets")
        self.gates.close(RESETTING)
        worked = self.call(RESET_BUS, self.irql_of(RESET_BUS), False, self.miniport.hw_reset_bus, path)
        self.resets.bus_was_reset(path, worked)
        self.gates.open(RESETTING)
        return worked

    def _take_reset_steps(self) -> None:
        """RS-01: what the recoveries want done next."""
        steps, self.resets.steps = self.resets.steps, []
        for recovery in steps:
            if recovery.step == BUS:
                recovery.finish(self.reset_bus(recovery.unit.path))
            else:
                self.pass_down(recovery.request())

    # == queues ===================================================================================================

    def pump(self, unit: StorUnit, most: int = 0) -> bool:
        """ST-01: push as much as depths and gates allow, or `most`. True: that many were pushed, there may be more."""
        pushed, gates = 0, self.gates
        while True:
            held = (unit.gates | gates.closed) & HOLDING
            if held and (held != LOCKED or not self._passes_lock(unit)):
                return False
            if unit.built:
                self._start_built(unit.built.popleft())
                continue
            queue = unit.queue
            if not queue or len(unit.active) >= unit.depth:
                return False
            if self.ledger.outstanding >= gates.max_io:
                gates.wait_for_adapter(unit)
                return False
            if gates.closed & CAPPED and self._capped():
                return False
            if most and pushed == most:
                return True
            request = queue.popleft()
            if unit.gates & FRESH and request.srb.cdb and request.srb.cdb[0] in self._known_by:
                unit.gates &= ~FRESH  # QD-04
            if unit.gates & POWERED_DOWN and request.srb.function != SRB_FUNCTION_POWER:
                self._wake(unit)
            self.dispatch(request)
            pushed += 1

    def _passes_lock(self, unit: StorUnit) -> bool:
        """Q-11: whether the next request may be started although the queue is locked."""
        waiting = unit.built or unit.queue
        return bool(waiting) and bool(waiting[0].srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE)

    def _wake(self, unit: StorUnit) -> None:
        """RS-09: a unit that is powered down is powered up for a request, when nothing else holds that any more."""
        wake = self.power.wake(unit)
        if wake is not None:
            self.pass_down(wake)

    def _take_turns(self) -> None:
        """Units that wait for the adapter get its free places one after the other, one each."""
        gates = self.gates
        while gates.waiting and self.ledger.outstanding < gates.max_io:
            unit = gates.waiting.popleft()
            unit.waiting = False
            if self.pump(unit, 1):
                gates.wait_for_adapter(unit)

    def _capped(self) -> bool:
        """QD-11: any request older than IoLatencyCap holds new ones, whatever unit they are for."""
        before = self.clock.now() - self.gates.options.io_latency_cap * MS
        return any(request.issued_at < before for other in self.gates.units for request in islice(other.active, 1))

    def _pump_all(self) -> None:
        self.gates.look_at_all = False
        for unit in self.gates.units:
            if unit.queue or unit.built:
                self.pump(unit)

    # == to the miniport ==========================================================================================

    def dispatch(self, request: StorRequest) -> None:
        """ST-03: BuildIo, then StartIo, once each. Every request the miniport ever gets comes by here."""
        unit, srb = request.unit, request.srb
        assert unit is not None
        if srb.mdl is not None:
            srb.data_buffer = self.mapper.data_buffer(request)
        extensions = self.memory.extensions
        if extensions is not None:
            srb.srb_extension = request.extension = extensions.lend(request)
        if self.extended:
            block: Any = StorageRequestBlock(request, self.offence_of, request.extension is not None)
            request.handed = block
        self.ledger.issue(request)
        outer, irql = self.callback, self.irql
        self.callback, self.irql = BUILD_IO, self._build_irql
        built = False
        try:
            built = bool(self.edge.hw_build_io(request.handed))
        except Exception as error:
            self._crashed_with(error, request)
        if self.unsettled:
            self.leave(BUILD_IO, self._build_irql, request)
        # ST-05: an SRB that is complete already although TRUE was returned is never started.
        if built and request.state == ISSUED and not (unit.gates | self.gates.closed) & HOLDING and not self.nested:
            self._start_io(request, outer, irql)
        else:
            self.callback, self.irql = outer, irql
            self._after_build_io(request, built)

    def _after_build_io(self, request: StorRequest, built: bool) -> None:
        """BuildIo has returned, and it is not clear that StartIo follows at once."""
        unit = request.unit
        assert unit is not None
        if not built:
            request.stage = REFUSED
        elif request.state == ISSUED:
            if (unit.gates | self.gates.closed) & HOLDING:
                self._hold_built(request)
            elif self.no_channel_free():
                self._hold_built(request)
                self.gates.wake()
            else:
                self._start_io(request, self.callback, self.irql)

    def _start_io(self, request: StorRequest, outer: int, irql: int) -> None:
        """ST-06 to ST-08, ST-11. Afterwards the port is back in callback `outer` at `irql`."""
        request.stage = STARTED
        entered = self._start_irql
        self.callback, self.irql = START_IO, entered
        try:
            if not self.edge.hw_start_io(request.handed) and request.state == ISSUED:
                # ST-07: what Windows does then is not documented; here it stays the miniport's, until it times out.
                self.finding("ST-07", "hw_start_io returned FALSE without completing the SRB", request)
        except Exception as error:
            self._crashed_with(error, request)
        if self.unsettled:
            self.leave(START_IO, entered, request)
        self.callback, self.irql = outer, irql

    def _hold_built(self, request: StorRequest) -> None:
        """QD-07: BuildIo itself made the miniport pause; the started half waits. Resets go through."""
        unit = request.unit
        assert unit is not None
        request.stage = BUILT
        if request.state != ISSUED:
            return
        srb, gates = request.srb, (unit.gates | self.gates.closed) & HOLDING
        passes_lock = gates == LOCKED and srb.srb_flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI or passes_lock:
            self._start_built(request)
        else:
            unit.built.append(request)

    def _start_built(self, request: StorRequest) -> None:
        """The second half of a request that was built earlier."""
        if request.state != ISSUED:
            return
        unit = request.unit
        assert unit is not None
        if next(iter(unit.active)) is request:
            self.ledger.restart_timeout(unit)  # its time starts now (ER-09)
        self._start_io(request, self.callback, self.irql)

    def _crashed_with(self, error: Exception, request: StorRequest) -> None:
        """An exception in BuildIo or StartIo."""
        self.crashed(error, request)
        self.fail_started(request)

    def leave(self, callback: int, irql: int, request: Request | None) -> None:
        """IN-03, LK-03, LK-05."""
        super().leave(callback, irql, request)
        self.locks.leave(callback, irql, request)

    # -- other processors ----------------------------------------------------------------------------------------

    def other_processors(self) -> None:
        """`interleave`: at a service call of BuildIo or StartIo, run what Windows could run on another processor now.

        Only while this processor's callback holds no lock of its own, so that the other one never has to wait.
        """
        every = self.gates.options.interleave
        if not every or self.nested or self.callback not in (BUILD_IO, START_IO) or self.locks.held:
            return
        self.service_calls += 1
        if self.service_calls % every:
            return
        outer = self.callback
        self.nested += 1
        self.in_start_io += outer == START_IO
        locks, charged, unsettled = self.locks.swap([], []), self.charged, self.unsettled
        self.charged, self.unsettled = 0, False
        try:
            # ST-10: in full duplex the interrupt may come in the middle of StartIo; BuildIo holds no lock at all.
            if self.interrupt_pending and not (outer == START_IO and self.locks.table.half_duplex):
                self.count("interrupts beside a start-I/O")
                self.interrupt()
            # ST-04, ST-11: another request may be built, and started if the StartIo lock is not taken.
            for unit in self.gates.units:
                if unit.queue and not (unit.gates | self.gates.closed) & HOLDING:
                    if len(unit.active) < unit.depth and self.ledger.outstanding < self.gates.max_io:
                        self.count("requests beside another's start-I/O")
                        self.dispatch(unit.queue.popleft())
                    break
        finally:
            self.locks.swap(*locks)
            self.charged, self.unsettled = charged, unsettled
            self.in_start_io -= outer == START_IO
            self.nested -= 1

    def no_channel_free(self) -> bool:
        """ST-11: other processors are in StartIo, as many as may be."""
        return self.in_start_io >= self.locks.table.channels and not self.info.virtual_device

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
        if self.messages.granted:
            self._service_message()
        else:
            self.service_interrupt()

    def _service_message(self) -> None:
        """The lowest message that waits. IN-08."""
        chip, messages = self.chip, self.messages
        message = chip.next_message()
        if message >= 0:
            messages.current = message
            returned, mine = self.run_isr(self.edge.hw_msi_interrupt, message)
            messages.served[message] += 1
            if returned:
                messages.returned(message, mine)
        self.interrupt_pending = chip.message_waits()

    def dpc(self) -> None:
        self.ledger.due = False
        if self.dpcs:
            self._run_dpcs()
        if self.resets.steps:
            self._take_reset_steps()
        if self.ledger.finished:
            self._retire()
        if self.gates.look_at_all:
            self._pump_all()

    def _run_dpcs(self) -> None:
        """PF-04: the miniport's DPCs run as soon as the processor is below DIRQL again."""
        for _ in range(len(self.dpcs)):
            dpc, argument1, argument2 = self.dpcs.popleft()
            dpc.queued = False
            self.call(DPC, DISPATCH_LEVEL, None, dpc.routine, dpc, argument1, argument2)

    def _retire(self) -> None:
        """What came back: out of the counts, gates counted down, another try for what was busy, up with the rest
        together; then units get what has become free."""
        if self.resets.holders:
            self._check_resets()
        gates = self.gates
        finished, had = self.retired()
        more: list[StorUnit] = []  # units with requests that wait
        kept: set[StorRequest] = set()
        for request in had:
            unit = request.unit
            assert unit is not None
            if (gates.closed | unit.gates) & HOLDING:
                gates.completed(unit)
            if request.srb.srb_status != SRB_STATUS_SUCCESS:
                if self._came_back_busy(request):
                    kept.add(request)
                else:
                    self._failed(request, unit)
            if unit.queue and unit not in more:
                more.append(unit)
        if kept:
            finished = [request for request in finished if request not in kept]
        if finished:
            self.complete_up(finished)
        for unit in more:
            if gates.waiting:
                gates.wait_for_adapter(unit)
            else:
                self.pump(unit)
        if gates.waiting:
            self._take_turns()
        if had and gates.closed & CAPPED:
            gates.wake()  # QD-11: what completed may have held other units' requests

    def _check_resets(self) -> None:
        """RS-02: what a reset should have ended and did not is taken back, and goes up before the reset does."""
        ledger = self.ledger
        for request in list(ledger.finished):
            unit = request.unit
            if request.srb.function in RESETS and unit is not None and request in unit.active:
                if self.resets.check_scope(request):
                    ledger.finished.remove(request)
                    ledger.notify(request)  # behind what the reset left over
                self.resets.let_go(request)

    def _came_back_busy(self, request: StorRequest) -> bool:
        srb = request.srb
        return (
            srb.scsi_status in (SCSISTAT_BUSY, SCSISTAT_QUEUE_FULL)
            or srb.srb_status & SRB_STATUS_MASK in (0x05, SRB_STATUS_LINK_DOWN)
        ) and self.flow.retry(request)

    def _failed(self, request: StorRequest, unit: StorUnit) -> None:
        """Bookkeeping for what does not end well. Not hot."""
        srb = request.srb
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

    # == time, resets, life =======================================================================================

    def tick(self) -> None:
        for unit in self.expired_units():
            self.resets.timed_out(unit)

    def needs_tick(self) -> bool:
        return self.ledger.outstanding > 0 or any(unit.queue for unit in self.gates.units)

    def drop_queues(self) -> list[StorRequest]:
        queued = self.gates.take_queues()
        self.flow.reset()
        queued += self.resets.forget()
        self.timer.cancel()
        self.dpcs.clear()
        self.gates.open_all()
        return queued

    def reset_adapter(self) -> None:
        """See `PortDriver`. The miniport resets its adapter first, so what it has comes back from it."""
        if self.started and self.callback == NO_CALLBACK:
            for abort in self.resets.forget():  # nothing is left to recover: no step follows the one under way
                self.ledger.answer(abort, SRB_STATUS_BUS_RESET)
            for path in range(self.info.number_of_buses):
                self.reset_bus(path)
        super().reset_adapter()

    def unload(self) -> None:
        """Virtual miniports hear of the end (HW_FREE_ADAPTER_RESOURCES)."""
        if self.info.virtual_device:
            self.call(FREE_RESOURCES, PASSIVE_LEVEL, None, self.miniport.hw_free_adapter_resources)

    # -- what the PnP and power managers need --------------------------------------------------------------------

    def hold_all(self, hold: bool) -> None:
        if hold:
            self.gates.close(STOPPED)
        else:
            self.gates.open(STOPPED)

    def give_up_outstanding(self, srb_status: int) -> None:
        for abort in self.resets.forget():  # no step follows to hardware that is gone
            self.ledger.answer(abort, srb_status)
        super().give_up_outstanding(srb_status)

    def take_waiting(self, unit: PortUnit | None) -> list[StorRequest]:
        return self.gates.take_queues(None if unit is None else lambda other: other is unit)

    def tell_unit_removed(self, unit: PortUnit, surprise: bool) -> tuple[str, str]:
        assert isinstance(unit, StorUnit)
        return self.power.unit_removed(unit, surprise)

    def tracing_enabled(self, enabled: bool) -> bool:
        self.call(TRACING_ENABLED, PASSIVE_LEVEL, None, self.miniport.hw_tracing_enabled, enabled)
        return True

    def stuck(self) -> list[tuple[str, str, str]]:
        """Queues that stand still, with the gate that holds them."""
        found: list[tuple[str, str, str]] = []
        limit = self.gates.options.stuck_after * S
        now = self.clock.now()
        of_all, units = self.gates.closed, self.gates.units
        for unit in units:
            gates = (unit.gates | of_all) & HOLDING
            if not gates or not (unit.queue or unit.built):
                continue
            since = min(unit.since if unit.gates & HOLDING else now, self.gates.since if of_all & HOLDING else now)
            if not unit.built:
                since = max(since, unit.waiting_since)
            if now - since > limit:
                reasons = ", ".join(gate_names(gates))
                rule = "Q-11" if gates & LOCKED else "QD-07"
                waiting = len(unit.queue) + len(unit.built)
                found.append((rule, unit.name, f"LU {unit.name}: {waiting} requests wait, {reasons}"))
        return found

    def unit_snapshot(self, unit: StorUnit, now: int) -> dict[str, object]:
        result = super().unit_snapshot(unit, now)
        blocked = gate_names(unit.gates | self.gates.closed)
        if len(unit.active) >= unit.depth:
            blocked.append(f"queue depth {unit.depth} reached")
        elif unit.queue and self.ledger.outstanding >= self.gates.max_io:
            blocked.append(f"the adapter's {self.gates.max_io} requests are outstanding")
        result |= {
            "queued": len(unit.queue) + len(unit.built),
            "queue": [snapshot(request, now) for request in list(unit.queue)[:32]],
            "depth": unit.depth,
            "powered": unit.powered,
            "blocked_by": blocked,
        }
        return result

    def adapter_snapshot(self) -> dict[str, object]:
        return {
            "state": self.pnp.state,
            "held_by": gate_names(self.gates.closed),
            "max_number_of_io": self.gates.max_io,
            "half_duplex": self.locks.table.half_duplex,
            "channels": self.perf.channels,
            "messages": list(self.messages.served),
            "perf_flags": flag_names(self.perf.flags),
            "map_buffers": MAP_BUFFERS_NAMES[self.mapper.mode] if self.started else None,
            "recoveries": len(self.resets.recoveries),
        }
