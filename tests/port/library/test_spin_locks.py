"""AcquireSpinLockEx and the interlocked lists."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.services import (
    DPC_LEVEL_LOCK,
    DPC_LOCK,
    INTERRUPT_LOCK,
    START_IO_LOCK,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
    THREADED_DPC_LOCK,
)
from tests.port.library.conftest import MakeRig
from tests.port.storport.rig import Rig


def in_build_io(rig: Rig, action: Any) -> None:
    def build(srb: Any) -> bool:
        action()
        return True

    rig.scripted.build = build
    rig.submit()
    rig.scripted.build = None


def test_locks_are_taken_and_released(rig: Rig) -> None:
    port = rig.scripted.port
    dpc = port.initialize_dpc(lambda *_: None)

    def action() -> None:
        for kind, context in (
            (START_IO_LOCK, None),
            (INTERRUPT_LOCK, None),
            (DPC_LOCK, dpc),
            (THREADED_DPC_LOCK, dpc),
            (DPC_LEVEL_LOCK, dpc),
        ):
            status, handle = port.acquire_spin_lock_ex(kind, context)
            assert status == STOR_STATUS_SUCCESS and handle is not None
            port.release_spin_lock(handle)

    in_build_io(rig, action)
    assert rig.found == set()


@pytest.mark.parametrize("level", ["report", None])
def test_LB_01_a_lock_at_the_wrong_irql(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    port = rig.scripted.port
    dpc = port.initialize_dpc(lambda *_: None)
    got: list[int] = []
    rig.in_interrupt(lambda: got.append(port.acquire_spin_lock_ex(START_IO_LOCK)[0]))
    assert got == [STOR_STATUS_INVALID_IRQL]
    assert port.acquire_spin_lock_ex(DPC_LEVEL_LOCK, dpc)[0] == STOR_STATUS_INVALID_IRQL  # PASSIVE_LEVEL
    if level:
        assert rig.found == {"LB-01"}


def test_locks_that_make_no_sense(rig: Rig) -> None:
    port = rig.scripted.port
    dpc = port.initialize_dpc(lambda *_: None)
    got: list[int] = []

    def action() -> None:
        got.append(port.acquire_spin_lock_ex(0)[0])
        got.append(port.acquire_spin_lock_ex(DPC_LOCK)[0])
        got.append(port.acquire_spin_lock_ex(INTERRUPT_LOCK, dpc)[0])
        _, handle = port.acquire_spin_lock_ex(START_IO_LOCK)
        got.append(port.acquire_spin_lock_ex(START_IO_LOCK)[0])
        assert handle is not None
        port.release_spin_lock(handle)

    in_build_io(rig, action)
    assert got == [STOR_STATUS_INVALID_PARAMETER] * 3 + [STOR_STATUS_UNSUCCESSFUL]
    assert rig.found == {"LK-01", "LK-02"}


def test_doubly_linked_lists(rig: Rig) -> None:
    port = rig.scripted.port
    _, lock = port.initialize_spinlock()
    head = port.initialize_list_head()
    assert port.interlocked_insert_head_list(head, "b", lock) == (STOR_STATUS_SUCCESS, None)
    assert port.interlocked_insert_head_list(head, "a", lock) == (STOR_STATUS_SUCCESS, "b")
    assert port.interlocked_insert_tail_list(head, "c", lock) == (STOR_STATUS_SUCCESS, "a")
    removed = [port.interlocked_remove_head_list(head, lock) for _ in range(4)]
    assert removed == [(STOR_STATUS_SUCCESS, entry) for entry in ("a", "b", "c", None)]
    assert port.interlocked_insert_tail_list(head, "c", None)[0] == STOR_STATUS_INVALID_PARAMETER
    assert port.interlocked_insert_head_list(None, "c", lock)[0] == STOR_STATUS_INVALID_PARAMETER
    assert port.interlocked_remove_head_list(head, None)[0] == STOR_STATUS_INVALID_PARAMETER
    assert rig.found == set()


def test_singly_linked_lists(rig: Rig) -> None:
    port = rig.scripted.port
    _, head = port.initialize_s_list_head()
    assert port.interlocked_push_entry_s_list(head, "a") == (STOR_STATUS_SUCCESS, None)
    assert port.interlocked_push_entry_s_list(head, "b") == (STOR_STATUS_SUCCESS, "a")
    assert port.query_depth_s_list(head) == (STOR_STATUS_SUCCESS, 2)
    assert port.interlocked_pop_entry_s_list(head) == (STOR_STATUS_SUCCESS, "b")
    port.interlocked_push_entry_s_list(head, "c")
    assert port.interlocked_flush_s_list(head) == (STOR_STATUS_SUCCESS, ["c", "a"])
    assert port.interlocked_flush_s_list(head) == port.interlocked_pop_entry_s_list(head) == (STOR_STATUS_SUCCESS, None)
    for status in (
        port.interlocked_push_entry_s_list(head, None)[0],
        port.interlocked_pop_entry_s_list(None)[0],
        port.interlocked_flush_s_list(None)[0],
        port.query_depth_s_list(None)[0],
    ):
        assert status == STOR_STATUS_INVALID_PARAMETER


def test_LB_04_an_entry_is_on_one_list(rig: Rig) -> None:
    port = rig.scripted.port
    _, head = port.initialize_s_list_head()
    entry = object()
    port.interlocked_push_entry_s_list(head, entry)
    port.interlocked_pop_entry_s_list(head)
    port.interlocked_push_entry_s_list(head, entry)
    assert rig.found == set()
    port.interlocked_push_entry_s_list(head, entry)
    assert rig.found == {"LB-04"}


def test_LB_01_lists_above_dispatch_level_go_on(rig: Rig) -> None:
    """Their pages have no status for it."""
    port = rig.scripted.port
    _, head = port.initialize_s_list_head()
    got: list[Any] = []
    rig.in_interrupt(lambda: got.append(port.interlocked_push_entry_s_list(head, "a")))
    assert got == [(STOR_STATUS_SUCCESS, None)]
    assert rig.messages("LB-01") == ["StorPortInterlockedPushEntrySList above DISPATCH_LEVEL, at DIRQL"]


def test_LK_01_what_is_refused_and_why(rig: Rig) -> None:
    port = rig.scripted.port
    dpc = port.initialize_dpc(lambda *_: None)
    bad, high = (STOR_STATUS_INVALID_PARAMETER, None), (STOR_STATUS_INVALID_IRQL, None)
    got: list[Any] = []
    assert port.acquire_spin_lock_ex(77) == port.acquire_spin_lock_ex(77, dpc) == bad
    for kind in (DPC_LOCK, THREADED_DPC_LOCK, DPC_LEVEL_LOCK):
        assert port.acquire_spin_lock_ex(kind) == port.acquire_spin_lock_ex(kind, "dpc") == bad  # type: ignore[arg-type]
    for kind in (START_IO_LOCK, INTERRUPT_LOCK):
        assert port.acquire_spin_lock_ex(kind, dpc) == port.acquire_spin_lock_ex(kind, "x") == bad  # type: ignore[arg-type]
    assert len(rig.messages("LK-01")) == 2 and len(rig.messages("LK-02")) == 10
    assert rig.messages("LK-01")[0] == "StorPortAcquireSpinLockEx of 77, which is no STOR_SPINLOCK"
    assert rig.messages("LK-02")[0] == f"StorPortAcquireSpinLockEx of {DPC_LOCK} with context None"

    def above() -> None:
        for kind, context in ((START_IO_LOCK, None), (DPC_LOCK, dpc), (THREADED_DPC_LOCK, dpc), (DPC_LEVEL_LOCK, dpc)):
            got.append(port.acquire_spin_lock_ex(kind, context))

    rig.in_interrupt(above)
    assert got == [high] * 4
    assert port.acquire_spin_lock_ex(DPC_LEVEL_LOCK, dpc) == high
    assert rig.messages("LB-01") == [
        *(
            f"StorPortAcquireSpinLockEx of lock {kind} at DIRQL"
            for kind in (START_IO_LOCK, DPC_LOCK, THREADED_DPC_LOCK, DPC_LEVEL_LOCK)
        ),
        f"StorPortAcquireSpinLockEx of lock {DPC_LEVEL_LOCK} at PASSIVE_LEVEL",
    ]
    status, handle = port.acquire_spin_lock_ex(DPC_LOCK, dpc)  # which may be taken from PASSIVE_LEVEL on
    assert status == STOR_STATUS_SUCCESS and handle is not None
    port.release_spin_lock(handle)
    status, handle = port.acquire_spin_lock_ex(INTERRUPT_LOCK)
    assert status == STOR_STATUS_SUCCESS and handle is not None
    assert port.acquire_spin_lock_ex(INTERRUPT_LOCK) == (STOR_STATUS_UNSUCCESSFUL, None)
    port.release_spin_lock(handle)


def test_the_locks_of_a_dpc_are_one(rig: Rig) -> None:
    """DPC_LOCK, THREADED_DPC_LOCK and DPC_LEVEL_LOCK of one object exclude each other."""
    port = rig.scripted.port
    dpc = port.initialize_dpc(lambda *_: None)
    got: list[int] = []

    def action() -> None:
        for first in (DPC_LOCK, THREADED_DPC_LOCK, DPC_LEVEL_LOCK):
            _, handle = port.acquire_spin_lock_ex(first, dpc)
            got.extend(
                port.acquire_spin_lock_ex(second, dpc)[0] for second in (DPC_LOCK, THREADED_DPC_LOCK, DPC_LEVEL_LOCK)
            )
            assert handle is not None
            port.release_spin_lock(handle)

    in_build_io(rig, action)
    assert got == [STOR_STATUS_UNSUCCESSFUL] * 9


def test_LB_04_whichever_list_an_entry_is_on(rig: Rig) -> None:
    """It may be on one again once it was taken off, however that was done."""
    port = rig.scripted.port
    _, lock = port.initialize_spinlock()
    _, single = port.initialize_s_list_head()
    double = port.initialize_list_head()
    entry = object()
    puts = {
        "head": lambda: port.interlocked_insert_head_list(double, entry, lock),
        "tail": lambda: port.interlocked_insert_tail_list(double, entry, lock),
        "push": lambda: port.interlocked_push_entry_s_list(single, entry),
    }
    for put in puts.values():
        put()
        port.interlocked_flush_s_list(single)
        port.interlocked_remove_head_list(double, lock)
    assert rig.found == set()
    for put in puts.values():
        put()
    assert rig.messages("LB-04") == [f"{entry!r} is put on a list and is on one already"] * 2


def test_lists_and_entries_that_are_none(rig: Rig) -> None:
    port: Any = rig.scripted.port
    _, lock = port.initialize_spinlock()
    _, single = port.initialize_s_list_head()
    double = port.initialize_list_head()
    bad = (STOR_STATUS_INVALID_PARAMETER, None)
    for routine in (port.interlocked_insert_head_list, port.interlocked_insert_tail_list):
        for arguments in ((double, "a", "lock"), ("list", "a", lock), (double, None, lock)):
            assert routine(*arguments) == bad
    assert port.interlocked_remove_head_list(double, "lock") == port.interlocked_remove_head_list("list", lock) == bad
    assert port.interlocked_push_entry_s_list(single, None) == port.interlocked_push_entry_s_list("list", "a") == bad
    assert port.interlocked_pop_entry_s_list("list") == port.interlocked_flush_s_list("list") == bad
    assert port.query_depth_s_list("list") == (STOR_STATUS_INVALID_PARAMETER, 0)
    assert port.query_depth_s_list(single) == (STOR_STATUS_SUCCESS, 0)
    assert port.interlocked_remove_head_list(double, lock) == (STOR_STATUS_SUCCESS, None)
