"""Requests that were taken from the ring and are not answered: by the driver's name, by unit, by what they hold.

An SRB's `context` is a tuple: the driver's name for the request (its handle), the run it was taken in
(`hba.adapters.traffic`), and behind these what its type needs to answer it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hba.adapters.traffic import Run, Traffic
from hba.srb import Srb

MANY: Final = 64  # pieces of memory; fewer are not counted
# What all requests that are outstanding may have, and more than one can; those beyond wait on the ring. A piece costs
# some 400 bytes here.
MAX_PIECES: Final = 1 << 16


class InFlight:
    """Those of one adapter.

    `outstanding`  requests taken whose completion is not on the ring yet, nor waiting for room there
    `by_handle`    SRBs by the driver's name, for an abort; the latest when it uses a name twice
    `pieces`       of memory, of all requests that have many
    `answered`     runs of those that have ended and are not posted
    `full`         the next request on the ring has to wait until others have completed
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.outstanding = 0
        self.by_handle: dict[int, Srb] = {}
        self.pieces = 0
        self.full = False
        self._many: dict[Srb, int] = {}  # requests with many pieces of memory, and how many
        self.answered: list[Run] = []

    def room_for(self, srb: Srb, pieces: int) -> bool:
        """Whether a request with so many pieces (more than MANY) may be outstanding besides those that are."""
        self.full = self.pieces + pieces > MAX_PIECES
        if not self.full:
            self._many[srb] = pieces
            self.pieces += pieces
        return not self.full

    def let_go(self, srb: Srb) -> None:
        """It has none of its pieces any more."""
        self.pieces -= self._many.pop(srb, 0)
        self.full = False

    def ended(self, srbs: Sequence[Srb]) -> None:
        """The port is done with these, and their completions are made."""
        by_handle, many, answered = self.by_handle, self._many, self.answered.append
        for srb in srbs:
            context = srb.context
            handle: int = context[0]
            answered(context[1])
            if (latest := by_handle.pop(handle, srb)) is not srb:
                by_handle[handle] = latest
            if many:
                self.let_go(srb)
            srb.mdl = None  # whoever still keeps the SRB shall not keep the guest's memory mapped with it
