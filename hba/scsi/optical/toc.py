"""READ TOC/PMA/ATIP (MMC-6): one session with one data track from LBA 0 to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import READS, CommandTable
from hba.scsi.sense import invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom

commands = CommandTable()

_MSF = 0x02
_DATA_TRACK = 0x14  # ADR 1h, CONTROL 4h: recorded uninterrupted, data
LEAD_OUT = 0xAA
_PREGAP = 150  # sectors before LBA 0
_TOC, _SESSIONS, _FULL = 0, 1, 2


def msf(lba: int) -> bytes:
    """Minute, second, frame of a sector."""
    minutes, rest = divmod(lba + _PREGAP, 60 * 75)
    seconds, frames = divmod(rest, 75)
    return bytes((min(minutes, 255), seconds, frames))


def lba_of(address: bytes) -> int | None:
    """The sector at a minute, second and frame; None when these are no such numbers."""
    minutes, seconds, frames = address
    return None if seconds > 59 or frames > 74 else (minutes * 60 + seconds) * 75 + frames - _PREGAP


def _address(lba: int, as_msf: bool) -> bytes:
    return b"\x00" + msf(lba) if as_msf else lba.to_bytes(4, "big")


@commands.add("43 02 0f 000000 ff ffff c0", "READ TOC/PMA/ATIP", allocation=(7, 2), medium=True, access=READS)
def read_toc(unit: Cdrom, task: Task) -> bytes:
    cdb = task.cdb
    as_msf = bool(cdb[1] & _MSF)
    # SFF-8020i put the format into the control byte; drivers of that age still do
    kind = cdb[2] & 0x0F or cdb[9] >> 6
    number = cdb[6]
    if kind == _TOC:
        if number > 1 and number != LEAD_OUT:
            raise invalid_cdb(6)
        body = b""
        if number <= 1:
            body += bytes((0, _DATA_TRACK, 1, 0)) + _address(0, as_msf)
        body += bytes((0, _DATA_TRACK, LEAD_OUT, 0)) + _address(unit.blocks, as_msf)
    elif kind == _SESSIONS:
        body = bytes((0, _DATA_TRACK, 1, 0)) + _address(0, as_msf)
    elif kind == _FULL:
        if number > 1:
            raise invalid_cdb(6)
        body = b"".join(
            bytes((1, _DATA_TRACK, 0, point, 0, 0, 0, 0)) + address
            for point, address in (
                (0xA0, bytes((1, 0, 0))),
                (0xA1, bytes((1, 0, 0))),
                (0xA2, msf(unit.blocks)),
                (1, msf(0)),
            )
        )
    else:
        raise invalid_cdb(2, 3)
    return (len(body) + 2).to_bytes(2, "big") + bytes((1, 1)) + body
