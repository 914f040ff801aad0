"""Memory the port gives to a miniport and that a bus master can reach: uncached extension, SRB extensions, sense.

Guest memory belongs to the requests (`srb.mdl`); this is the host's own. Its bus addresses lie far above any guest's.
"""

from __future__ import annotations

import ctypes

from hba.dma import DmaBuffer
from hba.miniport.chip import Chip

BOUNCE_BASE = 1 << 61  # aligned copies of misaligned guest buffers
EXTENSION_BASE = 1 << 60  # SRB extensions, one slot per request
SENSE_BASE = 1 << 59  # sense buffers, likewise
SENSE_SLOT = 256


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class PortMemory:
    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._areas: list[tuple[memoryview, int]] = []  # (memory, bus address)

    def allocate(self, size: int) -> tuple[memoryview, int]:
        """`size` zeroed bytes the chip can reach, and their bus address."""
        view = memoryview(bytearray(size))
        bus = self._chip.add_host_memory(view)
        self._areas.append((view, bus))
        return view, bus

    def physical_address(self, view: memoryview) -> tuple[int, int] | None:
        """(bus address, bytes from there) of a view into memory given out here, however it was sliced; else None."""
        if not len(view) or view.readonly:
            return None
        for memory, bus in self._areas:
            if view.obj is memory.obj:
                offset = _address(view) - _address(memory)
                return bus + offset, len(memory) - offset
        return None

    def clear(self) -> None:
        """A new hw_find_adapter begins: what the earlier one got is gone."""
        self._areas.clear()
        self._chip.release_host_memory()


def bounce_buffer(size: int) -> DmaBuffer:
    """Aligned memory for one transfer of `size` bytes."""
    return DmaBuffer.of(bytearray(size), base=BOUNCE_BASE)
