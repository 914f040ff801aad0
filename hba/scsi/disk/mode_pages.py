"""A disk's mode pages, its block descriptor, and what the pages mean to it (SBC-4 "Mode parameters")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hba.scsi.sense import NO_SENSE, invalid_parameter
from hba.scsi.spc.mode import ModePage

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk

READ_WRITE_ERROR_RECOVERY = 0x01
RIGID_DISK_GEOMETRY = 0x04
VERIFY_ERROR_RECOVERY = 0x07
CACHING = 0x08
CONTROL = 0x0A
CONTROL_EXTENSION = 0x01  # subpage of CONTROL
POWER_CONDITION = 0x1A
INFORMATIONAL_EXCEPTIONS = 0x1C

HEADS = 16
SECTORS = 63

_WCE = 0x04
_D_SENSE = 0x04
_GLTSD = 0x02
_SWP = 0x08
_DEXCPT = 0x08
_TEST = 0x04
MRIE_ON_REQUEST = 6

FAILURE_PREDICTION_TEST = 0x015DFF  # RECOVERED ERROR, FAILURE PREDICTION THRESHOLD EXCEEDED (FALSE)


def _bytes(length: int, **values: int) -> bytes:
    """`length` bytes with some set: b3=0x10 sets the page's byte 3 (counted with a 2-byte header)."""
    data = bytearray(length)
    for name, value in values.items():
        data[int(name[1:]) - 2] = value
    return bytes(data)


def disk_pages(unit: Disk) -> list[ModePage]:
    options = unit.options
    geometry = bytearray(22)
    geometry[3] = HEADS
    geometry[18:20] = options.rotation_rate.to_bytes(2, "big") if options.rotation_rate > 1 else bytes(2)
    return [
        ModePage(READ_WRITE_ERROR_RECOVERY, _bytes(10, b2=0xC0)),  # AWRE, ARRE
        ModePage(RIGID_DISK_GEOMETRY, bytes(geometry)),
        ModePage(VERIFY_ERROR_RECOVERY, bytes(10)),
        ModePage(CACHING, _bytes(18, b2=_WCE if options.write_cache else 0), _bytes(18, b2=_WCE)),
        ModePage(CONTROL, _bytes(10, b2=_GLTSD, b3=0x10), _bytes(10, b2=_D_SENSE, b4=_SWP)),
        ModePage(CONTROL, bytes(28), subcode=CONTROL_EXTENSION),
        ModePage(POWER_CONDITION, bytes(38)),
        ModePage(INFORMATIONAL_EXCEPTIONS, _bytes(10, b3=MRIE_ON_REQUEST), _bytes(10, b2=_DEXCPT | _TEST)),
    ]


def obey(unit: Disk) -> None:
    """Take over what the current pages say."""
    mode = unit.mode
    cylinders = min(-(-unit.blocks // (HEADS * SECTORS)), 0xFFFFFF)
    mode.assign(RIGID_DISK_GEOMETRY, cylinders.to_bytes(3, "big") + mode.current(RIGID_DISK_GEOMETRY)[3:])
    unit.write_through = not mode.current(CACHING)[0] & _WCE
    control = mode.current(CONTROL)
    unit.descriptor_sense = bool(control[0] & _D_SENSE)
    unit.software_write_protect = bool(control[2] & _SWP)


def loses_flushes(unit: Disk, pages: Sequence[tuple[ModePage, bytes]]) -> bool:
    """Whether with these pages an initiator no longer flushes: it does not for a cache that writes through, and what is
    write-protected is taken for unchanged."""
    for page, value in pages:
        if (page.code, page.subcode) == (CACHING, 0) and not value[0] & _WCE and not unit.write_through:
            return True
        if (page.code, page.subcode) == (CONTROL, 0) and value[2] & _SWP and not unit.software_write_protect:
            return True
    return False


def informational_exception(unit: Disk) -> int:
    """What REQUEST SENSE reports for the informational exceptions page: the test failure, when TEST=1."""
    flags = unit.mode.current(INFORMATIONAL_EXCEPTIONS)[0]
    return FAILURE_PREDICTION_TEST if flags & _TEST and not flags & _DEXCPT else NO_SENSE


def block_descriptor(unit: Disk, long_lba: bool) -> bytes:
    if long_lba:
        return unit.blocks.to_bytes(8, "big") + bytes(4) + unit.block_size.to_bytes(4, "big")
    return min(unit.blocks, 0xFFFFFFFF).to_bytes(4, "big") + b"\x00" + unit.block_size.to_bytes(3, "big")


def check_block_descriptor(unit: Disk, descriptor: bytes, position: int, long_lba: bool) -> None:
    """Only the present size and capacity (or 0, or all ones: no change) are accepted."""
    size = 16 if long_lba else 8
    if len(descriptor) != size:
        raise invalid_parameter(position - 1)
    if long_lba:
        blocks, length, most = descriptor[0:8], descriptor[12:16], 0xFFFFFFFFFFFFFFFF
    else:
        blocks, length, most = descriptor[0:4], descriptor[5:8], 0xFFFFFFFF
    if int.from_bytes(blocks, "big") not in (0, most, min(unit.blocks, most)):
        raise invalid_parameter(position)
    if int.from_bytes(length, "big") not in (0, unit.block_size):
        raise invalid_parameter(position + size - len(length))
