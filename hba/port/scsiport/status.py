"""SrbStatus as the NTSTATUS an upper driver sees (ER-16; as in ReactOS, where the documents are silent)."""

from __future__ import annotations

from typing import Final

from hba import srb as s

STATUS_SUCCESS: Final = 0x00000000
STATUS_BUFFER_OVERFLOW: Final = 0x80000005
STATUS_INVALID_DEVICE_REQUEST: Final = 0xC0000010
STATUS_DEVICE_NOT_CONNECTED: Final = 0xC000009D
STATUS_IO_TIMEOUT: Final = 0xC00000B5
STATUS_DEVICE_DOES_NOT_EXIST: Final = 0xC00000C0
STATUS_IO_DEVICE_ERROR: Final = 0xC0000185
STATUS_DEVICE_NOT_READY: Final = 0xC00000A3

_NTSTATUS = {
    s.SRB_STATUS_SUCCESS: STATUS_SUCCESS,
    s.SRB_STATUS_TIMEOUT: STATUS_IO_TIMEOUT,
    s.SRB_STATUS_COMMAND_TIMEOUT: STATUS_IO_TIMEOUT,
    s.SRB_STATUS_BAD_SRB_BLOCK_LENGTH: STATUS_INVALID_DEVICE_REQUEST,
    s.SRB_STATUS_BAD_FUNCTION: STATUS_INVALID_DEVICE_REQUEST,
    s.SRB_STATUS_NO_DEVICE: STATUS_DEVICE_DOES_NOT_EXIST,
    s.SRB_STATUS_INVALID_LUN: STATUS_DEVICE_DOES_NOT_EXIST,
    s.SRB_STATUS_INVALID_TARGET_ID: STATUS_DEVICE_DOES_NOT_EXIST,
    s.SRB_STATUS_NO_HBA: STATUS_DEVICE_DOES_NOT_EXIST,
    s.SRB_STATUS_DATA_OVERRUN: STATUS_BUFFER_OVERFLOW,
    s.SRB_STATUS_SELECTION_TIMEOUT: STATUS_DEVICE_NOT_CONNECTED,
    s.SRB_STATUS_BUSY: STATUS_DEVICE_NOT_READY,  # ER-06: after the last retry
}
_NAMES = {value: name for name, value in list(globals().items()) if name.startswith("STATUS_")}


def ntstatus(srb_status: int) -> int:
    """For a whole SrbStatus byte, modifier bits included."""
    return _NTSTATUS.get(srb_status & s.SRB_STATUS_MASK, STATUS_IO_DEVICE_ERROR)


def ntstatus_name(srb_status: int) -> str:
    return _NAMES[ntstatus(srb_status)]
