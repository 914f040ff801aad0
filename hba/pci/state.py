"""What is saved of a PCI function, and who stands behind it and saves the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

Registers = dict[str, int]  # value by name


class InterruptState(Struct, forbid_unknown_fields=True):
    """`line`: the level of INTA#. `pending`: a bit for each vector of "msi" and "msix" that has not been sent."""

    line: bool
    pending: dict[str, int]


class FunctionState(Struct, forbid_unknown_fields=True):
    """`blocks`: the registers behind the BARs; `memory`: the plain memory there. Both by `BAR+OFFSET`."""

    config: Registers
    blocks: dict[str, Registers]
    memory: dict[str, bytes]
    interrupts: InterruptState


class Keeper(Protocol):
    """Brings what is behind a function to rest, and saves all of it. `hba.adapters.keeper` makes one for every
    adapter."""

    def uses(self, iova: int, size: int) -> bool:
        """A request that is under way may touch memory in a range, in place."""
        ...

    def rest(self, done: Callable[[str], None], *, force: bool = False, flush: bool = False) -> None:
        """Take nothing new of the guest's, and wait for the end of what is under way; `force`: bring it about after a
        while. With `flush` it is on stable storage then, too. `done("")` when that is so, else with why it cannot
        be."""
        ...

    def release(self) -> None:
        """Take what the guest has asked for again; also ends a `rest` that is not done yet, which then never is."""
        ...

    def save(self) -> bytes:
        """The whole state. Raises ValueError when there is none that could be restored elsewhere."""
        ...

    def restore(self, state: bytes) -> None:
        """Raises ValueError, and then something of it may have been taken over."""
        ...
