"""Calling the miniport: entering and leaving its callbacks, what they charged, exceptions.

Nothing in here decides what happens to a request; that is `hba.port.base` and the models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from hba.clock import MS, US, S
from hba.loop import EventLoop
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.miniport.proxy import MiniportEdge
from hba.port.buffers import ForbiddenAccess
from hba.port.config import PortConfig
from hba.port.context import (
    CALLBACK_NAMES,
    DIRQL,
    FIND_ADAPTER,
    INITIALIZE,
    INTERRUPT,
    PASSIVE_LEVEL,
    raised_at,
)
from hba.port.reports import Reports
from hba.port.request import Request
from hba.verifier import RuleViolation

T = TypeVar("T")
log = logging.getLogger("hba.port")

# IN-03: how long a miniport may hold the processor
STALL_NOTE: Final = 1 * MS  # HwScsiTimer page: stall at most 1 ms outside initialisation
STALL_LIMIT: Final = 100 * MS  # 0xF1 parameter 0x1001 / 0x2001
ISR_NOTE: Final = 50 * US  # from here on deferral is recommended
CALLBACK_LIMIT: Final = 500 * MS  # 0xF1 parameter 0x1002
INITIALIZE_LIMIT: Final = 5 * S  # likewise, for HwInitialize


class Callbacks(Reports):
    """Second part of `PortBase`."""

    def __init__(self, loop: EventLoop, miniport: Miniport, chip: Chip, config: PortConfig) -> None:
        super().__init__()
        self.loop = loop
        self.clock = loop.clock
        self.miniport = miniport
        self.chip = chip
        self.options = config
        # Where requests and interrupts go. A miniport may take what it gets there for an SRB.
        self.edge = cast(MiniportEdge, miniport)
        self.last_crash = ""
        self.least_irql = PASSIVE_LEVEL  # at which callbacks run, whatever they are
        self.dirql = DIRQL

    def call(self, callback: int, irql: int, default: T, routine: Callable[..., T], *arguments: Any) -> T:
        """Run a callback of the miniport; `default` when it raises. (hw_build_io and hw_start_io, which are about one
        request, are called where that request is: in the models' drivers.)"""
        irql = max(irql, self.least_irql)
        outer, outer_irql, outer_charged = self.callback, self.irql, self.charged
        self.callback, self.irql, self.charged = callback, irql, 0
        for watcher in self.watchers:
            watcher.entered(callback)
        try:
            return routine(*arguments)
        except Exception as error:
            self.crashed(error, None)
            return default
        finally:
            for watcher in self.watchers:
                watcher.left(callback)
            stalled = self.charged
            if self.unsettled:
                self.leave(callback, irql, None)
            self.callback, self.irql = outer, outer_irql
            if outer:  # a callback inside another holds the processor for that one, too
                self.charged = outer_charged + stalled
                self.unsettled = True

    def leave(self, callback: int, irql: int, request: Request | None) -> None:
        """A callback that was entered at `irql`, for `request` if for one, has returned unsettled. A model adds what it
        has to look at."""
        self.unsettled = False
        if self.charged:
            self.end_watch(callback)

    def crashed(self, error: Exception, request: Request | None) -> None:
        """A callback raised: contained, reported, counted. The caller decides what becomes of the request."""
        self.count("miniport exceptions")
        if isinstance(error, RuleViolation):
            return  # the finding is there already; the exception only ended the callback
        where = raised_at(error.__traceback__)
        crash = f"{CALLBACK_NAMES[self.callback]} raised {type(error).__name__}: {error}"
        if crash not in self.last_crash:  # a miniport that crashes on every request says so once
            log.error("the miniport's %s (%s)", crash, where)
        self.last_crash = f"{crash} ({where})"
        if not isinstance(error, ForbiddenAccess):  # which has a rule of its own
            self.finding("BC-01", crash, request, where=where)

    def end_watch(self, callback: int) -> None:
        """IN-03: how long the callback took, which is what its stalls say.

        The clock on the wall is not asked: how long this host's Python takes, and what else the host did meanwhile,
        says nothing about a driver's milliseconds on a processor.
        """
        stalled, self.charged = self.charged, 0
        if callback == FIND_ADAPTER:
            return
        limit = INITIALIZE_LIMIT if callback == INITIALIZE else CALLBACK_LIMIT
        name = CALLBACK_NAMES[callback]
        if stalled > limit:
            message = f"{name} stalled {stalled / MS:.1f} ms in all, the limit is {limit // MS} ms"
            self.finding("IN-03", message, microseconds=stalled // US)
        elif callback == INTERRUPT and stalled > ISR_NOTE:
            self.finding("IN-03", f"{name} stalled {stalled // US} us; from 50 us on, defer the work", severity="note")

    def stall_execution(self, microseconds: int) -> None:
        """ScsiPortStallExecution: no real waiting, the callback's account is charged (IN-03)."""
        stall = max(0, microseconds) * US
        self.charged += stall
        self.unsettled = True
        self.count("stalls")
        if stall > STALL_LIMIT:
            self.offence("IN-03", f"stall of {microseconds} us; more than 100000 us is forbidden")
        elif stall > STALL_NOTE and self.callback not in (FIND_ADAPTER, INITIALIZE):
            self.offence("IN-03", f"stall of {microseconds} us; at most 1000 us", severity="warning")
