"""Who has which request: the only writer of a request's state, of the counts, and of the time that runs for it.

    admit -> QUEUED -> issue -> ISSUED -> notify -> NOTIFIED -> retire, complete -> COMPLETED   (OW-01, OW-02)

A request the port answers itself goes from QUEUED to NOTIFIED. Whoever wants to know asks; whoever changes calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hba.clock import Clock
from hba.port.request import COMPLETED, ISSUED, NOTIFIED, Request
from hba.port.units import PortUnit
from hba.srb import SRB_STATUS_PENDING, Srb


class Ledger:
    """One port's requests.

    `numbers`      requests so far; the trace calls each by its number.
    `outstanding`  what the miniport owns, all units.
    `finished`     what goes up in the next DPC, in the order it ended.
    """

    def __init__(self, clock: Clock, default_timeout: int, arm_tick: Callable[[], None]) -> None:
        self.clock = clock
        self.default_timeout = default_timeout  # seconds, of an SRB that says 0
        self._arm_tick = arm_tick  # something is outstanding: watch the time
        self.numbers = 0
        self.outstanding = 0
        self.finished: deque[Request] = deque()

    def admit(self, srb: Srb, unit: PortUnit | None) -> Request:
        """The port has got an SRB."""
        request = Request(srb, unit)
        self.numbers = request.number = self.numbers + 1
        srb._port = request
        return request

    def again(self, request: Request) -> Request:
        """ER-06, ST-13: the record of another try of the same SRB. The old one stays dead, and who holds it with it."""
        srb = request.srb
        fresh = Request(srb, request.unit)
        fresh.number = request.number
        fresh.retries = request.retries + 1
        fresh.history = request.history
        fresh.length_at_issue = request.length_at_issue
        request.state = NOTIFIED
        srb._port = fresh
        srb.srb_status = SRB_STATUS_PENDING
        srb.scsi_status = 0
        srb.srb_extension = None
        srb.data_transfer_length = request.length_at_issue
        return fresh

    def issue(self, request: Request) -> None:
        """The miniport is about to get it."""
        unit = request.unit
        assert unit is not None
        srb = request.srb
        request.state = ISSUED
        request.length_at_issue = srb.data_transfer_length
        request.sense_at_issue = srb.sense_info_buffer_length
        request.issued_at = self.clock.now()
        active = unit.active
        if not active:
            unit.timeout_left = srb.time_out_value or self.default_timeout  # ER-09: the oldest one's time
        active[request] = None
        unit.started += 1
        self.outstanding += 1
        self._arm_tick()

    def notify(self, request: Request) -> None:
        """It is the port's again, and goes up in the next DPC."""
        request.state = NOTIFIED
        self.finished.append(request)

    def retire(self, request: Request) -> bool:
        """It does not count as outstanding any more. False: it did not."""
        unit = request.unit
        if unit is None:
            return False
        active = unit.active
        if request not in active:
            return False
        del active[request]
        self.outstanding -= 1
        unit.completed += 1
        self.restart_timeout(unit)
        return True

    def restart_timeout(self, unit: PortUnit) -> None:
        """ER-09: the clock of a unit runs for its oldest request."""
        timeout = -1
        for oldest in unit.active:
            timeout = oldest.srb.time_out_value or self.default_timeout
            break
        unit.timeout_left = timeout

    def complete(self, request: Request) -> None:
        """It goes up. Nothing the miniport had of it is valid any more (OW-08); no cycle waits for the collector."""
        srb = request.srb
        request.state = COMPLETED
        srb._port = None
        srb.srb_extension = srb.data_buffer = None
        request.handed = srb
