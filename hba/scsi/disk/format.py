"""FORMAT UNIT (SBC-4): every block becomes zero, or the initialization pattern."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.disk.background import Background
from hba.scsi.disk.defects import DEFECT_LIST_FORMATS
from hba.scsi.disk.protection import ProtectedStore
from hba.scsi.disk.provisioning import filling
from hba.scsi.disk.wipe import zeroing
from hba.scsi.sense import (
    FORMAT_COMMAND_FAILED,
    PARAMETER_LIST_LENGTH_ERROR,
    CheckCondition,
    invalid_cdb,
    invalid_parameter,
)
from hba.scsi.server import PENDING
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()
protected = CommandTable()  # of a disk with protection information

_NO_INFORMATION, _TYPE_1 = 0, 2  # FMTPINFO
_LONGLIST, _FMTDATA = 0x20, 0x10
_FOV, _DPRY, _IP, _IMMED = 0x80, 0x40, 0x08, 0x02


_OPTIONS = {"medium": True, "access": CONFLICTS, "exclusive": True, "timeout": (60, 3600)}


@protected.add(
    "04 ff 00 0000 00",
    "FORMAT UNIT",
    values={(1, 0xC0): (_NO_INFORMATION, _TYPE_1), (1, 0x07): DEFECT_LIST_FORMATS},
    **_OPTIONS,
)
@commands.add("04 3f 00 0000 00", "FORMAT UNIT", values={(1, 0x07): DEFECT_LIST_FORMATS}, **_OPTIONS)
def format_unit(unit: Disk, task: Task) -> bool | None:
    """No defect lists: there are no defects to list; CMPLST and DEFECT LIST FORMAT make no difference.

    FMTPINFO 00b formats without, 10b with protection information of type 1 (PROTECTION FIELD USAGE 0).
    """
    cdb = task.cdb
    information = cdb[1] >> 6
    unit.check_writable()
    pattern = bytes(unit.block_size)
    immediate = False
    if cdb[1] & _FMTDATA:
        pattern, immediate = _format_data(unit, task, bool(cdb[1] & _LONGLIST))
    elif cdb[1] & _LONGLIST:
        raise invalid_cdb(1, 5)

    def steps(background: Background) -> Steps:
        store = unit.store()
        if isinstance(store, ProtectedStore):
            yield partial(store.enable, information == _TYPE_1)
        if any(pattern):
            yield from filling(unit, pattern, 0, unit.blocks)
        else:
            yield from zeroing(unit, unit.thin, background)
        yield unit.store().flush

    def ended(good: bool) -> None:
        unit.background = None
        unit.refresh()
        unit.finish_io(task, None if good else CheckCondition(FORMAT_COMMAND_FAILED))

    unit.run_in_background(Background(unit, steps, sanitize=False, ended=ended))
    return None if immediate else PENDING


def _format_data(unit: Disk, task: Task, long: bool) -> tuple[bytes, bool]:
    """The parameter list: the initialization pattern (zeros without one) and IMMED."""
    buffer = task.data
    header_length = 8 if long else 4
    data = unit.parameters(task, header_length + 4 + unit.block_size if buffer is None else buffer.length)
    if len(data) < header_length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    flags = data[1]
    if data[0]:
        raise invalid_parameter(0)  # PROTECTION FIELD USAGE
    if not flags & _FOV and flags & ~_IMMED & 0xFF:
        raise invalid_parameter(1)
    listed = int.from_bytes(data[4:8], "big") if long else int.from_bytes(data[2:4], "big")
    if listed:
        raise invalid_parameter(4 if long else 2)
    if long and data[3]:
        raise invalid_parameter(3)  # P_I_INFORMATION, PROTECTION INTERVAL EXPONENT
    pattern = bytes(unit.block_size)
    if flags & _IP:
        start = header_length
        if len(data) < start + 4:
            raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        kind = data[start + 1]
        if data[start] & 0xC0:
            raise invalid_parameter(start, 7)  # IP MODIFIER is obsolete
        if kind == 0x01:
            given = data[start + 4 : start + 4 + length]
            if not 0 < length <= unit.block_size or len(given) < length:
                raise invalid_parameter(start + 2)
            pattern = (given * (unit.block_size // length + 1))[: unit.block_size]
        elif kind or length:
            raise invalid_parameter(start + 1)
    return pattern, bool(flags & _IMMED)
