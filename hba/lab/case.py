"""What became of one test of a suite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Case:
    """One test's result. `message` is short, `details` all there is to say of a failure."""

    name: str
    outcome: str  # passed, failed, skipped
    seconds: float = 0.0
    message: str = ""
    details: str = ""

    @property
    def text(self) -> str:
        return self.details or self.message
