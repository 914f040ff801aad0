"""What a minimal adapter says of itself."""

from __future__ import annotations

from hba.adapters.shapes import AdapterCounters, UnitTraffic
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


class MinimalQueues(Result, tag_field="type", tag="minimal"):
    """`rings` is null before a driver sets its ring up."""

    rings: MinimalRings | None
    traffic: list[UnitTraffic]


class MinimalCounters(AdapterCounters, tag_field="type", tag="minimal"):
    """What was counted at the adapter."""

    doorbells: Count
