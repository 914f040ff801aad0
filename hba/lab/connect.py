"""Connecting to a socket that QEMU is only just making."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

from hba.errors import GuestError

PAUSE = 0.02  # seconds between two tries


def connect(path: Path, alive: Callable[[], None], timeout: float = 30.0) -> socket.socket:
    """A connection to the UNIX socket `path`, which may not be there or not be listening yet: QEMU makes the file first
    and listens on it a moment later.

    `alive` raises when there is nobody left to wait for. Raises `GuestError` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(str(path))
            return line
        except (FileNotFoundError, ConnectionRefusedError) as error:
            line.close()
            alive()
            if time.monotonic() > deadline:
                raise GuestError(f"QEMU does not listen on {path}: {error.strerror}") from error
            time.sleep(PAUSE)
