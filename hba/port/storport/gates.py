"""What an adapter under Storport has in common for all its rules: its gates, its units, its depth.

A gate is a bit in `unit.gates` or `Gates.closed` (names in `units`). Opening one asks for a round of the DPC, so
nothing is ever started from inside a miniport's call. The rules beside this module judge this state and change it, and
call nobody; what is to be done at the miniport they leave for the driver: a step of a recovery in `Resets.steps`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hba.clock import Clock, Timer
from hba.miniport.config import PortConfigurationInformation
from hba.port.ledger import Ledger
from hba.port.reports import Reports
from hba.port.request import ISSUED
from hba.port.storport.config import StorPortConfig
from hba.port.storport.units import (
    BUSY,
    CAPPED,
    GATE_NAMES,
    HOLDING,
    QUEUE_FULL,
    REFUSED,
    STARTED,
    StorRequest,
    StorUnit,
)


class Gates:
    """One adapter's. `by_address` is the port's units."""

    def __init__(
        self,
        options: StorPortConfig,
        clock: Clock,
        reports: Reports,
        ledger: Ledger[StorUnit],
        by_address: dict[int, StorUnit],
        run: Callable[[], None],
    ) -> None:
        self.options = options
        self.clock = clock
        self.reports = reports
        self.ledger = ledger
        self._by_address = by_address
        self._run = run  # what is due, unless something of the miniport runs: then it follows that
        self.closed = CAPPED if options.io_latency_cap else 0
        self.since: int  # ns, when the adapter's gates last closed
        self.info: PortConfigurationInformation  # as soon as there is one (`StorPort.preset`)
        self.max_io = 1000
        self.waiting: deque[StorUnit] = deque()  # units whose next request waits for the adapter, not for the unit
        self.look_at_all = False  # the DPC looks at every queue
        self._timers: dict[tuple[int, StorUnit | None], Timer] = {}  # of closed gates that open by themselves
        self._left: dict[tuple[int, StorUnit | None], int] = {}  # completions until a closed gate opens

    @property
    def units(self) -> list[StorUnit]:
        return list(self._by_address.values())

    def close(self, gate: int, unit: StorUnit | None = None) -> None:
        if unit is None:
            if not self.closed & HOLDING:
                self.since = self.clock.now()
            self.closed |= gate
        else:
            if not unit.gates & HOLDING:
                unit.since = self.clock.now()
            unit.gates |= gate
        self.reports.note(None, "gate.closed", f"{unit.name if unit is not None else 'adapter'}: {GATE_NAMES[gate]}")

    def close_for(self, gate: int, time: int, unit: StorUnit | None = None) -> None:
        """Closed for so many ns from now on."""
        self._stop_timer(gate, unit)
        self.close(gate, unit)
        self._timers[gate, unit] = self.clock.call_later(time, lambda: self._time_over(gate, unit))

    def close_until(self, gate: int, completions: int, unit: StorUnit | None = None) -> None:
        """Closed until so many requests of the unit (of all) have completed, or none is outstanding."""
        self._left[gate, unit] = completions
        if completions:
            self.close(gate, unit)

    def open(self, gate: int, unit: StorUnit | None = None) -> bool:
        """False: it was not closed."""
        if not (self.closed if unit is None else unit.gates) & gate:
            return False
        self._stop_timer(gate, unit)
        if unit is None:
            self.closed &= ~gate
        else:
            unit.gates &= ~gate
        self.reports.note(None, "gate.opened", f"{unit.name if unit is not None else 'adapter'}: {GATE_NAMES[gate]}")
        self.wake()
        return True

    def _time_over(self, gate: int, unit: StorUnit | None) -> None:
        self.open(gate, unit)

    def _stop_timer(self, gate: int, unit: StorUnit | None) -> None:
        timer = self._timers.pop((gate, unit), None)
        if timer is not None:
            timer.cancel()

    def outstanding(self, unit: StorUnit | None) -> int:
        """What the miniport still owes: started and not notified. What was only built waits itself for the gate."""
        units = self.units if unit is None else [unit]
        return sum(
            1
            for one in units
            for request in one.active
            if request.state == ISSUED and request.stage in (STARTED, REFUSED)
        )

    def completed(self, unit: StorUnit) -> None:
        """A request of `unit` has completed while a gate was closed: count down."""
        of_all: StorUnit | None = None
        for gate, of in ((BUSY, of_all), (BUSY, unit), (QUEUE_FULL, unit)):
            if (self.closed if of is None else of.gates) & gate:
                left = self._left[gate, of] = self._left[gate, of] - 1
                if left <= 0 or not self.outstanding(of):
                    self.open(gate, of)

    def wake(self) -> None:
        """Have the DPC look at every queue, after what runs now."""
        self.look_at_all = True
        self.soon()

    def soon(self) -> None:
        """Have a DPC, after what runs now."""
        self.ledger.due = True
        self._run()

    def wait_for_adapter(self, unit: StorUnit) -> None:
        if not unit.waiting:
            unit.waiting = True
            self.waiting.append(unit)

    def take_queues(self, of: Callable[[StorUnit], bool] | None = None) -> list[StorRequest]:
        """Remove and return what is queued, oldest first."""
        taken: list[StorRequest] = []
        for unit in self.units:
            if of is None or of(unit):
                taken += unit.queue
                unit.queue.clear()
        return sorted(taken, key=_number)

    def open_all(self) -> None:
        """For an adapter reset: nothing holds anything any more."""
        while self._timers:
            self._timers.popitem()[1].cancel()
        self.waiting.clear()
        self.closed &= ~HOLDING
        for unit in self.units:
            unit.built.clear()
            unit.gates &= ~HOLDING
            unit.waiting = False
            unit.unlock()


def _number(request: StorRequest) -> int:
    return request.number
