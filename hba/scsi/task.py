"""A command at a logical unit (SAM: task): what comes in with it and what it ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hba.dma import DmaBuffer
from hba.errors import StorageError
from hba.native import mypyc_attr
from hba.storage.transfer import Transfer

if TYPE_CHECKING:
    from hba.scsi.unit import LogicalUnit

DATA_NONE: Final = 0
DATA_IN: Final = 1  # device to host
DATA_OUT: Final = 2  # host to device

# Task attributes (SAM-6 "Task attributes")
SIMPLE: Final = 0x20
HEAD_OF_QUEUE: Final = 0x21
ORDERED: Final = 0x22
ACA: Final = 0x24


INITIATOR: Final = 7  # the host adapter's own id on the bus


@mypyc_attr(allow_interpreted_subclasses=True)
class Task(Transfer):
    """One command. Made by the miniport (it is its SRB extension), executed by `ScsiBus.execute`.

    In:  cdb (16 bytes or fewer, any bit pattern), direction, data (None when there is none), attribute, initiator.
    Out: status (SAM status byte), sense (b"" unless CHECK CONDITION), transferred (bytes really moved),
         overrun (bytes there was no room for), response (0, or one of the bus-level RESPONSE_* below).
    Of a plain read or write, offset says where its blocks are (`hba.scsi.plan`).
    """

    cdb: bytes = b""
    direction = DATA_NONE
    attribute = SIMPLE
    initiator = INITIATOR

    status = 0
    sense = b""
    transferred = 0
    response = 0
    overrun = 0  # bytes the command had for the initiator beyond the room in `data`
    aborted = False

    done: Callable[[Task], None] | None = None  # called once, later, when `execute` did not say that it has ended
    owner: Any = None  # the miniport's: its SRB
    message = 0  # of the host adapter: which of its messages the end raises
    unit: LogicalUnit | None = None  # the target's: the logical unit that has it
    state: Any = None  # the target's: private progress

    def __init__(self, cdb: bytes, direction: int = DATA_NONE, data: DmaBuffer | None = None) -> None:
        self.cdb = cdb
        self.direction = direction
        self.data = data

    def failed(self, error: StorageError) -> None:
        assert self.unit is not None  # that asked for it
        self.unit.storage_failed(self, error)

    def waits(self) -> None:
        assert self.unit is not None
        self.unit.pending_io(self)

    def answered(self, error: StorageError | None) -> None:
        """What a back end calls that did not finish at once: the unit that has the task ends it."""
        unit = self.unit
        if unit is not None:  # aborted meanwhile: it has ended already
            unit.finish_io(self, error)


class HostTask(Task):
    """Something the host has the unit do when its turn comes, as an ordered task: after what is under way, before what
    comes. No initiator hears of it: `done` is called, and `error` says whether it went well."""

    error: StorageError | None = None

    def __init__(self, steps: Callable[[], Any], done: Callable[[HostTask], None]) -> None:
        """`steps()` makes what a command's handler may return (see `hba.scsi.server`)."""
        super().__init__(b"")
        self.steps = steps
        self.attribute = ORDERED
        self.initiator = -1  # none that could be preempted
        self.done = done  # type: ignore[assignment]


# Task.response: what the transport, not the device server, has to say
RESPONSE_COMPLETE: Final = 0
RESPONSE_NO_TARGET: Final = 1  # selection time-out
RESPONSE_NO_LUN: Final = 2  # no such unit, and the target itself does not answer for it
RESPONSE_ABORTED: Final = 3
RESPONSE_RESET: Final = 4
