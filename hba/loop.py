"""The one event loop of an adapter's process: file descriptors, timers of a clock, calls from worker threads.

Written for this project because of two things asyncio does not give: timers that live on a clock which may be
virtual, and a wake-up that costs one `epoll_wait` and one call.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from hba.clock import MS, Clock, MonotonicClock, S
from hba.native import mypyc_attr

Callback = Callable[[], None]

FD_SETSIZE: Final = 1024  # descriptors select(2) knows


@mypyc_attr(allow_interpreted_subclasses=True)
class EventLoop:
    """Runs callbacks in one thread. Only `call_from_thread`, `in_loop` and `stop` may be used from another one."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock if clock is not None else MonotonicClock()
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._soon: deque[Callback] = deque()
        self._lock = threading.Lock()
        self._foreign: list[Callback] = []
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._stopping = False
        self.turns = 0  # so far
        self._owner = threading.get_ident()  # whose thread it runs in; until it runs, whoever made it

    # -- file descriptors -------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call `callback` whenever `fd` is readable or hung up (level-triggered); replaces an earlier one.

        Raises OSError for what cannot be watched (a regular file).
        """
        self._readers[fd] = callback
        self._watch(fd, self._readers)

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._update(fd)

    def rest(self, sock: socket.socket, delay: int) -> None:
        """Stop watching `sock` for `delay` ns, or for ever if it is closed meanwhile: for one that stays readable while
        nothing can be done about it (a listening socket, and no file descriptors left)."""
        callback = self._readers[sock.fileno()]
        self.remove_reader(sock.fileno())

        def again() -> None:
            if sock.fileno() >= 0:
                self.add_reader(sock.fileno(), callback)

        self.clock.call_later(delay, again)

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._writers[fd] = callback
        self._watch(fd, self._writers)

    def remove_writer(self, fd: int) -> None:
        if self._writers.pop(fd, None) is not None:
            self._update(fd)

    def _watch(self, fd: int, callbacks: dict[int, Callback]) -> None:
        try:
            self._update(fd)
        except OSError:
            del callbacks[fd]
            raise

    def _update(self, fd: int) -> None:
        mask = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        if not mask:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # already closed by its owner
            return
        try:
            self._epoll.register(fd, mask)
        except FileExistsError:
            self._epoll.modify(fd, mask)

    # -- calls ------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callback) -> None:
        """Run `callback` in this thread after the callbacks that are due already."""
        self._soon.append(callback)

    def call_from_thread(self, callback: Callback) -> None:
        """Run `callback` in the loop's thread; safe from any thread."""
        with self._lock:
            first = not self._foreign
            self._foreign.append(callback)
        if first:
            os.eventfd_write(self._wake, 1)

    def in_loop(self, callback: Callback) -> None:
        """Run `callback` in the loop's thread: now where that is this one, else as `call_from_thread` does."""
        if threading.get_ident() == self._owner:
            callback()
        else:
            self.call_from_thread(callback)

    # -- running ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop()`; one that came before counts."""
        self._owner = threading.get_ident()
        while not self._stopping:
            self.run_once(None)
        self._stopping = False

    def stop(self) -> None:
        """Make `run()` return after the current turn; safe from any thread and from signal handlers."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def run_once(self, timeout: int | None = 0) -> None:
        """One turn: wait for events at most `timeout` ns (None: until one comes), then run all that is due."""
        deadline = self.clock.next_deadline()
        if self._soon:
            timeout = 0
        elif deadline is not None:
            left = max(0, deadline - self.clock.now())
            timeout = left if timeout is None else min(timeout, left)
        self.turns += 1
        for fd, event in self._epoll.poll(0) if timeout == 0 else self._wait(timeout):
            if fd == self._wake:
                self._drain_foreign()
                continue
            # A callback may have removed a later one of this batch, so look each up when its turn comes.
            if event & ~select.EPOLLOUT:
                reader = self._readers.get(fd)
                if reader is not None:
                    reader()
            if event & ~select.EPOLLIN:
                writer = self._writers.get(fd)
                if writer is not None:
                    writer()
        if deadline is not None:
            self.clock.run_due()
        soon = self._soon
        for _ in range(len(soon)):
            soon.popleft()()

    def _wait(self, timeout: int | None) -> list[tuple[int, int]]:
        if timeout is None:
            return self._epoll.poll(None)
        if 0 < timeout < MS and self._epoll.fileno() < FD_SETSIZE:
            # epoll counts in milliseconds, and select(2) does not.
            select.select([self._epoll], [], [], timeout / S)
            timeout = 0
        return self._epoll.poll(timeout / S)

    def _drain_foreign(self) -> None:
        os.eventfd_read(self._wake)
        with self._lock:
            calls, self._foreign = self._foreign, []
        self._soon.extend(calls)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake)
