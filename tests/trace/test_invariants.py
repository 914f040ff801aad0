"""The checks of a trace can tell a good one from a bad one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hba.clock import VirtualClock
from hba.trace.invariants import Overlap, nothing_lost, overlap, scsiport_dispatch
from hba.trace.recorder import PIECE, Recorder

ENTER, EXIT, NOTE = "start_io.enter", "start_io.exit", "notification"


def trace(*steps: tuple[str, int, object]) -> list[tuple[int, str, int, object]]:
    return [(time, *step) for time, step in enumerate(steps)]


def test_one_start_between_two_nexts_is_fine() -> None:
    events = trace((ENTER, 1, None), (NOTE, 0, ["NextLuRequest", 0, 0, 0]), (EXIT, 1, None), (ENTER, 2, None))
    assert scsiport_dispatch(events) == []


def test_SP_02_two_starts_without_a_next() -> None:
    events = trace((ENTER, 1, None), (NOTE, 1, "RequestComplete"), (EXIT, 1, None), (ENTER, 2, None))
    assert len(scsiport_dispatch(events)) == 1


def test_SP_05_an_interrupt_inside_start_io() -> None:
    events = trace((ENTER, 1, None), ("isr.enter", 0, None), ("isr.exit", 0, True), (EXIT, 1, None))
    assert ["SP-05" in line for line in scsiport_dispatch(events)] == [True]


def test_lost_and_doubled_requests() -> None:
    assert nothing_lost(trace(("submit", 1, ""), ("complete", 1, ""))) == []
    assert len(nothing_lost(trace(("submit", 1, "")))) == 1
    assert nothing_lost(trace(("submit", 1, "")), ended=False) == []
    assert len(nothing_lost(trace(("submit", 1, ""), ("complete", 1, ""), ("complete", 1, "")))) == 1
    assert nothing_lost(trace(("complete", 7, ""))) == []  # the trace began in the middle


def test_overlap() -> None:
    events = trace((ENTER, 1, None), (ENTER, 2, None), ("complete", 2, ""), ("complete", 1, ""), (ENTER, 3, None))
    assert overlap(events) == Overlap(2, 1, 3)


def test_the_recorder_gives_pages_and_forgets_the_oldest() -> None:
    recorder = Recorder(VirtualClock(), keep=10)
    for number in range(15):
        recorder.add("x", number)
    assert recorder.since(0, 3) == (5, [*recorder.events][:3])
    start, events = recorder.since(13, 100)
    assert (start, [event.srb for event in events]) == (13, [13, 14])
    assert recorder.since(99, 5) == (15, [])


@given(
    st.integers(1, 3 * PIECE),
    st.lists(st.tuples(st.integers(0, 2 * PIECE), st.integers(-5, 8 * PIECE), st.integers(0, 3 * PIECE)), max_size=4),
)
def test_the_recorder_keeps_as_many_as_it_should_piece_by_piece(keep: int, steps: list[tuple[int, int, int]]) -> None:
    recorder = Recorder(VirtualClock(), keep)
    heard: list[int] = []
    added = 0
    for count, number, limit in steps:
        recorder.subscribers = [lambda event: heard.append(event.srb)]
        for _ in range(count):
            added += 1
            recorder.add("x", added, None)
        kept = list(range(max(0, added - keep), added))  # by their numbers, from 0
        start = min(max(number, kept[0] if kept else 0), added)
        first, events = recorder.since(number, limit)
        assert (first, [event.srb - 1 for event in events]) == (start, [n for n in kept if start <= n < start + limit])
        assert [event.srb - 1 for event in recorder.events] == kept
        assert len(recorder._pieces) * PIECE <= keep + PIECE  # no more than it needs
    assert heard == list(range(1, added + 1)) and recorder.recorded == added
