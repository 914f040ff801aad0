"""REPORT TARGET PORT GROUPS (SPC-4): one port in one group, always active/optimized."""

from __future__ import annotations

from hba.scsi.command import CommandTable
from hba.scsi.server import DeviceServer
from hba.scsi.spc.vpd import PORT_GROUP, RELATIVE_PORT
from hba.scsi.task import Task

commands = CommandTable()

_EXTENDED = 1
_SUPPORTS_ACTIVE_OPTIMIZED = 0x01


@commands.add(
    "a3 ea 00000000 ffffffff 00 00",
    "REPORT TARGET PORT GROUPS",
    service=True,
    allocation=(6, 4),
    values={(1, 0xE0): (0, _EXTENDED)},
)
def report_target_port_groups(unit: DeviceServer, task: Task) -> bytes:
    group = bytes((0x00, _SUPPORTS_ACTIVE_OPTIMIZED)) + PORT_GROUP.to_bytes(2, "big") + bytes((0, 0, 0, 1))
    group += bytes(2) + RELATIVE_PORT.to_bytes(2, "big")
    if task.cdb[1] >> 5 == _EXTENDED:
        group = bytes((0x10, 0, 0, 0)) + group  # format type 001b, no implicit transition time
    return len(group).to_bytes(4, "big") + group
