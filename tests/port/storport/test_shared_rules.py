"""Rules both models share (OW, IN, ER, Q), as Storport keeps them."""

from __future__ import annotations

import pytest

from hba.clock import MS
from hba.miniport.services import REQUEST_COMPLETE, REQUEST_TIMER_CALL, SP_BUS_TIME_OUT, STOR_STATUS_SUCCESS
from hba.port.library.events import STOR_EVENT_LUN_ASSOCIATION, LogEventDetails
from hba.srb import (
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_SHUTDOWN,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.verifier import RuleViolation
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

LEVELS = [None, "report"]


def test_OW_01_touching_a_completed_srb(rig: Rig) -> None:
    rig.submit()
    mine = rig.scripted.started[0]
    rig.finish_all()
    assert mine.cdb
    assert rig.found == {"OW-01"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("when", ["at once", "later"])
def test_OW_02_double_completion_is_ignored(make_rig: MakeRig, level: str | None, when: str) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    mine: list[Srb] = []

    def start(srb: Srb) -> bool:
        mine.append(srb)
        srb.srb_status = SRB_STATUS_SUCCESS
        rig.scripted.port.notification(REQUEST_COMPLETE, srb)
        if when == "at once":
            rig.scripted.port.notification(REQUEST_COMPLETE, srb)
        return True

    rig.scripted.start = start
    srb = rig.submit()
    if when == "later":
        rig.in_interrupt(lambda: rig.scripted.port.notification(REQUEST_COMPLETE, mine[0]))
    assert rig.done == [srb]
    if level is not None:
        assert rig.found == {"OW-02"}
    assert rig.port.outstanding == 0


def test_OW_02_strict_raises_into_the_miniport(make_rig: MakeRig) -> None:
    rig = make_rig(level="strict")
    raised: list[Exception] = []

    def start(srb: Srb) -> bool:
        rig.scripted.complete(srb)
        try:
            rig.scripted.port.notification(REQUEST_COMPLETE, srb)
        except RuleViolation as error:
            raised.append(error)
        return True

    rig.scripted.start = start
    srb = rig.submit()
    assert raised and rig.done == [srb]


def test_OW_03_strict_raises_and_what_is_wrong_is_still_the_miniports(make_rig: MakeRig) -> None:
    """It has not been taken for completed: who catches the exception completes it once more, properly."""
    rig = make_rig(level="strict")
    raised: list[Exception] = []

    def start(srb: Srb) -> bool:
        srb.srb_status = 0x3F
        try:
            rig.scripted.port.notification(REQUEST_COMPLETE, srb)
        except RuleViolation as error:
            raised.append(error)
            rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    srb = rig.submit()
    assert len(raised) == 1 and rig.found == {"OW-03"}
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("callback", ["build", "start"])
@pytest.mark.parametrize("level", LEVELS)
def test_an_exception_in_a_callback_ends_only_its_request(make_rig: MakeRig, level: str | None, callback: str) -> None:
    rig = make_rig(level=level)
    rig.inquire()

    def bug(srb: Srb) -> bool:
        raise ZeroDivisionError("a bug")

    setattr(rig.scripted, callback, bug)
    srb = rig.submit()
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_INTERNAL_ERROR
    setattr(rig.scripted, callback, None)
    rig.scripted.started.clear()
    after = rig.submit()
    rig.complete(after)
    assert rig.done == [srb, after]
    assert "ZeroDivisionError" in rig.port.last_crash


def test_Q_16_flush_reaches_only_a_miniport_that_caches(make_rig: MakeRig) -> None:
    rig = make_rig()
    for function in (SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN):
        assert rig.submit(function=function).srb_status == SRB_STATUS_SUCCESS
    assert rig.scripted.names() == []
    rig = make_rig(Scripted(caches_data=True))
    rig.submit(function=SRB_FUNCTION_FLUSH)
    assert rig.scripted.names() == ["build", "start"]


def test_ER_17_an_unknown_function_is_completed(rig: Rig) -> None:
    assert rig.submit(function=0x77).srb_status == SRB_STATUS_INVALID_REQUEST


def test_ER_15_complete_request_works_but_is_not_for_storport(rig: Rig) -> None:
    srbs = [rig.submit(lun=lun) for lun in (0, 1)]
    rig.in_interrupt(lambda: rig.scripted.port.complete_request(0, 0, 0xFF, SRB_STATUS_BUS_RESET))
    assert rig.done == srbs
    assert rig.found == {"ER-15"}


def test_IN_05_one_timer_quantised_replaced_and_cancelled(rig: Rig) -> None:
    port = rig.scripted.port
    rig.in_interrupt(lambda: port.notification(REQUEST_TIMER_CALL, rig.scripted.hw_timer, 1000))
    rig.advance(9 * MS)
    assert ("timer",) not in rig.scripted.calls
    rig.advance(1 * MS)
    assert rig.scripted.calls.count(("timer",)) == 1
    rig.in_interrupt(lambda: port.notification(REQUEST_TIMER_CALL, rig.scripted.hw_timer, 10_000))
    rig.in_interrupt(lambda: port.notification(REQUEST_TIMER_CALL, rig.scripted.hw_timer, 50_000))
    rig.advance(30 * MS)
    assert rig.scripted.calls.count(("timer",)) == 1
    rig.advance(40 * MS)
    assert rig.scripted.calls.count(("timer",)) == 2
    rig.in_interrupt(lambda: port.notification(REQUEST_TIMER_CALL, rig.scripted.hw_timer, 10_000))
    rig.in_interrupt(lambda: port.notification(REQUEST_TIMER_CALL, rig.scripted.hw_timer, 0))
    rig.advance(100 * MS)
    assert rig.scripted.calls.count(("timer",)) == 2


def test_IN_06_the_timer_needs_a_routine(rig: Rig) -> None:
    rig.in_interrupt(lambda: rig.scripted.port.notification(REQUEST_TIMER_CALL, None, 1000))
    assert rig.found == {"IN-06"}


@pytest.mark.parametrize("level", LEVELS)
def test_addresses_nobody_answers_at_cost_no_memory(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)

    def start(srb: Srb) -> bool:
        rig.scripted.complete(srb, 0x0A)
        return True

    rig.scripted.start = start
    for target in range(60):
        rig.submit(target=target)
    assert len(rig.done) == 60
    assert len(rig.port.units) == 0


def test_message_signalled_interrupts_have_their_own_routine(make_rig: MakeRig) -> None:
    class Msi(Scripted):
        def hw_msi_interrupt(self, message_id: int) -> bool:
            self.calls.append(("msi", message_id))
            self.chip.acknowledge()
            return True

    rig = make_rig(Msi(interrupt_synchronization_mode=1))
    rig.chip.raise_interrupt()
    assert rig.scripted.calls[-1] == ("msi", 0)


@pytest.mark.parametrize("how", ["not", "log_error", "system event", "another unit's event"])
def test_ER_02_what_is_logged_in_either_way(make_rig: MakeRig, how: str) -> None:
    rig = make_rig()

    def start(srb: Srb) -> bool:
        if how == "log_error":
            rig.scripted.port.log_error(srb, 0, 0, 0, SP_BUS_TIME_OUT, 1)
        elif how != "not":
            lun = 0 if how == "system event" else 1
            details = LogEventDetails(event_association=STOR_EVENT_LUN_ASSOCIATION, lun_id=lun)
            assert rig.scripted.port.log_system_event(details) == (STOR_STATUS_SUCCESS, 0)
        rig.scripted.complete(srb, SRB_STATUS_SELECTION_TIMEOUT)
        return True

    rig.scripted.start = start
    rig.submit()
    assert rig.found == (set() if how in ("log_error", "system event") else {"ER-02"})
    assert all(finding.severity == "note" for finding in rig.verifier.findings)  # type: ignore[union-attr]
