"""System threads of the miniport's own, and what they wait for (LB-01, LB-04).

A thread is one of the operating system's that takes turns with everything else: it runs, as a callback at
PASSIVE_LEVEL, until it waits or ends, and nothing else does meanwhile. So a miniport's threads are as repeatable as the
rest of it, and there is no second processor it could race with.

Sources: StorPortCreateSystemThread, STOR_THREAD_START_ROUTINE, STOR_THREAD_PRIORITY, StorPortTerminateSystemThread,
StorPortSetPriorityThread, StorPortInitializeEvent, STOR_EVENT_TYPE, StorPortSetEvent, StorPortWaitForSingleObject,
StorPortSetSystemGroupAffinityThread, StorPortRevertToUserGroupAffinityThread (storport.h).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from hba.clock import Clock, Timer
from hba.miniport.config import GroupAffinity
from hba.miniport.services import STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL
from hba.port.context import PASSIVE_LEVEL, WORK_ITEM
from hba.port.library.host import Caller
from hba.port.library.later import Later

# STOR_EVENT_TYPE
STOR_NOTIFICATION_EVENT = 0
STOR_SYNCHRONIZATION_EVENT = 1

# STOR_THREAD_PRIORITY. The page has no numbers, but the priorities they stand for.
STOR_THREAD_PRIORITY_BACKGROUND = 0
STOR_THREAD_PRIORITY_NORMAL = 1
STOR_THREAD_PRIORITY_DELAYED = 2
STOR_THREAD_PRIORITY_CRITICAL = 3
STOR_THREAD_PRIORITY_SUPER_CRITICAL = 4
STOR_THREAD_PRIORITY_HYPER_CRITICAL = 5
STOR_THREAD_PRIORITY_REAL_TIME = 6
PRIORITIES = (7, 8, 12, 13, 14, 15, 18)

StartRoutine = Callable[[Any], object]


class CannotWait(Exception):
    """A wait outside of a system thread, for something that has not happened."""


class _Ended(BaseException):
    """Ends a system thread from inside."""


class Waitable:
    """What can be waited for."""

    def __init__(self) -> None:
        self.signaled = False
        self.waiting: list[_Wait] = []

    def taken(self) -> None:
        """A wait was satisfied without waiting."""


class StorEvent(Waitable):
    """STOR_EVENT."""

    type = STOR_NOTIFICATION_EVENT
    ready = False  # was initialized

    def taken(self) -> None:
        if self.type == STOR_SYNCHRONIZATION_EVENT:
            self.signaled = False


class SystemThread(Waitable):
    """A thread's context. `signaled`: it has ended."""

    def __init__(self, routine: StartRoutine, context: Any, priority: int, affinity: GroupAffinity) -> None:
        super().__init__()
        self.priority = priority
        self.affinity = affinity
        self._routine = routine
        self._context = context
        self._thread: threading.Thread | None = None
        self._its_turn = threading.Semaphore(0)
        self._our_turn = threading.Semaphore(0)
        self._dismissed = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Until it waits or ends; raises what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="miniport", daemon=True)
            self._thread.start()
        else:
            self._its_turn.release()
        self._our_turn.acquire()
        if self.signaled:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def pause(self) -> None:
        """From inside: everybody else's turn, until somebody calls `run`."""
        self._our_turn.release()
        self._its_turn.acquire()
        if self._dismissed:
            raise _Ended

    def dismiss(self) -> None:
        """The adapter starts anew: whatever the thread waits for, it ends."""
        self._dismissed = True
        if self._thread is not None and not self.signaled:
            self.run()

    def _main(self) -> None:
        try:
            self._routine(self._context)
        except _Ended:
            pass
        except Exception as error:
            self._error = error
        finally:
            self.signaled = True
            self._our_turn.release()


class _Wait:
    """One wait of one thread."""

    def __init__(self, thread: SystemThread) -> None:
        self.thread = thread
        self.status = STOR_STATUS_UNSUCCESSFUL
        self.timer: Timer | None = None


class Threads:
    """`most`: threads an adapter may have, one for each processor; `system_time()`: 100 ns since 1601."""

    def __init__(self, caller: Caller, clock: Clock, later: Later, most: int, system_time: Callable[[], int]) -> None:
        self._caller = caller
        self._clock = clock
        self._later = later
        self._most = most
        self._system_time = system_time
        self._everywhere = GroupAffinity((1 << most) - 1)
        self._affinity = self._everywhere  # of the thread everything else runs in
        self._threads: list[SystemThread] = []
        self._current: SystemThread | None = None

    def forget(self) -> None:
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.dismiss()
        self._affinity = self._everywhere

    # -- threads -----------------------------------------------------------------------------------------------

    def create_system_thread(
        self, start_routine: StartRoutine | None, start_context: Any = None, priority: int | None = None
    ) -> tuple[int, SystemThread | None]:
        """StorPortCreateSystemThread: (STOR_STATUS_*, thread context), and `start_routine(start_context)` is called in
        the new thread. INVALID_PARAMETER: no routine, or no such STOR_THREAD_PRIORITY; UNSUCCESSFUL: the adapter has a
        thread for each processor."""
        if priority is None:
            priority = STOR_THREAD_PRIORITY_NORMAL
        if start_routine is None or not 0 <= priority < len(PRIORITIES):
            return STOR_STATUS_INVALID_PARAMETER, None
        if len(self._threads) >= self._most:
            return STOR_STATUS_UNSUCCESSFUL, None
        thread = SystemThread(start_routine, start_context, priority, self._everywhere)
        self._threads.append(thread)
        self._caller.count("system threads")
        self._later.soon(WORK_ITEM, self._run, thread)
        return STOR_STATUS_SUCCESS, thread

    def terminate_system_thread(self, thread_context: SystemThread | None = None) -> int:
        """StorPortTerminateSystemThread: end the calling thread, which is the only one that can be ended: nothing
        behind this call is reached. INVALID_PARAMETER: called from elsewhere (LB-04)."""
        current = self._current
        if current is None or thread_context not in (None, current) or self._caller.callback != WORK_ITEM:
            self._caller.offence("LB-04", "StorPortTerminateSystemThread of what is not the calling thread")
            return STOR_STATUS_INVALID_PARAMETER
        raise _Ended

    def set_priority_thread(self, thread_context: SystemThread | None, priority: int) -> int:
        """StorPortSetPriorityThread. INVALID_IRQL above PASSIVE_LEVEL; INVALID_PARAMETER: no thread of the adapter, or
        no such STOR_THREAD_PRIORITY. Threads take turns whatever their priority is."""
        if thread_context not in self._threads or not 0 <= priority < len(PRIORITIES):
            return STOR_STATUS_INVALID_PARAMETER
        thread_context.priority = priority
        return STOR_STATUS_SUCCESS

    def set_system_group_affinity_thread(
        self, thread_context: SystemThread | None, affinity: GroupAffinity | None
    ) -> tuple[int, GroupAffinity]:
        """StorPortSetSystemGroupAffinityThread: (STOR_STATUS_*, the affinity until now). `thread_context` None: of the
        calling thread. INVALID_PARAMETER: no thread of the adapter, or an affinity without a processor that is
        there."""
        mask = affinity.mask & self._everywhere.mask if affinity is not None and not affinity.group else 0
        if not mask or (thread_context is not None and thread_context not in self._threads):
            return STOR_STATUS_INVALID_PARAMETER, GroupAffinity(0)
        thread = thread_context if thread_context is not None else self._current
        before = self._affinity_of(thread)
        self._set_affinity(thread, GroupAffinity(mask))
        return STOR_STATUS_SUCCESS, before

    def revert_to_user_group_affinity_thread(
        self, thread_context: SystemThread | None, previous_affinity: GroupAffinity | None
    ) -> int:
        """StorPortRevertToUserGroupAffinityThread: back to what SetSystemGroupAffinityThread gave. INVALID_IRQL above
        DISPATCH_LEVEL; INVALID_PARAMETER as there."""
        return self.set_system_group_affinity_thread(thread_context, previous_affinity)[0]

    # -- waiting -----------------------------------------------------------------------------------------------

    def initialize_event(self, event: StorEvent | None, type: int, state: bool) -> int:
        """StorPortInitializeEvent: `type` STOR_NOTIFICATION_EVENT stays signaled, STOR_SYNCHRONIZATION_EVENT is so
        until a wait is satisfied. INVALID_PARAMETER: no event, or no such type."""
        if not isinstance(event, StorEvent) or type not in (STOR_NOTIFICATION_EVENT, STOR_SYNCHRONIZATION_EVENT):
            return STOR_STATUS_INVALID_PARAMETER
        event.type, event.signaled, event.ready = type, bool(state), True
        return STOR_STATUS_SUCCESS

    def set_event(self, event: StorEvent | None) -> int:
        """StorPortSetEvent: signaled. INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no event that was
        initialized."""
        if not isinstance(event, StorEvent) or not event.ready:
            return STOR_STATUS_INVALID_PARAMETER
        self._signal(event)
        return STOR_STATUS_SUCCESS

    def wait_for_single_object(self, object: Any, alertable: bool = False, timeout: int | None = None) -> int:
        """StorPortWaitForSingleObject: SUCCESS when an event is signaled, or a thread has ended; UNSUCCESSFUL when the
        time is over. INVALID_PARAMETER: neither.

        `timeout`: in 100 ns, negative from now, positive since 1601; 0 does not wait; None waits without end. At most
        at DISPATCH_LEVEL, and at PASSIVE_LEVEL when it may wait (LB-01: UNSUCCESSFUL). Only a system thread can wait:
        elsewhere `CannotWait` is raised instead.
        """
        if not isinstance(object, Waitable) or (isinstance(object, StorEvent) and not object.ready):
            return STOR_STATUS_INVALID_PARAMETER
        if timeout != 0 and self._caller.irql > PASSIVE_LEVEL:
            self._caller.offence("LB-01", "StorPortWaitForSingleObject with a time-out above APC_LEVEL")
            return STOR_STATUS_UNSUCCESSFUL
        if object.signaled:
            object.taken()
            return STOR_STATUS_SUCCESS
        if timeout == 0:
            return STOR_STATUS_UNSUCCESSFUL
        thread = self._current
        if thread is None or self._caller.callback != WORK_ITEM:
            raise CannotWait("StorPortWaitForSingleObject waits in a thread of StorPortCreateSystemThread only")
        wait = _Wait(thread)
        object.waiting.append(wait)
        if timeout is not None:
            hundreds = -timeout if timeout < 0 else max(0, timeout - self._system_time())

            def expired() -> None:
                if wait in object.waiting:
                    object.waiting.remove(wait)
                    self._later.now(WORK_ITEM, self._run, thread)

            wait.timer = self._clock.call_at(self._clock.now() + hundreds * 100, expired)
        thread.pause()
        return wait.status

    def _signal(self, what: Waitable) -> None:
        """The state changes, and who waited for it goes on: one of them for a synchronization event."""
        one = isinstance(what, StorEvent) and what.type == STOR_SYNCHRONIZATION_EVENT
        what.signaled = not (one and what.waiting)
        woken = what.waiting[:1] if one else what.waiting[:]
        del what.waiting[: len(woken)]
        for wait in woken:
            wait.status = STOR_STATUS_SUCCESS
            if wait.timer is not None:
                wait.timer.cancel()
            self._later.soon(WORK_ITEM, self._run, wait.thread)

    def _run(self, thread: SystemThread) -> None:
        if thread not in self._threads:
            return  # it was dismissed
        self._current = thread
        try:
            thread.run()
        finally:
            self._current = None
            if thread.signaled:
                self._threads.remove(thread)
                self._signal(thread)

    def _affinity_of(self, thread: SystemThread | None) -> GroupAffinity:
        return thread.affinity if thread is not None else self._affinity

    def _set_affinity(self, thread: SystemThread | None, affinity: GroupAffinity) -> None:
        if thread is not None:
            thread.affinity = affinity
        else:
            self._affinity = affinity


def calling_processor(threads: Threads) -> int:
    """Where the calling thread runs: the first of the processors it may run on."""
    mask = threads._affinity_of(threads._current).mask
    return (mask & -mask).bit_length() - 1
