"""What a back end did, for `hba show`."""

from __future__ import annotations


class Counters:
    """Plain integers, counted in the loop's thread. `hand_offs` went to a worker thread, the rest finished at once."""

    def __init__(self) -> None:
        self.reads = 0
        self.writes = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.flushes = 0
        self.zeroes = 0
        self.discards = 0
        self.hand_offs = 0
        self.errors = 0

    def as_dict(self) -> dict[str, int]:
        calls = self.reads + self.writes + self.flushes + self.zeroes + self.discards
        return dict(vars(self)) | {"at_once": max(0, calls - self.hand_offs)}
