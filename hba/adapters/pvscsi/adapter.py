"""VMware PVSCSI as the guest sees it: registers in front, and what lies in its rings.

Requests and completions go the way of every adapter with rings (`hba.adapters.ring.adapter`); here is how a request
descriptor becomes an SRB, what a completion descriptor says, and which causes interrupt. The commands written to the
COMMAND registers are in `commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from hba.adapters.pvscsi.commands import CommandRegisters
from hba.adapters.pvscsi.identity import IDENTITY
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.registers import (
    BAR_SIZE,
    INTR_ALL_SUPPORTED,
    INTR_CMPL_0,
    INTR_MSG_0,
    MSIX_PBA_OFFSET,
    MSIX_TABLE_OFFSET,
    REGISTERS,
)
from hba.adapters.pvscsi.rings import Rings
from hba.adapters.pvscsi.scatter import BadScatterList, read_scatter_list
from hba.adapters.pvscsi.state import PvscsiState, restored, saved
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
    COMPLETION_FIELDS,
    FLAG_DIR_NONE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    FLAG_OUT_OF_BAND_CDB,
    FLAG_WITH_SG_LIST,
    REQ_CALL_THRESHOLD,
    REQUEST,
)
from hba.adapters.ring.adapter import RingAdapter
from hba.adapters.ring.inflight import MANY
from hba.adapters.ring.rings import MASK32
from hba.adapters.ring.turn import BATCH_BYTES, LARGE
from hba.adapters.types import Wiring
from hba.dma import DmaBuffer
from hba.errors import DmaFault
from hba.pci.bars import Bar, MsixLayout
from hba.pci.function import PciFunction
from hba.pci.registers import RegisterBlock
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

MAX_TRANSFER: Final = 64 << 20  # bytes of one request; more than any driver asks, little enough to bound our memory

SRB_SIMPLE: Final = SRB_SIMPLE_TAG_REQUEST
SRB_HEAD: Final = SRB_HEAD_OF_QUEUE_TAG_REQUEST
SRB_ORDERED: Final = SRB_ORDERED_QUEUE_TAG_REQUEST
_NO_LUN_BYTES: Final = ~0xFF00  # the LUN is byte 1 of its eight; anything else set is a LUN this adapter cannot have
_FLAGS = {
    0: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_UNSPECIFIED_DIRECTION,
    FLAG_DIR_TOHOST: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_IN,
    FLAG_DIR_TODEVICE: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_OUT,
    FLAG_DIR_TOHOST | FLAG_DIR_TODEVICE: SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_UNSPECIFIED_DIRECTION,
}

_PLAIN = {flags: _FLAGS[flags] for flags in (FLAG_DIR_TOHOST, FLAG_DIR_TODEVICE)}  # a request with nothing unusual

Done = tuple[int, int, int, int, int]  # context, dataLen, senseLen, hostStatus, scsiStatus


class PvscsiAdapter(RingAdapter[Rings]):
    """One PVSCSI function. The `context` of its SRBs: context, run, address and bytes of the sense buffer."""

    type = "pvscsi"
    state_type = PvscsiState

    def __init__(self, wiring: Wiring, options: PvscsiOptions) -> None:
        super().__init__(wiring, COMPLETION_FIELDS)
        self.registers = RegisterBlock("PVSCSI", REGISTERS)
        self.bar = Bar(BAR_SIZE, {0: self.registers})
        vectors = wiring.msix_vectors
        self.serve(
            PciFunction(
                wiring.loop,
                IDENTITY,
                {0: self.bar},
                wiring.memory,
                msi_vectors=1 if wiring.msi else 0,
                msix=MsixLayout(vectors, 0, MSIX_TABLE_OFFSET, MSIX_PBA_OFFSET) if vectors else None,
                posted_writes=wiring.posted_writes,
                # An event may overtake posted writes, and a kick the command that sets the rings up.
                ioeventfds=wiring.ioeventfd and not wiring.posted_writes,
            )
        )
        self._status = self.registers.cell("INTR_STATUS")
        self._mask = self.registers.cell("INTR_MASK")
        self.commands = CommandRegisters(self, self.registers, options)
        self.registers.on_write("INTR_STATUS", self._status_written)
        self.registers.on_write("INTR_MASK", self._mask_written)
        self.registers.on_write("KICK_NON_RW_IO", self.kick)
        self.registers.on_write("KICK_RW_IO", self.kick)

    def reset_registers(self) -> None:
        self.commands.reset()  # those in BARs, the function resets

    def save(self) -> PvscsiState:
        commands, rings = self.commands, self.access.rings
        return PvscsiState(
            None if rings is None else saved(rings),
            self.what_waits(),
            *commands.pending(),
            commands.threshold_enabled,
            commands.last[:1000],
        )

    def restore(self, state: Struct) -> None:
        assert isinstance(state, PvscsiState)
        self.commands.restore(state.command, state.descriptor, state.threshold, state.last_command)
        self.go_on_with(None if state.rings is None else restored(self.memory, state.rings), state.waiting)

    # -- interrupts -----------------------------------------------------------------------------------------------

    def _status_written(self, _value: int) -> None:
        self.function.interrupts.set_line(self._status.value & self._mask.value & INTR_ALL_SUPPORTED != 0)

    def _mask_written(self, _value: int) -> None:
        live = self._status.value & self._mask.value & INTR_ALL_SUPPORTED
        self.function.interrupts.set_line(live != 0)
        if live:
            self.function.interrupts.signal(0)

    def _raise_cause(self, cause: int) -> None:
        """Set a cause bit and interrupt. With MSI every batch signals anew: Linux never acknowledges there."""
        status = self._status
        status.value |= cause
        if status.value & self._mask.value:
            interrupts = self.function.interrupts
            if cause & self._mask.value:
                interrupts.signal(0)  # first: with messages this is what the guest waits for
            interrupts.set_line(True)

    def announce_completions(self) -> None:
        self._raise_cause(INTR_CMPL_0)

    def announce_units(self) -> None:
        self._raise_cause(INTR_MSG_0)

    def no_interrupt(self) -> None:
        self._status.value = 0
        self.function.interrupts.set_line(False)

    def listens(self) -> bool:
        return self._mask.value & INTR_CMPL_0 != 0

    # -- kicks ----------------------------------------------------------------------------------------------------
    # A driver that has asked for it (SETUP_REQCALLTHRESHOLD) kicks for a read or write only when reqProdIdx -
    # reqConsIdx has reached reqCallThreshold. Source: vmw_pvscsi.c, pvscsi_kick_io.

    def suppress_kicks(self, rings: Rings) -> bool:
        if not self.commands.threshold_enabled:
            return False
        rings.state.store(REQ_CALL_THRESHOLD, rings.requests.entries + 1)  # more than can be on the ring
        return True

    def allow_kicks(self, rings: Rings) -> None:
        rings.state.store(REQ_CALL_THRESHOLD, 0)  # which every request reaches

    # -- request ring ---------------------------------------------------------------------------------------------

    def take(self, rings: Rings, count: int) -> list[Srb]:
        """One loop: every request of the guest goes through it."""
        srbs: list[Srb] = []
        memory, by_handle, complete, turn = self.memory, self.in_flight.by_handle, self.completion, self.turn
        plain_flags, taking, unit = _PLAIN.get, self.in_flight.traffic.taking, -1
        low, high, window = memory.window()
        self.in_flight.full = False  # of an earlier try; what waited may have been rewritten since
        first, taken, room, stop = rings.request_cons, 0, BATCH_BYTES, False
        try:
            while taken < count:
                descriptors, _ = rings.requests.stretch(first + taken, count - taken)
                # It goes on counting where the last page ended.
                for taken, (  # noqa: B020
                    context, address, length, sense_address, sense_length, flags,
                    cdb, cdb_length, lun, tag, bus, target, _,
                ) in enumerate(REQUEST.iter_unpack(descriptors), taken + 1):  # fmt: skip
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
                    srb.context = (context, run, sense_address, sense_length)
                    srb.sense_info_buffer_length = sense_length if sense_length < 256 else 255
                    if tag != SRB_SIMPLE and tag in (SRB_HEAD, SRB_ORDERED):
                        srb.queue_action = tag
                    end = address + length
                    if low <= address and 0 < length <= MAX_TRANSFER and end <= high and (found := plain_flags(flags)):
                        # One piece of ordinary memory, as most requests have.
                        srb.srb_flags = found
                        srb.data_transfer_length = length
                        srb.mdl = DmaBuffer([(address, length)], [window[address - low : end - low]], length)
                    elif not self._describe_data(srb, context, address, length, flags):
                        if self.in_flight.full:
                            taken -= 1
                            return srbs
                        if rings.generation != memory.generation:
                            return srbs
                        continue
                    else:
                        # Looking at more memory than the one piece may have let messages in.
                        stop = rings.generation != memory.generation or turn.pieces <= 0
                        low, high, window = memory.window()
                    by_handle[context] = srb
                    flow.taken += 1
                    srbs.append(srb)
                    if length > LARGE:
                        turn.bytes -= length
                        room -= length
                        if room <= 0:
                            return srbs
                    if stop:
                        return srbs
        except DmaFault as fault:
            self.access.stop(str(fault), fault)  # those before it are taken
        finally:
            rings.request_cons = (first + taken) & MASK32
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
            if len(segments) > MANY:
                if not self.in_flight.room_for(srb, len(segments)):
                    return False
                self.turn.pieces -= len(segments)
            srb.mdl = self.memory.buffer(segments, direction == FLAG_DIR_TOHOST)
        except BadScatterList as error:
            self.malformed(context, str(error))
            self._refuse(context, BTSTAT_DATARUN)
            return False
        except DmaFault as fault:
            self.in_flight.let_go(srb)
            self.bad_requests += 1
            self.out_of_reach(context, str(fault))
            self._refuse(context, BTSTAT_HAHARDWARE)
            return False
        return True

    def _refuse(self, context: int, host_status: int) -> None:
        self.completions.done.extend((context, 0, 0, host_status, 0))

    # -- completion ring ------------------------------------------------------------------------------------------

    def answer(self, srbs: Sequence[Srb], done: list[int]) -> None:
        post = done.extend
        for srb in srbs:
            if srb.srb_status == SRB_STATUS_SUCCESS:
                post((srb.context[0], srb.data_transfer_length, 0, BTSTAT_SUCCESS, 0))
            else:
                context, _, sense_address, sense_length = srb.context
                post(self._unsuccessful(srb, context, sense_address, sense_length))

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
                    self.out_of_reach(context, f"sense buffer: {fault}")
        elif status == SRB_STATUS_BUSY:
            scsi_status = scsi_status or SCSISTAT_BUSY
        elif status == SRB_STATUS_DATA_OVERRUN and moved >= (srb.mdl.length if srb.mdl is not None else 0):
            # The target had more than there was room for, which a host bus adapter does not call a success. Less than
            # was asked for is one: dataLen says how much.
            host_status = BTSTAT_DATARUN
        return context, moved, written, host_status, scsi_status

    # -- inspection -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        rings: dict[str, object] | None = None
        unreachable = ""
        if self.access.rings is not None:
            try:
                rings = self.access.rings.describe()
            except DmaFault as fault:
                unreachable = str(fault)
        return {
            "type": self.type,
            "registers": self.registers.decode(),
            "rings": rings,
            "rings_unreachable": unreachable,
            "request_call_threshold": self.commands.threshold_enabled,
            "last_command": self.commands.last,
            **self.queues(),
            "counters": {**self.counters(), "commands": dict(self.commands.counts)},
        }
