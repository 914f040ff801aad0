"""ST-04: shared state written by hw_build_io without a lock.

hw_build_io may run on several processors at once. Two requests whose BuildIos wrote the same attribute of the
miniport (or of its device extension) without holding a lock would race on Windows, however the two happened to be
scheduled here; so it is the write sets that are compared, not the timing.
"""

from __future__ import annotations

from typing import Any, Final

from hba.miniport.base import Miniport

CLOSELY: Final = 512  # BuildIos that are all looked at
SAMPLE: Final = 64  # then two in a row out of that many


class BuildIoWrites:
    """Which attributes each BuildIo has changed. Only with the verifier."""

    _before: list[dict[str, Any]]  # as `begin` found them

    def __init__(self, miniport: Miniport) -> None:
        self._watched: list[tuple[str, dict[str, Any]]] = [("self", vars(miniport))]
        extension = getattr(miniport, "extension", None)
        if hasattr(extension, "__dict__"):
            self._watched.append(("self.extension", vars(extension)))
        self._writer: dict[str, int] = {}  # attribute -> number of the first request whose BuildIo wrote it
        self.reported: set[str] = set()

    @staticmethod
    def due(number: int) -> bool:
        """Whether to look at the BuildIo of request `number`: the first hundreds, then samples. What races does so
        every time."""
        return number <= CLOSELY or number % SAMPLE < 2

    def begin(self) -> None:
        self._before = [dict(now) for _, now in self._watched]

    def end(self, number: int) -> list[tuple[str, int]]:
        """Attributes request `number` wrote that another's BuildIo wrote before: (name, that request), once each."""
        found: list[tuple[str, int]] = []
        for (owner, now), before in zip(self._watched, self._before, strict=True):
            for attribute, value in now.items():
                if attribute in before and before[attribute] is value:
                    continue
                name = f"{owner}.{attribute}"
                first = self._writer.setdefault(name, number)
                if first != number and name not in self.reported:
                    self.reported.add(name)
                    found.append((name, first))
        return found
