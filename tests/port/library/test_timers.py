"""Timers and work items."""

from __future__ import annotations

from typing import Any

import pytest

from hba.clock import MS, US
from hba.miniport.services import (
    INTERRUPT_LOCK,
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_DEVICE_STATE,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import DISPATCH_LEVEL, PASSIVE_LEVEL, TIMER
from hba.port.library import timers
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig


def test_a_timer_comes_once_with_its_context(rig: Rig) -> None:
    port = rig.scripted.port
    _, timer = port.initialize_timer()
    got: list[Any] = []
    callback = lambda context: got.append((context, rig.port.irql))  # noqa: E731
    assert port.request_timer(timer, callback, "mine", 15_000, 100) == STOR_STATUS_SUCCESS
    assert port.request_timer(timer, callback, "again", 15_000) == STOR_STATUS_BUSY
    rig.advance(15 * MS - 2 * US)
    assert got == []
    rig.advance(10 * MS)  # the system's timer has steps of 10 ms
    assert got == [("mine", DISPATCH_LEVEL)]
    rig.advance(100 * MS)
    assert len(got) == 1
    assert port.request_timer(timer, callback, None, 1000) == STOR_STATUS_SUCCESS
    assert port.request_timer(timer, callback, None, 0) == STOR_STATUS_SUCCESS  # cancelled
    rig.advance(100 * MS)
    assert len(got) == 1 and rig.found == set()


def test_several_timers_from_their_own_callbacks(rig: Rig) -> None:
    port = rig.scripted.port
    first, second = port.initialize_timer()[1], port.initialize_timer()[1]
    got: list[str] = []

    def again(name: str) -> None:
        got.append(name)
        if len(got) < 6:
            port.request_timer(first if name == "first" else second, again, name, 10_000)

    port.request_timer(first, again, "first", 10_000)
    port.request_timer(second, again, "second", 20_000)
    rig.advance(200 * MS)
    assert len(got) in (6, 7) and {"first", "second"} == set(got)


def test_the_timer_takes_the_interrupt_lock_only_in_full_duplex(rig: Rig) -> None:
    port = rig.scripted.port
    _, timer = port.initialize_timer()

    def callback(_: Any) -> None:
        _, handle = port.acquire_spin_lock_ex(INTERRUPT_LOCK)
        assert handle is not None
        port.release_spin_lock(handle)

    port.request_timer(timer, callback, None, 1)
    rig.advance(20 * MS)
    assert rig.found == set()


@pytest.mark.parametrize("level", ["report", None])
def test_LB_01_timers_are_made_below_dirql_and_requested_anywhere(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    port = rig.scripted.port
    _, timer = port.initialize_timer()
    assert above_dispatch(rig, port.initialize_timer) == (STOR_STATUS_INVALID_IRQL, None)
    assert above_dispatch(rig, lambda: port.free_timer(timer)) == STOR_STATUS_INVALID_IRQL
    assert above_dispatch(rig, lambda: port.request_timer(timer, print, None, 1)) == STOR_STATUS_SUCCESS


def test_LB_04_timers_that_are_none(rig: Rig) -> None:
    port = rig.scripted.port
    _, timer = port.initialize_timer()
    assert port.request_timer(None, print, None, 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.request_timer("timer", print, None, 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_timer(None) == STOR_STATUS_INVALID_PARAMETER
    assert rig.found == {"LB-04"}
    port.request_timer(timer, print, None, 10_000)
    assert port.free_timer(timer) == STOR_STATUS_SUCCESS
    rig.advance(50 * MS)  # nothing comes
    assert port.free_timer(timer) == STOR_STATUS_UNSUCCESSFUL
    assert port.request_timer(timer, print, None, 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.request_timer(timer, None, None, 1) == STOR_STATUS_INVALID_PARAMETER


def test_there_are_not_more_timers_than_there_are(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "MOST_TIMERS", 1)
    assert rig.scripted.port.initialize_timer()[0] == STOR_STATUS_SUCCESS
    assert rig.scripted.port.initialize_timer() == (STOR_STATUS_UNSUCCESSFUL, None)


def test_a_stopped_adapter_is_not_called(rig: Rig) -> None:
    port = rig.scripted.port
    got: list[Any] = []
    _, timer = port.initialize_timer()
    _, worker = port.initialize_worker()
    port.request_timer(timer, got.append, None, 10_000)
    port.queue_work_item(lambda context, worker: got.append(context), worker)
    rig.port.stop()
    rig.advance(50 * MS)
    assert got == []
    assert port.queue_work_item(lambda context, worker: None, port.initialize_worker()[1]) == (
        STOR_STATUS_INVALID_DEVICE_STATE
    )


def test_work_items_run_at_passive_level(rig: Rig) -> None:
    port = rig.scripted.port
    _, worker = port.initialize_worker()
    got: list[Any] = []

    def work(context: Any, of: Any) -> None:
        got.append((context, of is worker, rig.port.irql))
        if len(got) == 1:
            assert port.queue_work_item(work, worker, "again") == STOR_STATUS_SUCCESS  # from itself

    rig.in_interrupt(lambda: None)
    assert port.queue_work_item(work, worker, "mine") == STOR_STATUS_SUCCESS
    assert port.queue_work_item(work, worker, "no") == STOR_STATUS_BUSY
    assert port.free_worker(worker) == STOR_STATUS_BUSY
    assert got == []
    rig.turn()
    rig.turn()
    assert got == [("mine", True, PASSIVE_LEVEL), ("again", True, PASSIVE_LEVEL)]
    assert port.free_worker(worker) == STOR_STATUS_SUCCESS
    assert rig.found == set()


@pytest.mark.parametrize("level", ["report", None])
def test_LB_01_work_items_are_queued_from_dispatch_level_down(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    port = rig.scripted.port
    _, worker = port.initialize_worker()
    assert above_dispatch(rig, lambda: port.queue_work_item(print, worker)) == STOR_STATUS_INVALID_IRQL
    assert above_dispatch(rig, port.initialize_worker) == (STOR_STATUS_INVALID_IRQL, None)
    assert above_dispatch(rig, lambda: port.free_worker(worker)) == STOR_STATUS_INVALID_IRQL


def test_LB_04_work_items_that_are_none(rig: Rig) -> None:
    port = rig.scripted.port
    _, worker = port.initialize_worker()
    assert port.queue_work_item(None, worker) == STOR_STATUS_INVALID_PARAMETER
    assert port.queue_work_item(print, None) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_worker("worker") == STOR_STATUS_INVALID_PARAMETER
    assert port.free_worker(worker) == STOR_STATUS_SUCCESS
    assert port.free_worker(worker) == STOR_STATUS_UNSUCCESSFUL
    assert rig.found == {"LB-04"}


def test_a_new_find_adapter_begins_without_the_old_handles(rig: Rig) -> None:
    port = rig.scripted.port
    _, timer = port.initialize_timer()
    _, worker = port.initialize_worker()
    rig.port.start()
    assert port.request_timer(timer, print, None, 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.queue_work_item(print, worker) == STOR_STATUS_INVALID_PARAMETER


def test_a_timer_waits_while_anything_of_the_miniport_runs(rig: Rig) -> None:
    """It expires inside a callback, or while completions go up: it comes when that is over."""
    port, got = rig.scripted.port, []
    _, timer = port.initialize_timer()

    def expire(_: Any = None) -> None:
        assert port.request_timer(timer, lambda context: got.append(rig.port.callback), None, 1) == STOR_STATUS_SUCCESS
        rig.clock.advance(20 * MS)
        assert got == []

    in_build_io(rig, expire)
    rig.turn()
    assert got == [TIMER]
    got.clear()
    rig.in_interrupt(expire)
    rig.turn()
    assert got == [TIMER]
    got.clear()
    srb = rig.srb()
    srb.completion = expire
    rig.port.submit(srb)
    rig.finish_all()
    rig.turn()
    assert got == [TIMER] and rig.found == set()


@pytest.mark.parametrize(
    ("start", "microseconds", "due"),
    [(10, 1, 20), (10, 9_999, 20), (10, 10_000, 20), (10, 10_001, 30), (13, 7_000, 20), (13, 7_001, 30)],
)
def test_a_timer_comes_at_a_step_of_the_systems_timer_and_never_early(
    make_rig: MakeRig, start: int, microseconds: int, due: int
) -> None:
    rig = make_rig(timer_resolution=10)
    port, got = rig.scripted.port, []
    rig.clock.advance(start * MS - rig.clock.now())
    _, timer = port.initialize_timer()
    port.request_timer(timer, got.append, "now", microseconds)
    rig.clock.advance(due * MS - 1 - rig.clock.now())
    assert got == []
    rig.clock.advance(1)
    assert got == ["now"]


def test_a_timer_of_before_a_restart_does_not_come(rig: Rig) -> None:
    port, got = rig.scripted.port, []
    _, timer = port.initialize_timer()
    port.request_timer(timer, got.append, None, 10_000)
    rig.port.start()
    rig.advance(50 * MS)
    assert got == []
    assert port.free_timer(timer) == STOR_STATUS_INVALID_PARAMETER


def test_a_timer_that_was_freed_does_not_come(rig: Rig) -> None:
    port, got = rig.scripted.port, []
    _, timer = port.initialize_timer()
    port.request_timer(timer, got.append, None, 10_000)
    assert port.free_timer(timer) == STOR_STATUS_SUCCESS
    rig.advance(50 * MS)
    assert got == []


def test_as_many_timers_as_were_freed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "MOST_TIMERS", 2)
    port = rig.scripted.port
    _, first = port.initialize_timer()
    assert port.initialize_timer()[0] == STOR_STATUS_SUCCESS
    assert port.initialize_timer() == (STOR_STATUS_UNSUCCESSFUL, None)
    assert port.free_timer(first) == STOR_STATUS_SUCCESS
    assert port.initialize_timer()[0] == STOR_STATUS_SUCCESS


def test_what_a_timer_says_of_itself_and_which_calls_are_refused(rig: Rig) -> None:
    port = rig.scripted.port
    _, timer = port.initialize_timer()
    assert timer is not None and not timer.active
    port.request_timer(timer, print, None, -5)
    assert not timer.active
    port.request_timer(timer, print, None, 10_000)
    assert timer.active
    port.request_timer(timer, print, None, -5)  # cancels, as 0 does
    assert not timer.active
    assert port.request_timer(timer, None, None, 0) == STOR_STATUS_INVALID_PARAMETER
    assert rig.found == set()
    port.free_timer(timer)
    port.free_timer(timer)
    port.free_timer("timer")  # type: ignore[arg-type]
    port.request_timer(None, print, None, 1)
    assert rig.messages("LB-04") == [
        "StorPortFreeTimer of a timer that is free already",
        "StorPortFreeTimer of 'timer', which is no timer of the port, or not any more",
        "StorPortRequestTimer of None, which is no timer of the port, or not any more",
    ]


def test_LB_04_which_work_items_are_refused_is_told(rig: Rig) -> None:
    port = rig.scripted.port
    _, worker = port.initialize_worker()
    port.free_worker(worker)
    port.free_worker(worker)
    port.free_worker(None)
    port.queue_work_item(print, "worker")  # type: ignore[arg-type]
    assert port.queue_work_item(print, worker) == STOR_STATUS_INVALID_PARAMETER
    assert rig.messages("LB-04").pop().startswith("StorPortQueueWorkItem of <hba.port.library.workers.Worker object")
    assert rig.messages("LB-04")[:3] == [
        "StorPortFreeWorker of a work item that is free already",
        "StorPortFreeWorker of None, which is no work item of the port, or not any more",
        "StorPortQueueWorkItem of 'worker', which is no work item of the port, or not any more",
    ]


def test_a_work_item_may_be_queued_while_the_adapter_is_found(make_rig: MakeRig) -> None:
    """It has not started then, but it is not being removed either."""
    rig = make_rig(start=False)
    got: list[Any] = []

    def find(config: Any) -> None:
        _, worker = rig.scripted.port.initialize_worker()
        got.append(rig.scripted.port.queue_work_item(lambda context, _: got.append(context), worker, "found"))

    rig.scripted.find = find
    rig.port.start()
    rig.turn()
    assert got == [STOR_STATUS_SUCCESS, "found"]
