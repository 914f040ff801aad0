"""What the event log is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One thing that happened.

    `srb` numbers requests from 1 in the order the port got them; 0: no request is involved.
    """

    time: int  # ns on the adapter's clock
    kind: str  # "submit", "start_io.enter", "start_io.exit", "notification", "isr.enter", "complete", ...
    srb: int
    detail: object  # JSON-able


class Words:
    """A detail that is told in words: `say` makes them of `state`, which does not change. Most are never read."""

    __slots__ = ("_say", "_state")

    def __init__(self, say: Callable[[Any], str], state: object) -> None:
        self._say = say
        self._state = state

    def text(self) -> str:
        return self._say(self._state)
