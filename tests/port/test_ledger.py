"""Who has a request, what is counted, whose time runs (hba.port.ledger)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.clock import S, VirtualClock
from hba.port.ledger import Ledger
from hba.port.request import COMPLETED, ISSUED, NOTIFIED, QUEUED, PortUnit, Request, RequestOf
from hba.port.watcher import Watcher
from hba.srb import (
    SRB_STATUS_ABORTED,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_PENDING,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.both import Pnped


class Seen(Watcher):
    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def submitted(self, requests: Sequence[Request], by: str) -> None:
        self.log.append(("submitted", [request.number for request in requests], by))

    def taken_back(self, request: Request) -> None:
        self.log.append(("taken back", request.number, request.state, request.srb.srb_status))


class Book:
    """A ledger of one unit."""

    def __init__(self, default_timeout: int = 60) -> None:
        self.clock = VirtualClock(7)
        self.seen = Seen()
        port = Pnped("storport").port  # whom a ledger tells, and asks for nothing else
        port.watchers = (self.seen,)
        self.ticks = 0
        self.ledger: Ledger[PortUnit] = Ledger(self.clock, default_timeout, port, self.tick)
        self.unit = PortUnit(0, 0, 0)

    def tick(self) -> None:
        self.ticks += 1

    def admitted(self, time_out_value: int = 0, unit: PortUnit | None = None) -> RequestOf[PortUnit]:
        srb = Srb()
        srb.time_out_value = time_out_value
        srb.data_transfer_length, srb.sense_info_buffer_length = 512, 18
        (request,) = self.ledger.admit((srb,))
        request.unit = unit or self.unit
        return request

    def issued(self, time_out_value: int = 0, unit: PortUnit | None = None) -> RequestOf[PortUnit]:
        request = self.admitted(time_out_value, unit)
        self.ledger.issue(request)
        return request


def test_numbers_go_on_from_batch_to_batch() -> None:
    book = Book()
    srbs = [Srb() for _ in range(5)]
    requests = [*book.ledger.admit(srbs[:2]), *book.ledger.admit(srbs[2:])]
    assert [request.number for request in requests] == [1, 2, 3, 4, 5] and book.ledger.numbers == 5
    assert [srb._port for srb in srbs] == requests and [request.srb for request in requests] == srbs
    assert {request.state for request in requests} == {QUEUED}
    assert (book.ledger.outstanding, book.ledger.due, book.ledger.watched) == (0, False, False)


def test_the_ports_own_are_told_of_with_their_reason() -> None:
    book = Book()
    book.admitted()
    request = book.ledger.own(Srb(), book.unit, "abort of #1")
    assert request.number == 2 and request.unit is book.unit
    assert book.seen.log == [("submitted", [2], "abort of #1")]


def test_what_is_issued_is_counted_and_its_time_runs() -> None:
    book = Book(default_timeout=9)
    first = book.issued()
    assert (first.state, first.issued_at, first.length_at_issue, first.sense_at_issue) == (ISSUED, 7, 512, 18)
    assert (book.ledger.outstanding, book.unit.started, book.unit.timeout_left, book.ticks) == (1, 1, 9, 1)
    book.clock.advance(S)
    second = book.issued(3)
    assert second.issued_at == 7 + S and list(book.unit.active) == [first, second]
    # ER-09: the oldest one's time runs. The tick was begun already.
    assert (book.ledger.outstanding, book.unit.started, book.unit.timeout_left, book.ticks) == (2, 2, 9, 1)
    assert book.ledger.watched
    book.ledger.watched = False
    book.ledger.watch()
    book.ledger.watch()
    assert book.ticks == 2


def test_ER_09_the_next_oldest_begins_anew() -> None:
    book = Book(default_timeout=9)
    requests = [book.issued(timeout) for timeout in (3, 0, 5)]
    left = []
    for request in requests:
        book.unit.timeout_left -= 1
        book.ledger.notify(request)
        finished, had = book.ledger.retire()
        assert finished == had == [request]
        left.append(book.unit.timeout_left)
    assert left == [9, 5, -1]
    assert (book.ledger.outstanding, book.unit.started, book.unit.completed) == (0, 3, 3)


def test_what_ends_together_is_retired_together_unit_by_unit() -> None:
    book = Book(default_timeout=9)
    other = PortUnit(0, 1, 0)
    mine = [book.issued(2), book.issued(3)]
    others = [book.issued(4, other), book.issued(5, other)]
    answered = book.admitted()
    nowhere = book.admitted()
    nowhere.unit = None
    for request in (others[0], answered, mine[0], nowhere):
        book.ledger.notify(request)
    assert book.ledger.due
    finished, had = book.ledger.retire()
    assert finished == [others[0], answered, mine[0], nowhere] and had == [others[0], mine[0]]
    assert (book.unit.timeout_left, other.timeout_left) == (3, 5)
    assert (book.unit.completed, other.completed, book.ledger.outstanding) == (1, 1, 2)
    assert book.ledger.finished == []
    assert book.ledger.retire() == ([], [])
    assert book.ledger.outstanding == 2


def test_what_the_port_answers_itself() -> None:
    book = Book()
    request = book.admitted()
    book.ledger.answer(request, SRB_STATUS_NO_DEVICE)
    assert (request.state, request.srb.srb_status) == (NOTIFIED, SRB_STATUS_NO_DEVICE)
    assert book.ledger.finished == [request] and book.ledger.due and book.seen.log == []


def test_what_the_port_takes_back_is_told_of_before_it_is_its_own() -> None:
    book = Book()
    request = book.issued()
    book.ledger.take_back(request, SRB_STATUS_ABORTED)
    assert book.seen.log == [("taken back", 1, ISSUED, SRB_STATUS_ABORTED)]
    assert request.state == NOTIFIED and book.ledger.finished == [request]


def test_ER_06_another_try_is_another_record_of_the_same_srb() -> None:
    """As new, but for its number, its story and how much it may carry; the old one is dead."""
    book = Book()
    request = book.issued()
    request.history = [(1, "submit", None)]
    request.retries = 4
    srb: Any = request.srb
    srb.srb_status, srb.scsi_status, srb.data_transfer_length, srb.srb_extension = 5, 8, 100, "mine"
    fresh = book.ledger.again(request)
    assert srb._port is fresh and fresh.srb is srb and request.state == NOTIFIED
    assert (fresh.state, fresh.number, fresh.retries, fresh.length_at_issue) == (QUEUED, 1, 5, 512)
    assert fresh.unit is book.unit and fresh.history is request.history
    assert (srb.srb_status, srb.scsi_status, srb.data_transfer_length) == (SRB_STATUS_PENDING, 0, 512)
    assert srb.srb_extension is None
    assert book.ledger.numbers == 1


def test_OW_08_what_goes_up_has_nothing_of_the_port_any_more() -> None:
    book = Book()
    requests = [book.issued(), book.issued()]
    requests[1].frozen = True
    for request in requests:
        srb: Any = request.srb
        srb.srb_status, srb.srb_extension, srb.data_buffer = SRB_STATUS_SUCCESS, "mine", "mine"
        request.handed = "what stood for it"  # type: ignore[assignment]
    srbs: list[Any] = book.ledger.complete(requests)
    assert srbs == [request.srb for request in requests] == [request.handed for request in requests]
    assert [request.state for request in requests] == [COMPLETED] * 2
    assert [(srb._port, srb.srb_extension, srb.data_buffer) for srb in srbs] == [(None, None, None)] * 2
    assert [srb.srb_status for srb in srbs] == [SRB_STATUS_SUCCESS, SRB_STATUS_SUCCESS | SRB_STATUS_QUEUE_FROZEN]
