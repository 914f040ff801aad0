"""Several adapters: a process for each, so that none can hurt another.

The children are forked, not started anew: the configuration is parsed and the modules are loaded already, and what
they do not change they share. They end with the supervisor, even when that is killed (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

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
from hba.errors import EXIT_OK
from hba.server.process import Assemble, serve
from hba.server.report import Report
from hba.server.signals import SignalPipe

GRACE = 60.0  # seconds a child may flush its storage before it is killed
_PR_SET_PDEATHSIG = 1

Serve = Callable[[AdapterConfig], int]


@dataclass
class Child:
    name: str
    pid: int
    fd: int  # pidfd


def supervise(adapters: Sequence[AdapterConfig], directory: Path, report: Report, assemble: Assemble) -> int:
    """Serve every adapter in its own process until all have ended.

    A child that fails has said why; the others go on. The exit code is that of the first that failed, or 0; one that
    was killed counts as 128 + signal, as in a shell.
    """
    return run_children(adapters, lambda config: serve(config, directory, report, assemble), report)


def run_children(adapters: Sequence[AdapterConfig], body: Serve, report: Report, grace: float = GRACE) -> int:
    """Fork a child for each adapter, run `body` in it, and wait for all of them."""
    signals = SignalPipe()
    children: dict[int, Child] = {}
    try:
        for config in adapters:
            child = _fork(config, body, signals)
            children[child.fd] = child
        return _wait(children, signals, report, grace)
    finally:
        for child in children.values():  # only when we leave by an exception
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            os.close(child.fd)
        signals.close()


def _fork(config: AdapterConfig, body: Serve, signals: SignalPipe) -> Child:
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(config.name, pid, os.pidfd_open(pid))
    code = 70
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(0)
        signals.close()
        code = body(config)
        sys.stdout.flush()
    except BaseException as error:  # a child must never return into the supervisor's code
        sys.stderr.write(f"error: adapter {config.name}: {error!r}\n")
    finally:
        os._exit(code)


def _wait(children: dict[int, Child], signals: SignalPipe, report: Report, grace: float) -> int:
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    for fd in children:
        poll.register(fd, select.POLLIN)
    result = EXIT_OK
    deadline: float | None = None
    while children:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = poll.poll(left)
        if not ready and deadline is not None:
            for child in children.values():
                report.failed(child.name, f"did not end within {grace:.0f} s, killed", 128 + signal.SIGKILL)
                os.kill(child.pid, signal.SIGKILL)
            deadline = None
        for fd, _ in ready:
            if fd == signals.fd:
                again = signal.SIGINT in signals.read() and deadline is not None
                for child in children.values():
                    os.kill(child.pid, signal.SIGKILL if again else signal.SIGTERM)
                deadline = deadline or time.monotonic() + grace
                continue
            poll.unregister(fd)
            child = children.pop(fd)
            _, status = os.waitpid(child.pid, 0)
            os.close(child.fd)
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                report.failed(child.name, f"ended by {signal.Signals(-code).name}", 128 - code)
                code = 128 - code
            result = result or code
    return result
