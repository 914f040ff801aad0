"""Whether an adapter's process still answers its supervisor, and what is done when it spins.

The loop of an adapter never computes for long (docs/limits.md), so a process that has used seconds of CPU while a
question to it waits is in a loop without end: its miniport's, or a defect of ours. Whether it will be over in a minute
nobody can tell, so it is not killed: it gets the processor's idle time alone (SCHED_IDLE, sched(7)) until it answers,
and the other adapters keep their rate. Lowest niceness would leave it a tenth of a processor that others wait for.

What is measured is CPU time. A machine that is overloaded or asleep makes answers late, but uses none up; a process
that is stopped, or waits for its disk, uses none at all and takes nothing from the others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from hba.loop import EventLoop

PERIOD = 2.0  # seconds between two looks
BUSY = 0.5  # seconds of CPU between two looks; one that uses less takes little from the others, and is not asked
PATIENCE = 5.0  # seconds of CPU without an answer
_CPUCLOCK_SCHED = 2  # as clock_getcpuclockid(3) of glibc makes the clock of a process


class Pulse:
    """The adapter's end: from `begin` to `close` its loop answers the supervisor."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    def begin(self, loop: EventLoop) -> None:
        """The loop runs. Before, and after `close`, long computations are in order, and nothing is asked."""
        loop.add_reader(self._end.fileno(), lambda: self._answer(loop))
        self._say()

    def close(self, loop: EventLoop) -> None:
        loop.remove_reader(self._end.fileno())
        self._end.close()

    def _answer(self, loop: EventLoop) -> None:
        if self._end.recv(64):
            self._say()
        else:  # the supervisor has gone, which is told otherwise (PR_SET_PDEATHSIG)
            loop.remove_reader(self._end.fileno())

    def _say(self) -> None:
        with contextlib.suppress(OSError):
            self._end.send(b".")


class Watch:
    """The supervisor's end, of one process."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self._pid = pid
        self._end = end
        end.setblocking(False)
        self._begun = False
        self._seen = 0.0  # CPU seconds it had used at the last look
        self._asked: float | None = None  # the same when the question was put that it has not answered
        self._policy = os.sched_getscheduler(0)  # its own is ours since it was forked
        self._parameter = os.sched_getparam(0)
        self._lowered = False

    @property
    def fd(self) -> int:
        return self._end.fileno()

    def look(self) -> bool:
        """Ask it whether it is there when it is busy. True when it spins, and has just been given idle time alone."""
        if not self._begun or self._lowered:
            return False
        used = _cpu_seconds(self._pid)
        if self._asked is not None:
            if used - self._asked < PATIENCE:
                return False
            self._lowered = True
            self._schedule(os.SCHED_IDLE, os.sched_param(0))
            return True
        if used - self._seen >= BUSY:
            self._asked = used
            with contextlib.suppress(OSError):
                self._end.send(b"?")
        self._seen = used
        return False

    def answered(self) -> bool | None:
        """When `fd` is readable. None: nothing has changed. Else one that spun answers: True when its priority is as it
        was, False when we may not raise it (sched_setscheduler(2), EPERM). Raises EOFError when it will say nothing any
        more."""
        try:
            said = self._end.recv(64)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not said:
            raise EOFError
        self._begun = True
        self._asked = None
        if not self._lowered:
            return None
        self._lowered = False
        return self._schedule(self._policy, self._parameter)

    def close(self) -> None:
        self._end.close()

    def _schedule(self, policy: int, parameter: os.sched_param) -> bool:
        """All its threads: policies are a thread's on Linux. False when it may not be."""
        try:
            threads = [int(entry.name) for entry in Path(f"/proc/{self._pid}/task").iterdir()]
        except OSError:
            return True  # it has just ended
        for thread in threads:
            try:
                os.sched_setscheduler(thread, policy, parameter)
            except PermissionError:
                return False
            except OSError:
                pass  # that thread has ended
        return True


def pulse() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the adapter's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _cpu_seconds(pid: int) -> float:
    """What a child that was not waited for has used so far."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
