"""RS: resets, power, stop and restart, control types; ER-09, ER-13, ER-14 under Storport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import S
from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    SCSI_UNIT_POWER,
    SCSI_UNIT_START,
)
from hba.miniport.services import RESET_DETECTED, WMI_EVENT
from hba.srb import (
    SRB_FLAGS_NO_KEEP_AWAKE,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_ERROR,
    SRB_STATUS_NOT_POWERED,
    SRB_STATUS_SUCCESS,
    STOR_POWER_ACTION_SLEEP,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

LEVELS = [None, "report"]
RESETS = {SRB_FUNCTION_RESET_LOGICAL_UNIT: "lun", SRB_FUNCTION_RESET_DEVICE: "target"}


def answer_resets(rig: Rig, lun: int | None, target: int | None, complete_active: bool = True) -> list[str]:
    """The miniport answers reset SRBs with these statuses (None: never); the log gets each in order."""
    log: list[str] = []
    answers = {SRB_FUNCTION_RESET_LOGICAL_UNIT: lun, SRB_FUNCTION_RESET_DEVICE: target}

    def start(srb: Srb) -> bool:
        name = RESETS.get(srb.function)
        if name is None:
            return True
        log.append(name)
        status = answers[srb.function]
        if status is None:
            return True
        if status == SRB_STATUS_SUCCESS and complete_active:
            for other in [other for other in rig.scripted.started if other.function == 0]:
                rig.scripted.complete(other, SRB_STATUS_BUS_RESET)
        rig.scripted.complete(srb, status)
        return True

    def reset(path: int) -> bool:
        log.append("bus")
        for srb in list(rig.scripted.started):
            rig.scripted.complete(srb, SRB_STATUS_BUS_RESET)
        return True

    rig.scripted.start = start
    rig.scripted.reset = reset
    return log


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("lun", "target", "steps"),
    [
        (SRB_STATUS_SUCCESS, SRB_STATUS_SUCCESS, ["lun"]),
        (SRB_STATUS_ERROR, SRB_STATUS_SUCCESS, ["lun", "target"]),
        (SRB_STATUS_ERROR, SRB_STATUS_ERROR, ["lun", "target", "bus"]),
        (None, None, ["lun", "target", "bus"]),
    ],
)
def test_RS_01_the_ladder_climbs_only_on_failure(
    make_rig: MakeRig, level: str | None, lun: int | None, target: int | None, steps: list[str]
) -> None:
    rig = make_rig(level=level, default_timeout=2, reset_timeout=10)
    log = answer_resets(rig, lun, target)
    srb = rig.submit()
    rig.advance(1 * S)
    assert log == []
    rig.advance(2 * S)
    if lun is None:
        assert log == ["lun"]
        rig.advance(10 * S)
        assert log == ["lun", "target"]
        rig.advance(10 * S)
    assert log == steps
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_BUS_RESET
    if level is not None:
        assert rig.found == ({"ER-09", "RS-01"} if lun is None else {"ER-09"})


def test_RS_01_nothing_is_started_on_the_unit_meanwhile(make_rig: MakeRig) -> None:
    rig = make_rig(default_timeout=2)
    log = answer_resets(rig, None, SRB_STATUS_SUCCESS)
    rig.submit()
    rig.advance(2 * S)
    assert log == ["lun"]
    held = rig.submit()
    other = rig.submit(target=1)
    assert [srb.target_id for srb in rig.scripted.started if srb.function == 0] == [0, 1]
    rig.complete(other)
    rig.advance(10 * S)
    assert log == ["lun", "target"]
    rig.finish_all()
    assert held in rig.done


def test_RS_01_abort_goes_first_where_the_miniport_can(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(feature_support=0x10), default_timeout=1)

    def start(srb: Srb) -> bool:
        if srb.function == 0x10:
            rig.scripted.complete(srb.next_srb, SRB_STATUS_ABORTED)  # type: ignore[arg-type]
            rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    srb = rig.submit()
    rig.advance(2 * S)
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_ABORTED
    assert rig.found == {"ER-09"}


@pytest.mark.parametrize("level", LEVELS)
def test_RS_02_a_reset_that_ends_too_late_has_no_say_about_newer_requests(make_rig: MakeRig, level: str | None) -> None:
    """The port went on to the target when the unit's reset was not completed in time, and started new requests."""
    rig = make_rig(level=level, default_timeout=2, reset_timeout=10)
    log = answer_resets(rig, None, SRB_STATUS_SUCCESS)
    rig.submit()
    rig.advance(3 * S)
    late = rig.scripted.started[-1]
    rig.advance(10 * S)
    assert log == ["lun", "target"]
    newer = rig.submit()
    assert rig.started(newer)
    rig.scripted.complete(late)
    rig.advance(0)
    assert newer not in rig.done
    rig.complete(newer)
    assert newer.srb_status == SRB_STATUS_SUCCESS
    if level is not None:
        assert "RS-02" not in rig.found


@pytest.mark.parametrize("function", [SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE])
@pytest.mark.parametrize("level", LEVELS)
def test_RS_02_a_reset_from_above_ends_its_scope(make_rig: MakeRig, function: int, level: str | None) -> None:
    rig = make_rig(level=level, initial_lun_queue_depth=1)
    rig.inquire(lun=0)
    rig.inquire(target=1)
    answer_resets(rig, SRB_STATUS_SUCCESS, SRB_STATUS_SUCCESS)
    active, queued = rig.submit(), rig.submit()
    reset = rig.submit(function=function)
    assert [srb.srb_status for srb in (active, queued, reset)] == [SRB_STATUS_BUS_RESET] * 2 + [SRB_STATUS_SUCCESS]
    assert set(map(id, rig.done)) == set(map(id, (active, queued, reset)))
    assert rig.done[-1] is reset


@pytest.mark.parametrize("level", LEVELS)
def test_RS_02_a_unit_first_addressed_during_its_target_reset_waits_for_it(
    make_rig: MakeRig, level: str | None
) -> None:
    rig = make_rig(level=level)
    rig.inquire(lun=0)
    reset = rig.submit(function=SRB_FUNCTION_RESET_DEVICE)
    srb, elsewhere = rig.submit(lun=1), rig.submit(target=1)
    assert [rig.started(one) for one in (reset, srb, elsewhere)] == [True, False, True]
    rig.complete(reset)
    assert rig.started(srb)
    rig.complete(srb)
    rig.complete(elsewhere)
    assert [one.srb_status for one in (reset, srb, elsewhere)] == [SRB_STATUS_SUCCESS] * 3
    if level is not None:
        assert not rig.found


def test_RS_02_what_is_left_is_found_and_taken_back(rig: Rig) -> None:
    rig.inquire()
    answer_resets(rig, SRB_STATUS_SUCCESS, SRB_STATUS_SUCCESS, complete_active=False)
    active = rig.submit()
    rig.submit(function=SRB_FUNCTION_RESET_LOGICAL_UNIT)
    assert rig.found == {"RS-02"}
    assert active in rig.done and active.srb_status == SRB_STATUS_BUS_RESET


@pytest.mark.parametrize("level", LEVELS)
def test_RS_03_bus_reset_with_everything_held_and_its_hold_time(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    active = rig.submit()
    during: list[int] = []

    def reset(path: int) -> bool:
        during.append(rig.port.irql)
        for srb in list(rig.scripted.started):
            rig.scripted.complete(srb, SRB_STATUS_BUS_RESET)
        return True

    rig.scripted.reset = reset
    bus = rig.submit(function=SRB_FUNCTION_RESET_BUS)
    assert during == [2]
    assert rig.done == [active, bus]
    after = rig.submit()
    assert rig.scripted.started == []
    rig.advance(1 * S - 1)
    assert rig.scripted.started == []
    rig.advance(1)
    assert len(rig.scripted.started) == 1
    rig.complete(after)


@pytest.mark.parametrize("reclaim", [True, False])
def test_RS_03_leftovers_and_failure(make_rig: MakeRig, reclaim: bool) -> None:
    rig = make_rig(reclaim_lost=reclaim)
    active = rig.submit()
    rig.scripted.reset = lambda path: False
    rig.submit(function=SRB_FUNCTION_RESET_BUS)
    assert rig.found == {"RS-03"} and len(rig.messages("RS-03")) == 2
    assert (active in rig.done) is reclaim


def built_and_held(rig: Rig) -> Srb:
    rig.scripted.build = lambda srb: rig.scripted.port.pause(60)
    srb = rig.submit()
    rig.scripted.build = None
    return srb


def test_RS_04_what_was_only_built_survives_the_bus_reset(make_rig: MakeRig) -> None:
    rig = make_rig(default_timeout=2)
    rig.inquire()
    srb = built_and_held(rig)
    assert rig.scripted.names() == ["build"]
    rig.port.reset_bus(0)
    assert rig.done == []
    rig.advance(60 * S)
    assert "RS-03" not in rig.found
    assert rig.scripted.names().count("start") == 1
    del srb


def test_RS_04_completing_it_in_reset_bus_is_found(rig: Rig) -> None:
    rig.inquire()
    built_and_held(rig)
    built = rig.scripted.calls[-1][1]

    def reset(path: int) -> bool:
        rig.scripted.complete(built, SRB_STATUS_BUS_RESET)
        return True

    rig.scripted.reset = reset
    rig.submit(function=SRB_FUNCTION_RESET_BUS)
    assert rig.found == {"RS-04"}


def controls(*types: int) -> Callable[[int, Any], int]:
    def control(control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            for supported in types:
                parameters[supported] = True
        return 0

    return control


ALL_CONTROLS = (SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER, SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG)


def test_RS_05_only_declared_types_are_called(make_rig: MakeRig) -> None:
    miniport = Scripted()
    miniport.control = controls(SCSI_STOP_ADAPTER)
    rig = make_rig(miniport)
    rig.port.stop()
    called = [call[1] for call in miniport.calls if call[0] == "control"]
    assert called == [SCSI_QUERY_SUPPORTED_CONTROL_TYPES, SCSI_STOP_ADAPTER]


@pytest.mark.parametrize("which", ["control", "unit_control"])
def test_RS_05_writing_beyond_the_list_is_contained_and_found(make_rig: MakeRig, which: str) -> None:
    miniport = Scripted()
    setattr(miniport, which, controls(SCSI_STOP_ADAPTER, 40))
    rig = make_rig(miniport)
    assert rig.found == {"RS-05"}


@pytest.mark.parametrize("level", LEVELS)
def test_RS_06_stop_with_nothing_outstanding_after_a_flush(make_rig: MakeRig, level: str | None) -> None:
    miniport = Scripted(caches_data=True)
    miniport.control = controls(*ALL_CONTROLS)
    rig = make_rig(miniport, level=level)
    rig.inquire()
    srb = rig.submit()

    def start(other: Srb) -> bool:
        rig.scripted.complete(other)
        return True

    miniport.start = start
    outstanding: list[int] = []

    def control(control_type: int, parameters: Any) -> int:
        outstanding.append(rig.port.outstanding)
        return 0

    miniport.control = control
    rig.port.stop()
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_ABORTED
    flushes = [call for call in miniport.calls if call[0] == "start" and call[1].function == SRB_FUNCTION_FLUSH]
    assert len(flushes) == 1
    names = [(call[0], call[1]) for call in miniport.calls if call[0] in ("start", "control")]
    assert names.index(("start", flushes[0][1])) < names.index(("control", SCSI_STOP_ADAPTER))
    assert outstanding == [0, 0]


def sleep_and_resume(rig: Rig) -> list[str]:
    """The adapter goes to D3 and back to D0; the steps."""
    steps: list[str] = []
    rig.port.pnp.sleep(STOR_POWER_ACTION_SLEEP, lambda taken: steps.extend(step.what for step in taken))
    rig.turn()
    rig.port.pnp.resume(lambda taken: steps.extend(step.what for step in taken))
    rig.turn()
    return steps


def answering_power(miniport: Scripted) -> Scripted:
    def start(srb: Srb) -> bool:
        if srb.function == SRB_FUNCTION_POWER:
            miniport.complete(srb)
        return True

    miniport.start = start
    return miniport


def test_RS_06_an_interrupt_after_the_stop_is_found(rig: Rig) -> None:
    rig.port.pnp.stop(lambda steps: None)
    rig.chip.raise_interrupt()
    rig.port.run()
    assert rig.found == {"RS-06"}
    assert ("interrupt",) not in rig.scripted.calls


def test_RS_06_restart_by_control_or_from_the_start(make_rig: MakeRig) -> None:
    miniport = answering_power(Scripted())
    miniport.control = controls(*ALL_CONTROLS)
    rig = make_rig(miniport)
    sleep_and_resume(rig)
    assert miniport.calls.count(("initialize",)) == 1
    rig.complete(rig.submit())
    plain = make_rig(answering_power(Scripted()))
    sleep_and_resume(plain)
    assert plain.scripted.calls.count(("initialize",)) == 2
    plain.complete(plain.submit())
    assert len(plain.done) == 1


def test_RS_07_boot_config_after_stop_running_config_before_restart(make_rig: MakeRig) -> None:
    miniport = answering_power(Scripted())
    miniport.control = controls(*ALL_CONTROLS)
    rig = make_rig(miniport)
    sleep_and_resume(rig)
    called = [call[1] for call in miniport.calls if call[0] == "control"][1:]
    assert called == [SCSI_STOP_ADAPTER, SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG, SCSI_RESTART_ADAPTER]


def test_RS_08_unit_control_for_declared_types(make_rig: MakeRig) -> None:
    miniport = Scripted()
    seen: list[tuple[int, Any]] = []

    def unit_control(control_type: int, parameters: Any) -> int:
        if control_type == 0:
            parameters[SCSI_UNIT_POWER] = True
        else:
            seen.append((control_type, parameters))
        return 0

    miniport.unit_control = unit_control
    rig = make_rig(miniport)
    rig.inquire()
    power = rig.srb(function=SRB_FUNCTION_POWER)
    power.device_power_state = STOR_POWER_DEVICE_D3
    rig.port.submit(power)
    assert power.srb_status == SRB_STATUS_SUCCESS
    assert seen == [(SCSI_UNIT_POWER, (0, 0, 0, STOR_POWER_DEVICE_D3))]
    assert rig.scripted.names() == []  # no POWER SRB, and ScsiUnitStart was not declared
    assert SCSI_UNIT_START not in [control_type for control_type, _ in seen]


def powered_down(rig: Rig) -> None:
    def start(srb: Srb) -> bool:
        if srb.function == SRB_FUNCTION_POWER:
            rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    power = rig.srb(function=SRB_FUNCTION_POWER)
    power.device_power_state = STOR_POWER_DEVICE_D3
    rig.port.submit(power)
    rig.done.clear()
    rig.scripted.calls.clear()


@pytest.mark.parametrize("level", LEVELS)
def test_RS_09_no_keep_awake_to_a_powered_down_unit(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    powered_down(rig)
    srb = rig.submit(flags=SRB_FLAGS_NO_KEEP_AWAKE)
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_NOT_POWERED
    assert rig.scripted.names() == []
    rig.submit()
    functions = [call[1].function for call in rig.scripted.calls if call[0] == "start"]
    assert functions == [SRB_FUNCTION_POWER, 0]
    assert STOR_POWER_DEVICE_D0 == 1 and rig.unit().powered


def test_RS_10_long_wmi_events_are_dropped(rig: Rig) -> None:
    rig.in_interrupt(lambda: rig.scripted.port.notification(WMI_EVENT, bytes(128)))
    assert rig.found == set() and rig.port.counters["WMI events"] == 1
    rig.in_interrupt(lambda: rig.scripted.port.notification(WMI_EVENT, bytes(129)))
    assert rig.found == {"RS-10"} and rig.port.counters["WMI events"] == 1


def test_ER_14_reset_detected_starts_the_hold_and_the_miniport_completes(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.inquire()
    good, lost = rig.submit(), rig.submit()
    rig.in_interrupt(lambda: rig.scripted.port.notification(RESET_DETECTED, 0))
    held = rig.submit()
    assert len(rig.scripted.started) == 2
    rig.complete(good, SRB_STATUS_BUS_RESET)
    rig.advance(1 * S)
    assert rig.found == {"ER-14"}
    assert rig.done == [good, lost]
    assert len(rig.scripted.started) == 2  # the lost one, which the miniport still thinks it has, and the held one
    del held


@pytest.mark.parametrize("level", LEVELS)
def test_the_guests_adapter_reset_ends_everything_at_once(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level, initial_lun_queue_depth=2)
    rig.inquire()
    srbs = [rig.submit() for _ in range(5)]
    rig.scripted.port.pause(100)
    rig.port.reset_adapter()
    assert sorted(map(id, rig.done)) == sorted(map(id, srbs))
    assert {srb.srb_status for srb in srbs} == {SRB_STATUS_BUS_RESET}
    assert rig.scripted.calls.count(("initialize",)) == 1
    rig.done.clear()
    after = rig.submit()
    rig.complete(after)
    assert rig.done == [after]


def test_the_guests_adapter_reset_in_the_middle_of_a_recovery(make_rig: MakeRig) -> None:
    rig = make_rig(default_timeout=1)
    answer_resets(rig, None, None)
    srb = rig.submit()
    rig.advance(2 * S)
    rig.port.reset_adapter()
    assert rig.done == [srb]
    rig.advance(60 * S)
    after = rig.submit()
    rig.complete(after)
    assert rig.done == [srb, after]


def test_RS_01_a_recovery_that_an_adapter_reset_ended_is_in_nobodys_way(make_rig: MakeRig) -> None:
    rig = make_rig(default_timeout=2, reset_timeout=10)
    log = answer_resets(rig, None, None)
    rig.submit()
    rig.advance(2 * S)
    assert log == ["lun"]
    rig.port.reset_adapter()
    rig.submit()
    log.clear()
    rig.advance(3 * S)
    assert log == ["lun"]
