"""What a PVSCSI adapter says of itself: rings, messages, counters."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from hba.adapters.ring.shapes import RingCounters, RingQueues
from hba.shapes import BusAddress, Count, CountByName, Result


class RequestRing(Result):
    """Requests, which the guest produces. Indices are as they are in memory; `pending`: not taken yet;
    `most_pending`: the most that were, whenever the adapter looked; `call_threshold`: reqCallThreshold, so many are
    worth a kick."""

    entries: Count
    prod: Count
    cons: Count
    pending: Count
    most_pending: Count
    pages: list[BusAddress]
    call_threshold: Count


class CompletionRing(Result):
    """Completions, which the guest consumes. `unconsumed`: it has not taken them yet."""

    entries: Count
    prod: Count
    cons: Count
    unconsumed: Count
    pages: list[BusAddress]


class MessageRing(Result):
    """Messages about units that come and go."""

    entries: Count
    prod: Count
    cons: Count
    pages: list[BusAddress]


class Rings(Result):
    """The rings the driver has set up; without `message` it has no message ring."""

    state_page: BusAddress
    request: RequestRing
    completion: CompletionRing
    message: MessageRing | UnsetType = UNSET


class PvscsiQueues(RingQueues, tag_field="type", tag="pvscsi"):
    """`rings` is null before a driver sets them up, and when they are out of reach: `rings_unreachable` says why then.

    `ring_fault`: why requests are no longer taken; `unreachable`: which memory the driver gave that could not be
    reached when it was needed, why, and what to do.
    """

    rings: Rings | None
    rings_unreachable: str
    request_call_threshold: bool
    last_command: str


class PvscsiCounters(RingCounters, tag_field="type", tag="pvscsi"):
    """What was counted at the adapter. `kicks`: register writes that asked for a look at the ring; `pieces`:
    scatter-gather elements held; `commands`: by name."""

    commands: CountByName
