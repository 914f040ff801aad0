"""What a harness makes of the bytes it is given: numbers, choices, pieces.

Total: any bytes are an input, and one that has ended goes on with zeros, so a shortened input means nearly the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MASK64 = (1 << 64) - 1
# Numbers on which a check that is off by one shows.
EDGES = (
    0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 255, 256, 511, 512, 513, 0xFFF, 0x1000, 0x1001, 0x7FFF,
    0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63,
    MASK64 - 1, MASK64,
)  # fmt: skip


class Reader:
    """The bytes of one input, from its beginning. `edges`: numbers of the harness's own on which checks turn."""

    def __init__(self, data: bytes, edges: Sequence[int] = ()) -> None:
        self._data = data
        self._at = 0
        self._edges = (*EDGES, *edges)

    def steps(self, most: int) -> Iterator[None]:
        """While there is something left, and so often at most."""
        for _ in range(most):
            if not self.left:
                break
            yield

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._at

    def bytes(self, most: int) -> bytes:
        """At most so many bytes: what is there."""
        taken = self._data[self._at : self._at + most]
        self._at += len(taken)
        return taken

    def u8(self) -> int:
        return self._fixed(1)

    def u16(self) -> int:
        return self._fixed(2)

    def u32(self) -> int:
        return self._fixed(4)

    def u64(self) -> int:
        return self._fixed(8)

    def _fixed(self, size: int) -> int:
        return int.from_bytes(self.bytes(size), "little")

    def choose(self, choices: Sequence[T]) -> T:
        """One of at most 256."""
        return choices[self.u8() % len(choices)]

    def number(self) -> int:
        """A number of 64 bits as a hostile guest would choose it: one byte for a small one, two for an edge or what is
        beside it, nine for any."""
        kind = self.u8()
        if kind < 0xA0:
            return kind
        if kind < 0xF0:
            return (self._edges[self.u8() % len(self._edges)] + kind % 5 - 2) & MASK64
        return self.u64()

    def piece(self) -> bytes:
        """Some bytes, their number first."""
        return self.bytes(self.u8())
