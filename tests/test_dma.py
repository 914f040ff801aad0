"""DMA buffers: slices, copies, clipping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hba.dma import DmaBuffer

PARTS = st.lists(st.binary(max_size=9), max_size=6)


def make(parts: list[bytes]) -> DmaBuffer:
    return DmaBuffer.of(*(bytearray(part) for part in parts))


def test_of_gives_each_view_its_own_pages() -> None:
    buffer = DmaBuffer.of(bytearray(5000), bytearray(3))
    assert buffer.segments == [(0x1000, 5000), (0x3000, 3)]
    assert buffer.length == 5003


def test_of_takes_views_of_wider_items() -> None:
    words = memoryview(bytearray(8)).cast("I")
    buffer = DmaBuffer.of(words)
    assert buffer.length == 8
    assert buffer.write(b"\1" * 8) == 8
    assert words[0] == 0x01010101


def test_the_whole_is_not_sliced_anew() -> None:
    buffer = make([b"ab", b"cd"])
    assert buffer.slice(0, 4) is buffer.views
    assert buffer.slice(0, 100) is buffer.views


def test_writing_reaches_the_memory_behind() -> None:
    memory = bytearray(4)
    DmaBuffer.of(memory).write(b"xy", 1)
    assert memory == b"\0xy\0"


def test_commit_of_mapped_memory_needs_nothing() -> None:
    buffer = make([b"abc"])
    buffer.commit(3)
    assert buffer.read() == b"abc"


@given(PARTS, st.integers(0, 60), st.integers(0, 60))
def test_read_and_slice_are_those_of_the_joined_bytes(parts: list[bytes], offset: int, length: int) -> None:
    whole = b"".join(parts)
    buffer = make(parts)
    assert buffer.length == len(whole)
    assert buffer.read() == whole
    assert buffer.read(offset) == whole[offset:]
    assert buffer.read(offset, length) == whole[offset : offset + length]
    assert b"".join(buffer.slice(offset, length)) == whole[offset : offset + length]


@given(PARTS, st.integers(0, 60), st.binary(max_size=60))
def test_write_is_that_of_the_joined_bytes_clipped(parts: list[bytes], offset: int, data: bytes) -> None:
    whole = bytearray(b"".join(parts))
    buffer = make(parts)
    clipped = data[: max(0, len(whole) - offset)]
    assert buffer.write(data, offset) == len(clipped)
    whole[offset : offset + len(clipped)] = clipped
    assert buffer.read() == whole
