"""The trace at the rings: what was taken, and why somebody looked."""

from __future__ import annotations

from hba.adapters.ring.watcher import RingWatcher
from hba.trace.recorder import Recorder


class RingTrace(RingWatcher):
    def __init__(self, trace: Recorder) -> None:
        self._add = trace.add

    def looked(self, ready: int, why: str) -> None:
        if ready:
            self._add("ring.take", 0, {"why": why, "requests": ready})
