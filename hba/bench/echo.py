"""What a depth of one is held against: a message one way, an eventfd the other, and nothing done in between."""

from __future__ import annotations

import os
import select
import socket
import time
from array import array

from hba.errors import GuestError

MESSAGE = bytes(36)  # as long as a register write of vfio-user
PATIENCE = 10.0  # seconds for one echo


class Echo:
    """A process that answers, and its client. A context manager."""

    def __init__(self) -> None:
        self._answer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._child = os.fork()
        if not self._child:
            try:
                self._socket.close()
                _echo(theirs, self._answer)
            finally:
                os._exit(0)
        theirs.close()

    def run(self, seconds: float) -> tuple[int, float, array[int]]:
        """(echoes, seconds, latencies in ns), one after the other. Raises `GuestError` when one does not come."""
        clock = time.perf_counter_ns
        latencies: array[int] = array("Q")
        begin = now = clock()
        end = begin + int(seconds * 1e9)
        while now < end:
            self._socket.sendall(MESSAGE)
            if not select.select([self._answer], [], [], PATIENCE)[0]:
                raise GuestError(f"the echo does not come for {PATIENCE:.0f} s")
            os.eventfd_read(self._answer)
            before, now = now, clock()
            latencies.append(now - before)
        return len(latencies), (now - begin) / 1e9, latencies

    def close(self) -> None:
        self._socket.close()  # which ends the other
        os.waitpid(self._child, 0)
        os.close(self._answer)

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _echo(client: socket.socket, answer: int) -> None:
    """Until the client has gone."""
    while client.recv(len(MESSAGE), socket.MSG_WAITALL):
        os.eventfd_write(answer, 1)
