"""Signals as bytes in a pipe: no race between "told to stop" and "about to wait", and no code inside a handler."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


def _noted(number: int, frame: FrameType | None) -> None:
    """The interpreter has written the number into the pipe already."""


class SignalPipe:
    """While it exists, the given signals make `fd` readable and do nothing else."""

    def __init__(self, signals: tuple[signal.Signals, ...] = STOPPING) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, _noted) for number in signals}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def read(self) -> list[int]:
        """The signals that came since the last call. The interpreter notes every signal that has a handler in Python,
        also those that are no business of ours (a profiler's)."""
        try:
            return [number for number in os.read(self.fd, 256) if number in self._before]
        except BlockingIOError:
            return []

    def close(self) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)
