"""Storport's spin locks and IRQLs: who holds what in which callback, and which order is safe.

LK-01 to LK-05, ST-08. Everything runs in one thread, so a lock never waits; what would deadlock or is not allowed on
Windows is a finding. Sources: StorPortAcquireSpinLock; the Locking and Irql rule sets for Storport; the pages of the
callbacks.
"""

from __future__ import annotations

from typing import Final

from hba.miniport.config import INTERRUPT_SYNCHRONIZE_PER_MESSAGE, PortConfigurationInformation
from hba.miniport.services import DPC_LOCK, INTERRUPT_LOCK, START_IO_LOCK, Dpc, LockHandle
from hba.port.context import (
    ADAPTER_CONTROL,
    BUILD_IO,
    CALLBACK_NAMES,
    DIRQL,
    DISPATCH_LEVEL,
    DPC,
    INITIALIZE,
    INTERRUPT,
    IRQL_NAMES,
    RESET_BUS,
    SCATTER_GATHER,
    START_IO,
    STATE_CHANGE,
    SYNCHRONIZED,
    TIMER,
    TRACING_ENABLED,
    UNIT_CONTROL,
    WORK_ITEM,
)
from hba.port.reports import Reports
from hba.port.request import Request
from hba.port.storport.messages import Messages

MSI_LOCK: Final = 0x100  # + message id; not a STOR_SPINLOCK, but kept with them
BELOW_INTERRUPT = (DPC_LOCK, START_IO_LOCK)  # not taken while a lock of interrupts is held, and at DISPATCH_LEVEL
LOCK_NAMES = {DPC_LOCK: "DpcLock", START_IO_LOCK: "StartIoLock", INTERRUPT_LOCK: "InterruptLock"}
ALL_LOCKS = frozenset({DPC_LOCK, START_IO_LOCK, INTERRUPT_LOCK})
NONE: frozenset[int] = frozenset()


def _same(lock: int, other: int) -> bool:
    """Whether they exclude each other: the interrupt lock is all messages' locks (StorPortAcquireMSISpinLock)."""
    return (
        lock == other
        or (lock >= MSI_LOCK and other == INTERRUPT_LOCK)
        or (lock == INTERRUPT_LOCK and other >= MSI_LOCK)
    )


def name_of(lock: int) -> str:
    return LOCK_NAMES.get(lock, f"MSI lock {lock - MSI_LOCK}" if lock >= MSI_LOCK else f"lock {lock}")


class LockTable:
    """What the port holds around each callback and what the miniport may take in it (StorPortAcquireSpinLock).

    With a lock for each message (`per_message`) the interrupt lock is all of these at once, and the port holds that of
    the message it calls hw_msi_interrupt for.
    """

    def __init__(self, half_duplex: bool, virtual: bool, per_message: bool = False) -> None:
        self.half_duplex = half_duplex
        self.virtual = virtual
        self.per_message = per_message
        self.channels = 1
        self._fill()

    def _fill(self) -> None:
        with_interrupt = frozenset({START_IO_LOCK, INTERRUPT_LOCK}) if self.half_duplex else frozenset({START_IO_LOCK})
        not_half = NONE if self.half_duplex else frozenset({INTERRUPT_LOCK})
        serialised = not self.virtual and self.channels <= 1
        self.port_holds = {
            INITIALIZE: NONE if self.virtual else frozenset({INTERRUPT_LOCK}),
            START_IO: with_interrupt if serialised else NONE,  # ST-06, ST-11
            INTERRUPT: NONE if self.per_message else frozenset({INTERRUPT_LOCK}),
            TIMER: with_interrupt,
            RESET_BUS: with_interrupt,
            STATE_CHANGE: with_interrupt,
            SYNCHRONIZED: frozenset({INTERRUPT_LOCK}),
        }
        if self.half_duplex:
            start_io = NONE  # ST-08
        elif serialised:
            start_io = frozenset({DPC_LOCK, INTERRUPT_LOCK})
        else:
            start_io = ALL_LOCKS
        self.may_take = {
            BUILD_IO: ALL_LOCKS,
            START_IO: start_io,
            DPC: ALL_LOCKS,
            TIMER: not_half,
            RESET_BUS: not_half,
            STATE_CHANGE: not_half,
            WORK_ITEM: ALL_LOCKS,  # not in the table; HW_WORKITEM: no locks are held, synchronisation is the miniport's
            SCATTER_GATHER: ALL_LOCKS,  # likewise
            ADAPTER_CONTROL: ALL_LOCKS,
            UNIT_CONTROL: ALL_LOCKS,
            TRACING_ENABLED: ALL_LOCKS,
        }

    def set_channels(self, channels: int) -> None:
        """ST-11: with more than one channel hw_start_io runs without the StartIo lock."""
        self.channels = channels
        self._fill()

    def irql(self, callback: int) -> int:
        """IRQL at which the port calls (section "Locks and IRQL by callback" of the documents)."""
        if callback in (INTERRUPT, INITIALIZE, SYNCHRONIZED):
            return DIRQL
        if callback in (START_IO, TIMER) and self.half_duplex:
            return DIRQL
        if callback in (START_IO, TIMER, BUILD_IO, DPC, RESET_BUS, STATE_CHANGE, SCATTER_GATHER):
            return DISPATCH_LEVEL
        return 0


class Locks:
    """The locks the running callback has taken, oldest first."""

    def __init__(
        self, reports: Reports, table: LockTable, info: PortConfigurationInformation, messages: Messages
    ) -> None:
        self.reports = reports
        self._info = info
        self._messages = messages
        self._order: set[tuple[int, int]] = set()  # (held, taken) of messages' locks so far
        self.table = table
        self.held: list[LockHandle] = []
        self._irqls: list[int] = []
        self.taken = 0  # ever; tells whether a callback took any (ST-04)

    # -- taking ------------------------------------------------------------------------------------------------

    def acquire(self, lock: int, context: object) -> LockHandle:
        handle = LockHandle(lock, context)
        self.taken += 1
        if not self._check(lock, context):
            handle.held = False
            return handle
        self._take(handle)
        return handle

    def _check(self, lock: int, context: object) -> bool:
        """False: taking it would hang the processor, so it is not taken."""
        reports, callback = self.reports, self.reports.callback
        where = CALLBACK_NAMES[callback]
        if lock not in LOCK_NAMES:
            reports.offence("LK-01", f"StorPortAcquireSpinLock of {lock}, which is no STOR_SPINLOCK")
            return False
        name = LOCK_NAMES[lock]
        # LK-02: the DPC object for DpcLock, NULL otherwise.
        if lock == DPC_LOCK and not isinstance(context, Dpc):
            reports.offence("LK-02", f"DpcLock without its DPC object as LockContext, but {context!r}")
        elif lock != DPC_LOCK and context is not None:
            reports.offence("LK-02", f"{name} with LockContext {context!r} instead of NULL")
        by_port = self._by_port()
        if any(_same(lock, held) for held in by_port):
            reports.offence("LK-01", f"deadlock: {name} acquired in {where}, but the port took it for this callback")
            return False
        # The DPC locks of two DPCs are two locks.
        if any(_same(lock, held.lock) and (lock != DPC_LOCK or held.context is context) for held in self.held):
            reports.offence("LK-01", f"deadlock: {name} acquired in {where}, but it is held already")
            return False
        held = (*by_port, *(handle.lock for handle in self.held))
        if lock in BELOW_INTERRUPT and any(other not in BELOW_INTERRUPT for other in held):
            reports.offence("LK-01", f"{name} acquired while InterruptLock is held: wrong order")
        elif lock not in self.table.may_take.get(callback, NONE):
            if callback == START_IO and self.table.half_duplex:
                reports.offence("ST-08", f"{name} acquired in a half-duplex hw_start_io")
            else:
                reports.offence("LK-01", f"{name} must not be acquired in {where}")
        return True

    def _take(self, handle: LockHandle) -> None:
        reports = self.reports
        reports.unsettled = True
        self._irqls.append(reports.irql)
        self.held.append(handle)
        reports.irql = max(reports.irql, DISPATCH_LEVEL if handle.lock in BELOW_INTERRUPT else DIRQL)

    def _by_port(self) -> frozenset[int]:
        """What the port holds around the callback that runs."""
        callback = self.reports.callback
        if callback == INTERRUPT and self.table.per_message:
            return frozenset({MSI_LOCK + self._messages.current})
        return self.table.port_holds.get(callback, NONE)

    def acquire_msi(self, message_id: int) -> LockHandle:
        """LK-04: these locks exist only when each message has its own. LK-01: they are not recursive."""
        handle = LockHandle(MSI_LOCK + message_id, None)
        handle.held = self._check_msi(message_id, handle.lock)
        if handle.held:
            self.taken += 1
            self._take(handle)
        return handle

    def _check_msi(self, message_id: int, lock: int) -> bool:
        reports, callback = self.reports, self.reports.callback
        mode = self._info.interrupt_synchronization_mode
        if mode != INTERRUPT_SYNCHRONIZE_PER_MESSAGE:
            reports.offence("LK-04", f"StorPortAcquireMSISpinLock with InterruptSynchronizationMode {mode}")
            return False
        if not 0 <= message_id < max(1, self._messages.granted):
            reports.offence("LK-04", f"message {message_id} has no lock: {self._messages.granted} messages are granted")
            return False
        where = CALLBACK_NAMES[callback]
        by_port = self._by_port()
        if any(_same(lock, held) for held in by_port):
            reports.offence(
                "LK-01", f"deadlock: {name_of(lock)} acquired in {where}, but the port took it for this callback"
            )
            return False
        if any(_same(lock, handle.lock) for handle in self.held):
            reports.offence("LK-01", f"deadlock: {name_of(lock)} acquired in {where}, but it is held already")
            return False
        if callback != INTERRUPT and INTERRUPT_LOCK not in self.table.may_take.get(callback, NONE):
            reports.offence("LK-01", f"{name_of(lock)} must not be acquired in {where}")
        for held in (*by_port, *(handle.lock for handle in self.held)):
            if held >= MSI_LOCK:
                self._order.add((held, lock))
                if (lock, held) in self._order:
                    reports.offence(
                        "LK-01",
                        f"{name_of(lock)} acquired in {where} while {name_of(held)} is held; elsewhere it is the other "
                        "way round: wrong order",
                    )
        return True

    # -- releasing ---------------------------------------------------------------------------------------------

    def release(self, handle: LockHandle) -> None:
        if not handle.held or handle not in self.held:
            self.reports.offence("LK-03", f"{name_of(handle.lock)} released without being held")
            return
        handle.held = False
        at = self.held.index(handle)
        if at != len(self.held) - 1:
            self.reports.offence(
                "LK-01", f"{name_of(handle.lock)} released before {name_of(self.held[-1].lock)}, taken later"
            )
        del self.held[at]
        self.reports.irql = self._irqls.pop()

    def raise_irql(self, irql: int) -> int:
        old = self.reports.irql
        if irql < old:
            self.reports.offence("LK-05", f"KeRaiseIrql to {irql}, which is below the current {old}")
            return old
        self.reports.irql = irql
        self.reports.unsettled = True
        return old

    def lower_irql(self, irql: int) -> None:
        if irql > self.reports.irql:
            self.reports.offence("LK-05", f"KeLowerIrql to {irql}, which is above the current {self.reports.irql}")
            return
        self.reports.irql = irql
        self.reports.unsettled = True

    def leave(self, callback: int, irql: int, request: Request | None) -> None:
        """A callback that was entered at `irql` has returned: LK-03, LK-05."""
        reports = self.reports
        for handle in reversed(self.held):
            handle.held = False
            reports.finding("LK-03", f"{CALLBACK_NAMES[callback]} returned holding {name_of(handle.lock)}", request)
        if not self.held and reports.irql != irql:
            reports.finding(
                "LK-05",
                f"{CALLBACK_NAMES[callback]} entered at {IRQL_NAMES.get(irql, irql)} returned at "
                f"{IRQL_NAMES.get(reports.irql, reports.irql)}",
                request,
            )
        self.held.clear()
        self._irqls.clear()

    def may_synchronize(self) -> bool:
        """LK-06: the interrupt lock must be free to be taken for StorPortSynchronizeAccess."""
        held = (*self._by_port(), *(handle.lock for handle in self.held))
        if any(_same(INTERRUPT_LOCK, lock) for lock in held):
            self.reports.offence("LK-06", "StorPortSynchronizeAccess while the interrupt lock is held: deadlock")
            return False
        return True

    def swap(self, held: list[LockHandle], irqls: list[int]) -> tuple[list[LockHandle], list[int]]:
        """Another processor's callback begins or ends: it has its own list of locks."""
        mine = self.held, self._irqls
        self.held, self._irqls = held, irqls
        return mine
