"""What a client has sent and the library has not read yet.

The library reads a message with as many receives as it has parts, and each waits. It is let at one only when all of it
is there, so we look first (MSG_PEEK), and know on the way what is asked of it, which it does not tell.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios

from hba.peer import has_hung_up
from hba.vfio_user.framing import descriptors
from hba.vfio_user.protocol import HEADER, HEADER_SIZE, MAX_MSG_FDS, Header, ProtocolError

_AHEAD = 64  # bytes looked at: all of a register access
# Bytes of one message. More may not fit into the socket, and the library takes a body in one receive or not at all.
LONGEST = 128 << 10
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_NOW = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_PEEK_FDS = int(socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_FDS = socket.CMSG_SPACE(MAX_MSG_FDS * struct.calcsize("i"))


class Incoming:
    """`part`: there is the beginning of a message, and not all of it. `head`: the first bytes of the message `next`
    has found: all of it, or as many as the fixed part of any."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.part = False
        self.head = b""

    def next(self) -> Header | None:
        """The header of the next message when all of it is there. It stays where it is.

        Raises EOFError when the client has hung up, OSError, and `ProtocolError` for a size no message can have, or
        that is more than the library can be given.
        """
        self.part = False
        try:
            head = self._sock.recv(_AHEAD, _PEEK)
        except (BlockingIOError, InterruptedError):
            return None
        if not head:
            raise EOFError
        if len(head) < HEADER_SIZE:
            self._part()
            return None
        self.head = head
        header: Header = HEADER.unpack_from(head)
        size = header[2]
        if size < HEADER_SIZE:
            raise ProtocolError(f"message size {size} is smaller than the header")
        if size > len(head):
            if size > LONGEST:
                raise ProtocolError(f"message of {size} bytes, and libvfio-user can be given {LONGEST}")
            if size > self._queued():
                self._part()
                return None
        return header

    def _part(self) -> None:
        if has_hung_up(self._sock):
            raise EOFError
        self.part = True

    def _queued(self) -> int:
        count: int = struct.unpack("i", fcntl.ioctl(self._sock, termios.FIONREAD, bytes(4)))[0]
        return count

    def look(self, size: int) -> tuple[bytes, list[int]]:
        """The next message, of which all is there, and copies of its descriptors, which are the caller's."""
        return self._receive(size, _PEEK_FDS)

    def take(self, size: int) -> tuple[bytes, list[int]]:
        """The same, and the library never gets it."""
        return self._receive(size, _NOW)

    def _receive(self, size: int, flags: int) -> tuple[bytes, list[int]]:
        data, ancillary, _, _ = self._sock.recvmsg(size, _FDS, flags)
        return data, descriptors(ancillary)

    def wait(self, seconds: float) -> None:
        """Until there is more, at most so long; a moment only when part of a message is there, which cannot be waited
        for."""
        poller = select.poll()
        if self.part:
            seconds = min(seconds, 0.001)
        else:
            poller.register(self._sock, select.POLLIN)
        poller.poll(seconds * 1000)
