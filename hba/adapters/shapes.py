"""What every adapter says of itself, in shapes that programs read. What only one says is in its own `shapes`."""

from __future__ import annotations

from hba.shapes import Bytes, Count, CountByName, Nanoseconds, Rate, Result, UnitName


class AdapterCounters(Result):
    """What every adapter counts: requests taken, their completions, bytes moved, requests outstanding now."""

    requests: Count
    completions: Count
    bytes: Bytes
    outstanding: Count


class TrafficLatency(Result):
    """From a request's being taken from the ring to its answer there. `p50`, `p99`: upper ends of power-of-two buckets,
    and never above `max`; `histogram`: requests by that upper end in nanoseconds."""

    mean: Nanoseconds
    p50: Nanoseconds
    p99: Nanoseconds
    max: Nanoseconds
    histogram: CountByName


class UnitTraffic(Result):
    """A unit that was asked for something, since the adapter's start. `requests`: answered; `per_second`: of them, over
    the last seconds; `outstanding`: taken and not answered now, `highest`: the most that were; `latency`: null before
    the first answer."""

    unit: UnitName
    requests: Count
    per_second: Rate
    outstanding: Count
    highest: Count
    latency: TrafficLatency | None
