"""The ordered event log. Whoever has something to record holds a `Recorder` or None; None is tracing switched off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from hba.clock import Clock
from hba.trace.event import Event, Words

Row = tuple[int, str, int, object]  # what an Event is made of, once somebody wants to see it


class Recorder:
    """Keeps the last `keep` events and hands each to the subscribers (a file, the control socket, a test)."""

    def __init__(self, clock: Clock, keep: int = 65_536) -> None:
        self.clock = clock
        self.subscribers: list[Callable[[Event], None]] = []
        self.recorded = 0  # in all; the oldest kept one is number `recorded - len(events)`
        self._rows: deque[Row] = deque(maxlen=keep)

    def add(self, kind: str, srb: int = 0, detail: object = None) -> None:
        """`detail`: JSON-able, or `Words` that are put together when somebody reads them."""
        row = (self.clock.now(), kind, srb, detail)
        self._rows.append(row)
        self.recorded += 1
        if self.subscribers:
            event = _event(row)
            for subscriber in self.subscribers:
                subscriber(event)

    @property
    def events(self) -> list[Event]:
        """All that are kept, oldest first."""
        return [_event(row) for row in self._rows]

    def since(self, number: int, limit: int) -> tuple[int, list[Event]]:
        """Up to `limit` events from number `number` on, or from the oldest kept; with the number of the first."""
        first = self.recorded - len(self._rows)
        start = min(max(number, first), self.recorded)
        return start, [_event(row) for row in islice(self._rows, start - first, start - first + limit)]


def _event(row: Row) -> Event:
    time, kind, srb, detail = row
    return Event(time, kind, srb, detail.text() if isinstance(detail, Words) else detail)
