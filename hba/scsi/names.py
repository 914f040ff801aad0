"""What the numbers of commands and of sense data are called.

A CDB is named by the tables of commands of the device type it is sent to, since one operation code is another command
elsewhere (42h: UNMAP for a disk, READ SUB-CHANNEL for an optical drive).
"""

from __future__ import annotations

from hba.scsi import sense
from hba.scsi.command import CommandTable
from hba.scsi.disk import protection
from hba.scsi.disk.disk import THIN_COMMANDS, Disk
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import COMMANDS, Cdrom
from hba.scsi.sense import CheckCondition
from hba.scsi.spc import COMMON

# By peripheral device type (SPC-4, "Peripheral device type").
_TABLES = {
    Disk.device_type: CommandTable(THIN_COMMANDS, protection.commands),
    Cdrom.device_type: COMMANDS,
    Enclosure.device_type: COMMON,
}

# "POWER ON OCCURRED", by sense key, ASC and ASCQ.
_CONDITIONS = {
    value: name.replace("_", " ")
    for name, value in vars(sense).items()
    if name.isupper() and isinstance(value, int) and 0xFFFF < value <= 0xFFFFFF
}


# Types of persistent reservations (SPC-4, "Persistent reservation types").
RESERVATIONS = {
    0: "none",
    1: "write exclusive",
    3: "exclusive access",
    5: "write exclusive, registrants only",
    6: "exclusive access, registrants only",
    7: "write exclusive, all registrants",
    8: "exclusive access, all registrants",
}


def condition_name(condition: int) -> str:
    """What sense data say, as 0x062901; empty for what no unit here says."""
    return _CONDITIONS.get(condition, "")


def command_name(device_type: int, cdb: bytes) -> str:
    """The command's name in its standard; empty for what no table here has, or of a CDB that is cut short."""
    try:
        return _TABLES.get(device_type, COMMON).find(cdb).name
    except (CheckCondition, IndexError):
        return ""


def operation_name(operation_code: int) -> str:
    """The command of a disk with this operation code, "READ(10)"; empty where it takes a service action to say."""
    return command_name(Disk.device_type, bytes([operation_code]) + bytes(15))
