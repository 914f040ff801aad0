"""An NBD export: qemu-nbd, nbdkit and whatever they reach (qcow2, Ceph, ...), through libnbd.

Commands run in the event loop, many at a time on one connection; only connecting, which may wait for a name server,
runs in a thread: the first time in whichever makes the back end, later in one of its own. When the server leaves,
requests wait `hold` seconds for it to come back and are then sent again; after that they fail with ENODEV, new ones at
once, until it is back. It is back when it serves: not when it only lets us connect, to say that it shuts down or to
leave again.

Source: the NBD protocol (doc/proto.md of the NetworkBlockDevice project), libnbd(3).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hba.clock import MS, S, Timer
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import libnbd
from hba.storage.backend import Allocation, Done
from hba.storage.counters import CountingBackend
from hba.storage.join import Join
from hba.storage.vectors import cut, length_of
from hba.storage.workers import WorkerPool

MAX_PAYLOAD = (
    32 << 20
)  # bytes in one command; servers must take this much unless they say less (Block size constraints)
_MAX_ZERO = 1 << 30  # bytes zeroed by one command
_FIRST_RETRY = 100 * MS
_LAST_RETRY = 5 * S
_CLOSE_TIMEOUT = 5.0  # s

_REFUSED = frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS))  # what servers say to what they do not have

_UP, _WAITING, _GONE, _CLOSED = "connected", "waiting for the server", "gone", "closed"


class NbdBackend(CountingBackend):
    """The export `uri` names. Connects before it returns, which takes at most `connect_timeout` s and the name server's
    time; so it may be made in any thread.

    `hold`  seconds that requests wait for a server that left. Raises `StorageError`: no binding, no server, no export.
    """

    kind = "nbd"

    def __init__(
        self, uri: str, loop: EventLoop, *, read_only: bool = False, hold: float = 5.0, connect_timeout: float = 3.0
    ) -> None:
        self.uri = uri
        self.read_only = read_only
        self.reconnects = 0
        self._nbd = libnbd.load()
        self._loop = loop
        self._hold = int(hold * S)
        self._connect_timeout = connect_timeout
        self._connector = WorkerPool(loop, threads=1, name="hba-nbd")
        self._state = _WAITING
        self._pending: dict[_Request, None] = {}  # sent, in order
        self._held: list[_Request] = []  # waiting for the server
        self._owed: set[_Request] = (
            set()
        )  # waited for the server, and sent again: until they are answered it is not back
        self._patience = 0  # when what waits fails (the clock's ns)
        self._finished: list[tuple[_Request, int]] = []
        self._scheduled = False
        self._retry = _FIRST_RETRY
        self._retry_timer: Timer | None = None
        self._hold_timer: Timer | None = None
        self._written = 0  # writes acknowledged by the server, which may still hold them in its memory
        self._stable = 0  # how many of them a flush has covered
        self._settled = 0  # how often `settle` was called; nothing that came before may be started anew after it
        self._handle: Any = None
        self._fd = -1
        self._writing = False
        self._learnt = False
        self._learn(self._connect())
        loop.in_loop(self._serve)

    # -- the connection ---------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        """A connected handle to a server that serves. Blocks at most `connect_timeout` (and as long as the name server
        does)."""
        nbd = self._nbd
        handle = nbd.NBD()
        handle.set_uri_allow_local_file(True)
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.set_pread_initialize(False)
        deadline = time.monotonic() + self._connect_timeout
        try:
            handle.aio_connect_uri(self.uri)
            if not self._poll(handle, handle.aio_is_ready, deadline):
                raise StorageError(
                    f"{self.uri}: the server did not answer within {self._connect_timeout:g} s", errno.ETIMEDOUT
                )
            if handle.is_read_only() and not self.read_only:
                raise StorageError(f"{self.uri}: the server exports it read-only; set read_only = true", errno.EROFS)
            if handle.get_size() < 512:
                raise StorageError(f"{self.uri}: the export has {handle.get_size()} bytes, less than one sector")
            least = handle.get_block_size(nbd.SIZE_MINIMUM) or 1
            if self._learnt and least > self.granule:  # what stands on it has been told the smaller one
                raise StorageError(
                    f"{self.uri}: the export came back with a minimum block size of {least}, it had {self.granule}"
                )
            if self._learnt:
                self._probe(handle, deadline)
        except nbd.Error as problem:
            raise StorageError(
                f"{self.uri}: cannot connect: {problem.string}; check that the server runs and exports this name",
                problem.errnum or errno.ECONNREFUSED,
            ) from None
        return handle

    def _poll(self, handle: Any, condition: Callable[[], object], deadline: float) -> bool:
        """Whether `condition` comes true until `deadline`. Raises `StorageError` when the connection ends first."""
        while not condition():
            if self._state == _CLOSED or time.monotonic() > deadline:
                return False
            if handle.aio_is_dead() or handle.aio_is_closed():
                raise StorageError(f"{self.uri}: the server closed the connection", errno.ECONNRESET)
            handle.poll(50)
        return True

    def _probe(self, handle: Any, deadline: float) -> None:
        """Have a server that left answer something. Raises `StorageError` when it says that it shuts down, or leaves.
        Any other answer will do; and one that takes its time may just be slow."""
        answers: list[int] = []

        def answered(error: Any) -> int:
            answers.append(error.value)
            return 1  # retire the command

        handle.aio_pread(bytearray(max(512, self.granule)), 0, answered)
        self._poll(handle, lambda: answers, deadline)
        if errno.ESHUTDOWN in answers:
            raise StorageError(f"{self.uri}: the server is shutting down", errno.ESHUTDOWN)
        if handle.aio_is_dead() or handle.aio_is_closed():  # that was the answer
            raise StorageError(f"{self.uri}: the server closed the connection", errno.ECONNRESET)

    def _learn(self, handle: Any) -> bool:
        """The connection is there: learn what the export can do; whether it has another size than before."""
        nbd = self._nbd
        self._handle = handle
        self._fd = handle.aio_get_fd()
        self._writing = False
        self._can_flush, self._can_fua, self._can_zero = handle.can_flush(), handle.can_fua(), handle.can_zero()
        self._can_status = handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        # A zero command may give the space up and always reads as zeros; after a trim the content is undefined.
        self.can_discard = bool(self._can_zero) and not self.read_only
        least = handle.get_block_size(nbd.SIZE_MINIMUM) or 1
        preferred = handle.get_block_size(nbd.SIZE_PREFERRED) or 4096
        self.physical_block_size = max(512, least, min(4096, preferred))
        self.granule = self.medium_block = least
        self._max_payload = min(MAX_PAYLOAD, handle.get_block_size(nbd.SIZE_MAXIMUM) or MAX_PAYLOAD)
        size = handle.get_size() // 512 * 512
        resized = self._learnt and self.size != size
        self._learnt = True
        self.size = size
        return resized

    def _serve(self) -> None:
        """Send what waited, and listen for the answers. In the loop's thread."""
        was, self._state = self._state, _UP
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._loop.add_reader(self._fd, self._readable)
        held, self._held = self._held, []
        self._owed = set(held)
        self._back()
        for request in held:
            self._issue(request)
        self._watch()
        if was == _GONE:
            self._tell("back")

    def _back(self) -> None:
        """Once all that waited for the server is answered, its next leave is one of its own."""
        if not self._owed:
            self._retry = _FIRST_RETRY

    def _reconnect(self) -> None:
        found: list[Any] = []
        self._connector.submit(lambda: found.append(self._connect()), lambda error: self._connected(found, error))

    def _connected(self, found: list[Any], error: StorageError | None) -> None:
        if self._state == _CLOSED:
            return
        if error is None:
            self.reconnects += 1
            resized = self._learn(found.pop())
            self._serve()
            if resized:
                self._tell("resized")
            return
        self._reconnect_later()

    def _reconnect_later(self) -> None:
        self._retry_timer = self._loop.clock.call_later(self._retry, self._reconnect)
        self._retry = min(self._retry * 2, _LAST_RETRY)

    def _connection_lost(self) -> None:
        self._unwatch()
        self._handle = None
        self._held = [*self._pending, *self._held]
        self._pending.clear()
        self._lost = self._lost or self._written > self._stable
        self._stable = self._written
        self._state = _WAITING
        now = self._loop.clock.now()
        again = bool(self._owed)  # it came, and left before it had done what waited for it: it was never back
        if not again:
            self._patience = now + self._hold
        if now < self._patience:
            self._hold_timer = self._loop.clock.call_at(self._patience, self._give_up)
        else:
            self._give_up()
        if again:
            self._reconnect_later()
        else:
            self._reconnect()

    def _give_up(self) -> None:
        if self._state != _WAITING:
            return
        self._state = _GONE
        self._owed.clear()
        held, self._held = self._held, []
        self._tell("gone")
        for request in held:
            self.errors += 1
            request.done(self._gone())

    def _gone(self) -> StorageError:
        if self._state == _CLOSED:
            return StorageError(f"{self.uri}: the back end is closed", errno.ENODEV)
        return StorageError(f"{self.uri}: the server has gone; trying to reach it again", errno.ENODEV)

    def _tell(self, event: str) -> None:
        if self.on_event is not None:
            self.on_event(event)

    # -- the loop's side of the connection --------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            self._handle.aio_notify_read()
        except self._nbd.Error:
            pass  # the state says what to do
        self._process()

    def _writable(self) -> None:
        try:
            self._handle.aio_notify_write()
        except self._nbd.Error:
            pass
        self._process()

    def _watch(self) -> None:
        """Tell the loop what the connection waits for."""
        writing = bool(self._handle.aio_get_direction() & self._nbd.AIO_DIRECTION_WRITE)
        if writing != self._writing:
            self._writing = writing
            if writing:
                self._loop.add_writer(self._fd, self._writable)
            else:
                self._loop.remove_writer(self._fd)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._writing = False

    def _dead(self) -> bool:
        return bool(self._handle.aio_is_dead() or self._handle.aio_is_closed())

    def _process(self) -> None:
        """Deliver what is finished; notice that the server left."""
        self._scheduled = False
        if self._handle is None:
            return
        finished, self._finished = self._finished, []
        # The server is about to leave, and waits for us to go first (proto.md, NBD_ESHUTDOWN).
        if any(code == errno.ESHUTDOWN for _, code in finished):
            self._hang_up()
        dead = self._dead()
        for request, code in finished:
            if code and dead:
                continue  # it did not fail, its connection did: it stays pending and is sent again
            if self._pending.pop(request, self) is None:
                self._owed.discard(request)
                self._complete(request, code)
        if self._handle is None:
            return  # closed by one of them
        if dead:
            self._connection_lost()
        else:
            self._back()
            self._watch()

    def _hang_up(self) -> None:
        """End the connection without a word that could wait: what is under way will be sent again on the next one."""
        with socket.socket(fileno=os.dup(self._fd)) as connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
        while not self._dead():
            try:
                self._handle.aio_notify_read()  # reads what had come before, then the end
            except self._nbd.Error:
                pass

    def _complete(self, request: _Request, code: int) -> None:
        if code:
            self.errors += 1
            request.done(StorageError(f"{self.uri}: cannot {request.what}: {os.strerror(code)}", code))
            return
        request.finish_now()
        request.done(None)

    def _submit(self, request: _Request) -> bool:
        if self._state in (_GONE, _CLOSED):
            self.errors += 1
            raise self._gone()
        self.hand_offs += 1
        if self._state == _WAITING:
            self._held.append(request)
            return False
        self._issue(request)
        # An answer, or the end of the connection, may have come already; callbacks never run before we return.
        if (self._finished or self._dead()) and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._process)
        elif not self._scheduled:
            self._watch()
        return False

    def _issue(self, request: _Request) -> None:
        def completed(error: Any) -> int:
            # libnbd holds the handle's lock here: only take note.
            if handle is self._handle:
                self._finished.append((request, error.value))
            return 1  # retire the command

        handle = self._handle
        self._pending[request] = None
        try:
            request.send(handle, completed)
        except self._nbd.Error as problem:
            if not self._dead():
                self._finished.append((request, problem.errnum or errno.EIO))
                if not self._scheduled:
                    self._scheduled = True
                    self._loop.call_soon(self._process)

    # -- data -------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        length = length_of(views)
        self._check("read", offset, length)
        self.reads += 1
        self.bytes_read += length
        if length <= self._max_payload:
            return self._read(views, offset, done)
        join = Join(done)
        for start in range(0, length, self._max_payload):
            part = cut(views, start, self._max_payload)
            join.start(lambda done, part=part, at=offset + start: self._read(part, at, done))  # type: ignore[misc]
        return join.finish()

    def _read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        if len(views) == 1:
            data, finish = views[0], None
        else:
            # One command for the whole: a command for each page of a guest's buffer costs more than this copy.
            data = memoryview(bytearray(length_of(views)))
            finish = _scatter(data, views)
        what = f"read {len(data)} bytes at {offset}"
        return self._submit(_Request(what, lambda handle, after: handle.aio_pread(data, offset, after), done, finish))

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = length_of(views)
        self._check("write", offset, length)
        self.writes += 1
        self.bytes_written += length
        if fua and not self._can_fua:
            done, fua = self._flush_after(done), False
        if length <= self._max_payload:
            return self._write(views, offset, done, fua)
        join = Join(done)
        for start in range(0, length, self._max_payload):
            part = cut(views, start, self._max_payload)
            join.start(lambda done, part=part, at=offset + start: self._write(part, at, done, fua))  # type: ignore[misc]
        return join.finish()

    def _write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool) -> bool:
        data = views[0] if len(views) == 1 else memoryview(b"".join(views))
        flags = self._nbd.CMD_FLAG_FUA if fua else 0
        what = f"write {len(data)} bytes at {offset}"
        if fua:
            done = self._or_else(done, lambda done: self._write_and_flush(views, offset, done))
        return self._submit(
            _Request(
                what,
                lambda handle, after: handle.aio_pwrite(data, offset, after, flags),
                done,
                None if fua else self._wrote,
            )
        )

    def _write_and_flush(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        """Without FUA, which the server refused although it offered it."""
        self._can_fua = False
        return self._write(views, offset, self._flush_after(done), False)

    def _or_else(self, done: Done, instead: Callable[[Done], bool]) -> Done:
        """`done` of a command that the server may refuse because it does not have it: then it is done another way.

        But not after `settle`: the memory may have gone back to its owner, and a newer command may have come by.
        """
        settled = self._settled

        def then(error: StorageError | None) -> None:
            if error is not None and error.errno in _REFUSED and settled == self._settled:
                try:
                    if not instead(done):
                        return
                    error = None
                except StorageError as problem:
                    error = problem
            done(error)

        return then

    def _wrote(self) -> None:
        self._written += 1

    def _flush_after(self, done: Done) -> Done:
        def then(error: StorageError | None) -> None:
            if error is None:
                try:
                    if not self._flush(done):
                        return
                except StorageError as problem:
                    error = problem
            done(error)

        return then

    @property
    def unstable(self) -> bool:
        """A server that has no flush holds nothing that it could be asked to write."""
        return self._lost or (self._written > self._stable and self._can_flush and not self.read_only)

    def flush(self, done: Done) -> bool:
        self.flushes += 1
        return self._flush(done)

    def _flush(self, done: Done) -> bool:
        if self._state == _UP and (self.read_only or not self._can_flush):
            return True
        if self._lost:
            self.errors += 1
            raise self._writes_lost()
        covered = 0

        def send(handle: Any, after: Callable[[Any], int]) -> None:
            nonlocal covered
            covered = self._written
            handle.aio_flush(after)

        def flushed(error: StorageError | None) -> None:
            if error is None and self._lost:
                error = self._writes_lost()
            if error is None:
                self._stable = max(self._stable, covered)
            done(error)

        return self._submit(_Request("flush", send, flushed, None))

    def _writes_lost(self) -> StorageError:
        """Said once: from then on whoever wrote knows."""
        self._lost = False
        return StorageError(
            f"{self.uri}: the server left before it had flushed what it acknowledged; those writes may be lost",
            errno.EIO,
        )

    def zero(self, offset: int, length: int, done: Done) -> bool:
        self._check("zero", offset, length)
        self.zeroes += 1
        return self._zero(offset, length, done)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        self._check("discard", offset, length)
        self.discards += 1
        return self._zero(offset, length, done)

    def _zero(self, offset: int, length: int, done: Done) -> bool:
        if not self._can_zero:
            return self._write_zeros(offset, length, done)
        join = Join(done)
        for start in range(0, length, _MAX_ZERO):
            at, count = offset + start, min(_MAX_ZERO, length - start)
            join.start(lambda done, at=at, count=count: self._zero_at_once(at, count, done))  # type: ignore[misc]
        return join.finish()

    def _zero_at_once(self, offset: int, count: int, done: Done) -> bool:
        def instead(done: Done) -> bool:
            self._can_zero = False
            return self._write_zeros(offset, count, done)

        send = _zero_command(count, offset)
        done = self._or_else(done, instead)
        return self._submit(_Request(f"zero {count} bytes at {offset}", send, done, self._wrote))

    def _write_zeros(self, offset: int, length: int, done: Done) -> bool:
        join = Join(done)
        zeros = memoryview(bytes(min(self._max_payload, length)))
        for start in range(0, length, self._max_payload):
            part = [zeros[: length - start]]
            join.start(lambda done, part=part, at=offset + start: self._write(part, at, done, False))  # type: ignore[misc]
        return join.finish()

    def allocation(self, offset: int, length: int, done: Allocation) -> tuple[bool, int] | None:
        """By block status of base:allocation, where the server offers it."""
        self._check("query", offset, length)
        if self._state != _UP or not self._can_status or length == 0:
            return True, length
        answer: list[tuple[bool, int]] = []
        nbd = self._nbd

        def extent(context: str, at: int, entries: list[int], error: Any) -> int:
            if context == nbd.CONTEXT_BASE_ALLOCATION and not answer:
                hole = bool(entries[1] & nbd.STATE_HOLE)
                total = 0
                for count, flags in zip(entries[::2], entries[1::2], strict=False):
                    if bool(flags & nbd.STATE_HOLE) != hole:
                        break
                    total += count
                answer.append((not hole, min(total, length)))
            return 0

        def answered(error: StorageError | None) -> None:
            done(error if error is not None else answer[0] if answer and answer[0][1] else (True, length))

        count = min(length, _MAX_ZERO)
        self._submit(
            _Request(
                f"query {count} bytes at {offset}",
                lambda handle, after: handle.aio_block_status(count, offset, extent, after),
                answered,
                None,
            )
        )
        return None

    def _check(self, what: str, offset: int, length: int) -> None:
        if self._state == _CLOSED:
            raise self._gone()
        if self.read_only and what in ("write", "zero", "discard"):
            self.errors += 1
            raise StorageError(f"{self.uri} is open read-only", errno.EROFS)
        if length < 0 or not 0 <= offset <= self.size - length:
            self.errors += 1
            raise StorageError(
                f"{self.uri}: cannot {what} {length} bytes at {offset}: it has {self.size} bytes", errno.EINVAL
            )

    # -- the end ----------------------------------------------------------------------------------------------

    def settle(self, timeout: float) -> bool:
        self._settled += 1
        deadline = time.monotonic() + timeout
        while self._handle is not None and not self._dead() and self._unanswered():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                self._handle.poll(max(1, min(50, int(left * 1000))))
            except self._nbd.Error:
                pass  # the state says what to do
        for request, code in self._finished:
            if not code:
                request.finish_now()
        self._withdraw()
        return True

    def _unanswered(self) -> list[_Request]:
        answered = {request for request, _ in self._finished}
        return [request for request in self._pending if request not in answered]

    def _withdraw(self) -> None:
        """What the server has not answered it is not asked for again, and the connection it could still be answered on
        is given up: libnbd takes no command back."""
        withdrawn = [*self._unanswered(), *self._held]
        for request in self._unanswered():
            del self._pending[request]
            self._owed.discard(request)
        self._held.clear()
        if self._handle is not None:
            if withdrawn and not self._dead():
                self._hang_up()
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._process)
        for request in withdrawn:
            self.errors += 1
            error = StorageError(f"{self.uri}: cannot {request.what}: the server does not answer", errno.ETIMEDOUT)
            self._loop.call_soon(partial(request.done, error))

    def close(self) -> None:
        """Finish what was sent, flush, take leave of the server. Blocks at most a few seconds."""
        if self._state == _CLOSED:
            return
        handle = self._handle
        if self._state == _UP:
            self._drain(lambda: not self._pending)
            if self._handle is not None and self._written > self._stable and self._can_flush:
                try:
                    self._flush(lambda error: None)
                except StorageError:
                    pass
                self._drain(lambda: not self._pending)
        self._state = _CLOSED
        for timer in (self._retry_timer, self._hold_timer):
            if timer is not None:
                timer.cancel()
        if self._handle is not None:
            self._unwatch()
            try:
                handle.aio_disconnect(0)
                handle.poll(100)
            except self._nbd.Error:
                pass  # it has left already
            self._handle = None
        unfinished = [*self._pending, *self._held]
        self._pending.clear()
        self._held.clear()
        self._owed.clear()
        for request in unfinished:
            request.done(self._gone())
        self._connector.shutdown(0)  # one that is still connecting sees that it is closed; a name server may hang

    def _drain(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        while self._handle is not None and not condition() and time.monotonic() < deadline:
            try:
                self._handle.poll(50)
            except self._nbd.Error:
                pass
            self._process()

    def describe(self) -> dict[str, object]:
        return super().describe() | {
            "uri": self.uri,
            "state": self._state,
            "in_flight": len(self._pending) + len(self._held),
            "reconnects": self.reconnects,
            "can_discard": self.can_discard,
        }


class _Request:
    """One command, so that it can be sent again: how to send it, what to do with its result."""

    __slots__ = ("done", "finish", "send", "what")

    def __init__(
        self,
        what: str,
        send: Callable[[Any, Callable[[Any], int]], object],
        done: Done,
        finish: Callable[[], None] | None,
    ) -> None:
        self.what = what
        self.send = send
        self.done = done
        self.finish = finish  # before `done`, when it went well

    def finish_now(self) -> None:
        finish, self.finish = self.finish, None
        if finish is not None:
            finish()


def _scatter(data: memoryview, views: Sequence[memoryview]) -> Callable[[], None]:
    def finish() -> None:
        start = 0
        for view in views:
            view[:] = data[start : start + len(view)]
            start += len(view)

    return finish


def _zero_command(count: int, offset: int) -> Callable[[Any, Callable[[Any], int]], object]:
    return lambda handle, after: handle.aio_zero(count, offset, after)
