"""What every emulated HBA is to the rest of the program."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypedDict

from msgspec import Struct

from hba.native import mypyc_attr
from hba.pci.function import PciFunction


class Announcement(TypedDict):
    """Whether the guest has been told of a change.

    state: "posted": nothing is left to tell, "waiting": it will be told, "none": it will not.
    why: of the last two.
    """

    state: str
    why: str


@mypyc_attr(allow_interpreted_subclasses=True)
class Adapter(ABC):
    """One HBA: a PCI function in front, a port driver behind. Made by `hba.server.assemble`."""

    type: str  # as the configuration spells it
    function: PciFunction  # what the engine serves

    @abstractmethod
    def start(self) -> None:
        """Power on. Raises `hba.errors.HbaError` when the port or its miniport cannot start."""

    @abstractmethod
    def stop(self) -> None:
        """Power off: end what is outstanding, release everything. Idempotent."""

    on_unreachable: Callable[[str], None] | None = None  # the guest's rings cannot be reached: which, why, what to do
    on_untold: Callable[[str], None] | None = None  # the guest does not hear what it is told: how that shows

    # Migration: `hba.adapters.keeper` calls these. Registers, config space, interrupts and units are not theirs.

    held = False  # nothing of the guest's may be taken: everything is brought to rest
    state_type: ClassVar[builtins.type[Struct]]  # what `save` gives, checked by its types when it comes back

    @property
    @abstractmethod
    def unanswered(self) -> int:
        """Requests that were taken and whose answer is not ready for the guest yet."""

    @abstractmethod
    def uses(self, iova: int, size: int) -> bool:
        """A request that was taken may touch memory in a range, in place. What goes by message is the client's own
        doing."""

    @abstractmethod
    def settle(self) -> None:
        """Everything has been answered: leave nothing in the guest's memory, or to be said to it, that only an adapter
        knows that goes on (as a wish not to be kicked)."""

    @abstractmethod
    def save(self) -> Struct:
        """What the guest's driver has set up, and what waits for it. Of an adapter at rest."""

    @abstractmethod
    def restore(self, state: Struct) -> None:
        """Go on where `save` was called, with a state of `state_type` from anybody: raises ValueError for what no
        driver could have set up. Memory cannot be reached yet; `PciFunction.on_resume` tells when it can."""

    @abstractmethod
    def hot_plug(self, change: str, target: int, lun: int, known: bool = True) -> None:
        """A unit was "added" to or "removed" from the bus: tell the guest, if the interface has a way.

        `known`: of a unit that was removed, whether the guest may have found it by itself.
        """

    @abstractmethod
    def announcement(self, target: int, lun: int) -> Announcement:
        """What became of the last `hot_plug` of an address."""

    @abstractmethod
    def snapshot(self) -> dict[str, object]:
        """For `hba show`: registers decoded, rings, counters. JSON-able."""
