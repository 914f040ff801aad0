"""The trace: what has been recorded, in pages."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hba.control.method import Call, Method, Refused
from hba.control.results.trace import TracePage

PAGE = 5_000  # events in one reply


class Page(msgspec.Struct, forbid_unknown_fields=True):
    """Events from number `start` on (0: the first ever), at most `limit`."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE)] = PAGE


def read(call: Call, params: Page) -> object:
    recorder = call.parts.recorder
    if recorder is None:
        raise Refused("nothing is traced", "set enabled = true in [adapter.trace] and start the adapter again")
    start, events = recorder.since(params.start, params.limit)
    return {"start": start, "next": start + len(events), "recorded": recorder.recorded, "events": events}


METHODS = (
    Method(
        "trace.read", read, "Recorded events in order, a page at a time: [time ns, kind, srb, detail].", Page, TracePage
    ),
)
