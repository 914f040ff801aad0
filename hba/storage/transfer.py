"""Blocks on their way between a store and memory: what `Backend.read_batch` takes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from hba.dma import DmaBuffer
from hba.errors import StorageError
from hba.native import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Transfer:
    """Blocks and the memory they go to or come from; who wants them derives from it.

    data    the memory; its length is that of the blocks
    offset  in the store, bytes
    """

    data: DmaBuffer | None = None
    offset = 0

    def failed(self, error: StorageError) -> None:
        """It has ended at once, with an error."""
        raise NotImplementedError

    def waits(self) -> None:
        """It does not end at once: `answered` will be called. Told before anything else can happen to the store."""
        raise NotImplementedError

    def answered(self, error: StorageError | None) -> None:
        """It waited, and has ended."""
        raise NotImplementedError


Preadv = Callable[[int, list[memoryview], int, int], int]  # os.preadv
Late = tuple[Transfer, int, int]  # what did not end at once, the bytes it has, the error number (0: none)


def read_at_once(preadv: Preadv, fd: int, size: int, reads: Sequence[Transfer], flags: int, late: list[Late]) -> int:
    """What of `reads` the kernel can do without waiting, in bytes; the rest comes to `late`. `size`: of the store."""
    done = 0
    for read in reads:
        data, offset = read.data, read.offset
        assert data is not None
        length = data.length
        if offset + length > size:
            late.append((read, 0, 0))
            continue
        try:
            count = preadv(fd, data.views, offset, flags)
            if count == length:
                done += length
            else:
                late.append((read, count, 0))
        except OSError as problem:
            late.append((read, 0, problem.errno or errno.EIO))
    return done
