"""Which pages of guest memory the device has written: what a client copies again when it moves a machine that runs.

A page counts as written from the moment memory is lent for writing to its return, and at its return once more: whatever
a client asks in between, no write escapes it. Source: vfio-user, `VFIO_DEVICE_FEATURE_DMA_LOGGING_*`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Final

from hba.dma import DmaBuffer, Segment

SHIFT: Final = 12
PAGE: Final = 1 << SHIFT  # bytes; how finely writes are told apart
_CHUNK: Final = 15  # 32768 pages (128 MiB), whose bits are one number
# Chunks that are kept apart; a device that writes all over more than that (8 TiB) is said to have written everything.
MOST_CHUNKS: Final = 1 << 16


class LoggedBuffer(DmaBuffer):
    """A buffer that is written through its views; the log hears when nobody has it any more."""


class DirtyLog:
    """The pages written since they were asked for last."""

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}  # bits by number of the chunk
        self._everything = False
        self._lent: dict[weakref.ref[DmaBuffer], Sequence[Segment]] = {}

    def mark(self, iova: int, length: int) -> None:
        """A range was written."""
        page, end = iova >> SHIFT, (iova + length - 1 >> SHIFT) + 1
        while page < end:
            chunk, first = page >> _CHUNK, page & ((1 << _CHUNK) - 1)
            count = min(end - page, (1 << _CHUNK) - first)
            self._chunks[chunk] = self._chunks.get(chunk, 0) | ((1 << count) - 1) << first
            page += count
        if len(self._chunks) > MOST_CHUNKS:
            self._chunks.clear()
            self._everything = True

    def lend(self, segments: Sequence[Segment], views: list[memoryview], length: int) -> DmaBuffer:
        """A buffer the device will write to."""
        buffer = LoggedBuffer(segments, views, length)
        self._lent[weakref.ref(buffer, self._returned)] = segments
        return buffer

    def _returned(self, reference: weakref.ref[DmaBuffer]) -> None:
        self._mark_all(self._lent.pop(reference, ()))

    def _mark_all(self, segments: Sequence[Segment]) -> None:
        for iova, length in segments:
            if length:
                self.mark(iova, length)

    def take(self, iova: int, length: int, page_size: int) -> bytes:
        """A bit for each `page_size` bytes (a power of two) from `iova` on (a multiple of that, or of our page), the
        lowest first, in whole 64-bit words. Our pages in that range count as unwritten from now on."""
        for segments in list(self._lent.values()):
            self._mark_all(segments)
        count = -(-length // page_size)
        if self._everything:
            return ((1 << count) - 1).to_bytes(-(-count // 64) * 8, "little")
        result = bytearray(-(-count // 64) * 8)
        first, end = iova >> SHIFT, (iova + length - 1 >> SHIFT) + 1
        for chunk in [chunk for chunk in self._chunks if first >> _CHUNK <= chunk <= end - 1 >> _CHUNK]:
            start, written = self._cut(chunk, first, end)
            if page_size >= PAGE:
                _place_large(result, written, start - first, page_size >> SHIFT)
            else:
                each = PAGE // page_size
                _place(result, _repeated(written, each), (start - first) * each - (iova & (PAGE - 1)) // page_size)
        spare = len(result) * 8 - count
        if spare:  # what of our last page lies behind the range
            kept = int.from_bytes(result[-8:], "little") & ((1 << 64 - spare) - 1)
            result[-8:] = kept.to_bytes(8, "little")
        return bytes(result)

    def _cut(self, chunk: int, first: int, end: int) -> tuple[int, int]:
        """Take the bits of pages [first, end) out of a chunk: (the page of the lowest, the bits)."""
        base = chunk << _CHUNK
        low, high = max(0, first - base), min(1 << _CHUNK, end - base)
        mask = (1 << high) - (1 << low)
        bits = self._chunks.pop(chunk)
        if left := bits & ~mask:
            self._chunks[chunk] = left
        return base + low, (bits & mask) >> low


def _place(result: bytearray, bits: int, at: int) -> None:
    """Put bits into a bitmap; those before its beginning and behind its end are not in it."""
    if at < 0:
        bits, at = bits >> -at, 0
    byte = at >> 3
    bits <<= at & 7
    size = min((bits.bit_length() + 7) >> 3, len(result) - byte)
    bits = (bits & ((1 << 8 * size) - 1)) | int.from_bytes(result[byte : byte + size], "little")
    result[byte : byte + size] = bits.to_bytes(size, "little")


def _place_large(result: bytearray, written: int, at: int, pages: int) -> None:
    """As `_place`, where one bit stands for so many pages; `at` is that of the lowest bit of `written`."""
    number, inside = divmod(at, pages)
    left = pages - inside
    if left >= 1 << _CHUNK:  # all of it is in one
        _place(result, int(written != 0), number)
        return
    if pages >= 1 << _CHUNK:
        _place(result, int(written & ((1 << left) - 1) != 0) | int(written >> left != 0) << 1, number)
        return
    written <<= inside
    step = 1
    while step < pages:  # each bit becomes whether any of the `pages` from there on is set
        written |= written >> step
        step <<= 1
    _place(result, int(f"{written:b}"[::-1][::pages][::-1], 2), number)


def _repeated(bits: int, times: int) -> int:
    """Every bit `times` times."""
    return int(f"{bits:b}".replace("0", "0" * times).replace("1", "1" * times), 2)
