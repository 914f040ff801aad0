"""RS-01 to RS-04, ER-09, ER-14: every step of a recovery, what it holds, its time, what is said of it; aborts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import S
from hba.miniport.config import STOR_ADAPTER_FEATURE_ABORT_COMMAND
from hba.miniport.services import RESET_DETECTED
from hba.port.storport.units import RESETTING
from hba.srb import (
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_ERROR,
    SRB_STATUS_NO_HBA,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

NAMES = {
    SRB_FUNCTION_ABORT_COMMAND: "abort",
    SRB_FUNCTION_RESET_LOGICAL_UNIT: "unit",
    SRB_FUNCTION_RESET_DEVICE: "target",
}
ALL = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]  # units of the tests of what a step holds


class Patient(Scripted):
    """Takes commands and keeps them. Steps of a recovery are in `steps` as (seconds, name, address); each is answered
    at once with its status in `answers`, or kept."""

    def __init__(self, **overrides: Any) -> None:
        super().__init__(**overrides)
        self.steps: list[tuple[float, str, tuple[int, ...]]] = []
        self.answers: dict[str, int] = {}
        self.asked: dict[str, Srb] = {}
        self.holding: list[list[tuple[int, int, int]]] = []  # at each step: units it holds
        self.rig: Any = None
        self.begin = 0  # ns
        self.start, self.reset = self.start_it, self.reset_it
        self.ends: list[Srb] = []  # commands that the next step ends

    def note(self, name: str, *address: int) -> None:
        self.steps.append(((self.rig.clock.now() - self.begin) / S, name, address))
        units = self.rig.port.units.values()
        self.holding.append([(unit.path, unit.target, unit.lun) for unit in units if unit.gates & RESETTING])
        for srb in self.ends:
            self.complete(srb, SRB_STATUS_BUS_RESET)
        self.ends.clear()

    def start_it(self, srb: Srb) -> bool:
        name = NAMES.get(srb.function)
        if name is not None:
            self.asked[name] = srb
            self.note(name, srb.path_id, srb.target_id, *([] if name == "target" else [srb.lun]))
            if name in self.answers:
                self.complete(srb, self.answers[name])
        return True

    def reset_it(self, path: int) -> bool:
        self.note("bus", path)
        return self.answers.get("bus", SRB_STATUS_SUCCESS) == SRB_STATUS_SUCCESS

    def names(self) -> list[str]:
        return [name for _, name, _ in self.steps]


@pytest.fixture
def patient(make_rig: MakeRig) -> Callable[..., tuple[Rig, Patient]]:
    """Requests time out after 2 s, steps after 10 s."""

    def make(overrides: dict[str, Any] | None = None, **options: Any) -> tuple[Rig, Patient]:
        miniport = Patient(**(overrides or {}))
        rig = make_rig(miniport, start=False, **{"default_timeout": 2, "reset_timeout": 10, **options})
        miniport.rig = rig
        rig.port.start()
        miniport.begin = rig.clock.now()
        return rig, miniport

    return make


MakePatient = Callable[..., tuple[Rig, Patient]]


def recoveries(rig: Rig) -> int:
    adapter = rig.port.snapshot()["adapter"]
    assert isinstance(adapter, dict)
    return int(adapter["recoveries"])


def traced(rig: Rig) -> list[tuple[str, object]]:
    assert rig.recorder is not None
    return [(event.kind, event.detail) for event in rig.recorder.events if event.kind in ("timeout", "recovery")]


def begin(rig: Rig, lun: int = 1, **named: Any) -> Srb:
    """A request that times out at 2 s, and other units."""
    for path, target, other in ALL:
        if path < rig.port.info.number_of_buses:
            unit = rig.port.unit_at(path, target, other)
            unit.gates = 0
    srb = rig.submit(lun=lun, **named)
    rig.advance(2 * S)
    return srb


def test_RS_01_each_step_has_its_address_its_time_and_what_it_holds(patient: MakePatient) -> None:
    rig, miniport = patient({"number_of_buses": 2}, trace=True)
    srb = begin(rig)
    assert recoveries(rig) == 1
    rig.advance(10 * S - 1)
    assert miniport.names() == ["unit"]
    rig.advance(1)
    rig.advance(10 * S - 1)
    assert miniport.names() == ["unit", "target"]
    assert rig.done == [] and len(rig.unit(0, 0).active) == 1  # a target's reset counts for its first unit
    rig.advance(1)
    assert miniport.steps == [(2, "unit", (0, 0, 1)), (12, "target", (0, 0)), (22, "bus", (0,))]
    assert miniport.holding == [ALL[1:2], ALL[:2], ALL[:3]]
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_BUS_RESET  # lost, and taken back
    assert recoveries(rig) == 0
    assert traced(rig) == [
        ("timeout", "2 s"),
        ("recovery", "RESET_LOGICAL_UNIT"),
        ("recovery", "RESET_DEVICE"),
        ("recovery", "HwStorResetBus"),
        ("recovery", "done"),
    ]
    assert rig.messages("ER-09") == ["no completion within 2 s"]
    assert rig.messages("RS-01") == [
        f"{name} was not completed in time" for name in ("RESET_LOGICAL_UNIT", "RESET_DEVICE")
    ]
    assert rig.port.counters["time-outs"] == 1 and rig.port.counters["bus resets"] == 1


def test_RS_01_a_bus_reset_that_fails_ends_the_recovery(patient: MakePatient) -> None:
    rig, miniport = patient(trace=True)
    miniport.answers = {"unit": SRB_STATUS_ERROR, "target": SRB_STATUS_ERROR, "bus": SRB_STATUS_ERROR}
    begin(rig)
    assert miniport.names() == ["unit", "target", "bus"] and recoveries(rig) == 0
    assert traced(rig)[-1] == ("recovery", "failed")
    assert rig.messages("RS-03")[0] == "hw_reset_bus(0) returned FALSE: there is nothing left to escalate to"


@pytest.mark.parametrize("seconds", [0, 7])
def test_ER_09_the_time_is_the_requests_own_or_the_default(patient: MakePatient, seconds: int) -> None:
    rig, miniport = patient(trace=True)
    srb = rig.srb()
    srb.time_out_value = seconds
    rig.port.submit(srb)
    rig.advance((seconds or 2) * S - 1)
    assert miniport.names() == []
    rig.advance(1)
    assert rig.messages("ER-09") == [f"no completion within {seconds or 2} s"]
    assert traced(rig)[0] == ("timeout", f"{seconds or 2} s")


def test_RS_01_a_step_that_failed_is_not_waited_for_any_more(patient: MakePatient) -> None:
    """The time of the next one is its own."""
    rig, miniport = patient()
    begin(rig)
    rig.advance(4 * S)
    rig.in_interrupt(lambda: miniport.complete(miniport.asked["unit"], SRB_STATUS_ERROR))
    assert miniport.names() == ["unit", "target"]
    rig.advance(10 * S - 1)
    assert miniport.names() == ["unit", "target"] and rig.found == {"ER-09"}
    rig.advance(1)
    assert miniport.names() == ["unit", "target", "bus"]


@pytest.mark.parametrize("reclaim", [True, False])
def test_RS_01_a_step_that_worked_ends_the_recovery(patient: MakePatient, reclaim: bool) -> None:
    """Also where it left something, which is found (RS-02): it has its whole time again."""
    rig, miniport = patient(reclaim_lost=reclaim, trace=True)
    srb = begin(rig)
    rig.advance(S)
    rig.in_interrupt(lambda: miniport.complete(miniport.asked["unit"]))
    assert recoveries(rig) == 0 and traced(rig)[-1] == ("recovery", "done")
    assert rig.messages("RS-02") == ["still outstanding on 0:0:1 when its reset had completed"]
    assert rig.port.counters["requests lost at a reset"] == 1
    assert rig.done == ([srb] if reclaim else [])
    assert miniport.names() == ["unit"]
    rig.advance(2 * S)
    assert miniport.names() == ["unit"] * (1 if reclaim else 2)
    if reclaim:
        rig.advance(S)
        assert rig.clock.next_deadline() is None  # nothing is waited for


def test_ER_09_what_another_units_reset_left_over_has_its_whole_time_again(patient: MakePatient) -> None:
    """The reset of a target is a request for its unit 0; unit 1 has been waiting since before."""
    rig, miniport = patient(reclaim_lost=False)
    miniport.answers = {"unit": SRB_STATUS_ERROR}
    begin(rig)
    assert miniport.names() == ["unit", "target"]
    rig.advance(5 * S)
    rig.in_interrupt(lambda: miniport.complete(miniport.asked["target"]))
    assert recoveries(rig) == 0
    rig.advance(2 * S - 1)
    assert miniport.names() == ["unit", "target"]
    rig.advance(1)
    assert miniport.names() == ["unit", "target"] * 2


def test_RS_01_units_of_a_target_that_is_reset_have_one_recovery(patient: MakePatient) -> None:
    rig, miniport = patient(reclaim_lost=False)
    miniport.answers = {"unit": SRB_STATUS_ERROR}
    other = rig.srb(lun=0)
    other.time_out_value = 4
    rig.port.submit(other)
    begin(rig)
    rig.advance(5 * S)  # the other one's time is over, too
    assert miniport.names() == ["unit", "target"] and recoveries(rig) == 1
    assert rig.port.counters["time-outs"] == 1
    miniport.answers = {"unit": SRB_STATUS_SUCCESS}
    rig.in_interrupt(lambda: miniport.complete(miniport.asked["target"]))
    rig.advance(2 * S - 1)
    assert rig.port.counters["time-outs"] == 1
    for _ in range(3):
        rig.advance(S)
    # Each again, when it has had its time.
    assert [address for _, _, address in miniport.steps[2:]] == [(0, 0, 1), (0, 0, 0), (0, 0, 1)]


def test_RS_01_units_of_another_target_have_their_own(patient: MakePatient) -> None:
    rig, miniport = patient()
    rig.submit(target=1)
    begin(rig)
    assert [(name, address) for _, name, address in miniport.steps] == [("unit", (0, 1, 0)), ("unit", (0, 0, 1))]
    assert recoveries(rig) == 2


def test_RS_01_a_reset_of_the_adapter_ends_a_recovery(patient: MakePatient) -> None:
    rig, miniport = patient()
    srb = begin(rig)
    rig.port.reset_adapter()
    assert rig.done == [srb] and recoveries(rig) == 0
    assert miniport.names() == ["unit", "bus"]  # that of the adapter's own reset
    assert rig.clock.next_deadline() == rig.clock.now() + S  # the tick, which ends itself
    rig.advance(S)
    assert rig.clock.next_deadline() is None
    rig.advance(60 * S)
    assert miniport.names() == ["unit", "bus"] and "RS-01" not in rig.found
    rig.complete(rig.submit(lun=1))
    assert len(rig.done) == 2


def test_RS_01_a_reset_of_the_adapter_before_the_first_step(patient: MakePatient) -> None:
    """Whoever is told of an end aborts another request and then resets the adapter: that recovery takes no step."""
    rig, miniport = patient()
    victim = rig.submit(lun=1)
    abort = rig.srb(function=SRB_FUNCTION_ABORT_COMMAND, lun=1)
    abort.next_srb = victim

    def ended(srb: Srb) -> None:
        rig.port.submit(abort)
        assert recoveries(rig) == 1 and miniport.names() == []
        rig.port.reset_adapter()

    first = rig.srb()
    first.completion = ended
    rig.port.submit(first)
    rig.complete(first)
    assert miniport.names() == ["bus"]
    assert {srb.srb_status for srb in (victim, abort)} == {SRB_STATUS_BUS_RESET}
    assert sorted(map(id, rig.done)) == sorted(map(id, (victim, abort)))


@pytest.mark.parametrize("function", [SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE])
def test_RS_02_a_reset_of_the_adapter_ends_what_a_reset_holds(rig: Rig, function: int) -> None:
    """Units of the target that are addressed for the first time afterwards wait for nothing."""
    rig.submit(function=function)
    rig.port.reset_adapter()
    rig.scripted.started.clear()
    srbs = [rig.submit(lun=lun) for lun in range(3)]
    assert [rig.started(srb) for srb in srbs] == [True] * 3


@pytest.mark.parametrize("first", ["unit", "target"])
def test_RS_02_a_unit_that_two_resets_hold_waits_for_both(patient: MakePatient, first: str) -> None:
    rig, miniport = patient()
    rig.submit(function=SRB_FUNCTION_RESET_LOGICAL_UNIT, lun=1)
    rig.submit(function=SRB_FUNCTION_RESET_DEVICE)
    held, beside = rig.submit(lun=1), rig.submit(lun=2)
    rig.in_interrupt(lambda: miniport.complete(miniport.asked[first]))
    assert [rig.started(held), rig.started(beside)] == [False, first == "target"]
    other = {"unit": "target", "target": "unit"}[first]
    rig.in_interrupt(lambda: miniport.complete(miniport.asked[other]))
    assert [rig.started(held), rig.started(beside)] == [True, True]


@pytest.mark.parametrize(
    ("status", "active", "reclaim", "order"),
    [
        (SRB_STATUS_SUCCESS, False, True, "reset, other"),
        (SRB_STATUS_ERROR, False, True, "reset, other"),
        (SRB_STATUS_ERROR, True, True, "reset, other"),
        (SRB_STATUS_SUCCESS, True, False, "reset, other"),
        (SRB_STATUS_SUCCESS, True, True, "other, active, reset"),  # never before what it should have ended
    ],
)
def test_RS_02_a_reset_goes_up_behind_what_is_taken_back_and_else_in_its_turn(
    patient: MakePatient, status: int, active: bool, reclaim: bool, order: str
) -> None:
    rig, miniport = patient(reclaim_lost=reclaim)
    names: dict[int, str] = {}
    if active:
        names[id(rig.submit(lun=1))] = "active"
    other = rig.submit(target=1)
    reset = rig.submit(function=SRB_FUNCTION_RESET_LOGICAL_UNIT, lun=1)
    names |= {id(other): "other", id(reset): "reset"}
    mine = next(srb for srb in miniport.started if srb.target_id == 1)

    def both() -> None:
        miniport.complete(miniport.asked["unit"], status)
        miniport.complete(mine)

    rig.in_interrupt(both)
    assert ", ".join(names[id(srb)] for srb in rig.done) == order
    assert rig.port.counters.get("requests lost at a reset", 0) == (active and status == SRB_STATUS_SUCCESS)


def test_RS_03_what_is_queued_ends_with_a_bus_reset_from_above_on_its_path_only(patient: MakePatient) -> None:
    rig, _ = patient({"number_of_buses": 2}, initial_lun_queue_depth=1)
    srbs = []
    for path in (0, 1):
        for _ in range(2):
            srb = rig.srb()
            srb.path_id = path
            rig.port.submit(srb)
            srbs.append(srb)
    reset = rig.srb(function=SRB_FUNCTION_RESET_BUS)
    reset.path_id = 1
    rig.port.submit(reset)
    assert set(map(id, rig.done)) == set(map(id, (*srbs[2:], reset)))
    assert [srb.srb_status for srb in (*srbs[2:], reset)] == [SRB_STATUS_BUS_RESET] * 2 + [SRB_STATUS_SUCCESS]


def test_RS_03_a_bus_reset_from_above_that_fails(patient: MakePatient) -> None:
    rig, miniport = patient()
    miniport.answers = {"bus": SRB_STATUS_ERROR}
    assert rig.submit(function=SRB_FUNCTION_RESET_BUS).srb_status == SRB_STATUS_ERROR
    miniport.reset = lambda path: bool(1 // 0)
    assert rig.submit(function=SRB_FUNCTION_RESET_BUS).srb_status == SRB_STATUS_ERROR
    assert rig.port.counters["bus resets"] == 2 and len(rig.messages("RS-03")) >= 1


def test_RS_03_the_adapter_is_held_in_hw_reset_bus(rig: Rig) -> None:
    seen: list[object] = []

    def reset(path: int) -> bool:
        adapter = rig.port.snapshot()["adapter"]
        assert isinstance(adapter, dict)
        seen.append(adapter["held_by"])
        return True

    rig.scripted.reset = reset
    rig.port.reset_bus(0)
    adapter = rig.port.snapshot()["adapter"]
    assert isinstance(adapter, dict)
    assert (seen, adapter["held_by"]) == ([["being reset"]], ["held after a bus reset"])


@pytest.mark.parametrize(
    ("option", "member", "hold"), [(None, 1_000_000, 1_000_000), (5, 1_000_000, 5), (0, 1_000_000, 0), (None, 0, 0)]
)
def test_RS_03_the_hold_time_is_the_options_or_the_miniports(
    make_rig: MakeRig, option: int | None, member: int, hold: int
) -> None:
    rig = make_rig(Scripted(bus_reset_hold_time=member), bus_reset_hold_time=option)
    rig.inquire()
    lost = rig.submit()
    rig.in_interrupt(lambda: rig.scripted.port.notification(RESET_DETECTED, 0))
    srb = rig.submit()
    if hold:
        rig.advance(hold * 1000 - 1)
        assert not rig.started(srb)
        assert lost not in rig.done
        rig.advance(1)
    assert rig.started(srb) and lost in rig.done


def test_ER_14_another_reset_that_is_detected_holds_anew(rig: Rig) -> None:
    rig.inquire()
    for _ in range(2):
        rig.in_interrupt(lambda: rig.scripted.port.notification(RESET_DETECTED, 0))
        rig.advance(S // 2)
    srb = rig.submit()
    rig.advance(S // 2 - 1)
    assert not rig.started(srb)
    rig.advance(1)
    assert rig.started(srb)


def test_ER_14_what_a_reset_lost_is_found_once(make_rig: MakeRig) -> None:
    """Even where it is not taken back."""
    rig = make_rig(reclaim_lost=False)
    rig.inquire()
    lost = rig.submit()
    rig.in_interrupt(lambda: rig.scripted.port.notification(RESET_DETECTED, 0))
    rig.advance(S)
    assert rig.port.counters["requests lost at a reset"] == 1
    rig.complete(rig.submit())
    rig.port.resets.hold()
    rig.advance(S)
    assert rig.port.counters["requests lost at a reset"] == 1 and lost not in rig.done


@pytest.mark.parametrize("path", [0, 1])
def test_ER_14_a_reset_of_one_bus_is_about_what_is_on_it(make_rig: MakeRig, path: int) -> None:
    rig = make_rig(Scripted(number_of_buses=2))
    rig.inquire()
    srb = rig.submit()
    rig.in_interrupt(lambda: rig.scripted.port.notification(RESET_DETECTED, path))
    rig.advance(S)
    assert (srb in rig.done) is (path == 0)


@pytest.mark.parametrize("ends", [True, False])
def test_RS_01_an_abort_that_ended_nothing_has_failed(patient: MakePatient, ends: bool) -> None:
    """It says SUCCESS, but its victim is still there: the ladder goes on."""
    rig, miniport = patient({"feature_support": STOR_ADAPTER_FEATURE_ABORT_COMMAND}, trace=True)
    srb = rig.submit()
    if ends:
        miniport.ends = list(miniport.started)
    miniport.answers = {"abort": SRB_STATUS_SUCCESS, "unit": SRB_STATUS_SUCCESS}
    rig.advance(2 * S)
    assert miniport.names() == (["abort"] if ends else ["abort", "unit"])
    assert rig.done == [srb] and recoveries(rig) == 0
    assert [detail for _, detail in traced(rig)][1:] == (
        ["ABORT_COMMAND", "done"] if ends else ["ABORT_COMMAND", "RESET_LOGICAL_UNIT", "done"]
    )


@pytest.mark.parametrize("feature", [0, STOR_ADAPTER_FEATURE_ABORT_COMMAND])
@pytest.mark.parametrize("first", [True, False])
def test_RS_01_the_abort_goes_first_where_it_may(patient: MakePatient, feature: int, first: bool) -> None:
    rig, miniport = patient({"feature_support": feature}, abort_first=first)
    begin(rig)
    assert miniport.names() == ["abort" if feature and first else "unit"]


def test_RS_01_the_abort_names_its_victim_and_has_its_time(patient: MakePatient) -> None:
    rig, miniport = patient({"feature_support": STOR_ADAPTER_FEATURE_ABORT_COMMAND}, reset_timeout=3)
    begin(rig)
    abort = miniport.asked["abort"]
    assert abort.next_srb is miniport.started[0] and abort.time_out_value == 3
    assert (abort.path_id, abort.target_id, abort.lun) == (0, 0, 1)
    rig.advance(3 * S)
    assert miniport.names() == ["abort", "unit"]
    assert rig.messages("RS-01") == ["ABORT_COMMAND was not completed in time"]


def test_RS_02_a_reset_that_ends_too_late_is_about_nothing_newer(patient: MakePatient) -> None:
    """Also while another reset is at work somewhere."""
    rig, miniport = patient()
    miniport.answers = {"target": SRB_STATUS_SUCCESS}
    begin(rig)
    rig.advance(10 * S)
    assert miniport.names() == ["unit", "target"] and recoveries(rig) == 0
    newer = rig.submit(lun=1)
    lost, late = rig.port.counters["requests lost at a reset"], miniport.asked["unit"]
    rig.submit(function=SRB_FUNCTION_RESET_LOGICAL_UNIT, target=1)
    rig.in_interrupt(lambda: miniport.complete(late))
    assert newer not in rig.done and rig.port.counters["requests lost at a reset"] == lost
    assert miniport.names() == ["unit", "target", "unit"] and recoveries(rig) == 0


# -- aborts from above -----------------------------------------------------------------------------------------------


def abort_of(rig: Rig, victim: Srb | None, lun: int = 1) -> Srb:
    abort = rig.srb(function=SRB_FUNCTION_ABORT_COMMAND, lun=lun)
    abort.next_srb = victim
    rig.port.submit(abort)
    return abort


CAN_ABORT = {"feature_support": STOR_ADAPTER_FEATURE_ABORT_COMMAND}


@pytest.mark.parametrize("overrides", [{}, CAN_ABORT])
def test_ST_14_there_is_nothing_to_abort(patient: MakePatient, overrides: dict[str, Any]) -> None:
    """No victim, one that was never submitted, one that has ended, one that is on its way up."""
    rig, miniport = patient(overrides)
    ended = rig.submit(lun=1)
    rig.complete(ended)
    mine: list[Srb] = []

    latched = rig.srb(lun=1)
    rig.port.submit(latched)

    def isr() -> None:
        miniport.complete(miniport.started[0])
        mine.append(abort_of(rig, latched))

    rig.in_interrupt(isr)
    failed = [abort_of(rig, victim) for victim in (None, rig.srb(), ended)] + mine
    assert [abort.srb_status for abort in failed] == [SRB_STATUS_ABORT_FAILED] * 4
    assert latched.srb_status == SRB_STATUS_SUCCESS and miniport.names() == []
    assert recoveries(rig) == 0


@pytest.mark.parametrize("overrides", [{}, CAN_ABORT])
def test_ST_14_what_waits_here_is_aborted_here(patient: MakePatient, overrides: dict[str, Any]) -> None:
    rig, miniport = patient(overrides, initial_lun_queue_depth=1)
    first, second, third = (rig.submit(lun=1) for _ in range(3))
    abort = abort_of(rig, second)
    assert rig.done == [second, abort]
    assert (second.srb_status, abort.srb_status) == (SRB_STATUS_ABORTED, SRB_STATUS_SUCCESS)
    rig.complete(first)
    rig.complete(third)
    assert rig.done == [second, abort, first, third] and miniport.names() == []


@pytest.mark.parametrize("overrides", [{}, CAN_ABORT])
def test_ST_14_what_was_only_built_is_aborted_here(patient: MakePatient, overrides: dict[str, Any]) -> None:
    rig, miniport = patient(overrides)
    miniport.build = lambda srb: miniport.port.pause_device(0, 0, 1, 60)
    victim = rig.submit(lun=1)
    miniport.build = None
    abort = abort_of(rig, victim)
    assert rig.done == [victim, abort]
    assert (victim.srb_status, abort.srb_status) == (SRB_STATUS_ABORTED, SRB_STATUS_SUCCESS)
    units = rig.port.snapshot()["units"]
    assert isinstance(units, list) and [unit["queued"] for unit in units] == [0]
    miniport.port.resume_device(0, 0, 1)
    assert miniport.started == [] and rig.port.outstanding == 0
    rig.complete(rig.submit(lun=1))


def test_ST_14_an_abort_of_an_abort_that_waits_for_a_recovery(patient: MakePatient) -> None:
    rig, miniport = patient()
    victim = rig.submit(lun=1)
    first = abort_of(rig, victim)
    second = abort_of(rig, first)
    assert rig.done == [second] and second.srb_status == SRB_STATUS_ABORT_FAILED
    miniport.ends = []
    rig.in_interrupt(lambda: (miniport.complete(miniport.started[0]), miniport.complete(miniport.asked["unit"])))
    assert rig.done == [second, victim, first] and first.srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("reclaim", [True, False])
def test_ST_14_an_abort_says_whether_its_victim_has_ended(patient: MakePatient, reclaim: bool) -> None:
    rig, miniport = patient(reclaim_lost=reclaim)
    victim = rig.submit(lun=1)
    abort = abort_of(rig, victim)
    assert miniport.names() == ["unit"] and rig.done == []
    rig.in_interrupt(lambda: miniport.complete(miniport.asked["unit"]))
    assert rig.done == ([victim, abort] if reclaim else [abort])
    assert abort.srb_status == (SRB_STATUS_SUCCESS if reclaim else SRB_STATUS_ABORT_FAILED)


def test_a_stop_ends_a_recovery_and_what_waits_for_it(patient: MakePatient) -> None:
    rig, miniport = patient()
    victim = rig.submit(lun=1)
    abort = abort_of(rig, victim)
    rig.port.stop()
    assert {id(srb): srb.srb_status for srb in rig.done} == dict.fromkeys((id(victim), id(abort)), SRB_STATUS_ABORTED)
    assert miniport.names() == ["unit"] and recoveries(rig) == 0
    assert rig.clock.next_deadline() is None


def test_RS_08_a_surprise_removal_ends_a_recovery(patient: MakePatient) -> None:
    """Its next steps would be for hardware that is gone."""
    rig, miniport = patient()
    victim = rig.submit(lun=1)
    abort = abort_of(rig, victim)
    assert miniport.names() == ["unit"]
    steps: list[object] = []
    rig.port.pnp.surprise_removal(steps.extend)
    rig.advance(60 * S)
    assert miniport.names() == ["unit"] and recoveries(rig) == 0 and "RS-01" not in rig.found
    ended = {id(srb): srb.srb_status for srb in rig.done}
    assert ended == dict.fromkeys((id(victim), id(abort)), SRB_STATUS_NO_HBA)
    assert rig.port.pnp.state == "removed" and steps


def test_RS_02_what_a_reset_held_before_a_stop_is_not_held_after_the_next_start(rig: Rig) -> None:
    rig.submit(function=SRB_FUNCTION_RESET_DEVICE)
    rig.port.stop()
    rig.scripted.started.clear()
    rig.port.start()
    srbs = [rig.submit(lun=lun) for lun in range(2)]
    assert [rig.started(srb) for srb in srbs] == [True, True]
