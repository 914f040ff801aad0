"""Which pages were written: against a plain set of page numbers, in every page size, and bounded."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.pci import dirty
from hba.pci.dirty import PAGE, SHIFT, DirtyLog
from hba.pci.memory import GuestMemory
from hba.vfio_user.device import RequestError

_BASES = st.sampled_from([0, (1 << 27) - 10 * PAGE, 1 << 27, 1 << 40])  # 1 << 27: where a chunk ends
_WRITES = st.lists(st.tuples(st.integers(0, 1 << 22), st.sampled_from([1, 100, 4096, 5000, 1 << 20])), max_size=8)
_QUESTIONS = st.lists(
    st.tuples(st.integers(0, 63), st.sampled_from([1, 4096, 10_000, 1 << 18, 3 << 20, 1 << 28]), st.integers(9, 31)),
    min_size=1,
    max_size=3,
)


def expected(pages: set[int], iova: int, length: int, page_size: int) -> int:
    bits = 0
    for page in pages:
        first = max(page << SHIFT, iova) - iova
        last = min((page + 1) << SHIFT, iova + length) - 1 - iova
        for bit in range(first // page_size, last // page_size + 1):
            bits |= 1 << bit
    return bits


@settings(max_examples=200, deadline=None)
@given(base=_BASES, writes=_WRITES, questions=_QUESTIONS)
def test_like_a_set(base: int, writes: list[tuple[int, int]], questions: list[tuple[int, int, int]]) -> None:
    log, pages = DirtyLog(), set[int]()
    for at, length in writes:
        log.mark(base + at, length)
        pages |= set(range(base + at >> SHIFT, (base + at + length - 1 >> SHIFT) + 1))
    for offset, length, power in questions:
        page_size = 1 << power
        if length // page_size > 100_000:
            continue
        iova = base + offset * min(page_size, PAGE)
        asked = {page for page in pages if iova >> SHIFT <= page <= iova + length - 1 >> SHIFT}
        bitmap = log.take(iova, length, page_size)
        assert len(bitmap) == ((length + page_size - 1) // page_size + 63) // 64 * 8
        assert int.from_bytes(bitmap, "little") == expected(asked, iova, length, page_size)
        pages -= asked


def test_what_is_lent_counts_until_it_is_returned() -> None:
    log = DirtyLog()
    buffer = log.lend([(0x3000, 0x1000)], [memoryview(bytearray(0x1000))], 0x1000)
    for _ in range(2):
        assert log.take(0, 0x8000, PAGE)[0] == 0b1000
    del buffer  # it may have been written since
    assert log.take(0, 0x8000, PAGE)[0] == 0b1000
    assert log.take(0, 0x8000, PAGE)[0] == 0
    assert not log._lent


def test_who_writes_everywhere_has_written_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty, "MOST_CHUNKS", 4)
    log = DirtyLog()
    for chunk in range(5):
        log.mark(chunk << 27, 1)
    assert not log._chunks
    assert log.take(0, 0x8000, PAGE) == (0xFF).to_bytes(8, "little")


def memory() -> tuple[GuestMemory, int]:
    made, fd = GuestMemory(), os.memfd_create("ram")
    os.ftruncate(fd, 1 << 20)
    made.map(0x10000, 1 << 20, 3, os.dup(fd), 0)
    made.enable(True)
    return made, fd


def test_every_way_to_write_is_logged() -> None:
    made, fd = memory()
    with pytest.raises(RequestError) as caught:
        made.dirty_bitmap(0x10000, 0x8000, PAGE)
    assert caught.value.errno == errno.EINVAL
    view = made.view(0x10000, 8, True)
    assert view is not None and made.window()[1]
    generation = made.generation
    made.start_log()
    assert made.generation != generation  # whoever keeps a view looks again
    assert made.view(0x10000, 8, True) is None and not made.window()[1]
    assert made.view(0x10000, 8, False) is not None
    made.write(0x11FFF, b"ab")
    made.buffer([(0x14000, 10), (0x16000, 10)], True).write(b"x" * 20)
    made.buffer([(0x17000, 10)], True).write(b"x")
    made.buffer([(0x15000, 10)], False)
    assert made.dirty_bitmap(0x10000, 0x8000, PAGE)[0] == 0b11010110
    assert os.pread(fd, 10, 0x6000) == b"x" * 10
    made.stop_log()
    assert made.view(0x10000, 8, True) is not None
    made.unmap_all()
    os.close(fd)


def test_memory_that_is_not_there_has_no_bitmap() -> None:
    made, fd = memory()
    made.start_log()
    for iova, length in ((0, 0x1000), (0xF000, 0x2000), (0x10000, (1 << 20) + 1)):
        with pytest.raises(RequestError) as caught:
            made.dirty_bitmap(iova, length, PAGE)
        assert caught.value.errno == errno.ENOENT
    made.unmap_all()
    os.close(fd)
