"""The one interface of both port models, as the adapter above sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from hba.native import mypyc_attr
from hba.srb import Completion, Srb


@mypyc_attr(allow_interpreted_subclasses=True)
class PortDriver(ABC):
    """Takes SRBs from the adapter, hands them to a miniport by the rules of its model, and completes them.

    `submit_all` never blocks and never refuses for depth (SP-01). `srb.completion(srb)` is called exactly once for
    every SRB submitted, never from inside a miniport callback; it may be before `submit_all` returns. On completion
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
    def submit_all(self, srbs: Sequence[Srb]) -> None:
        """Take a batch of requests, which the adapter's chip may execute together."""

    def submit(self, srb: Srb) -> None:
        """A batch of one."""
        self.submit_all((srb,))

    def complete_together(self, one: Completion, many: Callable[[Sequence[Srb]], None]) -> None:
        """SRBs that end together, all with `one` for their `completion`, may be handed to `many` instead, in order."""
        self._one, self._many = one, many

    _one: Completion | None = None
    _many: Callable[[Sequence[Srb]], None]

    @abstractmethod
    def reset_adapter(self) -> None:
        """The guest reset the HBA itself: everything outstanding and queued completes with BUS_RESET before this
        returns, timers and holds are dropped, the miniport is initialised again. No reset hold time."""

    @property
    def idle(self) -> bool:
        """Nothing is queued or outstanding, of the port's own requests neither."""
        return True

    @abstractmethod
    def stop(self) -> None:
        """Shut down: everything outstanding completes (ABORTED), the miniport's adapter is stopped."""

    def unload(self) -> None:  # noqa: B027 - most miniports are told nothing
        """After `stop`: that was for good, the adapter is removed."""

    @abstractmethod
    def snapshot(self) -> dict[str, object]:
        """For `hba show queues`: adapter state, per-LU queues with their blocking reason, outstanding SRBs (age, CDB,
        where they are), configuration in force, counters. JSON-able."""
