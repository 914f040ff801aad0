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
