"""TEST UNIT READY and REQUEST SENSE (SPC-4)."""

from __future__ import annotations

from hba.scsi.command import ALLOWED, CommandTable
from hba.scsi.sense import NO_SENSE, CheckCondition, descriptor_sense, fixed_sense
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task

commands = CommandTable()


@commands.add("00 00 00 00 00 00", "TEST UNIT READY", medium=True, access=ALLOWED)
def test_unit_ready(unit: DeviceServer, task: Task) -> None:
    """Nothing to do: what is in the way has been found before."""


@commands.add("03 01 00 00 ff 00", "REQUEST SENSE", allocation=(4, 1), attention=False)
def request_sense(unit: DeviceServer, task: Task) -> bytes:
    """Pollable sense data: a pending unit attention (which it clears), or why the unit is not ready."""
    make = descriptor_sense if task.cdb[1] & 1 else fixed_sense
    pending = unit.attentions.next(task.initiator)
    if pending is not None:
        unit.refresh()
        return make(pending)
    try:
        unit.check_ready()
    except CheckCondition as why:
        return make(why.condition, why.information, why.specific)
    return make(unit.pollable_sense() or NO_SENSE)
