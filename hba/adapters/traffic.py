"""What requests did at each unit, as the guest sees it: how many, how many at once, how long from taken to answered.

Requests are taken and answered in batches, and a request that completes at once is never seen outstanding by whoever
looks from outside. So an adapter counts where it takes requests and where it answers them, and does it per batch: the
hot path adds one to a number and keeps one reference per request; times, sums and histograms are done for all requests
together that were taken together at one unit (`Run`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, TypedDict

from hba.clock import Clock, S
from hba.scsi.address import unit_name

RECENT: Final = 5  # s that "per second" is over, and the second that has begun
BUCKETS: Final = (
    64  # by the bits of a latency in ns, bucket n: below 2**n, and not in the one before; 292 years are enough
)


class Latency(TypedDict):
    """Nanoseconds. p50 and p99 are the upper ends of their buckets (so at most twice too much), and never above max.

    histogram: requests by that upper end, as text.
    """

    mean: int
    p50: int
    p99: int
    max: int
    histogram: dict[str, int]


class UnitTraffic(TypedDict):
    """One unit. requests: answered since the start; highest: most outstanding at once; latency: None before the first.

    per_second: requests answered in a second, over the last `RECENT` ones.
    """

    unit: str
    requests: int
    per_second: float
    outstanding: int
    highest: int
    latency: Latency | None


class Flow:
    """The requests of one unit. `taken` is the hot path's to count up."""

    __slots__ = ("answered", "buckets", "first", "highest", "longest", "marks", "second_ends", "taken", "total")

    def __init__(self, now: int) -> None:
        self.taken = 0
        self.answered = 0
        self.highest = 0
        self.total = 0  # ns, of all answered
        self.longest = 0  # ns
        self.buckets = [0] * BUCKETS
        self.first = now  # when the first request was taken
        self.marks = [0] * (RECENT + 1)  # `answered` at the beginning of the latest seconds, the oldest first
        self.second_ends = now - now % S + S

    def roll(self, now: int) -> None:
        """Another second has begun, or several, before anything was answered in them."""
        begun = (now - self.second_ends) // S + 1
        self.marks = [*self.marks, *[self.answered] * min(begun, len(self.marks))][-len(self.marks) :]
        self.second_ends += begun * S

    def answer(self, count: int, since: int, now: int) -> None:
        """`count` requests that were taken at `since`. Once a batch: no built-in is called that need not be."""
        outstanding = self.taken - self.answered
        if outstanding > self.highest:
            self.highest = outstanding
        if now >= self.second_ends:
            self.roll(now)
        latency = now - since
        self.answered += count
        self.total += latency * count
        if latency > self.longest:
            self.longest = latency
        self.buckets[latency.bit_length()] += count


Run = tuple[Flow, int]  # requests taken together at one unit: it, and when


class Traffic:
    """All units of an adapter. `known(target, lun)`: whether there is such a unit; the others are counted as one that
    is never shown, for a guest may ask for as many as it likes.
    """

    def __init__(self, clock: Clock, known: Callable[[int, int], bool]) -> None:
        self._now = clock.now
        self._known = known
        self._flows: dict[int, Flow] = {}  # by target << 8 | lun
        self._nowhere = Flow(clock.now())

    def taking(self, target: int, lun: int) -> Run:
        """Requests for a unit are about to be taken. Whoever does so adds each to `taken` of the flow."""
        now = self._now()
        flow = self._flows.get(target << 8 | lun)
        if flow is None:
            flow = self._nowhere
            if self._known(target, lun):
                flow = self._flows[target << 8 | lun] = Flow(now)
        return flow, now

    def answered(self, runs: list[Run]) -> None:
        """Requests are answered: the run of each. Empties the list."""
        if not runs:
            return
        now = self._now()
        run = runs[0]
        count = len(runs)
        if runs.count(run) == count:  # as nearly always
            run[0].answer(count, run[1], now)
        else:
            for run, count in Counter(runs).items():
                run[0].answer(count, run[1], now)
        runs.clear()

    def snapshot(self) -> list[UnitTraffic]:
        """The units that were asked for something, by address."""
        now = self._now()
        return [_described(key, flow, now) for key, flow in sorted(self._flows.items())]


def _described(key: int, flow: Flow, now: int) -> UnitTraffic:
    if now >= flow.second_ends:
        flow.roll(now)
    outstanding = flow.taken - flow.answered
    span = min(now - flow.first, RECENT * S + now % S)
    return {
        "unit": unit_name(key >> 8, key & 0xFF),
        "requests": flow.answered,
        "per_second": round((flow.answered - flow.marks[0]) * S / span, 1) if span else 0.0,
        "outstanding": outstanding,
        "highest": max(flow.highest, outstanding),
        "latency": _latency(flow) if flow.answered else None,
    }


def _latency(flow: Flow) -> Latency:
    return {
        "mean": flow.total // flow.answered,
        "p50": _percentile(flow, 50),
        "p99": _percentile(flow, 99),
        "max": flow.longest,
        "histogram": {str(1 << bits): count for bits, count in enumerate(flow.buckets) if count},
    }


def _percentile(flow: Flow, percent: int) -> int:
    """What `percent` of the requests took at most."""
    seen = 0
    for bits, count in enumerate(flow.buckets):
        seen += count
        if seen * 100 >= flow.answered * percent:
            return min(1 << bits, flow.longest)
    return flow.longest
