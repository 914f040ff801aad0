"""Scatter lists and the memory they name: what comes out is what was asked for, and lies in the guest's maps."""

from __future__ import annotations

from itertools import pairwise

from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.scatter import MAX_ELEMENTS, BadScatterList, read_scatter_list
from hba.errors import DmaFault
from hba.pci.memory import GuestMemory
from tests.fuzz.machine import AREAS, EDGES, PAGE, RAM, GuestFile, Peer
from tests.fuzz.reader import Reader
from tests.fuzz.target import Target

LIST_PAGES = 8
FILLED = 0x5E  # what the device writes everywhere it is allowed to


def run(data: bytes) -> None:
    reader = Reader(data, EDGES)
    file = GuestFile()
    memory = GuestMemory()
    memory.client = Peer(file)
    memory.enable(True)
    for area in AREAS:
        memory.map(area.iova, area.size, area.prot, None if area.by_message else file.duplicate(), area.start)
    try:
        length = reader.number() & 0x7FFFFFFF or 1  # no data is no list
        start = reader.number() if reader.u8() & 1 else RAM.iova + reader.u16() % (LIST_PAGES * PAGE)
        while reader.left:
            _elements(reader, file)
        _look(memory, start, length)
        file.check()
    finally:
        memory.unmap_all()
        file.close()


def _elements(reader: Reader, file: GuestFile) -> None:
    """Some elements behind each other, or one of them often."""
    at = reader.u16() % (LIST_PAGES * PAGE)
    repeat = reader.u8() % 200 + 1
    address, size, flags = reader.number(), reader.number() & 0xFFFFFFFF, reader.u8()
    if flags & 2:
        address = RAM.iova + reader.u16() % (LIST_PAGES * PAGE)  # another list, or this one
    file.fill(at, st.SG_ELEMENT.pack(address, size, flags & st.SG_FLAG_CHAIN_ELEMENT) * repeat)


def _look(memory: GuestMemory, start: int, length: int) -> None:
    try:
        segments = read_scatter_list(memory, start, length)
    except (BadScatterList, DmaFault):
        return
    assert sum(size for _, size in segments) == length
    assert len(segments) <= MAX_ELEMENTS
    assert all(size > 0 for _, size in segments)
    assert all(one[0] + one[1] != other[0] for one, other in pairwise(segments)), "not joined"
    for write in (False, True):
        try:
            buffer = memory.buffer(segments, write)
        except DmaFault:
            continue
        assert buffer.length == length == sum(len(view) for view in buffer.views)
        if write and length <= 1 << 20:
            buffer.write(bytes((FILLED,)) * length)
            buffer.commit(length)


_CHAIN, _AGAIN = 1, 3
SEEDS = (
    bytes((8, 0, 0, 0, 0, 0, 0, 0xA2, 41, 8, 0)),
    bytes((0xA2, 18, 0, 0, 0)) + bytes((0, 0, 0, 0xA2, 41, 0xA2, 18, 0)),
    bytes((64, 0, 0, 0)) + bytes((0, 0, 199, 0xA2, 41, 1, 0)),
    bytes((64, 0, 0, 0)) + bytes((0, 0, 0, 0, 0, _AGAIN, 0, 0)),
    bytes((64, 0, 0, 0)) + bytes((0, 0, 0, 0, 0, _AGAIN, 0, 0x10)) + bytes((0, 0x10, 9, 0xA2, 47, 8, 0)),
    bytes((64, 0, 0, 0)) + bytes((0, 0, 30, 0xA2, 37, 0, 0)),
    bytes((64, 1, 0xA2, 46)),
)

TARGET = Target("scatter", run, SEEDS)
