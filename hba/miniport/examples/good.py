"""A correct DMA miniport, written to be read. Runs under SCSI Port and Storport.

    [adapter]
    miniport = "hba.miniport.examples.good:GoodMiniport"

It does what `hba.miniport.dma` does, one step after the other and without its short cuts. Start your own from here.
"""

from __future__ import annotations

from typing import Any, cast

from hba.errors import DmaFault
from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_STOP_ADAPTER,
    SP_RETURN_FOUND,
    Miniport,
)
from hba.miniport.config import (
    SCSI_DMA64_MINIPORT_SUPPORTED,
    SCSI_DMA64_SYSTEM_SUPPORTED,
    STOR_ADAPTER_FEATURE_ABORT_COMMAND,
    STOR_MAP_NON_READ_WRITE_BUFFERS,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    PortConfigurationInformation,
)
from hba.miniport.services import (
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    REQUEST_COMPLETE,
    SP_BUS_TIME_OUT,
    SP_PROTOCOL_ERROR,
    ScsiPortServices,
    StorPortServices,
)
from hba.scsi.task import (
    DATA_IN,
    DATA_OUT,
    RESPONSE_ABORTED,
    RESPONSE_NO_LUN,
    RESPONSE_NO_TARGET,
    RESPONSE_RESET,
    Task,
)
from hba.srb import (
    SCSISTAT_GOOD,
    SP_UNTAGGED,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_SHUTDOWN,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_LUN,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)

# What the bus has to say, in the port's words (ER-01).
BUS_STATUS = {
    RESPONSE_NO_TARGET: SRB_STATUS_SELECTION_TIMEOUT,
    RESPONSE_NO_LUN: SRB_STATUS_INVALID_LUN,
    RESPONSE_ABORTED: SRB_STATUS_ABORTED,
    RESPONSE_RESET: SRB_STATUS_BUS_RESET,
}


class GoodMiniport(Miniport):
    """See the module's text."""

    # -- 1. Say what the adapter is ----------------------------------------------------------------------------

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        self.storport = self.port.model == "storport"
        self.dump = bool(config.dump_mode)
        config.master = True
        config.scatter_gather = True
        config.need_physical_addresses = True
        config.auto_request_sense = True  # sense data come with the failed command (ER-04)
        config.tagged_queuing = True
        config.multiple_request_per_lu = True
        config.maximum_transfer_length = 1 << 20
        if config.dma64_bit_addresses == SCSI_DMA64_SYSTEM_SUPPORTED:
            config.dma64_bit_addresses = SCSI_DMA64_MINIPORT_SUPPORTED
        config.srb_extension_size = 8  # a pointer to the chip's command for the request (OW-06)
        if self.storport:
            config.map_buffers = STOR_MAP_NON_READ_WRITE_BUFFERS
            config.synchronization_model = STOR_SYNCHRONIZE_FULL_DUPLEX  # ST-09
            config.number_of_physical_breaks = 257  # pages (MB-14)
            config.feature_support |= STOR_ADAPTER_FEATURE_ABORT_COMMAND  # ABORT_COMMAND is welcome (ST-14)
        else:
            config.map_buffers = False  # data are moved by DMA only (CF-02)
            config.number_of_physical_breaks = 255  # breaks between elements (CF-06)
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        if self.dump:  # DM-05: the adapter may still have commands of the system that has crashed
            self.chip.reset_bus()
            self.chip.acknowledge()
            self.chip.completed.clear()
        self.chip.interrupts_enabled = True
        return True

    # -- 2. Start a request ------------------------------------------------------------------------------------

    def hw_build_io(self, srb: Srb) -> bool:
        """Storport calls this without any lock, so it touches the SRB and nothing of `self` (ST-04)."""
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI:
            return True
        task = Task(srb.cdb)
        task.owner = srb
        if srb.srb_flags & SRB_FLAGS_QUEUE_ACTION_ENABLE:
            task.attribute = srb.queue_action
        if srb.data_transfer_length and srb.srb_flags & (SRB_FLAGS_DATA_IN | SRB_FLAGS_DATA_OUT):
            to_guest = bool(srb.srb_flags & SRB_FLAGS_DATA_IN)
            task.direction = DATA_IN if to_guest else DATA_OUT
            try:
                task.data = self.chip.map(srb, self.segments_of(srb), to_guest)
            except DmaFault:
                srb.srb_status = SRB_STATUS_INTERNAL_ERROR
                self.port.notification(REQUEST_COMPLETE, srb)
                return False  # ST-05: completed here, so it must not be started
        srb.srb_extension.task = task
        return True

    def segments_of(self, srb: Srb) -> list[tuple[int, int]]:
        """Where the request's data lie: (bus address, length) pieces."""
        if self.storport:
            return list(cast(StorPortServices, self.port).get_scatter_gather_list(srb) or ())
        # SCSI Port has no ready-made list: ask for one contiguous piece after the other (CF-04).
        segments: list[tuple[int, int]] = []
        done = 0
        while done < srb.data_transfer_length:
            found = self.port.get_physical_address(srb, srb.data_buffer + done)
            if found is None:
                raise DmaFault(0, srb.data_transfer_length - done, "the port has no physical address for it")
            address, length = found
            length = min(length, srb.data_transfer_length - done)
            segments.append((address, length))
            done += length
        return segments

    def hw_start_io(self, srb: Srb) -> bool:
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI:
            self.control(srb)
            if not self.storport:
                self.port.notification(NEXT_REQUEST)
            return True
        # Needed after the completion, when the SRB is not ours any more (OW-01).
        path, target, lun, tag = srb.path_id, srb.target_id, srb.lun, srb.queue_tag
        # SCSI Port has no BuildIo: it is the first half of StartIo.
        built = self.storport or self.hw_build_io(srb)
        if built and self.chip.start(target, lun, srb.srb_extension.task):
            self.end(srb, srb.srb_extension.task)  # it has ended already (ST-12)
        if not self.storport:
            # SP-07: one "next" for each SRB; SP-11, SP-12: for the unit itself only when the request is tagged.
            if tag == SP_UNTAGGED:
                self.port.notification(NEXT_REQUEST)
            else:
                self.port.notification(NEXT_LU_REQUEST, path, target, lun)
        return True  # SP-06

    # -- 3. End a request --------------------------------------------------------------------------------------

    def hw_interrupt(self) -> bool:
        if not self.chip.asserted:
            return False  # IN-01: somebody else's
        self.chip.acknowledge()  # IN-02
        self.reap()
        return True

    def reap(self) -> None:
        """Complete what the chip has finished."""
        while self.chip.completed:
            task = self.chip.completed.popleft()
            self.end(task.owner, task)

    def end(self, srb: Srb, task: Task) -> None:
        """How the command ended, in the SRB; then the SRB is the port's."""
        if task.response:
            srb.srb_status = BUS_STATUS.get(task.response, SRB_STATUS_INTERNAL_ERROR)
            srb.data_transfer_length = task.transferred
            if task.response == RESPONSE_NO_TARGET:
                self.port.log_error(srb, srb.path_id, srb.target_id, srb.lun, SP_BUS_TIME_OUT, 1)  # ER-02
        elif task.status != SCSISTAT_GOOD:
            srb.srb_status = SRB_STATUS_ERROR  # OW-04
            srb.scsi_status = task.status
            srb.data_transfer_length = min(task.transferred, srb.data_transfer_length)
            self.add_sense(srb, task)
        elif task.transferred != srb.data_transfer_length or task.overrun:
            srb.srb_status = SRB_STATUS_DATA_OVERRUN  # OW-07: also for too little
            srb.data_transfer_length = task.transferred
            if task.overrun:
                self.port.log_error(srb, srb.path_id, srb.target_id, srb.lun, SP_PROTOCOL_ERROR, 2)  # ER-02
        else:
            srb.srb_status = SRB_STATUS_SUCCESS
        self.complete(srb)

    def add_sense(self, srb: Srb, task: Task) -> None:
        room = srb.sense_info_buffer_length
        if task.sense and room and not srb.srb_flags & SRB_FLAGS_DISABLE_AUTOSENSE:  # ER-04
            srb.sense_info_buffer = bytes(task.sense[:room])
            srb.sense_info_buffer_length = len(srb.sense_info_buffer)
            srb.srb_status |= SRB_STATUS_AUTOSENSE_VALID

    def complete(self, srb: Srb) -> None:
        self.port.notification(REQUEST_COMPLETE, srb)

    # -- 4. What is no command ---------------------------------------------------------------------------------

    def control(self, srb: Srb) -> None:
        worked = True
        failure = SRB_STATUS_NO_DEVICE
        if srb.function == SRB_FUNCTION_ABORT_COMMAND:
            worked, failure = self.abort(srb), SRB_STATUS_ABORT_FAILED
        elif srb.function == SRB_FUNCTION_RESET_LOGICAL_UNIT:
            worked = self.chip.reset_unit(srb.target_id, srb.lun)
        elif srb.function == SRB_FUNCTION_RESET_DEVICE:
            worked = self.chip.reset_target(srb.target_id)
        elif srb.function == SRB_FUNCTION_RESET_BUS:
            worked = self.hw_reset_bus(srb.path_id)
        elif srb.function not in (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN, SRB_FUNCTION_POWER):
            worked, failure = False, SRB_STATUS_INVALID_REQUEST  # ER-17
        # What the reset or abort ended goes first (RS-02).
        self.chip.acknowledge()
        self.reap()
        srb.srb_status = SRB_STATUS_SUCCESS if worked else failure
        self.complete(srb)

    def abort(self, srb: Srb) -> bool:
        """ER-08."""
        victim = srb.next_srb
        if victim is None:
            return False
        if not self.storport:
            port = cast(ScsiPortServices, self.port)
            if port.get_srb(srb.path_id, srb.target_id, srb.lun, victim.queue_tag) != victim:
                return False
        return any(task.owner == victim and self.chip.abort(task) for task in list(self.chip.active))

    def hw_reset_bus(self, path_id: int) -> bool:
        """ER-11, RS-03: everything the chip has comes back now."""
        self.chip.reset_bus()
        self.chip.acknowledge()
        self.reap()
        return True

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            for supported in (SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER):
                if supported < parameters.max_control_type:  # RS-05
                    parameters[supported] = True
            return 0
        if control_type in (SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER):
            self.chip.interrupts_enabled = control_type == SCSI_RESTART_ADAPTER
            return 0
        return 1
