"""Scatter/gather lists of a request: elements in segments of one page each, linked by chain elements."""

from __future__ import annotations

from typing import Final

from hba.adapters.pvscsi.structures import (
    PAGE_SIZE,
    SG_ELEMENT,
    SG_ELEMENT_SIZE,
    SG_FLAG_CHAIN_ELEMENT,
    SG_MAX_SEGMENTS,
)
from hba.dma import Segment
from hba.pci.memory import GuestMemory

MAX_ELEMENTS: Final = 16640  # what the largest transfer needs in pages, and some


class BadScatterList(Exception):
    """The list does not describe the transfer; says why."""


def read_scatter_list(memory: GuestMemory, address: int, length: int) -> list[Segment]:
    """The (address, length) pairs that make up `length` bytes; neighbours are joined.

    Raises `BadScatterList`, or `DmaFault` when the list itself is not in guest memory. The work is bounded: at most
    SG_MAX_SEGMENTS pages of elements are looked at, and at most MAX_ELEMENTS kept.
    """
    segments: list[Segment] = []
    last_start = last_end = -1
    for _ in range(SG_MAX_SEGMENTS):
        room = (PAGE_SIZE - address % PAGE_SIZE) // SG_ELEMENT_SIZE * SG_ELEMENT_SIZE
        if room == 0:
            raise BadScatterList(f"a segment at 0x{address:x} has no room for an element before the end of its page")
        table = memory.view(address, room, False)
        for start, size, flags in SG_ELEMENT.iter_unpack(memory.read(address, room) if table is None else table):
            if flags & SG_FLAG_CHAIN_ELEMENT:
                address = start
                break
            if not size:
                continue
            if size > length:
                size = length
            if start == last_end:
                segments[-1] = (last_start, start + size - last_start)
            else:
                if len(segments) == MAX_ELEMENTS:
                    raise BadScatterList(f"more than {MAX_ELEMENTS} pieces of memory")
                segments.append((start, size))
                last_start = start
            last_end = start + size
            length -= size
            if not length:
                return segments
        else:
            raise BadScatterList(f"the list ends {length} bytes before the transfer does")
    raise BadScatterList(f"more than {SG_MAX_SEGMENTS} chained segments")
