"""The sending half of a connection: whole messages, never blocking, bounded."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable

from hba.loop import EventLoop
from hba.vfio_user.counters import Counters
from hba.vfio_user.framing import close_fds, send_message

# Bytes nobody reads: a client behind by this much is dropped.
MAX_UNSENT = 4 << 20


class Outbox:
    """Sends messages in order. `fail(why)` is called when the client is gone or does not read."""

    def __init__(self, loop: EventLoop, sock: socket.socket, counters: Counters, fail: Callable[[str], None]) -> None:
        self._loop = loop
        self._sock = sock
        self._counters = counters
        self._fail = fail
        self._unsent: deque[tuple[bytes, list[int]]] = deque()  # (a message or the rest of one, its fds)
        self._unsent_bytes = 0
        self._closed = False

    @property
    def blocked(self) -> bool:
        """Something waits until the client reads."""
        return bool(self._unsent)

    def send(self, parts: list[bytes | memoryview], fds: tuple[int, ...] = ()) -> None:
        """Send one message, or as much of it as fits and the rest when the client has read on."""
        if self._closed:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = send_message(self._sock, parts, fds)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._fail(f"send: {error.strerror}")
                return
            self._counters.bytes_sent += sent
        if sent < sum(map(len, parts)):
            self._keep(b"".join(parts)[sent:], () if sent else fds)

    def _keep(self, message: bytes, fds: tuple[int, ...]) -> None:
        if self._unsent_bytes + len(message) > MAX_UNSENT:
            self._fail(f"the client does not read: {self._unsent_bytes} bytes are waiting for it")
            return
        if not self._unsent:
            self._loop.add_writer(self._sock.fileno(), self.flush)
        # A copy of everything: the device may change its data and close its descriptors before the client reads on.
        self._unsent.append((message, [os.dup(fd) for fd in fds]))
        self._unsent_bytes += len(message)

    def flush(self) -> None:
        """Send what waits, one `sendmsg` for a message: gluing messages together could split a header."""
        while self._unsent and not self._closed:
            message, fds = self._unsent[0]
            try:
                sent = send_message(self._sock, [message], fds)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(f"send: {error.strerror}")
                return
            close_fds(fds)
            self._counters.bytes_sent += sent
            self._unsent_bytes -= sent
            if sent < len(message):
                self._unsent[0] = (message[sent:], [])
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """Forget what was not sent (before the socket is closed)."""
        self._closed = True
        self._loop.remove_writer(self._sock.fileno())
        for _, fds in self._unsent:
            close_fds(fds)
        self._unsent.clear()
