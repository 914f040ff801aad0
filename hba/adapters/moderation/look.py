"""When to look at a ring of requests without having been asked to, and when to sleep.

A kick costs more than a look: the virtual processor stops until it has come through, and the server is waked. So after
work the ring is looked at again, in every turn of the event loop, for a window of time, and the driver is told not to
kick meanwhile, if the interface has a way (such as virtio's avail_event).

The window adapts as the kernel's halt polling does (Documentation/virt/kvm/halt-polling.rst): requests that come sooner
after the work before them than the longest window would have lasted make it longer, others shorter, down to nothing.
One that comes late after several in time changes nothing: a virtual processor that had to pause goes on as before, and
in a window that has become too short for it every request would be kicked. A kick takes its time, too, on a slow
machine more than the guest does between two requests: one up to `KICKED` times as late as the longest window lasts may
have been in the ring in time, and is taken to, unless such a window has ended in vain.
Looks that find nothing are paid from a credit, a share of the time that goes by; without credit there is no window.

The end of a window is a race: the driver may have read "do not kick" just before we take it back, and its request may
become visible just after we have looked for the last time, as processors let a load pass an earlier store. So what is
written last is followed by a look, and by one more a moment later: a store does not stay invisible for that long.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Final

from hba.adapters.moderation.options import PollOptions
from hba.clock import MS, US, Timer
from hba.loop import EventLoop
from hba.native import mypyc_attr

SHORTEST: Final = 50 * US  # a window; below that there is none
GROW: Final = 2
SHRINK: Final = 4
STEADY: Final = 3  # requests in time: fewer of them between two late ones, and the window shrinks
KICKED: Final = 2  # times the longest window: so late may a request be for its kick
REST: Final = 64  # such requests after the longest window was in vain, until they count again
PERIOD: Final = 100 * MS  # over which the share is meant
ONCE_MORE: Final = MS // 2  # after the end of a window


@mypyc_attr(allow_interpreted_subclasses=True)
class Ring(ABC):
    """What is looked at, said by the adapter."""

    @abstractmethod
    def can_look(self) -> bool:
        """Whether looking is possible, and cheap: a few memory accesses."""

    @abstractmethod
    def has_work(self) -> bool:
        """Whether there is a request that can be taken now, and nobody is about to."""

    @abstractmethod
    def take(self) -> None:
        """Take what there is, as after a kick."""

    @abstractmethod
    def suppress(self) -> bool:
        """Ask the driver not to kick; False when there is no way to, or it does not listen."""

    @abstractmethod
    def restore(self) -> bool:
        """Ask it to kick again; False when its memory cannot be reached now: `Window.settle` is called when it can."""


class Window:
    """Looks at one ring. The adapter says what it does: `arrived`, `worked`, `forget`.

    `length` is that of the next window in ns, 0 for none; `looks` and `found` count looks, and those with a request;
    `late` counts looks after a window that found one, a lost wake-up at worst, mostly one whose kick is on its way.
    `unsettled`: the window is closed, and the driver does not know: `Ring.restore` has failed.
    """

    def __init__(self, loop: EventLoop, ring: Ring, options: PollOptions) -> None:
        self._loop = loop
        self._clock = loop.clock
        self._ring = ring
        self._longest = options.window * US if options.share else 0
        self._share = options.share
        self.length = 0
        self._in_time = 0  # requests since the last late one
        self._rest = 0  # requests that are not taken to have been late for their kick
        self.looks = self.found = self.late = 0
        self.is_open = False
        self.unsettled = False
        self._scheduled = False
        self._suppressed = False
        self._worked_at = -(1 << 62)
        self._looked_at = 0  # the last look that found nothing
        self._most_credit = int(PERIOD * options.share)
        self._credit = self._most_credit  # ns
        self._credited_at = self._clock.now()
        self._exhausted = False
        self._once_more: Timer | None = None

    # -- for the adapter ------------------------------------------------------------------------------------------

    def arrived(self) -> None:
        """Requests are being taken, whoever asked for it."""
        if self._longest:
            now = self._clock.now()
            if self._comes_in_time(now - self._worked_at):
                self._in_time += 1
                if self.length < self._longest:
                    self.length = min(self._longest, max(SHORTEST, self.length * GROW))
            else:
                if self._in_time < STEADY:
                    self.length = shorter if (shorter := self.length // SHRINK) >= SHORTEST else 0
                self._in_time = 0
            self._worked(now)

    def worked(self) -> None:
        """Completions were posted: the driver may have its next requests soon."""
        if self._longest:
            self._worked(self._clock.now())

    def close(self) -> None:
        """Do not look any more, until there is work again."""
        self.is_open = False
        if self._once_more is not None:
            self._once_more.cancel()
        if not self._suppressed:
            return
        self.unsettled = not self._ring.restore()
        if self.unsettled:
            return
        self._suppressed = False
        self._once_more = self._clock.call_later(ONCE_MORE, self._look_once_more)
        if self._ring.has_work():
            self._ring.take()

    def settle(self) -> None:
        """What `Ring.restore` needs may be back."""
        if self.unsettled:
            self.close()

    def forget(self) -> None:
        """There is no ring any more, nor may its memory be written."""
        self.is_open = self._suppressed = self.unsettled = False
        self.length = 0
        if self._once_more is not None:
            self._once_more.cancel()

    def snapshot(self) -> dict[str, object]:
        """For `hba show`; JSON-able."""
        return {
            "open": self.is_open,
            "kicks_suppressed": self._suppressed,
            "window_us": self.length // US,
            "looks": self.looks,
            "found": self.found,
            "late": self.late,
        }

    # -- looking --------------------------------------------------------------------------------------------------

    def _comes_in_time(self, since: int) -> bool:
        """Whether the longest window would have found a request that has come `since` ns after the work before it. To
        be asked once for each: `_rest` counts them."""
        if since <= self._longest:
            self._rest = 0
            return True
        if since > KICKED * self._longest:
            return False
        if self._rest:
            self._rest -= 1
            return False
        return True

    def _worked(self, now: int) -> None:
        self._worked_at = now
        if not self.is_open and self.length and self._ring.can_look() and self._affordable(now):
            self.is_open = True
            self.unsettled = False
            if not self._suppressed:
                self._suppressed = self._ring.suppress()
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """One look, in one turn of the loop: between two of them everybody else has a turn."""
        self._scheduled = False
        if not self.is_open:
            return
        self.looks += 1
        if self._ring.has_work():
            self.found += 1
            self._ring.take()
        else:
            now = self._clock.now()
            since = self._looked_at if self._looked_at > self._worked_at else self._worked_at
            self._pay(now, now - since)
            self._looked_at = now
            lasted = now - self._worked_at >= self.length
            if lasted or self._exhausted:
                if lasted and self.length == self._longest:
                    self._rest = REST
                self.close()
                return
            os.sched_yield()  # somebody on this processor may be who we wait for
        self._schedule()

    def _look_once_more(self) -> None:
        if not self.is_open and self._ring.has_work():
            self.late += 1
            self._ring.take()

    # -- the share ------------------------------------------------------------------------------------------------

    def _pay(self, now: int, spent: int) -> None:
        credit = self._credit + int((now - self._credited_at) * self._share)
        self._credited_at = now
        self._credit = (credit if credit < self._most_credit else self._most_credit) - spent
        if self._credit <= 0 and self._share < 1:
            self._exhausted = True

    def _affordable(self, now: int) -> bool:
        """Once the credit is used up, half of it must have been earned again before there is another window."""
        self._pay(now, 0)
        if self._exhausted and self._credit >= self._most_credit // 2:
            self._exhausted = False
        return not self._exhausted
