"""Memory the port gives to a miniport and a bus master can reach: uncached extension, SRB extensions, sense buffers.

Guest memory belongs to the requests (`srb.mdl`); this is the host's own. Its bus addresses lie far above any guest's.
Sources: ScsiPortGetUncachedExtension, StorPortGetUncachedExtension; SrbExtension and SenseInfoBuffer of
SCSI_REQUEST_BLOCK, MiniportContext of STORAGE_REQUEST_BLOCK.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from typing import Final

from hba.miniport.chip import Chip
from hba.miniport.memory import SrbExtension
from hba.port.request import Request

SENSE_SIZE: Final = 256  # SenseInfoBufferLength is a byte
CHUNK: Final = 64  # pieces that are made at once
MOST_EXTENSION: Final = 1 << 20  # bytes of one SRB extension; more is a slip


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class PortMemory:
    """All of one port. `extensions`: of its SRBs, None while the miniport has asked for none."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._areas: list[tuple[memoryview, int]] = []  # (memory, bus address)
        self.pool = 0  # bytes the miniport has from StorPortAllocatePool
        self.marked: list[tuple[int, int]] = []  # (bus address, bytes) a dump needs: StorPortMarkDumpMemory
        self.lends = False  # there is something to take back
        self.extensions: Pieces | None = None
        self._sense: Pieces | None = None
        self._sense_of: dict[Request, SrbExtension] = {}  # requests whose sense buffer the miniport has the address of

    def allocate(self, size: int, boundary: int = 0) -> tuple[memoryview, int]:
        """`size` zeroed bytes the chip can reach, and their bus address; they cross no multiple of `boundary`."""
        view = memoryview(bytearray(size))
        return view, self.add(view, boundary)

    def add(self, view: memoryview, boundary: int = 0) -> int:
        """Let the chip reach memory that is there already; its bus address."""
        bus = self._chip.add_host_memory(view, boundary)
        self._areas.append((view, bus))
        return bus

    def allocate_low(self, size: int, boundary: int, first: int, last: int) -> tuple[memoryview, int] | None:
        """As `allocate`, with bus addresses from `first` to `last`, of 32 bits; None: there is no room."""
        view = memoryview(bytearray(size))
        bus = self._chip.add_low_memory(view, boundary, first, last)
        if not bus:
            return None
        self._areas.append((view, bus))
        return view, bus

    def uncached(self, size: int, wide: bool) -> tuple[memoryview, int] | None:
        """An uncached extension; an adapter that is not `wide` has addresses of 32 bits. None: there is no room."""
        return self.allocate(size) if wide else self.allocate_low(size, 0, 0, 0xFFFF_FFFF)

    def release(self, memory: memoryview) -> None:
        """The miniport has given an area back: the chip reaches it no more."""
        self._areas = [area for area in self._areas if area[0] is not memory]
        self._chip.remove_host_memory(memory)

    def at(self, address: int) -> memoryview | None:
        """The memory from a bus address to the end of its area; None: it is in none."""
        for memory, bus in self._areas:
            if bus <= address < bus + len(memory):
                return memory[address - bus :]
        return None

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
        self.pool = 0
        self.marked.clear()
        self._chip.release_host_memory()
        self.extensions = self._sense = None
        self._sense_of.clear()

    def make_extensions(self, size: int) -> None:
        """hw_find_adapter has said how large (SrbExtensionSize)."""
        self.extensions = Pieces(self, size) if size else None
        self.lends = bool(size)

    def sense_buffer(self, request: Request) -> SrbExtension:
        """The sense buffer of a request as memory: made when its address is asked for."""
        if self._sense is None:
            self._sense = Pieces(self, SENSE_SIZE)
            self.lends = True
        piece = self._sense_of.get(request)
        if piece is None:
            piece = self._sense_of[request] = self._sense.lend(request)
            request.srb.use_sense_memory(piece.memory)
        return piece

    def take_back(self, requests: Sequence[Request]) -> None:
        """The miniport is done with these: their extensions and sense buffers are the port's again (OW-08)."""
        if self._sense_of:
            for request in requests:
                piece = self._sense_of.pop(request, None)
                if piece is not None and self._sense is not None:
                    request.srb.use_sense_memory(None)
                    self._sense.give_back(piece)
        if self.extensions is not None:
            for request in requests:
                if request.extension is not None:
                    self.extensions.give_back(request.extension)
                    request.extension = None

    def holder(self, address: int, length: int) -> Request | None:
        """The request in whose extension or sense buffer these bus addresses lie."""
        for pieces in (self.extensions, self._sense):
            if pieces is not None:
                piece = pieces.at(address, length)
                if piece is not None:
                    request: Request | None = piece._request
                    return request
        return None

    def inside_pieces(self, address: int) -> bool:
        """Whether the address is one of extensions and sense buffers, anybody's or nobody's."""
        return any(pieces is not None and pieces.covers(address) for pieces in (self.extensions, self._sense))


class Pieces:
    """Memory in pieces of one size, each for one request at a time; in turn, so that one used too long is noticed."""

    def __init__(self, memory: PortMemory, size: int) -> None:
        self.size = size
        self._memory = memory
        self._stride = (size + 15) & ~15
        self._free: deque[SrbExtension] = deque()
        self._chunks: list[tuple[int, list[SrbExtension]]] = []  # (bus address, the pieces from there)

    def lend(self, request: Request) -> SrbExtension:
        free = self._free
        if not free:
            self._grow()
        piece = free.popleft()
        piece._request = request
        return piece

    def give_back(self, piece: SrbExtension) -> None:
        piece._request = None
        piece.__dict__.clear()
        self._free.append(piece)

    def _grow(self) -> None:
        stride = self._stride
        memory, bus = self._memory.allocate(CHUNK * stride)
        made = [SrbExtension(memory[at : at + self.size], bus + at) for at in range(0, CHUNK * stride, stride)]
        self._chunks.append((bus, made))
        self._free.extend(made)

    def at(self, address: int, length: int) -> SrbExtension | None:
        """The piece these addresses lie in, all of them."""
        for bus, pieces in self._chunks:
            index = (address - bus) // self._stride
            if 0 <= index < CHUNK:
                piece = pieces[index]
                return piece if address + length <= piece._physical + self.size else None
        return None

    def covers(self, address: int) -> bool:
        return any(bus <= address < bus + CHUNK * self._stride for bus, _ in self._chunks)
