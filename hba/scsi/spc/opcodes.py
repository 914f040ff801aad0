"""REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4), straight from the declarations."""

from __future__ import annotations

from hba.scsi.command import Command, CommandTable
from hba.scsi.sense import invalid_cdb
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task

commands = CommandTable()

_RCTD = 0x80
_NOT_SUPPORTED, _AS_STANDARD = 1, 3


def _timeouts(command: Command) -> bytes:
    """The command timeouts descriptor."""
    return b"\x00\x0a\x00\x00" + command.nominal.to_bytes(4, "big") + command.recommended.to_bytes(4, "big")


def _descriptor(command: Command, timeouts: bool) -> bytes:
    action = command.service_action
    data = bytes((command.opcode, 0))
    data += (action or 0).to_bytes(2, "big")
    data += bytes((0, (0x02 if timeouts else 0) | (0x01 if action is not None else 0)))
    data += command.length.to_bytes(2, "big")
    return data + (_timeouts(command) if timeouts else b"")


def _one(command: Command | None, timeouts: bool) -> bytes:
    if command is None:
        return bytes((0, _NOT_SUPPORTED, 0, 0))
    data = bytes((0, (0x80 if timeouts else 0) | _AS_STANDARD)) + command.length.to_bytes(2, "big") + command.usage
    return data + (_timeouts(command) if timeouts else b"")


@commands.add(
    "a3 0c 87 ff ffff ffffffff 00 00",
    "REPORT SUPPORTED OPERATION CODES",
    service=True,
    allocation=(6, 4),
    values={(2, 0x07): range(4)},
)
def report_supported_operation_codes(unit: DeviceServer, task: Task) -> bytes:
    """REPORTING OPTIONS 000b: all; 001b: one operation code without, 010b: with service actions; 011b: either."""
    cdb = task.cdb
    timeouts = bool(cdb[2] & _RCTD)
    options = cdb[2] & 0x07
    opcode, action = cdb[3], int.from_bytes(cdb[4:6], "big")
    if options == 0:
        body = b"".join(_descriptor(command, timeouts) for command in unit.commands)
        return len(body).to_bytes(4, "big") + body
    entry = unit.commands.entry(opcode)
    if options == 1:
        if isinstance(entry, dict):
            raise invalid_cdb(2, 2)
        return _one(entry, timeouts)
    if options == 2:
        if isinstance(entry, Command):
            raise invalid_cdb(2, 2)
        return _one(entry.get(action) if entry is not None else None, timeouts)
    if isinstance(entry, dict):
        return _one(entry.get(action), timeouts)
    return _one(entry if action == 0 else None, timeouts)


@commands.add(
    "a3 0d 80 000000 ffffffff 00 00",
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    service=True,
    allocation=(6, 4),
)
def report_supported_task_management_functions(unit: DeviceServer, task: Task) -> bytes:
    """ABORT TASK, ABORT TASK SET, LOGICAL UNIT RESET, TARGET RESET. The extended form (REPD) adds no times."""
    first = 0x80 | 0x40 | 0x08 | 0x02
    if task.cdb[2] & 0x80:
        return bytes((first, 0, 0, 12)) + bytes(12)
    return bytes((first, 0, 0, 0))
