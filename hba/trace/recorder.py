"""The ordered event log. Whoever has something to record holds a `Recorder` or None; None is tracing switched off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hba.clock import Clock
from hba.trace.event import Event
from hba.trace.words import Words

FIELDS: Final = 4  # of an Event, one after the other
PIECE: Final = 1024  # events; what is forgotten is given back together


class Recorder:
    """Keeps the last `keep` events and hands each to the subscribers (a file, the control socket, a test).

    What is kept are the fields of all events in one row, in pieces. An object for each event would be one more for the
    garbage collector to look through, thousands of times before it is forgotten, and most are never read.
    """

    def __init__(self, clock: Clock, keep: int = 65_536) -> None:
        self.clock = clock
        self.keep = keep
        self.subscribers: list[Callable[[Event], None]] = []
        self.recorded = 0  # in all; the oldest kept one is number `recorded - len(events)`
        self._pieces: list[list[Any]] = []  # full ones, oldest first
        self._last: list[Any] = []

    def add(self, kind: str, srb: int = 0, detail: object = None) -> None:
        """`detail`: JSON-able, or `Words` that are put together when somebody reads them."""
        last = self._last
        at = len(last)
        last.extend((self.clock.now(), kind, srb, detail))
        self.recorded += 1
        if at + FIELDS >= FIELDS * PIECE:
            self._begin_piece()
        if self.subscribers:
            event = _event(last, at)
            for subscriber in self.subscribers:
                subscriber(event)

    def _begin_piece(self) -> None:
        self._pieces.append(self._last)
        self._last = []
        if (len(self._pieces) - 1) * PIECE >= self.keep:
            del self._pieces[0]

    @property
    def events(self) -> list[Event]:
        """All that are kept, oldest first."""
        return self.since(0, self.keep)[1]

    def since(self, number: int, limit: int) -> tuple[int, list[Event]]:
        """Up to `limit` events from number `number` on, or from the oldest kept; with the number of the first."""
        start = min(max(number, self.recorded - self.keep, 0), self.recorded)
        return start, self._events(start, min(limit, self.recorded - start))

    def _events(self, start: int, count: int) -> list[Event]:
        pieces = [*self._pieces, self._last]
        first = start - (self.recorded - len(self._pieces) * PIECE - len(self._last) // FIELDS)
        return [_event(pieces[at // PIECE], at % PIECE * FIELDS) for at in range(first, first + count)]


def _event(piece: list[Any], at: int) -> Event:
    time, kind, srb, detail = piece[at : at + FIELDS]
    return Event(time, kind, srb, detail.text() if isinstance(detail, Words) else detail)
