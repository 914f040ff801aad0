from __future__ import annotations

import threading

import pytest

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.workers import WorkerPool


def test_threads_start_with_the_first_call_and_are_bounded_named_daemons(loop: EventLoop) -> None:
    pool = WorkerPool(loop, threads=2, name="pool-under-test")

    def mine() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("pool-under-test")]

    assert mine() == []
    gate = threading.Event()
    outcomes: list[StorageError | None] = []
    for _ in range(5):
        pool.submit(lambda: gate.wait() and None, outcomes.append)
    assert [thread.daemon for thread in mine()] == [True, True]
    assert pool.busy == 5
    gate.set()
    while len(outcomes) < 5:
        loop.run_once(None)
    assert outcomes == [None] * 5
    assert pool.shutdown()
    assert mine() == []


def test_outcomes_come_in_the_loops_thread(loop: EventLoop, workers: WorkerPool) -> None:
    seen: list[threading.Thread] = []
    workers.submit(
        lambda: seen.append(threading.current_thread()), lambda error: seen.append(threading.current_thread())
    )
    while len(seen) < 2:
        loop.run_once(None)
    assert seen[0] is not threading.current_thread()
    assert seen[1] is threading.current_thread()


def test_errors_keep_their_errno(loop: EventLoop, workers: WorkerPool) -> None:
    outcomes: list[StorageError | None] = []

    def fail(problem: Exception) -> None:
        raise problem

    workers.submit(lambda: fail(OSError(28, "full")), outcomes.append)
    while not outcomes:
        loop.run_once(None)
    workers.submit(lambda: fail(ValueError("a defect")), outcomes.append)
    while len(outcomes) < 2:
        loop.run_once(None)
    assert outcomes[0] is not None and outcomes[0].errno == 28
    assert outcomes[1] is not None and "a defect" in str(outcomes[1])


def test_shutdown_finishes_what_was_queued_and_delivers_it(loop: EventLoop) -> None:
    pool = WorkerPool(loop, threads=1)
    done: list[int] = []
    for number in range(50):
        pool.submit(lambda: None, lambda error, number=number: done.append(number))  # type: ignore[misc]
    assert pool.shutdown()
    assert done == list(range(50))
    with pytest.raises(StorageError, match="shut down"):
        pool.submit(lambda: None, lambda error: None)


def test_a_hanging_call_does_not_hang_the_shutdown(loop: EventLoop) -> None:
    pool = WorkerPool(loop, threads=1)
    gate = threading.Event()
    pool.submit(lambda: gate.wait() and None, lambda error: None)
    assert not pool.shutdown(timeout=0.01)
    gate.set()


def test_a_callback_that_raises_does_not_take_the_others_with_it(loop: EventLoop, workers: WorkerPool) -> None:
    started = threading.Barrier(2)
    seen: list[str] = []

    def explode(error: StorageError | None) -> None:
        raise RuntimeError("a defect in a callback")

    workers.submit(lambda: None, explode)
    workers.submit(lambda: started.wait() and None, lambda error: seen.append("second"))
    started.wait()
    while workers.busy:
        pass
    with pytest.raises(RuntimeError):
        loop.run_once(None)
    while not seen:
        loop.run_once(None)
    assert seen == ["second"]
