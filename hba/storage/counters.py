"""What a back end did, for `hba show`."""

from __future__ import annotations

from hba.storage.backend import Backend


class CountingBackend(Backend):
    """Counters as plain attributes, because they are on the path of every request. Counted in the loop's thread."""

    reads = 0
    writes = 0
    bytes_read = 0
    bytes_written = 0
    flushes = 0
    zeroes = 0
    discards = 0
    hand_offs = 0  # calls that went to a worker or over the network; the others finished at once
    errors = 0

    def describe(self) -> dict[str, object]:
        calls = self.reads + self.writes + self.flushes + self.zeroes + self.discards
        counters = {
            "reads": self.reads,
            "writes": self.writes,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "flushes": self.flushes,
            "zeroes": self.zeroes,
            "discards": self.discards,
            "at_once": max(0, calls - self.hand_offs),
            "hand_offs": self.hand_offs,
            "errors": self.errors,
        }
        return super().describe() | {"physical_block_size": self.physical_block_size, "counters": counters}
