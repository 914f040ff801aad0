"""What the port knows of one SRB and of the logical unit it is for; each names the other.

Of an SRB: who owns it, since when, and what happened to it (OW-01, OW-02).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, Self, TypeVar

from hba.clock import MS, S
from hba.miniport.memory import SrbExtension
from hba.miniport.seen import SeenSrb
from hba.srb import Srb

# The ownership life cycle. It only ever goes forward; a busy retry starts a new `Request` for the same SRB.
QUEUED: Final = 0  # the port has it, waiting
ISSUED: Final = 1  # the miniport owns it (hw_build_io or hw_start_io was entered)
NOTIFIED: Final = 2  # the miniport said RequestComplete: the port owns it again
COMPLETED: Final = 3  # it went up: `srb.completion` was called, or is being called
STATE_NAMES = ("QUEUED", "ISSUED", "NOTIFIED", "COMPLETED")

ALL: Final = 0xFF  # LUN (and target, path) value that means "all" (OW-10, ER-15)


U = TypeVar("U", bound="PortUnit", covariant=True)


class RequestOf(Generic[U]):
    """One trip of an SRB through the port, to a unit of the model's kind.

    Defaults are class attributes, so making one is cheap."""

    state = QUEUED
    number = 0  # SRBs in the order the port got them, from 1; what the trace calls it
    issued_at = 0  # ns, when the miniport got it
    retries = 0  # busy retries so far
    frozen = False  # its error froze the queue of its unit: SRB_STATUS_QUEUE_FROZEN goes up with it
    stage = 0  # the model's own progress mark
    child: Srb | None = None  # the part of a split transfer that is under way (hba.port.transfers)
    late = False  # a reset the port gave up waiting for: what is active when it ends may be newer
    tag = 0  # SCSI Port: the tag it holds; 0: none
    length_at_issue = 0  # what the miniport may not exceed (OW-07, OW-06)
    sense_at_issue = 0
    extension: SrbExtension | None = None  # lent to it, if the miniport has asked for such
    logged = False  # the miniport called log_error for it (ER-02)
    # of who watches
    lent: Srb | None = None  # a command the miniport may read as it is
    moved = 0  # bytes the chip moved for it, as far as the DMA windows know (OW-07, ST-13)
    history: list[tuple[int, str, object]] | None = None  # (ns, what happened, detail)

    unit: U | None = None  # where it is for; None: not known yet, or no address at all

    def __init__(self, srb: Srb) -> None:
        self.srb = srb
        self.handed: SeenSrb = srb  # what the miniport gets as `srb`: it, or what stands for it

    def story(self) -> tuple[str, ...]:
        """What happened to it so far, one line each."""
        events = list(self.history or ())
        if self.issued_at:
            events.append((self.issued_at, "start_io", None))
            events.sort(key=lambda event: event[0])
        return tuple(
            f"{time / S:.6f} {what}" + (f" {detail}" if detail is not None else "") for time, what, detail in events
        )


class PortUnit:
    """State of one logical unit at the port. Times are ns on the port's clock; None: not so."""

    __slots__ = (
        "active",
        "completed",
        "extension",
        "lock_owner",
        "locked_at",
        "lun",
        "path",
        "started",
        "target",
        "timeout_left",
    )

    def __init__(self, path: int, target: int, lun: int) -> None:
        self.path = path
        self.target = target
        self.lun = lun
        self.active: dict[RequestOf[Self], None] = {}  # what the miniport owns, oldest first
        self.timeout_left = -1  # ticks until the oldest active request is overdue (ER-09); -1: nothing outstanding
        self.locked_at: int | None = None
        self.lock_owner: Any = None
        self.extension: Any = None  # the miniport's logical unit extension
        self.started = 0
        self.completed = 0

    @property
    def name(self) -> str:
        return f"{self.path}:{self.target}:{self.lun}"

    def lock(self, now: int, owner: Any) -> None:
        """LOCK_QUEUE by `owner` (None: nobody says who); who has locked it first keeps it."""
        if self.locked_at is None:
            self.locked_at = now
            self.lock_owner = owner

    def unlock(self) -> None:
        self.locked_at = None
        self.lock_owner = None

    def is_anothers(self, owner: Any) -> bool:
        """Q-11: whether the lock is another driver's than `owner`'s, who wants to pass or open it."""
        return owner is not None and self.lock_owner is not None and owner is not self.lock_owner


Request = RequestOf[PortUnit]  # of whatever model
K = TypeVar("K", bound=PortUnit)


def owned(units: Iterable[K], path: int, target: int = ALL, lun: int = ALL) -> list[RequestOf[K]]:
    """What the miniport owns at an address; ALL is the wildcard (ER-15)."""
    return [
        request
        for unit in units
        if path in (ALL, unit.path) and target in (ALL, unit.target) and lun in (ALL, unit.lun)
        for request in unit.active
        if request.state == ISSUED
    ]


def live_request(srb: SeenSrb | None) -> RequestOf[Any] | None:
    """What the port has for an SRB: of a split transfer the part that is under way."""
    request: RequestOf[Any] | None = srb._port if srb is not None else None
    while request is not None and request.child is not None:
        request = request.child._port
    return request


def snapshot(request: Request, now: int) -> dict[str, object]:
    """For `hba show queues`."""
    srb = request.srb
    return {
        "number": request.number,
        "where": STATE_NAMES[request.state],
        "function": srb.function,
        "cdb": srb.cdb.hex(),
        "length": srb.data_transfer_length,
        "tag": srb.queue_tag,
        "age_ms": (now - request.issued_at) // MS if request.issued_at else None,
        "retries": request.retries,
    }


SrbState = tuple[int, int, int, int, bytes, int, int, int]  # as `state_of` makes it


def state_of(srb: SeenSrb) -> SrbState:
    """What there is to tell of an SRB now, for words that are made later."""
    return (
        srb.path_id,
        srb.target_id,
        srb.lun,
        srb.function,
        srb.cdb,
        srb.data_transfer_length,
        srb.srb_status,
        srb.scsi_status,
    )


def in_words(state: SrbState) -> str:
    """One line for findings, traces and diagnoses: address, function or CDB, status."""
    path, target, lun, function, cdb, length, srb_status, scsi_status = state
    what = f"cdb {cdb.hex()}" if function == 0 else f"function {function:#04x}"
    return f"{path}:{target}:{lun} {what} length {length} status {srb_status:#04x}/{scsi_status:#04x}"


def describe(srb: SeenSrb) -> str:
    return in_words(state_of(srb))
