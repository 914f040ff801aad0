"""Time, as an object: real for a server, virtual for a test.

All times are integers in nanoseconds. Nothing in the port, the target or the faults asks the operating system
for the time; they ask the clock they were given, so every time-out can be tested without waiting for it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Final

US: Final = 1_000
MS: Final = 1_000_000
S: Final = 1_000_000_000


class Timer:
    """One pending call. `cancel()` is idempotent and cheap; a cancelled timer never fires."""

    __slots__ = ("callback", "deadline", "order")

    def __init__(self, deadline: int, order: int, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    @property
    def pending(self) -> bool:
        return self.callback is not None

    def __lt__(self, other: Timer) -> bool:
        return (self.deadline, self.order) < (other.deadline, other.order)


class Clock:
    """A time source with a queue of timers; timers with the same deadline fire in the order they were set."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []
        self._order = 0

    def now(self) -> int:
        """Nanoseconds since an arbitrary start; never goes back."""
        raise NotImplementedError

    def call_at(self, deadline: int, callback: Callable[[], None]) -> Timer:
        self._order += 1
        timer = Timer(deadline, self._order, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(self, delay: int, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.now() + max(0, delay), callback)

    def next_deadline(self) -> int | None:
        """When the next live timer is due, or None when there is none."""
        timers = self._timers
        while timers and timers[0].callback is None:
            heapq.heappop(timers)
        return timers[0].deadline if timers else None

    def run_due(self) -> int:
        """Fire what is due now; returns how many fired. A timer set by a callback waits for the next call."""
        now, timers = self.now(), self._timers
        if not timers or timers[0].deadline > now:
            return 0  # as in nearly every turn of the loop
        due: list[Timer] = []
        while timers and timers[0].deadline <= now:
            due.append(heapq.heappop(timers))
        fired = 0
        try:
            for timer in due:
                callback, timer.callback = timer.callback, None
                if callback is not None:
                    callback()
                    fired += 1
        except BaseException:
            for timer in due:  # whoever survives the defect must not lose the timers behind it
                if timer.callback is not None:
                    heapq.heappush(timers, timer)
            raise
        return fired


class MonotonicClock(Clock):
    """The operating system's monotonic clock."""

    now = staticmethod(time.monotonic_ns)  # nothing of ours in between: the verifier asks several times a request


class VirtualClock(Clock):
    """A clock that moves only when told to."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._now = start

    def now(self) -> int:
        return self._now

    def advance(self, delta: int) -> None:
        """Move on by `delta` ns, firing each timer at its own deadline on the way."""
        if delta < 0:
            raise ValueError("a clock does not go back")
        end = self._now + delta
        while True:
            deadline = self.next_deadline()
            if deadline is None or deadline > end:
                break
            self._now = max(self._now, deadline)
            self.run_due()
        self._now = end
