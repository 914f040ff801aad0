"""Turns of the event loop that take too long: while one lasts, register accesses, control socket and signals wait.

Off unless somebody asks (`HBA_TURN_LIMIT`, milliseconds of CPU, for `hba serve`; the tests have it on): it costs some
microseconds a turn. What is measured is the CPU time of the loop's thread; a collection of Python's garbage does not
count. A loaded machine makes no turn long by that, but a virtual processor that gets half a real one, or shares its
caches with others, needs more CPU time for the same work: a turn over the limit is measured against work of known
length done right after it, and counts for what it would have taken on this machine when the watchdog was made.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hba.loop import EventLoop

LIMIT_VARIABLE = "HBA_TURN_LIMIT"  # milliseconds
FILE_VARIABLE = "HBA_TURN_FILE"  # where long turns are noted; without it on standard error

Told = Callable[[str], None]
_MS = 1_000_000
_WORK = 20_000  # steps of the work of known length: a millisecond or two


def _pace() -> int:
    """CPU ns of work of known length."""
    begun = time.thread_time_ns()
    total = 0
    for step in range(_WORK):
        total += step ^ total
    return time.thread_time_ns() - begun


class Watchdog:
    """Measures turns of at most `limit` ns each; `told(text)` is called at the end of each that was longer, with the
    stack that was running when the limit was reached. For the main thread only, as signals are."""

    def __init__(self, limit: int, told: Told) -> None:
        self.limit = limit
        self.longest = 0  # ns
        self._told = told
        self._start = 0
        self._collecting = 0  # when a collection began
        self._collected = 0  # ns spent in collections this turn
        self._stack = ""
        self._inside = False
        gc.callbacks.append(self._gc)
        self._before = signal.signal(signal.SIGPROF, self._reached)
        self._pace = min(_pace() for _ in range(5))

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)
        gc.callbacks.remove(self._gc)

    def turn(self, run: Callable[[], None]) -> None:
        """`run()`, measured. One inside another belongs to it."""
        if self._inside or threading.current_thread() is not threading.main_thread():
            run()
            return
        self._inside = True
        self._collected = 0
        self._stack = ""
        self._start = time.thread_time_ns()
        signal.setitimer(signal.ITIMER_PROF, self.limit / 1e9)
        try:
            run()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._inside = False
            taken = self._taken()
            if taken > self.limit:
                taken = self._at_usual_pace(taken)
            self.longest = max(self.longest, taken)
            if taken > self.limit:
                where = self._stack or "(it was over before the stack could be taken)"
                self._told(f"a turn of the event loop took {taken / _MS:.0f} ms of CPU\n{where}")

    def _at_usual_pace(self, taken: int) -> int:
        """What `taken` would have been if this processor were as fast now as it was."""
        now = sorted(_pace() for _ in range(5))[2]
        return taken * self._pace // now if now > self._pace else taken

    def _taken(self) -> int:
        return time.thread_time_ns() - self._start - self._collected

    def _gc(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time_ns()
        else:
            self._collected += time.thread_time_ns() - self._collecting

    def _reached(self, _number: int, frame: FrameType | None) -> None:
        """The process has used as much CPU as one turn may; perhaps in another thread, or in a collection."""
        if not self._inside:
            return
        left = self.limit - self._taken()
        if left > 0:
            signal.setitimer(signal.ITIMER_PROF, max(left, _MS) / 1e9)
        elif not self._stack:
            self._stack = "".join(traceback.format_stack(frame))


class WatchedLoop(EventLoop):
    """An event loop under a watchdog."""

    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self.watchdog = watchdog

    def run_once(self, timeout: int | None = 0) -> None:
        self.watchdog.turn(lambda: super(WatchedLoop, self).run_once(timeout))

    def close(self) -> None:
        super().close()
        self.watchdog.close()


def make_loop() -> EventLoop:
    """The loop of a server: watched when the environment asks for it."""
    limit = os.environ.get(LIMIT_VARIABLE, "")
    if not limit.isdigit() or not int(limit):
        return EventLoop()
    path = os.environ.get(FILE_VARIABLE)

    def told(text: str) -> None:
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        else:
            print(text, file=sys.stderr, flush=True)

    return WatchedLoop(Watchdog(int(limit) * _MS, told))
