"""VMware PVSCSI as the guest sees it: registers and rings in front, SRBs behind.

Order of a request: kick or look -> request descriptor -> SRB -> port; back: SRB -> completion descriptor -> cmpProdIdx
-> one interrupt for several. The commands written to the COMMAND registers are in `commands`; when to look without a
kick and when to interrupt is decided in `hba.adapters.moderation`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hba.adapters.adapter import Adapter, Announcement
from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.adapters.pvscsi.commands import CommandRegisters
from hba.adapters.pvscsi.identity import IDENTITY
from hba.adapters.pvscsi.messages import Messages
from hba.adapters.pvscsi.moderation import Moderation
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.registers import (
    BAR_SIZE,
    INTR_ALL_SUPPORTED,
    MSIX_PBA_OFFSET,
    MSIX_TABLE_OFFSET,
    REGISTERS,
)
from hba.adapters.pvscsi.rings import MASK32, Rings
from hba.adapters.pvscsi.scatter import BadScatterList, read_scatter_list
from hba.adapters.pvscsi.status import (
    BTSTAT_DATARUN,
    BTSTAT_HAHARDWARE,
    BTSTAT_HASOFTWARE,
    BTSTAT_INVPARAM,
    BTSTAT_SELTIMEO,
    BTSTAT_SUCCESS,
    HOST_STATUS,
)
from hba.adapters.pvscsi.structures import (
    COMPLETION,
    COMPLETION_FIELDS,
    FLAG_DIR_NONE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    FLAG_OUT_OF_BAND_CDB,
    FLAG_WITH_SG_LIST,
    MSG_DEV_ADDED,
    MSG_DEV_REMOVED,
    REQ_CONS_IDX,
    REQ_PROD_IDX,
    REQUEST,
)
from hba.adapters.pvscsi.watch import GuestWatch
from hba.adapters.traffic import Run, Traffic
from hba.clock import MS, Timer
from hba.dma import DmaBuffer
from hba.errors import DmaFault
from hba.loop import EventLoop
from hba.pci.bars import Bar, MsixLayout
from hba.pci.function import PciFunction
from hba.pci.memory import GuestMemory
from hba.pci.registers import RegisterBlock
from hba.pci.unreachable import explain
from hba.port.driver import PortDriver
from hba.scsi.bus import ScsiBus
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_CHECK_CONDITION,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_HEAD_OF_QUEUE_TAG_REQUEST,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
    SRB_SIMPLE_TAG_REQUEST,
    SRB_STATUS_BUSY,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.trace.recorder import Recorder

MAX_TRANSFER = 64 << 20  # bytes of one request; more than any driver asks, little enough to bound our memory
BATCH = 16  # requests that are executed, completed and announced together
LARGE = 32 << 10  # bytes of a request
BATCH_BYTES = 2 << 20  # of large ones in a batch: the guest shall hear of some before we have done all
# What is taken from the ring in one turn of the event loop; the rest waits for the next.
TURN_REQUESTS = 256
TURN_BYTES = 16 << 20
TURN_PIECES = 4096  # of memory, of requests that have many
MANY = 64  # pieces of memory; fewer are not counted
# What all requests that are outstanding may have; those beyond wait on the ring. A piece costs some 400 bytes here.
MAX_PIECES = 1 << 16
RETRY_COMPLETIONS = 1 * MS  # how often a full or unreachable completion ring is tried again

SRB_SIMPLE, SRB_HEAD, SRB_ORDERED = (
    SRB_SIMPLE_TAG_REQUEST,
    SRB_HEAD_OF_QUEUE_TAG_REQUEST,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
)
_NO_LUN_BYTES = ~0xFF00  # the LUN is byte 1 of its eight; anything else set is a LUN this adapter cannot have
_FLAGS = {
    0: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_UNSPECIFIED_DIRECTION,
    FLAG_DIR_TOHOST: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_IN,
    FLAG_DIR_TODEVICE: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_OUT,
    FLAG_DIR_TOHOST | FLAG_DIR_TODEVICE: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_UNSPECIFIED_DIRECTION,
}

_PLAIN = {flags: _FLAGS[flags] for flags in (FLAG_DIR_TOHOST, FLAG_DIR_TODEVICE)}  # a request with nothing unusual

Done = tuple[int, int, int, int, int]  # context, dataLen, senseLen, hostStatus, scsiStatus of a completion


class PvscsiAdapter(Adapter):
    """One PVSCSI function.

    `rings`        what SETUP_RINGS set up, None before it and after ADAPTER_RESET.
    `outstanding`  requests taken from the ring whose completion is not on the ring yet.
    `unreachable`  which memory of its rings the guest gave that cannot be reached, and why (cleared likewise).
    `fault`        why the device stopped looking at the request ring (until the next ADAPTER_RESET or SETUP_RINGS).
    """

    type = "pvscsi"

    def __init__(
        self,
        loop: EventLoop,
        port: PortDriver,
        bus: ScsiBus,
        memory: GuestMemory,
        options: PvscsiOptions,
        *,
        msi: bool = True,
        msix_vectors: int = 0,
        posted_writes: bool = False,
        poll: PollOptions | None = None,
        interrupts: InterruptOptions | None = None,
        watch: GuestWatch | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.loop = loop
        self.port = port
        self.bus = bus
        self.memory = memory
        self.options = options
        self.watch = watch
        self.recorder = recorder
        self.registers = RegisterBlock("PVSCSI", REGISTERS)
        self.bar = Bar(BAR_SIZE, {0: self.registers})
        self.function = PciFunction(
            loop,
            IDENTITY,
            {0: self.bar},
            memory,
            msi_vectors=1 if msi else 0,
            msix=MsixLayout(msix_vectors, 0, MSIX_TABLE_OFFSET, MSIX_PBA_OFFSET) if msix_vectors else None,
            posted_writes=posted_writes,
        )
        self.function.on_reset.append(self.power_on_reset)
        self.function.on_resume.append(self.resume)
        self.rings: Rings | None = None
        self.outstanding = 0
        self.in_flight: dict[int, Srb] = {}  # by context, for ABORT_CMD; the latest when a context is used twice
        self.fault = ""
        self.unreachable = ""
        self._many: dict[Srb, int] = {}  # requests with many pieces of memory, and how many
        self.pieces = 0  # all of these
        self._turn_requests = self._turn_bytes = self._turn_pieces = 0  # what this turn has left
        self._done: list[int] = []  # the fields of the completions to post at the end of the batch
        self._post = self._done.extend
        self.traffic = Traffic(loop.clock, lambda target, lun: lun in bus.units.get(target, ()))
        self._answered: list[Run] = []  # of the requests in `_done` that reached a unit
        self._completion = self._complete  # the same object for every SRB
        port.complete_together(self._completion, self._complete_all)
        self._backlog: deque[Done] = deque()  # completions that wait for a free slot
        self._retry: Timer | None = None
        self._status = self.registers.cell("INTR_STATUS")
        self._mask = self.registers.cell("INTR_MASK")
        self._kick_pending = False
        self._batching = False
        self._flush_pending = False
        self._full = False  # the next request on the ring has to wait until others have completed
        self.kicks = 0
        self.requests = 0
        self.completions = 0
        self.bytes = 0
        self.bad_requests = 0

        self.messages = Messages(self)
        self.commands = CommandRegisters(self)
        # With posted writes only a kick says that the register writes before it have arrived. A request that a look
        # finds may have overtaken the acknowledgement of the interrupt before, which would then clear that of its
        # completion: SeaBIOS waits for ever.
        poll = PollOptions(window=0) if posted_writes else poll or PollOptions()
        self.moderation = Moderation(self, poll, interrupts or InterruptOptions())
        self.registers.on_write("INTR_STATUS", self._status_written)
        self.registers.on_write("INTR_MASK", self._mask_written)
        self.registers.on_write("KICK_NON_RW_IO", self._kick)
        self.registers.on_write("KICK_RW_IO", self._kick)
        bus.on_change = self.hot_plug
        if watch is not None:
            watch.attach(self)

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.port.start()

    def stop(self) -> None:
        self.port.stop()
        self.forget_rings()
        self.function.close()

    def resume(self) -> None:
        """Memory can be reached again: kicks, completions and messages may have been held up meanwhile."""
        self._kick_again()
        self._retry_backlog()
        self.messages.post()

    def power_on_reset(self) -> None:
        """DEVICE_RESET from the client: as after power on. The machine starts over; its memory is not written."""
        self._kick_pending = False
        self.forget_rings()
        self.adapter_reset()
        self.registers.reset()
        self.commands.reset()

    def adapter_reset(self) -> None:
        """Everything outstanding completes on the rings, then the rings are forgotten."""
        # A kick not looked at yet is lost: with posted writes its ring may be gone already.
        self._kick_pending = False
        if self.watch is not None:
            self.watch.reset(self.outstanding)
        self._batching = True  # nothing is taken from the ring and nobody is interrupted while this goes on
        try:
            self.port.reset_adapter()
        finally:
            self._batching = False
            if self._done and self.rings is not None and self.rings.shared:
                self._flush()  # else it would be written after the driver was told that the reset is over
        self.moderation.announcer.now()
        self.messages.forget("reset the adapter")
        self.forget_rings()
        self._status.value = 0
        self.function.interrupts.set_line(False)

    def forget_rings(self) -> None:
        """No ring memory is touched after this."""
        self.messages.forget()
        self.moderation.forget()
        if self.rings is not None:
            self.rings.generation = -1  # whoever still works with them stops
        self.rings = None
        self.fault = self.unreachable = ""
        self.outstanding -= len(self._done) // COMPLETION_FIELDS
        self._done.clear()
        self.traffic.answered(self._answered)  # as far as there is still somebody to answer
        self._backlog.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # -- interrupts -----------------------------------------------------------------------------------------------

    def _status_written(self, _value: int) -> None:
        if self.watch is not None:
            self.watch.acknowledged()
        self.function.interrupts.set_line(self._status.value & self._mask.value & INTR_ALL_SUPPORTED != 0)

    def _mask_written(self, _value: int) -> None:
        live = self._status.value & self._mask.value & INTR_ALL_SUPPORTED
        self.function.interrupts.set_line(live != 0)
        if live:
            self.function.interrupts.signal(0)

    def raise_cause(self, cause: int) -> None:
        """Set a cause bit and interrupt. With MSI every batch signals anew: Linux never acknowledges there."""
        status = self._status
        status.value |= cause
        if status.value & self._mask.value:
            interrupts = self.function.interrupts
            interrupts.set_line(True)
            if cause & self._mask.value:
                interrupts.signal(0)
        if self.watch is not None:
            self.watch.interrupt()

    # -- request ring ---------------------------------------------------------------------------------------------

    def _kick(self, _value: int) -> None:
        # Handled once the messages that have arrived are: kicks are posted, so several may be waiting, and a
        # synchronous one is answered before its work starts.
        self.kicks += 1
        if not self._kick_pending:
            self._kick_pending = True
            self.loop.call_soon(self.take_kick)
        if self.watch is not None:
            self.watch.kick()

    @property
    def takes(self) -> bool:
        """Whether a look at the ring now would take what is on it, and none is due anyway."""
        return not (self.fault or self._full or self._kick_pending or self._batching) and self.memory.enabled

    def take_kick(self) -> None:
        """Look at the request ring now if the guest asked for it."""
        if self._kick_pending:
            self.look("kick")

    def look(self, why: str) -> None:
        """Look at the request ring now, asked for or not. `why`: "kick", "look" while a window is open, "command": what
        is on the ring may be what that is about."""
        self._kick_pending = False
        if self.rings is not None:
            self.process_requests(why)
            if self.messages.waiting:
                self.messages.post()  # the driver looks at a unit it was told of, so it may have taken the message

    def process_requests(self, why: str) -> None:
        """Take what is on the request ring, one pass; come back later for what arrives meanwhile. `why`: as `look` has
        it, or "room": there is some for requests that had to wait."""
        rings = self.rings
        if rings is None or self.fault or self._batching or not self.memory.enabled:
            return
        if rings.generation != self.memory.generation and not self._rebind(rings, told=True):
            return
        state = rings.state
        self._batching = True
        self._turn_requests, self._turn_bytes, self._turn_pieces = TURN_REQUESTS, TURN_BYTES, TURN_PIECES
        try:
            pending = self._pending(rings)
            if self.watch is not None and not self.fault:
                self.watch.taking(rings, rings.request_cons, pending, why)
            if not pending:
                return
            if self.recorder is not None:
                self.recorder.add("ring.take", 0, {"why": why, "requests": pending})
            self.moderation.arrived()
            while pending and rings.generation == self.memory.generation:
                first = rings.request_cons
                self.port.submit_all(self._take(rings, min(pending, BATCH)))
                taken = (rings.request_cons - first) & MASK32
                pending -= taken
                if self._done and pending:
                    self._flush()  # the guest works on these while we work on the next
                if not taken:
                    break  # the next one has to wait until others have completed
                self._turn_requests -= taken
                if self._turn_requests <= 0 or self._turn_bytes <= 0 or self._turn_pieces <= 0:
                    break
            if self.rings is not rings:
                return
            state.store(REQ_CONS_IDX, rings.request_cons)
            if state.load(REQ_PROD_IDX) != rings.request_cons and not self._full:
                self._kick_again()
        except DmaFault as fault:
            self._stop_ring(str(fault), fault)
        finally:
            self._batching = False
            if self._done:
                self._flush()

    def _pending(self, rings: Rings) -> int:
        """How many requests may be taken now."""
        ring = rings.requests
        pending = (rings.state.load(REQ_PROD_IDX) - rings.request_cons) & MASK32
        if pending > ring.entries:
            self._stop_ring(f"reqProdIdx is {pending} ahead of reqConsIdx; the ring has {ring.entries} entries")
            return 0
        if pending > rings.most_pending:
            rings.most_pending = pending
        return min(pending, self.room(rings))  # what is left is looked at when a completion has made room

    def room(self, rings: Rings) -> int:
        """How many requests could be taken now if they were there."""
        # A driver may not have more in flight than it can get completions for (reqProdIdx - cmpConsIdx).
        room = min(rings.requests.entries, rings.completions.entries) - self.outstanding - len(self._backlog)
        return max(0, room)

    def _kick_again(self) -> None:
        if not self._kick_pending:
            self._kick_pending = True
            self.loop.call_soon(self.take_kick)

    def reachable(self, rings: Rings) -> bool:
        """Whether the memory the rings are in may be used now."""
        return self.memory.enabled and (rings.generation == self.memory.generation or self._rebind(rings))

    def _rebind(self, rings: Rings, told: bool = False) -> bool:
        """Follow a change of the DMA maps; False while a page of the rings is not mapped. `told`: that is told."""
        try:
            rings.rebind()
        except DmaFault as fault:
            if told:
                self.cannot_reach("its rings", fault)
            return False
        self.unreachable = ""
        return True

    def cannot_reach(self, what: str, fault: DmaFault) -> None:
        """The guest waits for something that cannot be done: say why, once for each reason."""
        why = f"{what}: {explain(self.memory, fault)}"
        if why != self.unreachable:
            self.unreachable = why
            if self.on_unreachable is not None:
                self.on_unreachable(why)

    def _stop_ring(self, why: str, fault: DmaFault | None = None) -> None:
        self.fault = why
        if fault is not None:
            self.cannot_reach("its rings", fault)
        if self.watch is not None:
            self.watch.ring_stopped(why)

    def _take(self, rings: Rings, count: int) -> list[Srb]:
        """The next `count` request descriptors become SRBs; fewer when they are large, and when the DMA maps or the
        rings change meanwhile. One loop: every request of the guest goes through it."""
        srbs: list[Srb] = []
        memory, watch, in_flight, complete = self.memory, self.watch, self.in_flight, self._completion
        plain_flags, taking, unit = _PLAIN.get, self.traffic.taking, -1
        generation = memory.generation
        low, high, window = memory.window()
        first, taken, room, stop = rings.request_cons, 0, BATCH_BYTES, False
        self.requests += count
        self.outstanding += count
        try:
            while taken < count:
                descriptors, _ = rings.requests.stretch(first + taken, count - taken)
                # It goes on counting where the last page ended.
                for taken, descriptor in enumerate(REQUEST.iter_unpack(descriptors), taken + 1):  # noqa: B020
                    (
                        context, address, length, sense_address, sense_length, flags,
                        cdb, cdb_length, lun, tag, bus, target, _,
                    ) = descriptor  # fmt: skip
                    if bus or lun & _NO_LUN_BYTES:
                        self._refuse(context, BTSTAT_SELTIMEO)
                        continue
                    if lun | target != unit:
                        unit = lun | target
                        run = taking(target, lun >> 8)
                        flow = run[0]
                    srb = Srb(SRB_FUNCTION_EXECUTE_SCSI, 0, target, lun >> 8, complete)
                    if cdb_length == 16:
                        srb.cdb = cdb
                    elif 0 < cdb_length < 16:
                        srb.cdb = cdb[:cdb_length]
                    else:
                        self.bad_requests += 1
                        self._refuse(context, BTSTAT_INVPARAM)
                        continue
                    srb.cdb_length = cdb_length
                    srb.context = (context, sense_address, sense_length, run)
                    srb.sense_info_buffer_length = sense_length if sense_length < 256 else 255
                    if tag != SRB_SIMPLE and tag in (SRB_HEAD, SRB_ORDERED):
                        srb.queue_action = tag
                    end = address + length
                    found = None
                    if low <= address and 0 < length <= MAX_TRANSFER and end <= high and (found := plain_flags(flags)):
                        # One piece of ordinary memory, as most requests have.
                        srb.srb_flags = found
                        srb.data_transfer_length = length
                        srb.mdl = DmaBuffer([(address, length)], [window[address - low : end - low]], length)
                    elif not self._describe_data(srb, context, address, length, flags):
                        if self._full:
                            taken -= 1
                            return srbs
                        if rings.generation != memory.generation:
                            return srbs
                        continue
                    else:
                        # Looking at more memory than the one piece may have let messages in.
                        stop = rings.generation != memory.generation or self._turn_pieces <= 0
                        if memory.generation == generation:
                            low, high, window = memory.window()
                    if watch is not None:
                        rings.request_cons = (first + taken) & MASK32
                        watch.request(srb, found is not None, descriptor)
                    in_flight[context] = srb
                    flow.taken += 1
                    srbs.append(srb)
                    if length > LARGE:
                        self._turn_bytes -= length
                        room -= length
                        if room <= 0:
                            return srbs
                    if stop:
                        return srbs
        except DmaFault as fault:
            self._stop_ring(str(fault), fault)  # those before it are taken
        finally:
            rings.request_cons = (first + taken) & MASK32
            self.requests -= count - taken
            self.outstanding -= count - taken
        return srbs

    def _describe_data(self, srb: Srb, context: int, address: int, length: int, flags: int) -> bool:
        """Everything about the data of a request, whatever it has; False when it was refused, or has to wait."""
        if flags & FLAG_OUT_OF_BAND_CDB:
            self.bad_requests += 1
            self._refuse(context, BTSTAT_INVPARAM)
            return False
        if not length or flags & FLAG_DIR_NONE:
            srb.srb_flags = SRB_FLAGS_QUEUE_ACTION_ENABLE
            return True
        direction = flags & (FLAG_DIR_TOHOST | FLAG_DIR_TODEVICE)
        srb.srb_flags = _FLAGS[direction]
        srb.data_transfer_length = length
        try:
            if flags & FLAG_WITH_SG_LIST:
                segments = read_scatter_list(self.memory, address, min(length, MAX_TRANSFER))
            else:
                segments = [(address, length)]
            if length > MAX_TRANSFER:
                raise BadScatterList(f"{length} bytes in one request")
            if len(segments) > MANY and not self._room_for(srb, len(segments)):
                return False
            srb.mdl = self.memory.buffer(segments, direction == FLAG_DIR_TOHOST)
        except BadScatterList as error:
            self._let_go(srb)
            self._bad_data(context, BTSTAT_DATARUN, str(error))
            return False
        except DmaFault as fault:
            self._let_go(srb)
            self._bad_data(context, BTSTAT_HAHARDWARE, str(fault))
            return False
        return True

    def _room_for(self, srb: Srb, pieces: int) -> bool:
        """Whether a request with many pieces of memory may be outstanding besides those that are."""
        self._full = self.pieces > 0 and self.pieces + pieces > MAX_PIECES
        if self._full:
            return False
        self._many[srb] = pieces
        self.pieces += pieces
        self._turn_pieces -= pieces
        return True

    def _bad_data(self, context: int, host_status: int, why: str) -> None:
        self.bad_requests += 1
        if self.watch is not None:
            self.watch.bad_data(context, why)
        self._refuse(context, host_status)

    def _refuse(self, context: int, host_status: int) -> None:
        self._post((context, 0, 0, host_status, 0))

    # -- completion ring ------------------------------------------------------------------------------------------

    def _complete(self, srb: Srb) -> None:
        """The port is done with an SRB: its completion is posted with the batch, or soon."""
        context, sense_address, sense_length, run = srb.context
        self._answered.append(run)
        if (latest := self.in_flight.pop(context, srb)) is not srb:
            self.in_flight[context] = latest
        if self._many:
            self._let_go(srb)
        if self.watch is not None:
            self.watch.completed((srb,))
        if srb.srb_status == SRB_STATUS_SUCCESS:
            self._post((context, srb.data_transfer_length, 0, BTSTAT_SUCCESS, 0))
        else:
            self._post(self._unsuccessful(srb, context, sense_address, sense_length))
        srb.mdl = None  # whoever still keeps the SRB shall not keep the guest's memory mapped with it
        if not self._batching and not self._flush_pending:
            self._flush_pending = True
            self.loop.call_soon(self._flush_late)

    def _complete_all(self, srbs: Sequence[Srb]) -> None:
        """`_complete` for several."""
        in_flight, post, answered = self.in_flight, self._post, self._answered.append
        if self.watch is not None:
            self.watch.completed(srbs)
        for srb in srbs:
            context, sense_address, sense_length, run = srb.context
            answered(run)
            if (latest := in_flight.pop(context, srb)) is not srb:
                in_flight[context] = latest
            if self._many:
                self._let_go(srb)
            if srb.srb_status == SRB_STATUS_SUCCESS:
                post((context, srb.data_transfer_length, 0, BTSTAT_SUCCESS, 0))
            else:
                post(self._unsuccessful(srb, context, sense_address, sense_length))
            srb.mdl = None
        if not self._batching and not self._flush_pending:
            self._flush_pending = True
            self.loop.call_soon(self._flush_late)

    def _let_go(self, srb: Srb) -> None:
        self.pieces -= self._many.pop(srb, 0)
        self._full = False

    def _unsuccessful(self, srb: Srb, context: int, sense_address: int, sense_length: int) -> Done:
        """What the guest is told of everything but plain success."""
        status = srb.srb_status & SRB_STATUS_MASK
        moved = srb.data_transfer_length
        host_status = HOST_STATUS.get(status, BTSTAT_HASOFTWARE)
        scsi_status = srb.scsi_status
        written = 0
        if host_status != BTSTAT_SUCCESS:
            return context, 0, 0, host_status, 0
        if scsi_status == SCSISTAT_CHECK_CONDITION:
            sense = srb.sense_info_buffer[:sense_length]
            if sense:
                try:
                    self.memory.write(sense_address, sense)
                    written = len(sense)
                except DmaFault as fault:
                    if self.watch is not None:
                        self.watch.bad_data(context, f"sense buffer: {fault}")
        elif status == SRB_STATUS_BUSY:
            scsi_status = scsi_status or SCSISTAT_BUSY
        elif status == SRB_STATUS_DATA_OVERRUN and moved >= (srb.mdl.length if srb.mdl is not None else 0):
            # The target had more than there was room for, which a host bus adapter does not call a success. Less than
            # was asked for is one: dataLen says how much.
            host_status = BTSTAT_DATARUN
        return context, moved, written, host_status, scsi_status

    def _flush_late(self) -> None:
        self._flush_pending = False
        if self._done and not self._batching:
            self._flush()
        # Requests may have been left on the ring for lack of room.
        self.process_requests("room")

    def _flush(self) -> None:
        """Post what has been done, then interrupt once."""
        done = self._done[:]
        self._done.clear()
        self.outstanding -= len(done) // COMPLETION_FIELDS
        rings = self.rings
        if rings is None:
            self.traffic.answered(self._answered)
            return  # reset while they were on their way: the guest has forgotten them
        posted = 0
        try:
            if not self._backlog and self.reachable(rings):
                posted = rings.post_completions(done)
        except DmaFault as fault:
            self._stop_ring(str(fault), fault)  # what has been done waits in the backlog
        self.completions += posted
        fields = posted * COMPLETION_FIELDS
        size = sum(done[1:fields:COMPLETION_FIELDS])
        self.bytes += size
        if fields < len(done):
            for at in range(fields, len(done), COMPLETION_FIELDS):
                context, length, sense_length, host_status, scsi_status = done[at : at + COMPLETION_FIELDS]
                self._backlog.append((context, length, sense_length, host_status, scsi_status))
            self._retry_backlog()
        if posted:
            self.moderation.posted(posted, size)
        self.traffic.answered(self._answered)

    def retry_later(self) -> None:
        """Something could not be written to the rings' memory: try again, or at the latest when that is back."""
        if self._retry is None and self.memory.enabled:
            self._retry = self.loop.clock.call_later(RETRY_COMPLETIONS, self._retry_backlog)

    def _retry_backlog(self) -> None:
        """The completion ring is full, its memory not mapped or only reachable by message: post what can be posted."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        rings = self.rings
        if rings is None:
            return
        posted = size = 0
        try:
            if self.reachable(rings):
                self.moderation.window.settle()
                while self._backlog and rings.post_completion(COMPLETION.pack(*self._backlog[0])):
                    item = self._backlog.popleft()
                    self.completions += 1
                    size += item[1]
                    posted += 1
        except DmaFault as fault:
            self._stop_ring(str(fault), fault)
        self.bytes += size
        if posted:
            self.moderation.posted(posted, size)
        if self._backlog or self.moderation.window.unsettled:
            self.retry_later()

    # -- hot-plug -------------------------------------------------------------------------------------------------

    def hot_plug(self, change: str, target: int, lun: int, known: bool = True) -> None:
        self.messages.add(MSG_DEV_ADDED if change == "added" else MSG_DEV_REMOVED, target, lun, known)

    def announcement(self, target: int, lun: int) -> Announcement:
        return self.messages.announcement(target, lun)

    # -- inspection -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        rings: dict[str, object] | None = None
        unreachable = ""
        if self.rings is not None:
            try:
                rings = self.rings.describe()
            except DmaFault as fault:
                unreachable = str(fault)
        return {
            "type": self.type,
            "registers": self.registers.decode(),
            "rings": rings,
            "rings_unreachable": unreachable,
            "ring_fault": self.fault,
            "unreachable": self.unreachable,
            "request_call_threshold": self.commands.threshold_enabled,
            "moderation": self.moderation.snapshot(),
            "last_command": self.commands.last,
            "messages": self.messages.describe(),
            "traffic": self.traffic.snapshot(),
            "counters": {
                "kicks": self.kicks,
                "requests": self.requests,
                "completions": self.completions,
                "bytes": self.bytes,
                "outstanding": self.outstanding,
                "pieces": self.pieces,
                "bad_requests": self.bad_requests,
                "completions_waiting": len(self._backlog),
                "messages": self.messages.posted,
                "messages_waiting": len(self.messages.waiting),
                "dma_faults": self.memory.faults,
                "commands": dict(self.commands.counts),
            },
        }
