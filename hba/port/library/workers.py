"""Work items: routines that run at PASSIVE_LEVEL in a system worker thread (LB-04).

Sources: StorPortInitializeWorker, StorPortQueueWorkItem, StorPortFreeWorker, HW_WORKITEM (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.miniport.services import (
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_DEVICE_STATE,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import FIND_ADAPTER, WORK_ITEM
from hba.port.library.host import Host
from hba.port.library.later import Later

WorkItemCallback = Callable[[Any, Any], object]  # HW_WORKITEM: (context, worker)


class Worker:
    """An opaque work item."""

    __slots__ = ("freed", "queued")

    def __init__(self) -> None:
        self.queued = False
        self.freed = False


class Workers:
    """The system's worker threads, as far as this adapter uses them."""

    def __init__(self, port: Host, later: Later) -> None:
        self._port = port
        self._later = later
        self._handed_out: set[Worker] = set()

    def forget(self) -> None:
        self._handed_out.clear()

    def initialize_worker(self) -> tuple[int, Worker | None]:
        """StorPortInitializeWorker: (STOR_STATUS_*, work item). INVALID_IRQL above DISPATCH_LEVEL."""
        worker = Worker()
        self._handed_out.add(worker)
        return STOR_STATUS_SUCCESS, worker

    def queue_work_item(
        self, work_item_callback: WorkItemCallback | None, worker: Worker | None, context: Any = None
    ) -> int:
        """StorPortQueueWorkItem: have `work_item_callback(context, worker)` called at PASSIVE_LEVEL, without locks.

        INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no callback, or no work item of the port; BUSY: it is
        queued already; INVALID_DEVICE_STATE: the adapter is being removed.
        """
        if work_item_callback is None or not self._mine(worker, "StorPortQueueWorkItem"):
            return STOR_STATUS_INVALID_PARAMETER
        assert worker is not None
        if worker.queued:
            return STOR_STATUS_BUSY
        if not self._port.started and self._port.callback != FIND_ADAPTER:
            return STOR_STATUS_INVALID_DEVICE_STATE
        worker.queued = True

        def run() -> None:
            worker.queued = False  # it may be queued again from itself
            work_item_callback(context, worker)

        self._later.soon(WORK_ITEM, run)
        return STOR_STATUS_SUCCESS

    def free_worker(self, worker: Worker | None) -> int:
        """StorPortFreeWorker. INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no work item of the port; BUSY: it
        is queued; UNSUCCESSFUL: it is free already."""
        if isinstance(worker, Worker) and worker.freed:
            self._port.offence("LB-04", "StorPortFreeWorker of a work item that is free already")
            return STOR_STATUS_UNSUCCESSFUL
        if not self._mine(worker, "StorPortFreeWorker"):
            return STOR_STATUS_INVALID_PARAMETER
        assert worker is not None
        if worker.queued:
            return STOR_STATUS_BUSY
        worker.freed = True
        self._handed_out.discard(worker)
        return STOR_STATUS_SUCCESS

    def _mine(self, worker: object, routine: str) -> bool:
        if isinstance(worker, Worker) and worker in self._handed_out:
            return True
        self._port.offence("LB-04", f"{routine} of {worker!r}, which is no work item of the port, or not any more")
        return False
