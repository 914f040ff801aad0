"""Unit attentions: queued per initiator, reported once each (SAM-5 "Unit attention conditions")."""

from __future__ import annotations

from hba.scsi.sense import (
    BUS_DEVICE_RESET_OCCURRED,
    BUS_RESET_OCCURRED,
    POWER_ON_OCCURRED,
    RESET_OCCURRED,
)

RESETS = {
    "power-on": POWER_ON_OCCURRED,
    "bus": BUS_RESET_OCCURRED,
    "target": BUS_DEVICE_RESET_OCCURRED,
    "lun": BUS_DEVICE_RESET_OCCURRED,
}
_RESET_CONDITIONS = frozenset(RESETS.values()) | {RESET_OCCURRED}


class Attentions:
    """The queues of all initiators a unit has met. A new one starts with POWER ON OCCURRED."""

    def __init__(self) -> None:
        self._queues: dict[int, list[int]] = {}

    @property
    def initiators(self) -> list[int]:
        return list(self._queues)

    def meet(self, initiator: int) -> list[int]:
        """The queue of an initiator, made when it is new."""
        queue = self._queues.get(initiator)
        if queue is None:
            queue = self._queues[initiator] = [POWER_ON_OCCURRED]
        return queue

    def any(self) -> bool:
        return any(self._queues.values())

    def establish(self, condition: int, initiator: int) -> None:
        """Queue for one initiator; what is pending already is not queued twice."""
        queue = self.meet(initiator)
        if condition not in queue:
            queue.append(condition)

    def establish_all(self, condition: int, but: int | None = None) -> None:
        """Queue for every initiator known, except `but` (who caused it)."""
        for initiator in self._queues:
            if initiator != but:
                self.establish(condition, initiator)

    def reset(self, kind: str) -> None:
        """A reset clears what was pending (SAM-5 "Hard reset") and is a unit attention itself.

        Power on includes every other reset, so an unreported POWER ON OCCURRED stays.
        """
        for initiator, queue in self._queues.items():
            power_on = POWER_ON_OCCURRED in queue
            self._queues[initiator] = [POWER_ON_OCCURRED if power_on else RESETS[kind]]

    def next(self, initiator: int) -> int | None:
        """Take the oldest; resets come first, because they explain the others."""
        queue = self.meet(initiator)
        if not queue:
            return None
        for index, condition in enumerate(queue):
            if condition in _RESET_CONDITIONS:
                return queue.pop(index)
        return queue.pop(0)

    def clear(self, condition: int, initiator: int) -> None:
        queue = self.meet(initiator)
        if condition in queue:
            queue.remove(condition)

    def withdraw(self, conditions: frozenset[int]) -> None:
        """What these were about is no more: nobody hears of them."""
        for queue in self._queues.values():
            queue[:] = [condition for condition in queue if condition not in conditions]

    def pending(self, initiator: int) -> list[int]:
        return list(self._queues.get(initiator, ()))

    def save(self) -> dict[int, list[int]]:
        """What is pending, by initiator, as `restore` takes it."""
        return {initiator: list(queue) for initiator, queue in self._queues.items()}

    def restore(self, queues: dict[int, list[int]]) -> None:
        self._queues = {initiator: list(queue) for initiator, queue in queues.items()}

    def describe(self) -> dict[str, list[str]]:
        """What is pending, by initiator: key, code and qualifier in hex."""
        return {
            str(initiator): [f"{condition:06x}" for condition in queue] for initiator, queue in self._queues.items()
        }
