"""What the guest sees of its requests at each unit."""

from __future__ import annotations

from hba.control.results.base import Count, CountByName, Nanoseconds, Rate, Result, UnitName


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
