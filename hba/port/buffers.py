"""`srb.data_buffer` as the miniport sees it: a mapped view, an opaque address, or None (no address at all).

On Windows the field is a virtual address that may or may not be valid in the miniport's context. Here it is an object
that knows which of the two it is. Both are addresses: `buffer + 512` is one too, and may be given to
`get_physical_address`. Only a `MappedBuffer` has bytes behind it; touching an `OpaqueBuffer` is what a page fault at
raised IRQL is on Windows (CF-02, MB-03, MB-05).

What the toucher gets is the setting `forbidden_access`: "exception" (a `ForbiddenAccess`, which ends the callback) or
"poison" (reads give 0xDB bytes, writes go nowhere).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hba.dma import DmaBuffer
from hba.port.request import COMPLETED, NOTIFIED, Request

POISON: Final = 0xDB


class ForbiddenAccess(Exception):
    """The miniport touched memory that has no valid address in its context; Windows: bug check 0xD1."""


# (rule, what was done, request): reports the finding, and raises at verifier level strict.
Report = Callable[[str, str, Request], None]


class BufferPolicy:
    """What happens when a buffer is touched that must not be. One per port and kind of buffer."""

    __slots__ = ("poison", "report", "rule", "why")

    def __init__(self, rule: str, why: str, poison: bool, report: Report) -> None:
        self.rule = rule
        self.why = why
        self.poison = poison
        self.report = report

    def touched(self, how: str, request: Request, rule: str = "") -> None:
        """Returns when the toucher gets poison; else raises."""
        rule = rule or self.rule
        message = f"{how} of a data buffer {self.why}"
        self.report(rule, message, request)
        if not self.poison:
            raise ForbiddenAccess(f"{rule}: {message}")


class MappedBuffer:
    """A data buffer with a valid address (MapBuffers TRUE): the request's bytes, in the guest's memory itself."""

    __slots__ = ("_dma", "offset", "policy", "request")

    def __init__(self, dma: DmaBuffer, request: Request, policy: BufferPolicy | None = None, offset: int = 0) -> None:
        self._dma = dma
        self.request = request
        self.policy = policy  # not None: watched (after completion; BufferAccessScsiPortControlled)
        self.offset = offset

    def _dma_for(self, how: str) -> DmaBuffer:
        policy = self.policy
        if policy is not None:
            # OW-01: the address is not the miniport's any more once it completed the request.
            if self.request.state >= NOTIFIED:
                policy.report("OW-01", f"{how} of a data buffer after its request was completed", self.request)
            # CF-08: the miniport promised to reach data only through the port's routines.
            elif policy.rule:
                policy.report(policy.rule, f"{how} of a data buffer {policy.why}", self.request)
        return self._dma

    @property
    def views(self) -> list[memoryview]:
        """The bytes, in place."""
        dma = self._dma_for("use")
        return dma.views if not self.offset else dma.slice(self.offset, dma.length)

    def __len__(self) -> int:
        return max(0, self._dma.length - self.offset)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """A copy of `length` bytes (to the end without) at `offset`, clipped to the buffer."""
        dma = self._dma_for("read")
        return dma.read(self.offset + offset, dma.length if length is None else length)

    def write(self, data: bytes | memoryview, offset: int = 0) -> int:
        """Copy `data` in at `offset`, clipped; returns the bytes written."""
        return self._dma_for("write").write(data, self.offset + offset)

    def __bytes__(self) -> bytes:
        return self.read()

    def __add__(self, offset: int) -> MappedBuffer:
        return MappedBuffer(self._dma, self.request, self.policy, self.offset + offset)

    def __repr__(self) -> str:
        return f"<MappedBuffer {len(self)} bytes>"


class OpaqueBuffer:
    """A data buffer whose address is not valid here: good for `get_physical_address` and nothing else."""

    __slots__ = ("offset", "policy", "request")

    def __init__(self, request: Request, policy: BufferPolicy, offset: int = 0) -> None:
        self.request = request
        self.policy = policy
        self.offset = offset

    def __add__(self, offset: int) -> OpaqueBuffer:
        return OpaqueBuffer(self.request, self.policy, self.offset + offset)

    def _touched(self, how: str, length: int = 0) -> bytes:
        self.policy.touched(how, self.request)
        return bytes((POISON,)) * length

    def _rest(self) -> int:
        mdl = self.request.srb.mdl
        return max(0, mdl.length - self.offset) if mdl is not None else 0

    @property
    def views(self) -> list[memoryview]:
        return [memoryview(bytearray(self._touched("use", self._rest())))]

    def __len__(self) -> int:
        self._touched("len()")
        return self._rest()

    def __bool__(self) -> bool:
        return True  # a pointer that is not NULL

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        rest = max(0, self._rest() - offset)
        return self._touched("read", rest if length is None else min(rest, length))

    def write(self, data: bytes | memoryview, offset: int = 0) -> int:
        self._touched("write")
        return min(len(data), max(0, self._rest() - offset))

    def __bytes__(self) -> bytes:
        return self.read()

    def __getitem__(self, index: int | slice) -> int | bytes:
        if isinstance(index, slice):
            return self._touched("read", len(range(*index.indices(self._rest()))))
        if index >= self._rest() or index < -self._rest():
            raise IndexError(index)
        self._touched("read")
        return POISON

    def __setitem__(self, index: int | slice, value: object) -> None:
        self._touched("write")

    def __iter__(self) -> Iterator[int]:
        return iter(self._touched("read", self._rest()))

    def __repr__(self) -> str:
        return f"<OpaqueBuffer +{self.offset:#x}>"


def physical_address(request: Request, dma: DmaBuffer, offset: int) -> tuple[int, int] | None:
    """(bus address, bytes contiguous from there) of byte `offset` of a request's data; None outside of it (CF-04)."""
    segments = dma.segments
    if not offset and segments:
        return segments[0]
    if request.state == COMPLETED:
        return None
    return dma.segment_at(offset)
