"""Watches a minimal adapter's driver (`rules`)."""

from __future__ import annotations

from hba.adapters.adapter import Adapter
from hba.adapters.ring.watcher import RingWatcher
from hba.verifier import Verifier
from tests.adapters.minimal.adapter import MinimalAdapter


class DriverWatch(RingWatcher):
    def __init__(self, verifier: Verifier, adapter: MinimalAdapter) -> None:
        self._verifier = verifier
        self._access = adapter.access
        self._announced = 0

    def set_up(self) -> None:
        self._announced = 0

    def kicked(self) -> None:
        rings = self._access.rings
        if rings is not None:
            if rings.announced == self._announced:
                self._verifier.report("MN-01", f"the doorbell says {rings.announced}, as before")
            self._announced = rings.announced


def watch(adapter: Adapter, verifier: Verifier) -> None:
    """Put it at the adapter's ring."""
    assert isinstance(adapter, MinimalAdapter)
    adapter.watch(DriverWatch(verifier, adapter))
