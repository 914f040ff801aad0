"""One adapter in this process: start, serve, end cleanly."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hba.config.model import AdapterConfig
from hba.control.methods import METHODS
from hba.control.parts import Parts
from hba.control.server import ControlServer
from hba.errors import EXIT_INTERNAL, EXIT_OK, HbaError
from hba.loop import EventLoop
from hba.runtime import control_path, ensure_runtime_dir
from hba.server.pulse import Pulse
from hba.server.report import Report
from hba.server.signals import SignalPipe
from hba.vfio_user.limits import raise_descriptor_limit
from hba.watchdog import make_loop


class Running(Protocol):
    """An assembled adapter. `hba.server.assemble.Assembled` is the real one."""

    parts: Parts

    def start(self) -> None:
        """Power on and listen. Raises `HbaError`."""
        ...

    def close(self) -> None:
        """End all requests, flush and close the storage, close the socket. Safe after a failed `start`.

        Raises `StorageError` when data may be lost.
        """
        ...


Assemble = Callable[[AdapterConfig, Path, EventLoop], Running]


def serve(
    config: AdapterConfig, directory: Path, report: Report, assemble: Assemble, pulse: Pulse | None = None
) -> int:
    """Serve one adapter until it is told to stop (signal, or `server.stop`); returns the exit code.

    `directory` is what relative paths in `config` are relative to. `pulse`: what a supervisor watches it by.
    """
    try:
        _run(config, directory, report, assemble, pulse)
    except HbaError as error:
        if os.environ.get("HBA_DEBUG"):
            traceback.print_exc(file=sys.stderr)
        report.failed(config.name, str(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        report.failed(config.name, f"internal error: {type(error).__name__}: {error}", EXIT_INTERNAL)
        return EXIT_INTERNAL
    report.stopped(config.name)
    return EXIT_OK


def _run(config: AdapterConfig, directory: Path, report: Report, assemble: Assemble, pulse: Pulse | None) -> None:
    _name_process(config.name)
    ensure_runtime_dir()
    raise_descriptor_limit()
    faulthandler.enable()  # what a death by SIGBUS or SIGSEGV was in the middle of, for the log
    loop = make_loop()
    signals = SignalPipe()
    try:
        running = assemble(config, directory, loop)
        control = ControlServer(loop, control_path(config.name), running.parts, METHODS)
        try:
            control.start()  # first: it tells whether this adapter runs already
            running.start()
            loop.add_reader(signals.fd, lambda: _on_signal(signals, running.parts))
            # What exists now lives until the end; the collector need not look at it again.
            gc.freeze()
            gc.enable()
            report.listening(config.name, config.socket, str(control.path), os.getpid())
            if pulse is not None:
                pulse.begin(loop)
            loop.run()
        finally:
            if pulse is not None:
                pulse.close(loop)
            try:
                running.close()
            finally:
                control.close()
    finally:
        signals.close()
        loop.close()


def _on_signal(signals: SignalPipe, parts: Parts) -> None:
    if signals.read():
        # A second Ctrl-C while the storage is flushed ends the process the hard way.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        parts.stop()


def _name_process(name: str) -> None:
    """What ps and top show."""
    try:
        Path("/proc/self/comm").write_text(f"hba {name}"[:15])
    except OSError:
        pass  # only a convenience
