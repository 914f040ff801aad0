"""What every adapter with rings says of itself."""

from __future__ import annotations

from hba.adapters.shapes import AdapterCounters, UnitTraffic
from hba.shapes import Count, Result


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


class RingQueues(Result):
    """`ring_fault`: why requests are no longer taken; `unreachable`: which memory the driver gave that could not be
    reached when it was needed, why, and what to do."""

    ring_fault: str
    unreachable: str
    moderation: Moderation
    messages: Messages
    traffic: list[UnitTraffic]


class RingCounters(AdapterCounters):
    """What was counted at the adapter. `kicks`: register writes that asked for a look at the ring; `pieces`:
    scatter-gather elements held."""

    kicks: Count
    pieces: Count
    bad_requests: Count
    completions_waiting: Count
    messages: Count
    messages_waiting: Count
    dma_faults: Count
