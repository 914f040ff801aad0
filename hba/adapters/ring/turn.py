"""How much is taken from a ring at a time: the guest's other wishes, and other guests, come between."""

from __future__ import annotations

from typing import Final

BATCH: Final = 16  # requests that are executed, completed and announced together
LARGE: Final = 32 << 10  # bytes of a request
BATCH_BYTES: Final = 4 << 20  # of large ones in a batch: the guest shall hear of some before we have done all
# What is taken from the ring in one turn of the event loop; the rest waits for the next.
TURN_REQUESTS: Final = 256
TURN_BYTES: Final = 16 << 20
TURN_PIECES: Final = 4096  # of memory, of requests that have many


class Turn:
    """What the turn of the event loop that runs has left."""

    def __init__(self) -> None:
        self.requests = self.bytes = self.pieces = 0

    def begin(self) -> None:
        self.requests, self.bytes, self.pieces = TURN_REQUESTS, TURN_BYTES, TURN_PIECES

    @property
    def is_over(self) -> bool:
        return self.requests <= 0 or self.bytes <= 0 or self.pieces <= 0
