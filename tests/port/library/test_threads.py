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
