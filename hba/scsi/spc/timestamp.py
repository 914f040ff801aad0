"""REPORT TIMESTAMP and SET TIMESTAMP (SPC-4): milliseconds, from power on until somebody sets them."""

from __future__ import annotations

from hba.clock import MS
from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.sense import PARAMETER_LIST_LENGTH_ERROR, TIMESTAMP_CHANGED, CheckCondition
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task

commands = CommandTable()

_INITIALIZED_BY_COMMAND = 2


@commands.add("a3 0f 00000000 ffffffff 00 00", "REPORT TIMESTAMP", service=True, allocation=(6, 4))
def report_timestamp(unit: DeviceServer, task: Task) -> bytes:
    origin, offset = unit.timestamp
    value = ((unit.clock.now() - unit.started_at) // MS + offset) & 0xFFFFFFFFFFFF
    return b"\x00\x0a" + bytes((origin, 0)) + value.to_bytes(6, "big") + bytes(2)


@commands.add("a4 0f 00000000 ffffffff 00 00", "SET TIMESTAMP", service=True, access=CONFLICTS)
def set_timestamp(unit: DeviceServer, task: Task) -> None:
    length = int.from_bytes(task.cdb[6:10], "big")
    if not length:
        return
    data = unit.parameters(task, length) if length <= 4096 else b""
    if len(data) < length or length < 12:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    now = (unit.clock.now() - unit.started_at) // MS
    unit.timestamp = (_INITIALIZED_BY_COMMAND, int.from_bytes(data[4:10], "big") - now)
    unit.attention(TIMESTAMP_CHANGED, but=task.initiator)
