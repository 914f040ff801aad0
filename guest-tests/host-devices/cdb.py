"""The commands these tests send (SPC-5, SBC-4)."""

from __future__ import annotations

REPORT_LUNS = bytes((0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0))  # room for 256 bytes
READ_CAPACITY = bytes((0x9E, 0x10, *[0] * 11, 32, 0, 0))  # READ CAPACITY(16)
SYNCHRONIZE_CACHE = bytes((0x35, *[0] * 9))


def inquiry(room: int, page: int | None = None) -> bytes:
    return bytes((0x12, page is not None, page or 0)) + room.to_bytes(2, "big") + bytes(1)


def read(lba: int, blocks: int) -> bytes:
    """READ(16)"""
    return bytes((0x88, 0)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)


def write(lba: int, blocks: int, fua: bool = False) -> bytes:
    """WRITE(16)"""
    return bytes((0x8A, fua << 3)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)


UNMAP = bytes((0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0))


def unmap_list(lba: int, blocks: int) -> bytes:
    """The parameter list of UNMAP with one descriptor."""
    return bytes((0, 22, 0, 16, 0, 0, 0, 0)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4)


def lba_status(lba: int) -> bytes:
    """GET LBA STATUS(16), room for one descriptor"""
    return bytes((0x9E, 0x12)) + lba.to_bytes(8, "big") + (24).to_bytes(4, "big") + bytes(2)
