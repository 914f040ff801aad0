"""SP: dispatch and the pull model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hba.clock import MS
from hba.miniport.services import (
    CALL_ENABLE_INTERRUPTS,
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    REQUEST_TIMER_CALL,
    RESET_DETECTED,
)
from hba.port.scsiport.slot import HOLD
from hba.srb import (
    SP_UNTAGGED,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_SUCCESS,
)
from tests.port.fakes import Rig

Make = Callable[..., Rig]


def test_SP_01_port_queues_without_limit(rig: Make) -> None:
    r = rig(next="next", tagged=False)
    for key in range(2000):
        r.command(key=key)
    assert len(r.miniport.held) == 1
    assert r.done == []
    assert len(r.port.snapshot()["units"][0]["queued"]) == 1999


@pytest.mark.parametrize("verifier", ["off", "report"])
def test_SP_02_nothing_is_started_while_busy(rig: Make, verifier: str) -> None:
    r = rig(next="", verifier=verifier, traced=False)
    r.command(lun=0)
    r.command(lun=1)
    r.command(lun=2)
    assert len(r.miniport.started) == 1
    r.finish()  # completing does not open the slot
    assert len(r.done) == 1
    assert len(r.miniport.started) == 1
    r.next()
    assert len(r.miniport.started) == 2
    r.next()
    assert len(r.miniport.started) == 3


def test_SP_02_start_and_next_alternate_in_the_trace(rig: Make) -> None:
    r = rig(next="", instantly=SRB_STATUS_SUCCESS)
    for lun in range(4):
        r.command(lun=lun)
    for _ in range(4):
        r.next()
    started = 0
    for event in r.trace.events:
        if event.kind == "start_io.enter":
            started += 1
            assert started == 1
        elif event.kind == "notification" and event.detail == "NextRequest":
            started = 0


def test_SP_03_one_current_packet_the_others_wait_in_the_adapter_queue(rig: Make) -> None:
    r = rig(next="")
    first, second, third = r.command(lun=0), r.command(lun=1), r.command(lun=2)
    assert r.started(first) and not r.started(second)
    adapter = r.port.snapshot()["adapter"]
    assert adapter["state"] == "BUSY"
    assert adapter["queue"] == [2, 3]
    r.next()
    assert r.started(second) and not r.started(third)


def test_SP_04_driver_start_io_prepares_then_runs_the_miniport(rig: Make) -> None:
    r = rig(instantly=SRB_STATUS_SUCCESS, traced=True)
    r.command()
    kinds = r.kinds("submit", "driver_start_io.enter", "start_io.enter", "start_io.exit", "complete")
    assert kinds == ["submit", "driver_start_io.enter", "start_io.enter", "start_io.exit", "complete"]


def test_SP_05_interrupts_wait_until_start_io_has_returned(rig: Make) -> None:
    r = rig(traced=True)
    r.miniport.on_start = lambda srb: r.chip.raise_interrupt()  # the fake asserts that it is not re-entered
    r.command()
    assert r.miniport.log == ["find", "initialize", "start", "isr"]
    kinds = r.kinds("start_io.enter", "start_io.exit", "isr.enter", "interrupt")
    assert kinds == ["start_io.enter", "interrupt", "start_io.exit", "isr.enter"]


@pytest.mark.parametrize("verifier", ["off", "report"])
def test_SP_06_start_io_returns_true(rig: Make, verifier: str) -> None:
    r = rig(next="", verifier=verifier, traced=False)
    r.miniport.returns = False
    srb = r.command()
    assert srb.srb_status == SRB_STATUS_INTERNAL_ERROR
    r.miniport.returns = True
    r.command()
    assert len(r.miniport.started) == 2  # the slot is open again
    assert r.rules == (["SP-06"] if verifier == "report" else [])


def test_SP_06_none_is_not_true_either(rig: Make) -> None:
    r = rig(instantly=SRB_STATUS_SUCCESS)
    r.miniport.returns = None
    assert r.command().srb_status == SRB_STATUS_SUCCESS
    assert r.rules == ["SP-06"]


def test_SP_07_a_missing_next_is_diagnosed(rig: Make) -> None:
    r = rig(next="", options={"stuck_after": 5})
    r.command(lun=0, time_out_value=60)
    r.command(lun=1, time_out_value=60)
    r.finish()
    r.seconds(4)
    assert r.rules == []
    r.seconds(2)
    assert r.rules == ["SP-07"]
    assert "no NextRequest since #1" in r.verifier.findings[0].message
    assert "no NextRequest since #1" in r.port.snapshot()["stuck"][0]


def test_SP_07_completion_outside_of_a_request_is_a_warning(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: r.miniport.port.notification(0, r.srb())
    r.port.start()
    assert ("SP-07", "warning") in [(f.rule, f.severity) for f in r.verifier.findings]


@pytest.mark.parametrize("next_first", [True, False])
def test_SP_08_next_and_complete_in_any_order(rig: Make, next_first: bool) -> None:
    r = rig(next="")
    srb = r.command()
    held = r.held(srb)

    def work() -> None:
        if next_first:
            r.miniport.port.notification(NEXT_REQUEST)
        r.miniport.finish(held)
        if not next_first:
            r.miniport.port.notification(NEXT_REQUEST)

    r.hardware(work)
    assert r.done == [srb]
    assert not r.port.slot.busy
    assert r.rules == []


def test_SP_09_notifications_are_latched_and_acted_on_in_order(rig: Make) -> None:
    r = rig(next="", options={"bus_reset_hold_time": 0})
    r.command(lun=0)
    r.command(lun=1)
    order: list[str] = []
    r.miniport.on_start = lambda srb: order.append("start")
    r.miniport.started.clear()
    held = r.miniport.held[0]
    r.done.clear()

    def completion(srb: object) -> None:
        order.append("complete")

    r.port.outstanding  # noqa: B018 - the request below is the one outstanding
    held._port.srb.completion = completion
    r.chip.interrupts_enabled = False

    def enabled() -> None:
        order.append("enabled")
        r.miniport.port.notification(4, lambda: setattr(r.chip, "interrupts_enabled", True))

    def work() -> None:
        # notified in the reverse of the DPC's order
        r.miniport.port.notification(CALL_ENABLE_INTERRUPTS, enabled)
        r.miniport.finish(held)
        r.miniport.port.notification(NEXT_REQUEST)
        r.miniport.port.notification(REQUEST_TIMER_CALL, lambda: None, 10_000)
        assert order == []  # nothing is acted on in here
        assert not r.port.timer.armed

    r.miniport.work.append(work)
    r.chip.asserted = True
    r.port.on_interrupt()
    assert order == ["start", "complete", "enabled"]
    assert r.port.timer.armed


def test_SP_09_unknown_notification(rig: Make) -> None:
    r = rig()
    r.hardware(lambda: r.miniport.port.notification(99))
    assert r.rules == ["SP-09"]


def test_SP_10_next_opens_the_adapter_not_the_unit(rig: Make) -> None:
    r = rig(next="next")
    first = r.command(lun=0, key=1)
    same, other = r.command(lun=0, key=2), r.command(lun=1)
    assert r.started(first) and r.started(other)
    assert not r.started(same)
    r.next()
    assert not r.started(same)
    r.finish(first)
    assert r.started(same)


def test_SP_10_next_in_find_adapter_is_a_warning(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: r.miniport.port.notification(NEXT_REQUEST)
    r.port.start()
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("SP-10", "warning")]


def test_SP_11_next_lu_gives_the_unit_another(rig: Make) -> None:
    r = rig(next="lu")
    srbs = [r.command(key=key) for key in range(3)]
    assert all(r.started(srb) for srb in srbs)
    assert r.rules == []


def test_SP_11_needs_overlap(rig: Make) -> None:
    r = rig(next="lu", tagged=False)
    r.command()
    assert r.rules[0] == "SP-11"


def test_SP_12_next_lu_with_untagged_active(rig: Make) -> None:
    r = rig(next="lu")
    r.command(srb_flags=0)
    second = r.command()
    assert r.rules == ["SP-12"]
    assert r.verifier.findings[0].srb.startswith("#1 ")
    assert "fakes.py" in r.verifier.findings[0].where
    assert not r.started(second)
    other = r.command(lun=1)
    assert r.started(other)  # the part for the adapter counts


def test_SP_13_one_per_unit_without_overlap(rig: Make) -> None:
    r = rig(next="next", tagged=False)
    first, second = r.command(), r.command()
    assert r.started(first) and not r.started(second)
    r.finish(first)
    assert r.started(second)


def test_SP_14_disable_disconnect_holds_the_bus(rig: Make) -> None:
    r = rig(next="next")
    first = r.command(lun=0, srb_flags=SRB_FLAGS_DISABLE_DISCONNECT | SRB_FLAGS_QUEUE_ACTION_ENABLE)
    other = r.command(lun=1)
    assert not r.started(other)
    r.next()
    assert not r.started(other)
    r.finish(first)
    assert r.started(other)
    assert r.real(r.miniport.started[0]).queue_tag == SP_UNTAGGED


def test_SP_15_a_next_too_many_is_counted(rig: Make) -> None:
    r = rig()
    r.next()
    assert r.port.snapshot()["counters"]["spurious next"] == 1
    assert r.rules == []


def test_reset_detected_is_legal_in_the_interrupt(rig: Make) -> None:
    r = rig()
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    r.clock.advance(10 * MS)
    assert r.rules == []
    assert r.port.slot.gate & HOLD


def test_next_lu_of_another_unit(rig: Make) -> None:
    r = rig(next="")
    r.command(lun=0)
    held = r.miniport.held[0]
    r.hardware(lambda: r.miniport.port.notification(NEXT_LU_REQUEST, 0, 0, 7))
    r.hardware(lambda: r.miniport.finish(held))
    assert len(r.done) == 1
