"""A miniport with the structure of a real adapter's driver: queues in memory, messages, DPCs, extended SRBs.

    [adapter]
    port = "storport"
    miniport = "hba.miniport.examples.queued:QueuedMiniport"          # under SCSI Port: QueuedScsiMiniport

Storport, in the order things happen:

    hw_find_adapter      extended SRBs, an SRB extension of a command block and a list, a lock for each message;
                         completion rings in the uncached extension
    hw_initialize        asks for passive initialisation
    passive_initialize   counts the messages, makes a DPC for each queue, asks for channels and redirection, sets the
                         queues up in the chip
    hw_build_io          lays the command block and the list of segments into the SRB extension
    hw_start_io          rings the doorbell of the queue that belongs to the channel it runs in
    hw_msi_interrupt     issues the DPC of the message's queue
    complete_queue       (DPC) takes completions from the ring and completes their SRBs

The chip's side of it is `hba.miniport.queues`. Under SCSI Port the same command blocks go through one queue, the chip
drives its line, and the work of the interrupt is deferred with CallEnableInterrupts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from hba.errors import ConfigError
from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_STOP_ADAPTER,
    SCSI_UNIT_POWER,
    SCSI_UNIT_REMOVE,
    SCSI_UNIT_START,
    SCSI_UNIT_SURPRISE_REMOVAL,
    SP_RETURN_ERROR,
    SP_RETURN_FOUND,
    STOR_POWER_DEVICE_D0,
    Miniport,
)
from hba.miniport.config import (
    INTERRUPT_SYNCHRONIZE_PER_MESSAGE,
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    SRB_TYPE_STORAGE_REQUEST_BLOCK,
    STOR_ADAPTER_FEATURE_ABORT_COMMAND,
    STOR_MAP_NON_READ_WRITE_BUFFERS,
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    PerfConfigurationData,
    PortConfigurationInformation,
    StartIoPerformanceParameters,
)
from hba.miniport.examples.good import BUS_STATUS
from hba.miniport.queues import COMMAND_BLOCK, COMPLETION, ELEMENT, CommandQueues
from hba.miniport.services import (
    CALL_DISABLE_INTERRUPTS,
    CALL_ENABLE_INTERRUPTS,
    DPC_LOCK,
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    REQUEST_COMPLETE,
    SP_BUS_TIME_OUT,
    SP_PROTOCOL_ERROR,
    STOR_STATUS_SUCCESS,
    Dpc,
    ScsiPortServices,
    StorPortServices,
)
from hba.miniport.srbhelper import (
    srb_get_cdb,
    srb_get_miniport_context,
    srb_get_path_target_lun,
    srb_get_queue_tag,
    srb_get_request_attribute,
    srb_get_sense_info_buffer,
    srb_get_sense_info_buffer_length,
    srb_get_srb_function,
    srb_set_scsi_status,
    srb_set_sense_info_buffer_length,
)
from hba.scsi.task import (
    DATA_IN,
    DATA_NONE,
    DATA_OUT,
    RESPONSE_NO_TARGET,
    SIMPLE,
)
from hba.srb import (
    SCSISTAT_GOOD,
    SP_UNTAGGED,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_SHUTDOWN,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_SUCCESS,
    Srb,
)

QUEUES = 4
ELEMENTS = 128  # of a list of segments
LIST_OFFSET = COMMAND_BLOCK.size  # where it lies in the SRB extension
EXTENSION_SIZE = LIST_OFFSET + ELEMENTS * ELEMENT.size
RING_ENTRIES = 1024
DUMP_ENTRIES = 16  # in dump mode: memory is scarce (DM-02), and there is one request at a time
MAX_CDB = 32

WITHOUT_WORK = (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN, SRB_FUNCTION_POWER)  # nothing is cached, nothing sleeps
Entry = tuple[int, int, int, int, int, int, int]  # a COMPLETION


class Ring:
    """A completion ring from the miniport's side, and the SRBs it will tell of."""

    def __init__(self, number: int, memory: memoryview, address: int) -> None:
        self.number = number
        self.entries = len(memory) // COMPLETION.size
        self.address = address
        self.dpc: Dpc | None = None
        self.outstanding: dict[int, Srb] = {}  # by tag
        self._memory = memory
        self._head = 0
        self._phase = 1
        memory[:] = bytes(len(memory))

    def take(self) -> Iterator[tuple[Srb, Entry]]:
        """What has ended since the last time."""
        while True:
            entry: Entry = COMPLETION.unpack_from(self._memory, self._head * COMPLETION.size)
            if entry[6] != self._phase:
                return
            self._head += 1
            if self._head == self.entries:
                self._head = 0
                self._phase ^= 1
            yield self.outstanding.pop(entry[0]), entry


class CommandBlocks(Miniport):
    """What both models' drivers have in common: command blocks, and what a completion means."""

    def describe(self, config: PortConfigurationInformation) -> None:
        config.master = config.scatter_gather = config.need_physical_addresses = True
        config.auto_request_sense = config.tagged_queuing = config.multiple_request_per_lu = True
        config.dma64_bit_addresses = SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED
        config.maximum_transfer_length = 1 << 20
        config.srb_extension_size = EXTENSION_SIZE
        self.dump = bool(config.dump_mode)
        self.entries = DUMP_ENTRIES if self.dump else RING_ENTRIES
        config.max_number_of_io = self.entries // 2  # a ring never overflows
        config.max_ios_per_lun = min(config.max_ios_per_lun, config.max_number_of_io)

    def take_over(self) -> None:
        """DM-05: nothing that the crashed system has sent goes on."""
        self.chip.reset_bus()
        self.chip.acknowledge()

    def segments_of(self, srb: Srb) -> Sequence[tuple[int, int]]:
        raise NotImplementedError

    def fill_block(self, srb: Srb) -> bool:
        """The command, its list and the address of its sense buffer, into the SRB extension. False: it cannot be."""
        extension = srb_get_miniport_context(srb)
        cdb = srb_get_cdb(srb)
        if len(cdb) > MAX_CDB:
            return False
        direction, elements, moved = DATA_NONE, 0, 0
        if srb.srb_flags & SRB_FLAGS_UNSPECIFIED_DIRECTION and srb.data_transfer_length:
            direction = DATA_IN if srb.srb_flags & SRB_FLAGS_DATA_IN else DATA_OUT
            for address, length in self.segments_of(srb):
                ELEMENT.pack_into(extension.memory, LIST_OFFSET + elements * ELEMENT.size, address, length, 0)
                elements += 1
                moved += length
            if moved != srb.data_transfer_length:
                return False  # a part of it has no address
        sense_address = sense_room = 0
        room = srb_get_sense_info_buffer_length(srb)
        if room and not srb.srb_flags & SRB_FLAGS_DISABLE_AUTOSENSE:
            found = self.port.get_physical_address(srb, srb_get_sense_info_buffer(srb))
            if found is not None:
                sense_address, sense_room = found[0], min(room, found[1])
        block = self.port.get_physical_address(None, extension)
        segment_list = self.port.get_physical_address(None, extension + LIST_OFFSET)
        if block is None or segment_list is None:
            return False
        _, target, lun = srb_get_path_target_lun(srb)
        tagged = srb.srb_flags & SRB_FLAGS_QUEUE_ACTION_ENABLE
        extension.block_address = block[0]
        COMMAND_BLOCK.pack_into(
            extension.memory,
            0,
            target,
            lun,
            len(cdb),
            direction,
            srb_get_request_attribute(srb) if tagged else SIMPLE,
            sense_room,
            0,
            self.tag_of(srb),
            elements,
            segment_list[0],
            sense_address,
            cdb.ljust(MAX_CDB, b"\0"),
        )
        return True

    def tag_of(self, srb: Srb) -> int:
        return srb_get_queue_tag(srb)

    def end(self, srb: Srb, entry: Entry) -> None:
        """How the command ended, in the SRB; then the SRB is the port's."""
        _, transferred, overrun, status, response, sense_length, _ = entry
        asked = srb.data_transfer_length
        if response:
            srb.srb_status = BUS_STATUS.get(response, SRB_STATUS_INTERNAL_ERROR)
            srb.data_transfer_length = min(transferred, asked)
            if response == RESPONSE_NO_TARGET:
                self.log_error(srb, SP_BUS_TIME_OUT)
        elif status != SCSISTAT_GOOD:
            srb_set_scsi_status(srb, status)  # OW-04
            srb.data_transfer_length = min(transferred, asked)
            srb.srb_status = SRB_STATUS_ERROR
            if sense_length:  # the chip has put them into the sense buffer
                srb_set_sense_info_buffer_length(srb, sense_length)
                srb.srb_status = SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID
        elif transferred != asked or overrun:
            srb.srb_status = SRB_STATUS_DATA_OVERRUN  # OW-07: also for too little
            srb.data_transfer_length = transferred
            if overrun:
                self.log_error(srb, SP_PROTOCOL_ERROR)
        else:
            srb.srb_status = SRB_STATUS_SUCCESS
        self.port.notification(REQUEST_COMPLETE, srb)

    def log_error(self, srb: Srb, code: int) -> None:
        """ER-02"""
        self.port.log_error(srb, *srb_get_path_target_lun(srb), code, 1)

    def refuse(self, srb: Srb) -> None:
        srb.srb_status = SRB_STATUS_INVALID_REQUEST
        self.port.notification(REQUEST_COMPLETE, srb)


class QueuedMiniport(CommandBlocks):
    """For Storport. See the module's text."""

    # -- 1. Say what the adapter is ----------------------------------------------------------------------------

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        if self.port.model != "storport":
            raise ConfigError(
                "QueuedMiniport is for Storport; under SCSI Port use QueuedScsiMiniport of the same module"
            )
        self.stor = cast(StorPortServices, self.port)
        self.describe(config)
        config.srb_type = SRB_TYPE_STORAGE_REQUEST_BLOCK
        config.map_buffers = STOR_MAP_NON_READ_WRITE_BUFFERS
        config.synchronization_model = STOR_SYNCHRONIZE_FULL_DUPLEX
        config.interrupt_synchronization_mode = INTERRUPT_SYNCHRONIZE_PER_MESSAGE
        config.number_of_physical_breaks = ELEMENTS
        config.initial_lun_queue_depth = 64
        config.feature_support |= STOR_ADAPTER_FEATURE_ABORT_COMMAND
        memory = self.port.get_uncached_extension(config, self.entries * COMPLETION.size * (1 if self.dump else QUEUES))
        if memory is None:
            return SP_RETURN_ERROR
        if self.dump:
            self.stor.mark_dump_memory(memory, 0)  # DM-04
        self.memory = memory
        self.registers = CommandQueues(self.chip)
        self.units: dict[tuple[int, int, int], str] = {}
        return SP_RETURN_FOUND

    # -- 2. Make it ready, in two steps ------------------------------------------------------------------------

    def hw_initialize(self) -> bool:
        """At DIRQL, so only what cannot wait: the rest is done at PASSIVE_LEVEL."""
        self.chip.interrupts_enabled = False
        if self.dump:  # DM-01: there is nothing behind this
            self.take_over()
            return self.make_rings(0)
        return self.stor.enable_passive_initialization(self.passive_initialize)

    def passive_initialize(self) -> bool:
        messages = 0
        while messages < QUEUES and self.stor.get_msi_info(messages)[0] == STOR_STATUS_SUCCESS:
            messages += 1
        if not self.make_rings(messages):
            return False
        self.ask_for_optimizations(messages)
        self.chip.interrupts_enabled = True
        return True

    def make_rings(self, messages: int) -> bool:
        """A queue for each message; without messages one, and the line."""
        self.rings: list[Ring] = []
        size = self.entries * COMPLETION.size
        for number in range(max(1, messages)):
            ring_memory = self.memory[number * size : (number + 1) * size]
            found = self.port.get_physical_address(None, ring_memory)
            if found is None:
                return False
            ring = Ring(number, ring_memory, found[0])
            if not self.dump:  # DM-03
                ring.dpc = self.stor.initialize_dpc(self.complete_queue)
            self.registers.create(number, ring.address, self.entries, number if messages else 0)
            self.rings.append(ring)
        return True

    def ask_for_optimizations(self, messages: int) -> None:
        """A channel and a message for each queue, as far as this port has such (PF-01, PF-02)."""
        perf = PerfConfigurationData()
        if self.stor.initialize_perf_opts(True, perf) != STOR_STATUS_SUCCESS:
            return
        wanted = STOR_PERF_DPC_REDIRECTION | STOR_PERF_CONCURRENT_CHANNELS
        if messages:
            wanted |= STOR_PERF_INTERRUPT_MESSAGE_RANGES | STOR_PERF_ADV_CONFIG_LOCALITY
            perf.first_redirection_message_number, perf.last_redirection_message_number = 0, messages - 1
            perf.message_targets = [None] * messages
        perf.flags &= wanted
        perf.concurrent_channels = len(self.rings)
        self.stor.initialize_perf_opts(False, perf)

    # -- 3. Start a request ------------------------------------------------------------------------------------

    def hw_build_io(self, srb: Srb) -> bool:
        """Without any lock, so it touches the SRB and its extension and nothing of `self` (ST-04)."""
        if srb_get_srb_function(srb) != SRB_FUNCTION_EXECUTE_SCSI or self.fill_block(srb):
            return True
        self.refuse(srb)
        return False  # ST-05

    def segments_of(self, srb: Srb) -> Sequence[tuple[int, int]]:
        return self.stor.get_scatter_gather_list(srb) or ()

    def hw_start_io(self, srb: Srb) -> bool:
        """Several may run at once, each in a channel of its own: no StartIo lock is held (ST-11)."""
        if srb_get_srb_function(srb) != SRB_FUNCTION_EXECUTE_SCSI:
            self.control(srb)
            return True
        params = StartIoPerformanceParameters()
        self.stor.get_start_io_perf_params(srb, params)
        ring = self.rings[params.message_number % len(self.rings)]
        address, tag = srb_get_miniport_context(srb).block_address, srb_get_queue_tag(srb)
        if ring.dpc is None:
            self.post(ring, tag, srb, address)
            return True
        lock = self.stor.acquire_spin_lock(DPC_LOCK, ring.dpc)  # against the queue's DPC
        self.post(ring, tag, srb, address)
        self.stor.release_spin_lock(lock)
        return True

    def post(self, ring: Ring, tag: int, srb: Srb, address: int) -> None:
        ring.outstanding[tag] = srb
        self.registers.post(ring.number, address)

    # -- 4. End a request --------------------------------------------------------------------------------------

    def hw_msi_interrupt(self, message_id: int) -> bool:
        """With the lock of this message held: leave the work to the queue's DPC (PF-04)."""
        if message_id >= len(self.rings):
            return False
        self.stor.issue_dpc(cast(Dpc, self.rings[message_id].dpc), self.rings[message_id])
        return True

    def hw_interrupt(self) -> bool:
        """Without messages: the line, which is shared and has to be dismissed."""
        if not self.chip.asserted:
            return False
        self.chip.acknowledge()
        if self.dump:  # DM-03: what the DPC does is done here
            self.complete_all()
        else:
            self.stor.issue_dpc(cast(Dpc, self.rings[0].dpc), self.rings[0])
        return True

    def complete_queue(self, dpc: Dpc, ring: Ring, _: object) -> None:
        lock = self.stor.acquire_spin_lock(DPC_LOCK, dpc)
        ended = list(ring.take())
        self.stor.release_spin_lock(lock)
        for srb, entry in ended:
            self.end(srb, entry)

    def complete_all(self) -> None:
        """What a reset or an abort has ended, before the request that asked for it (RS-02)."""
        for ring in self.rings:
            if ring.dpc is not None:
                self.complete_queue(ring.dpc, ring, None)
            else:
                for srb, entry in list(ring.take()):
                    self.end(srb, entry)

    # -- 5. What is no command ---------------------------------------------------------------------------------

    def control(self, srb: Srb) -> None:
        function = srb_get_srb_function(srb)
        _, target, lun = srb_get_path_target_lun(srb)
        worked, failure = True, SRB_STATUS_NO_DEVICE
        if function == SRB_FUNCTION_ABORT_COMMAND:
            worked, failure = self.abort(srb), SRB_STATUS_ABORT_FAILED
        elif function == SRB_FUNCTION_RESET_LOGICAL_UNIT:
            worked = self.chip.reset_unit(target, lun)
        elif function == SRB_FUNCTION_RESET_DEVICE:
            worked = self.chip.reset_target(target)
        elif function not in WITHOUT_WORK:
            worked, failure = False, SRB_STATUS_INVALID_REQUEST  # ER-17
        self.complete_all()
        srb.srb_status = SRB_STATUS_SUCCESS if worked else failure
        self.port.notification(REQUEST_COMPLETE, srb)

    def abort(self, srb: Srb) -> bool:
        """ER-08."""
        victim = srb.next_srb
        return any(
            self.registers.abort(ring.number, tag)
            for ring in self.rings
            for tag, mine in list(ring.outstanding.items())
            if mine is victim
        )

    def hw_reset_bus(self, path_id: int) -> bool:
        """RS-03. DPC locks must not be taken here; nothing is started meanwhile, and no interrupt issues a DPC."""
        self.chip.interrupts_enabled = False
        self.chip.reset_bus()
        for ring in self.rings:
            for srb, entry in list(ring.take()):
                self.end(srb, entry)
        self.chip.interrupts_enabled = True
        return True

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            for supported in (SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER):
                if supported < parameters.max_control_type:  # RS-05
                    parameters[supported] = True
        elif control_type in (SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER):
            self.chip.interrupts_enabled = control_type == SCSI_RESTART_ADAPTER
        else:
            return 1
        return 0

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        """RS-08: which units there are, and whether they have power."""
        if control_type == SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES:
            for supported in (SCSI_UNIT_START, SCSI_UNIT_POWER, SCSI_UNIT_REMOVE, SCSI_UNIT_SURPRISE_REMOVAL):
                if supported < parameters.max_control_type:
                    parameters[supported] = True
            return 0
        address = parameters[:3]
        if control_type == SCSI_UNIT_START:
            self.units[address] = "started"
        elif control_type == SCSI_UNIT_POWER:
            self.units[address] = "on" if parameters[3] == STOR_POWER_DEVICE_D0 else "off"
        elif control_type in (SCSI_UNIT_REMOVE, SCSI_UNIT_SURPRISE_REMOVAL):
            self.units.pop(address, None)
        else:
            return 1
        return 0


class QueuedScsiMiniport(CommandBlocks):
    """For SCSI Port: one queue, the line, deferral. See the module's text."""

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        if self.port.model != "scsiport":
            raise ConfigError(
                "QueuedScsiMiniport is for SCSI Port; under Storport use QueuedMiniport of the same module"
            )
        self.describe(config)
        config.map_buffers = False
        config.number_of_physical_breaks = ELEMENTS - 1  # CF-06
        # CF-09: what must be final by now is.
        memory = self.port.get_uncached_extension(config, self.entries * COMPLETION.size)
        found = None if memory is None else self.port.get_physical_address(None, memory)
        if memory is None or found is None:
            return SP_RETURN_ERROR
        self.memory, self.ring_address = memory, found[0]
        self.registers = CommandQueues(self.chip)
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        self.ring = Ring(0, self.memory, self.ring_address)
        self.next_tag = 0
        if self.dump:
            self.take_over()
        self.registers.create(0, self.ring_address, self.entries)
        self.chip.interrupts_enabled = True
        return True

    def tag_of(self, srb: Srb) -> int:
        """The port's tags are for each unit, and an untagged request has none: the adapter has its own."""
        self.next_tag = (self.next_tag + 1) & 0xFFFFFFFF
        return self.next_tag

    def segments_of(self, srb: Srb) -> Sequence[tuple[int, int]]:
        """One physically contiguous piece after the other (CF-04)."""
        pieces: list[tuple[int, int]] = []
        done, length = 0, srb.data_transfer_length
        while done < length:
            found = self.port.get_physical_address(srb, srb.data_buffer + done)
            if found is None:
                break
            pieces.append((found[0], min(found[1], length - done)))
            done += found[1]
        return pieces

    def hw_start_io(self, srb: Srb) -> bool:
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI:
            self.control(srb)
            self.port.notification(NEXT_REQUEST)
            return True
        path, target, lun, tag = srb.path_id, srb.target_id, srb.lun, srb.queue_tag  # for later (OW-01)
        if self.fill_block(srb):
            self.ring.outstanding[self.next_tag] = srb
            self.registers.post(0, srb.srb_extension.block_address)
        else:
            self.refuse(srb)
        if tag == SP_UNTAGGED:  # SP-12
            self.port.notification(NEXT_REQUEST)
        else:
            self.port.notification(NEXT_LU_REQUEST, path, target, lun)
        return True  # SP-06

    def hw_interrupt(self) -> bool:
        """IN-04: dismiss it, let none more come, and do the work with the system's interrupts enabled."""
        if not self.chip.asserted:
            return False
        self.chip.acknowledge()
        if self.dump:  # there is no time below DIRQL to defer it to
            self.complete_all()
            return True
        self.chip.interrupts_enabled = False
        self.port.notification(CALL_ENABLE_INTERRUPTS, self.deferred)
        return True

    def deferred(self) -> None:
        self.complete_all()
        self.port.notification(CALL_DISABLE_INTERRUPTS, self.resume)

    def resume(self) -> None:
        self.chip.interrupts_enabled = True

    def complete_all(self) -> None:
        for srb, entry in list(self.ring.take()):
            self.end(srb, entry)

    def control(self, srb: Srb) -> None:
        worked, failure = True, SRB_STATUS_INVALID_REQUEST
        if srb.function == SRB_FUNCTION_ABORT_COMMAND:
            worked, failure = self.abort(srb), SRB_STATUS_ABORT_FAILED
        elif srb.function == SRB_FUNCTION_RESET_BUS:
            worked, failure = self.hw_reset_bus(srb.path_id), SRB_STATUS_ERROR
        elif srb.function not in WITHOUT_WORK:
            worked = False
        self.complete_all()
        srb.srb_status = SRB_STATUS_SUCCESS if worked else failure
        self.port.notification(REQUEST_COMPLETE, srb)

    def abort(self, srb: Srb) -> bool:
        victim = srb.next_srb
        if victim is None:
            return False
        port = cast(ScsiPortServices, self.port)
        if port.get_srb(srb.path_id, srb.target_id, srb.lun, victim.queue_tag) != victim:
            return False
        mine = [tag for tag, srb in self.ring.outstanding.items() if srb == victim]
        return any(self.registers.abort(0, tag) for tag in mine)

    def hw_reset_bus(self, path_id: int) -> bool:
        """ER-11."""
        self.chip.reset_bus()
        self.chip.acknowledge()
        self.complete_all()
        return True

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            if parameters.max_control_type > SCSI_STOP_ADAPTER:
                parameters[SCSI_STOP_ADAPTER] = True
            return 0
        self.chip.interrupts_enabled = False
        return 0
