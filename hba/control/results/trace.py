"""The recorded trace."""

from __future__ import annotations

from typing import Any

from hba.shapes import Count, Nanoseconds, Result


class TracePage(Result):
    """Events from number `start` on, and the number of the one after them; `recorded`: since the start. An event is
    [time, kind, number of the request or 0, whatever else there is to say]."""

    start: Count
    next: Count
    recorded: Count
    events: list[tuple[Nanoseconds, str, Count, Any]]


class TraceStep(Result):
    """One step of a request, or with `srb` 0 of the adapter. `detail`: whatever else there is to say."""

    time: Nanoseconds
    kind: str
    srb: Count
    detail: Any
