"""A process for each adapter, so that none can hurt another, and one that dies is started again.

The children are forked, not started anew: the configuration is parsed and the modules are loaded already, and what
they do not change they share. They end with the supervisor, even when that is killed (prctl(2), PR_SET_PDEATHSIG).

An adapter dies by a signal that nobody sends to end it, or by a defect of ours. Its client may cause the first: guest
memory is a file that is mapped here, and a file that is made smaller takes the pages away from under us (SIGBUS). To
the client, and to its guest, that is a device that went: the connection ends, and whoever connects to the same socket
finds an adapter as after power on.

One that spins takes a processor from the others: `hba.server.pulse` says how it is found, and what is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hba.config.model import AdapterConfig
from hba.errors import EXIT_INTERNAL, EXIT_OK, SocketError
from hba.runtime import control_path
from hba.server.process import Assemble, serve
from hba.server.pulse import PERIOD, Pulse, Watch, pulse
from hba.server.report import Report
from hba.server.signals import SignalPipe
from hba.vfio_user.server import remove_stale

GRACE = 60.0  # seconds a child may flush its storage before it is killed
MOST_RESTARTS = 5  # within WINDOW; an adapter that dies more often is left dead
WINDOW = 60.0  # seconds
FIRST_PAUSE = 0.1  # seconds before an adapter is started again; doubled with every death within WINDOW
_PR_SET_PDEATHSIG = 1

# By these somebody ended it on purpose.
_ON_PURPOSE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_WHY = {
    signal.SIGBUS: "memory that it had mapped went away: its client's memory file, or a file of ours, was made smaller "
    "or found no room",
    signal.SIGKILL: "somebody killed it, or the kernel did for want of memory",
    signal.SIGSEGV: "a defect in native code",
}

Serve = Callable[[AdapterConfig, Pulse], int]


@dataclass
class Child:
    config: AdapterConfig
    pid: int
    fd: int  # pidfd
    watch: Watch


@dataclass(frozen=True)
class Restarts:
    """When an adapter that died is started again."""

    most: int = MOST_RESTARTS
    window: float = WINDOW  # seconds
    first_pause: float = FIRST_PAUSE


def supervise(adapters: Sequence[AdapterConfig], directory: Path, report: Report, assemble: Assemble) -> int:
    """Serve every adapter in its own process until all have ended.

    A child that fails has said why; the others go on. One that dies is started again, at most `MOST_RESTARTS` times
    within `WINDOW` seconds. The exit code is that of the first that failed for good, or 0; one that was killed counts
    as 128 + signal, as in a shell.
    """
    return run_children(adapters, lambda config, pulse: serve(config, directory, report, assemble, pulse), report)


def run_children(
    adapters: Sequence[AdapterConfig],
    body: Serve,
    report: Report,
    grace: float = GRACE,
    restarts: Restarts | None = None,
) -> int:
    """Fork a child for each adapter, run `body` in it, and wait for all of them."""
    supervisor = _Supervisor(body, report, grace, restarts or Restarts())
    try:
        for config in adapters:
            supervisor.start(config)
        return supervisor.wait()
    finally:
        supervisor.close()


class _Supervisor:
    """The parent of all adapters."""

    def __init__(self, body: Serve, report: Report, grace: float, restarts: Restarts) -> None:
        self._body = body
        self._report = report
        self._grace = grace
        self._restarts = restarts
        self._signals = SignalPipe()
        self._poll = select.poll()
        self._poll.register(self._signals.fd, select.POLLIN)
        self._children: dict[int, Child] = {}  # by pidfd
        self._watched: dict[int, Child] = {}  # by the descriptor of their pulse, until they end
        self._next_look = time.monotonic() + PERIOD
        self._deaths: dict[str, list[float]] = {}  # when each adapter died, within the window
        self._due: list[tuple[float, AdapterConfig]] = []  # to be started again, and when
        self._ending = False  # told to end: nothing is started again
        self._deadline: float | None = None  # until when a child may take to end
        self._result = EXIT_OK

    def start(self, config: AdapterConfig) -> None:
        child = _fork(config, self._body, self._signals)
        self._children[child.fd] = child
        self._poll.register(child.fd, select.POLLIN)
        self._watched[child.watch.fd] = child
        self._poll.register(child.watch.fd, select.POLLIN)

    def wait(self) -> int:
        """Until all have ended; the exit code."""
        while self._children or self._due:
            ready = self._poll.poll(self._patience())
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._kill()
            for fd, _ in ready:
                if fd == self._signals.fd:
                    self._told_to_end()
                elif fd in self._watched:
                    self._pulse(self._watched[fd])
                elif fd in self._children:
                    self._ended(fd)
            self._look()
            self._start_due()
        return self._result

    def close(self) -> None:
        for child in self._children.values():  # only when we leave by an exception
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            os.close(child.fd)
            child.watch.close()
        self._signals.close()

    def _patience(self) -> float | None:
        """How long to wait for something to happen, in ms."""
        moments = [moment for moment, _ in self._due]
        if self._deadline is not None:
            moments.append(self._deadline)
        if self._watched:
            moments.append(self._next_look)
        return max(0.0, min(moments) - time.monotonic()) * 1000 if moments else None

    def _told_to_end(self) -> None:
        again = signal.SIGINT in self._signals.read() and self._ending
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL if again else signal.SIGTERM)
        if not self._ending:
            self._ending, self._deadline = True, time.monotonic() + self._grace
        self._due.clear()

    def _kill(self) -> None:
        for child in self._children.values():
            message = f"did not end within {self._grace:.0f} s, killed"
            self._report.failed(child.config.name, message, 128 + signal.SIGKILL)
            os.kill(child.pid, signal.SIGKILL)
        self._deadline = None

    def _look(self) -> None:
        """Whether one of them spins."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + PERIOD
        for child in self._watched.values():
            if child.watch.look():
                self._report.spinning(child.config.name, child.pid)

    def _pulse(self, child: Child) -> None:
        """One has answered, or closed its end."""
        try:
            restored = child.watch.answered()
        except EOFError:
            self._unwatch(child)
            return
        if restored is not None:
            self._report.answers(child.config.name, restored)

    def _unwatch(self, child: Child) -> None:
        if self._watched.pop(child.watch.fd, None) is not None:
            self._poll.unregister(child.watch.fd)
            child.watch.close()

    def _ended(self, fd: int) -> None:
        self._poll.unregister(fd)
        child = self._children.pop(fd)
        self._unwatch(child)
        _, status = os.waitpid(child.pid, 0)
        os.close(child.fd)
        code = os.waitstatus_to_exitcode(status)
        died = code == EXIT_INTERNAL or (code < 0 and -code not in _ON_PURPOSE)
        why = _cause(code)
        if code < 0:
            code = 128 - code
        if died and not self._ending and self._again(child.config, why):
            return
        if died or code > 128:
            _remove_sockets(child.config)
        if why and code != EXIT_INTERNAL:  # a defect has been told with its traceback by the child itself
            self._report.failed(child.config.name, why, code)
        self._result = self._result or code

    def _again(self, config: AdapterConfig, why: str) -> bool:
        """Start an adapter that died again, a little later; False when it has died too often."""
        limit, now = self._restarts, time.monotonic()
        deaths = [moment for moment in self._deaths.get(config.name, []) if now - moment < limit.window]
        self._deaths[config.name] = [*deaths, now]
        if len(deaths) >= limit.most:
            self._report.gave_up(config.name, why, len(deaths) + 1, limit.window)
            return False
        self._report.restarting(config.name, why, len(deaths) + 1, limit.most, limit.window)
        self._due.append((now + limit.first_pause * 2 ** len(deaths), config))
        return True

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [config for moment, config in self._due if moment <= now]
        self._due = [item for item in self._due if item[0] > now]
        for config in due:
            self.start(config)


def _cause(code: int) -> str:
    """Why a child ended, by what waitpid said; empty when it was in order or it has said so itself."""
    if code == EXIT_INTERNAL:
        return "a defect of hba; its traceback is above"
    if code >= 0:
        return ""
    number = signal.Signals(-code)
    return f"ended by {number.name}" + (f": {_WHY[number]}" if number in _WHY else "")


def _remove_sockets(config: AdapterConfig) -> None:
    """What a process that died could not remove itself, unless somebody else listens there by now."""
    for path in (Path(config.socket), control_path(config.name)):
        with contextlib.suppress(OSError, SocketError):
            remove_stale(path)


def _fork(config: AdapterConfig, body: Serve, signals: SignalPipe) -> Child:
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    ours, its = pulse()
    pid = os.fork()
    if pid:
        its.close()
        return Child(config, pid, os.pidfd_open(pid), Watch(pid, ours))
    code = EXIT_INTERNAL
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(0)
        signals.close()
        ours.close()
        code = body(config, Pulse(its))
        sys.stdout.flush()
    except BaseException as error:  # a child must never return into the supervisor's code
        sys.stderr.write(f"error: adapter {config.name}: {error!r}\n")
    finally:
        os._exit(code)
