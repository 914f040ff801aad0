"""Where a sparse file has data: SEEK_DATA and SEEK_HOLE (lseek(2)), asked once for each extent.

A file in memory (tmpfs, memfd) is walked page by page to find where data ends. Who asks about an extent piece by piece,
as an overlay in small pieces does, would have the rest of it walked for each.
"""

from __future__ import annotations

import errno
import os


class Extents:
    """The extent found last is remembered: of one file, in one thread. `forget` when data may have been given up;
    data that came since makes an extent longer than is said, and what is said stays true."""

    def __init__(self) -> None:
        self._start = self._end = 0

    def look(self, fd: int, offset: int, length: int) -> tuple[bool, int]:
        """Whether there is data at `offset`, and for how many bytes that is so, at most `length`. A file system that
        cannot tell calls everything data."""
        if not self._start <= offset < self._end:
            try:
                data = os.lseek(fd, offset, os.SEEK_DATA)
                if data > offset:
                    return False, min(data - offset, length)
                self._start, self._end = offset, os.lseek(fd, offset, os.SEEK_HOLE)
            except OSError as problem:
                if problem.errno == errno.ENXIO:  # no data from here to the end of the file
                    return False, length
                return True, length
        return True, min(self._end - offset, length)

    def forget(self) -> None:
        self._start = self._end = 0
