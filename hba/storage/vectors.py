"""Vectored transfers that never end short: preadv and pwritev over any number of views.

Sources: preadv2(2) (IOV_MAX, RWF_*), pwritev2(2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

IOV_MAX: int = os.sysconf("SC_IOV_MAX")
_ZEROS = memoryview(bytes(1 << 20))

Vector = Callable[[int, Sequence[memoryview], int, int], int]  # os.preadv, os.pwritev


def length_of(views: Sequence[memoryview]) -> int:
    """Bytes in all."""
    return len(views[0]) if len(views) == 1 else sum(map(len, views))


def skip(views: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """The views without their first `count` bytes."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]] if count else views[index:]
        count -= len(view)
    return []


def cut(views: Sequence[memoryview], offset: int, length: int) -> list[memoryview]:
    """Views of bytes [offset, offset + length)."""
    result: list[memoryview] = []
    for view in skip(views, offset):
        if length <= 0:
            break
        result.append(view[:length])
        length -= len(view)
    return result


def transfer(call: Vector, fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> None:
    """Repeat `call` until all of `views` is done. Blocks. Raises `OSError`; EIO with `short` at the end of the file."""
    while views:
        count = call(fd, views[:IOV_MAX], offset, flags)
        if count == 0 and length_of(views):
            raise EndOfFile(offset)
        offset += count
        views = skip(views, count)


def write_zeros(fd: int, offset: int, length: int) -> None:
    """For stores that cannot make zeros themselves. Blocks."""
    while length > 0:
        count = os.pwrite(fd, _ZEROS[:length], offset)
        offset += count
        length -= count


class EndOfFile(OSError):
    """The file ended before the transfer did."""

    def __init__(self, offset: int) -> None:
        super().__init__(errno.EIO, f"the file ends at or before {offset}")
        self.offset = offset
