"""The default miniport: bus-master DMA, tagged queuing, auto-sense. Runs unchanged under SCSI Port and Storport.

It programs `hba.miniport.chip`: one command per request, the data moved by the chip straight from and to the guest's
pages, commands that end at once completed from inside hw_start_io (ST-12), the others from hw_interrupt.

Options (`[adapter.miniport_options]`):
    next = "start_io" | "completion"    SCSI Port: when to say NextRequest / NextLuRequest. "start_io" (default) as
                                        early as SP-10 advises, so requests overlap; "completion" only when a request
                                        has ended, so the adapter has one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from hba.dma import DmaBuffer, Segment
from hba.errors import ConfigError, DmaFault
from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    SP_RETURN_FOUND,
    Miniport,
)
from hba.miniport.config import (
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    STOR_ADAPTER_FEATURE_ABORT_COMMAND,
    STOR_MAP_NON_READ_WRITE_BUFFERS,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    PortConfigurationInformation,
)
from hba.miniport.seen import SeenSrb
from hba.miniport.services import (
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    REQUEST_COMPLETE,
    SP_BUS_TIME_OUT,
    SP_PROTOCOL_ERROR,
    ScsiPortServices,
    StorPortServices,
)
from hba.native import mypyc_attr
from hba.scsi.task import (
    DATA_IN,
    DATA_OUT,
    RESPONSE_ABORTED,
    RESPONSE_COMPLETE,
    RESPONSE_NO_LUN,
    RESPONSE_NO_TARGET,
    RESPONSE_RESET,
    Task,
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
    SRB_FUNCTION_TERMINATE_IO,
    SRB_SIMPLE_TAG_REQUEST,
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
)

MAXIMUM_TRANSFER_LENGTH: Final = 0x0100_0000  # 16 MiB
MAXIMUM_ELEMENTS: Final = 4096  # of a scatter/gather list
RESPONSE_STATUS = {
    RESPONSE_NO_TARGET: SRB_STATUS_SELECTION_TIMEOUT,
    RESPONSE_NO_LUN: SRB_STATUS_INVALID_LUN,
    RESPONSE_ABORTED: SRB_STATUS_ABORTED,
    RESPONSE_RESET: SRB_STATUS_BUS_RESET,
}
SUPPORTED_CONTROLS = (
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_STOP_ADAPTER,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
)


@mypyc_attr(allow_interpreted_subclasses=True)
class DmaMiniport(Miniport):
    """See the module's text."""

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        unknown = sorted(set(self.options) - {"next"})
        when = self.options.get("next", "start_io")
        if unknown or when not in ("start_io", "completion"):
            wrong = ", ".join(unknown) or f"next = {when!r}"
            raise ConfigError(f'miniport_options of "dma": {wrong}: expected next = "start_io" or "completion"')
        config.maximum_transfer_length = min(config.maximum_transfer_length, MAXIMUM_TRANSFER_LENGTH)
        config.auto_request_sense = True
        config.tagged_queuing = True
        config.multiple_request_per_lu = True
        config.need_physical_addresses = True
        config.scatter_gather = True
        config.master = True
        config.dma64_bit_addresses = SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED
        self._dump = config.dump_mode != 0
        self._notification = self.port.notification
        self._start: Callable[[int, int, Task], bool] = self.chip.start
        self._map: Callable[[SeenSrb, Sequence[Segment], int], DmaBuffer] = self.chip.map
        self._next_at_completion = False
        if self.port.model == "storport":
            config.map_buffers = STOR_MAP_NON_READ_WRITE_BUFFERS
            config.synchronization_model = STOR_SYNCHRONIZE_FULL_DUPLEX
            config.number_of_physical_breaks = MAXIMUM_ELEMENTS
            config.feature_support |= STOR_ADAPTER_FEATURE_ABORT_COMMAND  # the chip can, so the port may ask (ST-14)
            config.initial_lun_queue_depth = config.max_ios_per_lun  # the chip has no limit below the port's
            self._stor: StorPortServices | None = cast(StorPortServices, self.port)
            self._segments: Callable[[SeenSrb], Sequence[Segment] | None] = self._stor.get_scatter_gather_list
        else:
            config.map_buffers = False
            config.number_of_physical_breaks = MAXIMUM_ELEMENTS - 1  # breaks, not elements (CF-06)
            self._next_in_start_io = when == "start_io"
            self._next_at_completion = when == "completion"
            self._stor = None
            self._segments = self._pieces
            self._get_physical_address = self.port.get_physical_address
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        if self._dump:  # DM-05: nothing of the crashed system goes on
            self.chip.reset_bus()
            self.chip.acknowledge()
            self.chip.completed.clear()
        self.chip.interrupts_enabled = True
        return True

    # -- starting a request -----------------------------------------------------------------------------------

    def _command(self, srb: SeenSrb) -> Task | None:
        """The chip's command for a request; None: its memory cannot be reached, and it was completed.

        Made in StartIo, and so without an SRB extension to keep it in: there is nothing in a plain command that BuildIo
        could do beforehand.
        """
        flags = srb.srb_flags
        if flags & SRB_FLAGS_UNSPECIFIED_DIRECTION and srb.data_transfer_length:
            # Both bits: the miniport decides (OW-06). Only the device knows; from it is what such a CDB mostly does.
            write = flags & SRB_FLAGS_DATA_IN
            try:
                segments = self._segments(srb)
                data = None if segments is None else self._map(srb, segments, write)
            except DmaFault:
                srb.srb_status = SRB_STATUS_INTERNAL_ERROR
                self._notification(REQUEST_COMPLETE, srb)
                return None
            task = Task(srb.cdb, DATA_IN if write else DATA_OUT, data)
        else:
            task = Task(srb.cdb)
        if flags & SRB_FLAGS_QUEUE_ACTION_ENABLE and (action := srb.queue_action) != SRB_SIMPLE_TAG_REQUEST:
            task.attribute = action
        task.owner = srb
        return task

    def hw_start_io(self, srb: SeenSrb) -> bool:
        """Always True (SP-06). SCSI Port has no BuildIo and wants to hear "next" (SP-07)."""
        if self._stor is not None:
            if srb.function != SRB_FUNCTION_EXECUTE_SCSI:
                self._control(srb)
                return True
            task = self._command(srb)
            if task is not None and self._start(srb.target_id, srb.lun, task):
                self._complete(srb, task)
            return True
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI:
            self._control(srb)
            self._notification(NEXT_REQUEST)
            return True
        # The SRB is not ours once it is complete (OW-01).
        untagged, path, target, lun = srb.queue_tag == SP_UNTAGGED, srb.path_id, srb.target_id, srb.lun
        task = self._command(srb)
        if task is None:
            self._notification(NEXT_REQUEST)
            return True
        if self._start(target, lun, task):
            self._complete(srb, task, next_request=False)
        elif not self._next_in_start_io:
            return True
        # SP-11, SP-12: the unit itself may get another only while nothing untagged is active on it.
        if untagged:
            self._notification(NEXT_REQUEST)
        else:
            self._notification(NEXT_LU_REQUEST, path, target, lun)
        return True

    def _pieces(self, srb: SeenSrb) -> list[tuple[int, int]]:
        """SCSI Port: walk the buffer, one physically contiguous piece at a time (CF-04)."""
        get_physical_address = self._get_physical_address
        buffer = srb.data_buffer
        found = get_physical_address(srb, buffer)
        left = srb.data_transfer_length
        if found is not None and found[1] == left:
            return [found]
        pieces: list[tuple[int, int]] = []
        while True:
            if found is None:
                raise DmaFault(0, left, "the port has no physical address for the data buffer")
            address, length = found
            if length > left:
                length = left
            pieces.append((address, length))
            left -= length
            if not left:
                return pieces
            buffer = buffer + length
            found = get_physical_address(srb, buffer)

    # -- completing it ----------------------------------------------------------------------------------------

    def _complete(self, srb: SeenSrb, task: Task, next_request: bool = True) -> None:
        """Turn the command's end into SrbStatus, ScsiStatus, sense and length, and hand the SRB back."""
        response = task.response
        if response == RESPONSE_COMPLETE:
            status = task.status
            if status == SCSISTAT_GOOD:
                # OW-07: more or less than asked for is DATA_OVERRUN with the true length.
                if task.transferred == srb.data_transfer_length and not task.overrun:
                    srb.srb_status = SRB_STATUS_SUCCESS
                else:
                    srb.srb_status = SRB_STATUS_DATA_OVERRUN
                    srb.data_transfer_length = task.transferred
                    if task.overrun:
                        self.port.log_error(srb, srb.path_id, srb.target_id, srb.lun, SP_PROTOCOL_ERROR, 2)  # ER-02
            else:
                self._failed(srb, task, status)
        else:
            srb.srb_status = RESPONSE_STATUS.get(response, SRB_STATUS_INTERNAL_ERROR)
            srb.data_transfer_length = task.transferred
            if response == RESPONSE_NO_TARGET:
                self.port.log_error(srb, srb.path_id, srb.target_id, srb.lun, SP_BUS_TIME_OUT, 1)  # ER-02
        self._notification(REQUEST_COMPLETE, srb)
        if next_request and self._next_at_completion:
            self._notification(NEXT_REQUEST)

    def _failed(self, srb: SeenSrb, task: Task, status: int) -> None:
        """Any SCSI status but GOOD: SRB_STATUS_ERROR (OW-04), with the sense data that came with it (ER-04)."""
        srb.scsi_status = status
        srb.srb_status = SRB_STATUS_ERROR
        srb.data_transfer_length = min(task.transferred, srb.data_transfer_length)
        room = srb.sense_info_buffer_length
        if not room or not task.sense or srb.srb_flags & SRB_FLAGS_DISABLE_AUTOSENSE:
            return
        sense = bytes(task.sense[:room])
        srb.sense_info_buffer = sense
        srb.sense_info_buffer_length = len(sense)
        srb.srb_status = SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID

    def hw_interrupt(self) -> bool:
        chip = self.chip
        if not chip.asserted:
            return False  # IN-01: another device on a shared line
        chip.acknowledge()  # IN-02: before taking the commands out, so that none ends unnoticed
        self._reap()
        return True

    def _reap(self) -> None:
        completed = self.chip.completed
        while completed:
            task = completed.popleft()
            self._complete(task.owner, task)

    # -- everything that is not a command ---------------------------------------------------------------------

    def _control(self, srb: SeenSrb) -> None:
        function = srb.function
        if function in (SRB_FUNCTION_ABORT_COMMAND, SRB_FUNCTION_TERMINATE_IO):
            status = SRB_STATUS_SUCCESS if self._abort(srb) else SRB_STATUS_ABORT_FAILED
        elif function == SRB_FUNCTION_RESET_LOGICAL_UNIT:
            status = SRB_STATUS_SUCCESS if self.chip.reset_unit(srb.target_id, srb.lun) else SRB_STATUS_NO_DEVICE
        elif function == SRB_FUNCTION_RESET_DEVICE:
            status = SRB_STATUS_SUCCESS if self.chip.reset_target(srb.target_id) else SRB_STATUS_NO_DEVICE
        elif function == SRB_FUNCTION_RESET_BUS:
            status = SRB_STATUS_SUCCESS if self.hw_reset_bus(srb.path_id) else SRB_STATUS_ERROR
        elif function in (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN, SRB_FUNCTION_POWER):
            status = SRB_STATUS_SUCCESS  # the chip has no cache and no power states of its own
        else:
            status = SRB_STATUS_INVALID_REQUEST  # ER-17
        # RS-02: what the abort or reset ended is complete before the request that asked for it.
        self.chip.acknowledge()
        self._reap()
        srb.srb_status = status
        self._notification(REQUEST_COMPLETE, srb)

    def _abort(self, srb: SeenSrb) -> bool:
        """ER-08: only a request we still have can be aborted."""
        victim = srb.next_srb
        if victim is None:
            return False
        if self._stor is None:
            port = cast(ScsiPortServices, self.port)
            if port.get_srb(srb.path_id, srb.target_id, srb.lun, victim.queue_tag) != victim:
                return False
        for task in self.chip.active:
            if task.owner == victim:  # equal, not identical: the verifier hands out guards
                return self.chip.abort(task)
        return False

    def hw_reset_bus(self, path_id: int) -> bool:
        """ER-11, RS-03: everything outstanding comes back with BUS_RESET before this returns."""
        self.chip.reset_bus()
        self.chip.acknowledge()
        self._reap()
        return True

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            for supported in SUPPORTED_CONTROLS:
                if supported < parameters.max_control_type:  # RS-05
                    parameters[supported] = True
        elif control_type == SCSI_STOP_ADAPTER:
            self.chip.interrupts_enabled = False
        elif control_type == SCSI_RESTART_ADAPTER:
            self.chip.interrupts_enabled = True
        elif control_type not in (SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG):
            return 1
        return 0
