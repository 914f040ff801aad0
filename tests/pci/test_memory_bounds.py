"""Whatever numbers a guest writes, the device touches its maps and nothing else: guest memory against a model of it.

The file behind the maps has guards between them. The model finds the place in the file of every byte; an access gives
what is there, or a `DmaFault` where one has no place.
"""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from hba.dma import Segment
from hba.errors import DmaFault
from hba.pci.memory import PAGE, GuestMemory
from hba.vfio_user.device import DMA_READ, DMA_WRITE

PAGES = 16  # of the file
TOP = 1 << 64
GUARD = 0xEE
WRITTEN = 0x11

Map = tuple[int, int, int, int, bool]  # bus address, first page in the file, pages, protection, by message


class World:
    """Guest memory, and what is known of it without looking there."""

    def __init__(self, maps: list[Map]) -> None:
        self.fd = os.memfd_create("world")
        os.ftruncate(self.fd, PAGES * PAGE)
        os.pwrite(self.fd, bytes([GUARD]) * (PAGES * PAGE), 0)
        self.maps = maps
        self.memory = GuestMemory()
        self.memory.client = self
        self.memory.enable(True)
        for number, (iova, first, pages, prot, by_message) in enumerate(maps):
            os.pwrite(self.fd, bytes([0x80 + number]) * (pages * PAGE), first * PAGE)
            self.memory.map(iova, pages * PAGE, prot, None if by_message else os.dup(self.fd), first * PAGE)
        self.expected = bytearray(os.pread(self.fd, PAGES * PAGE, 0))

    def close(self) -> None:
        self.memory.unmap_all()
        os.close(self.fd)

    def places(self, segments: list[Segment], write: bool) -> list[int] | None:
        """The places in the file of every byte; None where the device may not touch one."""
        found: list[int] = []
        for address, length in segments:
            while length > 0:
                for iova, first, pages, prot, _ in self.maps:
                    if iova <= address < iova + pages * PAGE and prot & (DMA_WRITE if write else DMA_READ):
                        size = min(length, iova + pages * PAGE - address)
                        start = first * PAGE + address - iova
                        found += range(start, start + size)
                        address, length = address + size, length - size
                        break
                else:
                    return None
        return found

    # The client, for maps that are reached by message: only for those, and only inside of them.

    def _inside(self, address: int, length: int, prot: int) -> int:
        for iova, first, pages, allowed, by_message in self.maps:
            if by_message and iova <= address and address + length <= iova + pages * PAGE and allowed & prot:
                return first * PAGE + address - iova
        raise AssertionError(f"a message asks for 0x{address:x}+0x{length:x}")

    def dma_read(self, address: int, length: int) -> bytes:
        return os.pread(self.fd, length, self._inside(address, length, DMA_READ))

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        os.pwrite(self.fd, data, self._inside(address, len(data), DMA_WRITE))


@st.composite
def worlds(draw: st.DrawFn) -> list[Map]:
    """Maps that do not overlap, on the bus and in the file; some side by side on the bus, perhaps one at its end."""
    maps: list[Map] = []
    first = 1
    iova = draw(st.sampled_from((0, PAGE, 0xFFFFE000, TOP - 12 * PAGE)))
    while first < PAGES - 3 and len(maps) < 5 and draw(st.booleans() if maps else st.just(True)):
        pages = draw(st.integers(1, 2))
        prot = draw(st.sampled_from((DMA_READ, DMA_WRITE, DMA_READ | DMA_WRITE, DMA_READ | DMA_WRITE)))
        if iova + pages * PAGE > TOP:
            break
        maps.append((iova, first, pages, prot, draw(st.integers(0, 3)) == 0))
        first += pages + 1
        iova += (pages + draw(st.sampled_from((0, 0, 1)))) * PAGE
    return maps


def numbers(maps: list[Map]) -> st.SearchStrategy[int]:
    """Bus addresses: at and around the borders of maps, and any."""
    edges = [edge for iova, _, pages, _, _ in maps for edge in (iova, iova + pages * PAGE)]
    near = st.tuples(st.sampled_from(edges), st.integers(-40, 40)).map(sum)
    return st.one_of(near, near, st.integers(0, TOP - 1)).map(lambda number: number % TOP)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_access_gives_what_is_mapped_or_faults(data: st.DataObject) -> None:
    maps = data.draw(worlds())
    world = World(maps)
    try:
        for _ in range(data.draw(st.integers(1, 6))):
            length = data.draw(st.one_of(st.integers(1, 64), st.sampled_from((PAGE, PAGE + 1, 3 * PAGE, 1 << 40))))
            _access(world, data.draw(st.integers(0, 4)), data.draw(numbers(maps)), length, data)
            assert os.pread(world.fd, PAGES * PAGE, 0) == bytes(world.expected)
    finally:
        world.close()


def _access(world: World, kind: int, address: int, length: int, data: st.DataObject) -> None:
    memory = world.memory
    if kind == 0:
        places = world.places([(address, length)], False)
        try:
            read = memory.read(address, length)
        except DmaFault:
            assert places is None
            return
        assert places is not None and read == bytes(world.expected[place] for place in places)
    elif kind == 1:
        length = min(length, 4 * PAGE)
        places = world.places([(address, length)], True)
        try:
            memory.write(address, bytes([WRITTEN]) * length)
        except DmaFault:
            assert places is None
            return
        assert places is not None
        for place in places:
            world.expected[place] = WRITTEN
    elif kind == 2:
        write = data.draw(st.booleans())
        places = world.places([(address, length)], write)
        try:
            view = memory.view(address, length, write)
        except DmaFault:
            assert places is None
            return
        if view is not None:
            assert places is not None and len(view) == length
            assert bytes(view) == bytes(world.expected[place] for place in places)
    elif kind == 3:
        _buffer(world, [(address, min(length, 4 * PAGE)), *_more(world, data)], data.draw(st.booleans()))
    else:
        low, high, view = memory.window()
        assert len(view) == high - low
        if len(view):
            places = world.places([(low, high - low)], True)
            assert places is not None and world.places([(low, high - low)], False) == places


def _more(world: World, data: st.DataObject) -> list[Segment]:
    return data.draw(st.lists(st.tuples(numbers(world.maps), st.integers(1, 100)), max_size=3))


def _buffer(world: World, segments: list[Segment], write: bool) -> None:
    places = world.places(segments, write)
    try:
        buffer = world.memory.buffer(segments, write)
    except DmaFault:
        assert places is None
        return
    assert places is not None and buffer.length == len(places)
    if write:
        buffer.write(bytes([WRITTEN]) * buffer.length)
        buffer.commit(buffer.length)
        for place in places:
            world.expected[place] = WRITTEN
    else:
        assert buffer.read() == bytes(world.expected[place] for place in places)


def test_the_model_is_no_copy_of_the_thing() -> None:
    """A map that the model does not know is found by it."""
    world = World([(0, 1, 1, DMA_READ | DMA_WRITE, False)])
    try:
        world.memory.map(PAGE, PAGE, DMA_READ | DMA_WRITE, os.dup(world.fd), 8 * PAGE)
        assert world.places([(PAGE, 1)], False) is None
        assert world.memory.read(PAGE, 1) == bytes([GUARD])
    finally:
        world.close()
