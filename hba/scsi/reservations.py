"""Who may use the unit: RESERVE/RELEASE (SPC-2) and persistent reservations (SPC-4 "Reservations").

The state and its rules; the commands that change it are in `hba.scsi.spc.persistent_reserve` and
`hba.scsi.spc.reserve_release`. An I_T nexus is an initiator here: a unit has one target port.
"""

from __future__ import annotations

from hba.scsi.attention import Attentions
from hba.scsi.command import ALLOWED, READS, Command
from hba.scsi.sense import RESERVATIONS_RELEASED
from hba.scsi.state import SavedState
from hba.scsi.task import Task
from hba.scsi.unit_state import ReservationState
from hba.storage.backend import Done

WRITE_EXCLUSIVE = 1
EXCLUSIVE_ACCESS = 3
WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8

TYPES = frozenset((1, 3, 5, 6, 7, 8))
ALL_REGISTRANTS = frozenset((7, 8))
REGISTRANTS = frozenset((5, 6, 7, 8))  # every registered nexus may do everything
_WRITE_ONLY = frozenset((1, 5, 7))  # readers are free

MAX_REGISTRATIONS = 256

_SECTION = "reservations"


Snapshot = tuple[dict[int, int], int | None, int, int, bool]  # keys, holder, type, generation, APTPL


class Reservations:
    """The reservation state of one unit."""

    def __init__(self, attentions: Attentions, state: SavedState) -> None:
        self._attentions = attentions
        self._state = state
        self.legacy_holder: int | None = None
        self.keys: dict[int, int] = {}  # registered initiators and their keys
        self.holder: int | None = None
        self.type = 0
        self.generation = 0
        self.aptpl = False
        self._load()

    @property
    def persistent(self) -> bool:
        """A persistent reservation is held (for the all registrants types: while anybody is registered)."""
        return self.type != 0

    @property
    def active(self) -> bool:
        return self.legacy_holder is not None or self.type != 0

    def holds(self, initiator: int) -> bool:
        if self.type in ALL_REGISTRANTS:
            return initiator in self.keys
        return self.type != 0 and self.holder == initiator

    def conflict(self, command: Command, task: Task) -> bool:
        """Whether the task must end with RESERVATION CONFLICT."""
        initiator = task.initiator
        if self.legacy_holder is not None:
            return initiator != self.legacy_holder and command.reservation_access(task.cdb) != ALLOWED
        if not self.type or self.holds(initiator):
            return False
        if self.type in REGISTRANTS and initiator in self.keys:
            return False
        access = command.reservation_access(task.cdb)
        if access == ALLOWED:
            return False
        return not (access == READS and self.type in _WRITE_ONLY)

    # -- changes -----------------------------------------------------------------------------------------------------

    def register(self, initiator: int, key: int) -> None:
        """Register or change a key (not 0)."""
        self.keys[initiator] = key
        self.generation = (self.generation + 1) & 0xFFFFFFFF

    def unregister(self, initiator: int) -> None:
        """Remove a registration; a reservation that hangs on it goes too."""
        self._forget(initiator)
        self.generation = (self.generation + 1) & 0xFFFFFFFF

    def _forget(self, initiator: int) -> None:
        self.keys.pop(initiator, None)
        if not self.type:
            return
        if self.type in ALL_REGISTRANTS:
            if not self.keys:
                self._drop()
        elif self.holder == initiator:
            released = self.type
            self._drop()
            if released in REGISTRANTS:
                self._tell(RESERVATIONS_RELEASED, but=initiator)

    def reserve(self, initiator: int, kind: int) -> None:
        self.holder = initiator
        self.type = kind

    def release(self, initiator: int) -> None:
        released = self.type
        self._drop()
        if released in REGISTRANTS:
            self._tell(RESERVATIONS_RELEASED, but=initiator)

    def _drop(self) -> None:
        self.holder = None
        self.type = 0

    def clear(self) -> None:
        self._drop()
        self.keys.clear()
        self.generation = (self.generation + 1) & 0xFFFFFFFF

    def remove(self, initiators: list[int]) -> None:
        """Take registrations away (PREEMPT); does not touch the reservation."""
        for initiator in initiators:
            self.keys.pop(initiator, None)

    def snapshot(self) -> Snapshot:
        """What `restore` takes back when a change cannot be saved."""
        return dict(self.keys), self.holder, self.type, self.generation, self.aptpl

    def restore(self, snapshot: Snapshot) -> None:
        self.keys, self.holder, self.type, self.generation, self.aptpl = snapshot

    def _tell(self, condition: int, but: int) -> None:
        for initiator in self.keys:
            if initiator != but:
                self._attentions.establish(condition, initiator)

    def reset(self, power_loss: bool) -> None:
        """Resets end RESERVE; only a power loss ends persistent ones, and only without APTPL."""
        self.legacy_holder = None
        if power_loss and not self.aptpl:
            self._drop()
            self.keys.clear()
            self.generation = 0

    def export(self) -> ReservationState:
        aptpl = self.aptpl and self.can_persist
        return ReservationState(self.legacy_holder, dict(self.keys), self.holder, self.type, self.generation, aptpl)

    def take_over(self, state: ReservationState) -> None:
        """Those that `export` gave, perhaps in another process. Whether they outlive a loss of power is for this one to
        say, which has a place to keep them or has none."""
        self.legacy_holder = state.legacy_holder
        snapshot = (dict(state.keys), state.holder, state.type, state.generation, state.aptpl and self.can_persist)
        self.restore(snapshot)

    # -- persistence -------------------------------------------------------------------------------------------------

    @property
    def can_persist(self) -> bool:
        return self._state.available

    def save(self, done: Done) -> bool:
        """Store what must survive a power loss: True when that is done, False when `done` will be called. Raises
        `StorageError`."""
        if not self.aptpl:
            return self._state.put(_SECTION, None, done)
        saved = {
            "keys": {str(initiator): f"{key:016x}" for initiator, key in self.keys.items()},
            "holder": self.holder,
            "type": self.type,
            "generation": self.generation,
        }
        return self._state.put(_SECTION, saved, done)

    def _load(self) -> None:
        saved = self._state.get(_SECTION)
        if not isinstance(saved, dict):
            return
        try:
            self.keys = {int(initiator): int(key, 16) for initiator, key in saved["keys"].items()}
            self.holder = None if saved["holder"] is None else int(saved["holder"])
            self.type = int(saved["type"]) if int(saved["type"]) in TYPES else 0
            self.generation = 0  # SPC-4: PRGENERATION starts at zero after a power on
            self.aptpl = True
        except (KeyError, TypeError, ValueError, AttributeError):
            self.keys, self.holder, self.type = {}, None, 0

    def describe(self) -> dict[str, object]:
        return {
            "legacy_holder": self.legacy_holder,
            "keys": {str(initiator): f"0x{key:016x}" for initiator, key in self.keys.items()},
            "holder": self.holder,
            "type": self.type,
            "generation": self.generation,
            "aptpl": self.aptpl,
        }
