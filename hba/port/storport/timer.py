"""RequestTimerCall: the miniport's one timer (IN-05, IN-06)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hba.clock import MS, US, Timer
from hba.port.context import NO_CALLBACK, TIMER

if TYPE_CHECKING:
    from hba.port.storport.driver import StorPort


class MiniportTimer:
    """One outstanding request; a new one replaces it."""

    def __init__(self, port: StorPort) -> None:
        self.port = port
        self.timer: Timer | None = None
        self.routine: Callable[[], None] | None = None

    def request(self, routine: Callable[[], None] | None, microseconds: int) -> None:
        """Call `routine` once, in `microseconds` at the earliest, on the timer's resolution; 0 cancels."""
        self.cancel()
        if routine is None:
            self.port.offence("IN-06", "RequestTimerCall without a HwTimer routine")
            return
        if microseconds <= 0:
            return
        resolution = self.port.stor_options.timer_resolution * MS
        deadline = self.port.clock.now() + microseconds * US
        self.routine = routine
        self.timer = self.port.clock.call_at(-(-deadline // resolution) * resolution, self._expired)

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.routine = None

    def _expired(self) -> None:
        """Never while another callback runs: the timer and the interrupt exclude each other."""
        port = self.port
        if port.callback != NO_CALLBACK or port.running:
            port.loop.call_soon(self._expired)
            return
        routine, self.timer, self.routine = self.routine, None, None
        if routine is not None and port.started:
            port.call(TIMER, port.irql_of(TIMER), None, routine)
            port.run()
