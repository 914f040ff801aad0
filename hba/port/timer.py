"""RequestTimerCall: the miniport's one timer (IN-05, IN-06)."""

from __future__ import annotations

from collections.abc import Callable

from hba.clock import MS, US, Clock, Timer

Routine = Callable[[], None]


class MiniportTimer:
    """One outstanding request; a new one replaces it."""

    def __init__(self, clock: Clock, resolution: int, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._step = resolution * MS
        self._expired = expired
        self._timer: Timer | None = None
        self._routine: Routine | None = None

    @property
    def armed(self) -> bool:
        return self._routine is not None

    def request(self, routine: Routine, microseconds: int) -> None:
        """Call `routine` once, in `microseconds` at the earliest, on the timer's resolution; 0 cancels."""
        self.cancel()
        if microseconds > 0:
            due = self._clock.now() + microseconds * US
            self._routine = routine
            self._timer = self._clock.call_at(-(-due // self._step) * self._step, self._expired)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._routine = None

    def take(self) -> Routine | None:
        """It has expired: what is to be called."""
        routine, self._timer, self._routine = self._routine, None, None
        return routine
