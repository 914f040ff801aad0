"""Details of events that are put into words when somebody reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Words:
    """A detail that is told in words: `say` makes them of `state`, which does not change. Most are never read."""

    __slots__ = ("_say", "_state")

    def __init__(self, say: Callable[[Any], str], state: object) -> None:
        self._say = say
        self._state = state

    def text(self) -> str:
        return self._say(self._state)
