"""The rings a driver has set up, as the mechanism sees them; a type says where they lie and what is in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from hba.native import mypyc_attr

MASK32: Final = 0xFFFFFFFF
GIVEN_UP, NOT_YET = -1, -2  # generations the guest's memory never has


@mypyc_attr(allow_interpreted_subclasses=True)
class Mailbox(ABC):
    """Where a driver is told of units that come and go. All of it raises `DmaFault`.

    `capacity`  messages that can lie there and not be taken.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    @abstractmethod
    def put(self, change: str, target: int, lun: int) -> bool:
        """A unit was "added" or "removed"; False when there is no room."""

    @abstractmethod
    def taken(self) -> int:
        """A number that changes when the driver takes messages."""

    @abstractmethod
    def unread(self) -> int:
        """Messages it has not taken; more than `capacity` when what it says of that makes no sense."""

    @abstractmethod
    def position(self) -> str:
        """In words, what it says of that."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Rings(ABC):
    """One set-up by one driver: requests to be taken, completions to be posted.

    `generation`       that of the guest's memory when the rings' pages were looked up last; GIVEN_UP: never again;
                       NOT_YET: they are those of an adapter that was saved, and not used yet
    `request_cons`     the next request to be taken, `completion_prod` the next completion to be posted: numbers that
                       run freely, of 32 bits
    `cheap`            a look is a few accesses to memory, no message
    `entries`          requests that have room on the ring
    `most_outstanding` requests a driver may have in flight: it must be able to get a completion for each
    `most_pending`     requests that were ready when the ring was looked at, at most
    `mailbox`          None: the driver is told of no units, `no_mailbox` says why
    """

    def __init__(self, generation: int, entries: int, most_outstanding: int) -> None:
        self.generation = generation
        self.cheap = False
        self.entries = entries
        self.most_outstanding = most_outstanding
        self.request_cons = 0
        self.completion_prod = 0
        self.most_pending = 0
        self.mailbox: Mailbox | None = None
        self.no_mailbox = ""

    # -- requests -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def ready(self) -> int:
        """Requests that were not taken yet; more than `entries` when what the driver says makes no sense. Raises
        `DmaFault`."""

    def absurd(self, ready: int) -> str:
        """In words, how that makes no sense."""
        return f"{ready} requests are said to be ready; the ring has {self.entries} entries"

    @abstractmethod
    def taken(self) -> None:
        """All that was to be taken is: tell the driver, if it can see that. Raises `DmaFault`."""

    # -- completions --------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shared(self) -> bool:
        """Completions can be posted without a message to the client."""

    @abstractmethod
    def post(self, fields: list[int]) -> None:
        """Post completions, as many as there is room for, and move `completion_prod`. Raises `DmaFault`; what came
        before is posted. `fields`: those of `RingAdapter.answer`, one completion after the other."""

    # -- the driver ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def standing(self) -> tuple[int, int]:
        """(in flight, unseen): requests the driver has given away and whose completions it has not taken; completions
        that are posted and that it has not taken. Raises `DmaFault`."""

    @abstractmethod
    def rebind(self) -> None:
        """Look the pages up (again), as the maps are now; note `generation` and `cheap`. Raises `DmaFault`."""
