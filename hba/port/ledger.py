"""Who has which request: the only writer of a request's state, of the counts, and of the time that runs for it.

    admit -> QUEUED -> issue -> ISSUED -> notify -> NOTIFIED -> retire, complete -> COMPLETED   (OW-01, OW-02)

A request the port answers itself goes from QUEUED to NOTIFIED. Whoever wants to know asks; whoever changes calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from hba.clock import Clock
from hba.port.reports import Reports
from hba.port.request import COMPLETED, ISSUED, NOTIFIED, PortUnit, RequestOf
from hba.srb import SRB_STATUS_PENDING, SRB_STATUS_QUEUE_FROZEN, Srb

U = TypeVar("U", bound=PortUnit)


class Ledger(Generic[U]):
    """One port's requests.

    `numbers`      requests so far; the trace calls each by its number.
    `outstanding`  what the miniport owns, all units.
    `finished`     what goes up in the next DPC, in the order it ended.
    `due`          there is work for the DPC.
    `watched`      the one-second tick runs.
    """

    def __init__(self, clock: Clock, default_timeout: int, reports: Reports, tick: Callable[[], None]) -> None:
        self._now = clock.now
        self.reports = reports
        self.default_timeout = default_timeout  # seconds, of an SRB that says 0
        self._tick = tick  # begins it
        self.watched = False
        self.due = False
        self.numbers = 0
        self.outstanding = 0
        self.finished: list[RequestOf[U]] = []

    def admit(self, srbs: Sequence[Srb]) -> list[RequestOf[U]]:
        """The port has got these SRBs. Which unit each is for is found when its turn comes."""
        requests: list[RequestOf[U]] = []
        number = self.numbers
        for srb in srbs:
            request: RequestOf[U] = RequestOf(srb)
            srb._port = request
            request.number = number = number + 1
            requests.append(request)
        self.numbers = number
        return requests

    def own(self, srb: Srb, unit: U | None, what: str) -> RequestOf[U]:
        """The port's own SRB (a part of a split transfer, an abort, a REQUEST SENSE): not queued yet."""
        (request,) = self.admit((srb,))
        request.unit = unit
        for watcher in self.reports.watchers:
            watcher.submitted((request,), what)
        return request

    def again(self, request: RequestOf[U]) -> RequestOf[U]:
        """ER-06, ST-13: the record of another try of the same SRB. The old one stays dead, and who holds it with it."""
        srb = request.srb
        fresh: RequestOf[U] = RequestOf(srb)
        fresh.unit = request.unit
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

    def issue(self, request: RequestOf[U]) -> None:
        """The miniport is about to get it."""
        unit = request.unit
        assert unit is not None
        srb = request.srb
        request.state = ISSUED
        request.length_at_issue = srb.data_transfer_length
        request.sense_at_issue = srb.sense_info_buffer_length
        request.issued_at = self._now()
        active = unit.active
        if not active:
            unit.timeout_left = srb.time_out_value or self.default_timeout  # ER-09: the oldest one's time
        active[request] = None
        unit.started += 1
        self.outstanding += 1
        if not self.watched:
            self.watch()

    def watch(self) -> None:
        """The tick runs only while there is something to watch, so an idle port costs nothing."""
        if not self.watched:
            self.watched = True
            self._tick()

    def notify(self, request: RequestOf[U]) -> None:
        """It is the port's again, and goes up in the next DPC."""
        request.state = NOTIFIED
        self.finished.append(request)
        self.due = True

    def answer(self, request: RequestOf[U], srb_status: int) -> None:
        """The port completes a request itself."""
        request.srb.srb_status = srb_status
        self.notify(request)

    def take_back(self, request: RequestOf[U], srb_status: int) -> None:
        """The port ends a request the miniport owns (complete_request, lost at a reset, adapter reset)."""
        request.srb.srb_status = srb_status
        for watcher in self.reports.watchers:
            watcher.taken_back(request)
        self.notify(request)

    def retire(self) -> tuple[list[RequestOf[U]], list[RequestOf[U]]]:
        """What has ended since the last time, in that order, and which of it the miniport has had: the others were
        answered by the port. None of it counts as outstanding any more."""
        finished, self.finished = self.finished, []
        had: list[RequestOf[U]] = []
        touched: PortUnit | None = None
        for request in finished:
            unit = request.unit
            if unit is None or request not in unit.active:
                continue
            if unit is not touched:
                if touched is not None:
                    self.restart_timeout(touched)
                touched = unit
            del unit.active[request]
            unit.completed += 1
            had.append(request)
        if touched is not None:
            self.restart_timeout(touched)
        self.outstanding -= len(had)
        return finished, had

    def restart_timeout(self, unit: PortUnit) -> None:
        """ER-09: the clock of a unit runs for its oldest request."""
        timeout = -1
        for oldest in unit.active:
            timeout = oldest.srb.time_out_value or self.default_timeout
            break
        unit.timeout_left = timeout

    def complete(self, requests: Sequence[RequestOf[U]]) -> list[Srb]:
        """They go up; their SRBs. Nothing the miniport had of them is valid any more (OW-08), and no cycle of
        references is left for the collector."""
        srbs: list[Srb] = []
        for request in requests:
            srb = request.handed = request.srb
            request.state = COMPLETED
            srb._port = srb.srb_extension = srb.data_buffer = None
            if request.frozen:
                srb.srb_status |= SRB_STATUS_QUEUE_FROZEN
            srbs.append(srb)
        return srbs
