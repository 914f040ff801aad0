"""Plain memory behind a BAR: what is written there is there, and nothing happens by it.

A client may map it (vfio-user, `VFIO_REGION_INFO_FLAG_MMAP`), and its guest then reaches it without a message.
"""

from __future__ import annotations

import mmap
import os

from hba.pci.registers import DeclarationError, RegisterBlock

PAGE = mmap.PAGESIZE


class PlainMemory(RegisterBlock):
    """`size` bytes, whole pages; zero after a reset. It has no registers."""

    def __init__(self, name: str, size: int) -> None:
        if size <= 0 or size % PAGE:
            raise DeclarationError(f"plain memory {name} has whole pages of {PAGE} bytes, not {size} bytes")
        super().__init__(name, [], size)
        self._map = mmap.mmap(-1, size)

    def attach(self, file: int, offset: int) -> None:
        """From now on it is this part of a file."""
        self._map.close()
        self._map = mmap.mmap(file, self.size, offset=offset)

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._map[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self._map[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        self._map[:] = bytes(self.size)

    @property
    def contents(self) -> bytes:
        return bytes(self._map[:])

    def fill(self, contents: bytes) -> None:
        """All of it."""
        self._map[:] = contents

    def close(self) -> None:
        self._map.close()


class MappableFile:
    """The file behind all plain memory of one BAR: a client gets one descriptor for a region."""

    def __init__(self, name: str, size: int, areas: list[tuple[int, PlainMemory]]) -> None:
        """`areas`: offset in the BAR, which is that in the file, and what lies there."""
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        whole = len(areas) == 1 and areas[0][1].size == size
        self.sparse = () if whole else tuple((offset, area.size) for offset, area in areas)
        for offset, area in areas:
            if offset % PAGE:
                raise DeclarationError(f"plain memory {area.name} at 0x{offset:x} does not start on a page")
            area.attach(self.fd, offset)

    def close(self) -> None:
        os.close(self.fd)
