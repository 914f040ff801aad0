"""SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4): self-tests, and the pages a device type has."""

from __future__ import annotations

from hba.clock import S
from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.sense import PARAMETER_LIST_LENGTH_ERROR, CheckCondition, invalid_cdb
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task

commands = CommandTable()

_SELFTEST, _PF = 0x04, 0x10
_ABORT = 4
_CODES = frozenset((1, 2, 5, 6))  # background and foreground, short and extended
_HOUR = 3600 * S
_KEPT = 20


@commands.add(
    "1d f7 00 ffff 00",
    "SEND DIAGNOSTIC",
    access=CONFLICTS,
    timeout=(1, 120),
    values={(1, 0xE0): (0, _ABORT, *_CODES)},
)
def send_diagnostic(unit: DeviceServer, task: Task) -> None:
    """A self-test ends at once: what it tests is that commands are answered. Its result is in the log page."""
    cdb = task.cdb
    flags, code, length = cdb[1], cdb[1] >> 5, int.from_bytes(cdb[3:5], "big")
    if flags & _SELFTEST:
        if code:
            raise invalid_cdb(1, 7)
        return
    if code == _ABORT:
        return
    if code:
        if length:
            raise invalid_cdb(3)
        hours = min((unit.clock.now() - unit.started_at) // _HOUR, 0xFFFF)
        result = bytes((code << 5, 0)) + hours.to_bytes(2, "big") + b"\xff" * 8 + bytes(4)
        unit.self_tests = [result, *unit.self_tests][:_KEPT]
        return
    if not length:
        return
    if not flags & _PF:
        raise invalid_cdb(1, 4)
    data = unit.parameters(task, length)
    if len(data) < length or length < 4 or int.from_bytes(data[2:4], "big") != length - 4:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    unit.diagnostic_control(data)


@commands.add("1c 01 ff ffff 00", "RECEIVE DIAGNOSTIC RESULTS", allocation=(3, 2), access=CONFLICTS)
def receive_diagnostic_results(unit: DeviceServer, task: Task) -> bytes:
    cdb = task.cdb
    if not cdb[1] & 0x01:
        return unit.diagnostic_page(0x00) or b""
    page = unit.diagnostic_page(cdb[2])
    if page is None:
        raise invalid_cdb(2)
    return page
