"""Guest memory as a request sees it: segments of bus addresses and the host's views of the same bytes.

The foundation under the SRB: what a memory descriptor list is to Windows. `hba.pci.memory.GuestMemory` makes these;
the port and the miniports pass them on; the storage reads and writes `views` in place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Protocol

from hba.native import mypyc_attr

HOST_MEMORY_BASE: Final = 1 << 62  # bus addresses of the host's own memory (hba.port.memory), far above any guest's
# Bus addresses of host memory for adapters with 32 of them: where a PC has its PCI devices, and no RAM of a guest's.
LOW_MEMORY_BASE: Final = 0xE000_0000
LOW_MEMORY_END: Final = 0xF000_0000
FEW: Final = 8  # views; more are not walked to find one
Segment = tuple[int, int]  # (bus address, length in bytes)


@mypyc_attr(allow_interpreted_subclasses=True)
class DmaBuffer:
    """A scatter/gather list of guest memory, in order.

    `segments`  the guest's own list: (IOVA, length).
    `views`     memoryviews of exactly those bytes, each contiguous in our address space. Writable if the transfer is
                towards the guest. There may be more or fewer of them than segments.
    `length`    bytes in all.
    """

    __slots__ = ("_segment_ends", "_view_ends", "by_message", "length", "segments", "views")

    def __init__(self, segments: Sequence[Segment], views: list[memoryview], length: int) -> None:
        self.segments = segments
        self.views = views
        self.length = length
        self.by_message = False  # `commit` has something to do
        # Where each ends, counted from the beginning; made when somebody looks into a list of many.
        self._segment_ends: list[int] | None = None
        self._view_ends: list[int] | None = None

    def segment_at(self, offset: int) -> Segment | None:
        """(bus address, bytes contiguous from there) of byte `offset`; None outside."""
        if not 0 <= offset < self.length:
            return None
        ends = self._segment_ends
        if ends is None:
            ends = self._segment_ends = list(accumulate(length for _, length in self.segments))
        index = bisect_right(ends, offset)
        if index == len(ends):
            return None
        address, length = self.segments[index]
        left = ends[index] - offset
        return address + length - left, left

    def commit(self, transferred: int) -> None:
        """Make the first `transferred` bytes visible to the guest. Nothing to do for memory that is mapped here;
        memory the client kept for itself (no file descriptor) is written by message."""

    def slice(self, offset: int, length: int) -> list[memoryview]:
        """Views of bytes [offset, offset + length), clipped to the buffer."""
        if offset == 0 and length >= self.length:
            return self.views
        result: list[memoryview] = []
        views, first = self.views, 0
        if offset and len(views) > FEW:
            ends = self._view_ends
            if ends is None:
                ends = self._view_ends = list(accumulate(map(len, views)))
            first = bisect_right(ends, offset)
            offset -= ends[first - 1] if first else 0
        for index in range(first, len(views)):
            if length <= 0:
                break
            view = views[index]
            size = len(view)
            if offset >= size:
                offset -= size
                continue
            part = view[offset : offset + length]
            offset = 0
            length -= len(part)
            result.append(part)
        return result

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """A copy, for parameter lists and the like (never for block data)."""
        return b"".join(self.slice(offset, self.length if length is None else length))

    def write(self, data: bytes | memoryview, offset: int = 0) -> int:
        """Copy `data` in at `offset`, clipped; returns the bytes written."""
        done = 0
        source = memoryview(data)
        for view in self.slice(offset, len(source)):
            view[:] = source[done : done + len(view)]
            done += len(view)
        return done

    @classmethod
    def of(cls, *views: bytearray | memoryview, base: int = 0x1000) -> DmaBuffer:
        """A buffer over plain host memory: tests, the port's own requests (sense), benchmarks."""
        parts = [memoryview(view).cast("B") for view in views]
        segments: list[Segment] = []
        for part in parts:
            segments.append((base, len(part)))
            base += (len(part) + 0xFFF) & ~0xFFF
        return cls(segments, parts, sum(len(part) for part in parts))


class DmaSpace(Protocol):
    """How a bus master reaches guest memory; `GuestMemory` is one."""

    def buffer(self, segments: Sequence[Segment], write: bool) -> DmaBuffer:
        """Views for the segments. `write`: the device will write to them.

        Raises `DmaFault` when any byte is not mapped, not writable, or bus mastering is off.
        """
        ...
