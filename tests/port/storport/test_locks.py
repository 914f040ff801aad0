"""LK: spin locks and IRQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hba.miniport.config import INTERRUPT_SYNCHRONIZE_PER_MESSAGE
from hba.miniport.services import DPC_LOCK, INTERRUPT_LOCK, START_IO_LOCK, Dpc, LockHandle
from hba.port.context import DIRQL, DISPATCH_LEVEL, PASSIVE_LEVEL
from hba.srb import Srb
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted


def in_build(rig: Rig, action: Callable[[], object]) -> None:
    """Run `action` inside a BuildIo, where all locks may be taken."""

    def build(srb: Srb) -> bool:
        action()
        return True

    rig.scripted.build = build
    rig.submit()
    rig.scripted.build = None


def in_start(rig: Rig, action: Callable[[], object]) -> None:
    def start(srb: Srb) -> bool:
        action()
        return True

    rig.scripted.start = start
    rig.submit()
    rig.scripted.start = None


def take(rig: Rig, *locks: int) -> None:
    """Acquire in this order, release in the other."""
    port = rig.scripted.port
    handles = [port.acquire_spin_lock(lock, Dpc(lambda d, a, b: None) if lock == DPC_LOCK else None) for lock in locks]
    for handle in reversed(handles):
        port.release_spin_lock(handle)


def test_LK_01_the_right_order_is_fine(rig: Rig) -> None:
    in_build(rig, lambda: take(rig, START_IO_LOCK, INTERRUPT_LOCK))
    in_build(rig, lambda: take(rig, DPC_LOCK, INTERRUPT_LOCK))
    assert rig.found == set()


@pytest.mark.parametrize("locks", [(INTERRUPT_LOCK, START_IO_LOCK), (INTERRUPT_LOCK, DPC_LOCK)])
def test_LK_01_the_wrong_order_is_found(rig: Rig, locks: tuple[int, ...]) -> None:
    in_build(rig, lambda: take(rig, *locks))
    assert rig.found == {"LK-01"}


def test_LK_01_acquiring_a_held_lock_is_a_deadlock_and_not_done(rig: Rig) -> None:
    def twice() -> None:
        first = rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)
        second = rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)
        assert first.held and not second.held
        rig.scripted.port.release_spin_lock(first)

    in_build(rig, twice)
    assert rig.found == {"LK-01"}
    assert "deadlock" in rig.messages("LK-01")[0]


def test_LK_01_a_lock_the_port_holds_for_the_callback_is_a_deadlock(rig: Rig) -> None:
    in_start(rig, lambda: rig.scripted.port.acquire_spin_lock(START_IO_LOCK))
    assert rig.found == {"LK-01"}
    rig.in_interrupt(lambda: rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK))
    assert len(rig.messages("LK-01")) == 2


def test_LK_01_a_lock_the_callback_may_not_take(rig: Rig) -> None:
    rig.in_interrupt(lambda: take(rig, DPC_LOCK))
    assert rig.found == {"LK-01"}


def test_LK_01_no_such_lock(rig: Rig) -> None:
    in_build(rig, lambda: rig.scripted.port.acquire_spin_lock(9))
    assert rig.found == {"LK-01"}


@pytest.mark.parametrize(("lock", "context", "wrong"), [(DPC_LOCK, None, True), (START_IO_LOCK, 5, True)])
def test_LK_02_lock_context(rig: Rig, lock: int, context: object, wrong: bool) -> None:
    def action() -> None:
        rig.scripted.port.release_spin_lock(rig.scripted.port.acquire_spin_lock(lock, context))  # type: ignore[arg-type]

    in_build(rig, action)
    assert (rig.found == {"LK-02"}) is wrong
    clean = len(rig.messages("LK-02"))
    in_build(rig, lambda: take(rig, DPC_LOCK))
    assert len(rig.messages("LK-02")) == clean


def test_LK_03_a_lock_left_behind_is_found_and_released(rig: Rig) -> None:
    in_build(rig, lambda: rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK))
    assert rig.found == {"LK-03"}
    in_build(rig, lambda: take(rig, INTERRUPT_LOCK))
    assert rig.found == {"LK-03"}


def test_LK_03_release_without_acquire(rig: Rig) -> None:
    def action() -> None:
        handle = rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)
        rig.scripted.port.release_spin_lock(handle)
        rig.scripted.port.release_spin_lock(handle)

    in_build(rig, action)
    assert rig.found == {"LK-03"}


def test_LK_04_msi_lock_only_with_a_lock_per_message(make_rig: MakeRig) -> None:
    rig = make_rig()
    in_build(rig, lambda: rig.scripted.port.acquire_msi_spin_lock(0))
    assert rig.found == {"LK-04"}
    rig = make_rig(Scripted(interrupt_synchronization_mode=INTERRUPT_SYNCHRONIZE_PER_MESSAGE))
    in_build(rig, lambda: rig.scripted.port.release_msi_spin_lock(rig.scripted.port.acquire_msi_spin_lock(0)))
    assert rig.found == set()


def test_LK_05_irql_is_restored_by_locks_and_must_be_by_the_miniport(rig: Rig) -> None:
    levels: list[int] = []

    def action() -> None:
        levels.append(rig.port.irql)
        handle = rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)
        levels.append(rig.port.irql)
        rig.scripted.port.release_spin_lock(handle)
        levels.append(rig.port.irql)

    in_build(rig, action)
    assert levels == [DISPATCH_LEVEL, DIRQL, DISPATCH_LEVEL]
    assert rig.found == set()
    in_build(rig, lambda: rig.scripted.port.raise_irql(DIRQL))
    assert rig.found == {"LK-05"}


def test_LK_05_in_an_interrupt_too(rig: Rig) -> None:
    rig.in_interrupt(lambda: rig.scripted.port.lower_irql(DISPATCH_LEVEL))
    assert rig.found == {"LK-05"}


def test_LK_06_synchronize_access_keeps_the_interrupt_out(rig: Rig) -> None:
    order: list[str] = []

    def interrupt() -> bool:
        rig.chip.acknowledge()
        order.append("interrupt")
        return True

    def routine(context: object) -> bool:
        assert rig.port.irql == DIRQL
        rig.chip.raise_interrupt()
        order.append(f"routine {context}")
        return True

    rig.scripted.interrupt = interrupt
    in_build(rig, lambda: order.append(str(rig.scripted.port.synchronize_access(routine, 7))))
    assert order == ["routine 7", "True", "interrupt"]
    assert rig.found == set()


def test_LK_06_with_the_interrupt_lock_held_it_would_deadlock(rig: Rig) -> None:
    rig.in_interrupt(lambda: rig.scripted.port.synchronize_access(lambda context: True))
    assert rig.found == {"LK-06"}


def test_LK_01_released_in_the_order_they_were_taken_in(rig: Rig) -> None:
    levels: list[int] = []

    def action() -> None:
        port = rig.scripted.port
        first, second = port.acquire_spin_lock(START_IO_LOCK), port.acquire_spin_lock(INTERRUPT_LOCK)
        port.release_spin_lock(first)
        assert not first.held and second.held
        levels.append(rig.port.irql)
        port.release_spin_lock(second)
        levels.append(rig.port.irql)

    in_build(rig, action)
    assert rig.messages("LK-01") == ["StartIoLock released before InterruptLock, taken later"]
    assert levels == [DISPATCH_LEVEL, DISPATCH_LEVEL] and rig.found == {"LK-01"}


def test_LK_03_nothing_is_left_of_a_lock_that_was_left_behind(rig: Rig) -> None:
    left: list[LockHandle] = []
    in_build(rig, lambda: left.append(rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)))
    assert rig.messages("LK-03") == ["hw_build_io returned holding InterruptLock"]
    assert not left[0].held and rig.port.locks.swap([], []) == ([], [])
    in_build(rig, lambda: rig.scripted.port.release_spin_lock(left[0]))
    assert rig.messages("LK-03")[1:] == ["InterruptLock released without being held"]


def test_LK_03_a_handle_that_nobody_was_given(rig: Rig) -> None:
    def action() -> None:
        handle = rig.scripted.port.acquire_spin_lock(START_IO_LOCK)
        rig.scripted.port.release_spin_lock(LockHandle(START_IO_LOCK, None))
        assert rig.port.irql == DISPATCH_LEVEL and handle.held
        rig.scripted.port.release_spin_lock(handle)
        assert not handle.held

    in_build(rig, action)
    assert rig.messages("LK-03") == ["StartIoLock released without being held"] and rig.found == {"LK-03"}


def test_LK_03_several_are_told_the_last_first(rig: Rig) -> None:
    def action() -> None:
        rig.scripted.port.acquire_spin_lock(START_IO_LOCK)
        rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)

    in_build(rig, action)
    assert rig.messages("LK-03") == [
        f"hw_build_io returned holding {name}" for name in ("InterruptLock", "StartIoLock")
    ]
    assert rig.found == {"LK-03"}  # the IRQL comes down with the locks


@pytest.mark.parametrize(
    ("calls", "returned", "level", "found"),
    [
        ([("raise", DISPATCH_LEVEL)], [DISPATCH_LEVEL], DISPATCH_LEVEL, []),  # to where it is
        ([("lower", DISPATCH_LEVEL)], [None], DISPATCH_LEVEL, []),
        ([("raise", DIRQL), ("lower", DISPATCH_LEVEL)], [DISPATCH_LEVEL, None], DISPATCH_LEVEL, []),
        (
            [("raise", DISPATCH_LEVEL - 1)],
            [DISPATCH_LEVEL],
            DISPATCH_LEVEL,
            ["KeRaiseIrql to 1, which is below the current 2"],
        ),
        ([("lower", DISPATCH_LEVEL + 1)], [None], DISPATCH_LEVEL, ["KeLowerIrql to 3, which is above the current 2"]),
        ([("raise", 4)], [DISPATCH_LEVEL], 4, ["hw_build_io entered at DISPATCH_LEVEL returned at 4"]),
        ([("lower", PASSIVE_LEVEL)], [None], 0, ["hw_build_io entered at DISPATCH_LEVEL returned at PASSIVE_LEVEL"]),
    ],
)
def test_LK_05_up_and_down(
    rig: Rig, calls: list[tuple[str, int]], returned: list[int | None], level: int, found: list[str]
) -> None:
    got: list[int | None] = []
    levels: list[int] = []

    def action() -> None:
        port = rig.scripted.port
        got.extend(port.raise_irql(to) if how == "raise" else port.lower_irql(to) for how, to in calls)  # type: ignore[func-returns-value]
        levels.append(rig.port.irql)

    in_build(rig, action)
    assert (got, levels, rig.messages("LK-05")) == (returned, [level], found)
    assert rig.found == ({"LK-05"} if found else set())


def test_LK_06_what_would_deadlock_is_not_done(rig: Rig) -> None:
    results: list[object] = []
    rig.in_interrupt(lambda: results.append(rig.scripted.port.synchronize_access(lambda context: True)))

    def action() -> None:
        handle = rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK)
        results.append(rig.scripted.port.synchronize_access(lambda context: True))
        rig.scripted.port.release_spin_lock(handle)
        results.append(rig.scripted.port.synchronize_access(lambda context: False))
        results.append(rig.scripted.port.synchronize_access(lambda context: True))

    in_build(rig, action)
    assert results == [False, False, False, True]
    assert len(rig.messages("LK-06")) == 2 and rig.found == {"LK-06"}


def test_LK_06_the_routine_may_take_no_more_locks_than_it_gives_back(rig: Rig) -> None:
    """What the caller holds is the caller's, and is there again afterwards."""

    def action() -> None:
        handle = rig.scripted.port.acquire_spin_lock(START_IO_LOCK)
        assert rig.scripted.port.synchronize_access(lambda context: rig.port.irql == DIRQL)
        assert rig.port.irql == DISPATCH_LEVEL and handle.held
        rig.scripted.port.release_spin_lock(handle)

    in_build(rig, action)
    assert rig.found == set()
