"""READ DISC STRUCTURE (MMC-6) of DVD-ROM media: physical format, copyright, manufacturing information, and their list.

The layout of the structures is that of ECMA-267 (120 mm DVD read-only disk), clause "Control data zone".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hba.scsi.command import READS, CommandTable
from hba.scsi.sense import CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT, CheckCondition, invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom

commands = CommandTable()

ONE_LAYER = 2_298_496  # sectors that fit on a layer of a 120 mm disc
FIRST_SECTOR = 0x030000  # physical number of the first sector of user data
_LAST_SECTOR = 0xFFFFFF

_PHYSICAL, _COPYRIGHT, _MANUFACTURING, _LIST = 0x00, 0x01, 0x04, 0xFF
_READABLE = 0x40  # RDS of a list entry


def _layers(unit: Cdrom) -> list[int]:
    """Sectors of each layer; a larger disc has two, read in parallel track path."""
    if unit.blocks <= ONE_LAYER:
        return [unit.blocks]
    first = -(-unit.blocks // 2)
    return [first, unit.blocks - first]


def _physical(unit: Cdrom, layer: int) -> bytes:
    layers = _layers(unit)
    if layer >= len(layers):
        raise invalid_cdb(6)
    last = min(FIRST_SECTOR + layers[layer] - 1, _LAST_SECTOR)
    data = bytearray(2048)
    data[0] = 0x01  # a DVD-ROM, of the first version of the book
    data[1] = 0x0F  # 120 mm; no maximum rate specified
    data[2] = (len(layers) - 1) << 5 | 0x01  # parallel track path; embossed
    data[5:8] = FIRST_SECTOR.to_bytes(3, "big")
    data[9:12] = last.to_bytes(3, "big")
    return bytes(data)


def _copyright(unit: Cdrom, layer: int) -> bytes:
    return bytes(4)  # no protection system, playable in every region


def _manufacturing(unit: Cdrom, layer: int) -> bytes:
    return bytes(2048)


_FORMATS: dict[int, tuple[int, Callable[[Cdrom, int], bytes]]] = {  # and their lengths
    _PHYSICAL: (2048, _physical),
    _COPYRIGHT: (4, _copyright),
    _MANUFACTURING: (2048, _manufacturing),
}


def _list(unit: Cdrom, layer: int) -> bytes:
    return b"".join(
        bytes((code, _READABLE)) + (length + 4).to_bytes(2, "big") for code, (length, _) in sorted(_FORMATS.items())
    )


@commands.add(
    "ad 0f ffffffff ff ff ffff 00 00",
    "READ DISC STRUCTURE",
    allocation=(8, 2),
    medium=True,
    access=READS,
    values={(1, 0x0F): (0,)},
)
def read_disc_structure(unit: Cdrom, task: Task) -> bytes:
    """MEDIA TYPE 0h (DVD) only. A CD has no such structures (5/30/02)."""
    cdb = task.cdb
    code, layer = cdb[7], cdb[6]
    make = _list if code == _LIST else _FORMATS[code][1] if code in _FORMATS else None
    if make is None:
        raise invalid_cdb(7)
    if not unit.is_dvd:
        raise CheckCondition(CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT)
    body = make(unit, layer)
    return (len(body) + 2).to_bytes(2, "big") + bytes(2) + body
