"""A client that came while another one has the device: it is told so, and hung up on.

Its first request (VERSION) is answered with EBUSY: QEMU then says "version reply: Device or resource busy" and does not
start. Just to hang up is what a server that crashed does, too.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from hba.clock import S
from hba.loop import EventLoop
from hba.vfio_user import protocol as p

PATIENCE = 10 * S  # for its request, and for its end
_LONGEST = 1 << 16  # bytes; a VERSION is some hundreds


class Refusal:
    """Waits for one request, answers it, and leaves the other side a while to hang up, so that the answer is the last
    it hears. `ended(self)` is called once, when the socket is closed."""

    def __init__(self, loop: EventLoop, sock: socket.socket, ended: Callable[[Refusal], None]) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._ended = ended
        self._received = b""
        self._answered = False
        self._timer = loop.clock.call_later(PATIENCE, self.close)
        loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            # All of it, even where the header would do: a socket closed with bytes unread is a reset connection to the
            # other side. Descriptors are not asked for, so the kernel drops them.
            data = self._sock.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._answered and data:
            return
        self._received += data
        if not data or len(self._received) >= _LONGEST:
            self.close()
        elif len(self._received) >= p.HEADER_SIZE:
            message_id, command, size, flags, _ = p.HEADER.unpack_from(self._received)
            if len(self._received) >= size:
                if flags & (p.TYPE_MASK | p.NO_REPLY) == p.TYPE_COMMAND:
                    self._answer(message_id, command)
                else:
                    self.close()

    def _answer(self, message_id: int, command: int) -> None:
        reply = p.HEADER.pack(message_id, command, p.HEADER_SIZE, p.TYPE_REPLY | p.ERROR, errno.EBUSY)
        self._answered = True
        try:
            self._sock.send(reply, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it has gone, or reads nothing: then it will not hear it

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._sock.fileno() < 0:
            return
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._ended(self)
