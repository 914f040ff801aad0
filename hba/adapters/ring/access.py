"""The rings a driver has set up, whether their memory can be used now, and what is said when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from hba.adapters.ring.rings import GIVEN_UP, Rings
from hba.adapters.ring.watcher import RingWatcher
from hba.errors import DmaFault
from hba.pci.memory import GuestMemory
from hba.pci.unreachable import explain

R = TypeVar("R", bound=Rings)


class RingAccess(Generic[R]):
    """One adapter's. `tell` gets each reason why memory cannot be reached.

    `rings`        what the driver has set up, None before it and after a reset
    `fault`        why nothing is taken from them any more (until the next reset or set-up)
    `unreachable`  which memory the driver gave that cannot be reached, and why (cleared likewise)
    """

    def __init__(self, memory: GuestMemory, tell: Callable[[str], None]) -> None:
        self.memory = memory
        self.rings: R | None = None
        self.fault = ""
        self.unreachable = ""
        self.watchers: tuple[RingWatcher, ...] = ()
        self._tell = tell
        self._untold = False  # the watchers have not heard of the rings yet

    def set_up(self, rings: R) -> None:
        self.rings = rings
        self.fault = self.unreachable = ""
        self._tell_watchers()

    def go_on_with(self, rings: R, fault: str) -> None:
        """These were set up elsewhere, before the adapter was saved; their memory cannot be reached yet."""
        self.rings = rings
        self.fault = fault
        self._untold = True

    def _tell_watchers(self) -> None:
        self._untold = False
        for watcher in self.watchers:
            watcher.set_up()

    def forget(self) -> None:
        """No memory of the rings is touched after this."""
        if self.rings is not None:
            self.rings.generation = GIVEN_UP  # whoever still works with them stops
        self.rings = None
        self.fault = self.unreachable = ""

    def reachable(self, rings: R, told: bool = False) -> bool:
        """Whether the memory the rings are in may be used now. `told`: the driver waits for it."""
        if not self.memory.enabled:
            return False
        if rings.generation == self.memory.generation:
            return True
        try:
            rings.rebind()
        except DmaFault as fault:
            if told:
                self.cannot_reach("its rings", fault)
            return False
        self.unreachable = ""
        if self._untold:
            self._tell_watchers()
        return True

    def cannot_reach(self, what: str, fault: DmaFault) -> None:
        """The guest waits for something that cannot be done: say why, once for each reason."""
        why = f"{what}: {explain(self.memory, fault)}"
        if why != self.unreachable:
            self.unreachable = why
            self._tell(why)

    def stop(self, why: str, fault: DmaFault | None = None) -> None:
        """Take nothing from these rings any more."""
        self.fault = why
        if fault is not None:
            self.cannot_reach("its rings", fault)
        for watcher in self.watchers:
            watcher.stopped(why)
