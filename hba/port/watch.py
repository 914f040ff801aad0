"""What a port does around every callback of its miniport: context, containment, findings, history, trace.

Nothing in here decides what happens to a request; that is `hba.port.ownership` and the models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from hba.clock import MS, US, S
from hba.loop import EventLoop
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.port.buffers import ForbiddenAccess
from hba.port.config import PortConfig
from hba.port.context import (
    CALLBACK_NAMES,
    FIND_ADAPTER,
    INITIALIZE,
    INTERRUPT,
    IRQL_NAMES,
    LEGAL,
    MISPLACED_RULE,
    NO_CALLBACK,
    PASSIVE_LEVEL,
    caller,
    raised_at,
)
from hba.port.driver import PortDriver
from hba.port.request import Request, describe
from hba.trace.recorder import Recorder
from hba.verifier import RuleViolation, Verifier

T = TypeVar("T")
log = logging.getLogger("hba.port")

# IN-03: how long a miniport may hold the processor
STALL_NOTE = 1 * MS  # HwScsiTimer page: stall at most 1 ms outside initialisation
STALL_LIMIT = 100 * MS  # 0xF1 parameter 0x1001 / 0x2001
ISR_NOTE = 50 * US  # from here on deferral is recommended
CALLBACK_LIMIT = 500 * MS  # 0xF1 parameter 0x1002
INITIALIZE_LIMIT = 5 * S  # likewise, for HwInitialize


class PortWatch(PortDriver):
    """First part of `PortBase`."""

    def __init__(
        self,
        loop: EventLoop,
        miniport: Miniport,
        chip: Chip,
        config: PortConfig,
        verifier: Verifier | None,
        trace: Recorder | None,
    ) -> None:
        self.loop = loop
        self.clock = loop.clock
        self.miniport = miniport
        self.chip = chip
        self.options = config
        # `verifier` off is None: nothing may hold one that is switched off.
        self.verifier = verifier if verifier is not None and verifier.level != "off" else None
        self.trace = trace
        # what runs now
        self.callback = NO_CALLBACK
        self.irql = PASSIVE_LEVEL
        self.current: Request | None = None  # the one hw_build_io or hw_start_io was called with
        self.charged = 0  # ns the current callback stalled
        self.counters: dict[str, int] = {}  # rare events by name
        self.last_crash = ""

    # == calling the miniport =======================================================================================

    def call(self, callback: int, irql: int, default: T, routine: Callable[..., T], *arguments: Any) -> T:
        """Run a callback of the miniport; `default` when it raises. (hw_start_io and hw_interrupt have their own,
        inlined, because they are hot.)"""
        outer, outer_irql = self.callback, self.irql
        self.callback, self.irql = callback, irql
        name = CALLBACK_NAMES[callback]
        if self.trace is not None:
            self.trace.add(f"{name}.enter", 0, None)
        charged = self.begin_watch()
        try:
            return routine(*arguments)
        except Exception as error:
            self.crashed(error, None)
            return default
        finally:
            if self.verifier is not None:
                stalled = self.end_watch()
                # A callback inside another holds the processor for that one, too.
                self.charged = charged + stalled if outer != NO_CALLBACK else 0
            self.callback, self.irql = outer, outer_irql
            if self.trace is not None:
                self.trace.add(f"{name}.exit", 0, None)

    def crashed(self, error: Exception, request: Request | None) -> None:
        """A callback raised: contained, reported, counted. The caller decides what becomes of the request."""
        self.count("miniport exceptions")
        if isinstance(error, (RuleViolation, ForbiddenAccess)) and self.verifier is not None:
            return  # the finding is there already; the exception only ended the callback
        where = raised_at(error.__traceback__)
        crash = f"{CALLBACK_NAMES[self.callback]} raised {type(error).__name__}: {error}"
        if crash not in self.last_crash:  # a miniport that crashes on every request says so once
            log.error("the miniport's %s (%s)", crash, where)
        self.last_crash = f"{crash} ({where})"
        self.finding("BC-01", crash, request, where=where)

    def begin_watch(self) -> int:
        """A callback begins with nothing charged; what was charged to the one it is called from."""
        outer, self.charged = self.charged, 0
        return outer

    def end_watch(self) -> int:
        """IN-03: how long the callback took, which is what its stalls say; returns that, in ns.

        The clock on the wall is not asked: how long this host's Python takes, and what else the host did meanwhile,
        says nothing about a driver's milliseconds on a processor.
        """
        callback = self.callback
        stalled, self.charged = self.charged, 0
        if callback == FIND_ADAPTER:
            return stalled
        limit = INITIALIZE_LIMIT if callback == INITIALIZE else CALLBACK_LIMIT
        name = CALLBACK_NAMES[callback]
        if stalled > limit:
            message = f"{name} stalled {stalled / MS:.1f} ms in all, the limit is {limit // MS} ms"
            self.finding("IN-03", message, microseconds=stalled // US)
        elif callback == INTERRUPT and stalled > ISR_NOTE:
            self.finding("IN-03", f"{name} stalled {stalled // US} us; from 50 us on, defer the work", severity="note")
        return stalled

    def stall_execution(self, microseconds: int) -> None:
        """ScsiPortStallExecution: no real waiting, the callback's account is charged (IN-03)."""
        stall = max(0, microseconds) * US
        self.charged += stall
        self.count("stalls")
        if self.verifier is None:
            return
        if stall > STALL_LIMIT:
            self.offence("IN-03", f"stall of {microseconds} us; more than 100000 us is forbidden")
        elif stall > STALL_NOTE and self.callback not in (FIND_ADAPTER, INITIALIZE):
            self.finding("IN-03", f"stall of {microseconds} us; at most 1000 us", where=caller(), severity="warning")

    # == findings, history, trace ===================================================================================

    def note(self, request: Request | None, what: str, detail: object = None) -> None:
        """For the trace, and for the history of the SRB (verifier), which is put into words only when it is needed."""
        if self.trace is not None:
            self.trace.add(what, request.number if request is not None else 0, detail)
        if self.verifier is not None and request is not None:
            history = request.history
            if history is None:
                history = request.history = []
            if len(history) < 64:
                history.append((self.clock.now(), what, detail))

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None = None,
        where: str = "",
        severity: str | None = None,
        **details: object,
    ) -> bool:
        """Report to the verifier, if there is one. True when level strict asks to raise it into the offender."""
        verifier = self.verifier
        if verifier is None:
            return False
        found = verifier.report(
            rule,
            message,
            severity=severity,
            where=where,
            srb=f"#{request.number} {describe(request.srb)}" if request is not None else "",
            history=request.story() if request is not None else (),
            callback=CALLBACK_NAMES[self.callback],
            irql=IRQL_NAMES.get(self.irql, str(self.irql)),
            **details,
        )
        if self.trace is not None and found is not None:
            self.trace.add("finding", request.number if request is not None else 0, f"{rule} {message}")
        return found is not None and verifier.strict and found.severity == "violation"

    def offence(self, rule: str, message: str, request: Request | None = None, severity: str | None = None) -> None:
        """A finding the miniport commits right now, by a call: with its source line, raised into it when strict."""
        verifier = self.verifier
        if verifier is not None and self.finding(rule, message, request, where=caller(), severity=severity):
            raise RuleViolation(verifier.findings[-1])

    def offence_of(self, rule: str, message: str, request: Request) -> None:
        """The same, in the shape buffers and guards call."""
        self.offence(rule, message, request)

    def check_place(self, notification: int) -> None:
        """The legality matrix: a notification from a callback that has no business with it is a warning."""
        legal = LEGAL.get(notification)
        if legal is not None and self.callback not in legal and self.callback <= 9:
            rule = MISPLACED_RULE[notification]
            # IN-04 names its only callbacks; the rest of the matrix is incomplete in the documents.
            self.offence(
                rule,
                f"notification {notification} from {CALLBACK_NAMES[self.callback]}",
                severity=None if rule == "IN-04" else "warning",
            )

    def count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def doing(self) -> str:
        return f"{CALLBACK_NAMES[self.callback]} passed"
