"""What the event log is made of."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One thing that happened.

    `srb` numbers requests from 1 in the order the port got them; 0: no request is involved.
    """

    time: int  # ns on the adapter's clock
    kind: str  # "submit", "start_io.enter", "start_io.exit", "notification", "isr.enter", "complete", ...
    srb: int
    detail: object  # JSON-able
