"""What has been done and is not on the completion ring: the batch that runs, and what found no room there.

The ring may be full, its memory not mapped or bus mastering off. Then completions wait in order and are posted as soon
as they can be; a request is not taken for which there would be no room.
"""

from __future__ import annotations

from typing import Final, Generic

from hba.adapters.ring.access import R, RingAccess
from hba.adapters.ring.inflight import InFlight
from hba.adapters.ring.moderation import Moderation
from hba.adapters.ring.rings import MASK32
from hba.clock import MS, Clock, Timer
from hba.errors import DmaFault

RETRY: Final = 1 * MS  # how often a full or unreachable ring is tried again


class Completions(Generic[R]):
    """Those of one adapter. A completion is `width` numbers in a row: the driver's name of the request, the bytes it
    moved, and what else its type posts.

    `done`     of the batch that runs
    `waiting`  completions for which there was no room
    `posted`   completions posted since the start, `bytes` what they moved
    """

    def __init__(
        self, clock: Clock, access: RingAccess[R], in_flight: InFlight, moderation: Moderation, width: int
    ) -> None:
        self._clock = clock
        self._access = access
        self._in_flight = in_flight
        self._moderation = moderation
        self._width = width
        self.done: list[int] = []
        self._waiting: list[int] = []
        self.waiting = 0
        self._retry: Timer | None = None
        self.posted = 0
        self.bytes = 0

    @property
    def is_due(self) -> bool:
        """What waits is tried again by itself."""
        return self._retry is not None

    def flush(self) -> None:
        """Post what has been done, then interrupt once."""
        in_flight, count = self._in_flight, len(self.done) // self._width
        in_flight.outstanding -= count
        if self._access.rings is not None:  # else reset while they were on their way: the guest has forgotten them
            self._waiting += self.done
            self.waiting += count
        self.done.clear()
        self.post()
        in_flight.traffic.answered(in_flight.answered)

    def post(self) -> None:
        """Post what waits, as far as it can be."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        rings = self._access.rings
        if rings is None:
            return
        access, moderation, waiting = self._access, self._moderation, self._waiting
        usable = rings.generation == access.memory.generation or access.reachable(rings)
        if usable and moderation.window.unsettled:
            moderation.window.settle()  # which may find requests, and come by here
        first = rings.completion_prod
        try:
            if usable and waiting:
                rings.post(waiting)
        except DmaFault as fault:
            access.stop(str(fault), fault)
        posted = (rings.completion_prod - first) & MASK32
        if posted:
            end = posted * self._width
            size = sum(waiting[1 : end : self._width])
            del waiting[:end]
            self.waiting = len(waiting) // self._width  # of a list that a reset in between has emptied
            self.posted += posted
            self.bytes += size
            moderation.posted(posted, size)
        if waiting or moderation.window.unsettled:
            self.retry_later()

    def retry_later(self) -> None:
        """Something could not be written to the rings' memory: try again, or at the latest when that is back."""
        if self._retry is None and self._access.memory.enabled:
            self._retry = self._clock.call_later(RETRY, self.post)

    def unposted(self) -> list[int]:
        """What waits, `width` numbers for one, as `wait` takes it."""
        return list(self._waiting)

    def wait(self, fields: list[int]) -> None:
        """These wait, of an adapter that was saved. Raises ValueError for part of one."""
        if len(fields) % self._width:
            raise ValueError(f"{len(fields)} numbers are no completions of {self._width} each")
        self._waiting += fields
        self.waiting += len(fields) // self._width

    def forget(self) -> None:
        """There is no ring any more."""
        self._in_flight.outstanding -= len(self.done) // self._width
        self.done.clear()
        self._in_flight.traffic.answered(self._in_flight.answered)  # as far as there is still somebody to answer
        self._waiting.clear()
        self.waiting = 0
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
