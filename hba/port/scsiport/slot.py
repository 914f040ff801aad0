"""An adapter under SCSI Port: its queue and slot, tags, what was latched, and why nothing is started.

The rules beside this module judge this state and change it, and call nobody. What is to be done at the miniport they
leave here for the driver: a bus reset in `resets_wanted`, as it leaves what the miniport notified for its DPC (SP-09).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from hba.clock import Clock
from hba.miniport.config import PortConfigurationInformation
from hba.port.buffers import BufferPolicy
from hba.port.ledger import Ledger
from hba.port.memory import PortMemory
from hba.port.reports import Reports
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.scsiport.unit import NOT_READY, ScsiPortRequest, ScsiPortUnit
from hba.srb import SP_UNTAGGED

# Slot.gate
BUSY: Final = 1  # SP-02: until NextRequest or NextLuRequest
DISCONNECT: Final = 2  # SP-14: a DISABLE_DISCONNECT request has the bus
HOLD: Final = 4  # ER-12: after a bus reset
NO_TAG: Final = 8  # until the next completion

# ScsiPortRequest.stage
BYPASS: Final = 2  # it was put into the adapter's queue past its unit's


class Slot:
    """One adapter's (SP-02, SP-03). `units` is the port's, by address."""

    def __init__(
        self,
        options: ScsiPortConfig,
        clock: Clock,
        reports: Reports,
        ledger: Ledger[ScsiPortUnit],
        units: dict[int, ScsiPortUnit],
        memory: PortMemory,
    ) -> None:
        self.options = options
        self.clock = clock
        self.reports = reports
        self.ledger = ledger
        self.units = units
        self.memory = memory
        self.queue: deque[ScsiPortRequest] = deque()
        self.gate = 0  # why nothing is started: BUSY, DISCONNECT, HOLD, NO_TAG; 0 is READY
        self.busy_with: ScsiPortRequest | None = None  # the one that made it BUSY
        self.busy_age = 0  # ticks it has been BUSY with that one (ER-09)
        self.busy_seen = 0  # number of the one that was busy at the last tick
        self.disconnect_owner: ScsiPortRequest | None = None  # SP-14: holds the bus until it completes
        self.hold_why = ""  # HOLD
        self.free_tags: list[int] = []

        # what the miniport notified, and what the rules want done, until the DPC (SP-09)
        self.next_latched = False
        self.rare_latched = False
        self.ready_units: list[ScsiPortUnit] = []
        self.timer_latched: tuple[Callable[[], None], int] | None = None
        self.reset_latched: set[int] = set()
        self.enable_latched: Callable[[], None] | None = None
        self.disable_latched: Callable[[], None] | None = None
        self.resets_wanted: list[tuple[int, str, ScsiPortRequest | None]] = []  # path, why, who is answered by it

        # the configuration in force
        self.info = PortConfigurationInformation()
        self.fixed_by_extension: tuple[object, ...] | None = None  # CF-09
        self.overlap = False  # tagged queuing or MultipleRequestPerLu (CF-13)
        self.mapped = False
        self.adjust = False  # some option changes SRBs on the way down (CF-13, ER-05)
        poison = options.forbidden_access == "poison"
        self.opaque_policy = BufferPolicy("CF-02", "that is not mapped (MapBuffers FALSE)", poison, reports.offence_of)
        self.mapped_policy: BufferPolicy | None = None

    @property
    def busy(self) -> bool:
        """A request was started, and neither NextRequest nor NextLuRequest has come (SP-02)."""
        return bool(self.gate & BUSY)

    def make_ready(self) -> None:
        """The slot is opened without the miniport having said so."""
        self.gate &= ~BUSY
        self.busy_with = None

    def pull(self, unit: ScsiPortUnit) -> None:
        """The unit's next request goes to the adapter's queue, unless something inhibits it (Q-03)."""
        if unit.queue.entries and not unit.holds and len(unit.active) < unit.depth:
            unit.holds = NOT_READY
            self.queue.append(unit.queue.pop())

    def restart(self, unit: ScsiPortUnit) -> None:
        """Something that held the unit is gone."""
        if unit.ready:
            self.pull(unit)
        self.ledger.due = True

    def ahead(self, request: ScsiPortRequest) -> None:
        """To the head of the adapter's queue, whatever holds the unit."""
        request.stage = BYPASS
        self.queue.appendleft(request)
        self.ledger.due = True

    def any_tag(self) -> None:
        """Whoever waited for a tag at the head of the queue may be gone: look again."""
        self.gate &= ~NO_TAG

    def fill_tags(self) -> None:
        """Q-15: twice NumberOfRequests. QueueTag is a byte whose FF means untagged; tag 0 is not given out (Q-14)."""
        tags = min(2 * self.options.number_of_requests, SP_UNTAGGED - 1)
        self.free_tags = list(range(tags, 0, -1))

    def want_reset(self, path: int, why: str, request: ScsiPortRequest | None = None) -> None:
        """ER-10: have hw_reset_bus called, and `request` answered with what it says. Nothing is started until then."""
        self.gate |= HOLD
        self.resets_wanted.append((path, why, request))
        self.rare_latched = True
        self.ledger.due = True

    def forget(self) -> None:
        """The adapter was reset: nothing it said before counts, and all tags are back."""
        self.queue.clear()
        self.fill_tags()
        self.next_latched = False
        self.ready_units.clear()
        self.timer_latched = None
        self.reset_latched.clear()
        self.resets_wanted.clear()
        self.enable_latched = None
        self.disconnect_owner = None
        self.busy_with = None
        self.gate &= ~(BUSY | DISCONNECT | NO_TAG)
