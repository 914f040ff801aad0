"""The one interface of both port models, as the adapter above sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hba.srb import Srb


class PortDriver(ABC):
    """Takes SRBs from the adapter, hands them to a miniport by the rules of its model, and completes them.

    `submit` never blocks and never refuses for depth (SP-01). `srb.completion(srb)` is called exactly once for every
    SRB submitted, never from inside a miniport callback; it may be before `submit` returns. On completion
    `srb_status`, `scsi_status`, `sense_info_buffer` and `data_transfer_length` say what happened.

    What the upper edge may submit: EXECUTE_SCSI, ABORT_COMMAND (`next_srb` is the victim), RESET_LOGICAL_UNIT,
    RESET_DEVICE, RESET_BUS, FLUSH, SHUTDOWN, LOCK_QUEUE, UNLOCK_QUEUE, RELEASE_QUEUE, FLUSH_QUEUE, IO_CONTROL, POWER.
    Anything else ends with INVALID_REQUEST. A model without some reset escalates as its documents say.
    """

    model: str  # "scsiport" or "storport"

    @abstractmethod
    def start(self) -> None:
        """HwFindAdapter and HwInitialize. Raises `hba.errors.ConfigError` when the miniport refuses its adapter."""

    @abstractmethod
    def submit(self, srb: Srb) -> None: ...

    def begin_batch(self) -> None:  # noqa: B027 - doing nothing is a fine way to do it
        """Several requests are about to be submitted: the adapter's chip may execute them together."""

    def end_batch(self) -> None:  # noqa: B027
        """No more for now."""

    @abstractmethod
    def reset_adapter(self) -> None:
        """The guest reset the HBA itself: everything outstanding and queued completes with BUS_RESET before this
        returns, timers and holds are dropped, the miniport is initialised again. No reset hold time."""

    @abstractmethod
    def stop(self) -> None:
        """Shut down: everything outstanding completes (ABORTED), the miniport's adapter is stopped."""

    @abstractmethod
    def snapshot(self) -> dict[str, object]:
        """For `hba show queues`: adapter state, per-LU queues with their blocking reason, outstanding SRBs (age, CDB,
        where they are), configuration in force, counters. JSON-able."""
