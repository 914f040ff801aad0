"""One request of a back end that is made of several smaller ones."""

from __future__ import annotations

from collections.abc import Callable

from hba.errors import StorageError
from hba.storage.backend import Done


class Join:
    """Done when all parts are, with the first error."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._pending = 0
        self._error: StorageError | None = None

    def start(self, part: Callable[[Done], bool]) -> None:
        try:
            if not part(self._part_done):
                self._pending += 1
        except StorageError as problem:
            self._error = self._error or problem

    def finish(self) -> bool:
        if self._pending:
            return False
        if self._error is not None:
            raise self._error
        return True

    def _part_done(self, error: StorageError | None) -> None:
        self._pending -= 1
        self._error = self._error or error
        if self._pending == 0:
            self._done(self._error)
