"""Calling the miniport (hba.port.callbacks), and what is said of it (hba.port.reports, hba.port.context)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from hba.clock import MS
from hba.port.buffers import ForbiddenAccess
from hba.port.context import (
    ADAPTER_CONTROL,
    DIRQL,
    FIND_ADAPTER,
    HIGH_LEVEL,
    INITIALIZE,
    INTERRUPT,
    NO_CALLBACK,
    PASSIVE_LEVEL,
    TIMER,
    caller,
    raised_at,
)
from hba.port.request import Request
from hba.port.watcher import Watcher
from hba.verifier import RuleViolation
from tests.port.fakes import Rig

Make = Callable[..., Rig]


class Spy(Watcher):
    """Keeps all; `raises` is what a finding has raised into the miniport."""

    def __init__(self, raises: Exception | None = None) -> None:
        self.raises = raises
        self.log: list[tuple[Any, ...]] = []
        self.where = ""

    def entered(self, callback: int) -> None:
        self.log.append(("entered", callback))

    def left(self, callback: int) -> None:
        self.log.append(("left", callback))

    def note(self, request: Request | None, what: str, detail: object) -> None:
        self.log.append(("note", request, what, detail))

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> Exception | None:
        self.log.append((rule, message, request, severity, dict(details)))
        self.where = where
        return self.raises


def spied(rig: Make, *spies: Spy, **options: Any) -> Any:
    """A port that only these watch."""
    port = rig(verifier="off", traced=False, **options).port
    port.watchers = spies
    return port


# -- entering and leaving ---------------------------------------------------------------------------------------------


def test_what_a_callback_gets_and_gives_back(rig: Make) -> None:
    spy = Spy()
    port = spied(rig, spy)
    seen: list[tuple[int, int]] = []

    def routine(*arguments: int) -> int:
        seen.append((port.callback, port.irql))
        return sum(arguments)

    assert port.call(TIMER, DIRQL, -1, routine, 1, 2) == 3
    assert port.call(ADAPTER_CONTROL, PASSIVE_LEVEL, -1, routine) == 0
    assert seen == [(TIMER, DIRQL), (ADAPTER_CONTROL, PASSIVE_LEVEL)]
    assert (port.callback, port.irql) == (NO_CALLBACK, PASSIVE_LEVEL)
    assert spy.log == [("entered", TIMER), ("left", TIMER), ("entered", ADAPTER_CONTROL), ("left", ADAPTER_CONTROL)]


def test_one_that_raises_is_left_all_the_same(rig: Make) -> None:
    spy = Spy()
    port = spied(rig, spy)

    def crash() -> int:
        raise ValueError("oops")

    assert port.call(TIMER, DIRQL, 7, crash) == 7
    assert (port.callback, port.irql) == (NO_CALLBACK, PASSIVE_LEVEL)
    assert [entry[0] for entry in spy.log] == ["entered", "BC-01", "left"]
    assert spy.log[1] == ("BC-01", "hw_timer raised ValueError: oops", None, None, {})
    assert spy.where.endswith("in crash") and "test_callbacks.py" in spy.where


def test_DM_01_no_callback_is_below_the_least_irql(rig: Make) -> None:
    port = spied(rig)
    port.least_irql = HIGH_LEVEL
    assert port.call(TIMER, DIRQL, 0, lambda: port.irql) == HIGH_LEVEL


def test_BC_01_a_crash_is_said_once_in_a_row(rig: Make, caplog: pytest.LogCaptureFixture) -> None:
    port = spied(rig)
    caplog.set_level(logging.ERROR, "hba.port")

    def crash(what: str) -> None:
        raise ValueError(what)

    for what in ("one", "one", "two", "one"):
        port.call(TIMER, DIRQL, None, crash, what)
        assert f"hw_timer raised ValueError: {what} (" in port.last_crash
    said = [record.getMessage().partition(" (")[0] for record in caplog.records]
    assert said == [f"the miniport's hw_timer raised ValueError: {what}" for what in ("one", "two", "one")]
    assert port.counters["miniport exceptions"] == 4


def test_BC_01_what_has_a_finding_of_its_own_is_no_crash(rig: Make) -> None:
    """An exception that a finding raised into the miniport is no second finding; that of a buffer has its own rule."""
    spy = Spy()
    port = spied(rig, spy)

    def crash(error: Exception) -> None:
        raise error

    port.call(TIMER, DIRQL, None, crash, ForbiddenAccess("CF-02: read"))
    assert "ForbiddenAccess" in port.last_crash
    finding: Any = SimpleNamespace(rule="OW-02", message="said already")
    port.last_crash = ""
    port.call(TIMER, DIRQL, None, crash, RuleViolation(finding))
    assert port.last_crash == ""
    assert port.counters["miniport exceptions"] == 2
    assert "BC-01" not in [entry[0] for entry in spy.log]


# -- IN-03: how long it may take --------------------------------------------------------------------------------------


def stalling(port: Any, *microseconds: int) -> Callable[[], bool]:
    def routine() -> bool:
        for stall in microseconds:
            port.stall_execution(stall)
        return True

    return routine


@pytest.mark.parametrize(
    ("callback", "stalls", "said"),
    [
        (TIMER, [100_000] * 5, ""),
        (TIMER, [100_000] * 5 + [1], "hw_timer stalled 500.0 ms in all, the limit is 500 ms"),
        (INITIALIZE, [100_000] * 50, ""),
        (INITIALIZE, [100_000] * 50 + [1], "hw_initialize stalled 5000.0 ms in all, the limit is 5000 ms"),
        (FIND_ADAPTER, [100_000] * 60, ""),
        (INTERRUPT, [25, 25], ""),
        (INTERRUPT, [25, 26], "hw_interrupt stalled 51 us; from 50 us on, defer the work"),
        (INTERRUPT, [100_000] * 5 + [1], "hw_interrupt stalled 500.0 ms in all, the limit is 500 ms"),
        (TIMER, [60], ""),
    ],
)
def test_IN_03_how_long_a_callback_may_stall_in_all(rig: Make, callback: int, stalls: list[int], said: str) -> None:
    spy = Spy()
    port = spied(rig, spy)
    for _ in range(2):  # nothing is left of the first one's account
        spy.log.clear()
        assert port.call(callback, DIRQL, False, stalling(port, *stalls))
        found = [entry for entry in spy.log if entry[0] == "IN-03" and not entry[1].startswith("stall of")]
        assert [entry[1] for entry in found] == ([said] if said else [])
        if "in all" in said:
            assert found[0][3:] == (None, {"microseconds": sum(stalls)})
        elif said:
            assert found[0][3:] == ("note", {})
    assert port.charged == 0 and not port.unsettled
    assert port.counters["stalls"] == 2 * len(stalls)


def test_IN_03_what_an_inner_callback_stalls_counts_for_the_outer(rig: Make) -> None:
    spy = Spy()
    port = spied(rig, spy)

    def outer() -> None:
        stalling(port, *[100_000] * 3)()
        port.call(ADAPTER_CONTROL, DIRQL, None, stalling(port, 100_000, 100_000, 1000))

    port.call(TIMER, DIRQL, None, outer)
    found = [entry[1] for entry in spy.log if entry[0] == "IN-03" and "in all" in entry[1]]
    assert found == ["hw_timer stalled 501.0 ms in all, the limit is 500 ms"]


@pytest.mark.parametrize(
    ("callback", "microseconds", "severity"),
    [
        (TIMER, 1000, ""),
        (TIMER, 1001, "warning"),
        (TIMER, 100_000, "warning"),
        (TIMER, 100_001, None),
        (INITIALIZE, 1001, ""),
        (FIND_ADAPTER, 100_000, ""),
        (INITIALIZE, 100_001, None),
        (FIND_ADAPTER, 100_001, None),
        (TIMER, -5_000_000, ""),
    ],
)
def test_IN_03_a_single_stall(rig: Make, callback: int, microseconds: int, severity: str | None) -> None:
    spy = Spy()
    port = spied(rig, spy)
    port.call(callback, DIRQL, False, stalling(port, microseconds))
    found = [entry for entry in spy.log if entry[0] == "IN-03" and entry[1].startswith("stall of")]
    assert [entry[3] for entry in found] == ([] if severity == "" else [severity])
    if found:
        most = "at most 1000 us" if severity else "more than 100000 us is forbidden"
        assert found[0][1] == f"stall of {microseconds} us; {most}"


def test_IN_03_the_time_is_counted_in_nanoseconds(rig: Make) -> None:
    port = spied(rig)
    charged: list[int] = []

    def routine() -> None:
        for microseconds in (0, -5, 1000):
            port.stall_execution(microseconds)
            charged.append(port.charged)

    port.call(TIMER, DIRQL, None, routine)
    assert charged == [0, 0, MS]


# -- what is said of it -----------------------------------------------------------------------------------------------


def test_all_watchers_hear_of_a_finding_and_one_may_raise_it(rig: Make) -> None:
    error = ValueError("strict")
    for spies in ([Spy(error), Spy()], [Spy(), Spy(error)]):
        port = spied(rig, *spies)
        assert port.finding("OW-02", "said", severity="note", detail=1) is error
        assert [spy.log for spy in spies] == [[("OW-02", "said", None, "note", {"detail": 1})]] * 2
        with pytest.raises(ValueError, match="strict"):
            port.offence("OW-02", "said again")
        assert [len(spy.log) for spy in spies] == [2, 2]


def test_an_offence_says_where(rig: Make) -> None:
    spy = Spy()
    port = spied(rig, spy)
    request = port.ledger.admit([rig().srb()])[0]
    port.offence_of("MB-11", "wrote", request)
    assert spy.log == [("MB-11", "wrote", request, None, {})]
    assert spy.where.endswith("in test_an_offence_says_where")
    port.finding("MB-11", "no place is known")
    assert spy.where == ""


def test_notes_go_to_all(rig: Make) -> None:
    spies = Spy(), Spy()
    port = spied(rig, *spies)
    port.note(None, "pnp", "stop")
    assert [spy.log for spy in spies] == [[("note", None, "pnp", "stop")]] * 2


def test_rare_events_are_counted_by_name(rig: Make) -> None:
    port = spied(rig)
    for what in ("a", "b", "a"):
        port.count(what)
    assert port.counters == {"a": 2, "b": 1}


def test_what_it_is_doing(rig: Make) -> None:
    port = spied(rig)
    assert port.doing() == "no callback passed"
    assert port.call(TIMER, DIRQL, "", port.doing) == "hw_timer passed"


def test_the_line_that_asks_is_the_innermost_that_is_not_ours() -> None:
    assert caller().endswith("in test_the_line_that_asks_is_the_innermost_that_is_not_ours")
    assert raised_at(None) == ""
    try:
        raise ValueError
    except ValueError as error:
        assert raised_at(error.__traceback__).endswith("in test_the_line_that_asks_is_the_innermost_that_is_not_ours")


def test_a_line_of_ours_is_not_where_it_was_raised(rig: Make) -> None:
    """The miniport called the port with something that made it raise: the miniport's line is the one to show."""
    port = spied(rig)

    def passes_nonsense() -> None:
        port.stall_execution("long")

    port.call(TIMER, DIRQL, None, passes_nonsense)
    assert "test_callbacks.py" in port.last_crash and "in passes_nonsense" in port.last_crash
