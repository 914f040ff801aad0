"""Giving mapped guest memory back to the kernel, a piece a turn of the event loop.

Unmapping costs time for every page that was touched: some 50 ms of CPU for a GiB, during which nobody is served. So the
pages of a large map are let go in pieces first, and the map itself, which is empty then, last. What still reads or
writes there gets its pages back from the file.
"""

from __future__ import annotations

import mmap
from collections import deque
from typing import Final

from hba.loop import EventLoop

PIECE: Final = 64 << 20  # bytes: a few milliseconds
MOST: Final = 64  # maps that wait; a client that lets go of more, and faster, waits for it itself


class Release:
    """What one function gives back, in order."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._leaving: deque[tuple[mmap.mmap, int]] = deque()  # and how much of it is left, from its start

    def add(self, memory: mmap.mmap) -> None:
        size = len(memory)
        if size <= PIECE or len(self._leaving) >= MOST:
            close_now(memory)
            return
        self._leaving.append((memory, size))
        if len(self._leaving) == 1:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        memory, left = self._leaving.popleft()
        start = max(0, left - PIECE)
        memory.madvise(mmap.MADV_DONTNEED, start, left - start)
        if start:
            self._leaving.appendleft((memory, start))
        else:
            close_now(memory)
        if self._leaving:
            self._loop.call_soon(self._go_on)


def close_now(memory: mmap.mmap) -> None:
    """In one go."""
    try:
        memory.close()
    except BufferError:
        pass  # views of it are out; it goes when they go
