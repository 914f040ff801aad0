"""READ BUFFER and WRITE BUFFER (SPC-4): one data buffer and the echo buffer. There is no microcode to load."""

from __future__ import annotations

from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.sense import COMMAND_SEQUENCE_ERROR, CheckCondition, invalid_cdb
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task
from hba.scsi.unit_state import DATA_CAPACITY, ECHO_CAPACITY

commands = CommandTable()

_DATA, _DESCRIPTOR, _ECHO, _ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B


@commands.add(
    "3c 1f ff ffffff ffffff 00",
    "READ BUFFER(10)",
    allocation=(6, 3),
    access=CONFLICTS,
    values={(1, 0x1F): (_DATA, _DESCRIPTOR, _ECHO, _ECHO_DESCRIPTOR)},
)
def read_buffer(unit: DeviceServer, task: Task) -> bytes:
    cdb = task.cdb
    mode, number, offset = cdb[1] & 0x1F, cdb[2], int.from_bytes(cdb[3:6], "big")
    if mode in (_DATA, _DESCRIPTOR) and number:
        if mode == _DESCRIPTOR:
            return bytes(4)  # SPC-4: a buffer that does not exist has a descriptor of zeros
        raise invalid_cdb(2)
    if mode == _DATA:
        if offset > DATA_CAPACITY:
            raise invalid_cdb(3)
        return bytes(unit.buffer[offset:].ljust(DATA_CAPACITY - offset, b"\x00"))
    if mode == _DESCRIPTOR:
        return b"\x00" + DATA_CAPACITY.to_bytes(3, "big")
    if mode == _ECHO:
        if not unit.echo:
            raise CheckCondition(COMMAND_SEQUENCE_ERROR)
        return unit.echo
    return bytes((0, 0)) + ECHO_CAPACITY.to_bytes(2, "big")


@commands.add("3b 1f ff ffffff ffffff 00", "WRITE BUFFER(10)", access=CONFLICTS, values={(1, 0x1F): (_DATA, _ECHO)})
def write_buffer(unit: DeviceServer, task: Task) -> None:
    cdb = task.cdb
    mode, number = cdb[1] & 0x1F, cdb[2]
    offset, length = int.from_bytes(cdb[3:6], "big"), int.from_bytes(cdb[6:9], "big")
    if mode == _DATA:
        if number:
            raise invalid_cdb(2)
        if offset + length > DATA_CAPACITY:
            raise invalid_cdb(6)
        data = unit.parameters(task, length)
        if len(data) < length:
            raise invalid_cdb(6)
        unit.buffer[len(unit.buffer) :] = bytes(max(0, offset - len(unit.buffer)))
        unit.buffer[offset : offset + length] = data
    else:
        if length > ECHO_CAPACITY:
            raise invalid_cdb(6)
        data = unit.parameters(task, length)
        if len(data) < length:
            raise invalid_cdb(6)
        unit.echo = data
