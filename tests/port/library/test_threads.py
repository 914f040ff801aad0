"""System threads, and events they wait for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hba.clock import MS
from hba.miniport.config import GroupAffinity
from hba.miniport.services import (
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import PASSIVE_LEVEL
from hba.port.library.system import ProcessorNumber
from hba.port.library.threads import (
    STOR_NOTIFICATION_EVENT,
    STOR_SYNCHRONIZATION_EVENT,
    STOR_THREAD_PRIORITY_REAL_TIME,
    CannotWait,
    StorEvent,
)
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig


def event(rig: Rig, type: int = STOR_SYNCHRONIZATION_EVENT, state: bool = False) -> StorEvent:
    made = StorEvent()
    assert rig.scripted.port.initialize_event(made, type, state) == STOR_STATUS_SUCCESS
    return made


def test_a_thread_runs_at_passive_level_and_waits_for_events(rig: Rig) -> None:
    port = rig.scripted.port
    work = event(rig)
    got: list[Any] = []

    def main(context: Any) -> None:
        while True:
            status = port.wait_for_single_object(work)
            got.append((context, status, rig.port.irql))
            if len(got) == 3:
                return

    status, thread = port.create_system_thread(main, "mine")
    assert status == STOR_STATUS_SUCCESS and thread is not None
    rig.turn()
    assert got == []
    for count in range(1, 4):
        port.set_event(work)
        assert len(got) == count - 1
        rig.turn()
        assert got[-1] == ("mine", STOR_STATUS_SUCCESS, PASSIVE_LEVEL) and len(got) == count
    assert port.wait_for_single_object(thread, False, 0) == STOR_STATUS_SUCCESS
    assert rig.found == set() and thread is not None and thread.signaled


def test_a_thread_completes_requests(rig: Rig) -> None:
    port = rig.scripted.port
    work = event(rig)

    def main(_: Any) -> None:
        while port.wait_for_single_object(work) == STOR_STATUS_SUCCESS:
            for srb in list(rig.scripted.started):
                rig.scripted.complete(srb)

    port.create_system_thread(main)
    rig.turn()
    srbs = [rig.submit() for _ in range(3)]
    in_build_io(rig, lambda _: port.set_event(work))
    rig.turn()
    assert rig.done[:3] == srbs and rig.found == set()


def test_waits_end_in_time(rig: Rig) -> None:
    port = rig.scripted.port
    never = event(rig)
    got: list[int] = []

    def main(_: Any) -> None:
        got.append(port.wait_for_single_object(never, False, -100_000))  # 10 ms
        got.append(port.wait_for_single_object(never, False, port.query_system_time() + 200_000))
        got.append(port.wait_for_single_object(never, False, 1))  # long ago
        port.terminate_system_thread()
        got.append(0)

    _, thread = port.create_system_thread(main)
    rig.turn()
    rig.advance(9 * MS)
    assert got == []
    rig.advance(2 * MS)
    assert got == [STOR_STATUS_UNSUCCESSFUL]
    rig.advance(30 * MS)
    rig.advance(1 * MS)
    rig.turn()
    assert got == [STOR_STATUS_UNSUCCESSFUL] * 3
    assert thread is not None and thread.signaled


@pytest.mark.parametrize("type, woken", [(STOR_SYNCHRONIZATION_EVENT, 1), (STOR_NOTIFICATION_EVENT, 2)])
def test_a_synchronization_event_wakes_one(rig: Rig, type: int, woken: int) -> None:
    port = rig.scripted.port
    both = event(rig, type)
    got: list[int] = []
    for _ in range(2):
        port.create_system_thread(lambda _: got.append(port.wait_for_single_object(both)))
    rig.turn()
    port.set_event(both)
    rig.turn()
    assert len(got) == woken
    assert both.signaled == (type == STOR_NOTIFICATION_EVENT)


def test_an_event_that_was_signaled_before(rig: Rig) -> None:
    port = rig.scripted.port
    once = event(rig, STOR_SYNCHRONIZATION_EVENT, True)
    assert [port.wait_for_single_object(once, False, 0) for _ in range(2)] == [
        STOR_STATUS_SUCCESS,
        STOR_STATUS_UNSUCCESSFUL,
    ]
    stays = event(rig, STOR_NOTIFICATION_EVENT, True)
    assert [port.wait_for_single_object(stays, False, 0) for _ in range(2)] == [STOR_STATUS_SUCCESS] * 2


def test_one_thread_waits_for_another(rig: Rig) -> None:
    port = rig.scripted.port
    stop = event(rig)
    order: list[str] = []

    def worker(_: Any) -> None:
        port.wait_for_single_object(stop)
        order.append("worker")

    def main(_: Any) -> None:
        port.set_event(stop)
        port.wait_for_single_object(thread)
        order.append("main")

    _, thread = port.create_system_thread(worker)
    rig.turn()
    port.create_system_thread(main)
    for _ in range(4):
        rig.turn()
    assert order == ["worker", "main"]


def test_a_thread_that_crashes_is_over(rig: Rig) -> None:
    port = rig.scripted.port
    _, thread = port.create_system_thread(lambda _: 1 // 0)
    rig.turn()
    assert rig.port.counters["miniport exceptions"] == 1
    assert thread is not None and thread.signaled
    assert "ZeroDivisionError" in rig.port.last_crash


def test_as_many_threads_as_processors(make_rig: MakeRig) -> None:
    others = threading.active_count()
    rig = make_rig(processors=2)
    port = rig.scripted.port
    forever = event(rig)
    statuses = [port.create_system_thread(lambda _: port.wait_for_single_object(forever))[0] for _ in range(3)]
    assert statuses == [STOR_STATUS_SUCCESS, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL]
    rig.turn()
    assert threading.active_count() == others + 2
    rig.port.stop()
    rig.port.start()  # a new start is without them
    assert threading.active_count() == others
    assert port.create_system_thread(lambda _: None)[0] == STOR_STATUS_SUCCESS


def test_what_is_no_thread_and_no_event(rig: Rig) -> None:
    port = rig.scripted.port
    bad = STOR_STATUS_INVALID_PARAMETER
    assert port.create_system_thread(None) == port.create_system_thread(print, None, 7) == (bad, None)
    assert port.set_priority_thread(None, 0) == bad
    assert port.initialize_event(None, 0, False) == port.initialize_event(StorEvent(), 2, False) == bad
    assert port.set_event(StorEvent()) == port.wait_for_single_object(StorEvent()) == bad
    assert port.wait_for_single_object("event") == bad
    assert port.terminate_system_thread() == bad
    assert rig.found == {"LB-04"}


def test_LB_01_who_may_wait(rig: Rig) -> None:
    port = rig.scripted.port
    never = event(rig)
    with pytest.raises(CannotWait, match="StorPortCreateSystemThread"):
        port.wait_for_single_object(never)
    got: list[int] = []
    in_build_io(rig, lambda _: got.append(port.wait_for_single_object(never, False, -1)))
    assert got == [STOR_STATUS_UNSUCCESSFUL]
    assert rig.messages("LB-01") == ["StorPortWaitForSingleObject with a time-out above APC_LEVEL"]
    assert above_dispatch(rig, lambda: port.set_event(never)) == STOR_STATUS_INVALID_IRQL


def test_priority_and_affinity(make_rig: MakeRig) -> None:
    rig = make_rig(processors=4)
    port = rig.scripted.port
    everything, third = GroupAffinity(0b1111), GroupAffinity(0b0100)
    got: list[Any] = []

    def main(_: Any) -> None:
        got.append(port.set_system_group_affinity_thread(None, third))
        got.append(port.get_current_processor_number()[1])
        got.append(port.set_system_group_affinity_thread(None, GroupAffinity(0b1_0000)))
        got.append(port.revert_to_user_group_affinity_thread(None, everything))
        got.append(port.set_priority_thread(thread, STOR_THREAD_PRIORITY_REAL_TIME))

    _, thread = port.create_system_thread(main)
    rig.turn()
    assert got == [
        (STOR_STATUS_SUCCESS, everything),
        ProcessorNumber(0, 2),
        (STOR_STATUS_INVALID_PARAMETER, GroupAffinity(0)),
        STOR_STATUS_SUCCESS,
        STOR_STATUS_SUCCESS,
    ]
    assert port.get_current_processor_number()[1] == ProcessorNumber(0, 0)
    assert port.set_system_group_affinity_thread(None, GroupAffinity(0b1000))[0] == STOR_STATUS_SUCCESS
    assert port.get_current_processor_number()[1] == ProcessorNumber(0, 3)


GOOD, OVER, BAD = STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL, STOR_STATUS_INVALID_PARAMETER


def test_a_time_out_ends_to_the_nanosecond(rig: Rig) -> None:
    """Counted from now, or since 1601; what lies in the past is over at once."""
    port = rig.scripted.port
    never = event(rig)
    got: list[tuple[int, int]] = []

    def main(_: Any) -> None:
        for wait in (lambda: -1, lambda: -70_000, lambda: port.query_system_time() + 50_000, lambda: 1):
            got.append((port.wait_for_single_object(never, False, wait()), rig.clock.now()))

    port.create_system_thread(main)
    rig.turn()
    start = rig.clock.now()
    rig.clock.advance(99)
    rig.turn()
    assert got == []
    rig.clock.advance(1)
    rig.turn()
    assert got == [(OVER, start + 100)]
    rig.clock.advance(7 * MS - 1)
    rig.turn()
    assert len(got) == 1
    rig.clock.advance(1)
    rig.turn()
    assert got[1:] == [(OVER, start + 100 + 7 * MS)]
    rig.clock.advance(5 * MS)
    rig.clock.advance(0)
    rig.turn()
    assert got[2:] == [(OVER, start + 100 + 12 * MS)] * 2


def test_a_wait_that_was_satisfied_does_not_time_out_as_well(rig: Rig) -> None:
    """Its time may be over while the thread waits for something else."""
    port = rig.scripted.port
    first, second = event(rig), event(rig)
    got: list[int] = []

    def main(_: Any) -> None:
        got.append(port.wait_for_single_object(first, False, -100_000))
        got.append(port.wait_for_single_object(second))

    port.create_system_thread(main)
    rig.turn()
    port.set_event(first)
    rig.turn()
    assert rig.clock.next_deadline() is None
    rig.advance(20 * MS)
    rig.advance(20 * MS)
    assert got == [GOOD]
    port.set_event(second)
    rig.turn()
    assert got == [GOOD, GOOD]


def test_an_event_that_comes_after_the_time_out_is_for_the_next_wait(rig: Rig) -> None:
    port = rig.scripted.port
    work = event(rig)
    got: list[int] = []

    def main(_: Any) -> None:
        for timeout in (-10_000, None, 0):
            got.append(port.wait_for_single_object(work, False, timeout))

    port.create_system_thread(main)
    rig.turn()
    rig.advance(1 * MS)
    assert got == [OVER]
    port.set_event(work)
    rig.turn()
    assert got == [OVER, GOOD, OVER] and not work.signaled


@pytest.mark.parametrize("type", [STOR_SYNCHRONIZATION_EVENT, STOR_NOTIFICATION_EVENT])
def test_who_waits_longest_is_woken_first(make_rig: MakeRig, type: int) -> None:
    rig = make_rig(processors=3)
    port = rig.scripted.port
    both = event(rig, type)
    got: list[int] = []

    def main(number: int) -> None:
        port.wait_for_single_object(both)
        got.append(number)

    for number in range(3):
        port.create_system_thread(main, number)
    rig.turn()
    for count in (1, 2, 3):
        port.set_event(both)
        assert both.signaled == (type == STOR_NOTIFICATION_EVENT)
        rig.turn()
        assert got == ([0, 1, 2] if type == STOR_NOTIFICATION_EVENT else list(range(count)))
    port.set_event(both)
    assert both.signaled
    assert [port.wait_for_single_object(both, False, 0) for _ in range(2)] == (
        [GOOD, GOOD] if type == STOR_NOTIFICATION_EVENT else [GOOD, OVER]
    )


def test_a_thread_that_has_ended_stays_signaled(rig: Rig) -> None:
    port = rig.scripted.port
    _, thread = port.create_system_thread(lambda _: None)
    assert port.wait_for_single_object(thread, False, 0) == OVER
    rig.turn()
    assert [port.wait_for_single_object(thread, False, 0) for _ in range(2)] == [GOOD] * 2
    assert port.set_priority_thread(thread, 1) == BAD  # it is no thread of the adapter any more


def test_a_new_start_ends_threads_where_they_wait(rig: Rig) -> None:
    """Nothing behind the wait is reached, no exception is told of, and one that had not begun never does."""
    port = rig.scripted.port
    never = event(rig)
    got: list[str] = []

    def main(_: Any) -> None:
        got.append("begun")
        port.wait_for_single_object(never)
        got.append("behind")

    before = threading.active_count()
    assert port.wait_for_single_object(never, False, 0) == OVER
    _, waits = port.create_system_thread(main)
    rig.turn()
    # It does not keep the process from ending.
    assert {one.daemon for one in threading.enumerate() if one.name == "miniport"} == {True}
    rig.port.start()
    assert waits is not None and waits.signaled and threading.active_count() == before
    _, late = port.create_system_thread(main)
    rig.port.start()
    rig.turn()
    assert got == ["begun"] and "miniport exceptions" not in rig.port.counters
    assert late is not None and not late.signaled
    assert port.create_system_thread(lambda _: got.append("new"))[0] == GOOD
    rig.turn()
    assert got == ["begun", "new"]


def test_threads_are_counted_and_have_a_priority(make_rig: MakeRig) -> None:
    rig = make_rig(processors=8)
    port = rig.scripted.port
    forever = event(rig)

    def main(_: Any) -> None:
        port.wait_for_single_object(forever)

    made = [port.create_system_thread(main, None, priority) for priority in (None, 0, 6)]
    assert [status for status, _ in made] == [GOOD] * 3
    threads = [thread for _, thread in made if thread is not None]
    assert [thread.priority for thread in threads] == [1, 0, 6]
    for priority in (-1, 7):
        assert port.create_system_thread(main, None, priority) == (BAD, None)
        assert port.set_priority_thread(threads[0], priority) == BAD
    for priority in (0, 6):
        assert port.set_priority_thread(threads[0], priority) == GOOD and threads[0].priority == priority
    assert rig.port.counters["system threads"] == 3


def test_who_ends_a_thread(make_rig: MakeRig) -> None:
    """It itself: nobody else does, and not a routine that interrupts it."""
    rig = make_rig(processors=3)
    port = rig.scripted.port
    forever = event(rig)
    got: list[Any] = []
    _, other = port.create_system_thread(lambda _: port.wait_for_single_object(forever))
    assert port.terminate_system_thread(other) == BAD

    def main(_: Any) -> None:
        got.append(port.terminate_system_thread(other))
        got.append(port.synchronize_access(lambda _: got.append(port.terminate_system_thread()) is None))
        port.terminate_system_thread(mine)
        got.append("behind")

    _, mine = port.create_system_thread(main)
    rig.turn()
    assert got == [BAD, BAD, True]
    assert mine is not None and mine.signaled and other is not None and not other.signaled
    assert rig.messages("LB-04") == ["StorPortTerminateSystemThread of what is not the calling thread"] * 3
    assert "miniport exceptions" not in rig.port.counters


def test_affinities_that_are_none_and_of_other_threads(make_rig: MakeRig) -> None:
    rig = make_rig(processors=4)
    port = rig.scripted.port
    forever = event(rig)
    everything, nothing = GroupAffinity(0b1111), (BAD, GroupAffinity(0))
    _, thread = port.create_system_thread(lambda _: port.wait_for_single_object(forever))
    _, ended = port.create_system_thread(lambda _: None)
    rig.turn()
    put = port.set_system_group_affinity_thread
    for affinity in (None, GroupAffinity(0), GroupAffinity(0b1_0000), GroupAffinity(0b1, 1)):
        assert put(thread, affinity) == put(None, affinity) == nothing
    assert put(ended, GroupAffinity(1)) == nothing
    # Of another thread, which changes nothing of the calling one's.
    assert put(thread, GroupAffinity(0b11_1000)) == (GOOD, everything)
    assert put(thread, GroupAffinity(0b0110)) == (GOOD, GroupAffinity(0b1000))
    assert port.get_current_processor_number()[1] == ProcessorNumber(0, 0)
    assert put(None, GroupAffinity(0b1100)) == (GOOD, everything)
    assert port.get_current_processor_number()[1] == ProcessorNumber(0, 2)
    assert port.revert_to_user_group_affinity_thread(None, None) == BAD
    rig.port.start()
    assert port.get_current_processor_number()[1] == ProcessorNumber(0, 0)


def test_events_that_were_initialized_and_not(rig: Rig) -> None:
    port = rig.scripted.port
    fresh = StorEvent()
    for type in (-1, 2):
        assert port.initialize_event(fresh, type, True) == BAD
    assert port.initialize_event("event", 0, True) == BAD  # type: ignore[arg-type]
    assert port.set_event(fresh) == port.wait_for_single_object(fresh, False, 0) == BAD
    assert port.set_event("event") == BAD  # type: ignore[arg-type]
    assert not fresh.signaled
    # Again, with another type and state.
    assert port.initialize_event(fresh, STOR_NOTIFICATION_EVENT, True) == GOOD and fresh.signaled
    assert port.initialize_event(fresh, STOR_SYNCHRONIZATION_EVENT, False) == GOOD and not fresh.signaled
    assert rig.found == set()


def test_a_work_item_is_no_thread(rig: Rig) -> None:
    """It runs at PASSIVE_LEVEL, too, but there is nothing that could go on without it."""
    port = rig.scripted.port
    never = event(rig)
    _, worker = port.initialize_worker()
    port.queue_work_item(lambda *_: port.wait_for_single_object(never), worker)
    rig.turn()
    assert "CannotWait" in rig.port.last_crash
    # What ran before as a thread is none either.
    port.create_system_thread(lambda _: None)
    rig.turn()
    port.queue_work_item(lambda *_: port.wait_for_single_object(never), worker)
    rig.turn()
    assert rig.port.counters["miniport exceptions"] == 2


def test_LB_01_a_look_at_an_event_is_no_wait(rig: Rig) -> None:
    """With a time-out of 0 it may be done at DISPATCH_LEVEL, whether or not the event is signaled."""
    port = rig.scripted.port
    once = event(rig, STOR_SYNCHRONIZATION_EVENT, True)
    got: list[int] = []
    in_build_io(rig, lambda _: got.extend(port.wait_for_single_object(once, False, 0) for _ in range(2)))
    assert got == [GOOD, OVER] and rig.found == set()
    in_build_io(rig, lambda _: got.append(port.wait_for_single_object(once, False, 1)))
    assert got[2] == OVER and rig.found == {"LB-01"}
