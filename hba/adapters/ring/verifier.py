"""The verifier at the rings: what no driver of such an adapter may do with its memory (GD-07, GD-10, GD-20)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.adapters.ring.adapter import RingAdapter
from hba.adapters.ring.watcher import RingWatcher
from hba.errors import DmaFault
from hba.pci.memory import MemoryWatcher
from hba.srb import Srb
from hba.verifier import Verifier


def named(handle: int) -> str:
    """A request in a finding."""
    return f"request with context 0x{handle:x}"


class RingVerifier(RingWatcher):
    """One adapter's."""

    def __init__(self, verifier: Verifier, adapter: RingAdapter[Any]) -> None:
        self._verifier = verifier
        self._adapter = adapter
        self._removed = _Removed(adapter)
        adapter.memory.watchers += (self._removed,)

    def kicked(self) -> None:
        adapter = self._adapter
        if adapter.access.rings is not None and not adapter.memory.enabled:
            self._verifier.report("GD-20", "kick with bus mastering off", where="request ring")

    def out_of_reach(self, handle: int, why: str) -> None:
        self._verifier.report("GD-07", why, where=named(handle))

    def failed(self, command: str, fault: DmaFault) -> None:
        rule = "GD-07" if self._adapter.memory.enabled else "GD-20"
        self._verifier.report(rule, str(fault), where=f"command {command}")

    def completed(self, srbs: Sequence[Srb]) -> None:
        removed = self._removed.ranges
        if removed:
            for srb in srbs:
                self._check(srb, removed)
            if not self._adapter.in_flight.by_handle.keys() - {srb.context[0] for srb in srbs}:
                removed.clear()  # nobody is left whom it could concern

    def _check(self, srb: Srb, removed: list[tuple[int, int]]) -> None:
        if srb.mdl is None:
            return
        for start, size in srb.mdl.segments:
            for first, end in removed:
                if start < end and first < start + size and self._adapter.memory.find(start) is None:
                    message = f"0x{start:x}+0x{size:x} was unmapped in flight"
                    self._verifier.report("GD-10", message, where=named(srb.context[0]), srb=repr(srb))


class _Removed(MemoryWatcher):
    """`ranges` that were unmapped while requests were in flight: (start, end)."""

    def __init__(self, adapter: RingAdapter[Any]) -> None:
        self._adapter = adapter
        self.ranges: list[tuple[int, int]] = []

    def unmapped(self, iova: int, size: int) -> None:
        if self._adapter.in_flight.by_handle:
            self.ranges.append((iova, iova + size))
