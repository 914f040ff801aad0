"""What a PVSCSI adapter says of itself: rings, messages, counters."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from hba.adapters.shapes import AdapterCounters, UnitTraffic
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


class Messages(Result):
    """What the guest has yet to be told of its units: how much waits, the first of it, why it does not go on."""

    waiting: Count
    next: list[str]
    stuck: str


class Polling(Result):
    """Looks at the request ring without a kick. `open`: they go on now; `window_us`: for how long after the next work;
    `found`: looks that found a request; `late`: of those once more after a window."""

    open: bool
    kicks_suppressed: bool
    window_us: Count
    looks: Count
    found: Count
    late: Count


class Announcing(Result):
    """Completions that share an interrupt. `waiting`: posted, not announced; `depth`: what the guest has in flight;
    `held`: batches that waited; `spared`: interrupts that were not needed for it."""

    waiting: Count
    depth: Count
    held: Count
    spared: Count


class Moderation(Result):
    """When the ring is looked at, and when completions are announced."""

    poll: Polling
    interrupts: Announcing


class PvscsiQueues(Result, tag_field="type", tag="pvscsi"):
    """`rings` is null before a driver sets them up, and when they are out of reach: `rings_unreachable` says why then.

    `ring_fault`: why requests are no longer taken; `unreachable`: which memory the driver gave that could not be
    reached when it was needed, why, and what to do.
    """

    rings: Rings | None
    rings_unreachable: str
    ring_fault: str
    unreachable: str
    request_call_threshold: bool
    moderation: Moderation
    last_command: str
    messages: Messages
    traffic: list[UnitTraffic]


class PvscsiCounters(AdapterCounters, tag_field="type", tag="pvscsi"):
    """What was counted at the adapter. `kicks`: register writes that asked for a look at the ring; `pieces`:
    scatter-gather elements held; `commands`: by name."""

    kicks: Count
    pieces: Count
    bad_requests: Count
    completions_waiting: Count
    messages: Count
    messages_waiting: Count
    dma_faults: Count
    commands: CountByName
