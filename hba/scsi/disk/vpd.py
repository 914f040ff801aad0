"""A disk's vital product data (SBC-4): the common pages and B0h, B1h, B2h. Bodies, without the 4-byte header."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hba.scsi.disk.copy import third_party_copy_page
from hba.scsi.spc import vpd

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk

OPTIMAL_TRANSFER_BYTES = 1 << 20
MAX_ATOMIC_BYTES = 1 << 20  # one WRITE ATOMIC
MAX_COMPARE_BLOCKS = 255  # one COMPARE AND WRITE: the field has one byte
MAX_UNMAP_BLOCKS = 1 << 20  # all descriptors of one UNMAP
MAX_UNMAP_DESCRIPTORS = 256
MAX_WRITE_SAME_BLOCKS = 0xFFFF  # what WRITE SAME(10) can say: both forms have the same limit


def pages(unit: Disk) -> dict[int, Callable[[], bytes]]:
    result: dict[int, Callable[[], bytes]] = {
        0x80: lambda: vpd.unit_serial_number(unit.identity),
        0x83: lambda: vpd.device_identification(unit.identity),
        0x86: lambda: vpd.extended_inquiry(
            volatile_cache=True, protection_types=0 if unit.options.protection else None
        ),
        0x8F: third_party_copy_page,
        0xB0: lambda: block_limits(unit),
        0xB1: lambda: block_device_characteristics(unit),
    }
    if unit.thin:
        result[0xB2] = logical_block_provisioning
    return result


def block_limits(unit: Disk) -> bytes:
    """B0h."""
    size = unit.block_size
    body = bytearray(60)
    body[0] = 0x01  # WSNZ: a WRITE SAME of 0 blocks is refused
    body[1] = MAX_COMPARE_BLOCKS
    body[2:4] = (1 << unit.exponent).to_bytes(2, "big")
    body[4:8] = unit.max_transfer.to_bytes(4, "big")
    body[8:12] = (OPTIMAL_TRANSFER_BYTES // size).to_bytes(4, "big")
    if unit.thin:
        body[16:20] = MAX_UNMAP_BLOCKS.to_bytes(4, "big")
        body[20:24] = MAX_UNMAP_DESCRIPTORS.to_bytes(4, "big")
        body[24:28] = max(4096 // size, 1 << unit.exponent).to_bytes(4, "big")
        body[28] = 0x80  # UGAVALID, alignment 0
    body[32:40] = MAX_WRITE_SAME_BLOCKS.to_bytes(8, "big")
    body[40:44] = (MAX_ATOMIC_BYTES // size).to_bytes(4, "big")
    return bytes(body)


def block_device_characteristics(unit: Disk) -> bytes:
    """B1h."""
    body = bytearray(60)
    body[0:2] = unit.options.rotation_rate.to_bytes(2, "big")
    body[3] = 0x40 if unit.thin else 0  # WABEREQ 01b: reads after SANITIZE (block erase) succeed
    body[4] = 0x03  # FUAB: FUA and SYNCHRONIZE CACHE reach the medium; VBULS: blocks never written can be verified
    return bytes(body)


def logical_block_provisioning() -> bytes:
    """B2h: UNMAP, WRITE SAME(10) and (16) unmap; unmapped blocks read as zeros; thin; no anchors, no thresholds."""
    return bytes((0, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0))
