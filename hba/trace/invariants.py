"""What a recorded trace must show, whatever the guest did: the promises of the two models, checked event by event.

The functions take events in order (time, kind, SRB number, detail) and return sentences: what is broken, if anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Line = Sequence[object]  # time ns, kind, SRB number, detail

NEXT = ("NextRequest", "NextLuRequest")
_SUBMITTED, _NOTIFIED, _COMPLETED = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many requests the miniport had at once, at most, and how many ended before an older one."""

    deepest: int
    out_of_order: int
    started: int


def _is_next(detail: object) -> bool:
    return detail in NEXT or (isinstance(detail, (list, tuple)) and bool(detail) and detail[0] in NEXT)


def scsiport_dispatch(events: Iterable[Line]) -> list[str]:
    """SP-02: one start-I/O between two "next" notifications; SP-05: no interrupt routine inside a start-I/O."""
    broken: list[str] = []
    ready, inside = True, 0
    for time, kind, srb, detail in events:
        if kind == "start_io.enter":
            if not ready:
                broken.append(f"{time}: start-I/O of #{srb} without a next notification since the one before (SP-02)")
            if inside:
                broken.append(f"{time}: start-I/O of #{srb} inside that of #{inside} (SP-03)")
            ready, inside = False, int(str(srb))
        elif kind == "start_io.exit":
            inside = 0
        elif kind == "isr.enter" and inside:
            broken.append(f"{time}: interrupt routine inside start-I/O of #{inside} (SP-05)")
        elif kind in ("notification", "reset_hold.begin", "reset_adapter") and (
            kind != "notification" or _is_next(detail)
        ):
            ready = True
    return broken


def nothing_lost(events: Iterable[Line], *, ended: bool = True) -> list[str]:
    """Every request that was submitted is completed, once. `ended`: the trace covers an adapter that has come to rest.

    A trace that begins in the middle (its ring has wrapped) knows only the requests it has seen submitted.
    """
    broken: list[str] = []
    state: dict[object, int] = {}
    for time, kind, srb, _detail in events:
        if kind == "submit":
            if srb in state:
                broken.append(f"{time}: #{srb} submitted twice")
            state[srb] = _SUBMITTED
        elif kind == "complete" and srb in state:
            if state[srb] == _COMPLETED:
                broken.append(f"{time}: #{srb} completed twice (OW-02)")
            state[srb] = _COMPLETED
    if ended:
        broken += [f"#{srb} was never completed (SP-07)" for srb, was in state.items() if was != _COMPLETED]
    return broken


def overlap(events: Iterable[Line]) -> Overlap:
    """How far requests overlap at the miniport, from start-I/O to completion."""
    active: dict[object, None] = {}  # in the order they were started
    deepest = out_of_order = started = 0
    for _time, kind, srb, _detail in events:
        if kind == "start_io.enter":
            active[srb] = None
            started += 1
            deepest = max(deepest, len(active))
        elif kind == "complete" and srb in active:
            if next(iter(active)) != srb:
                out_of_order += 1
            del active[srb]
    return Overlap(deepest, out_of_order, started)
