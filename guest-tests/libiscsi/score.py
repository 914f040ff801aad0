"""Counting over all disks: a test has passed when it passed on one of them and failed on none."""

from __future__ import annotations

import tool


class Score:
    """Outcomes by test and disk."""

    def __init__(self) -> None:
        self._outcomes: dict[str, dict[str, str]] = {}

    def add(self, test: str, kind: str, outcome: str) -> None:
        self._outcomes.setdefault(test, {})[kind] = outcome

    def cases(self) -> int:
        """How many outcomes there are."""
        return sum(map(len, self._outcomes.values()))

    def passed(self) -> list[str]:
        return [
            test
            for test, outcomes in self._outcomes.items()
            if tool.PASSED in outcomes.values() and set(outcomes.values()) <= {tool.PASSED, tool.SKIPPED}
        ]
