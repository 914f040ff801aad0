"""AcquireSpinLockEx, and lists under a spin lock of the port (LB-04, LK-01, LK-02).

A lock that is refused is not taken, so what would hang a processor on Windows is a status here, and a finding.
Sources: StorPortAcquireSpinLockEx, STOR_SPINLOCK, StorPortInitializeSpinlock, StorPortInitializeListHead,
StorPortInterlockedInsertHeadList, ...InsertTailList, ...RemoveHeadList, StorPortInitializeSListHead,
StorPortInterlockedPushEntrySList, ...PopEntrySList, ...FlushSList, StorPortQueryDepthSList (storport.h).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

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
    Dpc,
    LockHandle,
)
from hba.port.context import DISPATCH_LEVEL, IRQL_NAMES
from hba.port.library.host import Caller

OF_A_DPC = (DPC_LOCK, THREADED_DPC_LOCK, DPC_LEVEL_LOCK)  # all three are the lock of the DPC object
Acquire = Callable[[int, Dpc | None], LockHandle]


class SpinLocks:
    """`acquire`: how StorPortAcquireSpinLock takes a lock."""

    def __init__(self, caller: Caller, acquire: Acquire) -> None:
        self._caller = caller
        self._acquire = acquire

    def acquire_spin_lock_ex(self, spin_lock: int, lock_context: Dpc | None = None) -> tuple[int, LockHandle | None]:
        """StorPortAcquireSpinLockEx: (STOR_STATUS_*, handle for `release_spin_lock`).

        INVALID_PARAMETER: no such lock, or a context that does not belong to it. INVALID_IRQL: the StartIo lock or that
        of a DPC above DISPATCH_LEVEL, DPC_LEVEL_LOCK anywhere else. UNSUCCESSFUL: it would be a deadlock (LK-01).
        """
        of_a_dpc = spin_lock in OF_A_DPC
        if not of_a_dpc and spin_lock not in (START_IO_LOCK, INTERRUPT_LOCK):
            self._caller.offence("LK-01", f"StorPortAcquireSpinLockEx of {spin_lock}, which is no STOR_SPINLOCK")
            return STOR_STATUS_INVALID_PARAMETER, None
        if isinstance(lock_context, Dpc) != of_a_dpc or (lock_context is not None and not of_a_dpc):
            self._caller.offence("LK-02", f"StorPortAcquireSpinLockEx of {spin_lock} with context {lock_context!r}")
            return STOR_STATUS_INVALID_PARAMETER, None
        irql = self._caller.irql
        if (spin_lock != INTERRUPT_LOCK and irql > DISPATCH_LEVEL) or (
            spin_lock == DPC_LEVEL_LOCK and irql != DISPATCH_LEVEL
        ):
            self._caller.offence(
                "LB-01", f"StorPortAcquireSpinLockEx of lock {spin_lock} at {IRQL_NAMES.get(irql, irql)}"
            )
            return STOR_STATUS_INVALID_IRQL, None
        handle = self._acquire(DPC_LOCK if of_a_dpc else spin_lock, lock_context)
        return (STOR_STATUS_SUCCESS, handle) if handle.held else (STOR_STATUS_UNSUCCESSFUL, None)


class SpinLock:
    """STOR_KSPIN_LOCK: only for the Interlocked...List routines."""

    __slots__ = ()


class ListHead:
    """STOR_LIST_ENTRY as a head, or STOR_SLIST_HEADER: opaque."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: deque[Any] = deque()


class Lists:
    """Entries are objects of the miniport; one is on one list at most, because its links are in itself."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._linked: set[int] = set()  # id() of entries, which the lists keep alive

    def initialize_spinlock(self) -> tuple[int, SpinLock]:
        """StorPortInitializeSpinlock: (STOR_STATUS_SUCCESS, the lock)."""
        return STOR_STATUS_SUCCESS, SpinLock()

    # -- doubly linked -----------------------------------------------------------------------------------------

    def initialize_list_head(self) -> ListHead:
        """StorPortInitializeListHead: an empty list."""
        return ListHead()

    def interlocked_insert_head_list(self, list_head: Any, list_entry: Any, lock: Any) -> tuple[int, Any]:
        """StorPortInterlockedInsertHeadList: (STOR_STATUS_*, the first entry before; None: the list was empty)."""
        if not isinstance(lock, SpinLock) or not self._good(list_head, list_entry):
            return STOR_STATUS_INVALID_PARAMETER, None
        first = list_head.entries[0] if list_head.entries else None
        self._link(list_entry)
        list_head.entries.appendleft(list_entry)
        return STOR_STATUS_SUCCESS, first

    def interlocked_insert_tail_list(self, list_head: Any, list_entry: Any, lock: Any) -> tuple[int, Any]:
        """StorPortInterlockedInsertTailList: (STOR_STATUS_*, the first entry before; None: the list was empty)."""
        if not isinstance(lock, SpinLock) or not self._good(list_head, list_entry):
            return STOR_STATUS_INVALID_PARAMETER, None
        first = list_head.entries[0] if list_head.entries else None
        self._link(list_entry)
        list_head.entries.append(list_entry)
        return STOR_STATUS_SUCCESS, first

    def interlocked_remove_head_list(self, list_head: Any, lock: Any) -> tuple[int, Any]:
        """StorPortInterlockedRemoveHeadList: (STOR_STATUS_*, the entry; None: the list was empty)."""
        if not isinstance(list_head, ListHead) or not isinstance(lock, SpinLock):
            return STOR_STATUS_INVALID_PARAMETER, None
        return STOR_STATUS_SUCCESS, self._take(list_head)

    # -- singly linked -----------------------------------------------------------------------------------------

    def initialize_s_list_head(self) -> tuple[int, ListHead]:
        """StorPortInitializeSListHead: (STOR_STATUS_SUCCESS, an empty list). At most at DISPATCH_LEVEL."""
        return STOR_STATUS_SUCCESS, ListHead()

    def interlocked_push_entry_s_list(self, s_list_head: Any, s_list_entry: Any) -> tuple[int, Any]:
        """StorPortInterlockedPushEntrySList: (STOR_STATUS_*, the first entry before, which is behind it now)."""
        if not self._good(s_list_head, s_list_entry):
            return STOR_STATUS_INVALID_PARAMETER, None
        first = s_list_head.entries[0] if s_list_head.entries else None
        self._link(s_list_entry)
        s_list_head.entries.appendleft(s_list_entry)
        return STOR_STATUS_SUCCESS, first

    def interlocked_pop_entry_s_list(self, s_list_head: Any) -> tuple[int, Any]:
        """StorPortInterlockedPopEntrySList: (STOR_STATUS_*, the entry; None: the list was empty)."""
        if not isinstance(s_list_head, ListHead):
            return STOR_STATUS_INVALID_PARAMETER, None
        return STOR_STATUS_SUCCESS, self._take(s_list_head)

    def interlocked_flush_s_list(self, s_list_head: Any) -> tuple[int, list[Any] | None]:
        """StorPortInterlockedFlushSList: (STOR_STATUS_*, all entries in order; None: the list was empty)."""
        if not isinstance(s_list_head, ListHead):
            return STOR_STATUS_INVALID_PARAMETER, None
        entries = [self._take(s_list_head) for _ in range(len(s_list_head.entries))]
        return STOR_STATUS_SUCCESS, entries or None

    def query_depth_s_list(self, s_list_head: Any) -> tuple[int, int]:
        """StorPortQueryDepthSList: (STOR_STATUS_*, number of entries)."""
        if not isinstance(s_list_head, ListHead):
            return STOR_STATUS_INVALID_PARAMETER, 0
        return STOR_STATUS_SUCCESS, len(s_list_head.entries)

    # -- both --------------------------------------------------------------------------------------------------

    @staticmethod
    def _good(head: object, entry: object) -> bool:
        return isinstance(head, ListHead) and entry is not None

    def _link(self, entry: Any) -> None:
        """LB-04: an entry that is on a list already would tie both lists into a knot."""
        if id(entry) in self._linked:
            self._caller.offence("LB-04", f"{entry!r} is put on a list and is on one already")
        self._linked.add(id(entry))

    def _take(self, head: ListHead) -> Any:
        if not head.entries:
            return None
        entry = head.entries.popleft()
        self._linked.discard(id(entry))
        return entry
