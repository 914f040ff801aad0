"""The queue of one logical unit: sorted by QueueSortKey, served as a one-directional elevator (Q-01, Q-02)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

from hba.port.request import Request

R = TypeVar("R", bound=Request)


class SortedQueue(Generic[R]):
    """C-LOOK: next is the first entry with a key above the last started one, else the lowest. Equal keys are FIFO."""

    __slots__ = ("_order", "entries", "last_key")

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, R]] = []  # (key, order of arrival, request), sorted
        self._order = 0
        self.last_key = -1  # of the last request started

    def insert(self, request: R) -> None:
        self._order += 1  # unique, so requests themselves are never compared
        insort(self.entries, (request.srb.queue_sort_key, self._order, request))

    def pop(self) -> R:
        """The next in the sweep; raises IndexError when empty."""
        entries = self.entries
        index = bisect_left(entries, (self.last_key + 1,))
        self.last_key, _, request = entries.pop(index if index < len(entries) else 0)
        return request

    def remove(self, request: R) -> bool:
        """Take one out, wherever it is; False when it is not in here."""
        for index, entry in enumerate(self.entries):
            if entry[2] is request:
                del self.entries[index]
                return True
        return False

    def drain(self) -> list[R]:
        """All of them, in key order; the queue is empty afterwards."""
        requests = [request for _, _, request in self.entries]
        self.entries.clear()
        return requests

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[R]:
        return (request for _, _, request in self.entries)
