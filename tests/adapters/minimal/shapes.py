"""What a minimal adapter says of itself."""

from __future__ import annotations

from hba.adapters.ring.shapes import RingCounters, RingQueues
from hba.shapes import BusAddress, Count, Result


class MinimalRing(Result):
    """The ring."""

    entries: Count
    prod: Count
    cons: Count
    pages: list[BusAddress]


class MinimalRings(Result):
    """The one ring there is."""

    entries: MinimalRing


class MinimalQueues(RingQueues, tag_field="type", tag="minimal"):
    """`rings` is null before a driver sets its ring up."""

    rings: MinimalRings | None


class MinimalCounters(RingCounters, tag_field="type", tag="minimal"):
    """What was counted at the adapter."""
