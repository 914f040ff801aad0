"""Messages out of a stream socket: whole headers and bodies, each with the file descriptors that came with it.

Used by the server and by the client. Linux delivers the descriptors of a `sendmsg` with the first bytes of what that
`sendmsg` carried and ends the receive there (unix(7); `unix_stream_read_generic`), so descriptors belong to the
message that holds the last byte of their receive, however many messages came before it in the same receive.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Final

from hba.vfio_user.protocol import HEADER, HEADER_SIZE, MAX_MESSAGE, MAX_MSG_FDS, Header, ProtocolError

_FD_SIZE = struct.calcsize("i")
_ANCILLARY = socket.CMSG_SPACE(MAX_MSG_FDS * _FD_SIZE)
# Plain integers: operators of the socket module's flag enumerations cost more than the system call.
_RECEIVE_FLAGS = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_CTRUNC)
_SEND_FLAGS = int(socket.MSG_NOSIGNAL)

_MAX_HELD_FDS: Final = 4 * MAX_MSG_FDS  # for messages that are not complete yet

NO_FDS: list[int] = []  # what a message without descriptors carries; never changed


def close_fds(fds: list[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass  # nothing can be done about a descriptor that does not close


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % _FD_SIZE
            fds.extend(struct.unpack(f"{whole // _FD_SIZE}i", data[:whole]))
    return fds


class Stream:
    """The receiving half of a connection.

    `receive()` once per wake-up, then `next()` until it returns None. `body` and `fds` belong to the message `next()`
    returned last; `body` is valid until the next `receive()` (see `pinned`). The caller owns `fds`.
    """

    def __init__(self, sock: socket.socket, limit: int = MAX_MESSAGE) -> None:
        self._sock = sock
        self._limit = limit
        self._capacity = limit + 65536  # room to go on receiving behind one message of the largest size
        self._buffer = bytearray(self._capacity)
        self._view = memoryview(self._buffer)
        self._start = 0  # of what was not parsed yet
        self._end = 0  # of what was received
        self._pending: deque[tuple[int, list[int], bool]] = deque()  # (position in the buffer, fds, some were cut)
        self.body: memoryview = self._view[:0]
        self.fds: list[int] = NO_FDS
        self.fds_cut = False  # more descriptors came than MAX_MSG_FDS, or than we may have open
        self.received = 0  # bytes, ever
        # While set, bytes that were handed out stay where they are: somebody further up the stack still reads `body`
        # while a nested wait receives.
        self.pinned = False

    def receive(self, flags: int = 0) -> int:
        """One `recvmsg`. Bytes received; 0 when the peer has closed, -1 when nothing is there. Raises OSError."""
        if self._start == self._end and not self.pinned:
            self._start = self._end = 0
        elif self._end == self._capacity or self._start + self._wanted() > self._capacity:
            self._make_room()
            if self._end == self._capacity:
                return -1  # full of messages nobody has parsed yet; what is in the socket can wait
        try:
            count, ancillary, how, _ = self._sock.recvmsg_into(
                [self._view[self._end :]], _ANCILLARY, _RECEIVE_FLAGS | flags
            )
        except (BlockingIOError, InterruptedError):
            return -1
        self._end += count
        self.received += count
        if ancillary or how & _CUT:
            fds = descriptors(ancillary)
            cut = bool(how & _CUT)
            if count == 0 or sum(len(held) for _, held, _ in self._pending) + len(fds) > _MAX_HELD_FDS:
                close_fds(fds)  # a message in a thousand pieces, each with descriptors, must not use ours up
                fds, cut = [], True
            self._pending.append((self._end, fds, cut))
        return count

    def _wanted(self) -> int:
        """Bytes the message at `_start` needs, as far as known and believable."""
        if self._end - self._start < HEADER_SIZE:
            return HEADER_SIZE
        size: int = HEADER.unpack_from(self._buffer, self._start)[2]
        return min(size, self._limit)

    def _make_room(self) -> None:
        # What is moved is less than one message, and a message is moved at most once: linear in the bytes received.
        rest = self._view[self._start : self._end]
        if self.pinned:
            fresh = bytearray(self._capacity)
            fresh[: len(rest)] = rest
            self._buffer, self._view = fresh, memoryview(fresh)
        else:
            self._view[: len(rest)] = bytes(rest)
        if self._pending:
            self._pending = deque((position - self._start, fds, cut) for position, fds, cut in self._pending)
        self._start, self._end = 0, len(rest)

    def next(self) -> Header | None:
        """The header of the next whole message, or None. Raises `ProtocolError` for a size no message can have;
        the stream is of no use after that."""
        start = self._start
        available = self._end - start
        if available < HEADER_SIZE:
            return None
        header: Header = HEADER.unpack_from(self._buffer, start)
        size = header[2]
        if size > available:
            if size > self._limit:
                raise ProtocolError(f"message of {size} bytes, at most {self._limit} are allowed")
            return None
        if size < HEADER_SIZE:
            raise ProtocolError(f"message size {size} is smaller than the header")
        stop = start + size
        self._start = stop
        self.body = self._view[start + HEADER_SIZE : stop]
        if self._pending:
            self._take_fds(stop)
        else:
            self.fds = NO_FDS
            self.fds_cut = False
        return header

    def _take_fds(self, stop: int) -> None:
        self.fds = []
        self.fds_cut = False
        while self._pending and self._pending[0][0] <= stop:
            _, fds, cut = self._pending.popleft()
            self.fds += fds
            self.fds_cut |= cut
        if len(self.fds) > MAX_MSG_FDS:  # a message torn over several receives, each with descriptors
            self.fds_cut = True

    @property
    def ready(self) -> bool:
        """True when a whole message (or a header that cannot be one) waits to be parsed."""
        available = self._end - self._start
        if available < HEADER_SIZE:
            return False
        size: int = HEADER.unpack_from(self._buffer, self._start)[2]
        return size <= available or size > self._limit

    def close(self) -> None:
        """Forget what was not parsed and close its descriptors (not the socket)."""
        while self._pending:
            close_fds(self._pending.popleft()[1])
        self._start = self._end = 0


def send_message(sock: socket.socket, parts: list[bytes | memoryview], fds: list[int] | tuple[int, ...] = ()) -> int:
    """One `sendmsg` for a whole message, so that its header is never split. Bytes sent. Raises OSError."""
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        return sock.sendmsg(parts, rights, _SEND_FLAGS)
    return sock.sendmsg(parts, (), _SEND_FLAGS)
