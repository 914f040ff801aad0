"""Guest memory: maps, views and scatter/gather, compared with a model that is nothing but bytes."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.dma import DmaSpace
from hba.errors import DmaFault
from hba.pci.memory import MAX_MAPS, PAGE, GuestMemory, MemoryWatcher
from hba.vfio_user.device import DMA_READ, DMA_WRITE, RequestError
from tests.descriptors import open_fds

RW = DMA_READ | DMA_WRITE


class Guest:
    """The other side: memory by file descriptor, and memory it keeps for itself and serves by message."""

    def __init__(self) -> None:
        self.kept: dict[int, bytearray] = {}
        self.messages: list[tuple[str, int, int]] = []

    def file(self, size: int) -> int:
        fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return fd

    def _find(self, address: int, length: int) -> tuple[bytearray, int]:
        for start, data in self.kept.items():
            if start <= address and address + length <= start + len(data):
                return data, address - start
        raise DmaFault(address, length, "the guest keeps nothing there")

    def dma_read(self, address: int, length: int) -> bytes:
        self.messages.append(("read", address, length))
        data, at = self._find(address, length)
        return bytes(data[at : at + length])

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        self.messages.append(("write", address, len(data)))
        kept, at = self._find(address, len(data))
        kept[at : at + len(data)] = data


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def memory(guest: Guest) -> Iterator[GuestMemory]:
    memory = GuestMemory()
    memory.client = guest
    memory.enabled = True
    yield memory
    memory.unmap_all()


def refused(action: Callable[[], object]) -> int:
    with pytest.raises(RequestError) as caught:
        action()
    return caught.value.errno


class TestMaps:
    def test_the_descriptor_is_always_closed(self, memory: GuestMemory, guest: Guest) -> None:
        before = open_fds()
        memory.map(0x10000, 0x1000, RW, guest.file(0x1000), 0)
        assert open_fds() <= before + 1  # the mapping may keep its own copy
        kept = open_fds()
        assert refused(lambda: memory.map(0x10000, 0x1000, RW, guest.file(0x1000), 0)) == errno.EEXIST
        assert refused(lambda: memory.map(0x20000, 0, RW, guest.file(0x1000), 0)) == errno.EINVAL
        assert open_fds() == kept
        memory.unmap_all()
        assert open_fds() == before

    @pytest.mark.parametrize(
        ("iova", "size", "prot"),
        [(0, 0, RW), (0, -1, RW), (-1, 1, RW), ((1 << 64) - 0x1000, 0x2000, RW), (0, 0x1000, 0), (0, 0x1000, 4)],
    )
    def test_what_makes_no_sense(self, memory: GuestMemory, iova: int, size: int, prot: int) -> None:
        assert refused(lambda: memory.map(iova, size, prot, None, 0)) == errno.EINVAL

    def test_the_last_page_of_the_address_space(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map((1 << 64) - 0x1000, 0x1000, RW, guest.file(0x1000), 0)
        memory.write((1 << 64) - 1, b"x")
        assert memory.read((1 << 64) - 1, 1) == b"x"
        with pytest.raises(DmaFault):
            memory.read((1 << 64) - 1, 2)

    def test_overlaps(self, memory: GuestMemory) -> None:
        memory.map(0x2000, 0x2000, RW, None, 0)
        for iova, size in ((0x2000, 0x2000), (0x1000, 0x1001), (0x3FFF, 1), (0x1000, 0x10000), (0x2800, 0x100)):
            assert refused(partial(memory.map, iova, size, RW, None, 0)) == errno.EEXIST
        memory.map(0x1000, 0x1000, RW, None, 0)
        memory.map(0x4000, 0x1000, RW, None, 0)
        assert [(one.iova, one.end) for one in memory.maps] == [(0x1000, 0x2000), (0x2000, 0x4000), (0x4000, 0x5000)]

    def test_a_file_smaller_than_its_map(self, memory: GuestMemory, guest: Guest) -> None:
        """Touching such a map would kill the process."""
        assert refused(lambda: memory.map(0, 0x2000, RW, guest.file(0x1000), 0)) == errno.EINVAL
        assert refused(lambda: memory.map(0, 0x1000, RW, guest.file(0x1000), PAGE)) == errno.EINVAL

    def test_offset(self, memory: GuestMemory, guest: Guest) -> None:
        fd = guest.file(4 * PAGE)
        os.pwrite(fd, b"third", 2 * PAGE)
        memory.map(0, PAGE, RW, os.dup(fd), 2 * PAGE)
        assert memory.read(0, 5) == b"third"
        memory.write(5, b" page")
        assert os.pread(fd, 10, 2 * PAGE) == b"third page"
        assert refused(lambda: memory.map(0x10000, PAGE, RW, os.dup(fd), 1)) == errno.EINVAL
        os.close(fd)

    def test_a_descriptor_that_cannot_be_mapped(self, memory: GuestMemory) -> None:
        near, far = os.pipe()
        os.close(far)
        assert refused(lambda: memory.map(0, PAGE, RW, near, 0)) in (errno.EINVAL, errno.ENODEV)

    def test_there_is_a_most(self, memory: GuestMemory) -> None:
        for index in range(MAX_MAPS):
            memory.map(index * 16, 16, RW, None, 0)
        assert refused(lambda: memory.map(MAX_MAPS * 16, 16, RW, None, 0)) == errno.ENOSPC

    def test_unmap(self, memory: GuestMemory) -> None:
        for iova in (0x1000, 0x2000, 0x4000):
            memory.map(iova, 0x1000, RW, None, 0)
        gone: list[tuple[int, int]] = []

        class Watching(MemoryWatcher):
            def unmapped(self, iova: int, size: int) -> None:
                gone.append((iova, size))

        memory.watchers += (Watching(),)
        assert refused(lambda: memory.unmap(0x3000, 0x1000)) == errno.ENOENT
        assert refused(lambda: memory.unmap(0x1800, 0x800)) == errno.EINVAL
        assert refused(lambda: memory.unmap(0x1000, 0x1800)) == errno.EINVAL
        assert len(memory.maps) == 3
        generation = memory.generation
        memory.unmap(0x1000, 0x2000)
        assert memory.generation != generation
        memory.unmap_all()
        assert gone == [(0x1000, 0x1000), (0x2000, 0x1000), (0x4000, 0x1000)]
        assert memory.maps == []

    @pytest.mark.parametrize("prot", [RW, DMA_READ])
    def test_memory_the_engine_has_mapped(self, memory: GuestMemory, guest: Guest, prot: int) -> None:
        fd = guest.file(3 * PAGE)
        mapped = mmap.mmap(fd, 3 * PAGE)
        mapped[PAGE : PAGE + 5] = b"there"
        memory.adopt(0x1000, PAGE, prot, mapped, PAGE)
        with pytest.raises(RequestError) as caught:
            memory.adopt(0x1800, PAGE, prot, mmap.mmap(-1, PAGE), 0)
        assert caught.value.errno == errno.EEXIST
        view = memory.view(0x1000, 5, False)
        assert view == b"there"
        assert view.readonly == (prot == DMA_READ)
        assert memory.unmap(0x1000, PAGE) == 1
        assert view == b"there"
        del view
        os.close(fd)

    def test_a_request_in_flight_keeps_its_pages(self, memory: GuestMemory, guest: Guest) -> None:
        fd = guest.file(PAGE)
        memory.map(0, PAGE, RW, os.dup(fd), 0)
        buffer = memory.buffer([(0, PAGE)], write=True)
        memory.unmap(0, PAGE)
        buffer.write(b"late")
        assert os.pread(fd, 4, 0) == b"late"
        with pytest.raises(DmaFault):
            memory.read(0, 1)
        os.close(fd)


class TestFaults:
    def test_bus_mastering_off(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map(0, PAGE, RW, guest.file(PAGE), 0)
        memory.buffer([(0, 1)], write=True)  # so that the fast path knows the map
        memory.enabled = False
        actions: list[Callable[[], object]] = [
            lambda: memory.read(0, 1),
            lambda: memory.write(0, b"x"),
            lambda: memory.view(0, 1, False),
            lambda: memory.buffer([(0, 1)], False),
            lambda: memory.buffer([(0, 1), (2, 1)], False),
        ]
        for action in actions:
            with pytest.raises(DmaFault, match="bus mastering is off"):
                action()
        assert memory.faults == len(actions)

    def test_not_mapped(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map(0x1000, PAGE, RW, guest.file(PAGE), 0)
        for iova, length in ((0, 1), (0xFFF, 2), (0x1FFF, 2), (0x2000, 1)):
            with pytest.raises(DmaFault, match="not mapped") as caught:
                memory.buffer([(iova, length)], write=False)
            assert caught.value.length == length or caught.value.iova >= 0x2000

    def test_read_only(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map(0, PAGE, DMA_READ, guest.file(PAGE), 0)
        assert memory.read(0, 4) == bytes(4)
        view = memory.view(0, 4, False)
        assert view is not None
        assert view.readonly
        for action in (
            lambda: memory.write(0, b"x"),
            lambda: memory.view(0, 4, True),
            lambda: memory.buffer([(0, 4)], True),
        ):
            with pytest.raises(DmaFault, match="read-only"):
                action()

    def test_write_only(self, memory: GuestMemory, guest: Guest) -> None:
        fd = guest.file(PAGE)
        memory.map(0, PAGE, DMA_WRITE, os.dup(fd), 0)
        memory.write(0, b"in")
        assert os.pread(fd, 2, 0) == b"in"
        with pytest.raises(DmaFault, match="write-only"):
            memory.read(0, 1)
        os.close(fd)

    def test_the_client_left(self, memory: GuestMemory) -> None:
        memory.map(0, PAGE, RW, None, 0)
        memory.client = None
        with pytest.raises(DmaFault, match="left"):
            memory.read(0, 1)


class TestAccess:
    def test_it_is_a_dma_space(self, memory: GuestMemory) -> None:
        space: DmaSpace = memory
        assert space.buffer([], write=False).length == 0

    def test_views_are_the_memory_itself(self, memory: GuestMemory, guest: Guest) -> None:
        fd = guest.file(PAGE)
        memory.map(0x1000, PAGE, RW, os.dup(fd), 0)
        view = memory.view(0x1010, 4, True)
        assert view is not None
        view[:] = b"abcd"
        assert os.pread(fd, 4, 0x10) == b"abcd"
        os.close(fd)

    def test_a_view_cannot_span_maps_or_reach_kept_memory(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map(0, PAGE, RW, guest.file(PAGE), 0)
        memory.map(PAGE, PAGE, RW, guest.file(PAGE), 0)
        memory.map(2 * PAGE, PAGE, RW, None, 0)
        assert memory.view(PAGE - 2, 4, False) is None
        assert memory.view(2 * PAGE, 4, False) is None

    def test_scatter_gather_across_maps(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map(0, PAGE, RW, guest.file(PAGE), 0)
        memory.map(PAGE, PAGE, RW, guest.file(PAGE), 0)
        buffer = memory.buffer([(PAGE - 2, 4), (8, 2)], write=True)
        assert [len(view) for view in buffer.views] == [2, 2, 2]
        buffer.write(b"abcdef")
        assert memory.read(PAGE - 2, 4) == b"abcd"
        assert memory.read(8, 2) == b"ef"
        assert guest.messages == []

    def test_kept_memory_is_read_at_once_and_written_at_commit(self, memory: GuestMemory, guest: Guest) -> None:
        guest.kept[0x10000] = bytearray(b"0123456789" * 10)
        memory.map(0, PAGE, RW, guest.file(PAGE), 0)
        memory.map(0x10000, 100, RW, None, 0)
        source = memory.buffer([(0x10000, 4), (0, 2), (0x10004, 2)], write=False)
        assert source.read() == b"0123\0\0" + b"45"
        target = memory.buffer([(0x10000, 4), (0, 2), (0x10006, 4)], write=True)
        target.write(b"ABCDEFGHIJ")
        assert guest.kept[0x10000][:10] == b"0123456789"
        target.commit(8)
        assert guest.kept[0x10000][:10] == b"ABCD45GH89"
        assert memory.read(0, 2) == b"EF"

    def test_what_was_not_transferred_is_not_written(self, memory: GuestMemory, guest: Guest) -> None:
        guest.kept[0] = bytearray(b"old!")
        memory.map(0, 4, RW, None, 0)
        buffer = memory.buffer([(0, 4)], write=True)
        buffer.write(b"new!")
        buffer.commit(0)
        assert guest.kept[0] == b"old!"
        buffer.commit(100)
        assert guest.kept[0] == b"new!"

    def test_describe(self, memory: GuestMemory, guest: Guest) -> None:
        memory.map(0, PAGE, RW, guest.file(PAGE), 0)
        memory.map(PAGE, PAGE, DMA_READ, None, 0)
        assert memory.describe() == [
            {"iova": 0, "size": PAGE, "access": "rw", "by": "mapping"},
            {"iova": PAGE, "size": PAGE, "access": "r-", "by": "message"},
        ]


class Model:
    """Guest memory as one array of bytes with a protection a page; what every access must come to."""

    PAGES = 8

    def __init__(self) -> None:
        self.data = bytearray(self.PAGES * PAGE)
        self.prot = [0] * self.PAGES
        self.owner: list[int | None] = [None] * self.PAGES  # first page of the map that holds it

    def allows(self, iova: int, length: int, needed: int) -> bool:
        if length == 0:
            return True
        if iova < 0 or iova + length > len(self.data):
            return False
        return all(self.prot[page] & needed for page in range(iova // PAGE, (iova + length - 1) // PAGE + 1))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("map"), st.integers(0, 7), st.integers(1, 4), st.sampled_from([1, 2, 3]), st.booleans()),
        st.tuples(st.just("unmap"), st.integers(0, 7), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(0, 8 * PAGE), st.integers(0, 3 * PAGE)),
        st.tuples(st.just("write"), st.integers(0, 8 * PAGE), st.binary(max_size=64)),
        st.tuples(
            st.just("buffer"),
            st.lists(st.tuples(st.integers(0, 8 * PAGE), st.integers(0, 2 * PAGE)), max_size=4),
            st.booleans(),
            st.integers(0, 255),
        ),
        st.tuples(st.just("view"), st.integers(0, 8 * PAGE), st.integers(1, 2 * PAGE), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_sequence_of_maps_and_accesses_is_that_of_plain_bytes(steps: list[tuple[object, ...]]) -> None:
    before = open_fds()
    model, guest, memory = Model(), Guest(), GuestMemory()
    memory.client = guest
    memory.enabled = True
    for step in steps:
        match step:
            case ("map", int(page), int(pages), int(prot), bool(by_fd)):
                _map(model, guest, memory, page, pages, prot, by_fd)
            case ("unmap", int(page), int(pages)):
                _unmap(model, guest, memory, page, pages)
            case ("read", int(iova), int(length)):
                if model.allows(iova, length, DMA_READ):
                    assert memory.read(iova, length) == model.data[iova : iova + length]
                else:
                    with pytest.raises(DmaFault):
                        memory.read(iova, length)
            case ("write", int(iova), bytes(data)):
                if model.allows(iova, len(data), DMA_WRITE):
                    memory.write(iova, data)
                    model.data[iova : iova + len(data)] = data
                else:
                    with pytest.raises(DmaFault):
                        memory.write(iova, data)
                    _resync(model, memory, guest)
            case ("buffer", list(segments), bool(write), int(fill)):
                _buffer(model, memory, segments, write, fill)
            case ("view", int(iova), int(length), bool(write)):
                _view(model, memory, iova, length, write)
    memory.unmap_all()
    assert open_fds() == before


def _map(model: Model, guest: Guest, memory: GuestMemory, page: int, pages: int, prot: int, by_fd: bool) -> None:
    iova, size = page * PAGE, pages * PAGE
    fits = page + pages <= Model.PAGES and all(owner is None for owner in model.owner[page : page + pages])
    if not fits and page + pages <= Model.PAGES:
        assert refused(lambda: memory.map(iova, size, prot, guest.file(size) if by_fd else None, 0)) == errno.EEXIST
    if not fits:
        return
    memory.map(iova, size, prot, guest.file(size) if by_fd else None, 0)
    if not by_fd:
        guest.kept[iova] = bytearray(size)
    model.data[iova : iova + size] = bytes(size)
    model.prot[page : page + pages] = [prot] * pages
    model.owner[page : page + pages] = [page] * pages


def _unmap(model: Model, guest: Guest, memory: GuestMemory, page: int, pages: int) -> None:
    inside = range(page, min(page + pages, Model.PAGES))
    owners = {model.owner[index] for index in inside} - {None}
    members = [index for index in range(Model.PAGES) if model.owner[index] in owners and model.owner[index] is not None]
    if not owners:
        assert refused(lambda: memory.unmap(page * PAGE, pages * PAGE)) == errno.ENOENT
    elif any(index not in inside for index in members):
        assert refused(lambda: memory.unmap(page * PAGE, pages * PAGE)) == errno.EINVAL
    else:
        memory.unmap(page * PAGE, pages * PAGE)
        for index in members:
            guest.kept.pop(index * PAGE, None)
            model.owner[index] = None
            model.prot[index] = 0


def _buffer(model: Model, memory: GuestMemory, segments: list[tuple[int, int]], write: bool, fill: int) -> None:
    needed = DMA_WRITE if write else DMA_READ
    if not all(model.allows(iova, length, needed) for iova, length in segments):
        with pytest.raises(DmaFault):
            memory.buffer(segments, write)
        return
    buffer = memory.buffer(segments, write)
    assert buffer.length == sum(length for _, length in segments) == sum(len(view) for view in buffer.views)
    if not write:
        assert buffer.read() == b"".join(model.data[iova : iova + length] for iova, length in segments)
        return
    data = bytes((fill + index) & 0xFF for index in range(buffer.length))
    assert buffer.write(data) == buffer.length
    buffer.commit(buffer.length)
    at = 0
    for iova, length in segments:
        model.data[iova : iova + length] = data[at : at + length]
        at += length


def _view(model: Model, memory: GuestMemory, iova: int, length: int, write: bool) -> None:
    if not model.allows(iova, length, DMA_WRITE if write else DMA_READ):
        with pytest.raises(DmaFault):
            memory.view(iova, length, write)
    elif (view := memory.view(iova, length, write)) is not None and model.allows(iova, length, DMA_READ):
        assert view == model.data[iova : iova + length]


def _resync(model: Model, memory: GuestMemory, guest: Guest) -> None:
    """After a write that faulted in the middle its beginning may have arrived: take over what is there."""
    for one in memory.maps:
        kept = guest.kept.get(one.iova)
        source = one.view if one.view is not None else kept
        assert source is not None
        model.data[one.iova : one.end] = source
