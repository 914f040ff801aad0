"""GET CONFIGURATION (MMC-6): features and the current profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import CommandTable
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom

commands = CommandTable()

NO_PROFILE, CD_ROM, DVD_ROM = 0x0000, 0x0008, 0x0010

_PROFILES, _CORE, _MORPHING, _REMOVABLE = 0x000, 0x001, 0x002, 0x003
_RANDOM_READABLE, _MULTI_READ, _CD_READ, _DVD_READ = 0x010, 0x01D, 0x01E, 0x01F
_POWER_MANAGEMENT, _TIME_OUT = 0x100, 0x105
_ALL, _CURRENT, _ONE = 0, 1, 2


def current_profile(unit: Cdrom) -> int:
    if not unit.present:
        return NO_PROFILE
    return DVD_ROM if unit.is_dvd else CD_ROM


def _features(unit: Cdrom) -> list[tuple[int, int, bool, bool, bytes]]:
    """(code, version, persistent, current, data), ascending."""
    profile = current_profile(unit)
    profiles = b"".join(code.to_bytes(2, "big") + bytes((1 if code == profile else 0, 0)) for code in (DVD_ROM, CD_ROM))
    readable = unit.present
    return [
        (_PROFILES, 0, True, True, profiles),
        (_CORE, 2, True, True, (1).to_bytes(4, "big") + bytes((0x01, 0, 0, 0))),  # SCSI; DBE
        (_MORPHING, 1, True, True, bytes((0x02, 0, 0, 0))),  # OCEVENT
        (_REMOVABLE, 1, True, True, bytes((1 << 5 | 0x10 | 0x08 | 0x01, 0, 0, 0))),  # tray; load, eject, lock
        (_RANDOM_READABLE, 0, False, readable, unit.block_size.to_bytes(4, "big") + b"\x00\x01\x00\x00"),
        (_MULTI_READ, 0, False, readable and not unit.is_dvd, b""),
        (_CD_READ, 2, False, readable and not unit.is_dvd, bytes(4)),
        (_DVD_READ, 0, False, readable and unit.is_dvd, b""),
        (_POWER_MANAGEMENT, 0, True, True, b""),
        (_TIME_OUT, 0, True, True, b""),
    ]


@commands.add(
    "46 03 ffff 000000 ffff 00",
    "GET CONFIGURATION",
    allocation=(7, 2),
    attention=False,
    values={(1, 0x03): (_ALL, _CURRENT, _ONE)},
)
def get_configuration(unit: Cdrom, task: Task) -> bytes:
    cdb = task.cdb
    wanted, first = cdb[1] & 0x03, int.from_bytes(cdb[2:4], "big")
    body = bytearray()
    for code, version, persistent, current, data in _features(unit):
        if code < first or (wanted == _ONE and code != first) or (wanted == _CURRENT and not current):
            continue
        flags = version << 2 | (0x02 if persistent else 0) | (0x01 if current else 0)
        body += code.to_bytes(2, "big") + bytes((flags, len(data))) + data
    return (len(body) + 4).to_bytes(4, "big") + bytes(2) + current_profile(unit).to_bytes(2, "big") + bytes(body)
