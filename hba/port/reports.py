"""What the miniport is doing right now, and what is said about it: findings, notes, counters.

This is what rules see of the port they work for. It calls nobody but who watches.
"""

from __future__ import annotations

from hba.port.context import CALLBACK_NAMES, NO_CALLBACK, PASSIVE_LEVEL, caller
from hba.port.driver import PortDriver
from hba.port.request import Request
from hba.port.watcher import Watcher


class Reports(PortDriver):
    """First part of `PortBase`."""

    def __init__(self) -> None:
        self.watchers: tuple[Watcher, ...] = ()
        # what runs now
        self.callback = NO_CALLBACK
        self.irql = PASSIVE_LEVEL
        self.charged = 0  # ns the current callback stalled
        self.unsettled = False  # it did something that has to be looked at when it returns: stalled, took a lock
        self.counters: dict[str, int] = {}  # rare events by name
        self.reported_stuck: set[tuple[str, str]] = set()  # (rule, what) that was said to stand still

    def note(self, request: Request | None, what: str, detail: object = None) -> None:
        """Something that is not seen at a boundary: for the trace, and for the history of the SRB."""
        for watcher in self.watchers:
            watcher.note(request, what, detail)

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None = None,
        where: str = "",
        severity: str | None = None,
        **details: object,
    ) -> Exception | None:
        """A broken rule, for whoever watches; what is to be raised into the offender for it, if there is one."""
        raised = None
        for watcher in self.watchers:
            raised = watcher.finding(rule, message, request, where, severity, details) or raised
        return raised

    def offence(self, rule: str, message: str, request: Request | None = None, severity: str | None = None) -> None:
        """A finding the miniport commits right now, by a call: with its source line, raised into it when strict."""
        if self.watchers:
            raised = self.finding(rule, message, request, where=caller(), severity=severity)
            if raised is not None:
                raise raised

    def offence_of(self, rule: str, message: str, request: Request) -> None:
        """The same, in the shape buffers and guards call."""
        self.offence(rule, message, request)

    def count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def doing(self) -> str:
        return f"{CALLBACK_NAMES[self.callback]} passed"
