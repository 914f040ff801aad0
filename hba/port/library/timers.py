"""Timers beyond the one of RequestTimerCall (IN-05, LB-04).

Sources: StorPortInitializeTimer, StorPortRequestTimer, StorPortFreeTimer (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.clock import MS, US, Clock, Timer
from hba.miniport.services import (
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import TIMER
from hba.port.library.host import Caller
from hba.port.library.later import Later

LEAST_DELAY = 32  # microseconds of TolerableDelay; less is none
MOST_TIMERS = 4096  # the page has no maximum since Windows 8; this is ours against a leak

TimerCallback = Callable[[Any], object]  # PHW_TIMER_EX: (context)


class TimerHandle:
    """An opaque timer context object."""

    __slots__ = ("freed", "timer")

    def __init__(self) -> None:
        self.timer: Timer | None = None
        self.freed = False

    @property
    def active(self) -> bool:
        return self.timer is not None and self.timer.pending


class Timers:
    """`resolution`: milliseconds of the system's timer."""

    def __init__(self, caller: Caller, clock: Clock, later: Later, resolution: int) -> None:
        self._caller = caller
        self._clock = clock
        self._later = later
        self._step = resolution * MS
        self._handed_out: set[TimerHandle] = set()

    def forget(self) -> None:
        for handle in self._handed_out:
            self._cancel(handle)
        self._handed_out.clear()

    def initialize_timer(self) -> tuple[int, TimerHandle | None]:
        """StorPortInitializeTimer: (STOR_STATUS_*, timer). INVALID_IRQL above DISPATCH_LEVEL; UNSUCCESSFUL: too
        many."""
        if len(self._handed_out) >= MOST_TIMERS:
            return STOR_STATUS_UNSUCCESSFUL, None
        handle = TimerHandle()
        self._handed_out.add(handle)
        return STOR_STATUS_SUCCESS, handle

    def request_timer(
        self,
        timer_handle: TimerHandle | None,
        timer_callback: TimerCallback | None,
        callback_context: Any,
        timer_value: int,
        tolerable_delay: int = 0,
    ) -> int:
        """StorPortRequestTimer: have `timer_callback(callback_context)` called once, at DISPATCH_LEVEL.

        `timer_value`: microseconds, 0 cancels. `tolerable_delay`: microseconds it may come later than that; it comes
        at the first tick of the system's timer, so this decides nothing. At any IRQL. INVALID_PARAMETER: no timer of
        the port, or no callback; BUSY: it is active, and `timer_value` is not 0.
        """
        if timer_callback is None or not self._mine(timer_handle, "StorPortRequestTimer"):
            return STOR_STATUS_INVALID_PARAMETER
        assert timer_handle is not None
        if timer_value <= 0:
            self._cancel(timer_handle)
            return STOR_STATUS_SUCCESS
        if timer_handle.active:
            return STOR_STATUS_BUSY
        due = -(-(self._clock.now() + timer_value * US) // self._step) * self._step
        timer_handle.timer = self._clock.call_at(due, lambda: self._later.now(TIMER, timer_callback, callback_context))
        return STOR_STATUS_SUCCESS

    def free_timer(self, timer_handle: TimerHandle | None) -> int:
        """StorPortFreeTimer. INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no timer of the port; UNSUCCESSFUL:
        it is free already."""
        if isinstance(timer_handle, TimerHandle) and timer_handle.freed:
            self._caller.offence("LB-04", "StorPortFreeTimer of a timer that is free already")
            return STOR_STATUS_UNSUCCESSFUL
        if not self._mine(timer_handle, "StorPortFreeTimer"):
            return STOR_STATUS_INVALID_PARAMETER
        assert timer_handle is not None
        self._cancel(timer_handle)
        timer_handle.freed = True
        self._handed_out.discard(timer_handle)
        return STOR_STATUS_SUCCESS

    def _mine(self, handle: object, routine: str) -> bool:
        if isinstance(handle, TimerHandle) and handle in self._handed_out:
            return True
        self._caller.offence("LB-04", f"{routine} of {handle!r}, which is no timer of the port, or not any more")
        return False

    @staticmethod
    def _cancel(handle: TimerHandle) -> None:
        if handle.timer is not None:
            handle.timer.cancel()
