"""The ordered event log. Whoever has something to record holds a `Recorder` or None; None is tracing switched off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from hba.clock import Clock


class Event(NamedTuple):
    """One thing that happened.

    `srb` numbers requests from 1 in the order the port got them; 0: no request is involved.
    """

    time: int  # ns on the adapter's clock
    kind: str  # "submit", "start_io.enter", "start_io.exit", "notification", "isr.enter", "complete", ...
    srb: int
    detail: object  # JSON-able


class Recorder:
    """Keeps the last `keep` events and hands each to the subscribers (a file, the control socket, a test)."""

    def __init__(self, clock: Clock, keep: int = 65_536) -> None:
        self.clock = clock
        self.events: deque[Event] = deque(maxlen=keep)
        self.subscribers: list[Callable[[Event], None]] = []
        self.recorded = 0  # in all; the oldest kept one is number `recorded - len(events)`

    def add(self, kind: str, srb: int = 0, detail: object = None) -> None:
        event = Event(self.clock.now(), kind, srb, detail)
        self.events.append(event)
        self.recorded += 1
        for subscriber in self.subscribers:
            subscriber(event)

    def since(self, number: int, limit: int) -> tuple[int, list[Event]]:
        """Up to `limit` events from number `number` on, or from the oldest kept; with the number of the first."""
        first = self.recorded - len(self.events)
        start = min(max(number, first), self.recorded)
        return start, list(islice(self.events, start - first, start - first + limit))
