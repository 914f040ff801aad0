"""How requests get to the miniport and back: order, turns, locks, limits, what other processors may do beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import MS, S
from hba.miniport.base import SCSI_ADAPTER_POWER, SCSI_QUERY_SUPPORTED_CONTROL_TYPES
from hba.miniport.services import LINK_DOWN, REQUEST_TIMER_CALL
from hba.scsi.task import DATA_IN, Task
from hba.srb import (
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_POWER_FLAGS_ADAPTER_REQUEST,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_SUCCESS,
    STOR_POWER_DEVICE_D3,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

BYPASS = SRB_FLAGS_BYPASS_LOCKED_QUEUE


def started(rig: Rig) -> list[Srb]:
    """What the miniport was told to start and has not completed, as it was submitted, in order."""
    return [srb._port.srb for srb in rig.scripted.started]


def lock(rig: Rig, function: int = SRB_FUNCTION_LOCK_QUEUE, flags: int = BYPASS) -> Srb:
    return rig.submit(function=function, flags=flags)


def unlock(rig: Rig) -> Srb:
    return lock(rig, SRB_FUNCTION_UNLOCK_QUEUE)


# -- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, BYPASS])
def test_what_waits_goes_in_the_order_it_came(rig: Rig, flags: int) -> None:
    """The flag that passes a lock passes nothing where there is none."""
    rig.inquire()
    rig.scripted.port.pause(1)
    srbs = [rig.submit(flags=each) for each in (0, flags, 0)]
    rig.scripted.port.resume()
    assert started(rig) == srbs


def test_Q_11_what_waits_behind_a_lock_goes_in_order_and_what_passes_it_first(rig: Rig) -> None:
    rig.inquire()
    lock(rig)
    first, second = rig.submit(), rig.submit()
    rig.scripted.port.pause_device(0, 0, 0, 1)
    passing = rig.submit(flags=BYPASS)  # the lock, but not the pause
    assert started(rig) == []
    rig.scripted.port.resume_device(0, 0, 0)
    assert started(rig) == [passing]
    unlock(rig)
    assert started(rig) == [passing, first, second]


def test_Q_11_what_passes_a_lock_passes_it_when_it_was_built_before_a_pause(rig: Rig) -> None:
    """Whoever holds the lock may wait for it before he unlocks."""
    rig.inquire()
    lock(rig)
    rig.scripted.build = lambda srb: rig.scripted.port.pause_device(0, 0, 0, 1)
    passing = rig.submit(flags=BYPASS)
    rig.scripted.build = None
    waiting = rig.submit()
    assert rig.scripted.names() == ["build"]
    rig.scripted.port.resume_device(0, 0, 0)
    assert started(rig) == [passing]
    rig.complete(passing)
    unlock(rig)
    assert started(rig) == [waiting] and rig.found == set()


def test_Q_11_an_unlock_that_waits_behind_its_own_lock_ends_with_the_adapters_reset(rig: Rig) -> None:
    rig.inquire()
    free = rig.submit(function=SRB_FUNCTION_UNLOCK_QUEUE)  # nothing is locked: fine as it is
    assert free.srb_status == SRB_STATUS_SUCCESS and rig.found == set()
    lock(rig)
    waiting = rig.submit(function=SRB_FUNCTION_UNLOCK_QUEUE)
    assert waiting not in rig.done and len(rig.messages("Q-11")) == 1
    rig.port.reset_adapter()
    assert waiting in rig.done and waiting.srb_status == SRB_STATUS_BUS_RESET


@pytest.mark.parametrize("flags", [0, BYPASS])
def test_what_comes_while_a_callback_runs_is_started_after_it(rig: Rig, flags: int) -> None:
    rig.inquire()
    if flags:
        lock(rig)
    inside: list[list[str]] = []

    def isr() -> None:
        for _ in range(2):
            rig.submit(flags=flags)
        inside.append(rig.scripted.names())

    rig.in_interrupt(isr)
    assert inside == [["interrupt"]]
    assert rig.scripted.names() == ["interrupt", "build", "start", "build", "start"]


def test_QD_10_a_link_that_is_lost_holds_nothing_where_requests_are_restarted(rig: Rig) -> None:
    rig.inquire()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    rig.advance(31 * S)
    rig.scripted.port.pause(1)
    srb = rig.submit()
    assert rig.done == []
    rig.scripted.port.resume()
    assert started(rig) == [srb]


def test_QD_07_a_power_request_alone_is_watched_too(make_rig: MakeRig) -> None:
    """No command is outstanding, nor was there ever one, so nothing but the hold itself would be looked at."""
    rig = make_rig(stuck_after=5)
    rig.advance(2 * S)
    rig.scripted.port.pause(1000)
    power = rig.srb(function=SRB_FUNCTION_POWER)
    power.device_power_state = STOR_POWER_DEVICE_D3
    rig.port.submit(power)
    rig.advance(7 * S)
    assert rig.messages("QD-07") == ["LU 0:0:0: 1 requests wait, paused by the miniport (StorPortPause)"]


@pytest.mark.parametrize("flags", [0, BYPASS])
def test_QD_07_a_held_request_alone_is_watched(make_rig: MakeRig, flags: int) -> None:
    rig = make_rig(stuck_after=5)
    rig.inquire()
    rig.advance(2 * S)
    if flags:
        lock(rig)
    rig.scripted.port.pause(1000)
    rig.submit(flags=flags)
    rig.advance(7 * S)
    assert len(rig.messages("Q-11" if flags else "QD-07")) == 1


def test_QD_07_what_was_built_counts_among_what_waits(make_rig: MakeRig) -> None:
    rig = make_rig(stuck_after=5)
    rig.inquire()
    rig.scripted.build = lambda srb: rig.scripted.port.pause(1000)
    rig.submit()
    rig.scripted.build = None
    for _ in range(2):
        rig.submit()
    rig.clock.advance(6 * S)
    assert [message for _, _, message in rig.port.stuck()] == [
        "LU 0:0:0: 3 requests wait, paused by the miniport (StorPortPause)"
    ]


def test_QD_07_a_start_io_that_pauses_holds_the_next(rig: Rig) -> None:
    """Also when it is the start of one that was built long ago."""
    rig.inquire()
    rig.scripted.build = lambda srb: rig.scripted.port.pause(1)
    rig.submit()
    rig.scripted.build = None
    rig.submit()
    rig.scripted.calls.clear()
    rig.scripted.start = lambda srb: rig.scripted.port.pause(1)
    rig.scripted.port.resume()
    assert rig.scripted.names() == ["start"]


# -- turns ------------------------------------------------------------------------------------------------------------


def test_QD_03_places_that_become_free_together_go_round(make_rig: MakeRig) -> None:
    """Each unit that waits gets one, not the first one all."""
    rig = make_rig(max_number_of_io=4)
    for lun in range(3):
        rig.inquire(lun=lun)
    for _ in range(4):
        rig.submit(lun=0)
    srbs = {(lun, number): rig.submit(lun=lun) for lun in (1, 2) for number in range(4)}
    for first in (0, 2):
        rig.finish_all()
        assert started(rig) == [srbs[lun, number] for number in (first, first + 1) for lun in (1, 2)]


def test_QD_03_a_unit_without_requests_has_no_turn(make_rig: MakeRig) -> None:
    """What it asks for later is behind what others have asked for meanwhile."""
    rig = make_rig(max_number_of_io=1)
    for lun in range(3):
        rig.inquire(lun=lun)
    first, second = rig.submit(lun=0), rig.submit(lun=1)
    rig.complete(first)
    assert started(rig) == [second]
    third, fourth = rig.submit(lun=2), rig.submit(lun=0)
    rig.complete(second)
    assert started(rig) == [third]
    rig.complete(third)
    assert started(rig) == [fourth]


@pytest.mark.parametrize("why", ["paused", "old", "depth"])
def test_QD_03_a_place_that_the_unit_whose_turn_it_is_may_not_take(make_rig: MakeRig, why: str) -> None:
    """It stays free, and the unit gets it when it may."""
    rig = make_rig(max_number_of_io=2, io_latency_cap=100)
    rig.inquire(lun=0)
    rig.inquire(lun=1)
    first, second = rig.submit(lun=0), rig.submit(lun=0 if why != "depth" else 1)
    waiting = rig.submit(lun=1)
    if why == "paused":
        rig.scripted.port.pause_device(0, 0, 1, 10)
    elif why == "depth":
        rig.scripted.port.set_device_queue_depth(0, 0, 1, 1)
    else:
        rig.clock.advance(101 * MS)
    rig.complete(first)
    assert started(rig) == [second]
    if why == "paused":
        rig.scripted.port.resume_device(0, 0, 1)
        assert started(rig) == [second, waiting]
    else:
        rig.complete(second)
        assert started(rig) == [waiting]


@pytest.mark.parametrize(("age", "held"), [(100 * MS, False), (100 * MS + 1, True), (99 * MS, False)])
def test_QD_11_older_than_the_cap_is_older(make_rig: MakeRig, age: int, held: bool) -> None:
    rig = make_rig(io_latency_cap=100)
    rig.inquire()
    rig.inquire(lun=1)
    old = rig.submit()
    rig.clock.advance(age)
    other = rig.submit(lun=1)
    assert rig.started(other) is not held
    rig.complete(old)
    assert rig.started(other)


# -- the way to the miniport ------------------------------------------------------------------------------------------


def test_a_build_io_that_raises_is_not_followed_by_a_start_io(rig: Rig) -> None:
    """Also where the chip has the request already: it ends with what the chip does."""
    rig.inquire()
    rig.bus.hold = True

    def build(srb: Srb) -> bool:
        task = Task(srb.cdb, DATA_IN, srb._port.srb.mdl)
        task.owner = srb
        rig.chip.start(0, 0, task)
        raise ZeroDivisionError("a bug")

    rig.scripted.build = build
    srb = rig.submit()
    assert rig.scripted.names() == ["build"] and rig.done == []
    rig.scripted.build = lambda srb: bool(1 // 0)
    other = rig.submit()
    assert rig.done == [other] and other.srb_status == SRB_STATUS_INTERNAL_ERROR
    assert rig.port.outstanding == 1 and srb not in rig.done


@pytest.mark.parametrize(("answer", "status"), [(0, SRB_STATUS_SUCCESS), (1, SRB_STATUS_ERROR), (None, None)])
def test_RS_06_power_of_the_adapter(make_rig: MakeRig, answer: int | None, status: int | None) -> None:
    """By the callback where it is declared, else by the request."""
    miniport = Scripted()
    got: list[tuple[int, int]] = []

    def control(control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            if answer is not None:
                parameters[SCSI_ADAPTER_POWER] = True
            return 0
        got.append((parameters.power_action, parameters.power_state))
        return answer or 0

    miniport.control = control
    rig = make_rig(miniport)
    srb = rig.srb(function=SRB_FUNCTION_POWER)
    srb.srb_power_flags = SRB_POWER_FLAGS_ADAPTER_REQUEST
    srb.device_power_state, srb.power_action = STOR_POWER_DEVICE_D3, 2
    rig.port.submit(srb)
    assert got == ([] if answer is None else [(2, STOR_POWER_DEVICE_D3)])
    if status is None:
        assert started(rig) == [srb]
    else:
        assert rig.done == [srb] and srb.srb_status == status and miniport.started == []


# -- resets of the adapter --------------------------------------------------------------------------------------------


def test_a_reset_of_the_adapter_resets_every_bus_before_it_begins_again(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(number_of_buses=3))
    rig.inquire()
    rig.port.reset_adapter()
    assert rig.scripted.calls == [*(("reset_bus", path) for path in range(3)), ("initialize",)]


def test_a_reset_of_the_adapter_from_inside_a_callback_enters_no_other(rig: Rig) -> None:
    rig.inquire()
    rig.in_interrupt(rig.port.reset_adapter)
    assert "reset_bus" not in rig.scripted.names()


def test_a_reset_of_an_adapter_that_has_not_been_started(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    rig.port.reset_adapter()
    assert rig.scripted.calls == []


def test_a_reset_of_the_adapter_ends_the_miniports_timer(rig: Rig) -> None:
    rig.in_interrupt(lambda: rig.scripted.port.notification(REQUEST_TIMER_CALL, rig.scripted.hw_timer, 50_000))
    rig.port.reset_adapter()
    rig.advance(S)
    assert ("timer",) not in rig.scripted.calls


# -- other processors -------------------------------------------------------------------------------------------------


def beside(rig: Rig, before: Callable[[], object]) -> list[str]:
    """Callbacks that run beside a StartIo of unit 0, which makes one service call; `before` prepares the others."""
    for lun in range(4):
        rig.inquire(lun=lun)
    inside: list[str] = []

    def start(srb: Srb) -> bool:
        rig.scripted.start = None
        rig.scripted.calls.clear()
        before()
        rig.scripted.port.get_scatter_gather_list(srb)
        inside.extend(rig.scripted.names())
        return True

    rig.scripted.start = start
    rig.submit(lun=0)
    return inside


def test_ST_04_one_request_of_one_unit_at_a_call(make_rig: MakeRig) -> None:
    rig = make_rig(interleave=1)
    assert beside(rig, lambda: [rig.submit(lun=lun) for lun in (1, 1, 2)]) == ["build"]
    assert rig.port.counters["requests beside another's start-I/O"] == 1
    assert len(rig.scripted.started) == 4  # afterwards, all of them


@pytest.mark.parametrize("of_all", [False, True])
def test_ST_04_what_is_held_is_held_there_too(make_rig: MakeRig, of_all: bool) -> None:
    rig = make_rig(interleave=1)

    def before() -> None:
        rig.submit(lun=1)
        assert rig.scripted.port.pause(5) if of_all else rig.scripted.port.pause_device(0, 0, 1, 5)

    assert beside(rig, before) == []
    assert "requests beside another's start-I/O" not in rig.port.counters
    assert len(rig.scripted.started) == 1


def test_ST_04_no_more_than_the_unit_takes(make_rig: MakeRig) -> None:
    rig = make_rig(interleave=1, initial_lun_queue_depth=1)

    def before() -> None:
        rig.submit(lun=0)  # whose place is taken by the one that is being started

    assert beside(rig, before) == []


@pytest.mark.parametrize(("most", "inside"), [(1, []), (2, ["build"])])
def test_ST_04_no_more_than_the_adapter_takes(make_rig: MakeRig, most: int, inside: list[str]) -> None:
    rig = make_rig(interleave=1, max_number_of_io=most)
    assert beside(rig, lambda: rig.submit(lun=1)) == inside


def test_ST_10_an_interrupt_beside_a_start_io_is_counted(make_rig: MakeRig) -> None:
    rig = make_rig(interleave=1)

    def isr() -> bool:
        rig.chip.acknowledge()
        return True

    rig.scripted.interrupt = isr
    assert beside(rig, rig.chip.raise_interrupt) == ["interrupt"]
    assert rig.port.counters["interrupts beside a start-I/O"] == 1


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_so_many_service_calls(make_rig: MakeRig, every: int) -> None:
    rig = make_rig(interleave=every)
    for lun in range(2):
        rig.inquire(lun=lun)
    built: list[int] = []

    def start(srb: Srb) -> bool:
        rig.scripted.start = None
        rig.scripted.calls.clear()
        for _ in range(8):
            rig.submit(lun=1)
        for _ in range(6):
            rig.scripted.port.get_scatter_gather_list(srb)
            built.append(rig.scripted.names().count("build"))
        return True

    rig.scripted.start = start
    rig.submit(lun=0)
    assert built == [number // every for number in range(1, 7)]


def test_ST_11_what_was_built_beside_a_start_io_is_started_when_that_is_over(make_rig: MakeRig) -> None:
    """Though the places of the adapter are taken, and nothing else happens: one of them is its own."""
    rig = make_rig(interleave=1, max_number_of_io=2)
    for lun in range(3):
        rig.inquire(lun=lun)
    for _ in range(2):
        rig.submit(lun=0)
    waiting = [rig.submit(lun=lun) for lun in (1, 2)]

    def start(srb: Srb) -> bool:
        rig.scripted.port.get_scatter_gather_list(srb)
        return True

    rig.scripted.start = start
    mine = list(rig.scripted.started)
    rig.in_interrupt(lambda: [rig.scripted.complete(srb) for srb in mine])
    assert started(rig) == waiting


def test_IN_03_beside_another_a_callback_has_an_account_of_its_own(make_rig: MakeRig) -> None:
    """500 ms are allowed, to each."""
    rig = make_rig(interleave=1)
    for lun in range(2):
        rig.inquire(lun=lun)

    def stall(srb: Srb) -> bool:
        for _ in range(500):
            rig.port.stall_execution(1000)
        return True

    def start(srb: Srb) -> bool:
        rig.scripted.start = None
        rig.submit(lun=1)
        stall(srb)
        rig.scripted.build = stall
        rig.scripted.port.get_scatter_gather_list(srb)
        rig.scripted.build = None
        return True

    rig.scripted.start = start
    rig.submit(lun=0)
    assert rig.scripted.names().count("build") == 2 and rig.found == set()
