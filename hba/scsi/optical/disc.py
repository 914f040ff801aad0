"""READ DISC INFORMATION, READ TRACK INFORMATION, READ SUB-CHANNEL (MMC-6) of a finished disc with one data track."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import READS, CommandTable
from hba.scsi.sense import LBA_OUT_OF_RANGE, CheckCondition, invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom

commands = CommandTable()

_COMPLETE = 0x0E  # the disc is finalized, its last session complete
_NO_AUDIO_STATUS = 0x15


@commands.add(
    "51 07 0000000000 ffff 00",
    "READ DISC INFORMATION",
    allocation=(7, 2),
    medium=True,
    access=READS,
    values={(1, 0x07): (0,)},
)  # standard disc information is all there is
def read_disc_information(unit: Cdrom, task: Task) -> bytes:
    data = bytearray(34)
    data[0:2] = (32).to_bytes(2, "big")
    data[2] = _COMPLETE
    data[3] = data[4] = data[5] = data[6] = 1  # first track, sessions, first and last track of the last session
    data[7] = 0x20  # URU: use is not restricted
    data[16:24] = b"\xff" * 8  # no lead-in, no lead-out to come
    return bytes(data)


@commands.add(
    "52 03 ffffffff 00 ffff 00",
    "READ TRACK INFORMATION",
    allocation=(7, 2),
    medium=True,
    access=READS,
    values={(1, 0x03): (0, 1, 2)},
)
def read_track_information(unit: Cdrom, task: Task) -> bytes:
    """By LBA (address type 0), track (1) or session (2)."""
    cdb = task.cdb
    kind, number = cdb[1] & 0x03, int.from_bytes(cdb[2:6], "big")
    if kind == 0 and number >= unit.blocks:
        raise CheckCondition(LBA_OUT_OF_RANGE, number)
    if kind and number != 1:
        raise invalid_cdb(2)
    data = bytearray(36)
    data[0:2] = (34).to_bytes(2, "big")
    data[2] = data[3] = 1  # track, session
    data[5] = 0x04  # TRACK MODE: data
    data[6] = 0x01  # DATA MODE 1
    data[24:28] = unit.blocks.to_bytes(4, "big")
    return bytes(data)


@commands.add("42 02 40 ff 0000 ff ffff 00", "READ SUB-CHANNEL", allocation=(7, 2), medium=True, access=READS)
def read_sub_channel(unit: Cdrom, task: Task) -> bytes:
    """The header only (SUBQ=0): nothing is played."""
    if task.cdb[2] & 0x40:
        raise invalid_cdb(2, 6)
    return bytes((0, _NO_AUDIO_STATUS, 0, 0))
