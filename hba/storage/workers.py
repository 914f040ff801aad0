"""A small pool of threads for calls that may block, so that the event loop never does.

A call runs in a thread; its outcome comes back to the loop's thread, many outcomes per wake-up. Threads start when
the first call needs them and are daemons: a call that hangs for ever (a dead network file system) cannot keep the
process from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.assistant import Assistant
from hba.storage.backend import Done

Work = Callable[[], None]


class WorkerPool:
    """Runs blocking calls in at most `threads` threads. All methods are for the loop's thread."""

    def __init__(self, loop: EventLoop, threads: int = 4, name: str = "hba-storage") -> None:
        if threads < 1:
            raise ValueError("a pool needs at least one thread")
        self._loop = loop
        self._limit = threads
        self._name = name
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._todo: deque[tuple[Work, Done, object]] = deque()
        self._calls: dict[object, int] = {}  # queued or running, by their owner
        self._finished: deque[tuple[Done, StorageError | None]] = deque()
        self._ready: deque[tuple[Done, StorageError | None]] = deque()  # being delivered
        self._idle = 0
        self._running = 0
        self._closing = False
        self._waiting = False  # `wait` blocks on the condition
        self.assistant = Assistant()
        self._announced = False  # the loop has been told that `_finished` is not empty

    @property
    def busy(self) -> int:
        """Calls queued or running."""
        return len(self._todo) + self._running

    def submit(self, work: Work, done: Done, owner: object = None) -> None:
        """Run `work` in a thread, then `done(None or the error)` in the loop's thread. `owner`: see `settle`.

        An `OSError` becomes a `StorageError` with its errno; any other exception is reported the same way, errno 0.
        """
        if self._closing:
            raise StorageError("the storage worker pool has been shut down")
        with self._changed:
            self._todo.append((work, done, owner))
            self._calls[owner] = self._calls.get(owner, 0) + 1
            if self._idle < len(self._todo) and len(self._threads) < self._limit:
                self._start()
            self._changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        changed, todo = self._changed, self._todo
        while True:
            with changed:
                self._idle += 1
                while not todo:
                    if self._closing:
                        return
                    changed.wait()
                self._idle -= 1
                self._running += 1
                work, done, owner = todo.popleft()
            error: StorageError | None = None
            try:
                work()
            except StorageError as problem:
                error = problem
            except OSError as problem:
                error = StorageError(str(problem), problem.errno or 0)
                error.__cause__ = problem
            except Exception as problem:
                error = StorageError(f"internal error in a storage worker: {problem!r}")
            with changed:
                self._running -= 1
                if (calls := self._calls.pop(owner) - 1) > 0:
                    self._calls[owner] = calls
                self._finished.append((done, error))
                announce, self._announced = not self._announced, True
                if self._waiting:
                    changed.notify_all()
            if announce and not self._closing:  # a call that hung past the shutdown: the loop may be gone
                self._loop.call_from_thread(self._deliver)
            del work, done, owner, error  # do not keep guest memory mapped while waiting for the next call

    def _deliver(self) -> None:
        ready = self._ready
        with self._changed:
            ready.extend(self._finished)
            self._finished.clear()
            self._announced = False
        # A callback may come back here (it closes a store, which waits): it goes on with the rest of the same queue.
        try:
            while ready:
                done, error = ready.popleft()
                done(error)
        finally:
            if ready:  # a callback raised: the others still get their turn
                self._loop.call_from_thread(self._deliver)

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block, delivering outcomes, until `condition()` is true; False when `timeout` s (real time) have passed.

        For closing only: it holds up the loop.
        """
        deadline = time.monotonic() + timeout
        self._deliver()
        while not condition():
            if time.monotonic() >= deadline:
                return False
            with self._changed:
                self._waiting = True
                if not self._finished:
                    self._changed.wait(deadline - time.monotonic())
                self._waiting = False
            self._deliver()
        return True

    def settle(self, owner: object, timeout: float) -> bool:
        """Block until no call of `owner` is queued or running; False when `timeout` s (real time) have passed.

        Outcomes are not delivered here: who waits is in the middle of something else.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while owner in self._calls:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._waiting = True
                self._changed.wait(left)
                self._waiting = False
        return True

    def shutdown(self, timeout: float = 10.0) -> bool:
        """Finish all calls, deliver their outcomes, end the threads. False when a call hangs past `timeout` s."""
        drained = self.wait(lambda: self.busy == 0 and not self._finished, timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout if drained else 0)
        self.assistant.close()
        self._deliver()
        return drained
