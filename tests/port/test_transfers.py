"""Splitting transfers (hba.port.transfers): whatever the list looks like, the parts are the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hba.dma import DmaBuffer
from hba.port.transfers import TransferLimits, pieces

BLOCK = 8


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(BLOCK, 64),
    st.integers(1, 6),
)
def test_parts_keep_the_limits_and_make_up_the_whole(lengths: list[int], max_length: int, max_segments: int) -> None:
    lengths.append(-sum(lengths) % BLOCK or BLOCK)
    content = bytes(index % 251 for index in range(sum(lengths)))
    views, start = [], 0
    for length in lengths:
        views.append(bytearray(content[start : start + length]))
        start += length
    data = DmaBuffer.of(*views)
    limits = TransferLimits(max_length, max_segments)
    parts = pieces(data, BLOCK, limits)
    if parts is None:
        assert max_segments < BLOCK  # elements so short that not one block fits
        return
    found = list(parts)
    for part in found:
        assert 0 < part.length <= max_length
        assert part.length % BLOCK == 0
        assert len(part.segments) <= max_segments
        assert sum(length for _, length in part.segments) == part.length == sum(map(len, part.views))
    assert b"".join(part.read() for part in found) == content
    covered = [(address + at) for part in found for address, length in part.segments for at in range(length)]
    assert covered == [(address + at) for address, length in data.segments for at in range(length)]


def test_a_list_that_cannot_be_cut() -> None:
    data = DmaBuffer.of(*[bytearray(1) for _ in range(16)])
    assert pieces(data, 8, TransferLimits(64, 4)) is None
