"""The SCSI_REQUEST_BLOCK and its numbers: the vocabulary the adapters, the port and the miniports share.

Source: SCSI_REQUEST_BLOCK (srb.h) with its special versions SCSI_POWER_REQUEST_BLOCK, SCSI_PNP_REQUEST_BLOCK and
SCSI_WMI_REQUEST_BLOCK, STORAGE_REQUEST_BLOCK (srb.h) of Microsoft's storage documentation; numbers as in those headers.
Names are Microsoft's in Python spelling. Plain ints, because the hot path compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hba.dma import DmaBuffer

# -- Function ---------------------------------------------------------------------------------------------------
SRB_FUNCTION_EXECUTE_SCSI: Final = 0x00
SRB_FUNCTION_CLAIM_DEVICE: Final = 0x01
SRB_FUNCTION_IO_CONTROL: Final = 0x02
SRB_FUNCTION_RECEIVE_EVENT: Final = 0x03
SRB_FUNCTION_RELEASE_QUEUE: Final = 0x04
SRB_FUNCTION_ATTACH_DEVICE: Final = 0x05
SRB_FUNCTION_RELEASE_DEVICE: Final = 0x06
SRB_FUNCTION_SHUTDOWN: Final = 0x07
SRB_FUNCTION_FLUSH: Final = 0x08
SRB_FUNCTION_ABORT_COMMAND: Final = 0x10
SRB_FUNCTION_RELEASE_RECOVERY: Final = 0x11
SRB_FUNCTION_RESET_BUS: Final = 0x12
SRB_FUNCTION_RESET_DEVICE: Final = 0x13
SRB_FUNCTION_TERMINATE_IO: Final = 0x14
SRB_FUNCTION_FLUSH_QUEUE: Final = 0x15
SRB_FUNCTION_REMOVE_DEVICE: Final = 0x16
SRB_FUNCTION_WMI: Final = 0x17
SRB_FUNCTION_LOCK_QUEUE: Final = 0x18
SRB_FUNCTION_UNLOCK_QUEUE: Final = 0x19
SRB_FUNCTION_QUIESCE_DEVICE: Final = 0x1A
SRB_FUNCTION_RESET_LOGICAL_UNIT: Final = 0x20
SRB_FUNCTION_SET_LINK_TIMEOUT: Final = 0x21
SRB_FUNCTION_LINK_TIMEOUT_OCCURRED: Final = 0x22
SRB_FUNCTION_LINK_TIMEOUT_COMPLETE: Final = 0x23
SRB_FUNCTION_POWER: Final = 0x24
SRB_FUNCTION_PNP: Final = 0x25
SRB_FUNCTION_DUMP_POINTERS: Final = 0x26
SRB_FUNCTION_FREE_DUMP_POINTERS: Final = 0x27
SRB_FUNCTION_STORAGE_REQUEST_BLOCK: Final = 0x28

FUNCTION_NAMES: dict[int, str] = {
    value: name.removeprefix("SRB_FUNCTION_")
    for name, value in list(globals().items())
    if name.startswith("SRB_FUNCTION_")
}

# -- SrbStatus --------------------------------------------------------------------------------------------------
SRB_STATUS_PENDING: Final = 0x00
SRB_STATUS_SUCCESS: Final = 0x01
SRB_STATUS_ABORTED: Final = 0x02
SRB_STATUS_ABORT_FAILED: Final = 0x03
SRB_STATUS_ERROR: Final = 0x04
SRB_STATUS_BUSY: Final = 0x05
SRB_STATUS_INVALID_REQUEST: Final = 0x06
SRB_STATUS_INVALID_PATH_ID: Final = 0x07
SRB_STATUS_NO_DEVICE: Final = 0x08
SRB_STATUS_TIMEOUT: Final = 0x09
SRB_STATUS_SELECTION_TIMEOUT: Final = 0x0A
SRB_STATUS_COMMAND_TIMEOUT: Final = 0x0B
SRB_STATUS_MESSAGE_REJECTED: Final = 0x0D
SRB_STATUS_BUS_RESET: Final = 0x0E
SRB_STATUS_PARITY_ERROR: Final = 0x0F
SRB_STATUS_REQUEST_SENSE_FAILED: Final = 0x10
SRB_STATUS_NO_HBA: Final = 0x11
SRB_STATUS_DATA_OVERRUN: Final = 0x12  # also underrun
SRB_STATUS_UNEXPECTED_BUS_FREE: Final = 0x13
SRB_STATUS_PHASE_SEQUENCE_FAILURE: Final = 0x14
SRB_STATUS_BAD_SRB_BLOCK_LENGTH: Final = 0x15
SRB_STATUS_REQUEST_FLUSHED: Final = 0x16
SRB_STATUS_INVALID_LUN: Final = 0x20
SRB_STATUS_INVALID_TARGET_ID: Final = 0x21
SRB_STATUS_BAD_FUNCTION: Final = 0x22
SRB_STATUS_ERROR_RECOVERY: Final = 0x23
SRB_STATUS_NOT_POWERED: Final = 0x24
SRB_STATUS_LINK_DOWN: Final = 0x25
SRB_STATUS_INTERNAL_ERROR: Final = 0x30

# Every status there is, modifiers off, but PENDING, which no completed SRB may have (OW-03).
SRB_STATUSES = frozenset({*range(0x01, 0x0C), *range(0x0D, 0x17), *range(0x20, 0x26), SRB_STATUS_INTERNAL_ERROR})

STATUS_NAMES: dict[int, str] = {
    value: name.removeprefix("SRB_STATUS_") for name, value in list(globals().items()) if name.startswith("SRB_STATUS_")
}

SRB_STATUS_QUEUE_FROZEN: Final = 0x40  # modifier, set by the port only
SRB_STATUS_AUTOSENSE_VALID: Final = 0x80  # modifier
SRB_STATUS_MASK: Final = 0x3F

# -- ScsiStatus (SAM) ------------------------------------------------------------------------------------------
SCSISTAT_GOOD: Final = 0x00
SCSISTAT_CHECK_CONDITION: Final = 0x02
SCSISTAT_CONDITION_MET: Final = 0x04
SCSISTAT_BUSY: Final = 0x08
SCSISTAT_INTERMEDIATE: Final = 0x10
SCSISTAT_INTERMEDIATE_COND_MET: Final = 0x14
SCSISTAT_RESERVATION_CONFLICT: Final = 0x18
SCSISTAT_COMMAND_TERMINATED: Final = 0x22
SCSISTAT_QUEUE_FULL: Final = 0x28
SCSISTAT_ACA_ACTIVE: Final = 0x30
SCSISTAT_TASK_ABORTED: Final = 0x40

# -- SrbFlags --------------------------------------------------------------------------------------------------
SRB_FLAGS_NO_DATA_TRANSFER: Final = 0x00000000
SRB_FLAGS_QUEUE_ACTION_ENABLE: Final = 0x00000002
SRB_FLAGS_DISABLE_DISCONNECT: Final = 0x00000004
SRB_FLAGS_DISABLE_SYNCH_TRANSFER: Final = 0x00000008
SRB_FLAGS_BYPASS_FROZEN_QUEUE: Final = 0x00000010
SRB_FLAGS_DISABLE_AUTOSENSE: Final = 0x00000020
SRB_FLAGS_DATA_IN: Final = 0x00000040
SRB_FLAGS_DATA_OUT: Final = 0x00000080
SRB_FLAGS_UNSPECIFIED_DIRECTION: Final = 0x000000C0
SRB_FLAGS_NO_QUEUE_FREEZE: Final = 0x00000100
SRB_FLAGS_ADAPTER_CACHE_ENABLE: Final = 0x00000200
SRB_FLAGS_FREE_SENSE_BUFFER: Final = 0x00000400
SRB_FLAGS_IS_ACTIVE: Final = 0x00010000
SRB_FLAGS_ALLOCATED_FROM_ZONE: Final = 0x00020000
SRB_FLAGS_SGLIST_FROM_POOL: Final = 0x00040000
SRB_FLAGS_BYPASS_LOCKED_QUEUE: Final = 0x00080000
SRB_FLAGS_NO_KEEP_AWAKE: Final = 0x00100000
SRB_FLAGS_PORT_DRIVER_ALLOCSENSE: Final = 0x00200000
SRB_FLAGS_PORT_DRIVER_SENSEHASPORT: Final = 0x00400000
SRB_FLAGS_DONT_START_NEXT_PACKET: Final = 0x00800000
SRB_FLAGS_PORT_DRIVER_RESERVED: Final = 0x0F000000
SRB_FLAGS_CLASS_DRIVER_RESERVED: Final = 0xF0000000

FLAG_NAMES: dict[int, str] = {
    value: name.removeprefix("SRB_FLAGS_")
    for name, value in list(globals().items())
    if name.startswith("SRB_FLAGS_") and not name.endswith("_RESERVED") and value.bit_count() == 1
}

# -- power, PnP and WMI requests (SCSI_POWER_, SCSI_PNP_, SCSI_WMI_REQUEST_BLOCK) ------------------------------
SRB_POWER_FLAGS_ADAPTER_REQUEST: Final = 0x01
SRB_PNP_FLAGS_ADAPTER_REQUEST: Final = 0x01
SRB_WMI_FLAGS_ADAPTER_REQUEST: Final = 0x01

# STOR_DEVICE_POWER_STATE
STOR_POWER_DEVICE_UNSPECIFIED: Final = 0
STOR_POWER_DEVICE_D0: Final = 1
STOR_POWER_DEVICE_D1: Final = 2
STOR_POWER_DEVICE_D2: Final = 3
STOR_POWER_DEVICE_D3: Final = 4

# STOR_POWER_ACTION
STOR_POWER_ACTION_NONE: Final = 0
STOR_POWER_ACTION_RESERVED: Final = 1
STOR_POWER_ACTION_SLEEP: Final = 2
STOR_POWER_ACTION_HIBERNATE: Final = 3
STOR_POWER_ACTION_SHUTDOWN: Final = 4
STOR_POWER_ACTION_SHUTDOWN_RESET: Final = 5
STOR_POWER_ACTION_SHUTDOWN_OFF: Final = 6
STOR_POWER_ACTION_WARM_EJECT: Final = 7

# STOR_PNP_ACTION
STOR_START_DEVICE: Final = 0x00
STOR_REMOVE_DEVICE: Final = 0x02
STOR_STOP_DEVICE: Final = 0x04
STOR_QUERY_CAPABILITIES: Final = 0x09
STOR_QUERY_RESOURCE_REQUIREMENTS: Final = 0x0B
STOR_FILTER_RESOURCE_REQUIREMENTS: Final = 0x0D
STOR_SURPRISE_REMOVAL: Final = 0x17

# -- QueueAction and tags --------------------------------------------------------------------------------------
SRB_SIMPLE_TAG_REQUEST: Final = 0x20
SRB_HEAD_OF_QUEUE_TAG_REQUEST: Final = 0x21
SRB_ORDERED_QUEUE_TAG_REQUEST: Final = 0x22
SP_UNTAGGED: Final = 0xFF

Completion = Callable[["Srb"], None]


class SenseInfoBuffer:
    """`srb.sense_info_buffer`: the address of a request's sense buffer, and the sense data that are in it.

    As bytes it is what was put there: assigned (`srb.sense_info_buffer = sense`), written by index, or moved there by
    the adapter's DMA to the address that `get_physical_address(srb, srb.sense_info_buffer)` gave.
    """

    __slots__ = ("offset", "srb")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, srb: Srb, offset: int = 0) -> None:
        self.srb = srb
        self.offset = offset

    @property
    def room(self) -> int:
        """SenseInfoBufferLength: bytes there are."""
        return self.srb.sense_info_buffer_length

    def __bytes__(self) -> bytes:
        return self.srb.sense[self.offset :]

    def __len__(self) -> int:
        return max(0, len(self.srb.sense) - self.offset)

    def __bool__(self) -> bool:
        return bool(self.srb.sense)

    def __add__(self, offset: int) -> SenseInfoBuffer:
        return SenseInfoBuffer(self.srb, self.offset + offset)

    def __getitem__(self, index: slice) -> bytes:
        return bytes(self)[index.start : index.stop : index.step]

    def __setitem__(self, index: slice, data: bytes) -> None:
        """Like memcpy: `buffer[0:18] = sense`."""
        start = self.offset + (index.start or 0)
        self.srb.sense = self.srb.sense[:start].ljust(start, b"\0") + data + self.srb.sense[start + len(data) :]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (bytes, SenseInfoBuffer)) and bytes(self) == bytes(other)

    def __repr__(self) -> str:
        return f"<SenseInfoBuffer {bytes(self).hex()}>"


# Members of the special versions of the block: power, PnP and WMI requests.
SPECIAL_MEMBERS = (
    "srb_power_flags",
    "device_power_state",
    "power_action",
    "srb_pnp_flags",
    "pnp_action",
    "pnp_sub_function",
    "wmi_flags",
    "wmi_sub_function",
    "data_path",
)


def is_srb(something: object) -> bool:
    """Whether it is an SRB, or what a miniport was given in place of one."""
    return hasattr(something, "_port")


class Srb:
    """One request on its way from the adapter through the port and a miniport, and back.

    Fields up to `cdb` are the documented ones. What follows belongs to the port (names start with an underscore)
    or to whoever made the request (`completion`, `context`); a miniport must not touch it.

    Defaults are class attributes, so making one costs only the fields that differ.
    """

    length = 0x58  # sizeof(SCSI_REQUEST_BLOCK), 64-bit
    function = SRB_FUNCTION_EXECUTE_SCSI
    srb_status = SRB_STATUS_PENDING
    scsi_status = SCSISTAT_GOOD
    path_id = 0
    target_id = 0
    lun = 0
    queue_tag = SP_UNTAGGED
    queue_action = SRB_SIMPLE_TAG_REQUEST
    cdb_length = 0
    sense_info_buffer_length = 0
    srb_flags = 0
    data_transfer_length = 0  # bytes asked for; on completion, bytes really moved
    time_out_value = 0  # seconds; 0: the port's default
    data_buffer: Any = None  # what the miniport gets to see: MappedBuffer, OpaqueBuffer or None (hba.port.buffers)
    next_srb: Any = None  # the victim of ABORT_COMMAND / TERMINATE_IO, as the miniport knows it
    original_request: Any = None
    srb_extension: Any = None  # hba.miniport.memory.SrbExtension, while a miniport that asked for it has the request
    queue_sort_key = 0  # first LBA where the command has one
    internal_status = 0
    cdb: bytes = b""

    # of a SCSI_POWER_REQUEST_BLOCK
    srb_power_flags = 0
    device_power_state = STOR_POWER_DEVICE_UNSPECIFIED
    power_action = STOR_POWER_ACTION_NONE
    # of a SCSI_PNP_REQUEST_BLOCK
    srb_pnp_flags = 0
    pnp_action = STOR_START_DEVICE
    pnp_sub_function = 0  # not used by the port, ignored by miniports
    # of a SCSI_WMI_REQUEST_BLOCK
    wmi_flags = 0
    wmi_sub_function = 0  # the minor code of the WMI IRP
    data_path = 0

    # the one who made it
    completion: Completion | None = None  # called exactly once, never from inside a miniport callback
    context: Any = None
    mdl: DmaBuffer | None = None  # the guest's memory behind data_buffer; None: no data

    # the port's own
    _port: Any = None
    _sense: bytes = b""
    _sense_memory: memoryview | None = None

    def __init__(
        self,
        function: int = SRB_FUNCTION_EXECUTE_SCSI,
        path_id: int = 0,
        target_id: int = 0,
        lun: int = 0,
        completion: Completion | None = None,
    ) -> None:
        self.function = function
        self.path_id = path_id
        self.target_id = target_id
        self.lun = lun
        self.completion = completion

    @property
    def sense_info_buffer(self) -> Any:
        """The address of the sense buffer, a `SenseInfoBuffer`; assigning bytes copies them into it."""
        return SenseInfoBuffer(self)

    @sense_info_buffer.setter
    def sense_info_buffer(self, data: Any) -> None:
        self.sense = bytes(data)

    @property
    def sense(self) -> bytes:
        """What is in the sense buffer."""
        memory = self._sense_memory
        return self._sense if memory is None else bytes(memory[: self.sense_info_buffer_length])

    @sense.setter
    def sense(self, data: bytes) -> None:
        self._sense = data
        memory = self._sense_memory
        if memory is not None:
            memory[: len(data)] = data[: len(memory)]

    def use_sense_memory(self, memory: memoryview | None) -> None:
        """For the port: the sense buffer lies there from now on; None: no more, and what is in it stays."""
        if memory is None:
            self._sense = self.sense
        self._sense_memory = memory

    def __repr__(self) -> str:
        return (
            f"<Srb {self.function:#04x} {self.path_id}:{self.target_id}:{self.lun} cdb={self.cdb.hex()} "
            f"status={self.srb_status:#04x}/{self.scsi_status:#04x}>"
        )
