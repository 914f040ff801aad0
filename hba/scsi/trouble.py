"""What the store of a logical unit failed with, for the people on the host: the guest gets sense data, which names no
cause ("SPACE ALLOCATION FAILED" is the host's disk being full)."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hba.clock import Clock, S
from hba.errors import StorageError

QUIET = 10 * S  # the same cause is told again after so long; a disk that is full fails every command


class Trouble:
    """Counts errors of a store, keeps the newest, and tells each cause once every `QUIET`.

    `tell` is called with "error: " and the text.
    """

    def __init__(self, clock: Clock, tell: Callable[[str], None]) -> None:
        self.count = 0
        self.latest = ""
        self._clock = clock
        self._tell = tell
        self._told: dict[int, int] = {}  # error number: when

    def note(self, error: StorageError) -> None:
        """A command, or something the unit did by itself, failed with this."""
        if error.errno == errno.ENODEV:
            return  # the store has gone: it says that itself, and is shown as gone until it is back
        self.count += 1
        self.latest = str(error)
        now = self._clock.now()
        told = self._told.get(error.errno)
        if told is None or now - told >= QUIET:
            self._told[error.errno] = now
            self._tell(f"error: {self.latest}")

    def describe(self) -> dict[str, object]:
        """For `hba show`."""
        return {"storage_errors": self.count, "latest_storage_error": self.latest or None}
