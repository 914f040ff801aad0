"""When completions that have been posted are announced by an interrupt.

An interrupt costs the guest more than a completion does, so while it has more requests on their way, several
completions share one. It is sent

- at once when all that the driver has had in flight lately has been completed: it waits for us, and a driver with one
  request at a time always does;
- at once for a request without data: a driver seldom has several of these (a flush, a look whether the unit is ready);
- when enough completions, or bytes, have come together: `count`, `bytes`, or half of what was in flight lately;
- when no new request has come for `delay`, or for four times the time that lately lay between two of them: the driver
  has stopped to wait; at the latest after `PATIENCE` times `delay`.

Nothing is sent when the driver has taken all completions meanwhile, as it does when it is in its interrupt routine
already.

How much a driver has in flight is learned from what it had; a wait in vain after another, with no announcement of
enough between them, halves it, down to what there is: one alone may be a virtual processor that had to pause. But a
fast server hardly ever sees more than one: what a program has in flight is then completions that the driver has taken
and the program has not yet. So each announcement of several at once is tried with one more the next time, until a wait
is in vain; then not for a while, so that such waits take a small share of the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from hba.adapters.moderation.options import InterruptOptions
from hba.clock import US, Timer
from hba.loop import EventLoop
from hba.native import mypyc_attr

PATIENCE: Final = 10  # times `delay`: how long a completion may wait while new requests keep coming
GAPS: Final = 4  # times `gap`, at most SLOWEST times `delay`: how long the next request of a slow driver is waited for
SLOWEST: Final = 5
REST: Final = 32  # times as long as a wait in vain was: until more is tried again
SHARE: Final = 8  # of the time between two requests, what the latest counts for


@mypyc_attr(allow_interpreted_subclasses=True)
class Driver(ABC):
    """What the adapter knows of the guest's driver."""

    @abstractmethod
    def standing(self) -> tuple[int, int]:
        """(in flight, unseen): requests it has given away and whose completions it has not taken; completions that are
        posted and that it has not taken."""

    @abstractmethod
    def interrupt(self) -> None:
        """Tell it that there are completions."""


class Announcer:
    """One adapter's. `depth`: requests the driver has had in flight lately; `gap`: ns between two of them; `held`
    counts announcements put off, `spared` those that were not needed any more."""

    def __init__(self, loop: EventLoop, driver: Driver, options: InterruptOptions) -> None:
        self._clock = loop.clock
        self._driver = driver
        self._count = options.count
        self._bytes = options.bytes
        self._delay = options.delay * US
        self._slowest = SLOWEST * self._delay
        self.depth = 1
        self.gap = 0
        self.held = self.spared = 0
        self._posted = self._size = 0  # not announced yet
        self._arrived_at = self._held_at = 0  # ns
        self._rests_until = 0  # ns
        self._in_vain = False  # the last wait was
        self._timer: Timer | None = None

    def arrived(self) -> None:
        """Requests are being taken: the driver is at work."""
        now = self._clock.now()
        gap = now - self._arrived_at
        if gap > self._slowest:
            gap = self._slowest
        self.gap += (gap - self.gap) // SHARE
        self._arrived_at = now

    def posted(self, count: int, size: int) -> None:
        """`count` completions of `size` bytes have been posted."""
        self._posted += count
        self._size += size
        in_flight, unseen = self._driver.standing()
        depth = self.depth
        if in_flight > depth:
            self.depth = depth = in_flight
        if self._posted >= depth // 2 or self._posted >= self._count:
            self._in_vain = False
            self._announce(unseen)
            if 1 < depth < 2 * self._count and self._clock.now() >= self._rests_until:
                self.depth += 1  # so many have come together: one more the next time
        elif self._size >= self._bytes or not (size and self._delay) or unseen >= depth:
            self._announce(unseen)
        elif self._timer is None:
            self.held += 1
            self._held_at = self._clock.now()
            self._timer = self._clock.call_later(self._pause(), self._due)

    def _pause(self) -> int:
        """ns without a request after which the driver waits: a slow one is given longer."""
        return max(self._delay, min(GAPS * self.gap, self._slowest))

    def now(self) -> None:
        """Announce what has been posted and not been announced yet."""
        if self._posted:
            self._announce(self._driver.standing()[1])

    def _announce(self, unseen: int) -> None:
        if unseen:
            self._driver.interrupt()
        else:
            self.spared += 1
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        self._posted = self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Nobody waits for what was posted any more."""
        self._stop_waiting()
        self.depth = 1

    def _due(self) -> None:
        now = self._clock.now()
        left = self._pause() - (now - self._arrived_at)
        if left > 0 and now - self._held_at < PATIENCE * self._delay:
            self._timer = self._clock.call_later(left, self._due)
            return
        _, unseen = self._driver.standing()
        if self._in_vain:
            self.depth = max(unseen, self.depth // 2)  # it may have stopped at that
        self._in_vain = True
        self._rests_until = max(now, self._rests_until) + REST * (now - self._held_at)
        self._announce(unseen)

    def snapshot(self) -> dict[str, object]:
        """For `hba show`; JSON-able."""
        return {"waiting": self._posted, "depth": self.depth, "held": self.held, "spared": self.spared}
