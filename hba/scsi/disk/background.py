"""An operation of the unit itself: FORMAT UNIT and SANITIZE with IMMED=1 go on after their command has ended."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from hba.errors import StorageError
from hba.scsi.sense import NOT_READY_FORMAT_IN_PROGRESS, NOT_READY_SANITIZE_IN_PROGRESS, CheckCondition

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps


class Background:
    """Runs steps without a task. `progress` (of 65536) is what REQUEST SENSE and NOT READY report."""

    def __init__(
        self, unit: Disk, steps: Callable[[Background], Steps], sanitize: bool, ended: Callable[[bool], None]
    ) -> None:
        """`ended` is called with whether it went well, in any case exactly once unless `stop` comes first."""
        self.progress = 0
        self.sanitize = sanitize
        self.condition = NOT_READY_SANITIZE_IN_PROGRESS if sanitize else NOT_READY_FORMAT_IN_PROGRESS
        self._unit = unit
        self._steps: Generator[object, None, None] | None = None
        self._source = steps
        self._ended = ended

    def start(self) -> None:
        """The first step waits for the loop's next turn, so that the command that started it can end."""
        steps = self._source(self)
        self._steps = steps
        self._unit.clock.call_later(0, lambda: self._advance(steps, None))

    def stop(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()

    def _advance(self, steps: Steps, error: StorageError | None) -> None:
        if self._steps is not steps:
            return
        try:
            self._unit.drive(steps, error, lambda failure: self._advance(steps, failure))
            return
        except StopIteration:
            good = True
        except CheckCondition:
            good = False
        except StorageError as failure:
            self._unit.store_failed(failure)
            good = False
        self._steps = None
        self._ended(good)
