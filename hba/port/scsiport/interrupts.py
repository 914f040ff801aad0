"""Deferral by CallEnableInterrupts/CallDisableInterrupts, and the miniport's one timer (IN-04, IN-05)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hba.clock import MS, US, Timer
from hba.port.context import DIRQL, DISABLE_INTERRUPTS, DISPATCH_LEVEL, DPC, NO_CALLBACK, TIMER

if TYPE_CHECKING:
    from hba.port.scsiport.driver import ScsiPort

Routine = Callable[[], None]


def call_enable(port: ScsiPort, routine: Routine) -> None:
    """hw_interrupt defers its work: from here on it is not called, until the CallDisableInterrupts routine ran."""
    if port.chip.interrupts_enabled:
        port.offence("IN-04", "CallEnableInterrupts while the adapter's interrupts are not disabled")
    port.interrupts_held = True
    port.enable_latched = routine


def call_disable(port: ScsiPort, routine: Routine) -> None:
    port.disable_latched = routine


def run_deferred(port: ScsiPort) -> None:
    """The last step of the DPC: the routine with system interrupts enabled, then the one that ends the deferral."""
    routine, port.enable_latched = port.enable_latched, None
    if routine is None:
        return
    port.disable_latched = None
    port.call(DPC, DISPATCH_LEVEL, None, routine)
    disable = port.take_disable_routine()
    if disable is None:
        port.finding("IN-04", "the CallEnableInterrupts routine returned without CallDisableInterrupts")
    else:
        port.call(DISABLE_INTERRUPTS, DIRQL, None, disable)
    port.interrupts_held = False
    if port.chip.asserted and port.chip.interrupts_enabled:
        port.interrupt_pending = True


class MiniportTimer:
    """RequestTimerCall: one slot; a new request replaces the old one, 0 cancels (IN-05)."""

    def __init__(self, port: ScsiPort) -> None:
        self.port = port
        self.timer: Timer | None = None
        self.routine: Routine | None = None

    @property
    def armed(self) -> bool:
        return self.routine is not None

    def request(self, routine: Routine, microseconds: int) -> None:
        self.cancel()
        if microseconds <= 0:
            return
        clock = self.port.clock
        step = self.port.options.timer_resolution * MS
        self.routine = routine
        # Never early: up to the next tick of the resolution.
        self.timer = clock.call_at(-(-(clock.now() + microseconds * US) // step) * step, self._expired)

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None
        self.routine = None

    def _expired(self) -> None:
        port = self.port
        if port.running or port.callback != NO_CALLBACK:
            # Never together with hw_interrupt or another callback.
            port.loop.call_soon(self._expired)
            return
        routine, self.routine, self.timer = self.routine, None, None
        if routine is not None and port.started:
            port.call(TIMER, DIRQL, None, routine)
            port.run()
