"""What both port models have in common: the upper edge, interrupts and DPCs, time-outs, the life of the adapter.

The parts below it: `hba.port.reports` (what runs, what is said of it), `hba.port.callbacks` (calling the miniport),
`hba.port.ledger` (who has a request), and the instruments at the boundaries (`hba.port.watcher`, `hba.miniport.proxy`).
Nothing below it knows it.

A request's way, each step with one body, whatever stands at the boundaries:

    submit_all -> enqueue (the model: now, or later) -> the model's start -> hw_start_io
    notification -> returned -> dpc -> the model's retire -> complete_up

One rule shapes all of it: **no callback is ever entered from inside another** (unless a model says so). What a
miniport tells the port (`notification`) and what its chip raises (`interrupt`) while a callback runs is only noted;
`run` acts on it after the callback has returned: first the interrupt, then the DPC. Completions go up from the DPC.
`run` is a loop, never a recursion: an adapter that submits from a completion finds `running` set and only queues.

A model (`hba.port.scsiport.driver`, `hba.port.storport.driver`) fills in:

    preset(info)        the configuration as the port hands it to hw_find_adapter
    configured(info)    checks and freezes what came back
    new_unit(...)       its own kind of `PortUnit`
    enqueue(request)    a request for the miniport: queue it, start it if that is possible at once
    dpc()               one round of deferred work; sets `ledger.due` again if there is more
    interrupt()         deliver the chip's interrupt
    drop_queues()       forget holds, freezes, locks, timers and queues
    stuck()             which queues stand still, and why
    tick()              once a second while something is outstanding
    control(request)    functions the model answers itself or passes on in its own way
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from hba.clock import S, Timer
from hba.errors import ConfigError
from hba.loop import EventLoop
from hba.miniport.base import (
    SCSI_ADAPTER_PO_FX_POWER_ACTIVE,
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_STOP_ADAPTER,
    SP_RETURN_FOUND,
    Miniport,
    SupportedControlTypes,
)
from hba.miniport.chip import Chip
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.extension import Extension
from hba.port.callbacks import Callbacks
from hba.port.config import PortConfig
from hba.port.context import ADAPTER_CONTROL as ADAPTER_CONTROL_CALLBACK
from hba.port.context import (
    DIRQL,
    DISPATCH_LEVEL,
    FIND_ADAPTER,
    HIGH_LEVEL,
    INITIALIZE,
    INTERRUPT,
    NO_CALLBACK,
    PASSIVE_LEVEL,
    TIMER,
)
from hba.port.dump import Dump
from hba.port.ledger import Ledger
from hba.port.memory import MOST_EXTENSION, PortMemory
from hba.port.pnp import Pnp, Told
from hba.port.request import ALL, ISSUED, STATE_NAMES, PortUnit, RequestOf, SrbState, in_words, snapshot
from hba.port.timer import MiniportTimer
from hba.port.transfers import Train, TransferLimits, shape
from hba.srb import (
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_MASK,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_NO_HBA,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    SRB_STATUSES,
    Srb,
    is_srb,
)

log = logging.getLogger("hba.port")

# Of hw_adapter_control; PASSIVE_LEVEL for all other types.
IRQL_OF_CONTROL = {
    SCSI_STOP_ADAPTER: DIRQL,
    SCSI_RESTART_ADAPTER: DIRQL,
    SCSI_ADAPTER_PO_FX_POWER_ACTIVE: DISPATCH_LEVEL,
}

U = TypeVar("U", bound=PortUnit)


class PortBase(Callbacks, Generic[U]):
    """See the module. Attributes are public to the modules of this package only."""

    def __init__(
        self, loop: EventLoop, miniport: Miniport, chip: Chip, config: PortConfig, timer_resolution: int
    ) -> None:
        super().__init__(loop, miniport, chip, config)
        self.info = PortConfigurationInformation()
        self.memory = PortMemory(chip)
        self.units: dict[int, U] = {}  # by path << 16 | target << 8 | lun
        self.ledger: Ledger[U] = Ledger(self.clock, config.default_timeout, self, self._begin_tick)
        self.limits = TransferLimits()
        self.started = False
        self.running = False  # `run` is on the stack
        self.interrupt_pending = False
        self.interrupts_held = False  # deferred: not delivered for now
        self.interrupts_in_a_row = 0
        self.served = 0  # interrupts served, for `shared_interrupt_every`
        self.tick_timer: Timer | None = None
        self.control_types: list[bool] = []
        self.library: Any = None  # what the miniport gets as `self.port`
        self.timer = MiniportTimer(self.clock, timer_resolution, self._timer_expired)
        self.control_type = SCSI_QUERY_SUPPORTED_CONTROL_TYPES  # what hw_adapter_control was called for last
        self.pnp = Pnp(self)
        self.waiters: list[tuple[Callable[[], bool], Callable[[], None]]] = []  # see `when`
        self.on_bus_change: Callable[[int], None] | None = None  # BusChangeDetected, with the path: who is above
        self.dump: Dump | None = None  # it serves a dump: set before it is started
        self.kept: list[Srb] | None = None  # since `crash`: what came from above

    @property
    def outstanding(self) -> int:
        """Requests the miniport owns."""
        return self.ledger.outstanding

    @property
    def idle(self) -> bool:
        ledger = self.ledger
        return not (ledger.outstanding or ledger.finished or self.running or ledger.due)

    # == the upper edge ===========================================================================================

    def submit_all(self, srbs: Sequence[Srb]) -> None:
        """A batch, which the chip executes together; a single request is a batch of one, executed at once."""
        if self.kept is not None:
            self.kept += srbs
            return
        together = len(srbs) > 1
        if together:
            self.chip.plug()
        try:
            ledger = self.ledger
            requests = ledger.admit(srbs)
            for watcher in self.watchers:
                watcher.submitted(requests, "")
            limits = self.limits
            for request in requests:
                srb = request.srb
                unit = request.unit = self.units.get(srb.path_id << 16 | srb.target_id << 8 | srb.lun)
                if (unit is None or not self.started) and not self._find_unit(request):
                    pass  # answered
                elif srb.function != SRB_FUNCTION_EXECUTE_SCSI:
                    self.control(request)
                elif (
                    (data := srb.mdl) is None
                    or (data.length <= limits.sure_length and len(data.segments) <= limits.sure_segments)
                    or not self._in_parts(request)
                ):
                    self.enqueue(request)
                if (ledger.due or self.interrupt_pending) and not self.running:
                    self.run()
        finally:
            if together:
                self.chip.unplug()

    def _find_unit(self, request: RequestOf[U]) -> bool:
        """Q-17: an address the adapter cannot have never reaches the miniport. Units are made when first addressed."""
        srb, info = request.srb, self.info
        if not self.started:
            self.ledger.answer(request, SRB_STATUS_NO_HBA)
            return False
        path, target, lun = srb.path_id, srb.target_id, srb.lun
        # OW-09: a bus reset has only a path, a target reset no LUN. OW-10: LUN FF means all units, it is no address.
        if srb.function == SRB_FUNCTION_RESET_BUS:
            target, lun = 0, 0
        elif srb.function == SRB_FUNCTION_RESET_DEVICE:
            lun = 0
        if not (
            0 <= path < info.number_of_buses
            and 0 <= target < info.maximum_number_of_targets
            and 0 <= lun < info.maximum_number_of_logical_units
            and lun != ALL
        ):
            self.ledger.answer(request, SRB_STATUS_NO_DEVICE)
            return False
        request.unit = self.unit_at(path, target, lun)
        return True

    def unit_at(self, path: int, target: int, lun: int) -> U:
        """The unit with a valid address; made on first use."""
        key = path << 16 | target << 8 | lun
        unit = self.units.get(key)
        if unit is None:
            unit = self.units[key] = self.new_unit(path, target, lun)
            if self.info.specific_lu_extension_size:
                unit.extension = Extension()
        return unit

    def _in_parts(self, request: RequestOf[U]) -> bool:
        """True: the request was taken apart, copied or refused here. False: it is fine as it is."""
        train = shape(self.limits, request)
        if train is None:
            return False
        self.count(train.what)
        self._next_part(request, train)
        return True

    def _next_part(self, request: RequestOf[U], train: Train) -> None:
        srb = train.next_part()
        if srb is None:
            self.ledger.answer(request, train.end())
        else:
            srb.completion = lambda done: self._part_done(request, train, done)
            self.enqueue(self.ledger.own(srb, request.unit, f"part of #{request.number}"))

    def _part_done(self, request: RequestOf[U], train: Train, part: Srb) -> None:
        train.part_done(part)
        self._next_part(request, train)

    def complete_up(self, requests: Sequence[RequestOf[U]]) -> None:
        """Hand finished requests to who made them, in order; only from `dpc` or when nothing of the miniport runs."""
        for watcher in self.watchers:
            watcher.completed(requests)
        srbs = self.ledger.complete(requests)
        one = self._one
        for srb in srbs:
            if srb.completion is not one:
                break
        else:
            if one is not None:
                self._many(srbs)
                return
        for srb in srbs:
            if srb.completion is not None:
                srb.completion(srb)

    def outcome(self, state: SrbState) -> str:
        """For the trace: how a request ended that was in this state then."""
        return in_words(state)

    # == back from the miniport ======================================================================================

    def returned(self, srb: Any) -> None:
        """notification(RequestComplete, srb): the port owns it again; it goes up in the DPC."""
        try:
            request: RequestOf[U] | None = srb._port
        except AttributeError:
            request = None
        for watcher in self.watchers:
            watcher.returning(request)
        if request is None or request.state != ISSUED:
            self.stranger(srb, "OW-02")  # ignored
            return
        for watcher in self.watchers:
            watcher.judge(request)
        srb = request.srb
        if (
            srb.srb_status != SRB_STATUS_SUCCESS
            or srb.data_transfer_length > request.length_at_issue
            or srb.sense_info_buffer_length > request.sense_at_issue
        ):
            self.set_right(request)
        self.ledger.notify(request)
        if self.callback == NO_CALLBACK:
            self.run_later()

    def set_right(self, request: RequestOf[U]) -> None:
        """What the port must not pass on: its own bit (Q-13), no status at all (OW-03), more data or sense data than
        there was room for (OW-06)."""
        srb = request.srb
        if srb.srb_status != SRB_STATUS_SUCCESS:
            srb_status = srb.srb_status & ~SRB_STATUS_QUEUE_FROZEN
            if srb_status & SRB_STATUS_MASK not in SRB_STATUSES:
                srb_status = SRB_STATUS_INTERNAL_ERROR
            srb.srb_status = srb_status
        if srb.data_transfer_length > request.length_at_issue:
            srb.data_transfer_length = request.length_at_issue
        if srb.sense_info_buffer_length > request.sense_at_issue:
            srb.sense_info_buffer_length = request.sense_at_issue

    def run_later(self) -> None:
        """Something was latched: if no callback is running that `run` follows, it comes on its own."""
        if self.callback == NO_CALLBACK and not self.running:
            self.loop.call_soon(self.run)

    def retired(self) -> tuple[list[RequestOf[U]], list[RequestOf[U]]]:
        """What has ended since the last time, and which of it the miniport has had. Out of the counts."""
        finished, had = self.ledger.retire()
        for watcher in self.watchers:
            watcher.retired(had)
        if self.memory.lends:
            self.memory.take_back(had)
        if self.waiters:
            self.loop.call_soon(self._look_at_waiters)
        return finished, had

    def stranger(self, srb: Any, rule: str) -> None:
        """OW-02 and others: what a miniport passed as `srb` is no request it owns."""
        if not is_srb(srb):
            self.offence(rule, f"{srb!r} is no SRB")
            return
        request: RequestOf[U] | None = srb._port
        state = "not the port's" if request is None else STATE_NAMES[request.state]
        self.count("double completions" if rule == "OW-02" else "stale SRBs")
        self.offence(rule, f"{self.doing()} an SRB the miniport does not own ({state})", request)

    def fail_started(self, request: RequestOf[U]) -> None:
        """hw_build_io or hw_start_io failed: the request ends, unless the chip has it (then it ends by itself)."""
        if request.state == ISSUED and not any(task.owner is request.handed for task in self.chip.active):
            self.ledger.take_back(request, SRB_STATUS_INTERNAL_ERROR)

    # == interrupts, DPCs ===========================================================================================

    def run(self) -> None:
        """Until nothing is left: the pending interrupt, then a round of DPC work. Never entered twice."""
        if self.running or self.callback != NO_CALLBACK:
            return
        self.running = True
        try:
            while True:
                if self.interrupt_pending and not self.interrupts_held:
                    self.interrupt()
                elif self.ledger.due:
                    self.dpc()
                else:
                    break
        finally:
            self.running = False

    def on_interrupt(self) -> None:
        """The chip raised its line. Delivered now, or when what runs lets interrupts through again (SP-05)."""
        if self.pnp.stopped:
            # RS-06, RS-07: a stopped adapter, or one whose interrupt is not connected yet, must be quiet.
            self.finding("RS-06", "the adapter interrupts although it was stopped")
            return
        self.interrupt_pending = True
        for watcher in self.watchers:
            watcher.interrupted(self.callback)
        if not self.running and self.callback == NO_CALLBACK and self.started:
            self.run()

    def service_interrupt(self) -> bool:
        """Run hw_interrupt once for the pending interrupt, at DIRQL; what it returned. For the models' `interrupt`."""
        self.interrupt_pending = False
        chip = self.chip
        caused = chip.asserted
        returned, mine = self.run_isr(self.edge.hw_interrupt)
        if returned:
            self._check_interrupt(caused, mine)
        if chip.asserted and chip.interrupts_enabled:
            # IN-02: a level-triggered line that is still up interrupts again at once.
            self.interrupts_in_a_row += 1
            if self.interrupts_in_a_row < self.options.interrupt_storm_limit:
                self.interrupt_pending = True
            else:
                self.count("interrupt storms")
                self.finding(
                    "IN-02",
                    f"the interrupt line is still asserted after {self.interrupts_in_a_row} calls of hw_interrupt"
                    f" (last returned {mine!r}); left alone until it is raised again",
                )
                self.interrupts_in_a_row = 0
                self.interrupt_pending = False  # also what was raised meanwhile, or it would go on for ever
        else:
            self.interrupts_in_a_row = 0
        return bool(mine)

    def run_isr(self, routine: Callable[..., object], *arguments: object) -> tuple[bool, object]:
        """Call an interrupt routine, at DIRQL; whether it returned, and what (which may be anything)."""
        outer, irql, charged, unsettled = self.callback, self.irql, self.charged, self.unsettled
        self.callback, self.irql, self.charged, self.unsettled = INTERRUPT, self.dirql, 0, False
        mine: object = False
        returned = False
        try:
            mine = routine(*arguments)
            returned = True
        except Exception as error:
            self.crashed(error, None)
        finally:
            if self.unsettled:
                self.leave(INTERRUPT, self.dirql, None)
            self.callback, self.irql, self.charged, self.unsettled = outer, irql, charged, unsettled
        return returned, mine

    def _check_interrupt(self, caused: bool, mine: object) -> None:
        if mine and not caused:
            self.finding("IN-01", "hw_interrupt returned True although the adapter's line was not asserted")
        elif caused and not mine and not self.chip.asserted:
            self.finding(
                "IN-01", "hw_interrupt dismissed the adapter's interrupt and returned False", severity="warning"
            )
        every = self.options.shared_interrupt_every
        if every:
            self.served += 1
            if self.served % every == 0:
                self.inject_shared_interrupt()

    def inject_shared_interrupt(self) -> None:
        """IN-01: call hw_interrupt as another device on a shared line would, while ours is quiet."""
        if self.chip.asserted:
            return
        self.count("shared interrupts injected")
        mine = self.call(INTERRUPT, DIRQL, False, self.miniport.hw_interrupt)
        if mine:
            self.finding("IN-01", "hw_interrupt claimed an interrupt of another device on the shared line")

    # == time =======================================================================================================

    def _begin_tick(self) -> None:
        self.tick_timer = self.clock.call_later(S, self._ticked)

    def _end_tick(self) -> None:
        if self.tick_timer is not None:
            self.tick_timer.cancel()
            self.ledger.watched = False

    def _ticked(self) -> None:
        self.ledger.watched = False
        if not self.started:
            return
        if self.running or self.callback != NO_CALLBACK:
            self.loop.call_soon(self._ticked)
            return
        self.tick()
        if self.chip.asserted and self.chip.interrupts_enabled:
            self.interrupt_pending = True  # left alone after a storm: another try each second
        self.report_stuck()
        self.run()
        if self.needs_tick():
            self.ledger.watch()

    def expired_units(self) -> list[U]:
        """Units whose oldest request is overdue by now: one second is taken off each running time-out (ER-09)."""
        expired = []
        for unit in self.units.values():
            if unit.timeout_left > 0:
                unit.timeout_left -= 1
                if unit.timeout_left == 0:
                    unit.timeout_left = -1
                    expired.append(unit)
        return expired

    def _timer_expired(self) -> None:
        """RequestTimerCall. Never while another callback runs: the timer and the interrupt exclude each other."""
        if self.running or self.callback != NO_CALLBACK:
            self.loop.call_soon(self._timer_expired)
            return
        routine = self.timer.take()
        if routine is not None and self.started:
            self.call(TIMER, self.irql_of(TIMER), None, routine)
            self.run()

    def report_stuck(self) -> None:
        """Each reason why a queue stands still for too long, once."""
        for rule, where, message in self.stuck():
            if (rule, where) not in self.reported_stuck:
                self.reported_stuck.add((rule, where))
                self.finding(rule, message)

    # == life of the adapter ========================================================================================

    def start(self) -> None:
        miniport, chip = self.miniport, self.chip
        miniport.chip = chip
        miniport.port = self.library
        dump = self.dump
        if dump is None:
            chip.on_interrupt = self.on_interrupt
        else:  # DM-01
            chip.on_interrupt = None
            self.least_irql = self.dirql = HIGH_LEVEL
        self.units.clear()
        self.memory.clear()
        self._attach()
        if dump is not None:
            dump.initialized(self, chip)

    def _attach(self) -> None:
        """HwFindAdapter and HwInitialize."""
        miniport = self.miniport
        for watcher in self.watchers:
            watcher.attached()
        self.library.begin()
        info = self.info = PortConfigurationInformation()
        self.preset(info)
        if self.dump is not None:
            self.dump.marks = self.sends_power  # Storport
            self.dump.preset(info)
        returned = self.call(FIND_ADAPTER, PASSIVE_LEVEL, -1, miniport.hw_find_adapter, info)
        if returned != SP_RETURN_FOUND:
            raise ConfigError(
                f"the miniport {type(miniport).__name__} does not accept its adapter: hw_find_adapter returned "
                f"{returned}, not SP_RETURN_FOUND (1){self._crash_hint()}"
            )
        self.configured(info)
        self.memory.make_extensions(self._checked_size(info))
        self.limits = TransferLimits.of(info, self.options)
        for watcher in self.watchers:
            watcher.configured(info)
        if self.dump is not None:
            self.dump.found(self, self.memory)
        self._initialize()
        if self.dump is None:
            self._query_control_types()

    def _checked_size(self, info: PortConfigurationInformation) -> int:
        size = info.srb_extension_size
        if not 0 <= size <= MOST_EXTENSION:
            raise ConfigError(
                f"the miniport {type(self.miniport).__name__} sets SrbExtensionSize {size}; expected bytes, at most "
                f"{MOST_EXTENSION}"
            )
        return size

    def _initialize(self) -> None:
        self.started = True
        if not self.call(INITIALIZE, DIRQL, False, self.miniport.hw_initialize):
            self.started = False
            raise ConfigError(
                f"the miniport {type(self.miniport).__name__} cannot initialise its adapter: hw_initialize returned "
                f"False{self._crash_hint()}"
            )
        self.run()

    def _crash_hint(self) -> str:
        return f"; {self.last_crash}" if self.last_crash else ""

    def _query_control_types(self) -> None:
        """RS-05: which adapter control types the miniport declares. The list ends where it ends: writing past it is
        contained and reported like any other access outside."""
        most = self.control_type_list
        types = SupportedControlTypes(most)
        self.control_type = SCSI_QUERY_SUPPORTED_CONTROL_TYPES
        self.call(
            ADAPTER_CONTROL_CALLBACK,
            PASSIVE_LEVEL,
            1,
            self.miniport.hw_adapter_control,
            SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
            types,
        )
        if types.beyond:
            self.finding("RS-05", f"hw_adapter_control wrote beyond its list of {most} types: {types.beyond}")
        types[SCSI_QUERY_SUPPORTED_CONTROL_TYPES] = True
        self.control_types = types.supported

    def declares(self, control_type: int) -> bool:
        """RS-05: whether the miniport has said that it knows this adapter control type."""
        return control_type < len(self.control_types) and self.control_types[control_type]

    def adapter_control(self, control_type: int, parameters: object = None) -> bool:
        """Call hw_adapter_control for a type it declared (RS-05). False: not declared, or it failed."""
        if not self.declares(control_type):
            return False
        self.control_type = control_type
        irql = IRQL_OF_CONTROL.get(control_type, PASSIVE_LEVEL)
        routine = self.miniport.hw_adapter_control
        return self.call(ADAPTER_CONTROL_CALLBACK, irql, 1, routine, control_type, parameters) == 0

    def reset_adapter(self) -> None:
        """See `PortDriver`. Also what recovers from a miniport that lost everything."""
        self.count("adapter resets")
        self.note(None, "reset_adapter")
        self._give_up_everything(SRB_STATUS_BUS_RESET)
        if not self.started or self.pnp.stopped:
            return  # a stopped miniport is told nothing until it is started again
        try:
            self._initialize()
        except ConfigError as error:
            log.error("after the adapter was reset: %s", error)

    def stop(self) -> None:
        """See `PortDriver`. Nothing waits here: in an orderly end `pnp.shut_down` has gone before."""
        if self.kept is not None:
            self._give_up_everything(SRB_STATUS_ABORTED)
            self.kept = self.chip.on_interrupt = None
            self._end_tick()
            return
        if not self.started:
            return
        self.note(None, "stop")
        self._give_up_everything(SRB_STATUS_ABORTED)
        if not self.pnp.stopped:
            # RS-06: FLUSH goes before, and nothing is outstanding when the miniport is stopped.
            if self.info.caches_data:
                for unit in self.known_units():
                    self.pass_down(Srb(SRB_FUNCTION_FLUSH, unit.path, unit.target, unit.lun))
                self._give_up_everything(SRB_STATUS_ABORTED)
            self.adapter_control(SCSI_STOP_ADAPTER)
            self.adapter_control(SCSI_SET_BOOT_CONFIG)
        self.started = False
        self.pnp.forget()
        self.chip.on_interrupt = None
        self._end_tick()

    def _give_up_everything(self, srb_status: int) -> None:
        """Everything outstanding and queued goes up with `srb_status`, the chip forgets its commands."""
        chip = self.chip
        chip.on_interrupt = None  # its interrupts mean nothing any more
        chip.reset_bus()
        chip.quiet()
        self.interrupt_pending = False
        self.interrupts_held = False
        for unit in self.units.values():
            for request in list(unit.active):
                if request.state == ISSUED:
                    self.ledger.take_back(request, srb_status)
        for request in self.drop_queues():
            self.ledger.answer(request, srb_status)
        if self.kept:
            kept, self.kept = self.kept, []
            for request in self.ledger.admit(kept):
                self.ledger.answer(request, srb_status)
        self.reported_stuck.clear()
        while self.ledger.finished:  # what goes up may ask for more
            finished, _ = self.retired()
            self.complete_up(finished)
        chip.on_interrupt = self.on_interrupt
        if self.pnp.holding:
            self.hold_all(True)  # what comes from now on waits as before

    # -- a crash (`hba.port.dump`) ----------------------------------------------------------------------------------

    def crash(self) -> None:
        """The machine has crashed: nothing of the miniport runs any more, and nobody takes from the adapter what it
        still does. What comes from above waits for `recover`."""
        self.note(None, "crash")
        self.started = False
        self.kept = []
        self.chip.on_interrupt = None
        if self.chip.windows is not None:
            self.chip.windows.abandon()
        for task in (*self.chip.active, *self.chip.completed):
            task.owner = None

    def recover(self) -> None:
        """The machine has booted again: what was under way ends with BUS_RESET, the miniport finds its adapter anew.
        Raises `ConfigError` when it does not."""
        if self.kept is None:
            return  # it was stopped meanwhile
        kept, self.kept = self.kept, None
        self._give_up_everything(SRB_STATUS_BUS_RESET)
        try:
            self.begin_again()
        finally:
            self.submit_all(kept)

    def poll(self) -> None:
        """DM-01: interrupts are off, whoever waits for a request has hw_interrupt called."""
        self.interrupt_pending = True
        self.run()

    # -- what the PnP and power managers need (`hba.port.pnp`) -------------------------------------------------------

    def when(self, condition: Callable[[], bool], then: Callable[[], None]) -> None:
        """Call `then` as soon as `condition` holds: now, or when requests have retired."""
        if condition():
            then()
        else:
            self.waiters.append((condition, then))

    def _look_at_waiters(self) -> None:
        due = [then for condition, then in self.waiters if condition()]
        self.waiters = [waiter for waiter in self.waiters if waiter[1] not in due]
        for then in due:
            then()

    def known_units(self) -> list[U]:
        """Units that have answered something."""
        return [unit for unit in self.units.values() if unit.completed]

    def end_waiting(self, srb_status: int, unit: PortUnit | None = None) -> None:
        """What waits for a unit, or for any, ends with `srb_status`."""
        for request in self.take_waiting(unit):
            self.ledger.answer(request, srb_status)
        self.run()

    def give_up_outstanding(self, srb_status: int) -> None:
        """The hardware is gone: what the miniport has ends with `srb_status`, the chip forgets its commands."""
        chip = self.chip
        chip.on_interrupt = None
        for unit in self.units.values():
            for request in list(unit.active):
                if request.state == ISSUED:
                    self.ledger.take_back(request, srb_status)
        chip.reset_bus()
        chip.completed.clear()
        chip.acknowledge()
        self.interrupt_pending = False
        self.run()

    def begin_again(self) -> None:
        """HwFindAdapter and HwInitialize of an adapter that was stopped; units and what waits for them stay. Raises
        `ConfigError`."""
        self.chip.on_interrupt = self.on_interrupt
        self.memory.clear()
        self._attach()

    def knows(self, path: int, target: int, lun: int) -> bool:
        """Whether a unit was addressed here, and not forgotten since."""
        return (path << 16 | target << 8 | lun) in self.units

    def remove_unit(self, path: int, target: int, lun: int, surprise: bool, told: Told) -> None:
        """A unit is taken out (RS-08); one the port does not know is nothing to be told of."""
        unit = self.units.get(path << 16 | target << 8 | lun)
        if unit is None:
            told([])
        else:
            self.pnp.remove_unit(unit, surprise, told)

    def forget_unit(self, unit: PortUnit) -> None:
        self.units.pop(unit.path << 16 | unit.target << 8 | unit.lun, None)

    def forget_units(self) -> None:
        self.units.clear()

    def tell_unit_removed(self, unit: PortUnit, surprise: bool) -> tuple[str, str]:
        """The callback a model has for it, and how it ended; two empty words without one."""
        return "", ""

    def quiesce(self, request: RequestOf[U]) -> None:
        """QUIESCE_DEVICE: ends when nothing of the unit is outstanding."""
        unit = request.unit
        assert unit is not None

        def quiet() -> None:
            self.ledger.answer(request, SRB_STATUS_SUCCESS)
            self.run()

        self.when(lambda: not unit.active, quiet)

    def tracing_enabled(self, enabled: bool) -> bool:
        """HwStorTracingEnabled; False: the model has no such routine."""
        return False

    def bus_changed(self, path: int) -> None:
        """BusChangeDetected: whoever is above looks at the bus anew, later."""
        if self.on_bus_change is not None:
            self.loop.call_soon(partial(self.on_bus_change, path))

    def snapshot(self) -> dict[str, object]:
        now = self.clock.now()
        return {
            "model": self.model,
            "started": self.started,
            "outstanding": self.ledger.outstanding,
            "counters": dict(self.counters),
            "last_crash": self.last_crash,
            "stuck": [message for _, _, message in self.stuck()],
            "configuration": {name: _told(getattr(self.info, name)) for name in self.info.__dataclass_fields__},
            "adapter": self.adapter_snapshot(),
            "units": [self.unit_snapshot(unit, now) for unit in self.units.values()],
        }

    def unit_snapshot(self, unit: U, now: int) -> dict[str, object]:
        return {
            "address": unit.name,
            "locked": unit.locked_at is not None,
            "outstanding": [snapshot(request, now) for request in unit.active],
            "started": unit.started,
            "completed": unit.completed,
            "timeout_left": unit.timeout_left,
        }

    # == what a model fills in ======================================================================================

    control_type_list: int  # MaxControlType of hw_adapter_control's list (RS-05)
    sends_power: bool  # POWER and PNP requests go to the miniport

    @abstractmethod
    def hold_all(self, hold: bool) -> None:
        """Requests wait in their queues, or no longer; what the port passes down itself does not."""

    @abstractmethod
    def pass_down(self, srb: Srb) -> None:
        """A request of the port's own, to the miniport whatever holds its unit."""

    @abstractmethod
    def take_waiting(self, unit: PortUnit | None) -> list[RequestOf[U]]:
        """Remove and return what waits for a unit, or for any."""

    @abstractmethod
    def preset(self, info: PortConfigurationInformation) -> None: ...

    @abstractmethod
    def configured(self, info: PortConfigurationInformation) -> None: ...

    @abstractmethod
    def new_unit(self, path: int, target: int, lun: int) -> U: ...

    @abstractmethod
    def enqueue(self, request: RequestOf[U]) -> None: ...

    @abstractmethod
    def control(self, request: RequestOf[U]) -> None: ...

    @abstractmethod
    def dpc(self) -> None: ...

    @abstractmethod
    def interrupt(self) -> None: ...

    def irql_of(self, callback: int) -> int:
        """At which it is called."""
        return DIRQL

    @abstractmethod
    def tick(self) -> None: ...

    @abstractmethod
    def needs_tick(self) -> bool:
        """Whether the tick has to go on."""

    @abstractmethod
    def drop_queues(self) -> list[RequestOf[U]]:
        """For an adapter reset or stop: forget all holds, freezes, locks and timers; what was queued."""

    @abstractmethod
    def stuck(self) -> list[tuple[str, str, str]]:
        """(rule, what, message) for each queue that stands still for longer than `stuck_after`, by its reason."""

    @abstractmethod
    def adapter_snapshot(self) -> dict[str, object]: ...


def _told(value: object) -> object:
    """A member of the configuration as JSON has it: a routine is its name."""
    return getattr(value, "__qualname__", repr(value)) if callable(value) else value


AnyPort = PortBase[Any]  # of whatever model
