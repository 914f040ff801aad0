"""Every SRB that comes from above a port: one function for each kind, the only place that makes them.

Sources: SCSI_REQUEST_BLOCK, SCSI_POWER_REQUEST_BLOCK, SCSI_PNP_REQUEST_BLOCK, SCSI_WMI_REQUEST_BLOCK (srb.h);
SRB_IO_CONTROL (ntddscsi.h); Storage Class Driver's BuildRequest Routine; Locking SCSI Port Driver's Internal Queue.
`completion` is set by whoever sends one.
"""

from __future__ import annotations

import struct
from typing import Final

from hba.dma import DmaBuffer
from hba.miniport.bounce import bounce_buffer
from hba.srb import (
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_FUNCTION_WMI,
    SRB_PNP_FLAGS_ADAPTER_REQUEST,
    SRB_POWER_FLAGS_ADAPTER_REQUEST,
    SRB_WMI_FLAGS_ADAPTER_REQUEST,
    STOR_POWER_ACTION_NONE,
    Srb,
)

SENSE_LENGTH: Final = 252  # SenseInfoBufferLength of a class driver that knows descriptor sense data
TIME_OUT: Final = 10  # seconds, of requests that have none of their own
# SRB_IO_CONTROL: HeaderLength, Signature, Timeout, ControlCode, ReturnCode, Length
IO_CONTROL_HEADER: Final = struct.Struct("<I8sIIII")

Unit = tuple[int, int, int]  # path, target, lun
ADAPTER: Final[Unit] = (0, 0, 0)  # what the address says where a flag says that the request is for the adapter


def control(function: int, unit: Unit, flags: int = 0, time_out: int = TIME_OUT) -> Srb:
    """A request that is a function and an address: FLUSH, SHUTDOWN, the queue functions, resets."""
    srb = Srb(function, *unit)
    srb.srb_flags = flags
    if function == SRB_FUNCTION_UNLOCK_QUEUE:
        srb.srb_flags |= SRB_FLAGS_BYPASS_LOCKED_QUEUE  # or it would wait behind the lock it is to open
    srb.time_out_value = time_out
    return srb


def flush(unit: Unit) -> Srb:
    return control(SRB_FUNCTION_FLUSH, unit)


def command(unit: Unit, cdb: bytes, data: DmaBuffer | None = None, flags: int = 0, time_out: int = TIME_OUT) -> Srb:
    """EXECUTE_SCSI. `flags` has the direction where there are data; errors do not freeze the queue by themselves."""
    srb = Srb(SRB_FUNCTION_EXECUTE_SCSI, *unit)
    srb.cdb = cdb
    srb.cdb_length = len(cdb)
    srb.srb_flags = flags
    srb.sense_info_buffer_length = SENSE_LENGTH
    srb.time_out_value = time_out
    if data is not None:
        srb.mdl = data
        srb.data_transfer_length = data.length
    return srb


def read_in(unit: Unit, cdb: bytes, length: int, time_out: int = TIME_OUT) -> Srb:
    """A command of the class driver's own that brings at most `length` bytes; they are in `srb.mdl`."""
    data = bounce_buffer(length) if length else None
    direction = SRB_FLAGS_DATA_IN if length else 0
    return command(unit, cdb, data, direction | SRB_FLAGS_NO_QUEUE_FREEZE, time_out)


def io_control(unit: Unit, signature: bytes, control_code: int, data: bytes, time_out: int = TIME_OUT) -> Srb:
    """IO_CONTROL (IOCTL_SCSI_MINIPORT): an SRB_IO_CONTROL header of 28 bytes, then `data`, which the miniport may
    change in place. Raises ValueError for a signature of more than 8 bytes."""
    if len(signature) > 8:
        raise ValueError(f"a signature of {len(signature)} bytes; SRB_IO_CONTROL has room for 8")
    header = IO_CONTROL_HEADER.pack(IO_CONTROL_HEADER.size, signature, time_out, control_code, 0, len(data))
    buffer = bounce_buffer(len(header) + len(data))
    buffer.write(header + data)
    srb = Srb(SRB_FUNCTION_IO_CONTROL, *unit)
    srb.srb_flags = SRB_FLAGS_UNSPECIFIED_DIRECTION
    srb.time_out_value = time_out
    srb.mdl = buffer
    srb.data_transfer_length = buffer.length
    return srb


def wmi(unit: Unit | None, minor: int, data_path: int, data: bytes, time_out: int = TIME_OUT) -> Srb:
    """A WMI request; `unit` None: for the adapter. `minor`: of the WMI IRP (IRP_MN_QUERY_ALL_DATA is 0)."""
    srb = Srb(SRB_FUNCTION_WMI, *(unit or ADAPTER))
    srb.wmi_flags = 0 if unit else SRB_WMI_FLAGS_ADAPTER_REQUEST
    srb.wmi_sub_function = minor
    srb.data_path = data_path
    srb.time_out_value = time_out
    if data:
        srb.mdl = bounce_buffer(len(data))
        srb.mdl.write(data)
        srb.data_transfer_length = len(data)
        srb.srb_flags = SRB_FLAGS_DATA_IN | SRB_FLAGS_DATA_OUT
    return srb


def power(unit: Unit | None, state: int, action: int = STOR_POWER_ACTION_NONE, flags: int = 0) -> Srb:
    """A POWER request: STOR_DEVICE_POWER_STATE and STOR_POWER_ACTION; `unit` None: for the adapter."""
    srb = Srb(SRB_FUNCTION_POWER, *(unit or ADAPTER))
    srb.srb_power_flags = 0 if unit else SRB_POWER_FLAGS_ADAPTER_REQUEST
    srb.device_power_state = state
    srb.power_action = action
    srb.srb_flags = flags
    srb.time_out_value = TIME_OUT
    return srb


def pnp(unit: Unit | None, action: int) -> Srb:
    """A PNP request (STOR_PNP_ACTION); `unit` None: for the adapter."""
    srb = Srb(SRB_FUNCTION_PNP, *(unit or ADAPTER))
    srb.srb_pnp_flags = 0 if unit else SRB_PNP_FLAGS_ADAPTER_REQUEST
    srb.pnp_action = action
    srb.time_out_value = TIME_OUT
    return srb
