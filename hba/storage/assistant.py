"""A second pair of hands for large copies: one thread that works on a list of calls together with the loop's thread.

Unlike `hba.storage.workers` this is for calls that do not wait (data in the page cache) but take long: the loop's
thread does them itself, from one end of the list, and the assistant from the other. If the assistant gets no processor
meanwhile, the loop's thread does them all. The interpreter lock is free while the kernel copies.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

Call = Callable[[], object]  # must not raise


class _Job:
    __slots__ = ("busy", "calls", "ended")

    def __init__(self, calls: deque[Call]) -> None:
        self.calls = calls
        self.busy = False  # the assistant may have taken one
        self.ended = threading.Lock()
        self.ended.acquire()


class Assistant:
    """Starts its thread when it is first needed; the thread is a daemon and sleeps when there is nothing to do."""

    def __init__(self, name: str = "hba-copies") -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None
        self.useful = len(os.sched_getaffinity(0)) > 1  # it can run beside the loop's thread

    def share(self, calls: deque[Call]) -> None:
        """Run all `calls`, in no particular order; returns when they have returned. For the loop's thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        job = _Job(calls)
        self._jobs.put(job)
        _work(calls.popleft)
        # Whoever takes a call has said so before, so what is not busy now has nothing of ours and will find nothing.
        if job.busy:
            job.ended.acquire()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.busy = True
            _work(job.calls.pop)
            job.ended.release()
            del job  # do not keep guest memory mapped while waiting for the next one

    def close(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None


def _work(take: Callable[[], Call]) -> None:
    while True:
        try:
            call = take()
        except IndexError:
            return
        call()
