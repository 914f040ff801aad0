"""The SG_IO ioctl once more, without the code under test: what the real device says is the measure of what we pass on.

Source: scsi/sg.h (struct sg_io_hdr, interface version 3).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import NamedTuple

SG_IO = 0x2285
NONE, TO_DEVICE, FROM_DEVICE = -1, -2, -3
# interface_id, dxfer_direction, cmd_len, mx_sb_len, iovec_count, dxfer_len, dxferp, cmdp, sbp, timeout, flags, pack_id,
# usr_ptr, status, masked_status, msg_status, sb_len_wr, host_status, driver_status, resid, duration, info
HEADER = struct.Struct("@iiBBHIPPPIIiPBBBBHHiII")


class Answer(NamedTuple):
    status: int
    sense: bytes
    data: bytes


def send(node: str, cdb: bytes, room: int = 0) -> Answer:
    """One command that reads at most `room` bytes, straight to the device."""
    command, sense, data = (ctypes.create_string_buffer(size) for size in (len(cdb), 252, max(1, room)))
    command.raw = cdb
    direction = FROM_DEVICE if room else NONE
    places = [ctypes.addressof(buffer) for buffer in (data, command, sense)]
    header = bytearray(HEADER.pack(ord("S"), direction, len(cdb), 252, 0, room, *places, 30_000, *[0] * 12))
    fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, SG_IO, header)
    finally:
        os.close(fd)
    fields = HEADER.unpack(header)
    status, sense_length, host, residual = fields[13], fields[16], fields[17], fields[19]
    assert host == 0, f"{node}: host status {host:#x}"
    return Answer(status, sense.raw[:sense_length], data.raw[: room - residual])
