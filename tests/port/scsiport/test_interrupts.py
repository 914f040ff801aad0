"""IN: interrupts, deferral, timers, and how long a callback may take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hba.clock import MS, S
from hba.miniport.services import (
    CALL_DISABLE_INTERRUPTS,
    CALL_ENABLE_INTERRUPTS,
    NEXT_REQUEST,
    REQUEST_TIMER_CALL,
)
from hba.srb import SRB_STATUS_SUCCESS
from tests.port.fakes import Rig

Make = Callable[..., Rig]


def test_IN_01_claiming_another_devices_interrupt(rig: Make) -> None:
    r = rig(options={"shared_interrupt_every": 1})
    r.hardware(lambda: None)
    assert r.rules == []
    r.miniport.claims_all = True
    r.hardware(lambda: None)
    assert r.rules == ["IN-01"]


def test_IN_01_dismissing_without_claiming(rig: Make) -> None:
    r = rig()
    r.miniport.claims = False
    r.hardware(lambda: None)
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("IN-01", "warning")]


def test_IN_02_an_interrupt_that_is_not_dismissed(rig: Make) -> None:
    r = rig(options={"interrupt_storm_limit": 5})
    r.miniport.dismisses = False
    r.chip.raise_interrupt()
    assert r.miniport.log.count("isr") == 5
    assert r.rules == ["IN-02"]
    r.miniport.dismisses = True
    r.chip.asserted = False
    r.chip.raise_interrupt()  # raised again: served again
    assert r.miniport.log.count("isr") == 6


@pytest.mark.parametrize(
    ("microseconds", "findings"),
    [
        (50, []),
        (60, ["note"]),
        (1_000, ["note"]),
        (1_500, ["warning", "note"]),
        (100_001, ["violation", "note"]),
        (600_000, ["violation", "violation"]),
    ],
)
def test_IN_03_stalls(rig: Make, microseconds: int, findings: list[str]) -> None:
    r = rig()
    r.hardware(lambda: r.miniport.port.stall_execution(microseconds))
    assert [f.severity for f in r.verifier.findings] == findings
    assert set(r.rules) <= {"IN-03"}


def test_IN_03_many_short_stalls_add_up(rig: Make) -> None:
    r = rig()
    r.miniport.on_start = lambda srb: [r.miniport.port.stall_execution(1000) for _ in range(501)] and None
    r.command()
    assert r.rules == ["IN-03"]
    assert "hw_start_io stalled 501.0 ms in all" in r.verifier.findings[0].message


def test_IN_03_time_on_the_clock_is_not_the_miniports(rig: Make) -> None:
    """A loaded host took a second over Python that stalls nowhere."""
    r = rig()
    r.hardware(lambda: r.clock.advance(S))
    r.miniport.on_start = lambda srb: r.clock.advance(S)
    r.command()
    assert r.rules == []


def test_IN_03_initialisation_is_limited_too(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: r.clock.advance(60 * S)
    r.miniport.on_initialize = lambda: [r.miniport.port.stall_execution(90_000) for _ in range(60)] and None
    r.port.start()
    assert r.rules == ["IN-03"]
    assert "hw_initialize stalled 5400.0 ms in all, the limit is 5000 ms" in r.verifier.findings[0].message


def test_IN_03_initialisation_may_take_longer(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: r.miniport.port.stall_execution(90_000)
    r.port.start()
    assert r.rules == []


def test_IN_04_deferral(rig: Make) -> None:
    r = rig()
    srb = r.command()
    held = r.held(srb)
    log = r.miniport.log
    port = r.miniport.port

    def interrupt() -> None:
        r.chip.interrupts_enabled = False
        port.notification(CALL_ENABLE_INTERRUPTS, deferred)

    def deferred() -> None:
        log.append("deferred")
        r.chip.interrupts_enabled = True  # only to raise one: it must not be delivered here
        r.chip.raise_interrupt()
        r.chip.interrupts_enabled = False
        r.miniport.finish(held)
        port.notification(CALL_DISABLE_INTERRUPTS, enable)

    def enable() -> None:
        log.append("enable")
        r.chip.interrupts_enabled = True

    r.hardware(interrupt)
    assert log[2:] == ["start", "isr", "deferred", "enable", "isr"]
    assert r.done == [srb]
    assert r.rules == []


def test_IN_04_hba_interrupts_still_enabled(rig: Make) -> None:
    r = rig()
    port = r.miniport.port
    r.hardware(
        lambda: port.notification(
            CALL_ENABLE_INTERRUPTS, lambda: port.notification(CALL_DISABLE_INTERRUPTS, lambda: None)
        )
    )
    assert r.rules == ["IN-04"]


def test_IN_04_no_call_disable(rig: Make) -> None:
    r = rig()

    def interrupt() -> None:
        r.chip.interrupts_enabled = False
        r.miniport.port.notification(CALL_ENABLE_INTERRUPTS, lambda: None)

    r.hardware(interrupt)
    assert r.rules == ["IN-04"]
    r.chip.interrupts_enabled = True
    r.hardware(lambda: None)
    assert r.miniport.log.count("isr") == 2  # interrupts come again


def test_IN_04_from_the_wrong_callback(rig: Make) -> None:
    r = rig()
    r.chip.interrupts_enabled = False
    port = r.miniport.port
    r.miniport.on_start = lambda srb: port.notification(
        CALL_ENABLE_INTERRUPTS, lambda: port.notification(CALL_DISABLE_INTERRUPTS, lambda: None)
    )
    r.command()
    assert r.rules == ["IN-04"]
    assert r.verifier.findings[0].severity == "violation"


def test_IN_05_timer(rig: Make) -> None:
    r = rig()
    fired: list[int] = []
    port = r.miniport.port

    def request(microseconds: int) -> None:
        r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, lambda: fired.append(r.clock.now()), microseconds))

    request(25_000)
    r.clock.advance(29 * MS)
    assert fired == []  # never early, on the 10 ms raster
    r.clock.advance(MS)
    assert fired == [30 * MS]
    r.clock.advance(S)
    assert len(fired) == 1  # once per request
    request(50_000)
    request(20_000)  # replaces
    r.clock.advance(100 * MS)
    assert len(fired) == 2
    request(50_000)
    request(0)  # cancels
    r.clock.advance(100 * MS)
    assert len(fired) == 2
    request(1)
    r.clock.advance(10 * MS)
    assert len(fired) == 3
    assert r.rules == []


def test_IN_05_the_timer_may_arm_itself_again(rig: Make) -> None:
    r = rig()
    fired: list[int] = []
    port = r.miniport.port

    def timer() -> None:
        fired.append(r.clock.now())
        port.notification(REQUEST_TIMER_CALL, timer, 10_000)

    r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, timer, 10_000))
    r.clock.advance(100 * MS)
    assert len(fired) == 10


def test_IN_05_never_together_with_the_interrupt_routine(rig: Make) -> None:
    r = rig()
    port = r.miniport.port
    log = r.miniport.log

    def timer() -> None:
        log.append("timer")
        r.chip.raise_interrupt()
        log.append("timer end")

    r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, timer, 10_000))
    r.clock.advance(20 * MS)
    assert log[-3:] == ["timer", "timer end", "isr"]

    log.clear()
    r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, timer, 10_000))

    def slow_interrupt() -> None:
        r.clock.advance(50 * MS)
        log.append("isr end")

    r.hardware(slow_interrupt)
    r.loop.run_once(0)
    assert log[:5] == ["isr", "isr", "isr end", "timer", "timer end"]


def test_IN_05_an_adapter_reset_forgets_a_timer_that_was_just_asked_for(rig: Make) -> None:
    r = rig()
    fired: list[int] = []
    # From no callback: what is latched is looked at in the next turn.
    r.miniport.port.notification(REQUEST_TIMER_CALL, lambda: fired.append(r.clock.now()), 10_000)
    r.port.reset_adapter()
    r.clock.advance(100 * MS)
    assert fired == []


def test_IN_05_timer_from_find_adapter_is_a_warning(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: r.miniport.port.notification(REQUEST_TIMER_CALL, lambda: None, 0)
    r.port.start()
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("IN-05", "warning")]


def test_IN_07_polled_adapter(rig: Make) -> None:
    r = rig(bus_interrupt_level=0)
    first = r.command()
    assert r.rules == ["IN-07"]
    r.finish(first)
    assert r.done == [] and "isr" not in r.miniport.log  # no interrupts
    port = r.miniport.port
    r.miniport.on_start = lambda srb: port.notification(
        REQUEST_TIMER_CALL, lambda: [r.miniport.finish(held) for held in list(r.miniport.held)] and None, 10_000
    )
    second = r.command()
    assert r.rules == ["IN-07"]
    r.clock.advance(20 * MS)
    assert r.done == [first, second]


def test_BC_01_a_callback_that_raises_is_contained(rig: Make) -> None:
    r = rig()

    def crash(srb: object) -> None:
        raise ZeroDivisionError("oops")

    r.miniport.on_start = crash
    failed = r.command()
    assert failed.srb_status == 0x30
    assert r.rules == ["BC-01"]
    finding = r.verifier.findings[0]
    assert "hw_start_io raised ZeroDivisionError: oops" in finding.message
    assert "test_interrupts.py" in finding.where and "in crash" in finding.where
    r.miniport.on_start = None
    r.miniport.held.clear()
    r.miniport.instantly = SRB_STATUS_SUCCESS
    assert r.command().srb_status == SRB_STATUS_SUCCESS


def test_BC_01_in_the_interrupt_routine(rig: Make) -> None:
    r = rig()
    r.command()

    def crash() -> None:
        raise ValueError("oops")

    r.hardware(crash)
    assert r.rules == ["BC-01"]
    r.finish()
    assert len(r.done) == 1


def test_a_notification_from_outside_of_any_callback_is_taken(rig: Make) -> None:
    r = rig(next="")
    srb = r.command()
    held = r.held(srb)
    r.miniport.finish(held)
    r.miniport.port.notification(NEXT_REQUEST)
    assert r.done == []  # not from inside the miniport
    r.loop.run_once(0)
    assert r.done == [srb] and not r.port.slot.busy
