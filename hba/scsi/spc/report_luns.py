"""REPORT LUNS (SPC-4), also for LUNs the target does not have and for the REPORT LUNS well known unit."""

from __future__ import annotations

from hba.scsi.command import CommandTable
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task

commands = CommandTable()

WELL_KNOWN_REPORT_LUNS = 0xC101 << 48


def encode_lun(lun: int) -> bytes:
    """Eight bytes (SAM-5 "LUN structure"): peripheral device addressing below 256, flat space beyond."""
    if lun < 256:
        return bytes((0, lun, 0, 0, 0, 0, 0, 0))
    return (0x4000 | lun).to_bytes(2, "big") + bytes(6)


@commands.add(
    "a0 00 ff 000000 ffffffff 00 00", "REPORT LUNS", allocation=(6, 4), attention=False, values={(2, 0xFF): (0, 1, 2)}
)
def report_luns(unit: DeviceServer, task: Task) -> bytes:
    """SELECT REPORT 00h: the units; 01h: the well known units; 02h: both."""
    select = task.cdb[2]
    luns: list[bytes] = []
    bus = unit.bus
    if select in (0, 2):
        numbers = sorted(bus.units.get(unit.address[0], {})) if bus is not None else [unit.address[1]]
        luns += [encode_lun(lun) for lun in numbers]
    if select in (1, 2):
        luns.append(WELL_KNOWN_REPORT_LUNS.to_bytes(8, "big"))
    if bus is None:
        unit.luns_reported(task.initiator)
    else:
        bus.luns_reported(unit.address[0], task.initiator)
    return (8 * len(luns)).to_bytes(4, "big") + bytes(4) + b"".join(luns)
