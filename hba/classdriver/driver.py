"""The class driver: a layer between the adapter and the port, with the same interface as the port.

    adapter -> ClassDriver.submit_all -> (sort key, time-out, flags) -> port
    port -> (release a frozen queue; try again, or) -> the adapter's completion

It stands there only when the configuration asks for it; without it the guest's requests go to the port as they come.
What Windows has above it is the guest here, so a request the guest has given up on (by an abort or a reset) is never
tried again, and the order of its tags stays what the guest says.

Sources: Storage Class Driver's BuildRequest, ReleaseQueue, RetryRequest and InterpretRequestSense Routines;
SCSI_REQUEST_BLOCK (QueueSortKey, TimeOutValue, SrbFlags). What they leave open is as in Microsoft's samples of classpnp
and disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hba.classdriver import commands, errors, srbs
from hba.classdriver.enumeration import FoundUnit, scan
from hba.classdriver.options import ClassDriverOptions
from hba.classdriver.srbs import Unit
from hba.clock import Timer
from hba.loop import EventLoop
from hba.port.base import AnyPort
from hba.port.driver import PortDriver
from hba.port.script import run
from hba.srb import (
    SRB_FLAGS_ADAPTER_CACHE_ENABLE,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_DISABLE_SYNCH_TRANSFER,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_SIMPLE_TAG_REQUEST,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_PENDING,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    Completion,
    Srb,
)

START_UNIT = bytes((0x1B, 0, 0, 0, 1, 0))
_FORCE_UNIT_ACCESS = 0x08  # byte 1 of a CDB of ten bytes and more
_RESETS = (SRB_FUNCTION_RESET_BUS, SRB_FUNCTION_RESET_DEVICE, SRB_FUNCTION_RESET_LOGICAL_UNIT)


class _Packet:
    """A request of the guest that is under way: what it was, and how often it has been tried."""

    __slots__ = (
        "action",
        "command",
        "completion",
        "direction",
        "given_up",
        "length",
        "retries",
        "room",
        "timer",
        "tried",
        "waiting",
    )

    def __init__(self, srb: Srb, command: commands.Command, retries: int) -> None:
        self.completion = srb.completion
        self.command = command
        self.retries = retries
        self.tried = 0
        self.length = srb.data_transfer_length
        self.room = srb.sense_info_buffer_length
        self.direction = srb.srb_flags & SRB_FLAGS_UNSPECIFIED_DIRECTION
        self.action = bool(srb.srb_flags & SRB_FLAGS_QUEUE_ACTION_ENABLE) and srb.queue_action != SRB_SIMPLE_TAG_REQUEST
        self.given_up = False  # by the guest
        self.waiting = False  # for its next try: not at the port
        self.timer: Timer | None = None  # until then


class ClassDriver(PortDriver):
    """One adapter's; `port` is what is below it. `found`: the units of the last enumeration."""

    def __init__(self, loop: EventLoop, port: AnyPort, options: ClassDriverOptions, io_timeout_value: int = 0) -> None:
        self.model = port.model
        self.port = port
        self.options = options
        self.found: dict[Unit, FoundUnit] = {}
        self.enumerations = 0
        self.counters: dict[str, int] = {}
        self._loop = loop
        self._time_out = io_timeout_value or options.time_out_value
        self._packets: dict[Srb, _Packet] = {}
        self._errors: dict[Unit, errors.UnitErrors] = {}
        self._scanning = False
        self._scan_again = False
        self._done_one: Completion = self._ended_alone  # the same object for every SRB
        port.complete_together(self._done_one, self._ended)
        port.on_bus_change = self._bus_changed

    # == life ======================================================================================================

    def start(self) -> None:
        self.port.start()
        self.found.clear()
        self._errors.clear()
        if self.options.enumerate:
            self.rescan()

    def reset_adapter(self) -> None:
        self._give_up(lambda srb: True, SRB_STATUS_BUS_RESET)
        self.port.reset_adapter()

    def stop(self) -> None:
        self._give_up(lambda srb: True, SRB_STATUS_ABORTED)
        self.port.stop()

    def unload(self) -> None:
        self.port.unload()

    @property
    def idle(self) -> bool:
        return not self._packets and self.port.idle

    def snapshot(self) -> dict[str, object]:
        return self.port.snapshot()

    # == down ======================================================================================================

    def submit_all(self, srbs: Sequence[Srb]) -> None:
        for srb in srbs:
            if srb.function == SRB_FUNCTION_EXECUTE_SCSI:
                command = commands.known(srb.cdb)
                retries = self.options.retries if command.retries == commands.READS_AND_WRITES else command.retries
                packet = self._packets[srb] = _Packet(srb, command, retries)
                srb.completion = self._done_one
                self._dress(srb, packet)
            elif srb.function in _RESETS:
                self._give_up(_scope(srb), SRB_STATUS_BUS_RESET)
            elif srb.function == SRB_FUNCTION_ABORT_COMMAND and self._aborted(srb):
                srbs = [other for other in srbs if other is not srb]
        self.port.submit_all(srbs)

    def _dress(self, srb: Srb, packet: _Packet) -> None:
        """What a class driver sets in an SRB. Reads and writes are tagged and freeze no queue, as long as their unit
        does well; other commands are untagged unless the guest wants an order."""
        command = packet.command
        srb.queue_sort_key = commands.sort_key(srb.cdb, command)
        srb.time_out_value = commands.time_out(srb.cdb, command, self._time_out)
        flags = packet.direction
        trouble = self._errors.get(_unit(srb))
        if command.transfer:
            if len(srb.cdb) < 10 or not srb.cdb[1] & _FORCE_UNIT_ACCESS:
                flags |= SRB_FLAGS_ADAPTER_CACHE_ENABLE
            if trouble is None or trouble.tagged:
                flags |= SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE
            else:
                flags |= SRB_FLAGS_DISABLE_SYNCH_TRANSFER
        else:
            flags |= SRB_FLAGS_DISABLE_SYNCH_TRANSFER | SRB_FLAGS_NO_QUEUE_FREEZE
            if packet.action:
                flags |= SRB_FLAGS_QUEUE_ACTION_ENABLE
        if trouble is not None and not trouble.disconnects:
            flags |= SRB_FLAGS_DISABLE_DISCONNECT
        srb.srb_flags = flags

    # == back ======================================================================================================

    def _ended_alone(self, srb: Srb) -> None:
        self._ended((srb,))

    def _ended(self, srbs: Sequence[Srb]) -> None:
        up: list[Srb] = []
        for srb in srbs:
            packet = self._packets[srb]
            if srb.srb_status == SRB_STATUS_SUCCESS:
                if self._errors and (trouble := self._errors.get(_unit(srb))) is not None:
                    trouble.success()
            elif self._again(srb, packet):
                continue
            self._release(srb)
            up.append(srb)
        self._hand_up(up)

    def _release(self, srb: Srb) -> None:
        srb.completion = self._packets.pop(srb).completion

    def _hand_up(self, srbs: Sequence[Srb]) -> None:
        one = self._one
        if one is not None and srbs and all(srb.completion is one for srb in srbs):
            self._many(srbs)
            return
        for srb in srbs:
            if srb.completion is not None:
                srb.completion(srb)

    def _again(self, srb: Srb, packet: _Packet) -> bool:
        """A request has failed: release the queue that is frozen by it, and try again what is worth it (True)."""
        if srb.srb_status & SRB_STATUS_QUEUE_FROZEN:
            self._count("queues released")
            self._send(srbs.control(SRB_FUNCTION_RELEASE_QUEUE, _unit(srb)))
        verdict = errors.judge(srb, packet.tried)
        if verdict.counts and not packet.given_up:
            self._errors.setdefault(_unit(srb), errors.UnitErrors()).add()
        if packet.given_up or not verdict.again or packet.tried >= packet.retries:
            if packet.tried and not packet.given_up:
                self._count("retries exhausted")
            return False
        if verdict.start and not self.options.start_units:
            return False
        packet.tried += 1
        self._count("retries")
        srb.srb_status = SRB_STATUS_PENDING
        srb.scsi_status = 0
        srb.data_transfer_length = packet.length
        srb.sense = b""
        srb.sense_info_buffer_length = packet.room
        self._dress(srb, packet)
        packet.waiting = True
        if verdict.start:
            self._start_unit(srb)
        elif verdict.delay:
            packet.timer = self._loop.clock.call_later(verdict.delay, lambda: self._resubmit(srb))
        else:
            self._resubmit(srb)
        return True

    def _resubmit(self, srb: Srb) -> None:
        packet = self._packets.get(srb)
        if packet is not None and packet.waiting:
            packet.waiting = False
            packet.timer = None
            self.port.submit(srb)

    def _start_unit(self, waiting: Srb) -> None:
        """START STOP UNIT, without autosense; what waited for it goes again however it ends."""
        self._count("units started")
        flags = SRB_FLAGS_DISABLE_AUTOSENSE | SRB_FLAGS_DISABLE_SYNCH_TRANSFER | SRB_FLAGS_NO_QUEUE_FREEZE
        start = srbs.command(_unit(waiting), START_UNIT, None, flags, commands.START_UNIT_TIME_OUT)
        start.completion = lambda _srb: self._resubmit(waiting)
        self.port.submit(start)

    # == what the guest gives up ===================================================================================

    def _aborted(self, abort: Srb) -> bool:
        """The guest aborts a request. True: it was waiting here, and both have ended."""
        victim = abort.next_srb
        packet = self._packets.get(victim) if victim is not None else None
        if victim is None or packet is None:
            return False
        packet.given_up = True
        if not packet.waiting:
            return False
        self._end(victim, SRB_STATUS_ABORTED)
        abort.srb_status = SRB_STATUS_SUCCESS
        if abort.completion is not None:
            abort.completion(abort)
        return True

    def _give_up(self, covers: Callable[[Srb], bool], srb_status: int) -> None:
        """No further try for what the guest resets; what waits for one ends with `srb_status`."""
        for srb, packet in list(self._packets.items()):
            if covers(srb):
                packet.given_up = True
                if packet.waiting:
                    self._end(srb, srb_status)

    def _end(self, srb: Srb, srb_status: int) -> None:
        packet = self._packets[srb]
        if packet.timer is not None:
            packet.timer.cancel()
            packet.timer = None
        srb.srb_status = srb_status
        srb.data_transfer_length = 0
        self._release(srb)
        self._hand_up((srb,))

    # == units =====================================================================================================

    def _bus_changed(self, path: int) -> None:
        if self.options.enumerate:
            self.rescan()

    def rescan(self, done: Callable[[list[FoundUnit]], None] | None = None) -> None:
        """Look for units. Those that were there and are not any more have been taken out by surprise."""
        if self._scanning and done is None:
            self._scan_again = True  # for what has changed behind the place where this scan is
            return
        self._scanning = True

        def ended(found: list[FoundUnit]) -> None:
            self._scanning = False
            self._enumerated(found)
            if done is not None:
                done(found)
            if self._scan_again:
                self._scan_again = False
                self.rescan()

        info = self.port.info
        run(
            scan(
                self.port,
                info.number_of_buses,
                info.maximum_number_of_targets,
                info.maximum_number_of_logical_units,
            ),
            ended,
        )

    def _enumerated(self, found: list[FoundUnit]) -> None:
        self.enumerations += 1
        now = {unit.unit: unit for unit in found}
        for gone in self.found.keys() - now.keys():
            self._count("units gone")
            self._errors.pop(gone, None)
            self.port.remove_unit(*gone, True, _nothing_done)
        self.found = now

    # == small things ==============================================================================================

    def _send(self, srb: Srb) -> None:
        srb.completion = _nothing_done
        self.port.submit(srb)

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def describe(self) -> dict[str, object]:
        """For `hba show queues`."""
        return {
            "time_out_value": self._time_out,
            "outstanding": len(self._packets),
            "waiting": sum(packet.waiting for packet in self._packets.values()),
            "enumerations": self.enumerations,
            "counters": dict(self.counters),
            "units": [
                {
                    "address": "{}:{}:{}".format(*unit),
                    "device_type": found.device_type,
                    "vendor": found.vendor,
                    "product": found.product,
                    "errors": trouble.count if (trouble := self._errors.get(unit)) is not None else 0,
                }
                for unit, found in sorted(self.found.items())
            ],
        }


def _unit(srb: Srb) -> Unit:
    return srb.path_id, srb.target_id, srb.lun


def _scope(reset: Srb) -> Callable[[Srb], bool]:
    """What a reset from above is about (OW-09)."""

    def covers(srb: Srb) -> bool:
        if reset.function == SRB_FUNCTION_RESET_BUS:
            return srb.path_id == reset.path_id
        if reset.function == SRB_FUNCTION_RESET_DEVICE:
            return (srb.path_id, srb.target_id) == (reset.path_id, reset.target_id)
        return _unit(srb) == _unit(reset)

    return covers


def _nothing_done(_result: object) -> None:
    """Nobody waits for the end of this."""
